"""The command that brings data into the layout: what it writes, says, leaves out and refuses."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.classes import read_classes
from data.image_files import read_image, read_mask
from tests.conftest import cut
from tests.data.conftest import MASK, add, files_in, turned_by
from tests.data.formats import DRAWN, coco, labelme, photo, write


def written(out: Path, name: str = "a") -> list:
    """The mask of a photo in a result."""
    return read_mask(out / "SegmentationClass" / f"{name}.png", read_classes(out)).tolist()


def test_the_command_writes_the_layout_and_says_what_it_holds(root, tmp_path, converts):
    Image.new("RGB", (3, 2)).save(root / "images" / "c.jpg")
    add(root, "d", np.full((2, 3), 255))
    before, out = files_in(root), tmp_path / "out"
    assert converts(root, "--classes", "background,lane 2 3", out) == [
        "photos and masks: 2 pairs of photo and mask",
        "  left out: in no pair: 1 (images/c.jpg)",
        "  left out: no labelled pixel: 1 (d)",
        f"wrote {out}: photos, masks and 2 classes in classes.txt",
        f"next: python -m data.lists {out}",
    ]
    assert files_in(root) == before
    assert read_classes(out).names == ("background", "lane 2 3")
    assert written(out) == MASK
    assert {Path(name).stem for name in files_in(out)} == {"a", "b", "classes", "converted"}


@pytest.mark.parametrize("unmasked", ["void", "background"])
def test_photos_without_a_mask_may_be_of_one_value(unmasked, root, tmp_path, converts, refuses):
    Image.new("RGB", (3, 2)).save(root / "images" / "c.jpg", exif=turned_by(6))
    out, flags = tmp_path / "out", ("--classes", "wall,door", "--unmasked", unmasked)
    said = converts(root, out, *flags)
    what, value = ("void", 255) if unmasked == "void" else ("wall", 0)
    assert "3 pairs" in said[0] and f"  without a mask, so {what} everywhere: 1 (c)" in said
    assert written(out, "c") == [[value] * 2] * 3
    assert "--unmasked beside --skip-bad: a photo" in refuses(root, out, *flags, "--skip-bad")


RED, BORDER = (128, 0, 0), (224, 224, 192)
PAINTED = [[(0, 0, 0), RED, BORDER], [(0, 0, 0)] * 3]
SMOOTH = [[(0, 0, 0), (120, 3, 0), (30, 0, 0)], [(63, 0, 0), (0, 0, 0), (0, 99, 0)]]
MAPPED = "--map 0=0,255=1,128=void --unknown"


@pytest.mark.parametrize(
    "mask, flags, expected, lost",
    [
        ([[0, 255, 128], [7, 0, 0]], f"{MAPPED} background", [[0, 1, 255], [0, 0, 0]], 1),
        (PAINTED, "--classes voc", [[0, 1, 255], [0, 0, 0]], 0),
        (SMOOTH, "--classes mine.txt --unknown nearest", [[0, 1, 0], [0, 0, 255]], 1),
    ],
)
def test_flags_reach_the_masks(mask, flags, expected, lost, root, tmp_path, converts, monkeypatch):
    add(root, "a", mask)
    (root / "masks" / "b.png").unlink()
    (root / "masks").rename(root / "drawn")
    write(tmp_path / "mine.txt", "background 0 0 0\naeroplane 128 0 0\n")
    monkeypatch.chdir(tmp_path)
    said = converts(root, "out", "--masks", "drawn", *flags.split())
    assert written(Path("out")) == expected
    assert ("  pixels of no class: 1 (a.png: 1)" in said) == lost


@pytest.mark.parametrize(
    "name, part", [("images/b.jpg", 5), ("masks/b.png", 5), ("masks/b.png", 10)]
)
def test_a_bad_image_stops_it_or_is_left_out(name, part, root, tmp_path, converts, refuses):
    write(root / "classes.txt", "background\ncat\n")
    add(root, "b", [[0, 0, 0], [0, 7, 0]])
    cut(root / name, part)
    why = "cannot be read as an image" if part < 10 else "value 7 is of no class"
    reason, out = f"{root / name}: {why}", tmp_path / "out"
    line = refuses(root, out)
    assert line.startswith(f"convert: {reason}")
    assert line.endswith("; --skip-bad leaves such images out")
    assert not out.exists() and not (tmp_path / ".out.new").exists()
    said = converts(root, out, "--skip-bad")
    assert "1 pairs" in said[0]
    assert any(line.startswith(f"  left out: cannot be used: 1 ({reason}") for line in said)
    assert {Path(name).stem for name in files_in(out)} == {"a", "classes", "converted"}
    (root / "images" / "a.jpg").unlink()
    line = refuses(root, out, "--skip-bad", "--force")
    assert line.startswith(f"convert: {root}: no image can be used; ")


@pytest.mark.parametrize("turn", range(2, 9))
@pytest.mark.parametrize("rows", [2, 3])
def test_masks_as_photos_are_stored_are_turned(turn, rows, root, tmp_path, converts, refuses):
    stored = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 0]], dtype=np.uint8)[:rows]
    Image.fromarray(stored).save(root / "masks" / "b.png")
    image = Image.fromarray(stored * 255).convert("RGB")
    image.save(root / "images" / "b.png", exif=turned_by(turn))
    (root / "images" / "b.jpg").unlink()
    if turn > 4 and rows == 2:
        assert "--turn-masks" in refuses(root, tmp_path / "out")
    else:
        doubt = "  in doubt: EXIF turns the photo, its mask is taken as upright: 1 (b)"
        assert doubt in converts(root, tmp_path / "out"), "the size does not tell"
    converts(root, tmp_path / "turned", "--turn-masks")
    mask = np.array(written(tmp_path / "turned", "b"))
    assert np.array_equal(mask * 255, read_image(root / "images" / "b.png")[..., 0])


def test_annotations_precede_folders_and_something_must_be_drawn(root, tmp_path, converts, refuses):
    photo(root / "c.jpg")
    labelme(root, "c.jpg", kind="rectangle", box=[[1, 1], [3, 2]])
    out = tmp_path / "out"
    assert converts(root, out)[0] == "LabelMe JSON: 1 pairs of photo and mask"
    assert written(out, "c") == DRAWN
    labelme(root, "c.jpg", box=[[9, 9], [12, 9], [12, 12]])
    line = refuses(root, out, "--force")
    assert line.startswith(f"convert: {root}: nothing is drawn in any photo; ")
    assert line.endswith("left out: shape without a pixel in its photo: c.jpg")
    said = converts(root, out, "--force", "--masks", "masks")
    assert said[0] == "photos and masks: 2 pairs of photo and mask"
    coco(root, "c.jpg", images=[], annotations=[], categories=[])
    refuses(root, out, "--force")  # a COCO file of nothing


@pytest.mark.parametrize(
    "source, flags, message",
    [
        ("my data", "--classes cat,,dog", "--classes cat,,dog: neither a file nor names that diff"),
        ("my data", "--classes void", "0 classes; a data set needs 2"),
        ("my data", "--map 0=0,255", "--map 0=0,255: expected VALUE=CLASS"),
        ("my data", "--map 0=256", "--map 0=256: expected VALUE=CLASS"),
        ("my data", "--map 0=0,0=1", "--map 0=0,0=1: expected VALUE=CLASS"),
        ("my data", "--annotations a.json", "a.json: No such file"),
        ("my data", "--images there", "there: no such file"),
        ("gone", "", "gone: no such file"),
        ("empty", "", "empty: no photo has a mask with its name;"),
        ("void", "--classes background,cat,dog", "as 255 in masks is void; see --map"),
    ],
)
def test_what_cannot_be_used_is_refused(source, flags, message, root, tmp_path, refuses):
    (tmp_path / "empty").mkdir()
    add(tmp_path / "void", "a", [[0, 0, 255], [0, 0, 255]])
    assert message in refuses(tmp_path / source, tmp_path / "out", *flags.split())
    assert not (tmp_path / "out").exists()


def test_without_out_colours_are_listed_alone(root, converts, in_process):
    assert "OUT is missing" in in_process("data/convert.py", root).stderr
    assert converts(root, "--list-colours")[-1].startswith("class 2 ")
