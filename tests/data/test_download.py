"""The download of VOC 2012, from a server on this machine that behaves well or not, and of SBD."""

import hashlib
import io
import shutil
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import UserError
from data.classes import VOC
from data.download import TRIES, Archive, fetch, main
from data.voc import VOCFolder
from data.voc_files import read_ids
from tests.conftest import full_disk
from tests.data.conftest import files_in, times

NAME, SBD = "voc.tar", "benchmark.tgz"
IMAGES = 18 + 3  # of train_aug: train, and test, which stands for images that only SBD has


class Host(ThreadingHTTPServer):
    """Answers as it was told, by path, and notes what was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.manners: dict[str, tuple] = {}
        self.asked: list[str | None] = []  # the Range of each request

    def serves(self, content=b"", at=NAME, breaks=(), ranges=True, status=200, kind="tar") -> str:
        """The address of this content; `breaks` says after how many bytes each answer ends."""
        self.manners[f"/{at}"] = content, iter(breaks), ranges, status, kind
        return f"http://127.0.0.1:{self.server_port}/{at}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        content, breaks, has_ranges, status, kind = self.server.manners[self.path]
        start = 0
        if asked and has_ranges and status == 200:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < len(content) else 416
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(max(0, len(content) - start)))
        self.end_headers()
        self.wfile.write(content[start : next(breaks, None)])


@pytest.fixture
def host():
    with Host() as host:
        threading.Thread(target=host.serve_forever, args=[0.01]).start()
        yield host
        host.shutdown()


@pytest.fixture(scope="session")
def packed(drawn) -> bytes:
    """The drawn data set as an archive like that of VOC 2012."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.add(drawn, "VOCdevkit/VOC2012")
    return file.getvalue()


def archive_at(content: bytes, *urls: str) -> Archive:
    return Archive(NAME, urls, hashlib.md5(content).hexdigest())


