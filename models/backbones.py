"""The backbones: torchvision's classification networks as sequences of blocks, and their weights.

One rule finds the levels of all of them: a level is the last feature map before each drop of
resolution, and the last one.
"""

import copy
import hashlib
import re
import warnings
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import WeightsEnum, get_model, get_model_weights, list_models

from models import RunError
from models.checkpoint import load_tensors

WITHOUT_LEVELS = {
    "maxvit": "its windows need an input of one fixed size",
    "swin": "its blocks do not give (B, C, h, w) maps",
    "vit": "its tokens are a single map, so there is nothing to zoom out of",
}
HEADS = ("avgpool", "classifier", "fc")  # what torchvision calls that which follows the blocks
SIDE = 512  # pixels of the input on which drops of resolution are looked for


def backbones() -> list[str]:
    """The names of the networks that have levels, as this torchvision knows them."""
    names = list_models(module=torchvision.models)
    return [name for name in names if not name.startswith(tuple(WITHOUT_LEVELS))]


def check_backbone(name: str) -> None:
    """Refuses a name that is not in `backbones`.

    Raises:
        RunError: says why, or names all.
    """
    if name in backbones():
        return
    for family, why in WITHOUT_LEVELS.items():
        if name.startswith(family):
            raise RunError(f"backbone {name}: cannot be used, {why}; take another")
    raise RunError(f"unknown backbone {name!r}; choose one of {', '.join(backbones())}")


def empty_blocks(backbone: str) -> nn.Sequential:
    """The network up to its last feature map, block after block, on the meta device.

    Sequences within the network are flattened, so that a block is a layer or, for example, a
    residual block. A pooling at the end is left out: it adds nothing to the map before it.

    Raises:
        RunError: see `check_backbone`.
    """
    check_backbone(backbone)
    return copy.deepcopy(_blocks(_empty_network(backbone)))


@cache
def block_shapes(backbone: str) -> tuple[tuple[int, int], ...]:
    """(channels, width) of the map after each block of a network, for an input of `SIDE` pixels.

    Cached: it takes longer than all else that builds MobileNetV2.

    Raises:
        RunError: see `check_backbone`.
    """
    return tuple(_map_shapes(empty_blocks(backbone)))


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


def dilate(blocks: nn.Sequential, drops: int) -> nn.Sequential:
    """Sets the strides of the last `drops` drops of resolution to 1, and dilates what follows.

    The blocks behind then see what they were trained on, on a grid that is 2, 4, .. times as fine
    (Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected
    CRFs", ICLR 2015, section 3.1). A max pooling without stride takes the maximum of 3x3, which
    has a centre: exact for poolings of 3x3, an approximation for VGG's 2x2.

    Args:
        blocks: on the meta device; changed in place.

    Raises:
        RunError: there are fewer drops, or one is neither a strided convolution nor a max pooling.
    """
    if not drops:
        return blocks
    taps = find_taps(_map_shapes(blocks))
    if drops > len(taps) - 1:
        raise RunError(f"--dilate {drops}: there are {len(taps) - 1} drops of resolution to undo")
    rate, first = 1, taps[-1 - drops] + 1
    for index in range(first, len(blocks)):
        behind = rate  # a strided layer itself keeps its rate; those behind it are dilated
        for name, layer in list(blocks[index].named_modules()):
            if not isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                continue
            is_strided = layer.stride not in (1, (1, 1))
            behind = 2 * rate if is_strided else behind
            own = rate if is_strided else behind
            if isinstance(layer, nn.MaxPool2d):
                blocks.set_submodule(f"{index}.{name}".rstrip("."), DilatedMaxPool(own))
            else:
                layer.padding = "same" if is_strided else tuple(own * p for p in layer.padding)
                layer.stride, layer.dilation = (1, 1), (own, own)
        rate = behind
    try:
        done = find_taps(_map_shapes(blocks)) == [*taps[: -1 - drops], taps[-1]]
    except RuntimeError:  # maps that no longer fit together
        done = False
    if not done:
        raise RunError(
            f"--dilate {drops}: this backbone drops its resolution by something else than "
            "strided convolutions and max poolings, which cannot be dilated; take a smaller N"
        )
    return blocks


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


def find_weights(backbone: str, weights: str) -> WeightsEnum | None:
    """The torchvision weights that are meant by "imagenet" (its DEFAULT) or by their own name.

    None if it is neither: "random", or a file.
    """
    known = get_model_weights(backbone).__members__
    return known.get("DEFAULT" if weights == "imagenet" else weights)


def input_moments(backbone: str, weights: str) -> tuple[list[float], list[float]]:
    """Mean and std, RGB in 0..1, that weights expect of their input; of a file: as "imagenet"."""
    if hasattr(_empty_network(backbone), "transform_input"):  # trained elsewhere, on -1..1
        return [0.5] * 3, [0.5] * 3
    preset = find_weights(backbone, weights) or find_weights(backbone, "imagenet")
    moments = preset.transforms()
    return list(moments.mean), list(moments.std)


