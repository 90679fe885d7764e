"""The loss over labelled pixels and its class weights, against loops and against torch."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.loss import (
    WEIGHTINGS,
    count_classes,
    cross_entropy2d,
    divisor,
    draw_pixels,
    inverse_frequency,
    weighting,
)

VOID = 255
WEIGHT = torch.tensor([0.5, 2.0, 1.25])
few = settings(max_examples=15, deadline=None)
weights = pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
reductions = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def batch(seed: int = 0, images: int = 2, classes: int = 3, height: int = 4, width: int = 5, void: float = 0.3):
    """Random logits that ask for gradients, and a target of which about a share of `void` is void."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(images, classes, height, width, generator=generator)
    target = torch.randint(0, classes, (images, height, width), generator=generator)
    target[torch.rand(target.shape, generator=generator) < void] = VOID
    return logits.requires_grad_(), target


def by_hand(logits, target, weight, reduction):
    """Cross entropy pixel by pixel, in Python's own floats."""
    losses, norm = torch.zeros(target.shape), 0.0
    for b, y, x in torch.cartesian_prod(*map(torch.arange, target.shape)).tolist():
        label = int(target[b, y, x])
        if label == VOID:
            continue
        scores = logits[b, :, y, x].tolist()
        share = math.exp(scores[label]) / sum(map(math.exp, scores))
        factor = 1.0 if weight is None else float(weight[label])
        losses[b, y, x] = -factor * math.log(share)
        norm += factor
    return {"none": losses, "sum": losses.sum(), "mean": losses.sum() / norm}[reduction]


@weights
@reductions
def test_loss_equals_a_loop_over_the_pixels(weight, reduction):
    logits, target = batch()
    expected = by_hand(logits.detach(), target, weight, reduction)
    torch.testing.assert_close(cross_entropy2d(logits, target, weight, reduction=reduction).detach(), expected)


@weights
@reductions
@pytest.mark.parametrize("ignore", [VOID, -1, 0])
def test_loss_and_gradient_equal_torch(weight, reduction, ignore):
    logits, target = batch()
    target[target == VOID] = ignore
    ours = cross_entropy2d(logits, target, weight, ignore, reduction)
    theirs = F.cross_entropy(logits, target, weight, ignore_index=ignore, reduction=reduction)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours.sum(), logits)[0], torch.autograd.grad(theirs.sum(), logits, retain_graph=True)[0]
    )


@weights
@reductions
@pytest.mark.parametrize("size", [(9, 13), (2, 3), (4, 7)], ids=["larger", "smaller", "wider"])
def test_logits_are_resized_bilinearly_to_the_target(weight, reduction, size):
    logits, _ = batch()
    _, target = batch(seed=1, height=size[0], width=size[1])
    resized = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    theirs = F.cross_entropy(resized, target, weight, ignore_index=VOID, reduction=reduction)
    torch.testing.assert_close(cross_entropy2d(logits, target, weight, reduction=reduction), theirs)


def test_weights_may_have_another_dtype_than_the_logits():
    logits, target = batch()
    torch.testing.assert_close(
        cross_entropy2d(logits.double(), target, WEIGHT).float(), cross_entropy2d(logits, target, WEIGHT.double())
    )


@weights
@reductions
@pytest.mark.parametrize("size", [(4, 5), (8, 7)], ids=["as_is", "resized"])
def test_an_all_void_batch_has_loss_and_gradient_zero(weight, reduction, size):
    logits, _ = batch()
    loss = cross_entropy2d(logits, torch.full((2, *size), VOID), weight, reduction=reduction)
    loss.sum().backward()
    assert not loss.any() and loss.isfinite().all()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@reductions
def test_a_batch_of_weight_zero_has_loss_and_gradient_zero(reduction):
    logits, target = batch()
    target[target != VOID] = 1
    loss = cross_entropy2d(logits, target, torch.tensor([1.0, 0.0, 1.0]), reduction=reduction)
    loss.sum().backward()
    assert not loss.any() and loss.isfinite().all()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_void_pixels_send_no_gradient():
    logits, target = batch()
    cross_entropy2d(logits, target, WEIGHT).backward()
    strength = logits.grad.abs().sum(1)
    assert torch.equal(strength == 0, target == VOID)


@weights
def test_parts_of_a_batch_add_up_to_the_whole(weight):
    logits, target = batch(images=5)
    target[3] = VOID
    whole = cross_entropy2d(logits, target, weight)
    gradient = torch.autograd.grad(whole, logits)[0]
    norm = divisor(count_classes(target, 3), weight)
    parts = [
        cross_entropy2d(logits[part], target[part], weight, reduction="sum") / norm
        for part in (slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 5))
    ]
    for part in parts:
        part.backward()
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close(logits.grad, gradient)


