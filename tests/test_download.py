"""The download of VOC 2012: it asks torchvision for it, and explains the way by hand where that fails."""

import shutil
import sys
from urllib.error import URLError

import pytest
import torchvision.datasets.voc
from torchvision.datasets.voc import DATASET_YEAR_DICT

import data.download
from data.voc import find_root

ARCHIVE = DATASET_YEAR_DICT["2012"]


def run(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["download.py", *map(str, arguments)])
    data.download.main()


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
def test_without_the_archive_the_way_by_hand_is_told(error, tmp_path, monkeypatch, capsys):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(torchvision.datasets.voc, "download_and_extract_archive", fails)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--out", tmp_path)
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err.startswith(f"data.download: the archive could not be fetched ({error}).\n")
    for told in (
        ARCHIVE["url"],
        f"MD5 {ARCHIVE['md5']}",
        f"put it into {tmp_path}/ and run this command again",
        f"tar xf {ARCHIVE['filename']} -C {tmp_path}",
    ):
        assert told in captured.err


def test_the_archive_of_2012_is_fetched_checked_and_unpacked(drawn, tmp_path, monkeypatch, capsys):
    asked = []

    def fake(url, root, filename, md5):
        asked.append((url, str(root), filename, md5))
        shutil.copytree(drawn, tmp_path / "out" / "VOCdevkit" / "VOC2012")

    monkeypatch.setattr(torchvision.datasets.voc, "download_and_extract_archive", fake)
    run(monkeypatch, "--out", tmp_path / "out")
    root = tmp_path / "out" / "VOCdevkit" / "VOC2012"
    assert asked == [(ARCHIVE["url"], str(tmp_path / "out"), ARCHIVE["filename"], ARCHIVE["md5"])]
    assert find_root(root) == root
    written = capsys.readouterr().out
    assert written == f"PASCAL VOC 2012 is in {root}\nnext: python sample_features.py --data {root} --run runs/voc\n"


def test_the_default_place_is_where_the_steps_look(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(data.download, "VOCSegmentation", lambda *place, **options: asked.append((*place, options)))
    run(monkeypatch)
    assert asked == [("data", {"year": "2012", "image_set": "train", "download": True})]
    assert "PASCAL VOC 2012 is in data/VOCdevkit/VOC2012\n" in capsys.readouterr().out
