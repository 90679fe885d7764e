"""The command that brings data into the layout: what it writes, says, leaves out and refuses."""

import shutil
import sys
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from data.classes import read_classes
from data.convert import main
from data.image_files import EXIF_ORIENTATION, read_image, read_mask
from models.run.runtime import run_script
from tests.data.formats import write

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


def turned_by(turn: int) -> Image.Exif:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = turn
    return exif


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def written(root: Path) -> list:
    """The mask of the photo a in a result."""
    return read_mask(root / "SegmentationClass" / "a.png", read_classes(root)).tolist()


def test_the_command_writes_the_layout_and_says_what_it_holds(root, tmp_path, run):
    Image.new("RGB", (3, 2)).save(root / "images" / "c.jpg")
    add(root, "d", np.full((2, 3), 255))
    before, out = files(root), tmp_path / "out"
    assert run(root, out, "--classes", "background,lane 2 3") == (
        0,
        [
            "photos and masks: 2 pairs of photo and mask",
            "  left out: in no pair: 1 (images/c.jpg)",
            "  left out: no labelled pixel: 1 (d)",
            f"wrote {out}: photos, masks and 2 classes in classes.txt",
            f"next: python -m data.lists {out}",
        ],
    )
    assert files(root) == before
    assert read_classes(out).names == ("background", "lane 2 3")
    assert written(out) == MASK and {Path(name).stem for name in files(out)} >= {*"ab"}
    assert not [name for name in files(out) if Path(name).stem in "cd"]


@pytest.mark.parametrize("unmasked, value", [("void", 255), ("background", 0)])
def test_photos_without_a_mask_may_be_of_one_value(unmasked, value, root, tmp_path, run):
    Image.new("RGB", (3, 2)).save(root / "images" / "c.jpg", exif=turned_by(6))
    run(root, tmp_path / "out", "--unmasked", "leave-out", "--classes", "wall,door")
    assert {Path(name).stem for name in files(tmp_path / "out" / "JPEGImages")} == {*"ab"}
    flags = ["--unmasked", unmasked, "--classes", "wall,door", "--force"]
    code, lines = run(root, tmp_path / "out", *flags)
    assert code == 0 and "3 pairs" in lines[0]
    what = "wall" if value == 0 else "void"
    assert f"  without a mask, so {what} everywhere: 1 (c)" in lines
    mask = read_mask(tmp_path / "out" / "SegmentationClass" / "c.png", read_classes(root))
    assert mask.tolist() == [[value] * 2] * 3
    code, lines = run(root, tmp_path / "out", *flags, "--skip-bad")
    assert code == 2 and len(lines) == 1 and "--unmasked beside --skip-bad: a photo" in lines[0]


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize(
    "suffix, placed", [(".JPEG", ".jpeg"), (".jfif", ".jpg"), (".TIF", ".png")]
)
def test_photos_are_linked_where_they_can_be_and_never_lose(
    links, suffix, placed, root, tmp_path, run, monkeypatch
):
    if not links:
        monkeypatch.setattr("os.link", mock.Mock(side_effect=OSError))
    photo = root / "images" / f"a{suffix}"
    (root / "images" / "a.jpg").unlink()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photo)
    assert run(root, tmp_path / "out")[0] == 0
    there = tmp_path / "out" / "JPEGImages" / f"a{placed}"
    assert np.array_equal(read_image(there), read_image(photo))
    assert photo.samefile(there) == (links and suffix != ".TIF")


RED, BORDER = (128, 0, 0), (224, 224, 192)
PAINTED = [[(0, 0, 0), RED, BORDER], [(0, 0, 0)] * 3]
SMOOTH = [[(0, 0, 0), (120, 3, 0), (30, 0, 0)], [(63, 0, 0), (0, 0, 0), (0, 99, 0)]]
MAPPED = "--masks drawn --map 0=0,255=1,128=void --unknown"


