"""Fetches PASCAL VOC 2012 (trainval, 2 GB), checks and unpacks it; on request SBD's masks, too.

    python -m data.download              # into data/VOCdevkit/VOC2012, where the five steps look
    python -m data.download --out DIR    # into DIR/VOCdevkit/VOC2012
    python -m data.download --sbd        # and the split train_aug: 10,582 images (needs scipy)

A download that broke off goes on where it stopped, then and at the next call. An archive that lies
in the folder is used, and what is there already is not fetched again.
"""

import argparse
import io
import os
import shlex
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from ssl import SSLError
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from PIL import Image
from torchvision.datasets.utils import check_integrity
from tqdm import tqdm

from data import UserError
from data.classes import VOC
from data.voc import MASK_FOLDERS, VOCFolder, find_root, read_ids


class Archive(NamedTuple):
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
NETWORK = (URLError, HTTPException, ConnectionError, TimeoutError, SSLError)  # not a full disk


def download_voc(out: Path, archive: Archive = VOC2012) -> Path:
    """The folder of VOC 2012 in `out`; fetched and unpacked unless it is there.

    Raises:
        UserError: see `fetch` and `unpack`; or a folder is there, but not the whole data set.
    """
    try:
        root = find_root(out)
    except UserError:
        root = out / "VOCdevkit" / "VOC2012"
        if root.exists():
            raise UserError(
                f"{root}: is there, but without the folders of VOC 2012; move it away"
            ) from None
        unpack(fetch(archive, out), root)
    _check(root, "trainval", archive.images, f"move {root} away, or name another --out")
    return root


def download_sbd(out: Path, root: Path, archive: Archive = SBD) -> None:
    """Adds the split train_aug to the folder `root` of VOC 2012, unless it is there.

    Raises:
        UserError: see `fetch` and `write_train_aug`; or a list or masks are there, but not those.
    """
    path = root / "ImageSets" / "Segmentation" / "train_aug.txt"
    masks = root / MASK_FOLDERS["train_aug"]
    if not (path.exists() or masks.exists()):
        write_train_aug(fetch(archive, out), root, archive.images)
    hint = f"move {path} and {masks} away"
    _check(root, "train_aug", archive.images, hint)
    if shared := set(read_ids(root, "train_aug")).intersection(read_ids(root, "val")):
        raise UserError(f"{path}: lists {len(shared)} images of val; {hint}")


