"""Lists of one's own data: which ids go where, what is reported, and what is refused."""

import os
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data import UserError
from data.classes import VOID
from data.lists import divide, make_lists
from data.voc_files import LISTS, write_ids
from tests.data.conftest import VOC_FOLDERS, add, files_in, lists_in


def labelled(root: Path, masks: dict[str, list[int]], pixels: int = 2) -> Path:
    """Photos and masks of these ids, of one row, and four classes; what is not given is void."""
    for name, labels in masks.items():
        add(root, name, [labels + [VOID] * (pixels - len(labels))], VOC_FOLDERS)
    (root / "classes.txt").write_text("ground\ncat\ndog\nbird\n")
    return root


IDS = [f"pic {index}" for index in range(10)]


@pytest.fixture
def ten(tmp_path) -> Path:
    """Ten photos of several suffixes with their masks."""
    root = labelled(tmp_path / "own", dict.fromkeys(IDS, [0, 1]))
    for image_id, suffix in zip(IDS, (".jpeg", ".png", ".JPG")):
        photo = root / "JPEGImages" / f"{image_id}.jpg"
        photo.rename(photo.with_suffix(suffix))
    return root


@pytest.mark.parametrize(
    "val, test, sizes",
    [(0, 0, [1]), (0.99, 0, [1, 9]), (0.2, 0.1, [7, 2, 1]), (0.98, 0.01, [1, 8, 1])],
)
def test_every_pair_is_in_one_list(val, test, sizes, ten):
    for image_id in IDS[sum(sizes) :]:
        (ten / "SegmentationClass" / f"{image_id}.png").unlink()
    lists = make_lists(ten, val, test)
    assert sorted(sum(lists.values(), [])) == IDS[: sum(sizes)]
    assert [len(ids) for ids in lists.values()] == sizes
    assert lists_in(ten) == lists == {name: sorted(ids) for name, ids in lists.items()}
    assert list(lists) == ["train", "val", "test"][: len(sizes)]


@given(st.lists(st.sampled_from("abcdefghij"), min_size=3, max_size=40), st.booleans(), st.data())
def test_groups_stay_whole_and_lists_get_what_they_should(groups, alone, data):
    images = len(groups)
    groups = [f"{index:02}" for index in range(images)] if alone else groups
    cuts = data.draw(st.sets(st.integers(1, images - 1), max_size=2))
    sizes = np.diff([0, *sorted(cuts), images]).tolist()
    holds = np.random.default_rng(data.draw(st.integers(0, 99))).random((images, 4)) < 0.3
    places = divide(holds, groups, sizes, seed=0)
    assert np.array_equal(places, divide(holds, groups, sizes, seed=0))
    assert len({*zip(groups, places)}) == len(set(groups)), "a group is in two lists"
    counts = np.bincount(places, minlength=len(sizes))
    assert (counts < np.add(sizes, max(Counter(groups).values()))).all()
    assert counts.all() or len(set(groups)) < len(sizes)


@pytest.mark.parametrize("seed", range(5))
def test_classes_are_in_all_lists_by_their_shares_and_rare_ones_too(seed):
    holds = np.zeros((40, 4), dtype=bool)
    holds[:, 0] = True
    for label, images in ((1, 2), (2, 3), (3, 10)):
        holds[10 * label : 10 * label + images, label] = True
    places = divide(holds, list(map(str, range(40))), [32, 8], seed)
    found = np.stack([holds[places == place].sum(0) for place in range(2)])
    assert found[:, [0, 3]].tolist() == [[32, 8], [8, 2]] and found.all()


def test_frames_of_a_video_stay_in_one_list_and_new_ones_join_them(tmp_path, capsys):
    videos = [f"{name}_{take}" for name in ("walk", "run") for take in range(5)]

    def divided(frame: int, *shares: float, **how) -> dict[str, int]:
        """The sizes of the lists, once each video has one more frame."""
        labelled(tmp_path, {f"{video}_{frame}": [0, 1] for video in videos})
        make_lists(tmp_path, *shares, **how)
        lists = {path.stem: path.read_text().split() for path in (tmp_path / LISTS).glob("*.txt")}
        names = [{image_id.rpartition("_")[0] for image_id in ids} for ids in lists.values()]
        assert sum(map(len, names)) == len(set().union(*names)), "a video is in two lists"
        return {name: len(ids) for name, ids in lists.items()}

    older = [f"{video}_{frame}" for video in videos for frame in (0, 1)]
    labelled(tmp_path, dict.fromkeys(["alone", *older], [0, 1]))
    assert divided(2, 0.2, 0.1, group_by="_") == {"train": 22, "val": 6, "test": 3}
    assert sum(divided(3, 0.2, seed=1, add=True).values()) == 41, "--group-by is remembered"
    for frame in (4, 5):
        assert divided(frame, 0.2, force=True)["test"] == 4
        words = f"test.txt stays as it is; its images and their groups ({frame + 1}) stay out"
        assert words in capsys.readouterr().out
    (tmp_path / LISTS / "test.txt").unlink()
    make_lists(tmp_path, 0.3, force=True)
    assert "group-by" not in lists_in(tmp_path), "no list of before stays"


