"""The backbones: where they are tapped, and that only weights which fit, and hold no code, get in."""

import urllib.error

import pytest
import torch
from torch import nn
from torchvision.models import WeightsEnum, get_model

from models import RunError
from models.backbones import (
    BACKBONES,
    SQUEEZENETS,
    VGGS,
    empty_features,
    find_taps,
    fingerprint,
    input_moments,
    load_weights,
)
from models.hypercolumn import Hypercolumn
from tests.conftest import Bomb

CHANNELS = {
    **dict.fromkeys(VGGS, [64, 128, 256, 512, 512]),
    "squeezenet1_0": [96, 256, 512, 512],
    "squeezenet1_1": [64, 128, 256, 512],
}
SMALL = "squeezenet1_1"


def loaded(backbone=SMALL, weights="random", seed=0) -> nn.Sequential:
    features = empty_features(backbone)
    load_weights(backbone, features, str(weights), seed)
    return features


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(left, right) for (a, left), (b, right) in pairs)


def refusal(weights, backbone=SMALL) -> str:
    """The message with which the weights are refused: one line."""
    with pytest.raises(RunError) as error:
        loaded(backbone, weights)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Torchvision's whole SqueezeNet, with values."""
    return get_model(SMALL, weights=None)


def test_there_are_ten_backbones():
    depths = ("11", "11_bn", "13", "13_bn", "16", "16_bn", "19", "19_bn")
    assert sorted(BACKBONES) == sorted([f"vgg{depth}" for depth in depths] + ["squeezenet1_0", "squeezenet1_1"])


def test_an_unknown_backbone_is_refused_with_the_choices():
    with pytest.raises(RunError, match="resnet18.*vgg11.*squeezenet1_1"):
        empty_features("resnet18")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_taps_are_the_layers_directly_before_each_pooling_layer(backbone):
    features = empty_features(backbone)
    taps = find_taps(backbone, features)
    before = taps[:-1] if backbone in SQUEEZENETS else taps
    pools = [position for position, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
    assert [tap + 1 for tap in before] == pools
    assert taps[-1] == len(features) - (1 if backbone in SQUEEZENETS else 2)
    assert len(taps) == (4 if backbone in SQUEEZENETS else 5)
    if backbone in VGGS:
        assert all(isinstance(features[tap], nn.ReLU) for tap in taps)
    else:
        fire = type(features[-1])
        assert isinstance(features[taps[0]], nn.ReLU)
        assert fire.__name__ == "Fire" and all(isinstance(features[tap], fire) for tap in taps[1:])


@pytest.mark.parametrize(
    ("backbone", "taps"),
    [("vgg11", [1, 4, 9, 14, 19]), ("vgg16_bn", [5, 12, 22, 32, 42]), ("squeezenet1_1", [1, 4, 7, 12])],
)
def test_tap_positions_counted_by_hand(backbone, taps):
    assert find_taps(backbone, empty_features(backbone)) == taps


@pytest.mark.parametrize("backbone", BACKBONES)
def test_levels_have_the_channels_of_the_architecture(backbone):
    hypercolumn = Hypercolumn(backbone, weights=None)
    assert hypercolumn.channels == CHANNELS[backbone]
    assert hypercolumn.Z == {"squeezenet1_0": 1376, "squeezenet1_1": 960}.get(backbone, 1472)


@pytest.mark.parametrize("backbone", ["vgg19_bn", "squeezenet1_0"])
def test_empty_features_allocate_nothing(backbone):
    state = empty_features(backbone).state_dict()
    assert len(state) > 20
    assert all(value.is_meta for value in state.values())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_input_moments_are_those_of_imagenet(backbone):
    assert input_moments(backbone) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.mark.parametrize("backbone", ["squeezenet1_1", "vgg11_bn"])
def test_random_weights_depend_on_the_seed_alone(backbone):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = loaded(backbone, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(loaded(backbone, seed=5), first)
    assert not torch.equal(loaded(backbone, seed=6)[0].weight, first[0].weight)


def test_random_weights_keep_the_scale_of_the_signal():
    features = loaded("vgg11_bn")
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.std().item() == pytest.approx((2 / (9 * layer.out_channels)) ** 0.5, rel=0.1)
            assert not layer.bias.any()
        elif isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all() and (layer.running_var == 1).all()
            assert not layer.bias.any() and not layer.running_mean.any() and not layer.num_batches_tracked


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "in state_dict"])
@pytest.mark.parametrize("style", ["full model", "features.", "bare"])
def test_weights_load_from_every_style_of_file(tmp_path, network, style, wrapped, legacy):
    states = {
        "full model": network.state_dict(),
        "features.": {f"features.{key}": value for key, value in network.features.state_dict().items()},
        "bare": network.features.state_dict(),
    }
    content = {"state_dict": states[style], "epoch": 3} if wrapped else states[style]
    torch.save(content, tmp_path / "weights.pth", _use_new_zipfile_serialization=not legacy)
    assert same(loaded(SMALL, tmp_path / "weights.pth"), network.features)


def test_batch_norm_statistics_load_from_a_file(tmp_path):
    source = loaded("vgg11_bn")
    source[1].running_mean.fill_(0.25)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    assert same(loaded("vgg11_bn", tmp_path / "weights.pth"), source)


def test_a_truncated_hypercolumn_loads_from_a_full_file(tmp_path, network):
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    hypercolumn = Hypercolumn(SMALL, str(tmp_path / "weights.pth"), taps=[1, 2])
    assert len(hypercolumn.features) == find_taps(SMALL, network.features)[1] + 1 < len(network.features)
    assert same(hypercolumn.features, network.features[: len(hypercolumn.features)])


