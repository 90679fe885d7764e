"""Views: tiles against the whole, and the guided filter against a plain one, window by window."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from models.hypercolumn import box_mean, resample
from models.views import blended, enlarged, guided_filter


@given(
    sides=st.tuples(st.integers(9, 150), st.integers(9, 150)),
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    tile=st.none() | st.integers(4, 80),
    cell=st.integers(1, 4),
)
def test_tiles_of_what_depends_on_no_surroundings_are_the_whole(sides, height, width, tile, cell):
    image = torch.rand(3, *sides, generator=torch.Generator().manual_seed(0))

    def colours(window: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(window[None], cell, ceil_mode=True)[0]

    rows = -(-sides[0] // cell)
    parts = list(enlarged(blended(colours, image, 3, tile, cell), rows, (height, width)))
    assert all(part.shape[1] for part in parts)
    whole = colours(image)
    expected = resample(whole[None], (height, width))[0]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=0, atol=1e-4)


def plain_filter(values, guide, radius, epsilon):
    """As in the paper, at the photo's size: least squares in each window, then their mean."""
    height, width = values.shape[1:]
    places = [(y, x) for y in range(height) for x in range(width)]

    def window(y: int, x: int) -> tuple[slice, ...]:
        return ..., *(slice(max(0, at - radius), at + radius + 1) for at in (y, x))

    slopes, offsets = values.new_empty(len(values), 3, height, width), torch.empty_like(values)
    for y, x in places:
        colours, inside = (image[window(y, x)].flatten(1) for image in (guide, values))
        joint = torch.cov(torch.cat([inside, colours]), correction=0)
        spread = joint[-3:, -3:] + epsilon * torch.eye(3).to(values)
        slopes[..., y, x] = joint[:-3, -3:] @ spread.inverse()
        offsets[:, y, x] = inside.mean(1) - slopes[..., y, x] @ colours.mean(1)
    result = torch.empty_like(values)
    for y, x in places:
        slope, offset = (part[window(y, x)].mean((-2, -1)) for part in (slopes, offsets))
        result[:, y, x] = slope @ guide[:, y, x] + offset
    return result


@pytest.mark.parametrize("size, radius", [((6, 9), 1), ((6, 9), 3), ((1, 4), 1)])
def test_on_a_grid_of_the_photos_size_it_is_the_guided_filter(size, radius):
    generator = torch.Generator().manual_seed(0)
    both = torch.rand(2, 7, *size, dtype=torch.float64, generator=generator)
    values, guide = both[:, :4], both[:, 4:]
    found = guided_filter(values, guide, radius, 0.01)
    for index in range(2):
        expected = plain_filter(values[index], guide[index], radius, 0.01)
        torch.testing.assert_close(found[index], expected)


def test_a_blurred_edge_becomes_that_of_the_photo():
    guide = torch.full((1, 3, 64, 64), 40, dtype=torch.uint8)
    guide[..., 35:] = 210
    right = (torch.arange(64) >= 35).float()
    coarse = box_mean(F.avg_pool2d(right.expand(1, 1, 64, 64), 4), 5)
    blurred = F.interpolate(coarse, (64, 64), mode="bilinear", align_corners=False)[0, 0]
    found = guided_filter(coarse, guide, 6)[0, 0]
    assert (blurred[:, 35] - blurred[:, 34]).max() < 0.1 < 0.5 < (found[:, 35] - found[:, 34]).min()
    assert (found - right).abs().mean() < (blurred - right).abs().mean()
