"""The backbones: torchvision's VGG and SqueezeNet families, their taps and their weights."""

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from models import RunError
from models.checkpoint import load_tensors

VGGS = tuple(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn"))
SQUEEZENETS = ("squeezenet1_0", "squeezenet1_1")
BACKBONES = VGGS + SQUEEZENETS


def empty_features(backbone: str) -> nn.Sequential:
    """The convolutional part (`features`) of a torchvision backbone, on the meta device.

    The classifier, nine tenths of a VGG, is never allocated.

    Raises:
        RunError: the backbone is not in `BACKBONES`.
    """
    if backbone not in BACKBONES:
        raise RunError(f"unknown backbone {backbone!r}; choose one of {', '.join(BACKBONES)}")
    with torch.device("meta"):
        return get_model(backbone, weights=None).features


def find_taps(backbone: str, features: nn.Sequential) -> list[int]:
    """Indices in `features` of the layers directly before each pooling (after their ReLU).

    They go from fine to coarse. A SqueezeNet does not end in one: its last layer is a tap too.
    """
    taps = [index - 1 for index in pooling_indices(features)]
    return taps + [len(features) - 1] if backbone in SQUEEZENETS else taps


def pooling_indices(features: nn.Sequential) -> list[int]:
    """Indices of the max poolings, each of which halves the resolution."""
    return [index for index, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]


class DilatedMaxPool(nn.MaxPool2d):
    """The maximum of 3x3 values that are `dilation` pixels apart, at every pixel."""

    def __init__(self, dilation: int):
        super().__init__(3, stride=1, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w); nothing lies outside."""
        return super().forward(F.pad(x, [self.dilation] * 4, value=-torch.inf))


def dilate(features: nn.Sequential, poolings: int) -> nn.Sequential:
    """Sets the stride of the last `poolings` poolings to 1 and dilates what follows, in place.

    The layers behind then see what they were trained on, on a grid that is 2, 4, .. times as fine
    (Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected
    CRFs", ICLR 2015, section 3.1). A pooling without stride takes the maximum of 3x3, which has a
    centre: exact for SqueezeNet's 3x3 poolings, an approximation for VGG's 2x2.

    Raises:
        RunError: there are fewer poolings.
    """
    pools = pooling_indices(features)
    if poolings > len(pools):
        raise RunError(
            f"--dilate {poolings}: there are {len(pools)} pooling layers before the last tap"
        )
    rate = 1
    for index, layer in enumerate(features):
        if index in pools[len(pools) - poolings :]:
            features[index] = DilatedMaxPool(rate)
            rate *= 2
        for convolution in layer.modules():
            if isinstance(convolution, nn.Conv2d):
                convolution.dilation = (rate, rate)
                convolution.padding = tuple(rate * side for side in convolution.padding)
    return features


def input_moments(backbone: str) -> tuple[list[float], list[float]]:
    """Mean and std, RGB in 0..1, that the backbone's torchvision weights expect of their input."""
    preset = get_model_weights(backbone).IMAGENET1K_V1.transforms()
    return list(preset.mean), list(preset.std)


def load_weights(backbone: str, features: nn.Sequential, weights: str, seed: int) -> None:
    """Allocates a (truncated) `empty_features` on the CPU and fills it, in place.

    Args:
        weights: "imagenet" (torchvision's IMAGENET1K_V1, downloaded once), "random" (He
            initialisation from `seed`, as torchvision's VGG), or a state-dict file: of the full
            model (`features.0.weight`) or of its features alone (`0.weight` as well).

    Raises:
        RunError: no network for the download, or a file that is missing, damaged, not a state
            dict, or of another architecture.
    """
    features.to_empty(device="cpu")
    if weights == "random":
        _initialise(features, seed)
        return
    source = f"weights of {backbone}" if weights == "imagenet" else weights
    state = _imagenet(backbone) if weights == "imagenet" else _read_state(Path(weights))
    state = {key.removeprefix("features."): value for key, value in state.items()}
    for layer in features.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()  # older files lack its counter, which must not be garbage
    needed = features.state_dict()
    try:
        features.load_state_dict({key: state[key] for key in needed if key in state})
    except RuntimeError as error:  # torch's second line names the first missing or odd tensor
        reason = str(error).splitlines()[1].strip()[:100]
        raise RunError(
            f"{source}: do not fit {backbone} ({reason}); are these weights of another backbone?"
        ) from None


def fingerprint(network: nn.Module) -> str:
    """First 16 hexadecimal digits of the SHA-256 of all weights: identifies a network."""
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _initialise(features: nn.Sequential, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in features.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.BatchNorm2d):
                layer.reset_parameters()


def _imagenet(backbone: str) -> dict[str, Tensor]:
    weights = get_model_weights(backbone).IMAGENET1K_V1
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; a damaged file in the download cache
        raise RunError(
            f"the ImageNet weights of {backbone} could not be fetched ({error}); get {weights.url} "
            "on another machine and pass the file with --weights FILE, or use --weights random"
        ) from None


def _read_state(path: Path) -> dict[str, Tensor]:
    state = load_tensors(path, "weights")
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise RunError(f"{path}: not a state dict (names to tensors)")
    return state
