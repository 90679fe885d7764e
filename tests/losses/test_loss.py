"""The training loss, the drawn pixels and the class weights, against torch and definitions."""

from itertools import combinations, pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from data.classes import VOID
from losses.loss import inverse_frequency, lovasz_softmax, segmentation_loss

WEIGHT = torch.tensor([0.0, 2.0, 1.25])


def batch(seed: int = 0, images: int = 2, grid=(4, 5), size=(4, 5), void: float = 0.3):
    """Random logits that ask for gradients, and a target of which about a share `void` is void."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(images, 3, *grid, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 3, (images, *size), generator=generator)
    target[torch.rand(target.shape, generator=generator) < void] = VOID
    return logits.requires_grad_(), target


def gradient(loss, logits) -> torch.Tensor:
    return torch.autograd.grad(loss, logits, retain_graph=True)[0]


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("size, lovasz", [((4, 5), 0.0), ((9, 13), 0.7), ((2, 3), 0.0)])
def test_loss_and_gradient_are_means_over_the_images(weight, smoothing, size, lovasz):
    logits, target = batch(images=4, size=size)
    target[2].fill_(VOID)[0, :2] = torch.tensor([2, 1])
    target[3] = VOID if weight is None else 0  # whose weight is 0: the image counts by a loss of 0
    found = segmentation_loss(logits, target, weight, smoothing, lovasz)
    resized = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    of_class, losses = torch.ones(3) if weight is None else weight, []
    for pixels, truth in zip(resized.flatten(2).mT[:3], target.flatten(1)):
        pixels, truth = pixels[truth != VOID], truth[truth != VOID]
        each = F.cross_entropy(pixels, truth, reduction="none", label_smoothing=smoothing)
        losses.append((each * of_class[truth]).sum() / of_class[truth].sum().clamp(min=1e-9))
    expected = sum(losses) / 4
    expected = expected + lovasz * lovasz_softmax(resized.flatten(2), target.flatten(1)).mean()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient(found, logits), gradient(expected, logits))
    half = logits.half()  # is computed in float32, whatever the weights are
    exact = segmentation_loss(half.float(), target, weight, smoothing, lovasz)
    how = of_class.double(), smoothing, lovasz
    torch.testing.assert_close(segmentation_loss(half, target, *how), exact)


FIVE_LABELLED = torch.tensor([[0, VOID, 1, 2], [VOID, 1, VOID, 0]])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_mean_over_all_sets_of_drawn_pixels_is_the_loss_and_its_gradient(count):
    logits = batch(images=1, grid=(2, 4))[0]
    whole = segmentation_loss(logits, FIVE_LABELLED[None])
    sets = torch.tensor(list(combinations([0, 2, 3, 5, 7], count)))
    drawn = logits.flatten(2)[0, :, sets].transpose(0, 1)  # (sets, C, count)
    estimate = segmentation_loss(drawn, FIVE_LABELLED.flatten()[sets])
    torch.testing.assert_close(estimate, whole)
    torch.testing.assert_close(gradient(estimate, logits), gradient(whole, logits))


FREQUENCIES = [
    ([1, 2, 4], [12 / 7, 6 / 7, 3 / 7]),  # 1, 1/2, 1/4 sum to 7/4; times 3 / (7/4)
    ([3, 0, 1], [1 / 2, 0, 3 / 2]),  # 1/3, -, 1 sum to 4/3; times 2 / (4/3)
    ([0, 0, 0], [0, 0, 0]),
    ([10**12, 1], [2 / (10**12 + 1), 2 * 10**12 / (10**12 + 1)]),
]


@pytest.mark.parametrize("counts, expected", FREQUENCIES)
def test_inverse_frequency_averages_to_one_over_the_classes_that_occur(counts, expected):
    result = inverse_frequency(torch.tensor(counts))
    assert result.dtype == torch.float32
    assert result.tolist() == pytest.approx(expected, rel=1e-6)


def jaccard_loss(wrong: set[int], truth: set[int]) -> float:
    """1 - IoU of a class when the pixels in `wrong` are wrong and all others right."""
    predicted = truth ^ wrong
    union = truth | predicted
    return 1 - len(truth & predicted) / len(union) if union else 0.0


def lovasz_by_hand(logits: torch.Tensor, target: list[int]) -> float:
    """Each error times what its pixel adds to 1 - IoU, the largest first; a mean over classes."""
    probabilities = logits.softmax(0).tolist()
    labelled = [pixel for pixel, label in enumerate(target) if label != VOID]
    losses = []
    for label in sorted({target[pixel] for pixel in labelled}):
        truth = {pixel for pixel in labelled if target[pixel] == label}
        error = {pixel: abs((pixel in truth) - probabilities[label][pixel]) for pixel in labelled}
        order = sorted(labelled, key=error.get, reverse=True)
        jaccard = [jaccard_loss({*order[:count]}, truth) for count in range(len(order) + 1)]
        steps = (more - fewer for fewer, more in pairwise(jaccard))
        losses.append(sum(error[pixel] * step for pixel, step in zip(order, steps)))
    return sum(losses) / len(losses) if losses else 0.0


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), void=st.sampled_from([0.0, 0.3, 0.9, 1.0]))
def test_lovasz_equals_the_definition(seed, void):
    logits, target = batch(seed, images=3, grid=(3, 3), size=(3, 3), void=void)
    logits, target = logits.flatten(2), target.flatten(1)
    expected = [lovasz_by_hand(*image) for image in zip(logits.detach(), target.tolist())]
    assert lovasz_softmax(logits, target).tolist() == pytest.approx(expected, abs=1e-9)


def test_gradients_of_lovasz_equal_finite_differences_and_are_0_at_void():
    logits, target = (x.flatten(-2) for x in batch(5, images=3))
    target[1] = VOID
    assert torch.autograd.gradcheck(lambda scores: lovasz_softmax(scores, target), logits)
    found = gradient(lovasz_softmax(logits, target).sum(), logits)
    assert found.any() and not found.transpose(1, 2)[target == VOID].any()