def test_it_is_unpacked_where_the_steps_look(host, packed, drawn, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    archive, root = archive_at(packed, host.serves(packed)), Path("data/VOCdevkit/VOC2012")
    fetch(archive, Path("data"))
    with full_disk(1000), pytest.raises(OSError, match="File too large"):
        main([], voc=archive)
    assert files_in(Path("data")) == {NAME: packed}, "no half data set"
    main([], voc=archive)
    assert files_in(root) == files_in(drawn)
    assert {path.name for path in Path("data").iterdir()} == {"VOCdevkit", NAME}
    following = f"\nnext: python sample_features.py --data {root} --run runs/voc\n"
    assert capsys.readouterr().out.endswith(following)
    before = times(Path())
    main([], voc=archive)
    assert times(Path()) == before and len(host.asked) == 1


ON = "bytes=1000-"
BAD = [  # how the first address behaves, the ranges asked of both, what is said
    ({"breaks": [2000, 3000]}, [ON, "bytes=2000-", "bytes=3000-"], "broke off at 3,000 of"),
    ({"breaks": [500], "ranges": False}, [ON, "bytes=500-"], "broke off at 500 of"),
    ({"breaks": [1000] * TRIES}, [ON] * (TRIES + 1), "broke off at 1,000 of"),
    ({"status": 404}, [ON, ON], "404"),
    ({"kind": "text/html; charset=utf-8"}, [ON] * (TRIES + 1), "a web page came, not the"),
]


@pytest.mark.parametrize("manner, asked, words", BAD)
def test_an_address_is_asked_for_the_rest(manner, asked, words, host, packed, tmp_path, capsys):
    (tmp_path / f"{NAME}.part").write_bytes(packed[:1000])
    bad = host.serves(packed, at="bad", **manner)
    fetch(archive_at(packed, bad, host.serves(packed)), tmp_path, timeout=5, pause=0)
    assert files_in(tmp_path) == {NAME: packed}
    assert host.asked == asked and words in capsys.readouterr().out


@pytest.mark.parametrize("name", [NAME, f"{NAME}.part"])
@pytest.mark.parametrize("share", [0.4, 1])
@pytest.mark.parametrize("is_right", [True, False])
def test_bytes_that_are_there_are_used_if_right(is_right, share, name, host, packed, tmp_path):
    size = int(share * len(packed))
    (tmp_path / name).write_bytes(packed[:size] if is_right else b"x" * size)
    fetch(archive_at(packed, host.serves(packed)), tmp_path, timeout=5, pause=0)
    assert files_in(tmp_path) == {NAME: packed}
    rest = [] if is_right and share == 1 and name == NAME else [f"bytes={size}-"]
    assert host.asked == (rest if is_right else [*rest, None])


def test_a_folder_that_is_no_voc_is_not_written_over(fails, tmp_path):
    (tmp_path / "VOCdevkit" / "VOC2012").mkdir(parents=True)
    assert "move it away" in fails("data/download.py", "--out", tmp_path)


def test_if_no_address_gives_it_one_line_tells_the_way_by_hand(host, packed, tmp_path):
    urls = [host.serves(at="dead", status=404), host.serves(packed[:-1], at="wrong")]
    archive, out = archive_at(packed, *urls), tmp_path / "out"
    by_hand = rf"another MD5.* {archive.md5}.* from {' or '.join(urls)} and put it into {out}/$"
    with pytest.raises(UserError, match=by_hand):
        fetch(archive, out)
    assert files_in(out) == {}


def add_split(out: Path, images: int = IMAGES) -> None:
    """Runs the command for an archive that should give so many images."""
    sbd = Archive(SBD, (), hashlib.md5((out / SBD).read_bytes()).hexdigest(), images)
    main(["--out", str(out), "--sbd"], voc=Archive(NAME, (), ""), sbd=sbd)


@pytest.fixture
def masks(drawn, tmp_path) -> dict[str, np.ndarray]:
    """The folder for --out gets VOC, and an archive laid out like SBD's, whose masks these are."""
    savemat = pytest.importorskip("scipy.io", reason="scipy writes the masks of SBD").savemat
    shutil.copytree(drawn, tmp_path / "VOCdevkit" / "VOC2012")
    masks, made = {}, tmp_path / "made"
    (made / "cls").mkdir(parents=True)
    for split, images in (("train", 2), ("val", 1), ("test", 3)):
        folder = VOCFolder(drawn, split, limit=images)
        for index, image_id in enumerate(folder.ids):
            masks[image_id] = (folder.mask(index) + 1) % 21  # nowhere as VOC's
            content = {"GTcls": {"Segmentation": masks[image_id]}}
            savemat(made / "cls" / f"{image_id}.mat", content)
    for start, name in enumerate(("train.txt", "val.txt")):
        (made / name).write_text("\n".join(sorted(masks)[start::2]))
    with tarfile.open(tmp_path / SBD, "w:gz") as tar:
        tar.add(made, "benchmark_RELEASE/dataset")
    return masks


def test_the_split_has_the_images_of_both_without_those_of_val(masks, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"would have {IMAGES} images instead of 10582"):
        add_split(tmp_path, images=10_582)
    with full_disk(100), pytest.raises(OSError, match="File too large"):
        add_split(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before, "no half split"
    add_split(tmp_path)
    root = tmp_path / "VOCdevkit" / "VOC2012"
    own, dataset = VOCFolder(root, "train"), VOCFolder(root, "train_aug")  # as the steps read it
    assert dataset.ids == sorted(own.ids + read_ids(root, "test"))
    masks |= {image_id: own.mask(index) for index, image_id in enumerate(own.ids)}
    for index, image_id in enumerate(dataset.ids):
        assert np.array_equal(dataset.mask(index), masks[image_id])
        with Image.open(root / "SegmentationClassAug" / f"{image_id}.png") as mask:
            assert mask.mode == "P" and mask.getpalette() == VOC.palette()
    said = capsys.readouterr().out.splitlines()
    assert said[-1].endswith(f"--data {root} --run runs/voc --split train_aug")
    before = times(tmp_path)
    add_split(tmp_path)
    assert times(tmp_path) == before


def test_without_scipy_nothing_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr("data.download.find_spec", lambda name: None)
    nowhere = Archive(NAME, (), "")
    with pytest.raises(UserError, match="--sbd reads Matlab files with SciPy: pip install scipy"):
        main(["--out", str(tmp_path / "out"), "--sbd"], voc=nowhere, sbd=nowhere)
    assert not (tmp_path / "out").exists()
