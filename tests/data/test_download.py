"""The download of VOC 2012, from a server on this machine that behaves well or badly, and of SBD.

The masks of SBD need scipy, as the command does.
"""

import hashlib
import io
import re
import resource
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from data import UserError
from data.classes import VOC
from data.download import TRIES, Archive, download_voc, fetch, main
from data.voc import VOCFolder
from data.voc_files import read_ids
from tests.data.conftest import files_in, times

NAME, SBD = "voc.tar", "benchmark.tgz"
IMAGES = 18 + 3  # of train_aug: train, and test, which stands for images that only SBD has


class Manner(NamedTuple):
    """How an address behaves."""

    content: bytes = b""
    breaks: list[int] = []  # the bytes of the content after which each answer in turn breaks off
    ranges: bool = True  # False: each answer is the whole
    status: int = 200
    kind: str = "application/x-tar"


class Host(ThreadingHTTPServer):
    """Answers as the manners say, by path, and notes what was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.manners: dict[str, Manner] = {}
        self.asked: list[tuple[str, str | None]] = []  # path and Range

    def serves(self, content: bytes = b"", at: str = NAME, **manner) -> str:
        """The address of this content."""
        self.manners[f"/{at}"] = Manner(content, **manner)
        return f"http://127.0.0.1:{self.server_port}/{at}"

    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.asked]


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        asked, manner = self.headers["Range"], self.server.manners[self.path]
        self.server.asked.append((self.path, asked))
        size, start, status = len(manner.content), 0, manner.status
        if asked and manner.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            status = 206 if start < size else 416
        self.send_response(status)
        self.send_header("Content-Type", manner.kind)
        self.send_header("Content-Length", str(max(0, size - start)))
        self.end_headers()
        end = manner.breaks.pop(0) if manner.breaks else None
        self.wfile.write(manner.content[start:end])

    def log_message(self, *_):
        pass


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


def get(archive: Archive, folder: Path) -> bytes:
    """What `fetch` leaves in the folder, which must be the archive alone."""
    path = fetch(archive, folder, timeout=5, pause=0)
    assert files_in(folder).keys() == {path.name}
    return path.read_bytes()


def test_the_data_set_is_fetched_and_unpacked_where_the_steps_look(
    host, packed, drawn, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    main([], voc=archive_at(packed, url := host.serves(packed)))
    root = Path("data/VOCdevkit/VOC2012")
    assert files_in(root) == files_in(drawn)
    assert {path.name for path in Path("data").iterdir()} == {"VOCdevkit", NAME}
    assert (said := capsys.readouterr().out.splitlines()) == [
        f"fetching from {url}",
        f"unpacking data/{NAME}",
        f"PASCAL VOC 2012 is in {root}",
        f"next: python sample_features.py --data {root} --run runs/voc",
    ]
    before = times(Path())
    main([], voc=archive_at(packed, url))
    assert times(Path()) == before
    assert capsys.readouterr().out.splitlines() == said[2:] and len(host.asked) == 1


@pytest.mark.parametrize(
    "breaks, manner, asked",
    [
        ([1000, 2000], {}, [None, "bytes=1000-", "bytes=2000-"]),
        ([1000], {"ranges": False}, [None, "bytes=1000-"]),
        ([1000] * TRIES, {}, [None, *["bytes=1000-"] * TRIES]),
    ],
)
def test_a_broken_connection_goes_on_where_it_broke_and_then_at_the_next_address(
    breaks, manner, asked, host, packed, tmp_path, capsys
):
    broken = host.serves(packed, at="broken", breaks=[*breaks], **manner)
    assert get(archive_at(packed, broken, host.serves(packed)), tmp_path) == packed
    assert host.ranges() == asked
    assert f"broke off at {breaks[-1]:,} of {len(packed):,} bytes" in capsys.readouterr().out


@pytest.mark.parametrize("status, requests", [(404, 1), (500, TRIES)])
def test_a_dead_address_gives_way_to_the_next(status, requests, host, packed, tmp_path):
    dead = host.serves(at="dead", status=status)
    assert get(archive_at(packed, dead, host.serves(packed)), tmp_path) == packed
    assert [path for path, _ in host.asked] == ["/dead"] * requests + [f"/{NAME}"]


def test_a_page_in_place_of_the_archive_throws_nothing_away(host, packed, tmp_path):
    part = tmp_path / f"{NAME}.part"
    part.write_bytes(packed[:1000])
    page = host.serves(b"<html></html>", ranges=False, kind="text/html; charset=utf-8")
    with pytest.raises(UserError, match="a web page came, not the archive"):
        get(archive_at(packed, page), tmp_path)
    assert part.read_bytes() == packed[:1000]


@pytest.mark.parametrize("name", [NAME, f"{NAME}.part"])
@pytest.mark.parametrize("share", [0.4, 1])
@pytest.mark.parametrize("is_right", [True, False])
def test_bytes_that_are_there_are_used_or_if_wrong_thrown_away(
    is_right, share, name, host, packed, tmp_path
):
    size = int(share * len(packed))
    (tmp_path / name).write_bytes(packed[:size] if is_right else b"x" * size)
    assert get(archive_at(packed, host.serves(packed)), tmp_path) == packed
    rest = [f"bytes={size}-"]
    if is_right:
        assert host.ranges() == ([] if share == 1 and name == NAME else rest)
    else:
        assert host.ranges() == [*rest, None]


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


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may be longer than this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_while_unpacking_leaves_no_half_data_set(packed, drawn, tmp_path):
    (tmp_path / NAME).write_bytes(packed)
    with full_disk(1000):
        download_voc(tmp_path, archive_at(packed))
    assert files_in(tmp_path) == {NAME: packed}
    assert files_in(download_voc(tmp_path, archive_at(packed))) == files_in(drawn)


# The split train_aug


def add_split(out: Path, images: int = IMAGES) -> None:
    """Runs the command for an archive that should give so many images."""
    sbd = Archive(SBD, (), hashlib.md5((out / SBD).read_bytes()).hexdigest(), images)
    main(["--out", str(out), "--sbd"], voc=Archive(NAME, (), ""), sbd=sbd)


@pytest.fixture
def masks(drawn, tmp_path) -> dict[str, np.ndarray]:
    """The folder for --out gets VOC, and an archive laid out like SBD's, whose masks these are."""
    savemat = pytest.importorskip("scipy.io", reason="scipy writes the masks of SBD").savemat
    shutil.copytree(drawn, tmp_path / "VOCdevkit" / "VOC2012")
    masks, rng, made = {}, np.random.default_rng(0), tmp_path / "made"
    (made / "cls").mkdir(parents=True)
    for split, images in (("train", 2), ("val", 1), ("test", 3)):
        folder = VOCFolder(drawn, split, limit=images)
        for index, image_id in enumerate(folder.ids):
            masks[image_id] = rng.integers(0, 21, folder.mask(index).shape, np.uint8)
            content = {"GTcls": {"Segmentation": masks[image_id]}}
            savemat(made / "cls" / f"{image_id}.mat", content)
    (made / "train.txt").write_text("\n".join(sorted(masks)[::2]))
    (made / "val.txt").write_text("\n".join(sorted(masks)[1::2]))
    with tarfile.open(tmp_path / SBD, "w:gz") as tar:
        tar.add(made, "benchmark_RELEASE/dataset")
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
    before = times(tmp_path)
    add_split(tmp_path)
    assert times(tmp_path) == before


def test_another_number_of_images_and_a_full_disk_leave_no_half_split(masks, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"would have {IMAGES} images instead of 10582"):
        add_split(tmp_path, images=10_582)
    with full_disk(100):
        add_split(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    add_split(tmp_path)


def test_without_scipy_nothing_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr("data.download.find_spec", lambda name: None)
    nowhere = Archive(NAME, (), "")
    with pytest.raises(UserError, match="--sbd reads Matlab files with SciPy: pip install scipy"):
        main(["--out", str(tmp_path / "out"), "--sbd"], voc=nowhere, sbd=nowhere)
    assert not (tmp_path / "out").exists()
