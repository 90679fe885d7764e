"""The head in strips: the resampling matrices, the strips, and gradients against torch's own."""

from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.autograd.function import FunctionCtx

from models import strips as module
from models.classifier import DenseClassifier
from models.strips import StripHead, bilinear, strips

CPU = torch.device("cpu")
HIDDEN, CLASSES = 4, 3
GRID = (5, 4)
FINE, COARSE = [3, 2], [2, 5, 1]  # channels of the fine levels; rows of the coarse ones
SMALL = 2 * GRID[1] * HIDDEN  # hidden values in a strip of 2 rows: 3 strips, the last of them shorter
sides = st.integers(1, 40)


def tensors(dtype=torch.float64) -> list[torch.Tensor]:
    """Random arguments of `StripHead` behind the sizes, all of which ask for gradients."""
    shapes = [(HIDDEN,), (HIDDEN, HIDDEN), (HIDDEN,), (CLASSES, HIDDEN), (CLASSES,)]
    shapes += [(GRID[0] * GRID[1], channels) for channels in FINE]
    shapes += [(HIDDEN, channels) for channels in FINE] + [(rows, GRID[1] * HIDDEN) for rows in COARSE]
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def in_strips(*values) -> torch.Tensor:
    return StripHead.apply(GRID, len(FINE), *values)


def before_relu(b1, W2, b2, *rest) -> tuple[torch.Tensor, torch.Tensor]:
    """Both hidden layers (h * w, H) before their ReLU, on the whole grid at once."""
    fine, parts, coarse = rest[2:4], rest[4:6], rest[6:]
    first = b1 + sum(level @ part.t() for level, part in zip(fine, parts))
    for level in coarse:
        columns = level.t()[None]  # (1, w * H, h_l)
        first = first + F.interpolate(columns, GRID[0], mode="linear", align_corners=False)[0].t().reshape(-1, HIDDEN)
    return first, first.relu() @ W2.t() + b2


def at_once(*values) -> torch.Tensor:
    """What `StripHead` computes, in plain operations."""
    W3, b3 = values[3:5]
    return before_relu(*values)[1].relu() @ W3.t() + b3


def with_gradients(head, values, strip=module.STRIP) -> list[torch.Tensor]:
    """The logits, then the gradients of a sum of all logits that weighs each differently."""
    with patch.object(module, "STRIP", strip):
        logits = head(*values)
        factors = torch.linspace(-1, 2, logits.numel(), dtype=logits.dtype).view_as(logits)
        return [logits.detach(), *torch.autograd.grad((logits * factors).sum(), values)]


