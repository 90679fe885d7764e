"""The backbones: a name gives a network that answers with its levels.

torchvision's classification networks without their heads are here, with `efficientnet_lite`, which
registers with them; any of timm's, as `timm/NAME`, is in `timm_backbones`.
"""

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
from models.levels_and_dilation import block_shapes, dilate, find_taps, fold_batch_norm, in_blocks
from models.weight_files import load_state, read_state

TRANSFORMERS = ("maxvit", "swin", "vit")  # no maps (B, C, h, w) of an input of any size
HEADS = ("avgpool", "classifier", "fc", "dropout", "aux1", "aux2", "AuxLogits")  # are left out
COUNTER = "num_batches_tracked"  # of batch norm in training; old files have none
NAMED_ANEW = ("densenet", "efficientnet_lite")  # others, or older files, name layers otherwise


class Backbone(nn.Module):
    """What `build` gives: images (B, 3, H, W), normalised -> a list of levels (B, C_l, h_l, w_l).

    Attributes:
        taps: of the levels, fine to coarse, as `--taps` names them.
        channels: of each level.
        mean, std: RGB in 0..1, that the weights expect of their input; of a file as of "imagenet".
        weights: in words: the published name that "imagenet" means, or a file.
        patch: to multiples of which the sides of images are resized first, in pixels; or None.
    """

    taps: list[int | str]
    channels: list[int]
    mean: list[float]
    std: list[float]
    weights: str | None
    patch: int | None = None


class Blocks(nn.Sequential, Backbone):
    """A network as blocks one after the other, of which some (`ends`, by index) give levels."""

    ends: list[int]

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        levels = []
        for index, block in enumerate(self):
            x = block(x)
            if index in self.ends:
                levels.append(x)
        return levels


@torch.random.fork_rng(devices=[])
def build(
    backbone: str,
    weights: str | None,
    seed: int = 0,
    taps: Sequence[int | str] | None = None,
    drops: int = 0,
) -> Backbone:
    """The network of this name, frozen, in eval mode, float32 on the CPU.

    Batch norm, which keeps the statistics of ImageNet, is folded into the convolutions before it.

    Args:
        weights: "imagenet" or another published name (downloaded once), "random" (from `seed`), or
            a state-dict file with the names of the source: of the full model, bare or in a training
            checkpoint. None leaves them to `load_state_dict`.
        taps: levels, 1 = finest, or blocks: "b19" is the 19th block's map. None takes all levels
            (of a plain transformer some). The network ends after the last of them.
        drops: number of the last drops of resolution that are undone by dilation.

    Raises:
        UserError: an unknown backbone, taps or dilation that it does not have, no network for the
            download, or a file that is missing, damaged, no state dict, or of another architecture.
    """
    if backbone.startswith("timm/"):
        from models import timm_backbones  # which itself needs this file

        return timm_backbones.build(backbone, weights, seed, taps, drops)
    network = empty_network(backbone)
    blocks = in_blocks(network)  # the same layers
    shapes = block_shapes(blocks)
    levels = dict(enumerate(find_taps(shapes), start=1))
    known = levels | {f"b{number}": number - 1 for number in range(1, len(shapes) + 1)}
    chosen = list(levels) if taps is None else taps
    if not chosen or not known.keys() >= set(chosen):
        raise UserError(
            f"--taps {','.join(map(str, chosen))}: {backbone} has taps 1 to {len(levels)} and "
            f"blocks b1 to b{len(shapes)}"
        )
    tap_at = {known[tap]: tap for tap in chosen}
    ends = sorted(tap_at)
    blocks = blocks[: ends[-1] + 1]
    if drops:
        dilate(blocks, drops)
    published = get_model_weights(backbone)
    preset = published.__members__.get("DEFAULT" if weights == "imagenet" else weights)
    fill(network, backbone, preset or weights, seed)
    fold_batch_norm(blocks, ends)
    for end in ends[:-1]:  # what follows must not write into a level
        for layer in blocks[end + 1].modules():
            if hasattr(layer, "inplace"):
                layer.inplace = False
    built = Blocks(*blocks).requires_grad_(False)
    built.ends, built.taps = ends, [tap_at[end] for end in ends]
    built.channels = [shapes[end][0] for end in ends]
    built.weights = preset.name if preset else weights
    moments = (preset or published.DEFAULT).transforms()
    built.mean, built.std = list(moments.mean), list(moments.std)
    if backbone in ("googlenet", "inception_v3"):  # trained elsewhere, on -1..1
        built.mean, built.std = [0.5] * 3, [0.5] * 3
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of an initialisation that nobody will see
        try:
            with torch.device("meta"):
                network = get_model(name, weights=None)
        except NotImplementedError:  # RegNet computes its widths with tensors
            network = get_model(name, weights=None).to("meta")
    children = ((name, child) for name, child in network.named_children() if name not in HEADS)
    return nn.Sequential(OrderedDict(children)).eval()


def fill(
    network: nn.Sequential, backbone: str, weights: WeightsEnum | str | None, seed: int
) -> None:
    """Gives an `empty_network` its weights, float32 on the CPU; see `build`."""
    if weights in (None, "random"):
        network.to_empty(device="cpu")
        if weights:
            initialise(network, seed)
        return
    state = read_state(weights) if isinstance(weights, str) else fetch(backbone, weights)
    state = {k: v for k, v in state.items() if not k.startswith(HEADS) and COUNTER not in k}
    load_state(network, renamed(state, network, backbone), str(weights), backbone, assign=True)
    network.float()


def initialise(network: nn.Module, seed: int) -> None:
    """He's random weights from a seed."""
    torch.manual_seed(seed)
    for name, value in network.state_dict().items():
        if value.ndim in (2, 4):
            mode = "fan_in" if value.shape[1] == 1 else "fan_out"
            nn.init.kaiming_normal_(value, mode=mode, nonlinearity="relu")
        else:  # factors and variances are 1; offsets, means and counters are 0
            value.fill_(not name.endswith(("bias", "running_mean", COUNTER)))


def fetch(backbone: str, preset: WeightsEnum) -> dict[str, Tensor]:
    """The state dict of published weights, downloaded once."""
    try:
        return preset.get_state_dict(progress=True, check_hash=True, weights_only=True)
    # No network, a damaged file in the cache, or one that would run code.
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"the weights {preset.name} of {backbone} could not be fetched ({reason}); get "
            f"{preset.url} on another machine and put it into {torch.hub.get_dir()}/checkpoints"
            ", or use --weights FILE or --weights random"
        ) from None


def renamed(state: dict[str, Tensor], network: nn.Module, backbone: str) -> dict[str, Tensor]:
    """Weights under torchvision's names, of files that hold `features` alone or are `NAMED_ANEW`.

    The latter have the same kinds and shapes of tensors in the same order, then perhaps a head.
    """
    ours = {name: value for name, value in network.state_dict().items() if COUNTER not in name}
    if not state.keys() & ours.keys():
        state = {f"features.{name}": value for name, value in state.items()}
    if ours.keys() <= state.keys() or not backbone.startswith(NAMED_ANEW):
        return state
    kinds, theirs = (
        [(name.split(".")[-1], value.shape) for name, value in tensors.items()]
        for tensors in (ours, state)
    )
    return dict(zip(ours, state.values())) if theirs[: len(kinds)] == kinds else state
