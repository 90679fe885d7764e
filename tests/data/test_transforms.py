"""Sizes of the network's input: the aspect is kept, masks move by whole labels."""

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
pairs = pytest.mark.parametrize(
    "height, width, size",
    [(16, 24, 32), (33, 47, 16), (50, 30, 17), (20, 20, 20), (7, 5, 40), (1, 9, 8)],
    ids=["twice", "about_half", "odd", "same", "eight_times", "line"],
)


def pair(height: int, width: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
    mask = torch.from_numpy(rng.choice(np.array([0, 3, 7, 20, VOID], np.uint8), (height, width)))
    return tv_tensors.Image(image), tv_tensors.Mask(mask)


@pytest.mark.parametrize(
    "shape, size, expected",
    [
        ((375, 500), 300, (300, 400)),
        ((500, 375), 300, (400, 300)),
        ((333, 500), 256, (256, 384)),
        ((10, 10), 64, (64, 64)),
        ((100, 400), 50, (50, 200)),  # 4 is not beyond the limit
        ((100, 800), 80, (40, 320)),
        ((2000, 1), 50, (200, 32)),  # no side below 32, which the backbones need
        ((1, 3000), 16, (16, 64)),
    ],
)
def test_shape_has_the_size_as_shorter_side_unless_it_is_extreme(shape, size, expected):
    assert resized_shape(*shape, size) == expected


@given(height=sides, width=sides, size=st.integers(1, 600))
def test_shape_keeps_the_aspect_within_rounding_and_is_bounded(height, width, size):
    new = resized_shape(height, width, size)
    assert all(isinstance(side, int) and side >= 1 for side in new)
    assert min(new) <= size and max(new) <= MAX_ASPECT * size
    if max(height, width) <= MAX_ASPECT * min(height, width):
        assert min(new) == size
    scale = max(new) / max(height, width)  # known within half a pixel of the longer side
    exact = min(height, width) * scale
    assert abs(min(new) - exact) <= 0.5 + 0.5 * min(height, width) / max(height, width) + 1e-9 or exact < min(
        new
    ) == min(size, 32)
    assert (new[0] <= new[1]) == (height <= width) or new[0] == new[1]
    assert resized_shape(width, height, size) == new[::-1]


@pairs
@pytest.mark.parametrize("transform, moves_mask", [(ResizeImage, False), (ResizeBoth, True)])
def test_image_and_mask_have_the_promised_sizes(transform, moves_mask, height, width, size):
    image, mask = pair(height, width)
    new_image, new_mask = transform(size)(image, mask)
    shape = resized_shape(height, width, size)
    assert new_image.shape == (3, *shape) and new_image.dtype == torch.uint8
    assert new_mask.dtype == torch.uint8
    if moves_mask:
        assert new_mask.shape == shape
        assert set(new_mask.unique().tolist()) <= set(mask.unique().tolist())
    else:
        assert torch.equal(new_mask, mask)


@pairs
def test_mask_takes_the_nearest_pixel_by_pixel_centres(height, width, size):
    image, mask = pair(height, width)
    new = ResizeBoth(size)(image, mask)[1]
    rows, columns = ((2 * np.arange(n) + 1) * old // (2 * n) for n, old in zip(new.shape, (height, width)))
    assert np.array_equal(new, mask.numpy()[np.ix_(rows, columns)])


def test_twice_the_size_repeats_every_label():
    image, mask = pair(16, 24)
    assert np.array_equal(ResizeBoth(32)(image, mask)[1], mask.numpy().repeat(2, 0).repeat(2, 1))


def test_image_and_mask_stay_aligned():
    labels = np.zeros((48, 64), np.uint8)
    labels[12:30, 21:48] = 1
    image = tv_tensors.Image(torch.from_numpy(np.stack(3 * [255 * labels])))
    for size in (16, 96, 144):  # where a pixel centre is no tie between two pixels
        new, mask = ResizeBoth(size)(image, tv_tensors.Mask(torch.from_numpy(labels)))
        assert ((new[0] > 127) != (mask == 1)).float().mean() < 0.01


def test_a_reduced_image_is_smoothed_not_picked():
    board = np.indices((63, 63)).sum(0) % 2 * np.uint8(255)
    image = tv_tensors.Image(torch.from_numpy(np.stack(3 * [board])))
    reduced = ResizeImage(21)(image, tv_tensors.Mask(torch.from_numpy(board)))[0]  # a third: a pixel each, if picked
    assert ((reduced > 100) & (reduced < 155)).all()


def disc(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A white disc on black, class 7 on class 0: wherever both go, they must go together."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1.4, 1, width), indexing="ij")
    inside = y**2 + x**2 < 0.4
    return tv_tensors.Image((255 * inside.to(torch.uint8)).expand(3, -1, -1)), tv_tensors.Mask(
        7 * inside.to(torch.uint8)
    )


@given(seed=st.integers(0, 10**6), scale=st.sampled_from([(1, 1), (0.5, 2), (0.3, 0.6)]))
def test_what_chance_does_it_does_to_image_and_mask_alike(seed, scale):
    torch.manual_seed(seed)
    image, mask = Augment(48, scale, crop=40, flip=True, jitter=0)(*disc(60, 90))
    assert image.shape == (3, 40, 40) and mask.shape == (40, 40)
    assert image.dtype == mask.dtype == torch.uint8 and set(mask.unique().tolist()) <= {0, 7, VOID}
    assert (image[:, mask == VOID].T == torch.tensor([124, 116, 104])).all(), "padding has the mean colour and no label"
    labelled = mask != VOID
    sides = (image[0] > 127) == (mask == 7)
    edge = (image[0] > 20) & (image[0] < 235)
    assert sides[labelled & ~edge].float().mean() > 0.97


def test_without_chance_an_image_is_only_resized():
    image, mask = disc(60, 90)
    found = Augment(48, (1, 1), crop=None, flip=False, jitter=0)(image, mask)
    assert all(map(torch.equal, found, ResizeBoth(48)(image, mask)))


def test_scales_lie_between_their_bounds_and_flips_happen_half_of_the_time():
    torch.manual_seed(0)
    augment = Augment(64, (0.5, 2), crop=None, flip=True, jitter=0)
    found = [augment(*disc(64, 64)) for _ in range(200)]
    sides = sorted(image.shape[-1] for image, _ in found)
    assert 32 <= sides[0] < 36 and 115 < sides[-1] <= 128
    assert sides[100] == pytest.approx(64, rel=0.15), "as often smaller as larger"
    halves = [
        (mask[:, : mask.shape[1] // 2] == 7).sum() < (mask[:, mask.shape[1] // 2 :] == 7).sum() for _, mask in found
    ]
    assert 70 < sum(halves) < 130


@pytest.mark.parametrize("steps", [(None, False, 0), (40, True, 0.3)])
def test_it_can_be_sent_to_a_worker_process(steps):
    augment = pickle.loads(pickle.dumps(Augment(48, (0.5, 2), *steps)))
    torch.manual_seed(0)
    first = augment(*disc(60, 90))
    torch.manual_seed(0)
    assert all(map(torch.equal, Augment(48, (0.5, 2), *steps)(*disc(60, 90)), first))


def test_jitter_changes_colours_and_no_label():
    torch.manual_seed(0)
    image = tv_tensors.Image(torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8))
    mask = tv_tensors.Mask(torch.randint(0, 3, (40, 40), dtype=torch.uint8))
    found, labels = Augment(40, (1, 1), crop=None, flip=False, jitter=0.4)(image, mask)
    assert torch.equal(labels, mask) and 2 < (found.float() - image).abs().mean() < 80
