"""Fetches PASCAL VOC 2012 (trainval, 2 GB), checks and unpacks it; on request SBD's masks, too.

    python -m data.download              # into data/VOCdevkit/VOC2012, where the five steps look
    python -m data.download --out DIR    # into DIR/VOCdevkit/VOC2012
    python -m data.download --sbd        # and the split train_aug: 10,582 images (needs scipy)

A download that broke off goes on where it stopped, then and at the next call. An archive that lies
in the folder is used, and what is there already is not fetched again.
"""

import argparse
import hashlib
import os
import platform
import re
import shlex
import shutil
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tqdm import tqdm

from data import DataError
from data.sbd import mat_reader, write_train_aug
from data.voc import MASK_FOLDERS, VOCFolder, find_root, read_ids


@dataclass(frozen=True)
class Archive:
    """An archive on the network."""

    name: str  # of the file
    urls: tuple[str, ...]  # tried in turn
    md5: str
    images: int  # in the list that it brings: trainval.txt of VOC, train_aug.txt of SBD


VOC2012 = Archive(
    "VOCtrainval_11-May-2012.tar",
    (
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        "http://d2l-data.s3-accelerate.amazonaws.com/VOCtrainval_11-May-2012.tar",  # a mirror
    ),
    "6cd6e144f989b92b3379bac3b3de84fd",
    images=2913,
)
SBD = Archive(
    "benchmark.tgz",
    (
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/"
        "benchmark.tgz",
    ),
    "82b4d87ceb2ed10f6038a1cba92111cb",
    images=10_582,
)
TRIES = 4  # of an address, in a row, that bring nothing
BLOCK = 2**16  # bytes read at a time


class Lost(Exception):
    """An address did not give (the rest of) its file; `again`: another try may help."""

    def __init__(self, reason: str, again: bool = True):
        super().__init__(reason)
        self.again = again


def download_voc(out: Path, archive: Archive = VOC2012) -> Path:
    """The folder of VOC 2012 in `out`; fetched and unpacked unless it is there.

    Raises:
        DataError: see `fetch` and `unpack`; or a folder is there, but not the whole data set.
        OSError: a full disk, or no permission.
    """
    try:
        root = find_root(out)
    except DataError:
        root = out / "VOCdevkit" / "VOC2012"
        if root.exists():
            raise DataError(
                f"{root}: is there, but without the folders of VOC 2012; move it away"
            ) from None
        if not hasattr(tarfile, "data_filter"):
            raise DataError(
                f"Python {platform.python_version()} cannot unpack archives safely; "
                "take 3.10.12, 3.11.4 or a newer one"
            ) from None
        unpack(fetch(archive, out), root)
    _check(root, "trainval", archive.images, f"move {root} away, or name another --out")
    return root


def download_sbd(out: Path, root: Path, archive: Archive = SBD) -> None:
    """Adds the split train_aug to the folder `root` of VOC 2012, unless it is there.

    Raises:
        DataError: see `fetch` and `write_train_aug`; or a list or masks are there, but not those.
        OSError: a full disk, or no permission.
    """
    list_path = root / "ImageSets" / "Segmentation" / "train_aug.txt"
    masks = root / MASK_FOLDERS["train_aug"]
    if not (list_path.exists() or masks.exists()):
        write_train_aug(fetch(archive, out), root, archive.images)
    hint = f"move {list_path} and {masks} away"
    _check(root, "train_aug", archive.images, hint)
    if shared := set(read_ids(root, "train_aug")).intersection(read_ids(root, "val")):
        raise DataError(f"{list_path}: lists {len(shared)} images of val; {hint}")


def _check(root: Path, split: str, images: int, hint: str) -> None:
    """Raises a DataError unless the split has so many images, all there with a mask that fits."""
    try:
        found = len(VOCFolder(root, split))
    except DataError as error:
        raise DataError(f"{error}; to fetch it anew, {hint}") from None
    if found != images:
        raise DataError(
            f"{root}: {split} has {found} images instead of {images}; to fetch it anew, {hint}"
        )


