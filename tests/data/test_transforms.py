"""Sizes of the network's input, and augmentation, which treats image and mask alike."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from data.classes import VOID
from data.transforms import MAX_ASPECT, Augment, ResizeImage, resize_mask, resized_shape
from tests.data.conftest import seeded

sides = st.integers(1, 3000)
GREY = torch.tensor([124, 116, 104]).view(3, 1)  # the mean of ImageNet


def noise(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, height, width), dtype=np.uint8)
    mask = rng.choice(np.array([0, 3, 7, 20, VOID], np.uint8), (height, width))
    return torch.from_numpy(image), torch.from_numpy(mask)


def disc(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A white disc on black, class 7 on class 0, left of the middle."""
    y, x = np.ogrid[-1 : 1 : height * 1j, -0.6 : 1.4 : width * 1j]
    inside = torch.from_numpy((y**2 + x**2 < 0.2).astype(np.uint8))
    return (255 * inside).expand(3, -1, -1), 7 * inside


@given(height=sides, width=sides, size=st.integers(1, 600))
def test_shapes_keep_the_aspect_within_rounding_and_are_bounded(height, width, size):
    new = resized_shape(height, width, size)
    aspect = max(height, width) / min(height, width)
    longer = size * min(aspect, MAX_ASPECT)
    shorter = size if aspect <= MAX_ASPECT else max(longer / aspect, min(size, 32))
    assert abs(max(new) - longer) <= 0.51 and abs(min(new) - shorter) <= 0.51
    assert (new[0] - new[1]) * (height - width) >= 0, "no side is taken for the other"


SIZES = [(16, 24, 32), (33, 47, 16), (50, 30, 17), (7, 5, 40), (1, 9, 8)]


@pytest.mark.parametrize("height, width, size", SIZES)
def test_the_image_is_smoothed_and_the_mask_takes_the_nearest_pixel_by_centres(height, width, size):
    image, mask = noise(height, width)
    shape = resized_shape(height, width, size)
    new, labels = ResizeImage(size)(image), resize_mask(mask, shape)
    assert new.shape == (3, *shape) and new.dtype == labels.dtype == torch.uint8
    smooth = interpolate(image[None].float(), shape, mode="bilinear", antialias=True)[0]
    assert (new - smooth).abs().max() <= 1
    old_sides = zip(shape, (height, width))
    rows, columns = ((2 * np.arange(n) + 1) * old // (2 * n) for n, old in old_sides)
    assert np.array_equal(labels, mask.numpy()[np.ix_(rows, columns)])


@given(seed=st.integers(0, 10**6), scale=st.sampled_from([(1, 1), (0.5, 2), (0.3, 0.6)]))
def test_augmentation_treats_image_and_mask_alike(seed, scale):
    image, mask = Augment(48, 40, scale, flip=True)(*disc(60, 90), seeded(seed))
    assert image.shape == (3, 40, 40) and mask.shape == (40, 40)
    assert image.dtype == mask.dtype == torch.uint8
    assert (image[:, mask == VOID] == GREY).all(), "padding is grey and has no label"
    sharp = (mask != VOID) & ((image[0] < 20) | (image[0] > 235))
    assert ((image[0] > 127) == (mask == 7))[sharp].float().mean() > 0.97


@pytest.mark.parametrize(("side", "crop"), [(4, 6), (6, 4), (5, 5)])
def test_every_place_of_the_square_is_equally_likely(side, crop):
    pixels = torch.arange(side * side, dtype=torch.uint8).reshape(side, side)
    generator, places = seeded(), []
    for _ in range(900):
        image, mask = Augment(side, crop)(pixels.expand(3, -1, -1), pixels, generator)
        assert torch.equal(image[0][mask != VOID], mask[mask != VOID])
        y, x = (mask == mask.min()).nonzero()[0].tolist()
        places.append((int(mask.min()), y, x))
    counts = Counter(places).values()
    assert len(counts) == (abs(side - crop) + 1) ** 2
    assert all(abs(n - 900 / len(counts)) <= 45 for n in counts)  # 4.5 standard deviations


def test_a_square_behind_is_seen_where_the_image_does_not_reach():
    augment, behind = Augment(32, 64, (0.5, 1.5), flip=True, jitter=0.2), noise(64, 64)
    alone, labels = augment(*disc(60, 90), seeded(3))
    reached = labels != VOID  # the disc has no void of its own
    assert 0.05 < reached.float().mean() < 0.95
    image, mask = augment(*disc(60, 90), seeded(3), tuple(part.clone() for part in behind))
    assert torch.equal(image, alone.where(reached, behind[0]))
    assert torch.equal(mask, labels.where(reached, behind[1]))


def test_scales_lie_between_their_bounds_and_half_of_the_images_are_mirrored():
    augment, generator = Augment(32, 64, (0.5, 2), flip=True), seeded()
    masks = [augment(*disc(64, 64), generator)[1] for _ in range(200)]
    sides = sorted(int((mask != VOID).any(1).sum()) for mask in masks)
    assert 16 <= sides[0] < 19 and 57 < sides[-1] <= 64
    assert sides[100] == pytest.approx(32, rel=0.15), "the logarithm is uniform"

    def middle(inside) -> float:
        return inside.nonzero()[:, 1].float().mean().item()

    assert 70 < sum(middle(mask == 7) > middle(mask != VOID) for mask in masks) < 130


def test_jitter_changes_brightness_contrast_and_saturation_within_bounds_and_no_label():
    image, mask = noise(40, 40)
    image, generator, factors = image // 4 + 64, seeded(), []
    for _ in range(200):
        found, labels = Augment(40, 40, jitter=0.4)(image, mask, generator)
        assert torch.equal(labels, mask)
        factors.append((found.float().mean() / image.float().mean()).item())
    assert 0.58 < min(factors) < 0.68 and 1.32 < max(factors) < 1.42
    assert abs(np.mean(factors) - 1) < 0.06
    grey = found.float().std(0).mean() / image.float().std(0).mean()
    assert abs(grey - found.float().mean() / image.float().mean()) > 0.01, "not brightness alone"
