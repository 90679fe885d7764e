"""Exported networks: they give what the segmenter gives, for photos of any size."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from data.classes import Classes
from data.transforms import ResizeImage, resized_shape
from models.checkpoint import load_segmenter, save_segmenter
from models.classifier import DenseClassifier
from models.export import LEAST_TORCH, PhotoSegmenter, save_onnx, trace
from models.hypercolumn import Hypercolumn
from models.segmenter import Segmenter

pytestmark = pytest.mark.skipif(
    torch.__version__ < LEAST_TORCH, reason=f"torch {LEAST_TORCH} is not installed"
)

SIZE = 64
CLASSES = Classes(("sky", "sea", "boat", "sand"), ((0, 0, 0), (0, 0, 255), (255, 0, 0), (9, 9, 9)))
PHOTOS = [(75, 100), (64, 64), (41, 33), (301, 202), (20, 390)]  # the last is beyond MAX_ASPECT
PHOTOS += [(64, 65), (64, 79), (66, 90), (130, 171), (99, 64)]
NETWORKS = {  # backbone, stride, further arguments
    "poolings that round up": ("squeezenet1_1", 2, {"taps": [1, 2], "context": ["image"]}),
    "other padding of odd sides": ("efficientnet_lite0", 2, {"taps": [1, 2, 3]}),
    "windows": ("mobilenet_v2", 4, {"taps": [1, 2, "b5"], "context": ["3", "image", "5"]}),
    "dilation": ("resnet18", 3, {"taps": [1, 2], "context": ["quadrants", "3"], "dilated": 1}),
}


def photo(height: int, width: int) -> Tensor:
    """Soft blots of colour, (3, height, width) uint8."""
    blots = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(height))
    return (255 * F.interpolate(blots, (height, width), mode="bilinear")[0]).to(torch.uint8)


def random_segmenter(backbone: str, stride: int, extractor: dict) -> Segmenter:
    """With the moments of a photo, and a last bias that gives each class a share of it."""
    hypercolumn = Hypercolumn(backbone, "random", seed=1, **extractor)
    levels = hypercolumn(photo(96, 90)[None])
    mean = torch.cat([level.mean((0, 2, 3)) for level in levels])
    std = torch.cat([level.std((0, 2, 3), correction=0) for level in levels])
    torch.manual_seed(0)
    head = DenseClassifier(hypercolumn.channels, mean, std, len(CLASSES), (16, 16))
    with torch.no_grad():
        head.layers[-1].weight *= 10  # sure of some pixels
        head.layers[-1].bias -= head(levels, (16, 16)).mean((0, 2, 3))
    return Segmenter(hypercolumn, head, SIZE, stride, CLASSES).eval()


@pytest.fixture(scope="module", params=NETWORKS)
def segmenter(request) -> Segmenter:
    return random_segmenter(*NETWORKS[request.param])


@pytest.fixture(scope="module")
def traced(segmenter):
    return trace(segmenter)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """The checkpoint of a network that is soon exported."""
    network = random_segmenter("squeezenet1_1", 4, {"taps": [1]})
    network.trained_on = "9 images"
    path = tmp_path_factory.mktemp("small") / "best.pt"
    save_segmenter(path, network)
    return path


def test_a_program_gives_the_classes_of_predict_for_photos_of_any_size(segmenter, traced):
    program = traced.module()
    for size in PHOTOS:
        assert_classes(program(photo(*size)[None]), segmenter, photo(*size))


def test_onnx_gives_the_classes_of_predict_for_photos_of_any_size(segmenter, traced, tmp_path):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    runtime = pytest.importorskip("onnxruntime")
    save_onnx(tmp_path / "network.onnx", traced, {})
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(tmp_path / "network.onnx", options)
    for size in PHOTOS:
        (found,) = session.run(None, {"image": photo(*size)[None].numpy()})
        assert_classes(torch.from_numpy(found), segmenter, photo(*size))


def assert_classes(found: Tensor, segmenter: Segmenter, image: Tensor) -> None:
    """Nearly all, since resizing may round a value of the image otherwise."""
    expected, _ = segmenter.predict(ResizeImage(SIZE)(image), image.shape[1:])
    assert found.shape == (1, *image.shape[1:]) and found.dtype == torch.uint8
    assert len(expected.unique()) > 1, "a constant map would prove nothing"
    assert (found[0] == expected).float().mean() >= 0.999


@given(height=st.integers(1, 5000), width=st.integers(1, 5000), size=st.sampled_from([20, 64, 416]))
def test_the_input_has_the_shape_of_the_other_predictions(height, width, size):
    shape = PhotoSegmenter.input_shape(size, height, width)
    assert tuple(shape) == resized_shape(height, width, size)


def test_the_command_writes_both_forms_with_the_facts(small, tmp_path, succeeds):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    files, seen = [tmp_path / "a.onnx", tmp_path / "a.pt2"], tmp_path / "seen.png"
    Image.fromarray(photo(50, 77).permute(1, 2, 0).numpy()).save(seen)
    flags = "--onnx", files[0], "--program", files[1], "--check", seen
    *_, checked = succeeds("models/export.py", "--checkpoint", small, *flags).splitlines()
    words = rf"{seen}: onnxruntime agrees with predict on ([\d.]+)% of the pixels"
    assert 99.9 <= float(re.fullmatch(words, checked)[1]) <= 100
    model = onnx.load(files[0])
    onnx.checker.check_model(model)
    kept = {fact.key: fact.value for fact in model.metadata_props}
    assert json.loads(kept["classes"]) == list(CLASSES.names)
    assert json.loads(kept["colours"]) == [list(colour) for colour in CLASSES.colours]
    assert (kept["size"], kept["backbone"]) == (str(SIZE), "squeezenet1_1")
    extra = dict.fromkeys(kept, "")
    program = torch.export.load(files[1], extra_files=extra).module()
    assert extra == kept and kept["trained_on"] == "9 images"
    assert_classes(program(photo(50, 77)[None]), load_segmenter(small)[0], photo(50, 77))


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_a_package_it_ends_in_one_line(package, small, tmp_path, fails, monkeypatch):
    for other in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(other)
    monkeypatch.setitem(sys.modules, package, None)
    files = "--onnx", tmp_path / "a.onnx", "--check", tmp_path / "a.png"
    line = fails("models/export.py", "--checkpoint", small, *files)
    assert line == f"export: a package is missing: pip install {package}"
    assert not (tmp_path / "a.onnx").exists()
