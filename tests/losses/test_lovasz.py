"""The Lovasz-softmax loss against its definition, set by set."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.classes import VOID
from losses.lovasz import lovasz_softmax

few = settings(max_examples=30, deadline=None)


def jaccard_loss(wrong: set[int], truth: set[int]) -> float:
    """1 - IoU of a class when the pixels in `wrong` are wrong and all others right."""
    predicted = truth ^ wrong
    union = truth | predicted
    return 1 - len(truth & predicted) / len(union) if union else 0.0


def by_hand(logits: torch.Tensor, target: list[int]) -> float:
    """Each error times what its pixel adds to 1 - IoU, the largest first; a mean over classes."""
    probabilities = logits.softmax(0).tolist()
    labelled = [pixel for pixel, label in enumerate(target) if label != VOID]
    losses = []
    for label in sorted({target[pixel] for pixel in labelled}):
        truth = {pixel for pixel in labelled if target[pixel] == label}
        error = {pixel: abs((pixel in truth) - probabilities[label][pixel]) for pixel in labelled}
        order = sorted(labelled, key=error.get, reverse=True)
        sets = [set(order[:count]) for count in range(len(order) + 1)]
        steps = [
            jaccard_loss(more, truth) - jaccard_loss(fewer, truth) for fewer, more in pairwise(sets)
        ]
        losses.append(sum(error[pixel] * step for pixel, step in zip(order, steps)))
    return sum(losses) / len(losses) if losses else 0.0


def batch(seed: int, void: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (3, 4, 9) that ask for gradients, and a target."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, 4, 9, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 4, (3, 9), generator=generator)
    target[torch.rand(target.shape, generator=generator) < void] = VOID
    return logits.requires_grad_(), target


@few
@given(seed=st.integers(0, 10**6), void=st.sampled_from([0.0, 0.3, 0.9]))
def test_it_equals_the_definition(seed, void):
    logits, target = batch(seed, void)
    images = zip(logits.detach(), target.tolist())
    expected = [by_hand(scores, labels) for scores, labels in images]
    assert lovasz_softmax(logits, target).tolist() == pytest.approx(expected, abs=1e-9)


def test_gradients_equal_finite_differences_and_are_0_at_void():
    logits, target = batch(5)
    target[1] = VOID
    assert torch.autograd.gradcheck(lambda scores: lovasz_softmax(scores, target), logits)
    lovasz_softmax(logits, target).sum().backward()
    assert not logits.grad.transpose(1, 2)[target == VOID].any()


def test_certain_and_right_is_0_certain_and_wrong_is_1():
    target = torch.tensor([[0, 0, 1, 2, VOID]])
    right = 100 * torch.eye(3, dtype=torch.float64)[target.where(target != VOID, 0)].mT
    assert lovasz_softmax(right, target).item() == pytest.approx(0, abs=1e-9)
    assert lovasz_softmax(right.roll(1, dims=1), target).item() == pytest.approx(1, abs=1e-9)


def test_maps_give_what_their_pixels_give():
    logits, target = batch(2)
    found = lovasz_softmax(logits.unflatten(2, (3, 3)), target.unflatten(1, (3, 3)))
    assert torch.equal(found, lovasz_softmax(logits, target))


def test_half_precision_is_computed_in_float32():
    logits, target = batch(2)
    found = lovasz_softmax(logits.half(), target)
    torch.testing.assert_close(found, lovasz_softmax(logits.half().float(), target))
