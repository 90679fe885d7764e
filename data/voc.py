"""A segmentation data set in PASCAL VOC layout: find it, check it, read its images and masks.

DIR/JPEGImages/ID.jpg               photos, also .jpeg and .png
DIR/SegmentationClass/ID.png        masks whose pixel values are class ids, 255 is void
DIR/ImageSets/Segmentation/SPLIT.txt    an id a line
DIR/classes.txt                     a class a line, if the classes are not VOC's
"""

import copy
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from subprocess import list2cmdline
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data import UserError
from data.classes import VOID, read_classes
from data.images import SUFFIXES, image_size, read_image, read_mask
from data.sampling import draw_kept, draw_pixels, image_seed, pixel_centres
from data.transforms import Augment, Transform

MASK_FOLDERS = {"train_aug": "SegmentationClassAug"}  # the SBD-augmented list has its own masks
MAX_SKIPPED = 5  # per cent of a list that `skip_bad` may leave out; beyond, the data is in doubt
READERS = 4  # threads of `skip_bad`; each holds one decoded image at a time


class Sample(NamedTuple):
    """One image with its mask, as the transform made them."""

    id: str
    image: Tensor  # (3, h, w) uint8 RGB
    mask: Tensor  # (H, W) uint8 class ids and VOID


def find_root(data: Path) -> Path:
    """The folder in VOC layout that `data` means: itself, its `VOC2012` or `VOCdevkit/VOC2012`.

    Raises:
        UserError: there is none.
    """
    for root in (data, data / "VOC2012", data / "VOCdevkit" / "VOC2012"):
        if (root / "JPEGImages").is_dir() and (root / "ImageSets" / "Segmentation").is_dir():
            return root
    if (data / "JPEGImages").is_dir() and (data / "SegmentationClass").is_dir():
        command = list2cmdline(["python", "-m", "data.lists", data.as_posix()])  # for any shell
        raise UserError(
            f"{data}: no lists in ImageSets/Segmentation yet; make them with: {command}"
        )
    raise UserError(
        f"{data}: no data set in VOC layout there (JPEGImages, SegmentationClass, "
        "ImageSets/Segmentation); name its folder with --data, or fetch VOC 2012 with: "
        "python -m data.download"
    )


def read_ids(root: Path, split: str) -> list[str]:
    """The image ids of a split, in the order of its list.

    Raises:
        UserError: no such list, an empty one, an id that is not a plain name, or one listed twice.
    """
    folder = root / "ImageSets" / "Segmentation"
    path = folder / f"{split}.txt"
    if Path(split).name != split or not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.txt"))) or "none"
        raise UserError(f"{path}: no such list for split {split!r}; lists there: {known}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a UTF-8 text file") from None
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise UserError(f"{path}: the list is empty; it needs one image id a line")
    for image_id in ids:
        is_name = image_id not in (".", "..") and set("/\\").isdisjoint(image_id)
        if not (is_name and image_id.isprintable()):
            raise UserError(
                f"{path}: {image_id!r} is not an image id (a file name without folder and suffix)"
            )
    if len(set(ids)) < len(ids):
        twice = next(image_id for image_id in ids if ids.count(image_id) > 1)
        raise UserError(f"{path}: id {twice!r} is listed twice")
    return ids


def find_pair(root: Path, image_id: str, masks: str = "SegmentationClass") -> tuple[Path, Path]:
    """The files of an id's photo and mask, where they are or would be."""
    photos = [root / "JPEGImages" / (image_id + suffix) for suffix in SUFFIXES]
    return next(filter(Path.is_file, photos), photos[0]), root / masks / f"{image_id}.png"


def check_sizes(photo: Path, mask: Path) -> None:
    """Compares the sizes in the headers of an upright photo and its mask.

    Raises:
        UserError: they differ, or a file is missing, damaged or not an image.
    """
    size, mask_size = image_size(photo, upright=True), image_size(mask, upright=False)
    if size == mask_size:
        return
    (height, width), (rows, columns) = size, mask_size
    if mask_size == image_size(photo, upright=False):
        raise UserError(
            f"{mask}: the mask is {columns}x{rows}, as its image {photo.name} is stored, but the "
            f"EXIF orientation turns that to {width}x{height}; turn the mask too, or remove the "
            "orientation from the photo"
        )
    raise UserError(
        f"{mask}: the mask is {columns}x{rows} but its image {photo.name} is {width}x{height}"
    )


