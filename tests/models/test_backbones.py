"""The backbones: one rule for their levels, and which names and weights files are accepted."""

import urllib.error

import pytest
import torch
from torch import nn
from torchvision.models import WeightsEnum, get_model

from data import UserError
from models.backbones import (
    backbones,
    block_shapes,
    empty_blocks,
    find_taps,
    find_weights,
    fingerprint,
    input_moments,
    load_weights,
)
from tests.conftest import Bomb

SMALL = "squeezenet1_1"


def loaded(backbone=SMALL, weights="random", seed=0) -> nn.Sequential:
    """All blocks, with values."""
    blocks = empty_blocks(backbone)
    load_weights(backbone, blocks, str(weights), seed)
    return blocks


def message_of_refusal(weights, backbone=SMALL) -> str:
    with pytest.raises(UserError) as error:
        loaded(backbone, weights)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("resnet19", "unknown backbone 'resnet19'.*resnet18.*vgg11"),
        ("vit_b_16", "vit_b_16: cannot be used, .*single map"),
        ("swin_t", "swin_t: cannot be used, .*maps"),
        ("maxvit_t", "maxvit_t: cannot be used, .*fixed size"),
        ("fcn_resnet50", "unknown backbone"),
    ],
)
def test_a_network_that_cannot_be_used_is_refused_with_the_reason(name, reason):
    with pytest.raises(UserError, match=reason):
        empty_blocks(name)


def test_all_of_torchvisions_classifiers_but_the_transformers_are_offered():
    names = backbones()
    assert {"vgg11", "resnet50", "convnext_tiny", "regnet_y_400mf", "densenet121"} <= set(names)
    assert not [name for name in names if name.startswith(("vit", "swin", "maxvit"))]


@pytest.mark.parametrize(
    ("backbone", "taps"),
    [
        ("vgg11", [1, 4, 9, 14, 19]),
        ("vgg16_bn", [5, 12, 22, 32, 42]),
        ("vgg19", [3, 8, 17, 26, 35]),
        ("squeezenet1_0", [1, 5, 10, 12]),
        ("squeezenet1_1", [1, 4, 7, 12]),
        ("alexnet", [1, 4, 11]),
    ],
)
def test_taps_counted_by_hand(backbone, taps):
    """The layers directly before each pooling, after their ReLU, and SqueezeNet's last."""
    blocks = empty_blocks(backbone)
    assert all(value.is_meta for value in blocks.state_dict().values())
    assert find_taps(block_shapes(backbone)) == taps


def test_weights_are_named_as_torchvision_names_them():
    assert find_weights("resnet50", "imagenet").name == "IMAGENET1K_V2"
    assert find_weights("resnet50", "IMAGENET1K_V1").name == "IMAGENET1K_V1"
    assert find_weights("vgg11", "imagenet").name == "IMAGENET1K_V1"
    assert find_weights("vgg11", "random") is find_weights("vgg11", "a/file.pth") is None


def test_input_moments_are_those_of_the_weights():
    imagenet = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    for weights in ("imagenet", "random", "IMAGENET1K_V1"):
        assert input_moments("vgg16", weights) == imagenet
    mean, std = input_moments("vgg16", "IMAGENET1K_FEATURES")  # Caffe's, on 0..255
    assert mean == pytest.approx([0.482, 0.459, 0.408], abs=1e-3) and std == [1 / 255] * 3
    # torchvision's own network of these two changes its input from ImageNet's to this.
    assert input_moments("googlenet", "imagenet") == ([0.5] * 3, [0.5] * 3)


@pytest.mark.parametrize(
    ("prefix", "wrapper", "legacy"),
    [
        ("features.", None, True),
        ("", "state_dict", False),
        ("module.", "model", False),
        ("model.backbone.features.", "model_state", False),
        ("backbone.", "params", False),
    ],
)
def test_weights_load_from_every_style_of_file(path, prefix, wrapper, legacy):
    source = loaded("vgg11_bn", seed=3)
    source[1].running_mean.fill_(0.25)
    state = {prefix + key: value for key, value in source.state_dict().items()}
    state |= {"classifier.1.weight": torch.zeros(2)} if "features" in prefix else {}
    content = {wrapper: state, "epoch": 3} if wrapper else state
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


def test_only_the_blocks_that_are_used_are_filled_and_in_float32(path):
    source = loaded()
    torch.save(source.half().state_dict(), path)
    blocks = empty_blocks(SMALL)[:4]
    load_weights(SMALL, blocks, str(path), 0)
    assert fingerprint(blocks) == fingerprint(source[:4].float())


def test_random_weights_follow_from_the_seed_alone_and_keep_the_scale_of_the_maps():
    state = torch.get_rng_state()
    blocks = loaded("convnext_tiny", seed=1)
    assert torch.get_rng_state().equal(state)
    assert fingerprint(blocks) == fingerprint(loaded("convnext_tiny", seed=1))
    assert fingerprint(blocks) != fingerprint(loaded("convnext_tiny", seed=2))
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for backbone in ("vgg11_bn", "resnet18", SMALL):
        assert 0.05 < loaded(backbone)(x).std() < 20


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


def test_weights_of_a_deeper_network_of_the_same_shapes_are_refused(path):
    torch.save(torchvisions_state("resnet34"), path)
    assert "do not fit resnet18 (Unexpected" in message_of_refusal(path, "resnet18")


def test_what_does_not_fit_is_named_as_in_the_file(path):
    state = loaded().state_dict() | {"99.weight": torch.zeros(2)}
    torch.save({f"module.{name}": value for name, value in state.items()}, path)
    assert '"module.99.weight"' in message_of_refusal(path)


def torchvisions_state(backbone) -> dict[str, torch.Tensor]:
    """torchvision's state dict, its values zero."""
    with torch.device("meta"):
        state = get_model(backbone, weights=None).state_dict()
    return {name: torch.zeros(value.shape, dtype=value.dtype) for name, value in state.items()}


def test_a_name_of_weights_that_the_backbone_does_not_have_is_refused_with_the_others():
    assert "choose imagenet, random, IMAGENET1K_V1" in message_of_refusal("IMAGENET1K_V2", "vgg11")


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
