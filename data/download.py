"""Fetches PASCAL VOC 2012 (trainval, 2 GB), checks and unpacks it; on request SBD's masks, too.

    python -m data.download              # into data/VOCdevkit/VOC2012, where the five steps look
    python -m data.download --out DIR    # into DIR/VOCdevkit/VOC2012
    python -m data.download --sbd        # and the split train_aug: 10,582 images (needs scipy)

A download that broke off goes on where it stopped, then and at the next call. An archive that lies
in the folder is used, and what is there already is not fetched again. When all is unpacked, the
archives are not needed any more.
"""

import argparse
import shlex
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from ssl import SSLError
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from torchvision.datasets import SBDataset
from torchvision.datasets.utils import check_integrity, extract_archive
from torchvision.datasets.voc import DATASET_YEAR_DICT
from tqdm import tqdm

from data import UserError
from data.classes import VOC
from data.image_files import colour_mask
from data.voc_files import LISTS, MASK_FOLDERS, find_root, read_ids, write_ids


class Archive(NamedTuple):
    """An archive on the network."""

    name: str  # of the file
    urls: tuple[str, ...]  # tried in turn
    md5: str
    images: int = 0  # that SBD and VOC have together without val


VOC_FILE, VOC_MD5 = (DATASET_YEAR_DICT["2012"][key] for key in ("filename", "md5"))
VOC_URLS = (
    f"https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/{VOC_FILE}",
    f"http://d2l-data.s3-accelerate.amazonaws.com/{VOC_FILE}",  # a mirror
)
VOC2012 = Archive(VOC_FILE, VOC_URLS, VOC_MD5)
SBD = Archive(SBDataset.filename, (SBDataset.url,), SBDataset.md5, images=10_582)
TRIES = 8  # of an address
NETWORK = (URLError, HTTPException, ConnectionError, TimeoutError, SSLError)  # not a full disk


def download_voc(out: Path, archive: Archive) -> Path:
    """The folder of VOC 2012 in `out`; fetched and unpacked unless it is there.

    Raises:
        UserError: see `fetch`; or a folder is there, but not the data set.
    """
    root = out / "VOCdevkit" / "VOC2012"
    with suppress(UserError):
        return find_root(out)
    if root.exists():
        raise UserError(f"{root}: is there, but without the folders of VOC 2012; move it away")
    path = fetch(archive, out)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".VOC2012.", dir=root.parent) as temporary:
        print(f"unpacking {path}", flush=True)
        extract_archive(str(path), temporary)  # it is the one of the MD5, and can be trusted
        Path(temporary, "VOCdevkit", "VOC2012").rename(root)
    return root


