"""torchvision's classification networks as sequences of blocks, and their weights.

One rule finds the levels of all of them: a level is the last feature map before each drop of
resolution, and the last one.
"""

import copy
import re
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import WeightsEnum, get_model, get_model_weights, list_models

import models
from data import UserError
from models import efficientnet_lite  # noqa: F401  registers its networks
from models.backbones import Backbone
from models.weight_files import read_state

TRANSFORMERS = ("maxvit", "swin", "vit")  # no maps (B, C, h, w) of an input of any size
HEADS = ("avgpool", "classifier", "fc", "dropout", "aux1", "aux2", "AuxLogits")  # are left out
SIDE = 512  # pixels of the input on which drops of resolution are looked for


class Blocks(nn.Sequential, Backbone):
    """Blocks one after the other, of which some give levels.

    Args:
        ends: indices of the blocks that give the levels; the last block is one of them.
        taps: their names, in the same order.
        channels: of each level.
    """

    def __init__(
        self,
        blocks: nn.Sequential,
        ends: Sequence[int],
        taps: Sequence[int | str],
        channels: Sequence[int],
    ):
        super().__init__(*blocks)
        self.ends, self.taps, self.channels = list(ends), list(taps), list(channels)

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        """(B, 3, H, W), normalised -> (B, C_l, h_l, w_l) of each level."""
        levels = []
        for index, block in enumerate(self):
            x = block(x)
            if index in self.ends:
                levels.append(x)
        return levels


def build(
    backbone: str,
    weights: str | None,
    seed: int,
    taps: Sequence[int | str] | None,
    drops: int,
) -> Blocks:
    """See `models.backbones.build`; taps are levels, 1 = finest, or "b19", the 19th block's map.

    Batch norm, which keeps the statistics of ImageNet, is folded into the convolutions before it.
    """
    blocks = empty_blocks(backbone)
    shapes = block_shapes(blocks)
    levels = dict(enumerate(find_taps(shapes), start=1))
    known = levels | {f"b{index + 1}": index for index in range(len(shapes))}
    chosen = list(levels) if taps is None else taps
    if not chosen or not known.keys() >= set(chosen):
        raise UserError(
            f"--taps {','.join(map(str, chosen))}: {backbone} has taps 1 to {len(levels)} and "
            f"blocks b1 to b{len(shapes)}"
        )
    by_end = {known[tap]: tap for tap in chosen}
    ends = sorted(by_end)
    blocks = blocks[: ends[-1] + 1]
    dilate(blocks, drops)
    if weights:
        state = load_blocks(backbone, weights, seed)[: len(blocks)].state_dict()
        blocks.load_state_dict(state, assign=True)
    else:
        blocks.to_empty(device="cpu")
    fold_batch_norm(blocks, ends)
    for end in ends[:-1]:  # what follows must not write into a level
        for layer in blocks[end + 1].modules():
            if hasattr(layer, "inplace"):
                layer.inplace = False
    channels = [shapes[end][0] for end in ends]
    return Blocks(blocks, ends, [by_end[end] for end in ends], channels).requires_grad_(False)


def weights_name(backbone: str, weights: str) -> str:
    """See `models.backbones.weights_name`."""
    preset = find_weights(backbone, weights)
    return preset.name if preset else weights


def backbones() -> list[str]:
    """The names of the networks that have levels, as this torchvision knows them."""
    names = [*list_models(module=torchvision.models), *list_models(module=models)]
    return [name for name in names if not name.startswith(TRANSFORMERS)]


@cache
def _network(name: str) -> nn.Sequential:
    """The children of a network but for its `HEADS`, on the meta device; not to be changed.

    Raises:
        UserError: the name is not in `backbones`.
    """
    if name not in backbones():
        raise UserError(
            f"unknown backbone {name!r}; choose one of {', '.join(backbones())} "
            f"(those of {', '.join(TRANSFORMERS)} have no levels)"
        )
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", FutureWarning)  # of an initialisation that nobody will see
        try:
            with torch.device("meta"):
                network = get_model(name, weights=None)
        except NotImplementedError:  # RegNet computes its widths with tensors
            network = get_model(name, weights=None).to("meta")
    children = ((name, child) for name, child in network.named_children() if name not in HEADS)
    return nn.Sequential(OrderedDict(children))