def test_divisor_counts_the_labelled_pixels_by_weight():
    counts = torch.tensor([1, 2, 1])
    assert divisor(counts) == 4
    assert divisor(counts, WEIGHT) == 0.5 + 2 + 2 + 1.25
    assert divisor(torch.zeros(3, dtype=torch.int64), WEIGHT) == divisor(torch.zeros(3, dtype=torch.int64)) == 1


LOGITS, TARGET = torch.zeros(2, 3, 4, 5), torch.zeros(2, 4, 5, dtype=torch.int64)


@pytest.mark.parametrize(
    "arguments, kind, message",
    [
        ({"logits": LOGITS[0]}, ValueError, r"expected logits \(B, C, h, w\).*\(3, 4, 5\)"),
        ({"target": TARGET[:, None]}, ValueError, r"expected .* target \(B, H, W\).*\(2, 1, 4, 5\)"),
        ({"target": TARGET[:1]}, ValueError, r"\(2, 3, 4, 5\) and \(1, 4, 5\)"),
        ({"logits": LOGITS.long()}, TypeError, "logits must be floating point, got torch.int64"),
        ({"target": TARGET.int()}, TypeError, "target must be int64, got torch.int32"),
        ({"target": TARGET.float()}, TypeError, "target must be int64, got torch.float32"),
        ({"target": TARGET + 3}, ValueError, "class id 3; ids are 0..2, or 255 for void"),
        ({"target": TARGET - 1}, ValueError, "class id -1; ids are 0..2"),
        ({"target": TARGET + 255, "ignore_index": -1}, ValueError, "class id 255; ids are 0..2, or -1 for void"),
        ({"reduction": "average"}, ValueError, "reduction must be 'mean', 'sum' or 'none', got 'average'"),
        ({"weight": torch.ones(4)}, ValueError, r"weight must have shape \(3,\), got \(4,\)"),
        ({"weight": torch.ones(3, 1)}, ValueError, r"weight must have shape \(3,\), got \(3, 1\)"),
    ],
)
def test_wrong_arguments_are_named(arguments, kind, message):
    with pytest.raises(kind, match=message):
        cross_entropy2d(**{"logits": LOGITS, "target": TARGET} | arguments)


def test_classes_are_counted_without_void():
    target = torch.tensor([[0, 2, 2], [VOID, 0, 2]])
    for dtype in (torch.int64, torch.uint8):
        assert count_classes(target.to(dtype), 5).tolist() == [2, 0, 3, 0, 0]
    assert count_classes(torch.tensor([1, 0, 1]), 2, ignore_index=1).tolist() == [1, 0]


@pytest.mark.parametrize(
    "counts, expected",
    [
        ([1, 2, 4], [12 / 7, 6 / 7, 3 / 7]),  # 1, 1/2, 1/4 sum to 7/4; times 3 / (7/4)
        ([3, 0, 1], [1 / 2, 0, 3 / 2]),  # 1/3, -, 1 sum to 4/3; times 2 / (4/3)
        ([7, 7], [1, 1]),
        ([0, 5], [0, 1]),
        ([0, 0, 0], [0, 0, 0]),
        ([10**12, 1], [2 / (10**12 + 1), 2 * 10**12 / (10**12 + 1)]),
    ],
)
def test_inverse_frequency_averages_to_one_over_the_classes_that_occur(counts, expected):
    result = inverse_frequency(torch.tensor(counts))
    assert result.dtype == torch.float32
    assert result.tolist() == pytest.approx(expected, rel=1e-6)


def test_weighting_none_inverse_and_batch():
    over_all, in_batch = torch.tensor([1, 2, 4]), torch.tensor([3, 0, 1])
    results = {kind: weighting(kind, over_all)(in_batch) for kind in WEIGHTINGS}
    assert results.pop("none") is None
    assert results.pop("inverse").tolist() == pytest.approx([12 / 7, 6 / 7, 3 / 7])
    assert results.pop("batch").tolist() == pytest.approx([1 / 2, 0, 3 / 2])
    assert not results


def test_batch_weights_make_every_class_of_the_batch_count_alike():
    target = torch.tensor([[[0, 0, 0, 2, VOID]]])
    losses = torch.tensor([[1.0, 1.0, 1.0, 5.0, 9.0]])
    logits = torch.zeros(1, 3, 1, 5)
    logits[0, 1, 0] = (losses.exp() - 2).log()  # log(1 + 1 + e^z) is then the loss of classes 0 and 2
    weight = weighting("batch")(count_classes(target, 3))
    assert cross_entropy2d(logits, target, weight).item() == pytest.approx((1 + 5) / 2, rel=1e-5)


@few
@given(seed=st.integers(0, 10**6), void=st.sampled_from([0.0, 0.5, 1.0]), weight=st.sampled_from([None, WEIGHT]))
def test_mean_loss_is_finite_and_never_negative(seed, void, weight):
    loss = cross_entropy2d(*batch(seed, void=void), weight)
    assert loss.isfinite() and loss >= 0


