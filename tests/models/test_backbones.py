"""The backbones: where they are tapped, dilation, and which weights files are accepted."""

import urllib.error

import pytest
import torch
from torch import nn
from torchvision.models import WeightsEnum
from torchvision.models.squeezenet import Fire

from models import RunError
from models.backbones import (
    BACKBONES,
    SQUEEZENETS,
    dilate,
    empty_features,
    find_taps,
    fingerprint,
    input_moments,
    load_weights,
    pooling_indices,
)
from tests.conftest import Bomb

SMALL = "squeezenet1_1"


def loaded(backbone=SMALL, weights="random", seed=0) -> nn.Sequential:
    """The layers up to the second pooling, with values."""
    features = empty_features(backbone)
    features = features[: pooling_indices(features)[1]]
    load_weights(backbone, features, str(weights), seed)
    return features


def message_of_refusal(weights, backbone=SMALL) -> str:
    with pytest.raises(RunError) as error:
        loaded(backbone, weights)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


def test_an_unknown_backbone_is_refused_with_the_choices():
    with pytest.raises(RunError, match="resnet18.*vgg11.*squeezenet1_1"):
        empty_features("resnet18")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_taps_are_the_layers_directly_before_each_pooling_after_their_relu(backbone):
    features = empty_features(backbone)
    assert all(value.is_meta for value in features.state_dict().values())
    taps = find_taps(backbone, features)
    after = [type(features[tap + 1]) for tap in taps if tap + 1 < len(features)]
    tapped = [type(features[tap]) for tap in taps]
    if backbone in SQUEEZENETS:  # a Fire ends in a ReLU
        assert after == 3 * [nn.MaxPool2d] and tapped == [nn.ReLU, Fire, Fire, Fire]
    else:
        assert after == 5 * [nn.MaxPool2d] and tapped == 5 * [nn.ReLU]


@pytest.mark.parametrize(
    ("backbone", "taps"),
    [
        ("vgg11", [1, 4, 9, 14, 19]),
        ("vgg16_bn", [5, 12, 22, 32, 42]),
        ("squeezenet1_1", [1, 4, 7, 12]),
    ],
)
def test_taps_counted_by_hand(backbone, taps):
    assert find_taps(backbone, empty_features(backbone)) == taps


@pytest.mark.parametrize("backbone", BACKBONES)
def test_input_moments_are_those_of_imagenet(backbone):
    assert input_moments(backbone) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.mark.parametrize("poolings", [1, 2, 3])
def test_a_dilated_squeezenet_is_the_undilated_one_at_the_places_that_it_had(poolings):
    features = empty_features(SMALL)
    load_weights(SMALL, features, "random", seed=1)
    features.double()
    dilated = empty_features(SMALL).to_empty(device="cpu").double()
    dilated.load_state_dict(features.state_dict())
    dilated = dilate(dilated, poolings)
    image = torch.rand(1, 3, 127, 127, dtype=torch.float64)
    expected, found = features(image), dilated(image)
    side, step = expected.shape[-1], 2**poolings
    assert side == 7 and found.shape[-1] == [15, 31, 63][poolings - 1]
    # The centre of the first 3x3 that a pooling takes is place 1, then 1 + 2, and so on.
    found = found[..., step - 1 :: step, step - 1 :: step]
    assert expected.std() > 0
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("prefix", ["features.", ""], ids=["full_model", "features_alone"])
@pytest.mark.parametrize("is_wrapped", [False, True], ids=["plain", "in_state_dict"])
def test_weights_load_from_every_style_of_file(path, prefix, is_wrapped, legacy):
    source = loaded("vgg11_bn", seed=3)
    source[1].running_mean.fill_(0.25)
    state = {prefix + key: value for key, value in source.state_dict().items()}
    state |= {prefix + "8.weight": torch.zeros(3)}  # a later layer, which is not needed
    state |= {"classifier.1.weight": torch.zeros(2)} if prefix else {}
    content = {"state_dict": state, "epoch": 3} if is_wrapped else state
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert fingerprint(loaded("vgg11_bn", path)) == fingerprint(source)


def test_a_file_without_the_counter_of_batches_gives_the_same_network_each_time(path):
    """Files of an old torch lack it; memory that nobody has written would get a random value."""
    source = loaded("vgg11_bn")
    state = {k: v for k, v in source.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, path)
    torch.use_deterministic_algorithms(True)  # fills new memory with odd values
    try:
        assert fingerprint(loaded("vgg11_bn", path)) == fingerprint(source)
    finally:
        torch.use_deterministic_algorithms(False)


def test_pickled_code_is_refused_and_does_not_run(path, tmp_path):
    mark = tmp_path / "mark"
    torch.save({**loaded().state_dict(), "extra": Bomb(mark)}, path)
    message = message_of_refusal(path)
    assert message.startswith(f"{path}: ") and "could run code" in message and not mark.exists()
    torch.load(path, weights_only=False)["extra"].close()
    assert mark.exists(), "the bomb is a dud: this test could not fail"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2)], "not a state dict"),
        ({"0.weight": 1.0}, "not a state dict"),
        ({"state_dict": None}, "not a state dict"),
        ({}, "0.weight"),
        ({"weight": torch.zeros(2)}, "another backbone"),
        ({"0.weight": torch.zeros(64, 3, 7, 7), "0.bias": torch.zeros(64)}, "do not fit"),
    ],
)
def test_a_file_that_is_no_state_dict_of_the_backbone_is_refused(path, content, message):
    torch.save(content, path)
    found = message_of_refusal(path)
    assert found.startswith(f"{path}: ") and message in found


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("squeezenet1_0", "squeezenet1_1"), ("vgg11", "vgg11_bn"), ("vgg11_bn", "vgg11")],
)
def test_weights_of_another_backbone_are_refused(path, theirs, ours):
    torch.save(loaded(theirs).state_dict(), path)
    message = message_of_refusal(path, ours)
    assert f"{path}: do not fit {ours} (" in message and "another backbone" in message


def test_a_damaged_or_missing_file_is_refused(path):
    assert message_of_refusal(path) == f"{path}: no such weights file"
    torch.save(loaded().state_dict(), path)
    whole = path.read_bytes()
    for share in (0, 0.3, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        assert message_of_refusal(path).startswith(f"{path}: ")
    path.write_text("<html>404</html>\n")
    assert message_of_refusal(path).startswith(f"{path}: ")


def test_imagenet_weights_come_from_torchvision_with_their_hash_checked(monkeypatch):
    asked, source = [], loaded(seed=4)

    def fetch(weights, *arguments, **options):
        asked.append((weights.url, options["check_hash"]))
        return {f"features.{key}": value for key, value in source.state_dict().items()}

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fetch)
    assert fingerprint(loaded(SMALL, "imagenet")) == fingerprint(source)
    assert asked == [("https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth", True)]


@pytest.mark.parametrize(
    "problem", [urllib.error.URLError("no route to host"), RuntimeError("invalid hash value")]
)
def test_without_network_the_message_says_what_to_do(monkeypatch, problem):
    def fail(*arguments, **options):
        raise problem

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    message = message_of_refusal("imagenet")
    for advice in (SMALL, "squeezenet1_1-b8a52dc0.pth", "--weights FILE", "--weights random"):
        assert advice in message