def _check(root: Path, split: str, images: int, hint: str) -> None:
    """Raises a UserError unless the split has so many images, all there with a mask that fits."""
    try:
        found = len(VOCFolder(root, split))
    except UserError as error:
        raise UserError(f"{error}; to fetch it anew, {hint}") from None
    if found != images:
        raise UserError(
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
        UserError: no address gave it; the message says why, and the way by hand.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / archive.name, folder / f"{archive.name}.part"
    if path.exists():
        print(f"checking the MD5 of {path}", flush=True)
        if check_integrity(path, archive.md5):
            return path
        os.replace(path, part)  # the start of it may be right
    problems = []
    for url in archive.urls:
        tries = 0
        while True:
            before = _size(part)
            print(f"{'going on' if before else 'fetching'} from {url}", flush=True)
            again = True
            try:
                _receive(url, part, timeout)
                if check_integrity(part, archive.md5):
                    os.replace(part, path)
                    return path
                part.unlink()
                problem = "a file with another MD5, removed"
                again = before > 0  # the wrong bytes may be those that were there
            except HTTPError as error:
                problem, again = f"HTTP {error.code} {error.reason}", error.code >= 500
            except NETWORK as error:  # a URLError wraps the reason
                problem = str(getattr(error, "reason", None) or error) or type(error).__name__
            print(f"  {problem}", flush=True)
            tries = 1 if _size(part) > before else tries + 1
            if not again or tries == TRIES:
                break
            time.sleep(pause * 2 ** (tries - 1))
        problems.append(f"{urlsplit(url).netloc}: {problem}")
    raise UserError(
        f"{archive.name} could not be fetched ({'; '.join(problems)}); run this command again "
        f"later, or get the file (MD5 {archive.md5}) on any machine from "
        f"{' or '.join(archive.urls)} and put it into {folder}/"
    )


def _receive(url: str, part: Path, timeout: float) -> None:
    """One request for what the file `part` lacks; all of it, if the server cannot give parts."""
    start = _size(part)
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urlopen(request, timeout=timeout)
    except HTTPError as error:
        if start and error.code == 416:
            return  # nothing follows; the MD5 tells whether that is right
        raise
    with response:
        if response.status == 206:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                part.unlink()
                raise ConnectionError("answered with another part than asked for")
        else:
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        how = {"unit": "B", "unit_scale": True, "disable": None, "leave": False}
        bar = tqdm(desc=part.stem, total=total, initial=start, **how)
        with bar, open(part, "ab" if start else "wb") as file:
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))
    if total and _size(part) < total:
        raise ConnectionError(f"the connection broke off at {_size(part):,} of {total:,} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def unpack(archive: Path, root: Path) -> None:
    """Unpacks VOCdevkit/VOC2012 of an archive to become the folder `root`, whole or not at all.

    Raises:
        UserError: a member or a link leads out of the folder, or the archive is damaged.
    """
    temporary = root.with_name(f".{root.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)  # of a call that was killed
    try:
        with tarfile.open(archive) as tar:
            # Pythons before 3.10.12 and 3.11.4 have no filter; there the MD5 alone is trusted.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            bar = tqdm(tar, "unpacking", unit=" files", disable=None, leave=False)
            tar.extractall(temporary, members=bar)
        os.rename(temporary / "VOCdevkit" / "VOC2012", root)
    except tarfile.TarError as error:
        raise UserError(f"{archive}: cannot be unpacked ({error})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def mat_reader() -> Callable:
    """SciPy's `loadmat`.

    Raises:
        UserError: SciPy is missing.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise UserError("--sbd reads Matlab files with SciPy: pip install scipy") from None
    return loadmat


def write_train_aug(archive: Path, root: Path, images: int) -> None:
    """Writes SegmentationClassAug and then train_aug.txt into the folder `root` of VOC 2012.

    The list is the one in general use: (SBD's train + SBD's val + VOC's train) - VOC's val. The
    images of VOC's train keep VOC's own masks, with void around the objects; the others get those
    of the Semantic Boundaries Dataset (Hariharan et al. 2011), without.

    Raises:
        UserError: the list would not have so many images; SciPy is missing.
    """
    loadmat = mat_reader()
    own = set(read_ids(root, "train"))
    lists = dict(_members(archive, ["dataset/train.txt", "dataset/val.txt"]))
    ids = own.union(*(text.decode().split() for text in lists.values()))
    ids -= set(read_ids(root, "val"))
    if len(ids) != images:
        raise UserError(
            f"{root}: train_aug would have {len(ids)} images instead of {images}; "
            "are train.txt and val.txt in ImageSets/Segmentation those of VOC 2012?"
        )
    with tempfile.TemporaryDirectory(prefix=".masks.", dir=root) as temporary:
        masks = Path(temporary) / "masks"
        masks.mkdir()
        for image_id in own:
            shutil.copy(root / "SegmentationClass" / f"{image_id}.png", masks)
        others = {f"cls/{image_id}.mat" for image_id in ids - own}
        bar = tqdm(_members(archive, others), "masks", len(others), disable=None, leave=False)
        for name, content in bar:
            mask = loadmat(io.BytesIO(content), variable_names="GTcls")["GTcls"][0, 0]
            picture = Image.fromarray(mask["Segmentation"])  # (H, W) uint8 class ids
            picture.putpalette(VOC.palette())
            picture.save(masks / f"{Path(name).stem}.png")
        masks.rename(root / MASK_FOLDERS["train_aug"])
    text = "".join(f"{image_id}\n" for image_id in sorted(ids))
    (root / "ImageSets" / "Segmentation" / "train_aug.txt").write_text(text, newline="\n")


def _members(archive: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Name (its last two parts) and content of these members, in their order there."""
    with tarfile.open(archive, "r|gz") as tar:  # a stream: going back would unpack it again
        for member in tar:
            name = "/".join(member.name.split("/")[-2:])
            if name in wanted:
                yield name, tar.extractfile(member).read()


def main(
    arguments: Sequence[str] | None = None, voc: Archive = VOC2012, sbd: Archive = SBD
) -> None:
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
    if options.sbd:
        mat_reader()  # before gigabytes are fetched for nothing
    root, split, archives = download_voc(options.out, voc), [], [voc]
    print(f"PASCAL VOC 2012 is in {root}", flush=True)
    if options.sbd:
        download_sbd(options.out, root, sbd)
        split, archives = ["--split", "train_aug"], [voc, sbd]
        own = len(read_ids(root, "train"))
        print(
            f"train_aug has {sbd.images:,} images: {own:,} of train with VOC's own masks, "
            f"{sbd.images - own:,} with SBD's (no void)"
        )
    for path in filter(Path.exists, [options.out / archive.name for archive in archives]):
        if options.delete_archives:
            path.unlink()
        else:
            print(f"  note: {path} is not needed any more; --delete-archives removes it")
    command = ["python", "sample_features.py", "--data", str(root), "--run", "runs/voc", *split]
    print(f"next: {shlex.join(command)}")


if __name__ == "__main__":
    from models.run.runtime import run_script

    run_script(main)
