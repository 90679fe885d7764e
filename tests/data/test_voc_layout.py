"""What a converted data set consists of: its photos, its lists, and what may be replaced by it."""

import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from data.image_files import read_image
from data.voc_files import LISTS, write_ids
from data.voc_layout import write_lists
from tests.data.conftest import add, files_in, lists_in, noise
from tests.data.formats import write


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("suffix, new", [(".JPEG", ".jpeg"), (".jfif", ".jpg"), (".TIF", ".png")])
def test_photos_are_linked_or_copied(links, suffix, new, root, tmp_path, converts, monkeypatch):
    if not links:
        monkeypatch.setattr("os.link", mock.Mock(side_effect=OSError))
    photo = root / "images" / f"a{suffix}"
    (root / "images" / "a.jpg").unlink()
    Image.fromarray(noise(2, 3, 3)).save(photo)
    converts(root, tmp_path / "out")
    there = tmp_path / "out" / "JPEGImages" / f"a{new}"
    assert np.array_equal(read_image(there), read_image(photo))
    assert photo.samefile(there) == (links and suffix != ".TIF")


FOLDERS = "train2017", "Valid", "test"
TRAIN, VAL, TEST = ([f"{folder}_a", f"{folder}_b"] for folder in FOLDERS)


@pytest.fixture
def whole(root, tmp_path) -> Path:
    """Three folders with photos of the same names, one of them alone in its folder."""
    for folder in FOLDERS:
        shutil.copytree(root, tmp_path / "whole" / folder)
    Image.new("RGB", (3, 2)).save(tmp_path / "whole" / "test" / "images" / "c.jpg")
    return tmp_path / "whole"


def test_folders_of_a_division_become_lists_which_new_images_join(whole, tmp_path, converts):
    out, again = tmp_path / "out", ("--unmasked", "void", "--force")
    assert converts(whole, out, *again)[-1].startswith("next: python visualize.py")
    assert (out / "JPEGImages" / "test_c.jpg").is_file(), "in no list, as all is void"
    assert lists_in(out) == {"train": TRAIN, "val": VAL, "test": TEST}
    mask = whole / "test" / "masks" / "b.png"
    good = mask.read_bytes()
    for content in (b"none", good):  # mended: new, though it is still in its list
        mask.write_bytes(content)
        converts(whole, out, "--skip-bad", "--force")
    assert lists_in(out)["test"] == TEST
    write_ids(out, "val", edited := [VAL[0], TRAIN[1]])
    for folder in ("Valid", "test"):
        add(whole / folder, "e")
    converts(whole, out, *again)
    expected = {"train": TRAIN, "val": [*edited, "Valid_e"], "test": [*TEST, "test_e"]}
    assert lists_in(out) == expected, "what was there before stays where the user has it"


BESIDE, UNUSED = "in no list", f"lists of {Path('source', LISTS)} not taken up"
OLD, OWN = "train_a train_b test_a", {"train": "train_a", "val": "train_b", "test": "test_a"}
PAIR, FIRST = {"train": "a", "val": "b"}, {"train": "a", "val": "b gone", "other": "c", "test": ""}
MORE = {"train": "a", "val": "c d train_f", "test": "e e"}
MERGED = PAIR | {"val": "b d train_f", "test": "e"}
LISTED = [  # ids and those of before; lists of before, of the source, and then; what is said
    ("train_a more_a test_a", "", {}, {}, {"test": "test_a"}, {}),  # no folder validates
    ("more_a test_a", "", {}, {}, {}, {}),
    ("train_a more_a", "", {}, {}, {}, {}),
    (f"{OLD} train_e", OLD, OWN, {}, OWN, {BESIDE: ["train_e"]}),  # which waits for --add
    (f"{OLD} test_e", OLD, OWN, {}, OWN | {"test": "test_a test_e"}, {}),
    ("a b c", "", {}, FIRST, PAIR, {BESIDE: ["c"]}),
    ("a b c d e train_f", "a b c", PAIR, MORE, MERGED, {BESIDE: ["c"]}),
    ("a e", "", {}, {"train": "a", "test": "e"}, {"test": "e"}, {UNUSED: ["train.txt"]}),
    ("a e g", "a e", {"test": "e"}, {"train": "a g"}, {"test": "e"}, {UNUSED: ["train.txt"]}),
]


@pytest.mark.parametrize("ids, old, kept, told, then, said", LISTED)
def test_lists_are_the_sources_or_folders(ids, old, kept, told, then, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("out", LISTS).mkdir(parents=True)
    for root, lists in (("out", kept), ("source", told)):
        for name, members in lists.items():
            write_ids(Path(root), name, members.split())
    assert write_lists(ids.split(), old.split(), Path("out"), Path("source")) == said
    assert lists_in(Path("out")) == {name: members.split() for name, members in then.items()}


def test_a_result_is_replaced_by_force_once_the_new_one_is_whole(root, tmp_path, converts, refuses):
    out = tmp_path / "out"
    converts(root, out)
    (out / ".DS_Store").touch()
    before = files_in(out)
    for name in ("classes.txt", "SegmentationClass/a.png"):
        (out / name).write_bytes(before[name] + b"\n")
        message = f"out: has changed since it was made, and that would be lost: {Path(name).name};"
        assert message in refuses(root, out, "--force")
        (out / name).unlink()
        assert message in refuses(root, out, "--force")
        (out / name).write_bytes(before[name])
    for content in (b"{", b"[]", b'{"source": 0}', b'{"made": null}'):
        (out / "converted.json").write_bytes(content)
        assert "converted.json: cannot be read (" in refuses(root, out, "--force")
    (out / "converted.json").write_bytes(before["converted.json"])
    (out / "SegmentationClass" / "._a.png").write_bytes(b"what a Mac leaves")
    assert "--force replaces it" in refuses(root, out)
    (root / "masks" / "b.png").write_bytes(b"no mask")
    refuses(root, out, "--force")
    (out / "SegmentationClass" / "._a.png").unlink()
    assert files_in(out) == before
    (root / "masks" / "b.png").unlink()
    add(root, "c", [[0, 1, 0], [0, 0, 0]])
    add(root, "a", [[0, 1, 0], [0, 0, 1]])
    write_ids(out, "train", "ab")
    said = converts(root, out, "--force")
    assert said[-1] == f"next: python -m data.lists {out} --add"
    changes = {"new": "c", "gone": "b", "changed": "a"}
    assert {f"  {what} since the earlier result: 1 ({changes[what]})" for what in changes} < {*said}
    assert sorted(path.name for path in (out / "JPEGImages").iterdir()) == ["a.jpg", "c.jpg"]
    assert converts(root, out, "--force")[-1] == said[-1], "c is in no list"
    (root / "masks" / "c.png").unlink()
    assert converts(root, out, "--force")[-1].endswith("--add"), "what is gone leaves the lists"
    write(out / "thesis.txt", "mine")
    refuses(root, out, "--force")
    assert (out / "thesis.txt").is_file()


@pytest.mark.parametrize("there", ["out/thesis.txt", "out/classes.txt", "out", "my data/out/a"])
def test_other_data_stays_and_so_does_the_source(there, root, tmp_path, refuses):
    write(tmp_path / there, "mine")
    out = root / "out" if "my data" in there else tmp_path / "out"
    line = refuses(root, out, "--force")
    assert ("lies in SOURCE" if out.parent == root else "move it away") in line
    assert (tmp_path / there).read_text() == "mine"
