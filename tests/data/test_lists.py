"""Split lists of one's own data: which ids go where, what is reported, and what is refused."""

import os
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from data import DataError
from data.lists import main, make_lists


def own(root: Path, photos: list[str], masks: list[str]) -> Path:
    """A folder with these files; only their names matter."""
    for folder, names in (("JPEGImages", photos), ("SegmentationClass", masks)):
        (root / folder).mkdir(parents=True)
        for name in names:
            (root / folder / name).touch()
    return root


@pytest.fixture
def ten(tmp_path) -> Path:
    """Ten photos of several suffixes with their masks."""
    suffixes = ("jpg", "jpeg", "png", "JPG", *["jpg"] * 6)
    photos = [f"pic {index}.{suffix}" for index, suffix in enumerate(suffixes)]
    return own(tmp_path / "own", photos, [f"pic {index}.png" for index in range(10)])


def lists_in(root: Path) -> dict[str, list[str]]:
    folder = root / "ImageSets" / "Segmentation"
    return {path.name: path.read_text("utf-8").splitlines() for path in folder.iterdir()}


@pytest.mark.parametrize("val, expected", [(0.2, 2), (0.5, 5), (0.01, 1), (0.99, 9), (0.25, 2)])
def test_every_pair_is_in_one_list(val, expected, ten):
    lists = make_lists(ten, val)
    assert sorted(lists.train + lists.val) == [f"pic {index}" for index in range(10)]
    assert len(lists.val) == expected
    assert lists_in(ten) == {"train.txt": sorted(lists.train), "val.txt": sorted(lists.val)}


def test_the_seed_decides(ten):
    first = make_lists(ten, 0.5)
    assert make_lists(ten, 0.5, force=True) == first
    assert len({tuple(make_lists(ten, 0.5, seed, force=True).val) for seed in range(5)}) > 1


def test_unpaired_and_other_files_are_listed_but_not_hidden_ones(tmp_path):
    photos = ["a.jpg", "b.jpg", "c.jpg", "d.tif.png", ".DS_Store", "notes.txt", "c.gif"]
    lists = make_lists(own(tmp_path, photos, ["a.png", "b.png", "e.png", "b.jpg"]), 0.5)
    assert sorted(lists.train + lists.val) == ["a", "b"]
    assert lists.without_mask == ["c", "d.tif"] and lists.without_photo == ["e"]
    others = ["JPEGImages/c.gif", "JPEGImages/notes.txt", "SegmentationClass/b.jpg"]
    assert lists.others == others


@pytest.mark.parametrize("there", [["train"], ["val"], ["train", "val"]])
def test_existing_lists_stay_without_force(there, ten):
    folder = ten / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True)
    for name in there:
        (folder / f"{name}.txt").write_text("mine\n")
    message = f"{folder / there[0]}.txt: is there already; --force replaces it"
    with pytest.raises(DataError, match=re.escape(message)):
        make_lists(ten, 0.2)
    assert lists_in(ten) == {f"{name}.txt": ["mine"] for name in there}
    lists = make_lists(ten, 0.2, force=True)
    assert lists_in(ten) == {"train.txt": lists.train, "val.txt": lists.val}


@pytest.mark.parametrize("step", [1, 2])
def test_a_crash_never_leaves_a_new_list_beside_an_old_one(step, ten, monkeypatch):
    old = make_lists(ten, 0.5)
    replace, calls = os.replace, []

    def crash(source, target):
        calls.append(target)
        if len(calls) == step:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        make_lists(ten, 0.5, seed=1, force=True)
    after = lists_in(ten)
    assert set(after) == {"train.txt"}
    assert (after["train.txt"] == old.train) == (step == 1)


@pytest.mark.parametrize(
    "photos, masks, message",
    [
        (["a.jpg", "b.jpg"], ["a.png", "c.png"], "1 of 2 photos in JPEGImages have a mask of the"),
        (["a.jpg", "b.bmp"], ["a.png", "b.png"], "1 of 1 photos in JPEGImages have a mask"),
        ([], [], "0 of 0 photos in JPEGImages have a mask"),
        *(
            (["a.jpg", f"{name}.jpg"], ["a.png", f"{name}.png"], f"the name {name!r} cannot stand")
            for name in ("b ", "b\nc", "b\x85c", "b\udcffc", "b\\c")
        ),
    ],
)
def test_unusable_files_are_refused(photos, masks, message, tmp_path):
    root = own(tmp_path / "own", photos, masks)
    with pytest.raises(DataError, match=re.escape(f"{root}: {message}")) as error:
        make_lists(root, 0.2)
    assert len(str(error.value).splitlines()) == 1
    assert not (root / "ImageSets").exists()


def test_missing_folders_are_named(tmp_path):
    (tmp_path / "JPEGImages").mkdir()
    message = f"{tmp_path / 'SegmentationClass'}: No such file or directory; "
    with pytest.raises(DataError, match=re.escape(message)):
        make_lists(tmp_path, 0.2)


def test_a_place_that_cannot_be_written_is_named(ten):
    (ten / "ImageSets").write_text("")
    with pytest.raises(DataError, match=re.escape(f"{ten / 'ImageSets'}") + ".*cannot be written"):
        make_lists(ten, 0.2)


def run(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["lists.py", *map(str, arguments)])
    return main()


def test_the_command_reports_what_it_left_out_wrote_and_what_comes_next(
    tmp_path, monkeypatch, capsys
):
    photos = ["a.jpg", "b.jpg", "c.jpg", "notes.txt"]
    root = own(tmp_path / "my data", photos, ["a.png", "b.png", "d.png"])
    (root / "classes.txt").write_text("nothing\nthing\n")
    for name in "ab":
        Image.new("RGB", (4, 3)).save(root / "JPEGImages" / f"{name}.jpg")
        Image.new("L", (4, 3)).save(root / "SegmentationClass" / f"{name}.png")
    assert run(monkeypatch, root, "--val", "0.5") == 0
    assert capsys.readouterr().out.splitlines() == [
        "  note: left out 1 photos without a mask: c",
        "  note: left out 1 masks without a photo: d",
        "  note: left out 1 files that are neither photo nor mask: JPEGImages/notes.txt",
        "  note: no pixel of thing in train",
        "  note: no pixel of thing in val",
        f"wrote {root / 'ImageSets' / 'Segmentation'}: train.txt 1, val.txt 1 images",
        f"next: python sample_features.py --data '{root}' --run runs/own",
    ]
    assert run(monkeypatch, root) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"data.lists: {root}") and len(error.splitlines()) == 1
    assert run(monkeypatch, root, "--force", "--seed", "1") == 0


def test_binary_masks_of_0_and_255_are_refused(tmp_path, monkeypatch, capsys):
    root = own(tmp_path, ["a.jpg", "b.jpg"], ["a.png", "b.png"])
    for name in "ab":
        mask = Image.new("L", (4, 3))
        mask.putpixel((1, 1), 255)
        Image.new("RGB", (4, 3)).save(root / "JPEGImages" / f"{name}.jpg")
        mask.save(root / "SegmentationClass" / f"{name}.png")
    assert run(monkeypatch, root) == 2
    message = "hold only 0 and 255, and 255 is void here: save the object as 1"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flag, value", [("--val", "0"), ("--val", "nan"), ("--seed", "-1")])
def test_flags_out_of_range_are_refused(flag, value, ten, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, ten, flag, value)
    assert f"argument {flag}: {value!r} is not a" in capsys.readouterr().err
    assert not (ten / "ImageSets").exists()
