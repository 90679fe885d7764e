"""The backbones: torchvision's VGG and SqueezeNet families, their weights, and where a hypercolumn taps them."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from models import RunError
from models.files import first_line, load_plain

VGGS = tuple(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn"))
SQUEEZENETS = ("squeezenet1_0", "squeezenet1_1")
BACKBONES = VGGS + SQUEEZENETS


def empty_features(backbone: str) -> nn.Sequential:
    """The convolution part (`features`) of a torchvision backbone on the meta device: layers without storage.

    The classifier, nine tenths of a VGG, is never allocated.

    Raises:
        RunError: the backbone is not in `BACKBONES`.
    """
    if backbone not in BACKBONES:
        raise RunError(f"unknown backbone {backbone!r}; choose one of {', '.join(BACKBONES)}")
    with torch.device("meta"):
        return get_model(backbone, weights=None).features


def find_taps(backbone: str, features: nn.Sequential) -> list[int]:
    """Positions in `features` of the layers directly before each pooling layer (after their ReLU), fine to coarse.

    A SqueezeNet does not end in a pooling layer: there the last feature map is a tap too.
    """
    pools = [position for position, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
    taps = [position - 1 for position in pools]
    return taps + [len(features) - 1] if backbone in SQUEEZENETS else taps


def dilate(features: nn.Sequential, pools: int) -> nn.Sequential:
    """Takes the stride from the last `pools` pooling layers and spreads the kernels behind them, in place.

    What lies behind then sees what it was trained to see, at the places of a grid that is two, four, .. times as fine.
    A pool without stride takes the maximum of 3x3, which has a centre (Chen et al., "Semantic Image Segmentation with
    Deep Convolutional Nets and Fully Connected CRFs", ICLR 2015, section 3.1).

    Raises:
        RunError: there are not so many pooling layers.
    """
    positions = [position for position, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
    if pools > len(positions):
        raise RunError(f"--dilate {pools}: there are {len(positions)} pooling layers before the last tap")
    rate = 1
    for position, layer in enumerate(features):
        if position in positions[len(positions) - pools :]:
            features[position] = nn.MaxPool2d(3, stride=1, padding=1)
            rate *= 2
        for convolution in layer.modules():
            if isinstance(convolution, nn.Conv2d):
                convolution.dilation = (rate, rate)
                convolution.padding = tuple(rate * side for side in convolution.padding)
    return features


def input_moments(backbone: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation, RGB in 0..1, that the backbone's torchvision weights expect of their input."""
    preset = get_model_weights(backbone).IMAGENET1K_V1.transforms()
    return list(preset.mean), list(preset.std)


def load_weights(backbone: str, features: nn.Sequential, weights: str, seed: int) -> None:
    """Gives `features` (a whole or truncated `empty_features`) storage on the CPU and values, in place.

    Args:
        weights: "imagenet" (torchvision's IMAGENET1K_V1, downloaded once), "random" (He initialisation from `seed`,
            as torchvision's VGG), or a state-dict file: of the full model (`features.0.weight`) or of its features
            alone (`features.0.weight` or `0.weight`).

    Raises:
        RunError: no network for the download; a file that is missing, damaged, not a state dict, or of another
            architecture.
    """
    features.to_empty(device="cpu")
    if weights == "random":
        return _initialise(features, seed)
    if weights == "imagenet":
        source, state = f"weights of {backbone}", _imagenet(backbone)
    else:
        source, state = weights, _read_state(Path(weights))
    state = {key.removeprefix("features."): value for key, value in state.items() if not key.startswith("classifier.")}
    needed = features.state_dict()
    for key, value in needed.items():  # older files lack BatchNorm's counter of steps, which eval mode never reads
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, torch.zeros_like(value))
    missing = [key for key in needed if key not in state]
    if missing:
        raise RunError(f"{source}: no tensor for {missing[0]!r} of {backbone}; are these weights of another backbone?")
    for key, value in needed.items():
        if state[key].shape != value.shape:
            raise RunError(
                f"{source}: {key!r} has shape {tuple(state[key].shape)}, {backbone} needs {tuple(value.shape)}; "
                "are these weights of another backbone?"
            )
    features.load_state_dict({key: state[key] for key in needed})


def fingerprint(network: nn.Module) -> str:
    """First 16 hexadecimal digits of the SHA-256 of all weights: tells two networks of one architecture apart."""
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
    try:
        return get_model_weights(backbone).IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
    except Exception as error:  # no network, or a damaged file in the download cache: many kinds, one meaning
        url = get_model_weights(backbone).IMAGENET1K_V1.url
        raise RunError(
            f"the ImageNet weights of {backbone} could not be fetched ({first_line(error)}); "
            f"get {url} on another machine and pass the file with --weights FILE, or use --weights random"
        ) from None


def _read_state(path: Path) -> dict[str, Tensor]:
    state = load_plain(path, "weights")
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise RunError(f"{path}: not a state dict (names to tensors)")
    return state
