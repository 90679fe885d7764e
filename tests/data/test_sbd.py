"""The split train_aug: its list, its masks, and what stops it. Needs scipy, as the command does."""

import hashlib
import io
import shutil
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from data import UserError
from data.classes import VOC
from data.download import Archive, main
from data.images import read_image
from data.voc import VOCFolder, read_ids
from tests.data.test_download import full_disk

NAME = "benchmark.tgz"


class Place(NamedTuple):
    """A folder for --out with a data set and an archive of SBD."""

    out: Path
    root: Path  # of the data set
    own: list[str]  # ids of its train
    others: list[str]  # ids of SBD that are in neither train nor val
    masks: dict[str, np.ndarray]  # what SBD has, by id

    def command(self, *flags: str, images: int | None = None) -> None:
        """Runs the command, for that many images in train_aug."""
        content = (self.out / NAME).read_bytes() if (self.out / NAME).exists() else b""
        images = images or len(self.own) + len(self.others)
        sbd = Archive(NAME, (), hashlib.md5(content).hexdigest(), images)
        command = ["--out", str(self.out), "--sbd", *flags]
        main(command, voc=Archive("voc.tar", (), ""), sbd=sbd)

    def pack(self) -> None:
        """Writes the archive, laid out like the real one: the lists come last."""
        savemat = pytest.importorskip("scipy.io", reason="scipy writes the masks of SBD").savemat
        members = {}
        for image_id, mask in self.masks.items():
            file = io.BytesIO()
            savemat(file, {"GTcls": {"Segmentation": mask}}, do_compression=True)
            members[f"cls/{image_id}.mat"] = file.getvalue()
            members[f"inst/{image_id}.mat"] = b"not a mask of classes"
        ids = sorted(self.masks)
        members["train.txt"] = "\n".join(ids[::2]).encode()
        members["val.txt"] = "\n".join(ids[1::2]).encode()
        with tarfile.open(self.out / NAME, "w:gz") as tar:
            for name, content in members.items():
                member = tarfile.TarInfo(f"benchmark_RELEASE/dataset/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    def left(self) -> set[Path]:
        """What there is of train_aug, finished or not."""
        return {path for path in self.root.rglob("*") if "aug" in path.name.lower()}


@pytest.fixture
def place(drawn, tmp_path) -> Place:
    """SBD has two images of train, one of val and the three of test."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    shutil.copytree(drawn, root)
    train, val, test = (read_ids(root, split) for split in ("train", "val", "test"))
    rng = np.random.default_rng(0)
    masks = {
        image_id: rng.integers(
            0, 21, read_image(root / "JPEGImages" / f"{image_id}.jpg").shape[:2], np.uint8
        )
        for image_id in train[:2] + val[:1] + test
    }
    place = Place(tmp_path, root, train, test, masks)
    place.pack()
    return place


def test_the_split_has_the_images_of_both_without_those_of_val(place, capsys):
    place.command()
    assert read_ids(place.root, "train_aug") == sorted(place.own + place.others)
    dataset = VOCFolder(place.root, "train_aug")  # as the steps read it
    own = VOCFolder(place.root, "train")
    for index, image_id in enumerate(dataset.ids):
        if image_id in place.own:
            expected = own.mask(own.ids.index(image_id))
        else:
            expected = place.masks[image_id]
        assert np.array_equal(dataset.mask(index), expected)
        with Image.open(place.root / "SegmentationClassAug" / f"{image_id}.png") as mask:
            assert mask.mode == "P" and mask.getpalette() == VOC.palette()
    said = capsys.readouterr().out.splitlines()
    assert said[-1].endswith(f"--data {place.root} --run runs/voc --split train_aug")
    (place.out / NAME).unlink()  # a second call writes nothing and needs no archive
    before = {path: path.stat().st_mtime_ns for path in place.out.rglob("*")}
    place.command()
    assert {path: path.stat().st_mtime_ns for path in place.out.rglob("*")} == before


def test_another_number_of_images_is_refused(place):
    count = len(place.own) + len(place.others)
    with pytest.raises(UserError, match=f"train_aug would have {count} images instead of 10582"):
        place.command(images=10_582)
    assert not place.left()


def test_a_full_disk_leaves_no_half_split(place):
    with full_disk(100):
        place.command()
    assert not place.left() and not list(place.root.glob(".masks*"))
    place.command()


def test_without_scipy_nothing_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr("data.download.find_spec", lambda name: None)
    nowhere = Archive("voc.tar", (), "")
    with pytest.raises(UserError, match="--sbd reads Matlab files with SciPy: pip install scipy"):
        main(["--out", str(tmp_path / "out"), "--sbd"], voc=nowhere, sbd=nowhere)
    assert not (tmp_path / "out").exists()