def find_weights(backbone: str, weights: str) -> WeightsEnum | None:
    """The published weights that are meant by "imagenet" (the DEFAULT) or by their own name.

    None if it is neither: "random", or a file.
    """
    known = get_model_weights(backbone).__members__
    return known.get("DEFAULT" if weights == "imagenet" else weights)


def input_moments(backbone: str, weights: str) -> tuple[list[float], list[float]]:
    """See `models.backbones.input_moments`."""
    if backbone in ("googlenet", "inception_v3"):  # trained elsewhere, on -1..1
        return [0.5] * 3, [0.5] * 3
    moments = (find_weights(backbone, weights) or find_weights(backbone, "imagenet")).transforms()
    return list(moments.mean), list(moments.std)


def _fetch(backbone: str, preset: WeightsEnum) -> dict[str, Tensor]:
    """The state dict of published weights, downloaded once."""
    try:
        return preset.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; a damaged file in the download cache
        raise UserError(
            f"the weights {preset.name} of {backbone} could not be fetched ({error}); get "
            f"{preset.url} on another machine and put it into {torch.hub.get_dir()}/checkpoints"
            ", or use --weights FILE or --weights random"
        ) from None


def empty_blocks(backbone: str) -> nn.Sequential:
    """The network up to its last feature map, block after block, on the meta device.

    Raises:
        UserError: the backbone is not in `backbones`.
    """
    return _blocks(copy.deepcopy(_network(backbone)))


def load_blocks(backbone: str, weights: str, seed: int) -> nn.Sequential:
    """`empty_blocks` with their weights, float32 on the CPU.

    Args:
        weights: see `models.backbones.build`; "random" is He's initialisation, and a file may also
            hold the model's `features` alone.
    """
    network = copy.deepcopy(_network(backbone))
    if weights == "random":
        return _initialise(_blocks(network), seed)
    preset = find_weights(backbone, weights)
    state = _fetch(backbone, preset) if preset else read_state(weights)
    # torchvision's files of DenseNet have older names.
    state = {re.sub(r"(denselayer\d+\.\w+)\.(\d\.)", r"\1\2", k): v for k, v in state.items()}
    if not state.keys() & network.state_dict().keys():  # of `features` alone, perhaps
        state = {f"features.{name}": value for name, value in state.items()}
    state = {name: value for name, value in state.items() if not name.startswith(HEADS)}
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:  # torch's second line names the first missing or odd tensor
        reason = str(error).splitlines()[1].strip()[:100]
        raise UserError(
            f"{weights}: do not fit {backbone} ({reason}); are these weights of another backbone?"
        ) from None
    return _blocks(network).float()


