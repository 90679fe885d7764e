"""Exported networks: they give what the segmenter gives, for photos of any size."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from data.transforms import ResizeImage, resized_shape
from models.checkpoint import load_segmenter, save_segmenter
from models.export import LEAST_TORCH, PhotoSegmenter, save_onnx, trace
from models.segmenter import Segmenter
from tests.models.conftest import CLASSES, SMALL, blots, random_segmenter

pytestmark = pytest.mark.skipif(
    torch.__version__ < LEAST_TORCH, reason=f"torch {LEAST_TORCH} is not installed"
)

SIZE = 64
PHOTOS = [(75, 100), (64, 64), (41, 33), (301, 202), (20, 390)]  # the last is beyond MAX_ASPECT
PHOTOS += [(64, 65), (64, 79), (66, 90), (130, 171), (99, 64)]
NETWORKS = {  # backbone, stride, further arguments
    "poolings that round up": (SMALL, 2, {"taps": [1, 2], "context": ["image"]}),
    "other padding of odd sides": ("efficientnet_lite0", 2, {"taps": [1, 2, 3]}),
    "windows": ("mobilenet_v2", 4, {"taps": [1, 2, "b5"], "context": ["3", "image", "5"]}),
    "dilation": ("resnet18", 3, {"taps": [1, 2], "context": ["quadrants", "3"], "dilated": 1}),
}


@pytest.fixture(scope="module", params=NETWORKS)
def segmenter(request) -> Segmenter:
    backbone, stride, extractor = NETWORKS[request.param]
    return random_segmenter(backbone, SIZE, stride, **extractor)


@pytest.fixture(scope="module")
def traced(segmenter):
    return trace(segmenter)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """The checkpoint of a network that is soon exported."""
    network = random_segmenter(SMALL, SIZE, 4, taps=[1])
    network.trained_on = "9 images"
    path = tmp_path_factory.mktemp("small") / "best.pt"
    save_segmenter(path, network)
    return path


def test_a_program_gives_the_classes_of_predict_for_photos_of_any_size(segmenter, traced):
    program = traced.module()
    for size in PHOTOS:
        assert_classes(program(blots(*size)[None]), segmenter, blots(*size))


def test_onnx_gives_the_classes_of_predict_for_photos_of_any_size(segmenter, traced, tmp_path):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    runtime = pytest.importorskip("onnxruntime")
    save_onnx(tmp_path / "network.onnx", traced, {})
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(tmp_path / "network.onnx", options)
    for size in PHOTOS:
        (found,) = session.run(None, {"image": blots(*size)[None].numpy()})
        assert_classes(torch.from_numpy(found), segmenter, blots(*size))


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
    Image.fromarray(blots(50, 77).permute(1, 2, 0).numpy()).save(seen)
    flags = "--onnx", files[0], "--program", files[1], "--check", seen
    *_, checked = succeeds("models/export.py", "--checkpoint", small, *flags).splitlines()
    words = rf"{seen}: onnxruntime agrees with predict on ([\d.]+)% of the pixels"
    assert 99.9 <= float(re.fullmatch(words, checked)[1]) <= 100
    model = onnx.load(files[0])
    onnx.checker.check_model(model)
    kept = {fact.key: fact.value for fact in model.metadata_props}
    assert json.loads(kept["classes"]) == list(CLASSES.names)
    assert json.loads(kept["colours"]) == [list(colour) for colour in CLASSES.colours]
    assert (kept["size"], kept["backbone"]) == (str(SIZE), SMALL)
    extra = dict.fromkeys(kept, "")
    program = torch.export.load(files[1], extra_files=extra).module()
    assert extra == kept and kept["trained_on"] == "9 images"
    assert_classes(program(blots(50, 77)[None]), load_segmenter(small)[0], blots(50, 77))


def test_without_a_package_it_ends_in_one_line(small, tmp_path, fails, monkeypatch):
    needed = ("onnx", "onnxscript", "onnxruntime")
    for package in needed:
        monkeypatch.setitem(sys.modules, package, None)
    files = "--onnx", tmp_path / "a.onnx", "--check", tmp_path / "a.png"
    line = fails("models/export.py", "--checkpoint", small, *files)
    assert line == f"export: a package is missing: pip install {' '.join(needed)}"
