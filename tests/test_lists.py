"""Split lists of one's own data: which ids go where, what is said, and what is refused."""

import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from data import DataError
from data.lists import main, make_lists
from data.transforms import ResizeImage
from data.voc import VOCFolder, read_ids

HOME = Path(__file__).parent.parent


def own(root: Path, photos, masks) -> Path:
    """A folder with these files, all of them the same tiny picture."""
    for folder, names in (("JPEGImages", photos), ("SegmentationClass", masks)):
        (root / folder).mkdir(parents=True)
        for name in names:
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(root / folder / name, "PNG")
    return root


@pytest.fixture
def ten(tmp_path) -> Path:
    """Ten photos of several suffixes with their masks."""
    suffixes = ("jpg", "jpeg", "png", "JPG", "jpg", "jpg", "jpg", "jpg", "jpg", "jpg")
    photos = [f"pic {index}.{suffix}" for index, suffix in enumerate(suffixes)]
    return own(tmp_path / "own", photos, [f"pic {index}.png" for index in range(10)])


def lists_in(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "ImageSets" / "Segmentation").iterdir()}


@pytest.mark.parametrize("val, expected", [(0.2, 2), (0.5, 5), (0.01, 1), (0.99, 9), (0.25, 2)])
def test_every_pair_is_in_one_list(val, expected, ten):
    lists = make_lists(ten, val)
    assert sorted(lists.train + lists.val) == [f"pic {index}" for index in range(10)]
    assert len(lists.val) == expected
    assert read_ids(ten, "train") == lists.train == sorted(lists.train)
    assert read_ids(ten, "val") == lists.val == sorted(lists.val)
    assert len(VOCFolder(ten, "val", ResizeImage(32))) == expected
    assert set(lists_in(ten)) == {"train.txt", "val.txt"}


def test_the_seed_decides(ten):
    first = make_lists(ten, 0.5)
    written = lists_in(ten)
    assert make_lists(ten, 0.5, force=True) == first and lists_in(ten) == written
    assert len({tuple(make_lists(ten, 0.5, seed, force=True).val) for seed in range(5)}) > 1


def test_what_is_left_out_is_told_and_hidden_files_are_not(tmp_path):
    root = own(tmp_path, ["a.jpg", "b.jpg", "c.jpg", "d.tif.png"], ["a.png", "b.png", "e.png"])
    for name in (".DS_Store", "notes.txt", "c.gif"):
        (root / "JPEGImages" / name).touch()
    (root / "SegmentationClass" / "b.jpg").touch()
    lists = make_lists(root, 0.5)
    assert (len(lists.train), len(lists.val)) == (1, 1)
    assert lists.without_mask == ["c", "d.tif"] and lists.without_photo == ["e"]
    assert lists.others == ["JPEGImages/c.gif", "JPEGImages/notes.txt", "SegmentationClass/b.jpg"]


@pytest.mark.parametrize("there", [["train"], ["val"], ["train", "val"]])
def test_lists_that_are_there_stay_without_force(there, ten):
    folder = ten / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True)
    for name in there:
        (folder / f"{name}.txt").write_text("mine\n")
    before = lists_in(ten)
    with pytest.raises(DataError, match=re.escape(f"{folder / there[0]}.txt: is there already; --force replaces it")):
        make_lists(ten, 0.2)
    assert lists_in(ten) == before
    assert make_lists(ten, 0.2, force=True).val == read_ids(ten, "val")
    assert set(lists_in(ten)) == {"train.txt", "val.txt"}


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("old", [("train", "val"), ("val",)], ids=["both", "val alone"])
def test_however_it_ends_no_new_list_stands_beside_an_old_one(old, step, ten):
    make_lists(ten, 0.5)
    for name in {"train", "val"} - set(old):
        (ten / "ImageSets" / "Segmentation" / f"{name}.txt").unlink()
    before, real, left = lists_in(ten), os.replace, [step]

    def replace(source, target):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        real(source, target)

    with mock.patch("os.replace", replace), pytest.raises(KeyboardInterrupt):
        make_lists(ten, 0.5, seed=1, force=True)
    after = lists_in(ten)
    assert not set(after) - {"train.txt", "val.txt"}, "litter"
    assert "val.txt" not in after and (step == 2) == (after.get("train.txt") not in (None, before.get("train.txt")))


