"""The Lovasz-softmax loss against its definition, set by set."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.lovasz import lovasz_softmax

VOID = 255
few = settings(max_examples=30, deadline=None)


def jaccard_loss(wrong: set[int], truth: set[int]) -> float:
    """1 - IoU of a class when the pixels in `wrong` are wrong and all others right."""
    predicted = truth ^ wrong
    union = truth | predicted
    return 1 - len(truth & predicted) / len(union) if union else 0.0


def by_hand(logits: torch.Tensor, target: list[int]) -> float:
    """The definition: each error times what its pixel adds to 1 - IoU, the largest first; a mean over the classes."""
    probabilities = logits.softmax(0).tolist()
    labelled = [pixel for pixel, label in enumerate(target) if label != VOID]
    losses = []
    for label in sorted({target[pixel] for pixel in labelled}):
        truth = {pixel for pixel in labelled if target[pixel] == label}
        error = {pixel: abs((pixel in truth) - probabilities[label][pixel]) for pixel in labelled}
        order = sorted(labelled, key=error.get, reverse=True)
        sets = [set(order[:count]) for count in range(len(order) + 1)]
        gains = [jaccard_loss(after, truth) - jaccard_loss(before, truth) for before, after in pairwise(sets)]
        losses.append(sum(error[pixel] * gain for pixel, gain in zip(order, gains)))
    return sum(losses) / len(losses) if losses else 0.0


def draw(seed: int, images: int = 3, classes: int = 4, places: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, classes, places, generator=generator, dtype=torch.float64)
    target = torch.randint(0, classes, (images, places), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.3] = VOID
    return logits.requires_grad_(), target


@few
@given(seed=st.integers(0, 10**6))
def test_it_is_what_the_definition_says(seed):
    logits, target = draw(seed)
    expected = [by_hand(scores, labels.tolist()) for scores, labels in zip(logits.detach(), target)]
    assert lovasz_softmax(logits, target).tolist() == pytest.approx(expected, abs=1e-9)


@few
@given(seed=st.integers(0, 10**6))
def test_void_changes_neither_loss_nor_gradient(seed):
    logits, target = draw(seed)
    other = torch.where((target == VOID)[:, None], 9 * draw(seed + 1)[0], logits).detach().requires_grad_()
    losses = [lovasz_softmax(scores, target).sum() for scores in (logits, other)]
    torch.testing.assert_close(*losses)
    gradients = [torch.autograd.grad(loss, scores)[0] for loss, scores in zip(losses, (logits, other))]
    torch.testing.assert_close(*gradients)
    assert not gradients[0].transpose(1, 2)[target == VOID].any()


def test_sure_and_right_is_0_sure_and_wrong_is_1():
    target = torch.tensor([[0, 0, 1, 2, VOID]])
    right = 100 * torch.nn.functional.one_hot(target.where(target != VOID, 0), 3).transpose(1, 2).double()
    assert lovasz_softmax(right, target).item() == pytest.approx(0, abs=1e-9)
    assert lovasz_softmax(right.roll(1, dims=1), target).item() == pytest.approx(1, abs=1e-9)


def test_gradients_are_those_of_finite_differences():
    logits, target = draw(5)
    assert torch.autograd.gradcheck(lambda scores: lovasz_softmax(scores, target), (logits,))


def test_an_image_without_a_labelled_place_has_loss_and_gradient_0():
    logits, target = draw(1)
    target[1] = VOID
    losses = lovasz_softmax(logits, target)
    assert losses[1] == 0 and losses[0] > 0
    losses.sum().backward()
    assert not logits.grad[1].any() and logits.grad.isfinite().all()


def test_half_precision_is_computed_in_full():
    logits, target = draw(2)
    assert lovasz_softmax(logits.half(), target).dtype == torch.float32