def fetch(archive: Archive, folder: Path, timeout: float = 30, pause: float = 2) -> Path:
    """The archive in the folder, its MD5 checked; fetched unless it is there.

    Until it is complete it is called NAME.part and stays there whatever happens, for a later call.

    Args:
        archive: what to fetch.
        folder: where to.
        timeout: seconds without a byte after which a connection counts as broken.
        pause: seconds before an address is tried again, doubled each time that brings nothing.

    Raises:
        DataError: no address gave it; the message says why, and the way by hand.
        OSError: a full disk, or no permission.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / archive.name
    part = folder / f"{archive.name}.part"
    if path.exists():
        if _md5(path) == archive.md5:
            return path
        print(f"{path}: damaged or not complete, by its MD5; fetching the rest", flush=True)
        os.replace(path, part)
    problems, addresses = [], list(archive.urls)
    while addresses:
        url = addresses.pop(0)
        resumed = part.exists()
        print(f"{'going on' if resumed else 'fetching'} from {url}", flush=True)
        try:
            _download(url, part, timeout, pause)
        except Lost as error:
            problem = str(error)
        else:
            if _md5(part) == archive.md5:
                os.replace(part, path)
                return path
            part.unlink()
            problem = "a file with another MD5, removed"
            if resumed:
                addresses.insert(0, url)  # the wrong bytes may be those that were there
        problems.append(f"{urlsplit(url).netloc}: {problem}")
        print(f"  {problems[-1]}", flush=True)
    raise DataError(
        f"{archive.name} could not be fetched ({'; '.join(problems)}); run this command again "
        f"later, or get the file (MD5 {archive.md5}) on any machine from "
        f"{' or '.join(archive.urls)} and put it into {folder}/"
    )


def _download(url: str, part: Path, timeout: float, pause: float) -> None:
    """Appends to the file `part` what it lacks; tries again where that may help, else `Lost`."""
    tries = 0
    while True:
        before = _size(part)
        try:
            return _receive(url, part, timeout)
        except Lost as error:
            tries = 1 if _size(part) > before else tries + 1
            if not error.again or tries == TRIES:
                raise
            print(f"  {error}; trying again", flush=True)
        time.sleep(pause * 2 ** (tries - 1))


def _receive(url: str, part: Path, timeout: float) -> None:
    """One request for what the file `part` lacks; all of it, if the server cannot give parts."""
    there = _size(part)
    request = Request(url, headers={"Range": f"bytes={there}-"} if there else {})
    try:
        response = urlopen(request, timeout=timeout)
    except HTTPError as error:
        nothing_follows = there > 0 and error.code == 416
        if nothing_follows:
            if error.headers["Content-Range"] == f"bytes */{there}":
                return  # all is there
            part.unlink()  # it is longer than the archive
        again = nothing_follows or error.code >= 500
        raise Lost(f"HTTP {error.code} {error.reason}", again) from None
    except (OSError, HTTPException) as error:
        raise Lost(_reason(error)) from None
    with response:
        start, total = _place(response)
        if start not in (0, there):
            part.unlink()
            raise Lost("answered with another part than asked for")
        bar = tqdm(
            desc=part.stem,
            total=total,
            initial=start,
            unit="B",
            unit_scale=True,
            disable=None,  # off a terminal
            leave=False,
        )
        with bar, open(part, "ab" if start else "wb") as file:
            while block := _read(response):
                file.write(block)
                bar.update(len(block))
    if total is not None and _size(part) < total:
        raise Lost(f"the connection broke off at {_size(part):,} of {total:,} bytes")


def _place(response: HTTPResponse) -> tuple[int, int | None]:
    """The first byte of an answer within its file, -1 if it does not say; the file's size."""
    if response.status == 206:
        place = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", place)
        return (int(match[1]), int(match[2])) if match else (-1, None)
    length = response.headers.get("Content-Length")
    return 0, int(length) if length else None


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read(BLOCK)
    except (OSError, HTTPException) as error:
        raise Lost(_reason(error)) from None


def _reason(error: Exception) -> str:
    """Why a connection failed; a URLError wraps it."""
    return str(getattr(error, "reason", error)) or type(error).__name__


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _md5(path: Path) -> str:
    print(f"checking the MD5 of {path}", flush=True)
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def unpack(archive: Path, root: Path) -> None:
    """Unpacks VOCdevkit/VOC2012 of an archive to become the folder `root`, whole or not at all.

    Raises:
        DataError: a member or a link leads out of the folder, or the archive is damaged.
        OSError: a full disk, or no permission.
    """
    temporary = root.with_name(f".{root.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)  # of a call that was killed
    try:
        with tarfile.open(archive) as tar:
            bar = tqdm(tar, "unpacking", unit=" files", disable=None, leave=False)
            tar.extractall(temporary, members=bar, filter="data")
        os.rename(temporary / "VOCdevkit" / "VOC2012", root)
    except tarfile.TarError as error:
        raise DataError(f"{archive}: cannot be unpacked ({error})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def main(arguments: Sequence[str] | None = None, voc: Archive = VOC2012, sbd: Archive = SBD) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m data.download",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", type=Path, default=Path("data"), help="where to put VOCdevkit/ (default: data)"
    )
    parser.add_argument(
        "--sbd",
        action="store_true",
        help="add the split train_aug: VOC's own masks (with void) for the images of train, "
        "masks of the Semantic Boundaries Dataset (without) for the others",
    )
    parser.add_argument(
        "--delete-archives", action="store_true", help="remove the archives when all is unpacked"
    )
    options = parser.parse_args(arguments)
    try:
        if options.sbd:
            mat_reader()  # before gigabytes are fetched for nothing
        root = download_voc(options.out, voc)
        print(f"PASCAL VOC 2012 is in {root}", flush=True)
        if options.sbd:
            download_sbd(options.out, root, sbd)
            own = len(read_ids(root, "train"))
            print(
                f"train_aug has {sbd.images:,} images: {own:,} of train with VOC's own masks, "
                f"{sbd.images - own:,} with SBD's (no void)"
            )
        used = [voc, sbd] if options.sbd else [voc]
        for path in filter(Path.exists, [options.out / archive.name for archive in used]):
            if options.delete_archives:
                path.unlink()
            else:
                print(f"  note: {path} is not needed any more; --delete-archives removes it")
    except DataError as error:
        print(f"data.download: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(
            f"data.download: {error.filename or options.out}: {error.strerror or error}; "
            "what has been fetched stays, and the same command goes on from there",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("data.download: stopped; the same command goes on from there", file=sys.stderr)
        return 130
    split = ["--split", "train_aug"] if options.sbd else []
    command = ["python", "sample_features.py", "--data", str(root), "--run", "runs/voc", *split]
    print(f"next: {shlex.join(command)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