@pytest.mark.parametrize(
    "photos, masks, message",
    [
        (["a.jpg", "b.jpg"], ["a.png", "c.png"], "1 of 2 photos in JPEGImages have a mask of the same name"),
        (["a.jpg", "b.bmp"], ["a.png", "b.png"], "1 of 1 photos in JPEGImages have a mask"),
        ([], [], "0 of 0 photos in JPEGImages have a mask"),
        (["a.jpg", "b .jpg"], ["a.png", "b .png"], "the name 'b ' cannot stand in a list"),
        (["a.jpg", "b\nc.jpg"], ["a.png", "b\nc.png"], r"the name 'b\nc' cannot stand in a list"),
        (["a.jpg", "b\x85c.jpg"], ["a.png", "b\x85c.png"], r"the name 'b\x85c' cannot stand in a list"),
        (["a.jpg", "b\udcffc.jpg"], ["a.png", "b\udcffc.png"], r"the name 'b\udcffc' cannot stand in a list"),
        (["a.jpg", "b\\c.jpg"], ["a.png", "b\\c.png"], r"the name 'b\\c' cannot stand in a list"),
    ],
)
def test_a_folder_that_makes_no_lists_is_refused(photos, masks, message, tmp_path):
    root = own(tmp_path / "own", photos, masks)
    with pytest.raises(DataError, match=re.escape(f"{root}: {message}")) as error:
        make_lists(root, 0.2)
    assert len(str(error.value).splitlines()) == 1
    assert not (root / "ImageSets").exists()


def test_folders_that_are_not_there_are_named(tmp_path):
    (tmp_path / "JPEGImages").mkdir()
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'SegmentationClass'}: No such file or directory; ")):
        make_lists(tmp_path, 0.2)


def test_a_place_that_cannot_be_written_is_named(ten):
    (ten / "ImageSets").write_text("")
    with pytest.raises(DataError, match=re.escape(f"{ten / 'ImageSets'}") + ".*cannot be written"):
        make_lists(ten, 0.2)


def test_the_command_says_what_it_left_out_what_it_wrote_and_what_comes_next(tmp_path):
    root = own(tmp_path / "my data", ["a.jpg", "b.jpg", "c.jpg"], ["a.png", "b.png", "d.png"])
    command = [sys.executable, "-m", "data.voc", "--make-lists", str(root), "--val", "0.5"]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "  note: left out 1 photos without a mask: c",
        "  note: left out 1 masks without a photo: d",
        f"  note: no {root / 'classes.txt'} (a class name a line, background first): masks hold VOC's 21 classes",
        f"wrote {root / 'ImageSets' / 'Segmentation'}: train.txt 1, val.txt 1 images",
        f"next: python sample_features.py --data '{root}' --run runs/own",
    ]
    again = subprocess.run(command, cwd=HOME, capture_output=True, text=True)
    assert again.returncode == 2 and len(again.stderr.splitlines()) == 1
    assert again.stderr.startswith(f"data.voc: {root}") and "--force replaces it" in again.stderr


@pytest.mark.parametrize("flags", [("--val", "0"), ("--val", "1"), ("--val", "nan"), ("--seed", "-1"), ()])
def test_flags_that_mean_nothing_are_refused(flags, ten, capsys):
    given = ["data.voc", *(["--make-lists", str(ten), *flags] if flags else [])]
    with mock.patch.object(sys, "argv", given), pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and (flags[0] if flags else "--make-lists") in capsys.readouterr().err
    assert not (ten / "ImageSets").exists()
