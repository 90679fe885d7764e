"""The split train_aug: its list, its masks, and what stops it. Needs scipy, as the command does."""

import hashlib
import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import UserError
from data.classes import VOC
from data.download import Archive, main
from data.voc import VOCFolder
from data.voc_files import read_ids
from tests.data.test_download import full_disk

NAME = "benchmark.tgz"
IMAGES = 18 + 3  # train, and test, which stands for images that only SBD has


def add_split(out: Path, images: int = IMAGES) -> None:
    """Runs the command for an archive that should give so many images."""
    sbd = Archive(NAME, (), hashlib.md5((out / NAME).read_bytes()).hexdigest(), images)
    main(["--out", str(out), "--sbd"], voc=Archive("voc.tar", (), ""), sbd=sbd)


@pytest.fixture
def masks(drawn, tmp_path) -> dict[str, np.ndarray]:
    """The folder for --out gets VOC and SBD's archive, whose masks these are.

    They are of two images of train, one of val and the three of test; the archive is laid out like
    the real one.
    """
    savemat = pytest.importorskip("scipy.io", reason="scipy writes the masks of SBD").savemat
    shutil.copytree(drawn, tmp_path / "VOCdevkit" / "VOC2012")
    train, val, test = (read_ids(drawn, split) for split in ("train", "val", "test"))
    shapes = {split: VOCFolder(drawn, split) for split in ("train", "val", "test")}
    masks, members, rng = {}, {}, np.random.default_rng(0)
    for split, ids in (("train", train[:2]), ("val", val[:1]), ("test", test)):
        for index, image_id in enumerate(ids):
            shape = shapes[split].mask(index).shape
            masks[image_id] = rng.integers(0, 21, shape, np.uint8)
            file = io.BytesIO()
            savemat(file, {"GTcls": {"Segmentation": masks[image_id]}}, do_compression=True)
            members[f"cls/{image_id}.mat"] = file.getvalue()
            members[f"inst/{image_id}.mat"] = b"not a mask of classes"
    members["train.txt"] = "\n".join(sorted(masks)[::2]).encode()
    members["val.txt"] = "\n".join(sorted(masks)[1::2]).encode()
    with tarfile.open(tmp_path / NAME, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(f"benchmark_RELEASE/dataset/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return masks


def test_the_split_has_the_images_of_both_without_those_of_val(masks, tmp_path, capsys):
    add_split(tmp_path)
    root = tmp_path / "VOCdevkit" / "VOC2012"
    own, dataset = VOCFolder(root, "train"), VOCFolder(root, "train_aug")  # as the steps read it
    assert dataset.ids == sorted(own.ids + read_ids(root, "test"))
    for index, image_id in enumerate(dataset.ids):
        is_own = image_id in own.ids
        expected = own.mask(own.ids.index(image_id)) if is_own else masks[image_id]
        assert np.array_equal(dataset.mask(index), expected)
        with Image.open(root / "SegmentationClassAug" / f"{image_id}.png") as mask:
            assert mask.mode == "P" and mask.getpalette() == VOC.palette()
    said = capsys.readouterr().out.splitlines()
    assert said[-1].endswith(f"--data {root} --run runs/voc --split train_aug")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    add_split(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_another_number_of_images_and_a_full_disk_leave_no_half_split(masks, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    message = f"train_aug would have {IMAGES} images instead of 10582"
    with pytest.raises(UserError, match=message):
        add_split(tmp_path, images=10_582)
    with full_disk(100):
        add_split(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    add_split(tmp_path)


def test_without_scipy_nothing_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr("data.download.find_spec", lambda name: None)
    nowhere = Archive("voc.tar", (), "")
    with pytest.raises(UserError, match="--sbd reads Matlab files with SciPy: pip install scipy"):
        main(["--out", str(tmp_path / "out"), "--sbd"], voc=nowhere, sbd=nowhere)
    assert not (tmp_path / "out").exists()
