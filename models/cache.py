"""Frozen levels on disk, so that every epoch after the first skips the backbone."""

import shutil
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models import RunError
from models.backbones import fingerprint
from models.files import atomic_file, first_line
from models.hypercolumn import Hypercolumn

GIB = 1 << 30
PREFIX = "cache_"


def is_cache(path: Path) -> bool:
    """Whether a path is the folder of a cache."""
    return path.name.startswith(PREFIX)


class LevelCache:
    """The levels of a frozen extractor, one file an image, float16 at their native resolution.

    Rounding to float16 moves a value by at most a two-thousandth of itself; all else is as without the cache. A file's
    name tells the pixels it was made from, so an image that changes is computed anew: random augmentation and a cache
    exclude each other.

    Args:
        parent: where the cache's folder goes; its name tells the extractor, its taps and the input size, so that files
            of another one are never read.
        size: shorter side of the input images, in pixels.
    """

    def __init__(self, parent: Path, hypercolumn: Hypercolumn, size: int):
        self.hypercolumn = hypercolumn
        levels = "-".join(map(str, [*hypercolumn.taps, *hypercolumn.context, f"dilated{hypercolumn.dilated}"]))
        self.folder = parent / f"{PREFIX}{fingerprint(hypercolumn)}_levels_{levels}_size_{size}"

    def make_room(self, shapes: Iterable[tuple[int, int]], budget: float) -> str:
        """Checks, before anything is computed, that the levels of images of these (height, width) will fit.

        Args:
            budget: GiB.

        Returns:
            The size and the place of the cache, in words.

        Raises:
            RunError: it would exceed the budget, or the disk has less room than is still to be written.
        """
        shapes = list(shapes)
        sizes = {shape: 2 * sum(map(np.prod, self.hypercolumn.level_shapes(*shape))) for shape in set(shapes)}
        needed = sum(int(sizes[shape]) for shape in shapes)
        if needed > budget * GIB:
            raise RunError(
                f"--cache {budget:g}: the levels of {len(shapes)} images take {needed / GIB:.3g} GiB; "
                "allow that much, use fewer images or levels, or leave --cache out"
            )
        missing = needed - sum(file.stat().st_size for file in self.folder.rglob("*.npz"))
        free = shutil.disk_usage(next(filter(Path.exists, self.folder.absolute().parents))).free
        if missing > free:
            raise RunError(
                f"--cache: {self.folder} needs {missing / GIB:.3g} GiB more, but its disk has {free / GIB:.3g} GiB free"
            )
        return f"{needed / GIB:.3g} GiB in {self.folder}, removed at the end"

    def __call__(self, ids: Sequence[str], images: Tensor) -> list[Tensor]:
        """The levels of a batch (B, 3, H, W) of images with these ids, float32: read, or computed and kept.

        Raises:
            RunError: a file of the cache is damaged, or a value is too large for float16.
        """
        paths = [self._path(image_id, image) for image_id, image in zip(ids, images)]
        new = [index for index, path in enumerate(paths) if not path.is_file()]
        if new:
            levels = [level.half().cpu() for level in self.hypercolumn(images[new])]
            for position, index in enumerate(new):
                self._write(paths[index], [level[position] for level in levels])
        columns = zip(*map(self._read, paths))
        return [torch.stack(level).to(images.device).permute(0, 3, 1, 2) for level in columns]

    def remove(self) -> None:
        """Deletes the cache."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, image_id: str, image: Tensor) -> Path:
        height, width = image.shape[-2:]
        return self.folder / f"{image_id}.{height}x{width}.{zlib.crc32(image.cpu().numpy().tobytes()):08x}.npz"

    def _write(self, path: Path, levels: list[Tensor]) -> None:
        if not all(level.isfinite().all() for level in levels):
            name = path.relative_to(self.folder).as_posix().rsplit(".", 3)[0]
            raise RunError(f"--cache: {name} has activations too large for float16; leave out --cache and --amp fp16")
        with atomic_file(path) as file:  # channels last, as the dense head wants them
            np.savez(file, *[level.permute(1, 2, 0).numpy() for level in levels])

    def _read(self, path: Path) -> list[Tensor]:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return [torch.from_numpy(arrays[name]).float() for name in arrays.files]
        except Exception as error:  # numpy and zipfile raise many kinds on damaged files
            raise RunError(f"{path}: cannot be read ({first_line(error)}); delete it and go on with --resume") from None