def test_new_images_join_the_lists_and_the_others_stay_in_theirs(tmp_path, capsys):
    old = {f"walk_{index}": [0, 1 + index % 3] for index in range(10)}
    new = {f"walk_{20 + index}": [0, 1 + index // 4] for index in range(15)}  # three of the last
    before = make_lists(labelled(tmp_path, old), 0.3, 0.1, seed=5)
    labelled(tmp_path, new | {"walk_3": [3, 3]})  # a new mask
    (tmp_path / "classes.txt").write_text("ground\ncat\ndog\nbird\nfish\n")
    gone = before["train"][0]
    (tmp_path / "SegmentationClass" / f"{gone}.png").unlink()
    after = make_lists(tmp_path, 0.2, add=True)
    assert after == lists_in(tmp_path) and [*map(len, after.values())] == [15, 7, 2]
    assert all({*before[name]} - {gone} <= {*after[name]} for name in before)
    assert all({*list(new)[12:]} & {*ids} for ids in after.values()), "the rare class is in each"
    assert f"no longer in the lists: 1 ({gone})" in capsys.readouterr().out
    assert make_lists(tmp_path, 0.2, seed=1, add=True) == after


@pytest.mark.parametrize("there, val", [("train", 0.2), ("val", 0.2), ("val", 0)])
def test_lists_of_before_are_not_mixed_with_new_ones(there, val, ten):
    """Without a share that validates, too, the images of val.txt would train."""
    write_ids(ten, there, ["without a mask"])
    with pytest.raises(UserError, match=f"{there}.txt: is there already; --add brings new"):
        make_lists(ten, val)
    assert lists_in(ten) == {there: ["without a mask"]}
    lists = make_lists(ten, val, force=True)
    assert lists_in(ten) == lists and lists.keys() == ({"train", "val"} if val else {"train"})


def test_a_test_list_that_is_there_is_kept(ten):
    write_ids(ten, "test", tested := [*IDS[::-2], "without a photo"])
    lists = make_lists(ten, 0.2)
    assert [*map(len, lists.values())] == [4, 1] and lists_in(ten) == lists | {"test": tested}
    assert sorted(sum(lists.values(), [])) == IDS[::2]
    assert len(make_lists(ten, 0.2, test=0.1, force=True)["test"]) == 1
    write_ids(ten, "test", official := ["no mask of 1", "no mask of 2"])
    lists = make_lists(labelled(ten, {"new": [0, 1]}), 0.2, add=True)
    assert lists_in(ten) == lists | {"test": official}
    assert sorted(sum(lists.values(), [])) == ["new", *IDS]


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_crash_never_leaves_a_new_list_beside_an_old_one(step, ten, monkeypatch):
    old, effects = make_lists(ten, 0.3, 0.3), [mock.DEFAULT] * (step - 1) + [KeyboardInterrupt]
    monkeypatch.setattr(os, "replace", mock.Mock(wraps=os.replace, side_effect=effects))
    with pytest.raises(KeyboardInterrupt):
        make_lists(ten, 0.3, 0.3, seed=1, force=True)
    after = lists_in(ten)
    assert {*after} == {*["train", "val"][: step - 1]}
    assert all(ids != old[name] for name, ids in after.items())


def test_palettes_that_contradict_each_other_are_said(tmp_path, capsys):
    """An editor gave red and blue the value 1, and both are no class's colour."""
    root = labelled(tmp_path, dict.fromkeys("abcd", [0, 1]))
    colours = (250, 0, 0, 9, 9, 9), (0, 0, 250), (250, 0, 0), (1, 1, 1)  # the last is grey
    for name, colour in zip("abcd", colours):
        mask = Image.fromarray(np.uint8([[0, 1]]))
        mask.putpalette([0, 0, 0, *colour])
        mask.save(root / "SegmentationClass" / f"{name}.png")
    make_lists(root, 0.3)
    said = capsys.readouterr().out
    assert said.count("palettes contradict each other") == 1
    assert "other: 1 (cat) is 250 0 0 in a, 0 0 250 in b; if the colours" in said


def test_sparse_labels_are_said_and_images_without_a_stroke_left_out(tmp_path, capsys):
    root = labelled(tmp_path, {"a": [0, 1], "b": [2], "c": [], "d": [0], "e": []}, 100)
    assert sorted(sum(make_lists(root, 0.4).values(), [])) == ["a", "b", "d"]
    said = capsys.readouterr().out
    assert "  note: left out 2 images without a labelled pixel: c, e\n" in said
    assert "  note: sparse labels, 1.3 % of the pixels: scores on such masks do not meas" in said


def test_the_command_says_what_it_found_and_wrote_and_what_comes_next(tmp_path, succeeds, fails):
    masks = {"a_1": [0, 2], "b_1": [1, 255], "b_2": [1, 0], "c_1": [0, 255], "d": [2, 9]}
    root = labelled(tmp_path / "my data", masks)
    for alone in ("JPEGImages/e.jpg", "SegmentationClass/f.png"):
        (root / alone).touch()
    flags = ("--val", "0.25", "--group-by", "_")
    none = "1 of 5 images cannot be used, and no list is written; mend them"
    assert none in fails("data/lists.py", root, *flags) and not (root / "ImageSets").exists()
    said = succeeds("data/lists.py", root, *flags, "--skip-bad")
    pair = "a photo ID.jpg, .jpeg or .png and a mask ID.png"
    wrong = f"{root / 'SegmentationClass' / 'd.png'}: label 9 is outside the classes 0..3 "
    assert said.splitlines() == [
        f"  note: left out 2 files, not of {pair}: e.jpg, f.png",
        f"  cannot be used: {wrong}(void is 255)",
        "  note: no pixel of bird in train",
        "  note: no pixel of cat, dog, bird in val",
        "  note: classes in fewer than 5 images, too few to score: ground (3), cat (2), dog (1)",
        "          train pixels  images      val pixels  images",
        "ground          33.33%       2          50.00%       1",
        "cat             33.33%       2           0.00%       0",
        "dog             16.67%       1           0.00%       0",
        "bird             0.00%       0           0.00%       0",
        "void            16.67%       1          50.00%       1",
        f"wrote {root / 'ImageSets' / 'Segmentation'}: train.txt 3, val.txt 1 images",
        f"look at the masks: python visualize.py --data '{root}' --truth",
        f"next: python sample_features.py --data '{root}' --run runs/own",
    ]


PAIR, PAIRS = {"walk_1": [0, 1]}, {"walk_1": [0, 1], "walk_2": [0, 1]}
FEW = "images or groups can be used, and 2 are the least"
NOTHING = "no shares, or nothing is left"
NO_TRAIN = "train.txt: lists no photo with a mask, and --add goes by it; an id is a file"
REFUSED = [  # masks, lists that are there, flags, what is said
    ({}, {}, "", "no photo in JPEGImages has a mask of its name in SegmentationClass"),
    ({"a": [0]}, {}, "", "save the object as 1"),
    ({"a": [9, 9]}, {}, "--skip-bad", "the 0 images have no labelled pixel"),
    (PAIR, {}, "", f"1 {FEW}"),
    (PAIR, {"test": ["walk_1"]}, "", f"0 {FEW}"),
    (PAIRS, {}, "--group-by _", f"1 {FEW}"),
    (PAIRS, {}, "--group-by -", "--group-by '-': no id holds it; the first id is ['walk_1']"),
    (PAIRS, {}, "--val nan", NOTHING),
    (PAIRS, {}, "--val 0.5 --test 0.5", NOTHING),
    (PAIRS, {}, "--seed -1", "or a seed below 0"),
    (PAIR, {"train": ["walk_1.jpg"]}, "--add", NO_TRAIN),
    (PAIR, {"test": ["walk_1"]}, "--add", NO_TRAIN),
]
ODD = ["b ", "b\nc", "b\udcffc", "b\\c"]
REFUSED += [(PAIRS | {name: [0, 1]}, {}, "", f"{name!r} is not an image id") for name in ODD]


@pytest.mark.parametrize("masks, there, flags, message", REFUSED)
def test_what_makes_no_lists_is_refused_in_a_line(masks, there, flags, message, tmp_path, fails):
    labelled(tmp_path, masks)
    for name, ids in there.items():
        write_ids(tmp_path, name, ids)
    before = files_in(tmp_path)
    assert message in fails("data/lists.py", tmp_path, *flags.split())
    assert files_in(tmp_path) == before
