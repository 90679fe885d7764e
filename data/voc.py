"""A segmentation data set in PASCAL VOC layout: find it, check it, read its images and masks.

DIR/JPEGImages/ID.jpg   DIR/SegmentationClass/ID.png   DIR/ImageSets/Segmentation/SPLIT.txt   [DIR/classes.txt]

    python -m data.voc --make-lists DIR --val 0.2        # writes the lists train.txt and val.txt of your own data
"""

import shlex
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.datasets import VOCSegmentation

from data import DataError, lists
from data.classes import VOID, Classes, read_classes
from data.images import SUFFIXES, image_size, read_image, read_mask
from data.transforms import Transform

MASK_FOLDERS = {"train_aug": "SegmentationClassAug"}  # the SBD-augmented list has masks of its own
MAX_SKIPPED = 5  # per cent of a list that `skip_bad` may leave out; with more, the data as a whole is in doubt
READERS = 4  # threads of `skip_bad`; each holds one decoded image at a time


class Sample(NamedTuple):
    """One image, as a worker process hands it over (numpy arrays, which need no file handle each)."""

    id: str
    image: np.ndarray  # (3, h, w) uint8 RGB, as the transform made it
    mask: np.ndarray  # (H, W) uint8 class ids and VOID, as the transform made it
    size: tuple[int, int]  # (height, width) of the original image, in pixels


def find_root(data: Path) -> Path:
    """The folder in VOC layout that `data` means: itself, its `VOC2012`, or its `VOCdevkit/VOC2012`.

    Raises:
        DataError: there is none.
    """
    data = Path(data)
    for root in (data, data / "VOC2012", data / "VOCdevkit" / "VOC2012"):
        if (root / "JPEGImages").is_dir() and (root / "ImageSets" / "Segmentation").is_dir():
            return root
    if (data / "JPEGImages").is_dir() and (data / "SegmentationClass").is_dir():
        command = shlex.join(["python", "-m", "data.voc", "--make-lists", str(data)])
        raise DataError(f"{data}: no lists in ImageSets/Segmentation yet; make them with: {command}")
    raise DataError(
        f"{data}: no data set in VOC layout there (JPEGImages, SegmentationClass, ImageSets/Segmentation); "
        "name its folder with --data, or fetch VOC 2012 with: python -m data.download"
    )


def read_ids(root: Path, split: str) -> list[str]:
    """The image ids of a split, in the order of its list.

    Raises:
        DataError: no such list, an empty one, an id that is not a plain name, or an id that is listed twice.
    """
    folder = root / "ImageSets" / "Segmentation"
    path = folder / f"{split}.txt"
    if Path(split).name != split or not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.txt"))) or "none"
        raise DataError(f"{path}: no such list for split {split!r}; lists there: {known}")
    try:
        ids = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a UTF-8 text file") from None
    if not ids:
        raise DataError(f"{path}: the list is empty; it needs one image id a line")
    seen = set()
    for image_id in ids:
        if image_id in (".", "..") or not set("/\\\0").isdisjoint(image_id):
            raise DataError(f"{path}: {image_id!r} is not an image id (a file name without folder and suffix)")
        if image_id in seen:
            raise DataError(f"{path}: id {image_id!r} is listed twice")
        seen.add(image_id)
    return ids