@pytest.mark.parametrize(
    "mask, flags, expected, lost",
    [
        ([[0, 255, 128], [7, 0, 0]], f"{MAPPED} background", [[0, 1, 255], [0, 0, 0]], 1),
        (PAINTED, "--classes mine.txt", [[0, 1, 255], [0, 0, 0]], 0),
        (PAINTED, "--classes voc", [[0, 1, 255], [0, 0, 0]], 0),
        (SMOOTH, "--classes mine.txt --unknown nearest", [[0, 1, 0], [0, 0, 255]], 1),
    ],
)
def test_flags_reach_the_masks(mask, flags, expected, lost, root, tmp_path, run, monkeypatch):
    add(root, "a", mask)
    (root / "masks" / "b.png").unlink()
    if "drawn" in flags:
        (root / "masks").rename(root / "drawn")
    write(tmp_path / "mine.txt", "background 0 0 0\naeroplane 128 0 0\n")
    monkeypatch.chdir(tmp_path)
    code, lines = run(root, tmp_path / "out", *flags.split())
    assert code == 0 and written(tmp_path / "out") == expected
    assert ("  pixels of no class: 1 (a.png: 1)" in lines) == lost


def damaged(root: Path, name: str = "images/b.jpg") -> str:
    (root / name).write_bytes((root / name).read_bytes()[:40])
    return f"{root / name}: cannot be read as an image"


damaged_mask = partial(damaged, name="masks/b.png")


def turned(root: Path) -> str:
    """Upright the photo is 2x3; its mask is as on disk."""
    Image.new("RGB", (3, 2)).save(root / "images" / "b.jpg", exif=turned_by(6))
    return f"{root / 'masks' / 'b.png'}: the mask is 3x2 but its image b.jpg is 2x3; EXIF turns"


def no_class(root: Path) -> str:
    write(root / "classes.txt", "background\ncat\n")
    add(root, "b", [[0, 0, 0], [0, 7, 0]])
    return f"{root / 'masks' / 'b.png'}: value 7 is of no class"


@pytest.mark.parametrize("spoil", [damaged, damaged_mask, turned, no_class])
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
    (root / "images" / "a.jpg").unlink()
    code, lines = run(root, out, "--skip-bad", "--force")
    assert code == 2 and lines[0].startswith(f"convert: {root}: no image can be used; ")


def test_folders_of_a_division_become_lists(root, tmp_path, run):
    """Photos of one name are told apart by them."""
    whole = tmp_path / "whole"
    for split in ("train2017", "Valid", "test"):
        (whole / split).mkdir(parents=True)
        for name in ("images", "masks"):
            shutil.copytree(root / name, whole / split / name)
    Image.new("RGB", (3, 2)).save(whole / "test" / "images" / "c.jpg")
    code, lines = run(whole, tmp_path / "out", "--unmasked", "void")
    assert code == 0 and lines[-1].startswith("next: python visualize.py")
    assert (tmp_path / "out" / "JPEGImages" / "test_c.jpg").is_file(), "in no list, as all is void"
    lists = tmp_path / "out" / "ImageSets" / "Segmentation"
    assert {path.stem: path.read_text().split() for path in lists.iterdir()} == {
        "train": ["train2017_a", "train2017_b"],
        "val": ["Valid_a", "Valid_b"],
        "test": ["test_a", "test_b"],
    }
    shutil.copy(whole / "Valid" / "images" / "a.jpg", whole / "Valid" / "images" / "d.jpg")
    shutil.copy(whole / "Valid" / "masks" / "a.png", whole / "Valid" / "masks" / "d.png")
    run(whole, tmp_path / "out", "--unmasked", "void", "--force")
    assert (lists / "val.txt").read_text().split() == ["Valid_a", "Valid_b", "Valid_d"]
    for listed in ("Valid_a", "Valid_a test_b"):  # edited by hand, then divided anew
        (lists / "val.txt").write_text(listed.replace(" ", "\n"))
        run(whole, tmp_path / "out", "--unmasked", "void", "--force")
        assert (lists / "val.txt").read_text().split() == listed.split()
    (lists / "val.txt").write_text("Valid_a\nValid_b\n")
    good = (whole / "test" / "masks" / "b.png").read_bytes()
    for content in (b"none", good):  # mended: new, though it is still in its list
        (whole / "test" / "masks" / "b.png").write_bytes(content)
        run(whole, tmp_path / "out", "--skip-bad", "--force")
    assert (lists / "test.txt").read_text().split() == ["test_a", "test_b"]
    (whole / "Valid").rename(whole / "more")  # in no list
    code, lines = run(whole, tmp_path / "other")
    other = tmp_path / "other" / "ImageSets" / "Segmentation"
    assert lines[-1].startswith("next: python -m data.lists"), "which keeps the test images"
    assert [path.name for path in other.iterdir()] == ["test.txt"]
    shutil.rmtree(whole / "test")
    run(whole, tmp_path / "train")
    assert not (tmp_path / "train" / "ImageSets").exists()


