"""Exported networks: they give what the segmenter gives, for photos of any size, and its facts."""

import json
import re
import sys
from unittest import mock

import pytest
import torch
from PIL import Image

from data.transforms import ResizeImage
from models.checkpoint import load_segmenter, save_segmenter
from models.export import LEAST_TORCH
from tests.models.conftest import CLASSES, SMALL, blots, random_segmenter

pytestmark = pytest.mark.skipif(
    torch.__version__ < LEAST_TORCH, reason=f"torch {LEAST_TORCH} is not installed"
)

SIZE = 64
PHOTOS = [(75, 100), (64, 64), (41, 33), (301, 202), (20, 390)]  # the last is beyond MAX_ASPECT
PHOTOS += [(64, 65), (64, 79), (66, 90), (130, 171), (99, 64)]
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
CONTEXT = {"context": ["3", "image", "half"]}
NETWORKS = {  # backbone, stride, further arguments
    "padding of odd sides": ("efficientnet_lite0", 3, {"taps": [1, 2], "context": ["3", "half"]}),
    "poolings that round up, dilation": (SMALL, 2, {"taps": [1, 2], "dilated": 1, **CONTEXT}),
}


@pytest.mark.parametrize(("backbone", "stride", "extractor"), NETWORKS.values(), ids=NETWORKS)
def test_both_forms_predict_as_segmenters(backbone, stride, extractor, tmp_path, succeeds, fails):
    onnx, _, onnxruntime = map(pytest.importorskip, PACKAGES)
    best, seen = tmp_path / "best.pt", tmp_path / "seen.png"
    network = random_segmenter(backbone, SIZE, stride, **extractor)
    network.trained_on = "9 images"
    save_segmenter(best, network)
    Image.fromarray(blots(50, 77).permute(1, 2, 0).numpy()).save(seen)
    files = tmp_path / "a.onnx", tmp_path / "a.pt2"
    flags = "--onnx", files[0], "--program", files[1], "--check", seen
    *_, checked = succeeds("models/export.py", "--checkpoint", best, *flags).splitlines()
    words = rf"{seen}: onnxruntime agrees with predict on ([\d.]+)% of the pixels"
    assert 99.9 <= float(re.fullmatch(words, checked)[1]) <= 100

    segmenter, _ = load_segmenter(best)
    model = onnx.load(files[0])
    onnx.checker.check_model(model)
    kept = {fact.key: fact.value for fact in model.metadata_props}
    assert json.loads(kept["classes"]) == list(CLASSES.names)
    assert json.loads(kept["colours"]) == [list(colour) for colour in CLASSES.colours]
    assert (kept["size"], kept["trained_on"]) == (str(SIZE), "9 images")
    extra = dict.fromkeys(kept, "")
    program = torch.export.load(files[1], extra_files=extra).module()
    assert extra == kept

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(files[0], options)
    for size in PHOTOS:
        photo = blots(*size)
        expected, _ = segmenter.predict(ResizeImage(SIZE)(photo), size)
        assert len(expected.unique()) > 1, "a constant map would prove nothing"
        (found,) = session.run(None, {"image": photo[None].numpy()})
        for classes in (program(photo[None]), torch.from_numpy(found)):
            assert classes.shape == (1, *size) and classes.dtype == torch.uint8
            # Nearly all, since resizing may round a value of the image otherwise.
            assert (classes[0] == expected).float().mean() >= 0.999

    if backbone == SMALL:  # quick
        others = [torch.full((50, 77), len(CLASSES))]
        with mock.patch("models.run.predictor.predict_photo", return_value=others):
            line = fails("models/export.py", "--checkpoint", best, *flags[:2], *flags[4:])
        assert "a.onnx: gives other classes than predict" in line


def test_without_a_package_it_ends_in_one_line(tmp_path, fails, monkeypatch):
    for package in PACKAGES:
        monkeypatch.setitem(sys.modules, package, None)
    line = fails("models/export.py", "--onnx", tmp_path / "a.onnx", "--check", tmp_path / "a.png")
    assert line == f"export: a package is missing: pip install {' '.join(PACKAGES)}"


def test_a_small_checkpoint_keeps_a_std_that_is_tiny(tmp_path, succeeds, fails):
    network, half = random_segmenter(SMALL, SIZE, 2, taps=[1]), tmp_path / "half.pt"
    network.head.std[0] = 1e-9  # 0 in float16
    save_segmenter(tmp_path / "best.pt", network)
    flags = "--checkpoint", tmp_path / "best.pt", "--half"
    line = fails("models/export.py", *flags, tmp_path / "best.pt")
    assert line.endswith("best.pt: is there already; name a new file")
    succeeds("models/export.py", *flags, half)
    found, content = load_segmenter(half)
    assert torch.equal(found.head.std, network.head.std)
    weights = [value for name, value in content["state"].items() if name.endswith("weight")]
    assert {value.dtype for value in weights} == {torch.float16}
