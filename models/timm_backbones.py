"""Any network of timm that gives maps, as `--backbone timm/NAME`; timm is an optional package.

Its levels are those of timm's `features_only`: of a pyramid (ResNet, ConvNeXt, EfficientNet, ..)
the map before each drop of resolution and the last one; of a plain transformer (ViT, DINOv2,
DINOv3) the map after each block, all at the stride of its patches.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import resize

from data import UserError
from models.backbones import Backbone
from models.weight_files import read_state

DEPTHS = 4  # evenly spaced blocks of a plain transformer that are taken without --taps


class Levels(Backbone):
    """A network of timm with `features_only`, and what its levels are called."""

    def __init__(self, network: nn.Module, taps: Sequence[int | str] = ()):
        super().__init__()
        self.network, self.taps = network, list(taps)
        self.channels = network.feature_info.channels()
        self.strides = [level["reduction"] for level in network.feature_info.info]
        self.is_plain = len(set(self.strides)) == 1
        self.is_traceable = not self.is_plain

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W), normalised -> (B, C_l, h_l, w_l) of each level.

        For a transformer images are resized to whole patches: padding would shift the levels.
        """
        if self.is_plain:
            sides = [max(1, round(side / p)) * p for side, p in zip(x.shape[2:], self.strides)]
            x = resize(x, sides, antialias=True)
        return self.network(x)


def build(
    backbone: str, weights: str | None, seed: int, taps: Sequence[int | str] | None, drops: int
) -> Levels:
    """See `models.backbones.build`; taps are 1, 2, .. as timm counts its levels."""
    with torch.device("meta"):
        whole = Levels(create(backbone)).eval()
        try:
            small, large = (whole(torch.empty(1, 3, *sides)) for sides in ((112, 160), (225, 301)))
            is_map = [a.shape[2:] != b.shape[2:] for a, b in zip(small, large)]
            fits = all(is_map) and [level.shape[1] for level in large] == whole.channels
        except Exception:  # builders of patches and windows raise many kinds
            fits = False
    if not fits:
        raise UserError(f"--backbone {backbone}: gives no maps of images of any size")
    count = len(whole.strides)
    if taps is None and whole.is_plain:
        taps = [count * part // DEPTHS for part in range(1, DEPTHS + 1)]
    numbers = {tap: tap - 1 for tap in range(1, count + 1) if taps is None or tap in taps}
    if not numbers or taps and not numbers.keys() >= set(taps):
        raise UserError(f"--taps {','.join(map(str, taps or []))}: {backbone} has 1 to {count}")
    stride = whole.strides[max(numbers.values())] >> drops
    if drops and (whole.is_plain or not stride):
        raise UserError(f"--dilate {drops}: {backbone} has no such drops of resolution to undo")
    options: dict[str, Any] = {"pretrained": True} if weights == "imagenet" else {}
    options |= {"output_stride": stride} if drops else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = create(backbone, out_indices=list(numbers.values()), **options)
    if weights not in (None, "random", "imagenet"):
        load(network, backbone, weights)
    return Levels(network, list(numbers)).eval().requires_grad_(False)


def create(backbone: str, **options: Any) -> nn.Module:
    """timm's network for features; with `pretrained` its weights are downloaded once."""
    name = backbone.removeprefix("timm/")
    try:
        import timm

        try:
            return timm.create_model(name, features_only=True, dynamic_img_size=True, **options)
        except TypeError:  # it has no table of positions, which that fits to the image
            return timm.create_model(name, features_only=True, **options)
    except ImportError:
        raise UserError(f"--backbone {backbone}: needs a package; pip install timm") from None
    except Exception as error:  # downloads and builders fail in many ways; all mean the same
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        how = "with --dilate " if "output_stride" in options else ""
        raise UserError(f"--backbone {backbone}: {how}{reason}; see timm.list_models()") from None


def load(network: nn.Module, backbone: str, path: str) -> None:
    """Loads a file with timm's names for the whole network, all of whose tensors have to fit."""
    # As a list of features a network says stages_0 for stages.0, or model.blocks for blocks.
    theirs = {name.replace(".", "_"): value for name, value in read_state(path).items()}
    names = {name: name.removeprefix("model.").replace(".", "_") for name in network.state_dict()}
    try:
        network.load_state_dict({name: theirs[other] for name, other in names.items()})
    except (KeyError, RuntimeError) as error:
        reason = f"{str(error).splitlines()[-1].strip()[:100]}; of another backbone?"
        raise UserError(f"{path}: do not fit {backbone} ({reason})") from None


def input_moments(backbone: str, weights: str) -> tuple[list[float], list[float]]:
    """See `models.backbones.input_moments`."""
    with torch.device("meta"):
        config = create(backbone).pretrained_cfg
    return list(config["mean"]), list(config["std"])


def weights_name(backbone: str, weights: str) -> str:
    """See `models.backbones.weights_name`."""
    with torch.device("meta"):
        return create(backbone).pretrained_cfg["tag"] if weights == "imagenet" else weights
