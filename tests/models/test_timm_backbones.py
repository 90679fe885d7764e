"""timm's networks as backbones, with random weights: their levels are timm's own maps."""

import sys

import pytest
import torch
from torchvision.transforms.v2.functional import resize

from data import UserError
from models.checkpoint import load_extractor, load_segmenter, save_extractor, save_segmenter
from models.hypercolumn import Hypercolumn
from tests.models.conftest import assert_near, noise, random_segmenter

timm = pytest.importorskip("timm")

PYRAMIDS = ["resnet10t", "convnext_atto", "tf_efficientnet_lite0"]
TRANSFORMERS = ["vit_tiny_patch16_224", "vit_small_patch16_dinov3"]


@pytest.mark.parametrize("name", [*PYRAMIDS, *TRANSFORMERS])
def test_levels_of_a_file_of_the_whole_network_are_its_intermediate_maps(name, tmp_path):
    torch.manual_seed(5)
    options = {} if name in PYRAMIDS else {"dynamic_img_size": True}
    network = timm.create_model(name, **options).eval().requires_grad_(False)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "weights.pth")
    hypercolumn = Hypercolumn(f"timm/{name}", str(tmp_path / "weights.pth")).eval()
    mean, std = (torch.tensor(network.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    x, which = (noise(112, 150) / 255 - mean) / std, None
    if name in TRANSFORMERS:
        x, which = resize(x, [112, 144], antialias=True), [2, 5, 8, 11]  # to whole patches
    expected = network.forward_intermediates(x, which, intermediates_only=True)
    for level, other in zip(hypercolumn(noise(112, 150)), expected, strict=True):
        assert_near(level, other)


@pytest.mark.parametrize("name", [PYRAMIDS[0], PYRAMIDS[1], TRANSFORMERS[0]])
def test_photos_of_any_size_chosen_taps_and_a_checkpoint_without_timms_weights(name, tmp_path):
    whole = Hypercolumn(f"timm/{name}", "random", seed=2).eval()
    chosen = Hypercolumn(f"timm/{name}", "random", whole.taps[1:3], seed=2).eval()
    images, levels = noise(75, 110), whole(noise(75, 110))
    assert chosen.taps == whole.taps[1:3]
    assert [tuple(level.shape[1:]) for level in levels] == whole.level_shapes(75, 110)
    for level, other in zip(chosen(images), levels[1:3], strict=True):
        assert_near(level, other)
    save_extractor(tmp_path / "backbone.pt", chosen)
    assert all(map(torch.equal, load_extractor(tmp_path / "backbone.pt")(images), chosen(images)))


@pytest.mark.parametrize("name", PYRAMIDS)
def test_dilation_is_timms_output_stride(name):
    hypercolumn = Hypercolumn(f"timm/{name}", "random", seed=1)
    network = timm.create_model(name, features_only=True, output_stride=16).eval()
    weights = hypercolumn.features.state_dict()
    network.load_state_dict({key.removeprefix("network."): v for key, v in weights.items()})
    hypercolumn.dilate(1)
    images = noise(96, 96)
    x = (images / 255 - hypercolumn.mean) / hypercolumn.std
    fewer = Hypercolumn(f"timm/{name}", "random", hypercolumn.taps[:-1], dilated=1)
    assert [level.shape[-1] for level in fewer(images)][-2:] == [12, 12], "the last that is used"
    for level, other in zip(hypercolumn(images), network(x), strict=True):
        assert_near(level, other)


REFUSED = [
    ("nonsense", {}, r"^--backbone timm/nonsense: .*Unknown model.*timm\.list_models"),
    ("swin_tiny_patch4_window7_224", {}, "no maps of images of any size"),
    ("resnet10t", {"taps": [1, 2, 3], "dilated": 1}, "with --dilate "),
    ("resnet10t", {"taps": ["b3", 6]}, "^--taps b3,6: timm/resnet10t has 1 to 5$"),
    ("densenet121", {"dilated": 1}, "output_stride"),
    ("vit_tiny_patch16_224", {"dilated": 1}, "^--dilate 1: .* no such drops"),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED)
def test_what_timm_does_not_have_is_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        Hypercolumn(f"timm/{name}", **{"weights": "random", **options})


def test_without_timm_one_line_says_what_to_install(monkeypatch, path):
    save_segmenter(path, random_segmenter("timm/resnet10t", 64, 2))
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="^--backbone timm/resnet10t: .*pip install timm$"):
        load_segmenter(path)  # and does not call it damaged