def _initialise(blocks: nn.Sequential, seed: int) -> nn.Sequential:
    """The blocks with He's random weights from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, value in blocks.to_empty(device="cpu").state_dict().items():
            if value.ndim in (2, 4):
                mode = "fan_in" if value.shape[1] == 1 else "fan_out"
                nn.init.kaiming_normal_(value, mode=mode, nonlinearity="relu")
            else:  # factors and variances are 1; offsets, means and counters are 0
                value.fill_(not name.endswith(("bias", "running_mean", "num_batches_tracked")))
    return blocks


def _blocks(network: nn.Sequential) -> nn.Sequential:
    """The layers of a network in their order; sequences within it are flattened.

    So a block is a layer or, for example, a residual block. A pooling at the end is left out: it
    adds nothing to the map before it.
    """
    blocks = _flattened(network)
    while isinstance(blocks[-1], nn.MaxPool2d):
        blocks.pop()
    return nn.Sequential(*blocks).eval()


def _flattened(module: nn.Module) -> list[nn.Module]:
    """The module, or what is in it if it does nothing but call one after the other."""
    if type(module).forward is not nn.Sequential.forward:
        return [module]
    return [block for child in module for block in _flattened(child)]


def block_shapes(blocks: nn.Sequential) -> list[tuple[int, int]]:
    """(channels, width) of the map after each block on the meta device, for `SIDE` pixels."""
    x, shapes = torch.empty(1, 3, SIDE, SIDE, device="meta"), []
    for block in blocks:
        x = block(x)
        shapes.append((x.shape[1], x.shape[3]))
    return shapes


def find_taps(shapes: Sequence[tuple[int, int]]) -> list[int]:
    """Indices of the blocks that give the levels, fine to coarse, from `block_shapes`."""
    # A drop halves the width, or nearly; a convolution without padding loses a few pixels.
    widths = pairwise(width for _, width in shapes)
    drops = [index for index, (before, after) in enumerate(widths) if after < 0.75 * before]
    return [*drops, len(shapes) - 1]


class DilatedMaxPool(nn.MaxPool2d):
    """The maximum of 3x3 values that are `dilation` pixels apart, at every pixel."""

    def __init__(self, dilation: int):
        super().__init__(3, stride=1, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w); nothing lies outside."""
        return super().forward(F.pad(x, [self.dilation] * 4, value=-torch.inf))


def dilate(blocks: nn.Sequential, drops: int) -> None:
    """Sets the strides of the last `drops` drops of resolution to 1, and dilates what follows.

    The blocks behind then see what they were trained on, on a grid that is 2, 4, .. times as fine
    (Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected
    CRFs", ICLR 2015, section 3.1). A max pooling without stride takes the maximum of 3x3, which
    has a centre: exact for poolings of 3x3, an approximation for VGG's 2x2.

    Args:
        blocks: on the meta device; changed in place.

    Raises:
        UserError: there are fewer drops, or one is neither a strided convolution nor a max pooling.
    """
    taps, rate = find_taps(block_shapes(blocks)), 1
    for index in range(taps[-1 - drops] + 1 if drops < len(taps) else 0, len(blocks)):
        behind = rate  # a strided layer itself keeps its rate; those behind it are dilated
        for name, layer in list(blocks[index].named_modules(prefix=str(index))):
            if not isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                continue
            is_strided = layer.stride not in (1, (1, 1))
            behind = 2 * rate if is_strided else behind
            own = rate if is_strided else behind
            if isinstance(layer, nn.MaxPool2d):
                blocks.set_submodule(name, DilatedMaxPool(own))
            else:
                layer.padding = "same" if is_strided else tuple(own * p for p in layer.padding)
                layer.stride, layer.dilation = (1, 1), (own, own)
        rate = behind
    try:
        found = find_taps(block_shapes(blocks))
    except RuntimeError:  # maps that no longer fit together
        found = []
    if found != [*taps[: -1 - drops], taps[-1]] or drops >= len(taps):
        raise UserError(
            f"--dilate {drops}: {len(taps) - 1} drops of resolution are there to undo, and those "
            "by something else than strided convolutions and max poolings cannot be; take a "
            "smaller N"
        )


def fold_batch_norm(blocks: nn.Sequential, ends: Sequence[int]) -> None:
    """Folds each batch norm behind a convolution into it, in place: one pass over the map less.

    In eval mode, where these backbones always are, it is a factor and an offset of each channel.

    Args:
        ends: indices of blocks whose results are levels; what follows them is left as it is.
    """
    for parent in list(blocks.modules()):
        for (name, layer), (after, norm) in pairwise(list(parent.named_children())):
            is_level = parent is blocks and int(name) in ends
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and not is_level:
                setattr(parent, name, fuse_conv_bn_eval(layer.eval(), norm.eval()))
                setattr(parent, after, nn.Identity())