@settings(max_examples=100, deadline=None)
@given(source=st.tuples(sides, sides), size=st.tuples(sides, sides))
@example((7, 7), (7, 7))
@example((7, 14), (14, 7))
@example((3, 30), (9, 10))
@example((1, 1), (40, 40))
@example((40, 40), (1, 1))
def test_two_matrices_resample_as_interpolate_does(source, size):
    level = torch.randn(3, *source, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    down, across = (bilinear(*lengths, CPU, torch.float64).weights for lengths in zip(source, size))
    expected = F.interpolate(level[None], size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(down @ level @ across.t(), expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=100, deadline=None)
@given(source=sides, length=sides, places=st.data())
def test_places_need_only_the_values_around_them(source, length, places):
    start = places.draw(st.integers(0, length - 1))
    stop = places.draw(st.integers(start + 1, length))
    matrix = bilinear(source, length, CPU, torch.float64)
    weights, used = matrix.rows(start, stop)
    values = torch.randn(source, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(weights @ values[used], (matrix.weights @ values)[start:stop])
    needed = matrix.weights[start:stop].any(0).nonzero().flatten().tolist()
    assert 0 <= used.start == needed[0] and needed[-1] < used.stop <= min(source, needed[-1] + 2)


@given(size=st.tuples(sides, sides), hidden=st.integers(1, 64), strip=st.sampled_from([1, 50, 1000, module.STRIP]))
def test_strips_hold_every_row_once_in_order_and_as_many_as_fit(size, hidden, strip):
    with patch.object(module, "STRIP", strip):
        found = list(strips(size, hidden, CPU))
    assert [row for start, stop, _ in found for row in range(start, stop)] == list(range(size[0]))
    for start, stop, pixels in found:
        assert (pixels.start, pixels.stop) == (start * size[1], stop * size[1])
        assert stop - start == 1 or (stop - start) * size[1] * hidden <= strip
    for start, stop, _ in found[:-1]:
        assert (stop - start + 1) * size[1] * hidden > strip


def test_a_gpu_takes_the_grid_at_once():
    assert list(strips((1000, 700), 256, torch.device("cuda"))) == [(0, 1000, slice(0, 700_000))]


@pytest.mark.parametrize("strip", [module.STRIP, SMALL, 1], ids=["one", "three", "a_row_each"])
def test_logits_and_gradients_are_those_of_plain_operations(strip):
    values = tensors()
    for found, expected in zip(with_gradients(in_strips, values, strip), with_gradients(at_once, values)):
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("strip", [SMALL, 1], ids=["three", "a_row_each"])
def test_many_strips_equal_one(strip):
    values = tensors(torch.float32)
    for found, expected in zip(with_gradients(in_strips, values, strip), with_gradients(in_strips, values)):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_gradients_agree_with_finite_differences():
    values = tensors()
    assert all(hidden.abs().min() > 1e-3 for hidden in before_relu(*values)), "a kink of a ReLU is within reach"
    with patch.object(module, "STRIP", SMALL):
        assert torch.autograd.gradcheck(in_strips, values)


@pytest.mark.parametrize("fine, coarse", [(FINE, []), ([], COARSE)], ids=["only_fine", "only_coarse"])
def test_levels_may_all_be_fine_or_all_coarse(fine, coarse):
    values = tensors()
    chosen = values[:9] if fine else [*values[:5], *values[9:]]
    for value in values[9:] if fine else values[5:9]:
        value.data.zero_()
    torch.testing.assert_close(StripHead.apply(GRID, len(fine), *chosen), at_once(*values))


def test_backward_twice_gives_the_same_and_needs_retain_graph():
    values = tensors()
    total = in_strips(*values).square().sum()
    first, second = torch.autograd.grad(total, values, retain_graph=True), torch.autograd.grad(total, values)
    assert all(map(torch.equal, first, second))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(total, values)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_classifier_keeps_no_hidden_map_when_no_gradient_is_wanted(mode):
    head = DenseClassifier([4, 8], torch.zeros(12), torch.ones(12), CLASSES, HIDDEN).eval()
    levels, kept, save = [torch.rand(1, 4, 6, 6), torch.rand(1, 8, 3, 3)], [], FunctionCtx.save_for_backward

    def note(ctx, *values):
        kept.append(sum(value.shape == (6, HIDDEN) for value in values))
        save(ctx, *values)

    with patch.object(module, "STRIP", 1), patch.object(FunctionCtx, "save_for_backward", note):
        head.on_levels(levels, (6, 6))
        with mode():
            head.on_levels(levels, (6, 6))
    assert kept == [2 * 6, 0]


def test_frozen_levels_get_no_gradient_and_the_rest_gets_the_same():
    values, given = tensors(), []
    expected = torch.autograd.grad(at_once(*values).sum(), values)
    frozen = [5, 6, 9, 10, 11]
    for index in frozen:
        values[index].requires_grad_(False)
    backward = StripHead.backward

    def run(ctx, gradient):
        given.extend(backward(ctx, gradient))
        return tuple(given)

    with patch.object(StripHead, "backward", staticmethod(run)):
        in_strips(*values).sum().backward()
    assert given[2 + 5] is None and given[2 + 6] is None, "no product is spent on a frozen level"
    assert all(values[index].grad is None for index in frozen)
    for index in set(range(len(values))) - set(frozen):
        torch.testing.assert_close(values[index].grad, expected[index])
