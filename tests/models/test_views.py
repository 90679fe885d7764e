"""Views: tiles against the whole, and the guided filter against a plain one, window by window."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from models.hypercolumn import box_mean, resample
from models.views import guided_filter, in_rows, windows


@given(cells=st.integers(1, 300), size=st.integers(4, 150))
def test_windows_cover_a_side_overlap_by_a_quarter_and_their_weights_sum_to_1(cells, size):
    starts, shares = windows(cells, size, torch.device("cpu"))
    assert shares.shape == (len(starts), cells) and starts[0] == 0
    torch.testing.assert_close(shares.sum(0), torch.ones(cells))
    assert all(b - a <= size - size // 4 for a, b in zip(starts, starts[1:]))
    assert len(starts) == 1 or starts[-1] + size == cells
    for start, share in zip(starts, shares):
        assert not share[:start].any() and not share[start + size :].any() and (share >= 0).all()


@given(
    sides=st.tuples(st.integers(9, 150), st.integers(9, 150)),
    height=st.integers(1, 200),
    tile=st.none() | st.integers(4, 80),
    cell=st.integers(1, 4),
)
def test_tiles_of_what_depends_on_no_surroundings_are_the_whole(sides, height, tile, cell):
    image = torch.rand(3, *sides, generator=torch.Generator().manual_seed(0))

    def colours(window: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(window[None], cell, ceil_mode=True)[0]

    parts = list(in_rows(colours, image, height, 3, tile, cell))
    assert all(part.shape[1] for part in parts)
    whole = colours(image)
    expected = resample(whole[None], (height, whole.shape[2]))[0]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=0, atol=1e-4)


def window(y: int, x: int, radius: int) -> tuple[slice, slice, slice]:
    """Every channel in the window around a place, cut off at the border."""
    return (
        slice(None),
        slice(max(0, y - radius), y + radius + 1),
        slice(max(0, x - radius), x + radius + 1),
    )


def plain_filter(values, guide, radius, epsilon):
    """As in the paper, at the photo's size: least squares in each window, then their mean."""
    height, width = values.shape[1:]
    slopes = values.new_empty(len(values), 3, height, width)
    offsets, result = torch.empty_like(values), torch.empty_like(values)
    places = [(y, x) for y in range(height) for x in range(width)]
    for y, x in places:
        colours, inside = (image[window(y, x, radius)].flatten(1) for image in (guide, values))
        shifted = colours - colours.mean(1, keepdim=True)
        spread = shifted @ shifted.T / shifted.shape[1] + epsilon * torch.eye(3).to(values)
        joint = (inside - inside.mean(1, keepdim=True)) @ shifted.T / shifted.shape[1]
        slopes[..., y, x] = joint @ spread.inverse()
        offsets[:, y, x] = inside.mean(1) - slopes[..., y, x] @ colours.mean(1)
    for y, x in places:
        slope = slopes.flatten(0, 1)[window(y, x, radius)].mean((1, 2)).view(-1, 3)
        offset = offsets[window(y, x, radius)].mean((1, 2))
        result[:, y, x] = slope @ guide[:, y, x] + offset
    return result


@pytest.mark.parametrize("radius", [1, 3])
@pytest.mark.parametrize("size", [(6, 9), (1, 4)])
def test_on_a_grid_of_the_photos_size_it_is_the_guided_filter(size, radius):
    generator = torch.Generator().manual_seed(0)
    values, guide = (
        torch.rand(2, channels, *size, dtype=torch.float64, generator=generator)
        for channels in (4, 3)
    )
    found = guided_filter(values, guide, radius, 0.01)
    for index in range(2):
        expected = plain_filter(values[index], guide[index], radius, 0.01)
        torch.testing.assert_close(found[index], expected)


def test_channels_that_sum_to_1_still_do_at_the_photos_size():
    probabilities = torch.rand(1, 5, 7, 9, dtype=torch.float64).softmax(1)
    guide = torch.randint(0, 256, (1, 3, 28, 36), dtype=torch.uint8)
    found = guided_filter(probabilities, guide, 2)
    assert found.shape == (1, 5, 28, 36)
    torch.testing.assert_close(found.sum(1), torch.ones(1, 28, 36, dtype=torch.float64))


def test_a_blurred_edge_becomes_that_of_the_photo():
    guide = torch.full((1, 3, 64, 64), 40, dtype=torch.uint8)
    guide[..., 35:] = 210
    right = (torch.arange(64) >= 35).float()
    coarse = box_mean(F.avg_pool2d(right.expand(1, 1, 64, 64), 4), 5)
    blurred = F.interpolate(coarse, (64, 64), mode="bilinear", align_corners=False)[0, 0]
    found = guided_filter(coarse, guide, 6)[0, 0]
    assert (blurred[:, 35] - blurred[:, 34]).max() < 0.1 < 0.5 < (found[:, 35] - found[:, 34]).min()
    assert (found - right).abs().mean() < (blurred - right).abs().mean()
