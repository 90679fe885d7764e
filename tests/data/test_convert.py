"""The command that brings data into the layout: what it writes, says, leaves out and refuses."""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.classes import VOC
from data.convert import main
from data.image_files import read_mask
from models.run.runtime import run_script

MASK = [[0, 1, 1], [0, 0, 255]]


def add(root: Path, name: str, mask=MASK, size: tuple[int, int] = (3, 2)) -> None:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(root / "images" / f"{name}.jpg")
    Image.fromarray(np.array(mask, dtype=np.uint8)).save(root / "masks" / f"{name}.png")


@pytest.fixture
def root(tmp_path) -> Path:
    add(tmp_path / "my data", "a")
    add(tmp_path / "my data", "b", [[1, 1, 1], [0, 0, 0]])
    return tmp_path / "my data"


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command; returns its exit code, and the lines of standard output or error."""

    def command(*arguments) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", ["convert.py", *map(str, arguments)])
        code = 0
        try:
            run_script(main)
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr()
        assert not (said.out and said.err)
        return code, (said.out or said.err).splitlines()

    return command


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def written(root: Path, classes: int = 2) -> list:
    """The mask of the photo a in a result."""
    return read_mask(root / "SegmentationClass" / "a.png", classes).tolist()


def test_the_command_writes_the_layout_and_says_what_it_holds(root, tmp_path, run):
    Image.new("RGB", (3, 2)).save(root / "images" / "c.jpg")
    before, out = files(root), tmp_path / "out"
    assert run(root, out, "--classes", "background,cat") == (
        0,
        [
            "photos and masks: 2 pairs of photo and mask",
            "  left out: in no pair: 1 (images/c.jpg)",
            f"wrote {out}: photos, masks and 2 classes in classes.txt",
            f"next: python -m data.lists {out}",
        ],
    )
    assert files(root) == before
    assert (out / "classes.txt").read_text() == "background 0 0 0\ncat 128 0 0\n"
    assert written(out) == MASK


def test_flags_reach_the_masks(root, tmp_path, run):
    add(root, "a", [[0, 255, 128], [7, 0, 0]])
    (root / "masks" / "b.png").unlink()
    (root / "masks").rename(root / "drawn")
    flags = ["--masks", "drawn", "--map", "0=0, 255=1, 128=void", "--unknown", "background"]
    assert run(root, tmp_path / "out", *flags)[0] == 0
    assert written(tmp_path / "out") == [[0, 1, 255], [0, 0, 0]]


@pytest.mark.parametrize("classes", ["voc", "FILE"])
def test_colours_have_their_classes(classes, root, tmp_path, run):
    for name in "ab":
        add(root, name, [[(0, 0, 0), (128, 0, 0), (224, 224, 192)], [(0, 0, 0)] * 3])
    if classes == "FILE":
        classes = tmp_path / "mine.txt"
        classes.write_text("background 0 0 0\naeroplane 128 0 0\nvoid 224 224 192\n")
    assert run(root, tmp_path / "out", "--classes", classes)[0] == 0
    assert written(tmp_path / "out", 21) == [[0, 1, 255], [0, 0, 0]]


def test_masks_without_a_labelled_pixel_are_left_out(root, tmp_path, run):
    add(root, "b", np.full((2, 3), 255))
    _, lines = run(root, tmp_path / "out")
    assert "  left out: no labelled pixel: 1 (b)" in lines
    assert "1 pairs" in lines[0]
    names = ["JPEGImages/a.jpg", "SegmentationClass/a.png", "classes.txt", "converted.json"]
    assert sorted(files(tmp_path / "out")) == names


def damaged(root: Path, name: str = "images/b.jpg") -> str:
    (root / name).write_bytes((root / name).read_bytes()[:40])
    return f"{root / name}: cannot be read as an image"


damaged_mask = partial(damaged, name="masks/b.png")


def too_wide(root: Path) -> str:
    add(root, "b", size=(4, 2))
    return f"{root / 'images' / 'b.jpg'}: the photo is 4x2 but its mask 3x2"


def no_class(root: Path) -> str:
    (root / "classes.txt").write_text("background\ncat\n")
    add(root, "b", [[0, 0, 0], [0, 7, 0]])
    return f"{root / 'masks' / 'b.png'}: value 7 is of no class"


@pytest.mark.parametrize("spoil", [damaged, damaged_mask, too_wide, no_class])
def test_a_bad_image_stops_it_or_is_left_out(spoil, root, tmp_path, run):
    reason, out = spoil(root), tmp_path / "out"
    code, lines = run(root, out)
    assert code == 2 and len(lines) == 1 and lines[0].startswith(f"convert: {reason}")
    assert lines[0].endswith("; --skip-bad leaves such images out")
    assert not out.exists() and not (tmp_path / ".out.new").exists()
    code, lines = run(root, out, "--skip-bad")
    assert code == 0 and "1 pairs" in lines[0]
    assert any(line.startswith(f"  left out: cannot be used: 1 ({reason}") for line in lines)
    assert {Path(name).stem for name in files(out)} == {"a", "classes", "converted"}


def test_without_a_good_image_there_is_no_result(root, tmp_path, run):
    (root / "images" / "a.jpg").unlink()
    reason = damaged(root)
    code, lines = run(root, tmp_path / "out", "--skip-bad")
    assert code == 2 and lines[0].startswith(f"convert: {root}: no image can be used; ")
    assert reason in lines[0]


def test_a_result_is_replaced_by_force_alone_and_when_the_new_one_is_whole(root, tmp_path, run):
    out = tmp_path / "out"
    run(root, out)
    (out / ".DS_Store").touch()
    before = files(out)
    code, lines = run(root, out)
    assert (code, len(lines)) == (2, 1) and "--force replaces it" in lines[0]
    (root / "masks" / "b.png").write_bytes(b"no mask")
    assert run(root, out, "--force")[0] == 2 and files(out) == before
    (root / "masks" / "b.png").unlink()
    assert run(root, out, "--force")[0] == 0
    assert [path.name for path in (out / "JPEGImages").iterdir()] == ["a.jpg"]


@pytest.mark.parametrize("there", ["out/thesis.txt", "out/classes.txt", "out", "my data/out/a"])
def test_other_data_stays_and_so_does_the_source(there, root, tmp_path, run):
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_text("mine")
    out = root / "out" if "my data" in there else tmp_path / "out"
    code, lines = run(root, out, "--force")
    assert code == 2 and ("lies in SOURCE" if out.parent == root else "move it away") in lines[0]
    assert (tmp_path / there).read_text() == "mine"


def test_annotations_are_recognised_before_folders(root, tmp_path, run):
    shape = {"label": "cat", "points": [[0, 0], [0, 1.5]], "shape_type": "rectangle"}
    content = {"shapes": [shape], "imagePath": "a.jpg", "imageHeight": 2, "imageWidth": 3}
    (root / "a.json").write_text(json.dumps(content))
    out = tmp_path / "out"
    _, lines = run(root, out)
    assert lines[0] == "LabelMe JSON: 1 pairs of photo and mask"
    assert written(out) == [[1, 0, 0], [1, 0, 0]]
    shape["points"] = [[9, 9], [12, 12]]
    (root / "a.json").write_text(json.dumps(content))
    code, lines = run(root, out, "--force")
    reason = "left out: shape without a pixel in its photo: a.jpg"
    assert (code, lines) == (2, [f"convert: {root}: nothing is drawn in any photo; {reason}"])
    _, lines = run(root, out, "--force", "--masks", "masks")
    assert lines[0].startswith("photos and masks: 2 pairs")


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--classes", "cat,,dog"], "--classes cat,,dog: neither a file nor names that differ"),
        (["--map", "0=0,255"], "--map 0=0,255: expected VALUE=CLASS"),
        (["--map", "0=256"], "--map 0=256: expected VALUE=CLASS"),
        (["--annotations", "a.json"], "a.json: No such file"),
        (["--images", "there"], "there: no such folder"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, message, root, tmp_path, run):
    code, lines = run(root, tmp_path / "out", *flags)
    assert code == 2 and message in lines[-1]
    assert not (tmp_path / "out").exists()


def test_a_missing_or_empty_source_is_named(tmp_path, run):
    gone = tmp_path / "gone"
    code, lines = run(gone, tmp_path / "out")
    assert code == 2 and lines[0].startswith(f"convert: {gone}: no such folder")
    gone.mkdir()
    _, lines = run(gone, tmp_path / "out")
    assert lines[0].startswith(f"convert: {gone}: no photo has a mask with its name;")


def test_without_out_colours_are_listed_alone(root, run):
    code, lines = run(root)
    assert code == 2 and "OUT is missing" in lines[-1]
    code, lines = run(root, "--list-colours")
    assert code == 0 and lines[-1].startswith("class 2 ")


@pytest.mark.real
def test_real_masks_in_colour_keep_every_pixel(voc_root, tmp_path, run):
    """Photos and masks of VOC, the masks saved in RGB, through the conversion and back."""
    paths = sorted((voc_root / "SegmentationClass").iterdir())[:5]
    (tmp_path / "data" / "masks").mkdir(parents=True)
    (tmp_path / "data" / "images").symlink_to(voc_root / "JPEGImages")
    for path in paths:
        with Image.open(path) as mask:
            mask.convert("RGB").save(tmp_path / "data" / "masks" / path.name)
    assert run(tmp_path / "data", tmp_path / "out", "--classes", "voc")[0] == 0
    for path in paths:
        mask = read_mask(tmp_path / "out" / "SegmentationClass" / path.name, len(VOC))
        assert np.array_equal(mask, read_mask(path, len(VOC)))