class VOCFolder(Dataset):
    """One split of a data set in VOC layout; item i is a `Sample`.

    Every image and mask is looked up at construction and their headers compared, so that a hole in
    the data stops a run in its first second.

    Args:
        data: see `find_root`.
        split: name of the list.
        transform: makes an item's image and mask.
        limit: only the first ids of the list.
        skip_bad: read every image and mask at construction; leave out those that cannot be used.

    Attributes:
        root: the folder in VOC layout.
        ids: the image ids, in the order of the list.
        classes: names and colours.
        skipped: id -> reason, in a line, of each image that `skip_bad` left out.

    Raises:
        UserError: on construction, see `find_root`, `read_ids`, `read_classes`; an image or mask is
            missing; an image and its mask differ in size; with `skip_bad`, too many are bad. On
            access, see `read_image` and `read_mask`.
    """

    def __init__(
        self,
        data: Path,
        split: str,
        transform: Transform | None = None,
        limit: int | None = None,
        skip_bad: bool = False,
    ):
        self.root, self.split, self.transform = find_root(data), split, transform
        self.classes = read_classes(self.root)
        self.ids = read_ids(self.root, split)[:limit]
        self.skipped: dict[str, str] = {}
        if skip_bad:
            self._leave_out_bad()  # which looks at all of that, too
        else:
            for image_id in self.ids:
                self._check(image_id)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return to_sample(self.ids[index], self.image(index), self.mask(index), self.transform)

    def image(self, index: int) -> np.ndarray:
        """The image as it is on disk, upright: (H, W, 3) uint8 RGB."""
        return read_image(self._paths(self.ids[index])[0])

    def mask(self, index: int) -> np.ndarray:
        """The mask as it is on disk: (H, W) uint8 class ids and VOID."""
        return read_mask(self._paths(self.ids[index])[1], len(self.classes))

    def spread(self, count: int) -> "VOCFolder":
        """The data set cut to `count` of its images, evenly spread over the list, or to all."""
        part, count = copy.copy(self), min(count, len(self))
        part.ids = [self.ids[index * len(self) // count] for index in range(count)]
        return part

    def count_pixels(self) -> tuple[np.ndarray, int]:
        """Pixels of each class over all masks at original size, (C,) int64, and void pixels."""
        counts = np.zeros(VOID + 1, dtype=np.int64)
        for index in range(len(self)):
            counts += np.bincount(self.mask(index).ravel(), minlength=len(counts))
        return counts[: len(self.classes)], int(counts[VOID])

    def absent_classes(self, counts: np.ndarray, has_void: bool) -> list[str]:
        """The names of the classes that the split does not have, by their pixels (C,).

        Raises:
            UserError: see `check_labels`.
        """
        check_labels(counts, has_void, f"{self.root}: the {len(self)} images of {self.split}")
        return [name for name, count in zip(self.classes.names, counts) if not count]

    def fingerprint(self) -> str:
        """Number and checksum of the ids, for a resumed run to compare."""
        return f"{len(self)} ({zlib.crc32(chr(10).join(self.ids).encode()):08x})"

    def _paths(self, image_id: str) -> tuple[Path, Path]:
        return find_pair(self.root, image_id, MASK_FOLDERS.get(self.split, "SegmentationClass"))

    def _check(self, image_id: str) -> None:
        """Raises a UserError if an image or mask is missing, or if their sizes differ."""
        image, mask = self._paths(image_id)
        for kind, path in (("image", image), ("mask", mask)):
            if not path.is_file():
                raise UserError(f"{path}: no {kind} for id {image_id!r} of split {self.split!r}")
        check_sizes(image, mask)

    def _reason(self, image_id: str) -> str | None:
        """Why an image cannot be used; None if it can."""
        try:
            self._check(image_id)
            image, mask = self._paths(image_id)
            read_image(image)
            read_mask(mask, len(self.classes))
        except UserError as error:
            return str(error)
        return None

    def _leave_out_bad(self) -> None:
        """Reads everything up front, so that all processes and epochs use the same images."""
        with ThreadPoolExecutor(READERS) as pool:
            reasons = dict(zip(self.ids, pool.map(self._reason, self.ids)))
        self.skipped = {image_id: reason for image_id, reason in reasons.items() if reason}
        if 100 * len(self.skipped) > MAX_SKIPPED * len(self.ids):
            raise UserError(
                f"{self.root}: {len(self.skipped)} of {len(self.ids)} images of {self.split} "
                f"cannot be used, more than the {MAX_SKIPPED} % that --skip-bad tolerates; "
                f"the first: {next(iter(self.skipped.values()))}"
            )
        self.ids = [image_id for image_id in self.ids if image_id not in self.skipped]


class TrainingSet(Dataset):
    """What step 3 trains on: a random square of each image, another one in each epoch.

    An item is asked for by (epoch, index), so that workers may live on from epoch to epoch, and is

        id, image (3, S, S) uint8, points (n, 2) float32, labels (n,) int64, kept

    The points are the centres of pixels drawn by `data.sampling.draw_pixels`, (y, x) as shares of
    the square. Where all pixels train, points are () and labels (S, S). `kept` are the hidden units
    that dropout keeps in this image, see `data.sampling.draw_kept`. All that is random follows from
    the seed, the epoch and the image's id: neither other images nor the process that reads matter.

    Args:
        folder: the images.
        augment: makes the square.
        pixels: n, or None for all.
        widths, dropout: of the classifier's hidden layers.
    """

    def __init__(
        self,
        folder: VOCFolder,
        augment: Augment,
        seed: int,
        pixels: int | None = None,
        widths: Sequence[int] = (),
        dropout: float = 0.0,
    ):
        self.folder, self.augment, self.seed, self.pixels = folder, augment, seed, pixels
        self.widths, self.dropout = widths, dropout
        self.ids, self.classes = folder.ids, folder.classes

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(
        self, item: tuple[int, int]
    ) -> tuple[str, Tensor, Tensor | tuple[()], Tensor, list[Tensor]]:
        epoch, index = item
        name = self.ids[index]
        generator = torch.Generator().manual_seed(image_seed(self.seed, epoch, name))
        augment = partial(self.augment, generator=generator)
        _, image, mask = to_sample(name, self.folder.image(index), self.folder.mask(index), augment)
        points, labels = (), mask.long()
        if self.pixels:
            drawn, labels = draw_pixels(mask, self.pixels, generator)
            points = pixel_centres(drawn, mask.shape)
        return name, image, points, labels, draw_kept(self.widths, self.dropout, generator)


def check_labels(counts: np.ndarray, has_void: bool, where: str) -> None:
    """Refuses masks from which nothing can be learned, by their pixels (C,) of each class.

    Raises:
        UserError: there is no labelled pixel, or only background and void, as in binary masks of
            0 and 255; says `where`.
    """
    if not counts.any():
        raise UserError(f"{where} have no labelled pixel")
    if has_void and counts[0] and not counts[1:].any():
        raise UserError(
            f"{where}: the masks hold only 0 and {VOID}, and {VOID} is void here: "
            "save the object as 1 (python -m data.convert does, with --map 0=0,255=1)"
        )


def to_sample(name: str, image: np.ndarray, mask: np.ndarray, transform: Transform) -> Sample:
    """A `Sample` of an image (H, W, 3) uint8 and its mask (H, W) uint8."""
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)
    return Sample(name, *transform(pixels, torch.from_numpy(mask)))


def photo_sample(name: str, image: np.ndarray, transform: Transform) -> Sample:
    """A `Sample` of a photo (H, W, 3) uint8 without a mask: all void."""
    return to_sample(name, image, np.full(image.shape[:2], VOID, dtype=np.uint8), transform)
