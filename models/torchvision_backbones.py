"""torchvision's classification networks, without their heads, and their weights."""

import warnings
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights, list_models

import models
from data import UserError
from models import efficientnet_lite  # noqa: F401  registers its networks
from models.levels_and_dilation import (
    Blocks,
    block_shapes,
    dilate,
    find_taps,
    fold_batch_norm,
    in_blocks,
)
from models.weight_files import load_state, read_state

TRANSFORMERS = ("maxvit", "swin", "vit")  # no maps (B, C, h, w) of an input of any size
HEADS = ("avgpool", "classifier", "fc", "dropout", "aux1", "aux2", "AuxLogits")  # are left out
NAMED_ANEW = ("densenet", "efficientnet_lite")  # others, or older files, name layers otherwise


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
    network = empty_network(backbone)
    blocks = in_blocks(network)
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
    if drops:
        dilate(blocks, drops)
    fill(network, backbone, weights, seed)  # whose layers are the blocks
    fold_batch_norm(blocks, ends)
    for end in ends[:-1]:  # what follows must not write into a level
        for layer in blocks[end + 1].modules():
            if hasattr(layer, "inplace"):
                layer.inplace = False
    built = Blocks(*blocks).requires_grad_(False)
    built.ends, built.taps = ends, [by_end[end] for end in ends]
    built.channels = [shapes[end][0] for end in ends]
    preset = find_weights(backbone, weights) if weights else None
    built.weights = preset.name if preset else weights
    built.mean, built.std = input_moments(backbone, weights or "imagenet")
    return built


def backbones() -> list[str]:
    """The names of the networks that have levels, as this torchvision knows them."""
    names = [*list_models(module=torchvision.models), *list_models(module=models)]
    return [name for name in names if not name.startswith(TRANSFORMERS)]


def empty_network(name: str) -> nn.Sequential:
    """The children of a network but for its `HEADS`, in eval mode on the meta device."""
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
    return nn.Sequential(OrderedDict(children)).eval()


def fill(network: nn.Sequential, backbone: str, weights: str | None, seed: int) -> None:
    """Gives an `empty_network` its weights, float32 on the CPU; see `models.backbones.build`."""
    if weights in (None, "random"):
        network.to_empty(device="cpu")
        if weights:
            initialise(network, seed)
        return
    preset = find_weights(backbone, weights)
    state = fetch(backbone, preset) if preset else read_state(weights)
    state = {name: value for name, value in state.items() if not name.startswith(HEADS)}
    load_state(network, renamed(state, network, backbone), weights, backbone, assign=True)
    network.float()


def initialise(network: nn.Module, seed: int) -> None:
    """He's random weights from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, value in network.state_dict().items():
            if value.ndim in (2, 4):
                mode = "fan_in" if value.shape[1] == 1 else "fan_out"
                nn.init.kaiming_normal_(value, mode=mode, nonlinearity="relu")
            else:  # factors and variances are 1; offsets, means and counters are 0
                value.fill_(not name.endswith(("bias", "running_mean", "num_batches_tracked")))


def renamed(state: dict[str, Tensor], network: nn.Module, backbone: str) -> dict[str, Tensor]:
    """Weights under torchvision's names, of files that hold `features` alone or are `NAMED_ANEW`.

    The latter have the same kinds and shapes of tensors in the same order, then perhaps a head.
    """
    ours = network.state_dict()
    if not state.keys() & ours.keys():
        state = {f"features.{name}": value for name, value in state.items()}
    if set(ours) <= state.keys() or not backbone.startswith(NAMED_ANEW):
        return state
    has_counters = any(name.endswith("num_batches_tracked") for name in state)  # old files have not
    names = [name for name in ours if has_counters or not name.endswith("num_batches_tracked")]
    kinds = [(name.split(".")[-1], ours[name].shape) for name in names]
    theirs = [(name.split(".")[-1], value.shape) for name, value in state.items()]
    return dict(zip(names, state.values())) if theirs[: len(kinds)] == kinds else state


def find_weights(backbone: str, weights: str) -> WeightsEnum | None:
    """The published weights that are meant by "imagenet" (the DEFAULT) or by their own name.

    None if it is neither: "random", or a file.
    """
    known = get_model_weights(backbone).__members__
    return known.get("DEFAULT" if weights == "imagenet" else weights)


def fetch(backbone: str, preset: WeightsEnum) -> dict[str, Tensor]:
    """The state dict of published weights, downloaded once."""
    try:
        return preset.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; a damaged file in the download cache
        raise UserError(
            f"the weights {preset.name} of {backbone} could not be fetched ({error}); get "
            f"{preset.url} on another machine and put it into {torch.hub.get_dir()}/checkpoints"
            ", or use --weights FILE or --weights random"
        ) from None


def input_moments(backbone: str, weights: str) -> tuple[list[float], list[float]]:
    """Mean and std, RGB in 0..1, that weights expect of their input; of a file: as "imagenet"."""
    if backbone in ("googlenet", "inception_v3"):  # trained elsewhere, on -1..1
        return [0.5] * 3, [0.5] * 3
    moments = (find_weights(backbone, weights) or find_weights(backbone, "imagenet")).transforms()
    return list(moments.mean), list(moments.std)
