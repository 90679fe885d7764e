"""Fetches PASCAL VOC 2012 (trainval, 2 GB) from its official address, checks and unpacks it.

python -m data.download              # into ./data/VOCdevkit/VOC2012, where the five steps look
python -m data.download --out DIR    # into DIR/VOCdevkit/VOC2012
"""

import argparse
import sys
from http.client import HTTPException
from pathlib import Path
from tarfile import TarError

from torchvision.datasets import VOCSegmentation
from torchvision.datasets.voc import DATASET_YEAR_DICT


def download(out: Path) -> Path:
    """Download, verify (MD5) and unpack the archive under `out`; returns the folder in VOC layout.

    Raises:
        OSError, RuntimeError, HTTPException, TarError: no network, a full disk, or an archive that
            is damaged.
    """
    VOCSegmentation(str(out), year="2012", image_set="train", download=True)
    return out / "VOCdevkit" / "VOC2012"


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m data.download",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", type=Path, default=Path("data"), help="where to put VOCdevkit/ (default: data)"
    )
    out = parser.parse_args().out
    try:
        root = download(out)
    except (OSError, RuntimeError, HTTPException, TarError) as error:
        archive = DATASET_YEAR_DICT["2012"]
        print(
            f"data.download: the archive could not be fetched ({error}).\n"
            f"By hand: get {archive['filename']} (MD5 {archive['md5']}) from\n"
            f"  {archive['url']}\n"
            f"on any machine, put it into {out}/ and run this command again, or unpack it there: "
            f"tar xf {archive['filename']} -C {out}",
            file=sys.stderr,
        )
        return 2
    print(f"PASCAL VOC 2012 is in {root}")
    print(f"next: python sample_features.py --data {root} --run runs/voc")
    return 0


if __name__ == "__main__":
    sys.exit(main())
