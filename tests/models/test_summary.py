"""What is said of a network is what its modules are."""

import pytest
import torch
from torch import nn

from models.classifier import DenseClassifier
from models.hypercolumn import Hypercolumn
from models.segmenter import Segmenter
from models.summary import summarise


def network(backbone, taps=None, context=(), dilated=0, classes=7, size=64, stride=2):
    hypercolumn = Hypercolumn(backbone, None, taps, context=context, dilated=dilated)
    moments = torch.zeros(hypercolumn.Z), torch.ones(hypercolumn.Z)
    head = DenseClassifier(hypercolumn.channels, *moments, classes, (8, 8), dropout=0.25)
    names, colours = [f"class {i}" for i in range(classes)], [[0, 0, 0]] * classes
    return Segmenter(hypercolumn, head, size, stride, names, colours)


@pytest.mark.parametrize("backbone", ["vgg13_bn", "squeezenet1_0", "resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("taps, dilated", [(None, 0), (None, 1), ([2, 3], 1)])
def test_the_stages_end_in_the_levels_of_the_hypercolumn(backbone, taps, dilated):
    segmenter = network(backbone, taps, dilated=dilated)
    found, hypercolumn = summarise(segmenter), segmenter.hypercolumn
    stages = found["stages"]
    assert [stage["tap"] for stage in stages] == list(range(1, hypercolumn.taps[-1] + 1))
    assert [stage["tap"] for stage in stages if stage["used"]] == hypercolumn.taps
    shapes = hypercolumn.level_shapes(64, 64)
    assert [stage["shape"] for stage in stages if stage["used"]] == shapes
    assert found["levels"] == [(f"tap {tap}", s) for tap, s in zip(hypercolumn.taps, shapes)]


VGG11 = ["conv 3×3", "pool /2, conv 3×3", "pool /2, 2 × conv 3×3", "pool /2, 2 × conv 3×3"]
BASIC = "2 × basic block, the first /2"
SHUFFLENET = [
    "conv 3×3 /2, batch norm",
    "pool /2",
    *[f"{n} × inverted residual, the first /2" for n in (4, 8)],
    "4 × inverted residual, the first /2, conv 1×1, batch norm",
]
CONVNEXT = ["conv 4×4 /4, 3 × cnblock", "conv 2×2 /2, 3 × cnblock", "conv 2×2 /2, 9 × cnblock"]
FIRES = ["conv 3×3 /2", "pool /2, 2 × fire", "pool /1, 2 × fire, dilation 2"]


@pytest.mark.parametrize(
    ("backbone", "dilated", "layers"),
    [
        ("vgg11", 0, [*VGG11, "pool /2, 2 × conv 3×3"]),
        ("vgg11", 1, [*VGG11, "pool /1, 2 × conv 3×3, dilation 2"]),
        ("vgg13_bn", 0, ["2 × conv 3×3, batch norm", *["pool /2, 2 × conv 3×3, batch norm"] * 4]),
        ("squeezenet1_0", 0, ["conv 7×7 /2", *(f"pool /2, {n}fire" for n in ("3 × ", "4 × ", ""))]),
        ("squeezenet1_1", 2, [*FIRES, "pool /1, 4 × fire, dilation 4"]),
        ("resnet18", 0, ["conv 7×7 /2, batch norm", "pool /2, 2 × basic block", *[BASIC] * 3]),
        ("shufflenet_v2_x0_5", 0, SHUFFLENET),
        ("convnext_tiny", 1, [*CONVNEXT, "conv 2×2, 3 × cnblock, dilation 2"]),
    ],
)
def test_the_layers_of_a_stage_are_told_in_words(backbone, dilated, layers):
    stages = summarise(network(backbone, dilated=dilated))["stages"]
    assert [stage["layers"] for stage in stages] == layers


def test_the_numbers_are_those_of_the_modules():
    segmenter = network("vgg11", [2, 4], ["image", "quadrants", "5"], size=65, stride=4)
    found = summarise(segmenter)
    counted = sum(value.numel() for value in segmenter.hypercolumn.parameters())
    facts = "backbone", "fine_tuned", "parameters", "size", "grid"
    assert [found[name] for name in facts] == ["vgg11", False, counted, 65, 17]
    assert found["levels"] == [
        ("tap 2", (128, 32, 32)),
        ("tap 4", (512, 8, 8)),
        ("image", (512, 1, 1)),
        ("quadrants", (512, 2, 2)),
        ("5×5", (512, 8, 8)),
    ]
    around = "over 5 × 5 around each place"
    assert found["context"] == ["over the whole image", "over its quadrants", around]
    assert [title for title, _ in found["head"]] == [
        "standardise",
        "1×1 convolution 2176 → 8",
        "1×1 convolution 8 → 8",
        "1×1 convolution 8 → 7",
        "logits 7 × 17 × 17",
        "class map",
    ]
    assert [line for _, line in found["head"][1:4]] == [
        "17,416 parameters, ReLU, dropout 0.25",
        "72 parameters, ReLU, dropout 0.25",
        "63 parameters",
    ]
    assert found["head_parameters"] == 2176 * 8 + 8 + 8 * 8 + 8 + 8 * 7 + 7


def test_a_window_grows_with_dilation():
    assert summarise(network("squeezenet1_1", context=["5"], dilated=1))["context"] == [
        "over 11 × 11 around each place"
    ]


def test_what_has_changed_is_said():
    segmenter = network("squeezenet1_1")
    segmenter.origin = "0123456789abcdef"
    segmenter.head.layers = nn.Sequential(nn.Conv2d(960, 7, 1), nn.GELU())
    found = summarise(segmenter)
    assert found["fine_tuned"]
    assert found["head"][1] == ("1×1 convolution 960 → 7", "6,727 parameters, GELU")
