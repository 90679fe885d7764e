"""A data set in PASCAL VOC layout, see `data.voc_files`: its images with their masks.

For validation and pictures whole, `VOCFolder`; for step 3 random squares, `TrainingSet`.
"""

import copy
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data import UserError, first_of
from data.classes import VOID, read_classes
from data.files import hash_files
from data.image_files import check_sizes, read_image, read_mask, upright_size
from data.labels import check_labels, measure, sparse_note, thin_classes
from data.sampling import draw_kept, draw_pixels, image_seed, pixel_centres
from data.transforms import Augment, ResizeImage
from data.voc_files import DIVIDED, LISTS, find_ids, find_pair, find_root, read_ids, read_pairs

MAX_SKIPPED = 5  # per cent of a list that `skip_bad` may leave out; beyond, the data is in doubt


class Sample(NamedTuple):
    """One image with its mask."""

    id: str
    image: Tensor  # (3, h, w) uint8 RGB, as the network takes it
    mask: Tensor  # (H, W) uint8 class ids and VOID, as it is on disk


class VOCFolder(Dataset):
    """One split of a data set in VOC layout; item i is a `Sample`.

    Args:
        data: see `find_root`.
        transform: of an item's image, not of its mask; None leaves it as it is.
        limit: only the first ids of the list.
        skip_bad: read every image and mask at construction; leave out those that cannot be used.
        needs_lists: else, in a folder without any, train and val are all pairs of photo and mask.
        needs_masks: else, if no image of the list has one, all their pixels are void.

    Attributes:
        root: the folder in VOC layout.
        classes: names and colours.
        has_masks: False if they are void for want of masks.
        notes: what the user should know of the ids.
        skipped: id -> reason, in a line, of each image that `skip_bad` left out.

    Raises:
        UserError: on construction, see `find_root`, `read_ids` and `read_classes`; or too many
            images are bad; or without `skip_bad`, see `check_sizes`, for each of them, so that a
            hole in the data stops a run in its first second. On access, see `read_image` and
            `read_mask`.
    """

    def __init__(
        self,
        data: Path,
        split: str,
        transform: ResizeImage | None = None,
        limit: int | None = None,
        skip_bad: bool = False,
        needs_lists: bool = True,
        needs_masks: bool = True,
    ):
        self.root, self.split, self.transform = find_root(data, needs_lists), split, transform
        self.classes = read_classes(self.root)
        if needs_lists or split not in DIVIDED or (self.root / LISTS).is_dir():
            ids, self.notes = read_ids(self.root, split), []
        else:
            ids, self.notes = find_ids(self.root)
            taken = f"all {len(ids)} pairs of photo and mask are taken"
            self.notes.append(f"no lists in {self.root}: {taken}")
        self.ids = ids[:limit]
        self.skipped: dict[str, str] = {}
        pairs = [self.files(index) for index in range(len(self))]
        self.has_masks = needs_masks or any(mask.is_file() for _, mask in pairs)
        if skip_bad:  # all are read up front, so that all processes and epochs use the same
            reasons = zip(self.ids, read_pairs(pairs, self.classes, lambda mask: ""))
            self.skipped = {image_id: why for image_id, why in reasons if why}
            if 100 * len(self.skipped) > MAX_SKIPPED * len(self.ids):
                raise UserError(
                    f"{self.root}: {len(self.skipped)} of {len(self.ids)} images of {split} "
                    f"cannot be used, more than the {MAX_SKIPPED} % that --skip-bad tolerates; "
                    f"the first: {next(iter(self.skipped.values()))}"
                )
            self.ids = [image_id for image_id in self.ids if image_id not in self.skipped]
        elif self.has_masks:
            for pair in pairs:
                check_sizes(*pair)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        image = torch.from_numpy(self.image(index)).permute(2, 0, 1)
        if self.transform:
            image = self.transform(image)
        return Sample(self.ids[index], image, torch.from_numpy(self.mask(index)))

    def files(self, index: int) -> tuple[Path, Path]:
        """Those of an image and its mask."""
        return find_pair(self.root, self.ids[index], self.split)

    def image(self, index: int) -> np.ndarray:
        """The image as it is on disk, upright: (H, W, 3) uint8 RGB."""
        return read_image(self.files(index)[0])

    def mask(self, index: int) -> np.ndarray:
        """The mask as it is on disk: (H, W) uint8 class ids and VOID."""
        photo, mask = self.files(index)
        if not self.has_masks:
            return np.full(upright_size(photo), VOID, dtype=np.uint8)
        return read_mask(mask, self.classes)

    def spread(self, count: int) -> "VOCFolder":
        """The data set cut to `count` of its images, evenly spread over the list, or to all."""
        part, count = copy.copy(self), min(count, len(self))
        part.ids = [self.ids[index * len(self) // count] for index in range(count)]
        return part

    def measure(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each mask its pixels, (N, C + 1), and the outlines of all; see `labels.measure`."""
        masks = (self.mask(index) for index in range(len(self)))
        counts, outlines = zip(*(measure(mask, len(self.classes)) for mask in masks))
        return np.stack(counts), np.sum(outlines, axis=0)

    def note_labels(
        self, counts: np.ndarray, outlines: np.ndarray | None = None, size: int = 0
    ) -> None:
        """Prints what the user should know of the ids, see `notes`, and of the labels.

        Args:
            counts, outlines: see `measure`; the latter are judged for the network's `size`.

        Raises:
            UserError: see `check_labels`.
        """
        where, counts = f"the {len(self)} images of {self.split}", counts.sum(0)
        check_labels(counts, f"{self.root}: {where}")
        notes, names = [*self.notes, *sparse_note(counts)], self.classes.names
        if absent := [name for name, count in zip(names, counts) if not count]:
            notes.append(f"no pixel of {first_of(absent)} in {where}")
        if outlines is not None:
            notes += thin_classes(outlines, names, size)
        for note in notes:
            print(f"  note: {note}")

    def photo_hashes(self) -> np.ndarray:
        """What tells each photo from others, (N,) int64; see `hash_files`."""
        return hash_files(self.files(index)[0] for index in range(len(self)))

    def checksum(self, photos: np.ndarray) -> str:
        """Number and checksum of ids, photos (by their hashes) and masks, for runs to compare."""
        digest = zlib.crc32(repr(self.ids).encode() + photos.tobytes())
        for index in range(len(self)):
            digest = zlib.crc32(self.files(index)[1].read_bytes(), digest)
        return f"{len(self)} ({digest:08x})"


class TrainingSet(Dataset):
    """What step 3 trains on: a random square of each image, another one in each epoch.

    An item is asked for by (epoch, index), so that workers may live on from epoch to epoch, and is

        id, image (3, S, S) uint8, points (n, 2) float32, labels (n,) int64, kept

    The points are the centres of pixels drawn by `draw_pixels`, (y, x) as shares of the square; if
    `pixels` is None, all train: points are () and labels (S, S). `kept` are the hidden units that
    dropout keeps in this image, see `draw_kept`. With `mosaic`, a random other image is seen where
    this one does not reach. All that is random follows from the seed, the epoch and the image's id:
    neither other images (but for `mosaic`) nor the process that reads matter.
    """

    def __init__(
        self,
        folder: VOCFolder,
        augment: Augment,
        seed: int,
        pixels: int | None = None,
        widths: Sequence[int] = (),
        dropout: float = 0.0,
        mosaic: bool = False,
    ):
        self.folder, self.augment, self.seed, self.pixels = folder, augment, seed, pixels
        self.widths, self.dropout, self.mosaic = widths, dropout, mosaic

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(
        self, item: tuple[int, int]
    ) -> tuple[str, Tensor, Tensor | tuple[()], Tensor, list[Tensor]]:
        epoch, index = item
        name, image, mask = self.folder[index]
        generator = torch.Generator().manual_seed(image_seed(self.seed, epoch, name))
        behind = None
        if self.mosaic:
            other = int(torch.randint(len(self), (), generator=generator))
            behind = self.augment(*self.folder[other][1:], generator)
        image, mask = self.augment(image, mask, generator, behind)
        points, labels = (), mask.long()
        if self.pixels:
            drawn, labels = draw_pixels(mask, self.pixels, generator)
            points = pixel_centres(drawn, mask.shape)
        return name, image, points, labels, draw_kept(self.widths, self.dropout, generator)