@few
@given(seed=st.integers(0, 10**6), weight=st.sampled_from([None, WEIGHT]))
def test_what_the_logits_say_under_void_does_not_matter(seed, weight):
    logits, target = batch(seed)
    other = torch.where((target == VOID)[:, None], 20 * batch(seed + 1)[0], logits)
    torch.testing.assert_close(cross_entropy2d(other, target, weight), cross_entropy2d(logits, target, weight))


@few
@given(seed=st.integers(0, 10**6), weight=st.sampled_from([None, WEIGHT]), order=st.permutations(range(20)))
def test_the_order_of_the_pixels_does_not_matter(seed, weight, order):
    logits, target = batch(seed)
    moved = cross_entropy2d(
        logits.flatten(2)[..., order].view_as(logits), target.flatten(1)[:, order].view_as(target), weight
    )
    torch.testing.assert_close(moved, cross_entropy2d(logits, target, weight))


def test_weighting_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="one of none, inverse, batch, got 'much'"):
        weighting("much")


def labels_at(target, pixels) -> torch.Tensor:
    """The labels (B, n) at pixels (B, n, 2)."""
    return torch.stack([labels[y, x] for labels, (y, x) in zip(target, pixels.mT)])


@few
@given(
    seed=st.integers(0, 10**6), void=st.sampled_from([0.0, 0.3, 0.9, 1.0]), count=st.sampled_from([1, 3, 19, 20, 2**31])
)
def test_drawn_pixels_are_labelled_distinct_and_stand_for_all(seed, void, count):
    _, target = batch(seed, images=3, void=void)
    pixels, worth = draw_pixels(target, count)
    n = min(count, 4 * 5)
    assert pixels.dtype == torch.int64 and pixels.shape == (3, n, 2)
    assert worth.dtype == torch.float32 and worth.shape == (3, n)
    labels = labels_at(target, pixels)
    for image in range(3):
        labelled, used = int((target[image] != VOID).sum()), worth[image] > 0
        assert used.sum() == min(labelled, n)
        assert (labels[image][used] != VOID).all()
        assert len(set(map(tuple, pixels[image][used].tolist()))) == used.sum()
        assert worth[image][used].unique().numel() <= 1, "each stands for as many"
        assert worth[image].sum().item() == pytest.approx(labelled)
        assert not worth[image][~used].any()


def test_drawn_pixels_follow_torchs_seed_and_differ_between_images_and_draws():
    target = torch.zeros(2, 30, 40, dtype=torch.int64)
    torch.manual_seed(0)
    first, then = draw_pixels(target, 50)[0], draw_pixels(target, 50)[0]
    torch.manual_seed(0)
    assert torch.equal(draw_pixels(target, 50)[0], first)
    assert not torch.equal(first, then) and not torch.equal(first[0], first[1])


def test_another_id_may_mean_void():
    target = torch.tensor([[[0, 255, 0], [0, 0, 7]]])
    pixels, worth = draw_pixels(target, 6, ignore_index=0)
    assert sorted(map(tuple, pixels[0][worth[0] > 0].tolist())) == [(0, 1), (1, 2)]


@weights
def test_all_pixels_drawn_give_the_whole_sum_and_its_gradient(weight):
    logits, target = batch(void=0.5)
    pixels, worth = draw_pixels(target, 10**6)
    assert set(worth.unique().tolist()) == {0.0, 1.0}, "exactly: each labelled pixel counts once"
    whole = cross_entropy2d(logits, target, weight, reduction="none")
    ours = (labels_at(whole, pixels) * worth).sum()
    torch.testing.assert_close(ours, whole.sum())
    gradients = [torch.autograd.grad(total, logits, retain_graph=True)[0] for total in (ours, whole.sum())]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("count", [1, 7, 60])
def test_the_estimate_from_drawn_pixels_is_unbiased(count):
    _, target = batch(height=9, width=12)
    labelled = target != VOID
    losses = (torch.arange(9).view(-1, 1) + torch.arange(12.0) ** 2).expand(2, -1, -1)  # dearer towards one corner
    torch.manual_seed(0)
    draws = 400
    estimates = []
    for _ in range(draws):
        pixels, worth = draw_pixels(target, count)
        estimates.append((labels_at(losses, pixels) * worth).sum().item())
    variance = 0.0  # of one estimate: that of n drawn of N without replacement, N^2 S^2 / n (1 - n / N), per image
    for image, where in zip(losses, labelled):
        N, n = int(where.sum()), min(count, int(where.sum()))
        variance += N**2 * image[where].var().item() / n * (1 - n / N)
    error = sum(estimates) / draws - losses[labelled].sum().item()
    assert abs(error) <= 3 * math.sqrt(variance / draws)
    spread = torch.tensor(estimates).var().item()
    assert 0.7 * variance < spread < 1.4 * variance, "as narrow as draws without replacement are"