def test_lists_of_the_source_are_kept(root, tmp_path, run):
    (root / "images").rename(root / "JPEGImages")
    (root / "masks").rename(root / "SegmentationClass")

    def more(name: str) -> None:
        for folder, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
            shutil.copy(root / folder / f"a.{suffix}", root / folder / f"{name}.{suffix}")

    for name, ids in (("train", "a"), ("val", "b gone"), ("other", "c"), ("test", "")):
        write(root / "ImageSets" / "Segmentation" / f"{name}.txt", ids.replace(" ", "\n"))
    more("c")
    code, lines = run(root, tmp_path / "out")
    assert code == 0 and lines[-1].endswith("--add") and "  in no list: 1 (c)" in lines
    lists = tmp_path / "out" / "ImageSets" / "Segmentation"
    assert {path.stem: path.read_text() for path in lists.iterdir()} == {
        "train": "a\n",
        "val": "b\n",
    }
    write(root / "ImageSets" / "Segmentation" / "val.txt", "b\nc\nd\n")
    more("d")
    run(root, tmp_path / "out", "--force")
    assert (lists / "val.txt").read_text() == "b\nd\n", "c was there before"
    (root / "ImageSets" / "Segmentation" / "val.txt").unlink()
    code, lines = run(root, tmp_path / "other")
    assert lines[-1].startswith("next: python -m data.lists") and not lines[-1].endswith("--add")


@pytest.mark.parametrize("turn", range(2, 9))
@pytest.mark.parametrize("rows", [2, 3])
def test_masks_as_photos_are_stored_are_turned_with_these(turn, rows, root, tmp_path, run):
    stored = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 0]], dtype=np.uint8)[:rows]
    Image.fromarray(stored).save(root / "masks" / "b.png")
    photo = Image.fromarray(stored * 255).convert("RGB")
    photo.save(root / "images" / "b.png", exif=turned_by(turn))
    (root / "images" / "b.jpg").unlink()
    code, lines = run(root, tmp_path / "out")
    is_seen = turn > 4 and rows == 2
    assert code == 2 * is_seen and ("--turn-masks" in lines[-1]) == is_seen
    doubt = "  in doubt: EXIF turns the photo, its mask is taken as upright: 1 (b)"
    assert (doubt in lines) == (not is_seen), "the size does not tell"
    assert run(root, tmp_path / "turned", "--turn-masks")[0] == 0
    mask = np.array(Image.open(tmp_path / "turned" / "SegmentationClass" / "b.png"))
    assert np.array_equal(mask * 255, read_image(root / "images" / "b.png")[..., 0])


def test_a_result_is_replaced_by_force_alone_and_when_the_new_one_is_whole(root, tmp_path, run):
    out = tmp_path / "out"
    run(root, out)
    (out / ".DS_Store").touch()
    before = files(out)
    for name in ("classes.txt", "SegmentationClass/a.png"):
        content = (out / name).read_bytes()
        (out / name).write_bytes(content + b"\n")
        code, lines = run(root, out, "--force")
        assert code == 2 and "out: has changed since it was made, and that wou" in lines[0]
        assert Path(name).name in lines[0]
        (out / name).write_bytes(content)
    code, lines = run(root, out)
    assert (code, len(lines)) == (2, 1) and "--force replaces it" in lines[0]
    (root / "masks" / "b.png").write_bytes(b"no mask")
    assert run(root, out, "--force")[0] == 2 and files(out) == before
    (root / "masks" / "b.png").unlink()
    add(root, "c", [[0, 1, 0], [0, 0, 0]])
    add(root, "a", [[0, 1, 0], [0, 0, 1]])
    lists = write(out / "ImageSets" / "Segmentation" / "train.txt", "a\nb\n")
    code, lines = run(root, out, "--force")
    assert code == 0 and lists.read_text() == "a\nb\n" and "data.lists" in lines[-1]
    assert lines[-1].endswith("--add")
    what = [line.partition(" since the earlier result: 1 ") for line in lines]
    changes = {before.strip(): ids for before, found, ids in what if found}
    assert changes == {"new": "(c)", "gone": "(b)", "changed": "(a)"}
    assert sorted(path.name for path in (out / "JPEGImages").iterdir()) == ["a.jpg", "c.jpg"]
    (root / "masks" / "c.png").unlink()
    assert run(root, out, "--force")[1][-1].endswith("--add"), "what is gone leaves the lists, too"
    write(out / "thesis.txt", "mine")
    assert run(root, out, "--force")[0] == 2 and (out / "thesis.txt").is_file()


