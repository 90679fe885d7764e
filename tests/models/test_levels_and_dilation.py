"""Each family of torchvision's networks, by one member, against torchvision's own forward pass."""

import copy
import re
from functools import cache
from importlib.util import find_spec
from itertools import product
from tempfile import TemporaryDirectory

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.ops import SqueezeExcitation

from data import UserError
from models.hypercolumn import Hypercolumn
from tests.models.conftest import assert_near, noise

# The modules whose outputs are the levels, found by reading torchvision's code.
FAMILIES = {
    "alexnet": "features.1 features.4 features.11",
    "vgg11_bn": "features.2 features.6 features.13 features.20 features.27",
    "squeezenet1_1": "features.1 features.4 features.7 features.12",
    "resnet18": "relu layer1 layer2 layer3 layer4",
    "mobilenet_v2": "features.1 features.3 features.6 features.13 features.18",
    "mobilenet_v3_small": "features.0 features.1 features.3 features.8 features.12",
    "efficientnet_b0": "features.1 features.2 features.3 features.5 features.8",
    "efficientnet_lite0": "features.1 features.2 features.3 features.5 features.7",
    "convnext_tiny": "features.2.0 features.4.0 features.6.0 features.7",
    "regnet_y_400mf": "stem trunk_output.block1 trunk_output.block2 trunk_output.block3 "
    "trunk_output.block4",
    "densenet121": "features.relu0 features.transition1.conv features.transition2.conv "
    "features.transition3.conv features.norm5",
    "shufflenet_v2_x0_5": "conv1 maxpool stage2 stage3 conv5",
    "mnasnet0_5": "layers.7 layers.8 layers.9 layers.11 layers.16",
    "googlenet": "conv1 conv3 inception3b inception4e inception5b",
    "inception_v3": "Conv2d_2b_3x3 Conv2d_4a_3x3 Mixed_5d Mixed_6e Mixed_7c",
}
MOMENTS = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
UNDILATED = ("densenet121", "inception_v3")  # drop their resolution in another way
NEARLY = ("vgg11_bn", "googlenet")  # dilated poolings of 2x2, which have no centre
# Sides of images that are covered to the border by poolings without padding, and by all else.
SIDES = {"alexnet": 95, "squeezenet1_1": 95}

pytestmark = pytest.mark.filterwarnings("ignore:The default weight init:FutureWarning")


@cache
def network(backbone: str) -> nn.Module:
    """torchvision's own, with values that tell its layers apart; not to be changed."""
    torch.manual_seed(0)
    found = get_model(backbone, weights=None).eval().requires_grad_(False)
    for name, value in found.state_dict().items():
        if value.ndim == 4:
            nn.init.kaiming_normal_(value, nonlinearity="relu")
        elif name.endswith(("weight", "running_var")):
            value.uniform_(0.8, 1.2)
        elif value.is_floating_point():
            value.normal_(0, 0.1)
    return found


@cache
def extractor(backbone: str, *taps: int | str) -> Hypercolumn:
    """The hypercolumn extractor of a family, from a file of torchvision's state dict."""
    state = network(backbone).state_dict()
    if backbone == "densenet121":  # torchvision's files say norm.1 where its layers say norm1
        state = {re.sub(r"(norm|conv)([12])\.", r"\1.\2.", k): v for k, v in state.items()}
    with TemporaryDirectory() as place:
        torch.save(state, path := f"{place}/weights.pth")
        return Hypercolumn(backbone, path, taps or None).eval()


def photo(backbone: str) -> Tensor:
    return noise(*[SIDES.get(backbone, 96)] * 2)


