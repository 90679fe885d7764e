"""Sizes of the network's input, and augmentation, which treats image and mask alike."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import tv_tensors

from data.classes import VOID
from data.transforms import MAX_ASPECT, Augment, ResizeBoth, ResizeImage, resized_shape

sides = st.integers(1, 3000)
GREY = torch.tensor([124, 116, 104]).view(3, 1)  # the mean of ImageNet
pairs = pytest.mark.parametrize(
    ("height", "width", "size"),
    [(16, 24, 32), (33, 47, 16), (50, 30, 17), (20, 20, 20), (7, 5, 40), (1, 9, 8)],
)


def as_pair(image: np.ndarray, mask: np.ndarray) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    return tv_tensors.Image(torch.from_numpy(image)), tv_tensors.Mask(torch.from_numpy(mask))


def noise(height: int, width: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, height, width), dtype=np.uint8)
    return as_pair(image, rng.choice(np.array([0, 3, 7, 20, VOID], np.uint8), (height, width)))


def disc(height: int, width: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """A white disc on black, class 7 on class 0, left of the middle."""
    y, x = np.ogrid[-1 : 1 : height * 1j, -0.6 : 1.4 : width * 1j]
    inside = (y**2 + x**2 < 0.2).astype(np.uint8)
    return as_pair(np.stack(3 * [255 * inside]), 7 * inside)


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((375, 500), 300, (300, 400)),
        ((333, 500), 256, (256, 384)),
        ((10, 10), 64, (64, 64)),
        ((100, 400), 50, (50, 200)),  # 4 is not beyond the limit
        ((100, 800), 80, (40, 320)),
        ((2000, 1), 50, (200, 32)),  # no side below 32, which the backbones need
        ((1, 3000), 16, (16, 64)),
    ],
)
def test_the_shorter_side_gets_the_size_unless_the_image_is_extreme(shape, size, expected):
    assert resized_shape(*shape, size) == expected
    assert resized_shape(*shape[::-1], size) == expected[::-1]


@given(height=sides, width=sides, size=st.integers(1, 600))
def test_shapes_keep_the_aspect_within_rounding_and_are_bounded(height, width, size):
    new = resized_shape(height, width, size)
    aspect = max(height, width) / min(height, width)
    assert 1 <= min(new) <= size and max(new) <= MAX_ASPECT * size
    if aspect <= MAX_ASPECT:
        assert min(new) == size and abs(max(new) - size * aspect) <= 0.51
    else:
        assert max(new) == MAX_ASPECT * size
        exact = max(max(new) / aspect, min(size, 32))
        assert abs(min(new) - exact) <= 0.51


@pairs
def test_the_mask_keeps_its_size_or_takes_the_nearest_pixel_by_pixel_centres(height, width, size):
    image, mask = noise(height, width)
    shape = resized_shape(height, width, size)
    new, same = ResizeImage(size)(image, mask)
    assert new.shape == (3, *shape) and new.dtype == torch.uint8 and torch.equal(same, mask)
    both = ResizeBoth(size)(image, mask)
    assert torch.equal(both[0], new) and both[1].dtype == torch.uint8
    old_sides = zip(shape, (height, width))
    rows, columns = ((2 * np.arange(n) + 1) * old // (2 * n) for n, old in old_sides)
    assert np.array_equal(both[1], mask.numpy()[np.ix_(rows, columns)])


def test_image_and_mask_stay_aligned():
    for size in (16, 96, 144):  # where no pixel centre is a tie between two pixels
        image, mask = ResizeBoth(size)(*disc(48, 64))
        assert ((image[0] > 127) != (mask == 7)).float().mean() < 0.02


def test_a_reduced_image_is_smoothed_not_picked():
    board = np.indices((63, 63)).sum(0).astype(np.uint8) % 2 * 255
    reduced = ResizeImage(21)(*as_pair(np.stack(3 * [board]), board))[0]
    assert ((reduced > 100) & (reduced < 155)).all()


@given(seed=st.integers(0, 10**6), scale=st.sampled_from([(1, 1), (0.5, 2), (0.3, 0.6)]))
def test_augmentation_treats_image_and_mask_alike(seed, scale):
    torch.manual_seed(seed)
    image, mask = Augment(48, 40, scale, flip=True)(*disc(60, 90))
    assert image.shape == (3, 40, 40) and mask.shape == (40, 40)
    assert type(image) is type(mask) is torch.Tensor and image.dtype == mask.dtype == torch.uint8
    assert (image[:, mask == VOID] == GREY).all(), "padding is grey and has no label"
    sharp = (mask != VOID) & ((image[0] < 20) | (image[0] > 235))
    assert ((image[0] > 127) == (mask == 7))[sharp].float().mean() > 0.97


def test_without_randomness_a_square_is_cut_out_of_the_resized_image():
    image, mask = disc(60, 90)
    expected = ResizeBoth(48)(image, mask)
    found = Augment(48, 72)(image, mask)
    rows = (found[1] != VOID).any(1)
    assert rows.sum() == 48 and found[1].shape == (72, 72)
    assert torch.equal(found[1][rows], expected[1]) and torch.equal(found[0][:, rows], expected[0])


def test_scales_lie_between_their_bounds_and_half_of_the_images_are_mirrored():
    torch.manual_seed(0)
    augment = Augment(32, 64, (0.5, 2), flip=True)
    masks = [augment(*disc(64, 64))[1] for _ in range(200)]
    sides = sorted(int((mask != VOID).any(1).sum()) for mask in masks)
    assert 16 <= sides[0] < 19 and 57 < sides[-1] <= 64
    assert sides[100] == pytest.approx(32, rel=0.15), "the logarithm is uniform"

    def is_mirrored(mask) -> bool:
        inside = (mask != VOID).nonzero()[:, 1].float().mean()
        return bool((mask == 7).nonzero()[:, 1].float().mean() > inside)

    assert 70 < sum(map(is_mirrored, masks)) < 130


def test_jitter_changes_colours_and_no_label():
    torch.manual_seed(0)
    image, mask = noise(40, 40)
    found, labels = Augment(40, 40, jitter=0.4)(image, mask)
    assert torch.equal(labels, mask) and 2 < (found.float() - image).abs().mean() < 80


def test_an_augmentation_can_be_sent_to_a_worker_process():
    results = []
    for augment in (Augment(48, 40, (0.5, 2), True, 0.3),) * 2:
        torch.manual_seed(0)
        results.append(pickle.loads(pickle.dumps(augment))(*disc(60, 90)))
    assert all(map(torch.equal, *results))
