"""The drawing of the architecture: its numbers are those of the modules, and it is readable for every network."""

import pytest
import torch
from matplotlib.patches import FancyBboxPatch

from losses.page import HEIGHT, WIDTH
from models.backbones import BACKBONES
from models.classifier import DenseClassifier
from models.diagram import backbone_stages, draw_architecture
from models.hypercolumn import Hypercolumn
from models.segmenter import Segmenter
from tests.pages import faults, texts


def network(backbone="squeezenet1_1", taps=None, context=(), dilated=0, classes=3, hidden=8, size=64, stride=2):
    hypercolumn = Hypercolumn(backbone, None, taps, context=context, dilated=dilated)
    moments = torch.zeros(hypercolumn.Z), torch.ones(hypercolumn.Z)
    head = DenseClassifier(hypercolumn.channels, *moments, classes, hidden, 0.25)
    return Segmenter(hypercolumn, head, size, stride, [f"class {i}" for i in range(classes)], [[0, 0, 0]] * classes)


def words(segmenter, monkeypatch) -> list[str]:
    return [text for text, _ in texts(draw_architecture(segmenter), monkeypatch)]


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("taps, dilated", [(None, 0), (None, 1), ([2, 3], 1)])
def test_the_stages_end_in_the_levels_of_the_hypercolumn(backbone, taps, dilated):
    hypercolumn = Hypercolumn(backbone, None, taps, dilated=dilated)
    stages = backbone_stages(hypercolumn, 64, 96)
    assert [stage.tap for stage in stages] == list(range(1, hypercolumn.taps[-1] + 1))
    assert [stage.tap for stage in stages if stage.used] == hypercolumn.taps
    assert [stage.shape for stage in stages if stage.used] == hypercolumn.level_shapes(64, 96)


@pytest.mark.parametrize(
    ("backbone", "dilated", "layers"),
    [
        ("vgg11", 0, ["conv 3×3", "pool /2, conv 3×3", *["pool /2, 2 × conv 3×3"] * 3]),
        ("vgg11", 1, ["conv 3×3", "pool /2, conv 3×3", *["pool /2, 2 × conv 3×3"] * 2]
         + ["pool /1, 2 × conv 3×3, dilation 2"]),
        ("vgg13_bn", 0, ["2 × conv 3×3, batch norm", *["pool /2, 2 × conv 3×3, batch norm"] * 4]),
        ("squeezenet1_0", 0, ["conv 7×7 /2", "pool /2, 3 × fire", "pool /2, 4 × fire", "pool /2, fire"]),
        ("squeezenet1_1", 2, ["conv 3×3 /2", "pool /2, 2 × fire", "pool /1, 2 × fire, dilation 2"]
         + ["pool /1, 4 × fire, dilation 4"]),
    ],
)  # fmt: skip
def test_the_layers_of_a_stage_are_told_in_words(backbone, dilated, layers):
    hypercolumn = Hypercolumn(backbone, None, dilated=dilated)
    assert [stage.layers for stage in backbone_stages(hypercolumn, 64, 64)] == layers


def test_the_numbers_are_those_of_the_modules(monkeypatch):
    segmenter = network("vgg11", [2, 4], ["image", "5"], classes=7, size=65, stride=4)
    written = words(segmenter, monkeypatch)
    parameters = sum(parameter.numel() for parameter in segmenter.hypercolumn.features.parameters())
    assert {"vgg11, frozen", f"{parameters:,} parameters", "image 3 × 65 × 65", "4 levels"} <= set(written)
    assert written.count("not tapped") == 2
    for text in ("128 × 32 × 32", "512 × 8 × 8", "512 × 1 × 1", "over the whole image", "over 5 × 5 around each place"):
        assert text in written
    assert "Z = 1664 at 17 × 17 places" in written
    assert {"1×1 convolution 1664 → 8", "1×1 convolution 8 → 8", "1×1 convolution 8 → 7"} <= set(written)
    sizes = (1664 * 8 + 8, 8 * 8 + 8, 8 * 7 + 7)
    assert f"{sum(sizes):,} parameters" in written and f"{sizes[2]:,} parameters" in written
    assert all(f"{size:,} parameters, ReLU, dropout 0.25" in written for size in sizes[:2])
    assert "logits 7 × 17 × 17" in written


def test_a_backbone_that_has_learned_is_said_to_have_and_a_window_grows_with_dilation(monkeypatch):
    segmenter = network(context=["5"], dilated=1)
    segmenter.origin = "0123456789abcdef"
    written = words(segmenter, monkeypatch)
    assert "squeezenet1_1, fine-tuned" in written and "over 11 × 11 around each place" in written


@pytest.mark.parametrize(
    "segmenter",
    [
        {"backbone": "vgg19_bn", "taps": [3, 4, 5], "dilated": 2, "classes": 255, "hidden": 4096, "size": 4000},
        {"backbone": "vgg11", "taps": [1], "context": ["quadrants"], "classes": 2},
        {"context": ["image", "5", "11"], "classes": 60, "size": 320},
        {"backbone": "vgg16", "context": ["image", "quadrants", *map(str, range(3, 21, 2))]},
    ],
    ids=["large", "small", "usual", "tall"],
)
def test_no_text_leaves_the_page_or_runs_into_another(segmenter, monkeypatch):
    figure = draw_architecture(network(**segmenter))
    assert tuple(figure.get_size_inches()) == (WIDTH, HEIGHT)
    assert faults(figure, monkeypatch) == []
    frames = [patch.get_window_extent() for patch in figure.findobj(FancyBboxPatch)]
    held = 0
    for text, box in texts(figure, monkeypatch):
        for frame in frames:
            if frame.contains(*box.get_points().mean(axis=0)):
                held += 1
                assert frame.x0 <= box.x0 and box.x1 <= frame.x1, f"{text!r} is wider than its box"
    assert held == 2 * len(frames)
    boxes = [box for _, box in texts(figure, monkeypatch)]
    assert min(box.y0 for box in boxes) > 0.06 * figure.bbox.height, "no room is left for a page number"
    assert max(box.y1 for box in boxes) < 0.87 * figure.bbox.height, "no room is left for a title"


def test_the_network_is_as_it_was():
    segmenter = network()
    for parameter in segmenter.parameters():
        parameter.data.fill_(0.5)  # what has never been given a value may be nan
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}
    draw_architecture(segmenter)
    assert all(torch.equal(value, before[name]) for name, value in segmenter.state_dict().items())
