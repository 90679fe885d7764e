"""The backbones: a name gives a network that answers with its levels.

Two sources, each in a file with the same functions: torchvision's networks, with which
`efficientnet_lite` registers, and any of timm's as `timm/NAME`.
"""

from collections.abc import Sequence

from torch import nn


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


def build(
    backbone: str,
    weights: str | None,
    seed: int = 0,
    taps: Sequence[int | str] | None = None,
    drops: int = 0,
) -> Backbone:
    """The network of this name, frozen, in eval mode, float32 on the CPU.

    Args:
        weights: "imagenet" or another published name (downloaded once), "random" (from `seed`), or
            a state-dict file with the names of the source: of the full model, bare or in a training
            checkpoint. None leaves them to `load_state_dict`.
        taps: some of the source's, None for those that it takes by default. The network ends after
            the last of them.
        drops: number of the last drops of resolution that are undone by dilation.

    Raises:
        UserError: an unknown backbone, taps or dilation that it does not have, no network for the
            download, or a file that is missing, damaged, no state dict, or of another architecture.
    """
    from models import timm_backbones, torchvision_backbones  # which themselves need this file

    source = timm_backbones if backbone.startswith("timm/") else torchvision_backbones
    return source.build(backbone, weights, seed, taps, drops)
