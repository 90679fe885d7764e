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
from models.weight_files import load_state, read_state

DEPTHS = 4  # evenly spaced blocks of a plain transformer that are taken without --taps


class Levels(Backbone):
    """A network of timm with `features_only`; `taps` and `patch` as in `Backbone`."""

    def __init__(self, network: nn.Module, taps: Sequence[int | str], patch: int | None):
        super().__init__()
        self.network, self.taps, self.patch = network, list(taps), patch
        self.channels = network.feature_info.channels()
        self.mean, self.std = (list(network.pretrained_cfg[name]) for name in ("mean", "std"))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W), normalised -> (B, C_l, h_l, w_l) of each level.

        For a transformer images are resized to whole patches: padding would shift the levels.
        """
        if self.patch:
            sides = [max(1, round(side / self.patch)) * self.patch for side in x.shape[2:]]
            x = resize(x, sides, antialias=True)
        return self.network(x)


def build(
    backbone: str, weights: str | None, seed: int, taps: Sequence[int | str] | None, drops: int
) -> Levels:
    """See `models.backbones.build`; taps are 1, 2, .. as timm counts its levels."""
    with torch.device("meta"):
        whole = create(backbone).eval()
        strides = [level["reduction"] for level in whole.feature_info.info]
        patch = strides[0] if len(set(strides)) == 1 else None
        probe = Levels(whole, (), patch)
        try:
            levels = probe(torch.empty(1, 3, 225, 301))
            fits = all(level.shape[2] < level.shape[3] for level in levels)
            fits = fits and [level.shape[1] for level in levels] == probe.channels
        except Exception:  # builders of patches and windows raise many kinds
            fits = False
    if not fits:
        raise UserError(f"--backbone {backbone}: gives no maps of images of any size")
    known = range(1, len(strides) + 1)
    if taps is None:
        depths = [len(strides) * part // DEPTHS for part in range(1, DEPTHS + 1)]
        taps = depths if patch else known
    chosen = [tap for tap in known if tap in taps]
    if not chosen or not set(chosen) >= set(taps):
        raise UserError(f"--taps {','.join(map(str, taps))}: {backbone} has 1 to {len(strides)}")
    stride = strides[chosen[-1] - 1] >> drops
    if drops and (patch or not stride):
        raise UserError(f"--dilate {drops}: {backbone} has no such drops of resolution to undo")
    options: dict[str, Any] = {"pretrained": True} if weights == "imagenet" else {}
    options |= {"output_stride": stride} if drops else {}
    # Drawn also where weights follow: some tensors that no file holds are computed with them.
    torch.manual_seed(seed)
    network = create(backbone, out_indices=[tap - 1 for tap in chosen], **options)
    if weights not in (None, "random", "imagenet"):
        load(network, backbone, weights)
    built = Levels(network, chosen, patch).eval().requires_grad_(False)
    built.weights = network.pretrained_cfg["tag"] if weights == "imagenet" else weights
    return built


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
    state = {name: theirs[other] for name, other in names.items() if other in theirs}
    load_state(network, state, path, backbone)