def test_a_file_with_pickled_code_is_refused_and_nothing_runs(tmp_path, network):
    path, mark = tmp_path / "bomb.pth", tmp_path / "mark"
    torch.save({**network.features.state_dict(), "extra": Bomb(mark)}, path)
    message = refusal(path)
    assert message.startswith(f"{path}: ") and "could run code" in message
    assert not mark.exists()
    torch.load(path, weights_only=False)["extra"].close()
    assert mark.exists(), "the bomb is a dud: this test could not fail"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nn.Linear(2, 2), "could run code"),
        ([torch.zeros(2)], "not a state dict"),
        ({"0.weight": 1.0}, "not a state dict"),
        ({"state_dict": None}, "not a state dict"),
        ({0: torch.zeros(2)}, ""),
        ({}, "'0.weight'"),
        ({"weight": torch.zeros(2)}, "another backbone"),
    ],
    ids=["module", "list", "numbers", "nothing inside", "number as name", "empty", "other names"],
)
def test_a_file_that_is_no_state_dict_of_the_backbone_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "weights.pth")
    found = refusal(tmp_path / "weights.pth")
    assert str(tmp_path / "weights.pth") in found and message in found


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("squeezenet1_0", "squeezenet1_1"), ("vgg11", "vgg11_bn"), ("vgg11_bn", "vgg11"), ("vgg11", "vgg13")],
)
def test_weights_of_another_architecture_are_refused(tmp_path, theirs, ours):
    # One number each, in memory and on disk: only names and shapes matter here.
    state = {key: torch.zeros(()).expand(value.shape) for key, value in empty_features(theirs).state_dict().items()}
    torch.save(state, tmp_path / "weights.pth")
    message = refusal(tmp_path / "weights.pth", ours)
    assert str(tmp_path / "weights.pth") in message and ours in message and "another backbone" in message


def test_weights_of_the_same_names_in_another_shape_are_refused_naming_both(tmp_path, network):
    state = {**network.state_dict(), "features.0.weight": torch.zeros(96, 3, 7, 7)}
    torch.save(state, tmp_path / "weights.pth")
    message = refusal(tmp_path / "weights.pth")
    assert message.startswith(f"{tmp_path / 'weights.pth'}: '0.weight' has shape (96, 3, 7, 7)")
    assert "needs (64, 3, 3, 3)" in message and "another backbone" in message


@pytest.mark.parametrize("tenths", range(10))
def test_a_truncated_file_is_refused(tmp_path, network, tenths):
    path = tmp_path / "weights.pth"
    torch.save(network.features.state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * tenths // 10])
    assert refusal(path).startswith(f"{path}: ")


def test_a_missing_file_a_folder_and_a_text_are_refused(tmp_path):
    missing, text = tmp_path / "none.pth", tmp_path / "text.pth"
    text.write_text("<html>404</html>\n")
    assert "no such weights file" in refusal(missing) and str(missing) in refusal(missing)
    assert "directory" in refusal(tmp_path) and str(tmp_path) in refusal(tmp_path)
    assert str(text) in refusal(text)


def test_imagenet_weights_come_from_torchvision_with_their_hash_checked(monkeypatch, network):
    asked = []

    def fetch(weights, *arguments, **options):
        asked.append((weights.url, options["check_hash"]))
        return network.state_dict()

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fetch)
    assert same(loaded(SMALL, "imagenet"), network.features)
    assert asked == [("https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth", True)]


@pytest.mark.parametrize(
    "problem",
    [
        urllib.error.URLError("no route to host"),
        urllib.error.HTTPError("https://x", 403, "Forbidden", None, None),
        TimeoutError("timed out"),
        PermissionError(13, "Permission denied"),
        RuntimeError('invalid hash value (expected "b8a52dc0", got "0")'),
    ],
    ids=lambda problem: type(problem).__name__,
)
def test_imagenet_without_network_says_what_to_do(monkeypatch, problem):
    def fail(*arguments, **options):
        raise problem

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    message = refusal("imagenet")
    for advice in (SMALL, "https://download.pytorch.org/models/squeezenet1_1", "--weights FILE", "--weights random"):
        assert advice in message


@pytest.mark.parametrize("kept", [b"", b"<html>blocked by the proxy</html>", b"PK\x03\x04 and no more"])
def test_a_damaged_download_in_torchs_cache_is_refused(monkeypatch, tmp_path, kept):
    def never(*arguments, **options):
        pytest.fail("the network must not be touched")

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", never)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth").write_bytes(kept)
    assert "--weights FILE" in refusal("imagenet")


def test_fingerprint_tells_weights_apart_and_nothing_else():
    features = loaded()
    first = fingerprint(features)
    assert len(first) == 16 and int(first, 16) >= 0
    assert fingerprint(loaded()) == first
    assert fingerprint(loaded().to(memory_format=torch.channels_last).requires_grad_(False).eval()) == first
    assert fingerprint(loaded(seed=1)) != first
    with torch.no_grad():
        last = features[-1].expand3x3.bias
        last[-1] = torch.nextafter(last[-1], torch.tensor(1.0))
    assert fingerprint(features) != first


def test_fingerprint_sees_batch_norm_statistics():
    features = loaded("vgg11_bn")[:3]
    first = fingerprint(features)
    features[1].running_var[0] = 2
    assert fingerprint(features) != first


def test_batch_norm_weights_without_the_counter_of_steps_are_loaded(tmp_path):
    features = empty_features("vgg11_bn")
    load_weights("vgg11_bn", features, "random", seed=0)
    state = {key: value for key, value in features.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    again = empty_features("vgg11_bn")
    load_weights("vgg11_bn", again, str(tmp_path / "old.pth"), seed=1)
    assert fingerprint(again) == fingerprint(features)