def fetch(archive: Archive, folder: Path, timeout: float = 30, pause: float = 2) -> Path:
    """The archive in the folder, its MD5 checked; fetched unless it is there.

    Until it is complete it is called NAME.part and stays there whatever happens, for a later call.

    Args:
        timeout: seconds without a byte after which a connection counts as broken.
        pause: seconds before an address is tried again.

    Raises:
        UserError: no address gave it; the message says why, and the way by hand.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / archive.name, folder / f"{archive.name}.part"
    if path.exists():
        print(f"checking the MD5 of {path}", flush=True)
        if check_integrity(path, archive.md5):
            return path
        path.replace(part)  # the start of it may be right
    for url in archive.urls:
        for _ in range(TRIES):
            start = part.stat().st_size if part.exists() else 0
            print(f"{'going on' if start else 'fetching'} from {url}", flush=True)
            try:
                _receive(url, part, timeout)
            except NETWORK as error:
                problem = str(error) or type(error).__name__
                again = not isinstance(error, HTTPError) or error.code >= 500
            else:
                if check_integrity(part, archive.md5):
                    return part.replace(path)
                part.unlink()
                problem, again = "a file with another MD5, removed", start > 0
            print(f"  {problem}", flush=True)
            if not again:
                break
            time.sleep(pause)
    raise UserError(
        f"{archive.name} could not be fetched ({problem}); run this command again "
        f"later, or get the file (MD5 {archive.md5}) on any machine from "
        f"{' or '.join(archive.urls)} and put it into {folder}/"
    )


def _receive(url: str, part: Path, timeout: float) -> None:
    """One request for what the file `part` lacks; all of it, if the server cannot give parts."""
    with open(part, "ab") as file:
        start = file.tell()
        request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
        try:
            response = urlopen(request, timeout=timeout)
        except HTTPError as error:
            if start and error.code == 416:
                return  # nothing follows; the MD5 tells whether that is right
            raise
        with response:
            if response.headers.get_content_type() == "text/html":  # as of a proxy
                raise ConnectionError("a web page came, not the archive")
            if response.status != 206:
                start = file.truncate(0)
            total = start + int(response.headers.get("Content-Length", 0))
            how = {"initial": start, "desc": part.stem, "disable": None, "leave": False}
            with tqdm.wrapattr(response, "read", total=total or None, **how) as answer:
                shutil.copyfileobj(answer, file)
    received = part.stat().st_size
    if received < total:
        raise ConnectionError(f"the connection broke off at {received:,} of {total:,} bytes")


def add_train_aug(out: Path, root: Path, archive: Archive) -> None:
    """Adds SegmentationClassAug and train_aug.txt to the folder `root` of VOC 2012, unless there.

    The list is the one in general use: (SBD's train + SBD's val + VOC's train) - VOC's val. The
    images of VOC's train keep VOC's own masks, with void around the objects; the others get those
    of the Semantic Boundaries Dataset (Hariharan et al. 2011), without.

    Raises:
        UserError: see `fetch`; or the list would not have as many images as the archive says.
        OSError: masks without a list are there.
    """
    from scipy.io import loadmat

    if (root / LISTS / "train_aug.txt").exists():
        return
    source, own = fetch(archive, out), set(read_ids(root, "train"))
    with tempfile.TemporaryDirectory(prefix=".masks.", dir=root) as temporary:
        print(f"unpacking {source}", flush=True)
        extract_archive(str(source), temporary)
        sbd, new = Path(temporary, "benchmark_RELEASE", "dataset"), Path(temporary, "masks")
        lists = [(sbd / name).read_text().split() for name in ("train.txt", "val.txt")]
        ids = own.union(*lists).difference(read_ids(root, "val"))
        if len(ids) != archive.images:
            raise UserError(
                f"{root}: train_aug would have {len(ids)} images instead of {archive.images}; "
                "are train.txt and val.txt in ImageSets/Segmentation those of VOC 2012?"
            )
        new.mkdir()
        for image_id in own:
            shutil.copy(root / "SegmentationClass" / f"{image_id}.png", new)
        for image_id in tqdm(sorted(ids - own), "masks", disable=None, leave=False):
            content = loadmat(sbd / "cls" / f"{image_id}.mat", variable_names="GTcls")
            mask = content["GTcls"][0, 0]["Segmentation"]  # (H, W) uint8 class ids
            colour_mask(mask, VOC).save(new / f"{image_id}.png")
        new.rename(root / MASK_FOLDERS["train_aug"])
    write_ids(root, "train_aug", sorted(ids))


def main(
    arguments: Sequence[str] | None = None, voc: Archive = VOC2012, sbd: Archive = SBD
) -> None:
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m data.download", None, __doc__, formatter_class=how)
    add = parser.add_argument
    add("--out", type=Path, default=Path("data"), help="where VOCdevkit/ will be (default: data)")
    add("--sbd", action="store_true", help="add the split train_aug: more masks, without void")
    options = parser.parse_args(arguments)
    if options.sbd and not find_spec("scipy"):
        raise UserError("--sbd reads Matlab files with SciPy: pip install scipy")
    root, split = download_voc(options.out, voc), []
    print(f"PASCAL VOC 2012 is in {root}", flush=True)
    if options.sbd:
        add_train_aug(options.out, root, sbd)
        split = ["--split", "train_aug"]
        print("train_aug: images of train have VOC's own masks, the others SBD's, without void")
    command = ["python", "sample_features.py", "--data", str(root), "--run", "runs/voc", *split]
    print(f"next: {shlex.join(command)}")


if __name__ == "__main__":
    from models.run.runtime import run_script

    run_script(main)
