"""The download of VOC 2012: asks torchvision for it, and explains the way by hand if that fails."""

import shutil
import sys
from urllib.error import URLError

import pytest
import torchvision.datasets.voc
from torchvision.datasets.voc import DATASET_YEAR_DICT

from data.download import main

ARCHIVE = DATASET_YEAR_DICT["2012"]


@pytest.fixture
def run(monkeypatch):
    """Runs the command with `fetch(url, root, filename, md5)` in place of the network."""

    def run(fetch, *arguments) -> int:
        monkeypatch.setattr(torchvision.datasets.voc, "download_and_extract_archive", fetch)
        monkeypatch.setattr(sys, "argv", ["download.py", *map(str, arguments)])
        return main()

    return run


@pytest.mark.parametrize(
    "error",
    [
        URLError("no network"),
        ConnectionResetError("cut off"),
        OSError(28, "No space left on device"),
        RuntimeError("File not found or corrupted."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_if_the_download_fails_the_way_by_hand_is_told(error, run, tmp_path, capsys):
    def fetch(*_, **__):
        raise error

    assert run(fetch, "--out", tmp_path) == 2
    captured = capsys.readouterr()
    assert not captured.out
    first = f"data.download: the archive could not be fetched ({error}).\n"
    assert captured.err.startswith(first)
    for told in (
        ARCHIVE["url"],
        f"MD5 {ARCHIVE['md5']}",
        f"put it into {tmp_path}/ and run this command again",
        f"tar xf {ARCHIVE['filename']} -C {tmp_path}",
    ):
        assert told in captured.err


def test_the_archive_of_2012_is_fetched_checked_and_unpacked(run, drawn, tmp_path, capsys):
    asked, root = [], tmp_path / "VOCdevkit" / "VOC2012"

    def fetch(url, folder, filename, md5):
        asked.append((url, str(folder), filename, md5))
        shutil.copytree(drawn, root)

    assert run(fetch, "--out", tmp_path) == 0
    assert asked == [(ARCHIVE["url"], str(tmp_path), ARCHIVE["filename"], ARCHIVE["md5"])]
    assert capsys.readouterr().out == (
        f"PASCAL VOC 2012 is in {root}\n"
        f"next: python sample_features.py --data {root} --run runs/voc\n"
    )


def test_the_default_place_is_where_the_steps_look(run):
    asked = []

    def fetch(url, root, filename, md5):
        asked.append(root)
        raise OSError("stop here")

    run(fetch)
    assert asked == ["data"]
