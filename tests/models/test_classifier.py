"""The classifier: fully connected and dense are one function, on grids and at points, and fast."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from data.classes import VOC
from data.sampling import draw_kept
from losses.loss import segmentation_loss
from models.classifier import ACTIVATIONS, DenseClassifier, FCClassifier
from models.hypercolumn import Hypercolumn
from tests import textbook
from tests.models.conftest import assert_near, noise, random_segmenter

CLASSES = 5
assert_equal = partial(assert_near, tolerance=1e-8)


def head_for(channels, mean=None, std=None) -> DenseClassifier:
    torch.manual_seed(1)
    mean = torch.randn(sum(channels)) if mean is None else mean
    std = torch.rand(sum(channels)) + 0.5 if std is None else std
    return DenseClassifier(channels, mean, std, CLASSES, (16, 16), dropout=0.3).double()


def kept_units(head: DenseClassifier, images: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    drawn = [draw_kept(head.widths, head.dropout, generator) for _ in range(images)]
    return [torch.stack(units) for units in zip(*drawn)]


def with_gradients(logits: Tensor, learning: list[Tensor]) -> list[Tensor]:
    """Logits (B, C, ..) and gradients of a sum that weighs each of them differently."""
    factors = torch.linspace(-1, 2, logits.numel(), dtype=logits.dtype).view(logits.shape)
    return [logits.detach(), *torch.autograd.grad((logits * factors).sum(), learning)]


def test_a_constant_feature_is_only_centred():
    mean, std = torch.tensor([0.0, 1000.0, 7.0, 0.0]), torch.tensor([0.0, 1e-4, 0.5, 1e-9])
    fc = FCClassifier(mean, std, 4, ())  # 1e-4 of 1000 is rounding, 1e-9 around 0 is not
    assert fc.std.tolist() == [1, 1, 0.5, pytest.approx(1e-9)]
    fc.layers[0].weight.data, fc.layers[0].bias.data = torch.eye(4), torch.zeros(4)
    assert fc(torch.tensor([[2.0, 1001.0, 7.5, 0.0]])).tolist() == [[2, 1, 1, 0]]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("widths", [(), (7,), (9, 6, 5)])
def test_fully_connected_layers_become_1x1_convolutions_of_the_same_function(widths, activation):
    torch.manual_seed(3)
    moments = torch.randn(12), torch.rand(12) + 0.5
    fc = FCClassifier(*moments, CLASSES, widths, activation, 0.3, 0.5).double().eval()
    dense = DenseClassifier.from_fc(fc, [4, 8]).double()
    for layer, convolution in zip(fc.layers, dense.layers, strict=True):
        assert torch.equal(convolution.weight, layer.weight[:, :, None, None])
    levels = [torch.randn(2, 4, 8, 8).double(), torch.randn(2, 8, 4, 4).double()]
    columns = Hypercolumn.as_map(levels, (8, 8))
    assert_equal(dense(levels, (8, 8)), fc(columns.movedim(1, -1)).movedim(-1, 1))


shapes = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=40)
@given(
    grid=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    shapes=st.lists(shapes, min_size=1, max_size=4),
    read_first=st.sampled_from([None, [True] * 4, [False] * 4]),
    drops=st.booleans(),
)
def test_grid_and_points_equal_the_textbook_with_all_gradients(grid, shapes, read_first, drops):
    head = head_for([shape[0] for shape in shapes])
    head.read_first = read_first
    kept = kept_units(head) if drops else ()
    levels = [torch.randn(2, *shape, dtype=torch.float64) for shape in shapes]
    cells = torch.cartesian_prod(*map(torch.arange, grid)).double()
    centres = ((cells + 0.5) / torch.tensor(grid)).expand(2, -1, -1)
    before = [level.clone() for level in levels]
    with torch.no_grad():  # where it works in place
        expected = textbook.logits(head, Hypercolumn.as_map(levels, grid), kept).flatten(2)
        for where in (grid, centres):
            assert_equal(head(levels, where, kept).flatten(2), expected)
    assert all(map(torch.equal, levels, before)), "what is added in place is the head's own"
    learning = [*head.parameters(), *(level.requires_grad_() for level in levels)]
    columns = Hypercolumn.as_map(levels, grid)
    expected = with_gradients(textbook.logits(head, columns, kept).flatten(2), learning)
    for where in (grid, centres):
        found = with_gradients(head(levels, where, kept).flatten(2), learning)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.005)])
def test_low_precision_is_close_also_where_means_are_large(dtype, tolerance):
    head = head_for([4, 8], torch.full((12,), 50.5), torch.full((12,), 0.3)).float()
    levels = [torch.rand(1, 4, 6, 6) + 50, torch.rand(1, 8, 3, 3) + 50]
    for where in ((6, 6), torch.rand(1, 20, 2)):
        expected = head(levels, where)
        with torch.autocast("cpu", dtype):
            found = head(levels, where)
        assert not torch.equal(found.float(), expected)
        assert_near(found.float(), expected, tolerance)


class Operations(TorchDispatchMode):
    """Counts what torch is asked to do, forward and backward."""

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += 1
        return operation(*args, **(kwargs or {}))


def test_a_step_takes_as_many_operations_for_16_images_as_for_2():
    segmenter, counts = random_segmenter("mobilenet_v2", 64, 4, (256, 256), VOC), []
    segmenter.hypercolumn.unfreeze()
    for images in (2, 16):
        photos, points = noise(64, 64, images), torch.rand(images, 1024, 2)
        kept, target = kept_units(segmenter.head, images), torch.randint(0, 21, (images, 1024))
        with Operations() as operations:
            logits = segmenter(photos, points, kept)
            segmentation_loss(logits, target, label_smoothing=0.1, lovasz=1.0).backward()
        counts.append(operations.count)
        segmenter.zero_grad()  # the next gradients are not added to these
    assert counts[0] == counts[1] <= 900
