"""What holds for any input: of the score, the loss, the sampling, the resizing and the head in strips."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torchvision import tv_tensors

from data.classes import VOID
from data.sampling import sample_pixels
from data.transforms import ResizeBoth, resized_shape
from losses.loss import count_classes, cross_entropy2d, divisor
from losses.score import ConfusionMatrix
from models import strips
from models.classifier import DenseClassifier
from models.hypercolumn import Hypercolumn

CLASSES = 4
MEANS = ("miou", "image_miou", "pixel_accuracy", "mean_accuracy", "fw_iou")
some = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 10**6)
sides = st.integers(1, 12)
shapes = st.tuples(sides, sides)
ids = st.sampled_from([*range(CLASSES), VOID])
masks = arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=ids)
maps = st.lists(st.tuples(*2 * [arrays.arrays(np.uint8, (3, 4), elements=ids)]), min_size=1, max_size=4)
weights = st.sampled_from([None, torch.tensor([0.5, 2.0, 0.0, 1.25], dtype=torch.float64)])


def score(pairs) -> ConfusionMatrix:
    """Of (prediction, target); where a prediction says void it says class 0."""
    matrix = ConfusionMatrix(CLASSES)
    for prediction, target in pairs:
        matrix.update(np.where(prediction == VOID, 0, prediction), target)
    return matrix


@some
@given(pairs=maps)
def test_the_matrix_of_many_images_is_the_sum_of_theirs(pairs):
    matrix = score(pairs)
    assert np.array_equal(matrix.counts, sum(score([pair]).counts for pair in pairs))
    assert np.array_equal(matrix.counts, score(reversed(pairs)).counts)
    truth = np.stack([target for _, target in pairs])
    assert matrix.counts.sum(1).tolist() == [(truth == label).sum() for label in range(CLASSES)]


@some
@given(pairs=maps, order=st.permutations(range(CLASSES)))
def test_classes_under_other_numbers_have_the_same_scores(pairs, order):
    renumber = np.full(VOID + 1, VOID)
    renumber[:CLASSES] = order
    matrix, other = score(pairs), ConfusionMatrix(CLASSES)
    for prediction, target in pairs:
        other.update(renumber[np.where(prediction == VOID, 0, prediction)], renumber[target])
    assert np.array_equal(other.iou()[order], matrix.iou(), equal_nan=True)
    for name in MEANS:
        assert getattr(other, name)() == pytest.approx(getattr(matrix, name)(), nan_ok=True)


def batch(seed: int, grid: tuple[int, int], size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (3, C, *grid) float64 that ask for gradients, and a target (3, *size), a third of it void."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, CLASSES, *grid, generator=generator, dtype=torch.float64)
    target = torch.randint(0, CLASSES, (3, *size), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.3] = VOID
    return logits.requires_grad_(), target


@some
@given(seed=seeds, grid=shapes, size=shapes, weight=weights)
def test_the_loss_is_the_negative_log_likelihood_of_the_labels(seed, grid, size, weight):
    logits, target = batch(seed, grid, size)
    found = cross_entropy2d(logits, target, weight)
    dense = F.interpolate(logits.detach(), size, mode="bilinear", align_corners=False).numpy()
    image, y, x = np.nonzero(target.numpy() != VOID)
    labels, columns = target.numpy()[image, y, x], dense[image, :, y, x]
    likelihood = np.exp(columns)[np.arange(len(labels)), labels] / np.exp(columns).sum(1)
    factors = np.ones(CLASSES) if weight is None else weight.numpy()
    total = factors[labels].sum()
    expected = -(factors[labels] * np.log(likelihood)).sum() / (total or 1)
    assert found.item() == pytest.approx(expected, rel=1e-9)


@some
@given(seed=seeds, grid=shapes, size=shapes, weight=weights)
def test_a_constant_added_to_a_places_logits_changes_nothing(seed, grid, size, weight):
    logits, target = batch(seed, grid, size)
    constant = 50 * torch.randn(3, 1, *grid, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    loss = cross_entropy2d(logits, target, weight)
    torch.testing.assert_close(cross_entropy2d(logits + constant, target, weight), loss, rtol=1e-9, atol=1e-9)
    gradient = torch.autograd.grad(loss, logits)[0]
    torch.testing.assert_close(gradient.sum(1), torch.zeros_like(gradient[:, 0]), rtol=0, atol=1e-12)


@some
@given(seed=seeds, size=shapes, weight=weights)
def test_void_pixels_change_neither_loss_nor_gradient(seed, size, weight):
    logits, target = batch(seed, size, size)
    void = (target == VOID).unsqueeze(1)
    other = torch.where(void, 40 * logits.detach().flip(1), logits.detach()).requires_grad_()
    loss, again = (cross_entropy2d(values, target, weight) for values in (logits, other))
    assert torch.equal(loss, again)
    gradient, again = torch.autograd.grad(loss, logits)[0], torch.autograd.grad(again, other)[0]
    assert torch.equal(gradient, again) and not gradient[void.expand_as(gradient)].any()


@some
@given(seed=seeds, grid=shapes, size=shapes, weight=weights, cut=st.integers(0, 3))
def test_sums_over_parts_by_the_whole_divisor_add_up_to_the_mean(seed, grid, size, weight, cut):
    logits, target = batch(seed, grid, size)
    norm = divisor(count_classes(target, CLASSES), weight)
    parts = [slice(0, cut), slice(cut, 3)]
    total = sum(cross_entropy2d(logits[part], target[part], weight, reduction="sum") for part in parts) / norm
    whole = cross_entropy2d(logits, target, weight)
    torch.testing.assert_close(total, whole)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (total, whole)))


@some
@given(pictures=st.lists(masks, min_size=1, max_size=4), per_class=st.integers(1, 9), seed=seeds, order=st.randoms())
def test_an_image_gives_the_same_pixels_whatever_else_is_sampled(pictures, per_class, seed, order):
    def sampled(index: int) -> tuple[np.ndarray, np.ndarray]:
        return sample_pixels(pictures[index], per_class, seed, f"image {index}")

    alone, state = [sampled(index) for index in range(len(pictures))], np.random.get_state()[1].copy()
    indices = list(range(len(pictures)))
    order.shuffle(indices)
    for index in indices:
        for found, expected in zip(sampled(index), alone[index], strict=True):
            assert np.array_equal(found, expected)
        pixels, labels = alone[index]
        assert (pixels >= 0).all() and (pixels < pictures[index].shape).all() and VOID not in labels
    assert np.array_equal(np.random.get_state()[1], state), "the global generator is for others"


@some
@given(mask=masks, size=st.integers(1, 60), seed=seeds)
def test_a_resized_pair_holds_nothing_that_was_not_there(mask, size, seed):
    pixels = torch.randint(50, 200, (*mask.shape, 3), generator=torch.Generator().manual_seed(seed))
    image = pixels.to(torch.uint8).permute(2, 0, 1)  # channels last, as files are decoded
    new_image, new_mask = ResizeBoth(size)(tv_tensors.Image(image), tv_tensors.Mask(torch.from_numpy(mask)))
    shape = resized_shape(*mask.shape, size)
    assert new_image.shape == (3, *shape) and new_mask.shape == shape
    before, after = set(mask.ravel().tolist()), set(new_mask.unique().tolist())
    assert after <= before
    if shape[0] >= mask.shape[0] and shape[1] >= mask.shape[1]:
        assert after == before, "an enlarged mask keeps every label"
    for old, new in zip(image, new_image):
        assert old.min() <= new.min() and new.max() <= old.max(), "bilinear values lie between those around them"


@some
@given(
    grid=shapes,
    levels=st.lists(st.tuples(st.integers(1, 4), sides, sides), min_size=1, max_size=4),
    hidden=st.integers(1, 5),
    strip=st.sampled_from([1, 20, 100]),
    seed=seeds,
)
def test_the_head_in_strips_is_the_textbook_one(grid, levels, hidden, strip, seed):
    torch.manual_seed(seed)
    channels = [level[0] for level in levels]
    levels = [torch.randn(2, *level, dtype=torch.float64, requires_grad=True) for level in levels]
    moments = torch.randn(sum(channels)), torch.rand(sum(channels)) + 0.5
    head = DenseClassifier(channels, *moments, CLASSES, hidden).double().eval()
    wanted = [*levels, *head.parameters()]
    with patch.object(strips, "STRIP", strip):
        ours = head.on_levels(levels, grid)
        factors = torch.randn_like(ours)
        found = ours, *torch.autograd.grad((ours * factors).sum(), wanted)
    textbook = head(Hypercolumn.as_map(levels, grid))
    expected = textbook, *torch.autograd.grad((textbook * factors).sum(), wanted)
    for value, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-8, atol=1e-8)