class VOCFolder(Dataset):
    """One split of a data set in VOC layout; item i is a `Sample`.

    The official tree's own lists (`VOCdevkit/VOC2012`: train, val, trainval) are read through torchvision's
    `VOCSegmentation`. Every image and mask is looked up at construction, and the headers compared, so that a hole in
    the data stops a run in its first second.

    Args:
        transform: makes an item's image and mask; None where no item is asked for, but `image` and `mask`.
        limit: only the first so many ids of the list.
        skip_bad: read every image and mask at construction, and leave out those that cannot be used.

    Attributes:
        root: the folder in VOC layout.
        split: the split's name.
        ids: the image ids, in the order of the list.
        sizes: (height, width) of each image, upright.
        classes: names and colours.
        chance: gives from an image's id the seed of what is random in the transform; None where nothing is.
        skipped: id -> reason, on one line, of each image that `skip_bad` has left out, in the order of the list.

    Raises:
        DataError: on construction, see `find_root`, `read_ids`, `read_classes`; an image or mask that is missing; an
            image and a mask of different size; with `skip_bad` instead, too many that cannot be used. On access, see
            `read_image` and `read_mask`.
    """

    def __init__(
        self, data: Path, split: str, transform: Transform | None, limit: int | None = None, skip_bad: bool = False
    ):
        self.root, self.split, self.transform = find_root(data), split, transform
        self.classes: Classes = read_classes(self.root)
        self.ids = read_ids(self.root, split)[:limit]
        if self.root.parts[-2:] == ("VOCdevkit", "VOC2012") and split in ("train", "val", "trainval"):
            official = VOCSegmentation(str(self.root.parents[1]), year="2012", image_set=split)
            paths = {
                Path(image).stem: (Path(image), Path(mask)) for image, mask in zip(official.images, official.masks)
            }
            self._paths = [paths.get(image_id) or self._find(image_id) for image_id in self.ids]
        else:
            self._paths = [self._find(image_id) for image_id in self.ids]
        self.chance: Callable[[str], int] | None = None
        self.skipped: dict[str, str] = {}
        if skip_bad:
            self._leave_out_bad()
        self.sizes = [self._check(image_id, *paths) for image_id, paths in zip(self.ids, self._paths)]

    def _find(self, image_id: str) -> tuple[Path, Path]:
        images = [self.root / "JPEGImages" / (image_id + suffix) for suffix in SUFFIXES]
        mask = self.root / MASK_FOLDERS.get(self.split, "SegmentationClass") / f"{image_id}.png"
        return next(filter(Path.is_file, images), images[0]), mask

    def _check(self, image_id: str, image: Path, mask: Path) -> tuple[int, int]:
        for kind, path in (("image", image), ("mask", mask)):
            if not path.is_file():
                raise DataError(f"{path}: no {kind} for id {image_id!r} of split {self.split!r}")
        size, mask_size = image_size(image, upright=True), image_size(mask, upright=False)
        if size != mask_size:
            raise DataError(
                f"{mask}: the mask is {mask_size[1]}x{mask_size[0]} but its image {image.name} is {size[1]}x{size[0]}"
            )
        return size

    def _leave_out_bad(self) -> None:
        # Read as a whole and up front: so the set of images is the same for every process, every epoch and every
        # resumed run, and what is counted, announced and compared is what will be used.
        with ThreadPoolExecutor(READERS) as pool:
            reasons = list(pool.map(self._reason, self.ids, self._paths))
        self.skipped = {image_id: reason for image_id, reason in zip(self.ids, reasons) if reason}
        if 100 * len(self.skipped) > MAX_SKIPPED * len(self.ids):
            raise DataError(
                f"{self.root}: {len(self.skipped)} of {len(self.ids)} images of {self.split} cannot be used, more than "
                f"the {MAX_SKIPPED} % that --skip-bad tolerates; the first: {next(iter(self.skipped.values()))}"
            )
        self._paths = [paths for paths, reason in zip(self._paths, reasons) if not reason]
        self.ids = [image_id for image_id in self.ids if image_id not in self.skipped]

    def _reason(self, image_id: str, paths: tuple[Path, Path]) -> str | None:
        """Why an image cannot be used; None where it can. What was decoded is let go of at once."""
        image, mask = paths
        try:
            self._check(image_id, image, mask)
            read_image(image)
            read_mask(mask, len(self.classes))
        except DataError as error:
            return str(error)
        return None

    def __len__(self) -> int:
        return len(self.ids)

    def has_labels(self) -> bool:
        """Whether any mask has a labelled pixel; reads no further than the first that has one."""
        return any((self.mask(index) != VOID).any() for index in range(len(self)))

    def fingerprint(self) -> str:
        """What a resumed run compares: how many images these are, and which, in their order."""
        return f"{len(self)} ({zlib.crc32(chr(10).join(self.ids).encode()):08x})"

    def image(self, index: int) -> np.ndarray:
        """The image as it is on disk, upright: (H, W, 3) uint8 RGB."""
        return read_image(self._paths[index][0])

    def mask(self, index: int) -> np.ndarray:
        """The mask as it is on disk: (H, W) uint8 class ids and VOID."""
        return read_mask(self._paths[index][1], len(self.classes))

    def __getitem__(self, index: int) -> Sample:
        with torch.random.fork_rng(devices=[], enabled=self.chance is not None):
            if self.chance:
                torch.default_generator.manual_seed(self.chance(self.ids[index]))
            return _sample(self.ids[index], self.image(index), self.mask(index), self.transform)


def read_photo(path: Path, transform: Transform) -> tuple[np.ndarray, Sample]:
    """A picture without a mask: as it is on disk, (H, W, 3) uint8 RGB, and as a `Sample` whose mask is all void.

    Raises:
        DataError: see `read_image`.
    """
    pixels = read_image(path)
    return pixels, _sample(path.stem, pixels, np.full(pixels.shape[:2], VOID, dtype=np.uint8), transform)


def _sample(name: str, pixels: np.ndarray, mask: np.ndarray, transform: Transform) -> Sample:
    image = tv_tensors.Image(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
    image, mask = transform(image, tv_tensors.Mask(torch.from_numpy(mask)))
    return Sample(name, image.numpy(), mask.numpy(), pixels.shape[:2])


def count_pixels(dataset: VOCFolder) -> np.ndarray:
    """Pixels of each class over all masks at their original size, (C,) int64; void is not counted."""
    counts = np.zeros(VOID + 1, dtype=np.int64)
    for index in range(len(dataset)):
        counts += np.bincount(dataset.mask(index).ravel(), minlength=len(counts))
    return counts[: len(dataset.classes)]


if __name__ == "__main__":
    sys.exit(lists.main())