@pytest.mark.parametrize("backbone", FAMILIES)
def test_levels_are_the_maps_before_each_drop_of_resolution_and_the_last(backbone):
    outputs, theirs = [], copy.deepcopy(network(backbone))
    for name in FAMILIES[backbone].split():
        keep = lambda module, args, output: outputs.append(output.clone())  # noqa: E731
        theirs.get_submodule(name).register_forward_hook(keep)
    mean, std = torch.tensor([0.5, 0.5]) if "lite" in backbone else MOMENTS
    theirs.transform_input = True  # of GoogLeNet and Inception, which have weights of that kind
    theirs((photo(backbone) / 255 - mean) / std)
    levels = extractor(backbone)(photo(backbone))
    for level, output in zip(levels, outputs, strict=True):
        assert_near(level, output)


CHOSEN = [  # backbone, taps, the blocks after which these are
    ("squeezenet1_1", [3, "b12", 1, "b4", 3], [2, 4, 8, 12]),
    # Between a convolution, its norm, which is else folded into it, and an activation in place.
    ("vgg11_bn", ["b1", "b2", "b3", "b6"], [1, 2, 3, 6]),
]


@pytest.mark.parametrize("backbone, taps, ends", CHOSEN)
def test_taps_are_levels_or_blocks_and_the_backbone_ends_there(backbone, taps, ends):
    hypercolumn = extractor(backbone, *taps)
    levels = hypercolumn(photo(backbone))
    assert set(hypercolumn.taps) == set(taps) and len(hypercolumn.features) == ends[-1]
    assert [level.shape[1] for level in levels] == hypercolumn.channels
    for level, end in zip(levels, ends, strict=True):
        x = (photo(backbone) / 255 - MOMENTS[0]) / MOMENTS[1]
        assert_near(level, network(backbone).features[:end](x))


@pytest.mark.parametrize("backbone", [name for name in FAMILIES if name not in UNDILATED])
def test_a_dilated_network_is_the_undilated_one_at_the_places_that_it_had(backbone):
    def last_level(drops: int) -> Tensor:
        hypercolumn = copy.deepcopy(extractor(backbone))
        hypercolumn.dilate(drops)
        for layer in hypercolumn.modules():
            if isinstance(layer, SqueezeExcitation):  # its mean over the image is over more places
                layer.avgpool = nn.Identity()
        return hypercolumn.double()(photo(backbone)[..., :-32, :-32].double() / 255)[-1]

    expected, found, step = last_level(0), last_level(2), 2**2
    assert found.shape[-1] >= step * (expected.shape[-1] - 1) + 1
    if backbone in NEARLY:
        return
    lattices = [found[..., start::step, start::step] for start in range(step)]
    same = [lattice for lattice in lattices if lattice.shape == expected.shape]
    error = min((lattice - expected).abs().max() for lattice in same)
    assert expected.std() > 0 and error < 1e-9 * expected.abs().max()


@pytest.mark.parametrize("backbone", UNDILATED)
def test_a_drop_that_cannot_be_dilated_is_refused(backbone):
    with pytest.raises(UserError, match="--dilate 1: .*something else than strided convolutions"):
        Hypercolumn(backbone, None, dilated=1)


LEARNING = ["vgg11_bn", "mobilenet_v3_small", "densenet121", "googlenet"]
if find_spec("timm"):
    LEARNING += ["timm/resnet10t", "timm/vit_tiny_patch16_224"]


@pytest.mark.parametrize(("backbone", "amp"), [*product(LEARNING, [False]), ("resnet18", True)])
def test_all_but_the_frozen_stages_learn_and_batch_norm_keeps_its_statistics(backbone, amp):
    hypercolumn = Hypercolumn(backbone, "random")
    before = copy.deepcopy(hypercolumn.state_dict())
    hypercolumn.unfreeze(frozen_stages=1)
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        levels = hypercolumn.train()(noise(80, 80))
        sum(level.float().square().mean() for level in levels).backward()
    assert [level.requires_grad for level in levels] == [False] + [True] * (len(levels) - 1)
    learning = [value for value in hypercolumn.parameters() if value.requires_grad]
    assert learning and all(value.grad.isfinite().all() for value in learning)
    assert all(map(torch.equal, hypercolumn.state_dict().values(), before.values()))
