"""In Python: what a trained network takes, what it gives, and the one in the box."""

import io
import shutil
from hashlib import sha256

import numpy as np
import pytest
import torch
from PIL import Image

from data import UserError
from data.classes import VOID
from data.image_files import read_image
from models import load
from models.checkpoint import TRAINED
from tests.conftest import HOME

PORTRAIT = HOME / "data/portrait/hopper.jpg"


@pytest.fixture(scope="module")
def network():
    return load()


@pytest.fixture(scope="module")
def mask(network):
    return network.predict(PORTRAIT)


def test_the_box_holds_a_small_network_of_plain_float16_tensors_with_its_card():
    path = TRAINED / "voc.pt"
    assert path.stat().st_size <= 12e6
    content = torch.load(path, weights_only=True)
    kinds = {name: value.dtype for name, value in content["state"].items()}
    assert {kinds.pop("head.mean"), kinds.pop("head.std")} == {torch.float32}
    assert {*kinds.values()} == {torch.float16}
    card = (TRAINED / "voc.md").read_text(encoding="utf-8")
    assert sha256(path.read_bytes()).hexdigest() in card
    assert content["trained_on"] in card


def test_a_network_is_as_exact_on_a_gpu_as_the_scripts_are(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    load()
    assert not torch.backends.cudnn.allow_tf32


def test_a_portrait_of_a_person_is_seen_as_one(mask):
    assert mask.shape == read_image(PORTRAIT).shape[:2] and mask.dtype == np.uint8
    shares = np.bincount(mask.ravel(), minlength=21) / mask.size
    assert 0.3 < shares[15] < 0.8 and shares[0] + shares[15] > 0.95


def test_a_photo_may_come_in_any_form_without_a_word(network, mask, recwarn):
    pixels = read_image(PORTRAIT)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    mirrored = np.ascontiguousarray(pixels[:, ::-1])[:, ::-1]
    read_only = pixels.copy()
    read_only.flags.writeable = False
    content = PORTRAIT.read_bytes()
    pipe = io.BytesIO(content)
    pipe.seekable, pipe.seek = lambda: False, None  # as of a download
    forms = [str(PORTRAIT), Image.open(PORTRAIT), content, bytearray(content), PORTRAIT.open("rb")]
    forms += [pipe, pixels / 255, mirrored, read_only]
    forms += [tensor, tensor / 255, (tensor / 255).requires_grad_()]
    assert all(np.array_equal(found, mask) for found in network.predict(forms))
    grey = pixels[:40, :50, 0]
    in_colour = network.predict(np.stack([grey] * 3, axis=-1))
    for form in (grey, grey[..., None]):
        assert np.array_equal(network.predict(form), in_colour)
    assert not recwarn.list


CUT = Image.open(io.BytesIO(PORTRAIT.read_bytes()[:2000]))  # Pillow finds out when it is read
NO_PHOTOS = [
    (CUT, UserError, "^the photo: cannot be read .*truncated"),
    ("none.jpg", UserError, "none.jpg: no such"),
    (np.zeros((4, 4, 4), np.uint8), ValueError, r"expected an array .* got \(4, 4, 4\)"),
    (np.zeros((0, 4, 3), np.uint8), ValueError, r"got \(0, 4, 3\)"),
    (np.zeros((4, 4, 3), np.int64), TypeError, "got int64"),
    (np.full((4, 4, 3), np.nan), ValueError, "expected floating-point values from 0 to 1"),
    ("https://a.org/b.jpg", ValueError, "b.jpg: is not fetched; pass what is there, as bytes"),
    ([PORTRAIT, 7], TypeError, "^photo 1 of the list: .* got int"),
    (torch.zeros(4, 4, 3), ValueError, r"expected a tensor \(3, H, W\)"),
    (torch.full((3, 4, 4), 200.0), ValueError, "expected floating-point values"),
]


@pytest.mark.parametrize("photo, error, words", NO_PHOTOS)
def test_what_is_no_photo_is_refused(network, photo, error, words):
    with pytest.raises(error, match=words):
        network.predict(photo)


def test_probabilities_confidence_and_what_is_void_belong_to_the_mask(network, mask):
    found = network.predict(PORTRAIT, probabilities=True)
    assert found.shape == (21, *mask.shape) and found.dtype == np.float32
    assert np.allclose(found.sum(0), 1, atol=1e-5)
    assert (found.argmax(0) == mask).mean() > 0.9999  # ties
    same, sure = network.predict(PORTRAIT, confidence=True)
    assert np.array_equal(same, mask) and np.allclose(sure, found.max(0), atol=1e-4)
    for how in ({"probabilities": True, "threshold": 0.9}, {"threshold": 90}):
        with pytest.raises(ValueError, match="probabilit"):
            network.predict(PORTRAIT, **how)
    doubtful = network.predict(PORTRAIT, threshold=0.9)
    assert 0 < (doubtful == VOID).mean() < 0.5
    assert np.array_equal(doubtful, np.where(sure < 0.9, VOID, mask))


def test_the_overlay_is_a_picture_of_the_photos_size(network, mask):
    found = network.overlay(PORTRAIT)
    assert found.size == Image.open(PORTRAIT).size
    for known in (mask, torch.from_numpy(mask)):
        assert np.array_equal(np.asarray(found), np.asarray(network.overlay(PORTRAIT, known)))
    with pytest.raises(ValueError, match="expected a mask .* for this photo, got"):
        network.overlay(PORTRAIT, mask[1:])
    assert not np.array_equal(np.asarray(found), read_image(PORTRAIT))


def test_a_run_or_a_checkpoint_is_loaded_too(street, succeeds):
    photo = np.zeros((50, 70, 3), np.uint8)
    best = load("run/3_seg/best.pt", device="cpu").predict(photo)
    assert best.shape == (50, 70) and np.array_equal(load("run").predict(photo), best)
    for place, what in (("nothing", "no such checkpoint file"), ("shapes", "a folder, not a ch")):
        with pytest.raises(UserError, match=f"{place}: {what}"):
            load(place)
    for how in ({"tile": 0}, {"tile": -5}, {"size": 0}):
        with pytest.raises(UserError):
            load("run", **how)
    flags = ("--size", 96, "--tile", 64, "--masks-only", "--out", "seen")
    succeeds("visualize.py", "--run", "run", "--image", PORTRAIT, *flags)
    drawn = np.asarray(Image.open("seen/predictions/hopper.png"))
    assert np.array_equal(load("run", size=96, tile=64).predict(PORTRAIT), drawn)
    shutil.copytree("shapes", "voc")
    trained_on = load("voc").segmenter.trained_on
    assert not trained_on.startswith("18 images"), "a data set of that name is not taken for a run"
    shutil.copytree("run", "voc", dirs_exist_ok=True)
    assert load("voc").segmenter.trained_on.startswith("18 images"), "but a run is"
