"""From strokes to pictures in one command."""

import re
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from data.classes import VOC, VOID
from data.files import hash_files
from data.image_files import read_mask
from models import load, strokes
from tests.drawn_strokes import draw_strokes
from tests.scripts.processes import table

FIRST, SECOND, THIRD = (f"shapes_00000{number}" for number in range(3))
QUICK = ("--size", 160, "--steps", 60, "--out", "out")
COMMAND = ("models/strokes.py", "photos", "strokes", *QUICK)


@pytest.fixture
def place(shapes, tmp_path, monkeypatch):
    """A folder of three photos; `strokes` has a mask of strokes for the first of them."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "strokes"):
        Path(name).mkdir()
    for photo in sorted((shapes / "JPEGImages").iterdir())[:3]:
        photo.rename(Path("photos", photo.name))
    save_strokes(FIRST)


def truth_of(image_id: str) -> np.ndarray:
    """The full mask of a photo, with its own classes as 0, 1, .."""
    mask = read_mask(f"shapes/SegmentationClass/{image_id}.png", VOC)
    labels = np.setdiff1d(mask, VOID)
    return np.where(mask == VOID, VOID, np.searchsorted(labels, mask)).astype(np.uint8)


def save_strokes(image_id: str) -> np.ndarray:
    """A stroke in each class of a photo; saved as a mask in which they count from 1."""
    drawn = draw_strokes(truth_of(image_id), 3, seed=0)
    Image.fromarray(drawn + np.uint8(1)).save(f"strokes/{image_id}.png")  # VOID becomes 0
    return drawn


def test_one_image_from_strokes_to_predictions(place, succeeds):
    drawn, truth = save_strokes(FIRST), truth_of(FIRST)
    names = [f"thing {label}" for label in range(truth[truth != VOID].max() + 2)]
    Path("strokes/classes.txt").write_text("\n".join(names))
    said = succeeds(*COMMAND)
    assert f"  note: no stroke of: {names[-1]}\n" in said and "\nwrote 3 pictures; open " in said
    masks = Path("out/5_overlays/predictions")
    found, second = (read_mask(masks / f"{name}.png", VOC) for name in (FIRST, SECOND))
    assert (found == drawn)[drawn != VOID].mean() > 0.95
    known = truth != VOID
    largest = np.bincount(truth[known]).max() / known.sum()
    assert (found != truth)[known].mean() < 0.7 * (1 - largest)  # if all were the largest class
    photos = [row["photo"] for row in table("out/5_overlays/photos.csv")]
    assert len({*photos}) == 3 and photos[0].startswith(FIRST)
    network = load("out")
    assert list(network.names) == names
    assert np.array_equal(network.predict(f"photos/{SECOND}.jpg"), second)
    assert "strokes on 1 photos" in network.segmenter.trained_on
    assert network.segmenter.has_seen(hash_files([Path(f"photos/{FIRST}.jpg")])) == 1
    assert network.segmenter.history["models.strokes"]["--steps"] == 60


def test_strokes_on_paper_or_on_the_photo_itself_are_told_by_their_colours(place):
    drawn, colours = save_strokes(FIRST), [(255, 0, 0), (0, 0, 255)]
    Path("strokes/classes.txt").write_text("sky 255 0 0\nsand 0 0 255")
    shape = *drawn.shape, 3
    photo = np.random.default_rng(0).integers(1, 255, shape, dtype=np.uint8)  # not pure red or blue
    for ground in (np.full(shape, 255, dtype=np.uint8), photo):
        for label, colour in enumerate(colours):
            ground[drawn == label] = colour
        Image.fromarray(ground).save(f"strokes/{FIRST}.png")
        (pair,) = strokes.read_strokes(Path("strokes"), Path("photos"), 5.0).pairs.values()
        assert np.array_equal(pair.mask(), np.where(drawn < 2, drawn, VOID))


@pytest.mark.parametrize("width", [1, 3])
def test_clicks_are_as_large_as_strokes_are_wide(place, width):
    clicks = ["photo,row,column,label", *(f"{FIRST}.jpg,{9 * at},9,thing {at}" for at in (1, 2))]
    Path("clicks.csv").write_text("\n".join(clicks))
    (pair,) = strokes.read_strokes(Path("clicks.csv"), Path("photos"), width).pairs.values()
    assert (pair.mask() != VOID).sum() == 2 * width**2, "discs of so few pixels are squares"


def test_a_stroke_that_changes_is_noticed(place, in_process):
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:  # twice nothing had changed
            save_strokes(SECOND)
        if len(pauses) == 5:
            Path(f"photos/{THIRD}.jpg").unlink()
        if len(pauses) == 8:
            raise KeyboardInterrupt

    # What it writes itself may lie among the photos, and the strokes beside it.
    Path("photos/out").mkdir()
    Path("strokes").symlink_to(Path("strokes").rename("photos/out/strokes"))
    with mock.patch("time.sleep", pause):
        done = in_process(*COMMAND[:-1], "photos/out", "--watch")
    assert done.returncode == 130
    pixels = [int(number) for number in re.findall(r"(\d+) labelled pixels, ", done.stdout)]
    assert pixels[0] < pixels[1] == pixels[2]
    assert re.findall(r"\nwrote (\d) pictures", done.stdout) == ["3", "3", "2"]


def test_what_cannot_be_learned_from_is_refused(place, fails):
    mask, one = Path(f"strokes/{FIRST}.png"), np.zeros((64, 64), dtype=np.uint8)
    one[3:5] = 1
    Image.fromarray(one).save(mask)
    assert "strokes: all pixels to train on are of one class" in fails(*COMMAND)
    mask.rename("strokes/other.png")
    assert "no photo has a mask with its name" in fails(*COMMAND)
    Image.fromarray(one * 0).save(mask)
    Path("strokes/classes.txt").write_text("ground\nroot\n")
    assert "strokes: no pixel is labelled" in fails(*COMMAND)
    assert not Path("out").exists()
    Path("out/5_overlays").mkdir(parents=True)
    Path("out/5_overlays/mine.png").touch()
    assert "mine.png: would be replaced" in fails(*COMMAND)
