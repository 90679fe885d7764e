"""Which names of backbones and which weights files are accepted."""

from pickle import UnpicklingError
from unittest import mock
from urllib.error import URLError

import pytest
import torch
from torch import Tensor
from torchvision.models import WeightsEnum, get_model, get_model_weights

from data import UserError
from models.backbones import backbones, build
from models.weight_files import fingerprint
from tests.models.conftest import SMALL


def loaded(weights, backbone=SMALL, **how) -> str:
    """The fingerprint of a backbone with these weights."""
    return fingerprint(build(backbone, str(weights), **how))


def state_of(backbone=SMALL) -> dict[str, Tensor]:
    """What torchvision's own network holds, at random."""
    torch.manual_seed(3)
    return get_model(backbone, weights=None).state_dict()


def test_torchvisions_classifiers_but_the_transformers_are_offered_and_else_refused():
    names = backbones()
    assert {"vgg11", "resnet50", "convnext_tiny", "regnet_y_400mf", "densenet121"} <= set(names)
    for name in ("resnet19", "vit_b_16", "swin_t", "maxvit_t", "fcn_resnet50"):
        assert name not in names
        with pytest.raises(UserError, match=f"^unknown backbone '{name}'.*resnet18.*vgg11"):
            build(name, "random")


@mock.patch("models.backbones.fill")
def test_names_and_input_moments_are_those_of_the_weights(fill):
    assert build("resnet50", "imagenet").weights == "IMAGENET1K_V2"
    caffes = build("vgg16", "IMAGENET1K_FEATURES", taps=[1])  # on 0..255
    assert caffes.mean == pytest.approx([0.482, 0.459, 0.408], abs=1e-3)
    assert caffes.std == [1 / 255] * 3 and caffes.weights == "IMAGENET1K_FEATURES"


def test_weights_load_from_every_style_of_file_also_in_float16(path):
    half = {name: value.half() for name, value in state_of().items()}
    torch.save({name: value.float() for name, value in half.items()}, path)
    expected = loaded(path)
    torch.save(half, path, _use_new_zipfile_serialization=False)
    assert loaded(path) == expected
    bare = {name: value for name, value in half.items() if "classifier" not in name}
    prefixes = {"state_dict": "", "model": "module.", "model_state": "model.backbone.features."}
    for wrapper, prefix in (prefixes | {"params": "backbone."}).items():
        state = {name.replace("features.", prefix): value for name, value in bare.items()}
        torch.save({wrapper: state, "epoch": 3}, path)
        assert loaded(path) == expected, wrapper


def test_random_weights_follow_from_the_seed_alone_and_keep_the_scale_of_the_maps():
    state = torch.get_rng_state()
    prints = [loaded("random", "resnet18", seed=seed) for seed in (1, 1, 2)]
    assert torch.get_rng_state().equal(state) and prints[0] == prints[1] != prints[2]
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for backbone in ("vgg11_bn", "resnet18", SMALL):
        assert 0.05 < build(backbone, "random")(x)[-1].std() < 20


LITE = "efficientnet_lite0"
FIRST, FACTORS, OFFSETS, *OTHERS = state_of(LITE).items()  # of a convolution, then of its norm
NO_STATES = [  # what a file holds, or whose weights; the backbone; part of the line
    ([torch.zeros(2)], SMALL, "not a state dict"),
    ({"0.weight": 1.0}, SMALL, "not a state dict"),
    ({}, SMALL, "0.weight"),
    ({"weight": torch.zeros(2)}, SMALL, "another backbone"),
    ({"0.weight": torch.zeros(64, 3, 7, 7), "0.bias": torch.zeros(64)}, SMALL, "do not fit"),
    (SMALL, "squeezenet1_0", "do not fit squeezenet1_0 .* backbone"),
    ("resnet34", "resnet18", "do not fit resnet18 .* backbone"),  # its first blocks have the shapes
    ({f"z.{k}": v for k, v in (FIRST, OFFSETS, FACTORS, *OTHERS)}, LITE, "do not fit"),
]


@pytest.mark.parametrize("content, backbone, message", NO_STATES)
def test_a_file_that_is_no_state_dict_of_the_backbone_is_refused(path, content, backbone, message):
    torch.save(state_of(content) if isinstance(content, str) else content, path)
    with pytest.raises(UserError, match=f"^{path}: [^\n]*{message}[^\n]*$"):
        loaded(path, backbone)


def test_imagenet_weights_come_from_torchvision_or_a_line_says_what_to_do(path):
    torch.save(state_of(), path)
    answers = state_of(), URLError("no route to host"), UnpicklingError("several\nlines")
    get = mock.patch.object(WeightsEnum, "get_state_dict", autospec=True, side_effect=answers)
    with get as fetch:
        assert loaded("imagenet") == loaded(path)
        for why in ("<urlopen error no route to host>", "several"):
            line = rf"^the weights IMAGENET1K_V1 of .* \({why}.*1-b8a52dc0.pth .* --weights FILE"
            with pytest.raises(UserError, match=line):
                loaded("imagenet")
    safely = {"progress": True, "check_hash": True, "weights_only": True}  # runs no code
    assert fetch.mock_calls == [mock.call(get_model_weights(SMALL).DEFAULT, **safely)] * 3