def load_weights(backbone: str, blocks: nn.Sequential, weights: str, seed: int) -> None:
    """Allocates (the first of) `empty_blocks` on the CPU and fills them, in place.

    Args:
        weights: "imagenet" or another name of torchvision's weights (downloaded once), "random"
            (He initialisation from `seed`), or a state-dict file with torchvision's names: of the
            full model, or of its `features` alone.

    Raises:
        RunError: no network for the download, or a file that is missing, damaged, not a state
            dict, or of another architecture.
    """
    blocks.to_empty(device="cpu")
    if weights == "random":
        _initialise(blocks, seed)
        return
    preset, known = find_weights(backbone, weights), get_model_weights(backbone).__members__
    if not preset and weights.isidentifier() and not Path(weights).exists():
        raise RunError(
            f"--weights {weights}: neither a file nor the name of weights of {backbone}; choose "
            f"imagenet, random, {', '.join(known)}, or a state-dict file"
        )
    state = _download(backbone, preset) if preset else _read_state(Path(weights))
    # torchvision's files of DenseNet are older than the names of its layers.
    state = {re.sub(r"(denselayer\d+\.\w+)\.(\d\.)", r"\1\2", k): v for k, v in state.items()}
    names = {ours: name for ours, name in _names(backbone).items() if ours in blocks.state_dict()}
    if not any(name in state for name in names.values()):  # of `features` alone, perhaps
        state = {f"features.{key}": value for key, value in state.items()}
    own = _empty_network(backbone).state_dict()
    if foreign := [key for key in state if key not in own and not key.startswith(HEADS)]:
        raise RunError(
            f"{weights}: do not fit {backbone} (it has no {foreign[0]}); are these weights of "
            "another backbone?"
        )
    for layer in blocks.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()  # older files lack its counter, which must not be garbage
    try:
        blocks.load_state_dict({ours: state[n] for ours, n in names.items() if n in state})
    except RuntimeError as error:  # torch's second line names the first missing or odd tensor
        reason = str(error).splitlines()[1].strip()
        for ours, name in names.items():
            reason = reason.replace(f'"{ours}"', name).replace(f" {ours}:", f" {name}:")
        raise RunError(
            f"{weights}: do not fit {backbone} ({reason[:100]}); are these weights of another "
            "backbone?"
        ) from None


def fingerprint(network: nn.Module) -> str:
    """First 16 hexadecimal digits of the SHA-256 of all weights: identifies a network."""
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@cache
def _empty_network(backbone: str) -> nn.Module:
    """torchvision's network without memory for its weights, on the meta device; not to be changed.

    Cached, since building a large one takes seconds.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", FutureWarning)  # of an initialisation that nobody will see
        try:
            with torch.device("meta"):
                return get_model(backbone, weights=None)
        except NotImplementedError:  # RegNet computes its widths with tensors
            return get_model(backbone, weights=None).to("meta")


def _blocks(network: nn.Module) -> nn.Sequential:
    blocks = []
    for name, child in network.named_children():
        if name in HEADS:
            break
        if not name.lower().startswith("aux"):  # heads on the way, for training from scratch
            blocks += _flattened(child)
    while isinstance(blocks[-1], nn.MaxPool2d):
        blocks.pop()
    return nn.Sequential(*blocks).eval()


def _map_shapes(blocks: nn.Sequential) -> list[tuple[int, int]]:
    """`block_shapes` of blocks on the meta device."""
    x, shapes = torch.empty(1, 3, SIDE, SIDE, device="meta"), []
    for block in blocks:
        x = block(x)
        shapes.append((x.shape[1], x.shape[3]))
    return shapes


def _flattened(module: nn.Module) -> list[nn.Module]:
    """The module, or what is in it if it does nothing but call one after the other."""
    if type(module).forward is not nn.Sequential.forward:
        return [module]
    return [block for child in module for block in _flattened(child)]


def _names(backbone: str) -> dict[str, str]:
    """What torchvision calls each tensor of `empty_blocks`."""
    network = _empty_network(backbone)
    theirs = {id(value): name for name, value in network.state_dict(keep_vars=True).items()}
    ours = _blocks(network).state_dict(keep_vars=True)
    return {name: theirs[id(value)] for name, value in ours.items()}


def _initialise(blocks: nn.Sequential, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for parameter in blocks.parameters():
            nn.init.ones_(parameter)  # factors that belong to no layer, like ConvNeXt's
        for layer in blocks.modules():
            if isinstance(layer, nn.Conv2d):
                mode = "fan_out" if layer.groups == 1 else "fan_in"
                nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
            elif hasattr(layer, "reset_parameters"):
                layer.reset_parameters()


def _download(backbone: str, preset: WeightsEnum) -> dict[str, Tensor]:
    try:
        return preset.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; a damaged file in the download cache
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise RunError(
            f"the weights {preset.name} of {backbone} could not be fetched ({error}); get "
            f"{preset.url} on another machine and put it into {cache}, or use --weights FILE or "
            "--weights random"
        ) from None


def _read_state(path: Path) -> dict[str, Tensor]:
    state = load_tensors(path, "weights")
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise RunError(f"{path}: not a state dict (names to tensors)")
    return state