@pytest.mark.parametrize("there", ["out/thesis.txt", "out/classes.txt", "out", "my data/out/a"])
def test_other_data_stays_and_so_does_the_source(there, root, tmp_path, run):
    write(tmp_path / there, "mine")
    out = root / "out" if "my data" in there else tmp_path / "out"
    code, lines = run(root, out, "--force")
    assert code == 2 and ("lies in SOURCE" if out.parent == root else "move it away") in lines[0]
    assert (tmp_path / there).read_text() == "mine"


def test_annotations_are_recognised_before_folders_and_something_must_be_drawn(root, tmp_path, run):
    shape = {"label": "cat", "points": [[0, 0], [0, 1.5]], "shape_type": "rectangle"}
    content = {"shapes": [shape], "imagePath": "a.jpg", "imageHeight": 2, "imageWidth": 3}
    write(root / "a.json", content)
    out = tmp_path / "out"
    _, lines = run(root, out)
    assert lines[0] == "LabelMe JSON: 1 pairs of photo and mask"
    assert written(out) == [[1, 0, 0], [1, 0, 0]]
    shape["points"] = [[9, 9], [12, 12]]
    write(root / "a.json", content)
    code, lines = run(root, out, "--force")
    assert code == 2 and lines[0].startswith(f"convert: {root}: nothing is drawn in any photo; ")
    assert lines[0].endswith("left out: shape without a pixel in its photo: a.jpg")
    _, lines = run(root, out, "--force", "--masks", "masks")
    assert lines[0].startswith("photos and masks: 2 pairs")
    write(root / "a.json", {"images": [], "annotations": [], "categories": []})
    code, lines = run(root, out, "--force")
    assert code == 2 and len(lines) == 1, "a COCO file of nothing"


@pytest.mark.parametrize(
    "source, flags, message",
    [
        ("my data", "--classes cat,,dog", "--classes cat,,dog: neither a file nor names that diff"),
        ("my data", "--map 0=0,255", "--map 0=0,255: expected VALUE=CLASS"),
        ("my data", "--map 0=256", "--map 0=256: expected VALUE=CLASS"),
        ("my data", "--map 0=0,0=1", "--map 0=0,0=1: expected VALUE=CLASS"),
        ("my data", "--annotations a.json", "a.json: No such file"),
        ("my data", "--images there", "there: no such folder"),
        ("gone", "", "gone: no such folder"),
        ("empty", "", "empty: no photo has a mask with its name;"),
    ],
)
def test_what_cannot_be_used_is_refused(source, flags, message, root, tmp_path, run):
    (tmp_path / "empty").mkdir()
    code, lines = run(tmp_path / source, tmp_path / "out", *flags.split())
    assert code == 2 and message in lines[-1] and not (tmp_path / "out").exists()


def test_masks_of_nothing_but_void_are_refused(root, tmp_path, run):
    add(root, "b", [[0, 0, 255], [0, 0, 255]])
    add(root, "a", [[0, 0, 0], [0, 0, 255]])
    code, lines = run(root, tmp_path / "out", "--classes", "background,cat,dog")
    assert (
        code == 2
        and "nothing is drawn in any photo, as 255 in masks is void; see --map" in lines[0]
    )


def test_without_out_colours_are_listed_alone(root, run):
    code, lines = run(root)
    assert code == 2 and "OUT is missing" in lines[-1]
    code, lines = run(root, "--list-colours")
    assert code == 0 and lines[-1].startswith("class 2 ")
