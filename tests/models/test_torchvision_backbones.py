"""Which names of backbones and which weights files are accepted; test_families has the levels."""

import urllib.error

import pytest
import torch
from torch import nn
from torchvision.models import WeightsEnum, get_model

from data import UserError
from models.backbones import input_moments, weights_name
from models.torchvision_backbones import backbones, empty_blocks, load_blocks
from models.weight_files import fingerprint

SMALL = "squeezenet1_1"


def loaded(backbone=SMALL, weights="random", seed=0) -> nn.Sequential:
    return load_blocks(backbone, str(weights), seed)


def message_of_refusal(weights, backbone=SMALL) -> str:
    with pytest.raises(UserError) as error:
        loaded(backbone, weights)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


def test_torchvisions_classifiers_but_the_transformers_are_offered_and_else_refused():
    names = backbones()
    assert {"vgg11", "resnet50", "convnext_tiny", "regnet_y_400mf", "densenet121"} <= set(names)
    for name in ("resnet19", "vit_b_16", "swin_t", "maxvit_t", "fcn_resnet50"):
        assert name not in names
        with pytest.raises(UserError, match=f"^unknown backbone '{name}'.*resnet18.*vgg11"):
            empty_blocks(name)


def test_weights_are_named_as_torchvision_names_them():
    assert weights_name("resnet50", "imagenet") == "IMAGENET1K_V2"
    assert weights_name("resnet50", "IMAGENET1K_V1") == "IMAGENET1K_V1"
    assert weights_name("vgg11", "imagenet") == "IMAGENET1K_V1"
    assert weights_name("vgg11", "random") == "random"
    assert weights_name("vgg11", "a/file.pth") == "a/file.pth"


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


def test_weights_in_float16_are_loaded_as_float32(path):
    source = loaded()
    torch.save(source.half().state_dict(), path)
    assert fingerprint(loaded(SMALL, path)) == fingerprint(source.float())


def test_random_weights_follow_from_the_seed_alone_and_keep_the_scale_of_the_maps():
    state = torch.get_rng_state()
    blocks = loaded("convnext_tiny", seed=1)
    assert torch.get_rng_state().equal(state)
    assert fingerprint(blocks) == fingerprint(loaded("convnext_tiny", seed=1))
    assert fingerprint(blocks) != fingerprint(loaded("convnext_tiny", seed=2))
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for backbone in ("vgg11_bn", "resnet18", SMALL):
        assert 0.05 < loaded(backbone)(x).std() < 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2)], "not a state dict"),
        ({"0.weight": 1.0}, "not a state dict"),
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
    [("vgg11", "vgg11_bn"), ("vgg11_bn", "vgg11"), ("resnet34", "resnet18")],
)
def test_weights_of_another_backbone_are_refused(path, theirs, ours):
    """ResNet-34's first blocks have the shapes of ResNet-18's."""
    torch.save(get_model(theirs, weights=None).state_dict(), path)
    message = message_of_refusal(path, ours)
    assert f"{path}: do not fit {ours} (" in message and "another backbone" in message


def test_imagenet_weights_come_from_torchvision_with_their_hash_checked(monkeypatch):
    asked, source = [], loaded(seed=4)

    def fetch(weights, *arguments, **options):
        asked.append((weights.url, options["check_hash"]))
        return {f"features.{key}": value for key, value in source.state_dict().items()}

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fetch)
    assert fingerprint(loaded(SMALL, "imagenet")) == fingerprint(source)
    assert asked == [("https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth", True)]


def test_without_network_the_message_says_what_to_do(monkeypatch):
    def fail(*arguments, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    message = message_of_refusal("imagenet")
    assert "squeezenet1_1-b8a52dc0.pth" in message and "--weights FILE" in message
