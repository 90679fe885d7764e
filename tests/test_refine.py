"""The guided filter against a plain one, window by window; and predictions whose edges follow those of the photo."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.refine import guided_filter
from tests.test_segmenter import Picture
from tests.test_views import photo, segmenter  # noqa: F401


def plain_filter(values, guide, radius, epsilon):
    """As in the paper, on a grid of the photo's size: least squares in each window, averaged over the windows."""
    (height, width), windows, slopes, offsets = values.shape[1:], {}, {}, {}
    for y in range(height):
        for x in range(width):
            rows, columns = slice(max(0, y - radius), y + radius + 1), slice(max(0, x - radius), x + radius + 1)
            colours, inside = guide[:, rows, columns].flatten(1), values[:, rows, columns].flatten(1)
            windows[y, x] = rows, columns
            shifted = colours - colours.mean(1, keepdim=True)
            spread = shifted @ shifted.T / shifted.shape[1] + epsilon * torch.eye(3, dtype=values.dtype)
            slopes[y, x] = (inside - inside.mean(1, keepdim=True)) @ shifted.T / shifted.shape[1] @ spread.inverse()
            offsets[y, x] = inside.mean(1) - slopes[y, x] @ colours.mean(1)
    result = torch.empty_like(values)
    for (y, x), (rows, columns) in windows.items():
        around = [(i, j) for i in range(height)[rows] for j in range(width)[columns]]
        slope = torch.stack([slopes[place] for place in around]).mean(0)
        result[:, y, x] = slope @ guide[:, y, x] + torch.stack([offsets[place] for place in around]).mean(0)
    return result


@pytest.mark.parametrize("radius", [1, 3])
@pytest.mark.parametrize("size", [(6, 9), (1, 4)])
def test_on_a_grid_of_the_photos_size_it_is_the_guided_filter(size, radius):
    generator = torch.Generator().manual_seed(0)
    values, guide = (torch.rand(2, n, *size, dtype=torch.float64, generator=generator) for n in (4, 3))
    found = guided_filter(values, guide, radius, 0.01)
    for index in range(2):
        torch.testing.assert_close(found[index], plain_filter(values[index], guide[index], radius, 0.01))


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
    coarse = F.interpolate(right.expand(1, 1, 64, 64), (16, 16), mode="bilinear", antialias=True, align_corners=False)
    coarse = F.avg_pool2d(coarse, 5, 1, 2, count_include_pad=False)
    blurred = F.interpolate(coarse, (64, 64), mode="bilinear", align_corners=False)[0, 0]
    found = guided_filter(coarse, guide, 6)[0, 0]
    assert (blurred[:, 35] - blurred[:, 34]).max() < 0.1 < 0.5 < (found[:, 35] - found[:, 34]).min()
    assert (found - right).abs().mean() < (blurred - right).abs().mean()


def test_refined_predictions_are_of_the_filtered_probabilities(segmenter):  # noqa: F811
    image = photo()
    before = segmenter.predict([Picture(image.numpy(), (40, 51))])[0]
    assert segmenter.look([], False, refined=True) == "one view of each image, edges refined"
    probabilities = segmenter(image[None]).softmax(1)
    expected = guided_filter(probabilities, image[None], 16)[0].argmax(0).numpy()
    found = segmenter.predict([Picture(image.numpy(), (40, 51))])[0]
    assert (found != expected).mean() < 0.001, "but for ties within rounding"
    assert (found != before).mean() > 0.01
    segmenter.look([], False)
    assert np.array_equal(segmenter.predict([Picture(image.numpy(), (40, 51))])[0], before)


def test_refine_as_a_flag(drawn, in_process, in_turn, tmp_path):
    data, run = ("--data", drawn), ("--run", tmp_path)
    in_turn(
        ("sample_features.py", *data, *run, "--backbone", "squeezenet1_1", "--weights", "random", "--size", "48"),
        ("train_cls.py", *run, "--epochs", "2", "--hidden", "8"),
        ("visualize.py", *data, *run, "--limit", "1", "--refine"),
    )
    done = in_process("evaluate.py", *data, *run, "--limit", "2", "--refine", "--tta", "flip")
    assert done.returncode == 0, done.stderr
    assert "mean probabilities at scales 1, flipped too, edges refined" in done.stdout
