"""From strokes to pictures in one command."""

import json
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
from models.run import chain
from models.run.record import settings
from tests.drawn_strokes import draw_strokes
from tests.scripts.processes import table

QUICK = ("--size", 160, "--steps", 60, "--out", "out")


@pytest.fixture
def place(shapes, tmp_path, monkeypatch):
    """A folder of three photos; `strokes` has a mask of strokes for the first of them."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "strokes").mkdir()
    for photo in sorted((shapes / "JPEGImages").iterdir())[:3]:
        photo.rename(tmp_path / "photos" / photo.name)
    monkeypatch.chdir(tmp_path)
    save_strokes(truth_of("shapes_000000"))
    return tmp_path


def truth_of(image_id: str) -> np.ndarray:
    """The full mask of a photo, with its own classes as 1, 2, .. and void as 0."""
    mask = read_mask(f"shapes/SegmentationClass/{image_id}.png", VOC)
    labels = np.setdiff1d(np.unique(mask), VOID)
    return np.where(mask == VOID, 0, np.searchsorted(labels, mask) + 1).astype(np.uint8)


def save_strokes(truth: np.ndarray, image_id: str = "shapes_000000") -> np.ndarray:
    """A stroke in each class, as a mask in which 0 is not drawn."""
    drawn = draw_strokes(np.where(truth == 0, VOID, truth).astype(np.uint8), 3, seed=0)
    drawn[drawn == VOID] = 0
    Image.fromarray(drawn).save(f"strokes/{image_id}.png")
    return drawn


def predicted(image_id: str) -> np.ndarray:
    return read_mask(f"out/5_overlays/predictions/{image_id}.png", VOC)


def test_one_image_from_strokes_to_predictions(place, succeeds):
    said = succeeds("models/strokes.py", "photos", "strokes", *QUICK)
    assert "\nwrote 3 pictures; open " in said
    drawn, truth = np.array(Image.open("strokes/shapes_000000.png")), truth_of("shapes_000000")
    found = predicted("shapes_000000") + 1
    assert (found == drawn)[drawn > 0].mean() > 0.95
    largest = np.bincount(truth[truth > 0]).max() / (truth > 0).sum()
    assert (found == truth)[truth > 0].mean() > 1.3 * largest  # than to name the largest class
    rows = table("out/5_overlays/photos.csv")
    assert len({row["photo"] for row in rows}) == 3 and rows[0]["photo"].startswith("shapes_000000")
    network, photo = load("out"), next((place / "photos").glob("shapes_000001.*"))
    assert np.array_equal(network.predict(photo), predicted("shapes_000001"))
    assert "strokes on 1 photos" in network.segmenter.trained_on
    assert settings(chain.finished(Path("out"), 2))["--steps"] == 60
    succeeds("visualize.py", "--run", "out", "--image", "photos", "--out", "seen")
    seen = read_mask("seen/predictions/shapes_000002.png", VOC)
    assert np.array_equal(seen, predicted("shapes_000002"))


def test_lines_of_labelme_make_a_network_of_their_names(place, succeeds):
    (place / "strokes" / "shapes_000000.png").unlink()
    truth = truth_of("shapes_000000")
    shapes, labels = [], np.unique(truth[truth > 0])
    for label in labels:
        places = np.argwhere(truth == label)
        y, x = places[len(places) // 2].tolist()
        line = {"shape_type": "line", "points": [[x - 1, y], [x + 1, y]]}
        shapes.append({"label": f"thing {label}", **line})
    shapes.append(shapes[-1] | {"label": "thing x", "points": [[900, 900]]})
    photo = next((place / "photos").glob("shapes_000000.*"))
    content = {"shapes": shapes, "imagePath": photo.name, "imageHeight": 64, "imageWidth": 64}
    (place / "strokes" / "a.json").write_text(json.dumps(content))
    said = succeeds("models/strokes.py", "photos", "strokes", *QUICK, "--stroke-width", 3)
    words = "note: .*shape without a pixel in its photo: shapes_.*; no stroke of: thi"
    assert re.search(words, said)
    network = load("out")
    assert network.names == tuple(f"thing {label}" for label in [*labels, "x"])
    assert network.segmenter.has_seen(hash_files([photo])) == 1
    assert len(np.unique(predicted("shapes_000000"))) == len(labels)


def test_strokes_on_paper_or_on_the_photo_itself_are_told_by_their_colours(place):
    drawn = save_strokes(truth_of("shapes_000000"))
    names = {"sky 255 0 0": 1, "sand 0 0 255": 2}
    (place / "strokes" / "classes.txt").write_text("\n".join(names))
    shape, random = (*drawn.shape, 3), np.random.default_rng(0)
    photo = random.integers(1, 255, shape, dtype=np.uint8)  # none of them pure red or blue
    for ground in (np.full(shape, 255, dtype=np.uint8), photo):
        for name, value in names.items():
            ground[drawn == value] = [int(part) for part in name.split()[1:]]
        Image.fromarray(ground).save("strokes/shapes_000000.png")
        (pair,) = strokes.read_strokes(place / "strokes", place / "photos", 5.0).pairs.values()
        expected = np.select([drawn == 1, drawn == 2], [0, 1], VOID)
        assert np.array_equal(pair.mask(), expected)


def test_a_stroke_that_changes_is_noticed(place, in_process):
    drawn, pauses = save_strokes(truth_of("shapes_000000")), []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:  # twice nothing had changed
            save_strokes(truth_of("shapes_000001"), "shapes_000001")
        if len(pauses) == 5:
            next((place / "photos").glob("shapes_000002.*")).unlink()
        if len(pauses) == 8:
            raise KeyboardInterrupt

    with mock.patch("time.sleep", pause):
        # What it writes itself lies in `out`, and so may photos and strokes.
        (place / "out").mkdir()
        for name in ("photos", "strokes"):
            (place / name).rename(place / "out" / name)
            (place / name).symlink_to(place / "out" / name)
        done = in_process("models/strokes.py", "out/photos", "out/strokes", *QUICK, "--watch")
    assert done.returncode == 130 and drawn.any()
    pixels = [int(number) for number in re.findall(r"(\d+) labelled pixels, ", done.stdout)]
    assert pixels[0] < pixels[1] == pixels[2]
    assert re.findall(r"\nwrote (\d) pictures", done.stdout) == ["3", "3", "2"]


def test_what_cannot_be_learned_from_is_refused(place, fails):
    one = np.zeros((64, 64), dtype=np.uint8)
    one[3:5] = 1
    Image.fromarray(one).save("strokes/shapes_000000.png")
    command = ("models/strokes.py", "photos", "strokes", *QUICK)
    assert "strokes: all pixels to train on are of one class" in fails(*command)
    (place / "strokes" / "shapes_000000.png").rename(place / "strokes" / "other.png")
    assert "no photo has a mask with its name" in fails(*command)
    Image.fromarray(one * 0).save("strokes/shapes_000000.png")
    (place / "strokes" / "classes.txt").write_text("ground\nroot\n")
    assert "strokes: no pixel is labelled" in fails(*command)
    assert not (place / "out").exists()
    (place / "out" / "5_overlays").mkdir(parents=True)
    (place / "out" / "5_overlays" / "mine.png").touch()
    assert "mine.png: would be replaced" in fails(*command)
