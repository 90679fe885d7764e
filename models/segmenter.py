"""The whole network: image -> levels -> logits -> probabilities -> class map at original size."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import resize

from data import UserError
from data.classes import Classes
from data.transforms import LEAST_SIDE
from models.classifier import DenseClassifier
from models.hypercolumn import Hypercolumn, resample
from models.memory import give_back_freed_memory
from models.views import Views, blended, enlarged, guided_filter
from models.weight_files import fingerprint

# Photos, after which memory is given back; after each one, it would cost a third of the time.
GIVE_BACK_EVERY = 20
REACH = 32  # pixels of the input to each side, over which refined edges look at the photo


class Segmenter(nn.Module):
    """Hypercolumn extractor and dense classifier, with what is needed to use them on an image.

    Args:
        hypercolumn, head: the two parts; the head's channels are the hypercolumn's.
        size: shorter side of the input images, in pixels.
        stride: the logits' grid is the input size over this, rounded up, in each direction.
        classes: names and colours, C of them.

    Attributes:
        origin: `fingerprint` of the backbone before it was fine-tuned; None where it is as it was.
        trained_on: the images that trained it, in words, to be stated beside every score.
        history: the settings of each step that made it, plain values, by its script; {}: not known.
        seen: what tells them from others, (n,) int64; see `VOCFolder.photo_hashes`.
        views: how `predict` looks at a photo.
        amp: the dtype of autocast, or None for exact float32.
    """

    def __init__(
        self,
        hypercolumn: Hypercolumn,
        head: DenseClassifier,
        size: int,
        stride: int,
        classes: Classes,
    ):
        super().__init__()
        self.hypercolumn, self.head = hypercolumn, head
        self.size, self.stride, self.classes = size, stride, classes
        self.origin: str | None = None
        self.trained_on = "nothing"
        self.history: dict[str, dict[str, Any]] = {}
        self.seen = torch.zeros(0, dtype=torch.int64)
        self.views = Views()
        self.amp: torch.dtype | None = None
        self._photos = 0  # that `rows` has seen

    @torch.random.fork_rng(devices=[])
    def replace_classes(self, classes: Classes, seed: int) -> None:
        """Takes over other classes; the last layer of the head starts at random."""
        torch.manual_seed(seed)
        layers, self.classes = self.head.layers, classes
        layers[-1] = self.head.layer(layers[-1].in_channels, len(classes))

    def forward(
        self, images: Tensor, points: Tensor | None = None, kept: Sequence[Tensor] = ()
    ) -> Tensor:
        """Logits (B, C, ceil(H / stride), ceil(W / stride)) on the grid, or (B, C, n) at points.

        Args:
            images: (B, 3, H, W) RGB, uint8 0..255 or float 0..1.
            points, kept: see `DenseClassifier.forward`; None means the grid.
        """
        amp = torch.autocast(images.device.type, self.amp) if self.amp else nullcontext()
        with amp:
            levels = self.hypercolumn(images)
            logits = self.head(levels, self.grid(images) if points is None else points, kept)
        return logits.float() if logits.dtype.itemsize < 4 else logits

    def grid(self, images: Tensor) -> tuple[int, int]:
        """(h, w) of the logits for a batch (B, 3, H, W)."""
        height, width = images.shape[-2:]  # not -(-side // stride): ONNX divides towards zero
        return (height + self.stride - 1) // self.stride, (width + self.stride - 1) // self.stride

    @property
    def input_size(self) -> int:
        """Shorter side of the images that `predict` takes: `size` at the largest of the scales."""
        return round(self.size * self.views.scales[-1])

    def identity(self) -> str:
        """What stands for the network and how it sees a photo: its weights, size and stride."""
        return f"{fingerprint(self)} {self.size}/{self.stride}"

    def remember(self, photos: np.ndarray) -> None:
        """Takes note of photos that train it, by their hashes (N,) int64."""
        self.seen = torch.cat([self.seen, torch.from_numpy(photos)]).unique()

    def has_seen(self, photos: np.ndarray) -> int:
        """How many of these photos have trained it, by their hashes (N,) int64."""
        return int(torch.isin(torch.from_numpy(photos), self.seen).sum())

    def look(self, views: Views, size: int | None = None, dilate: int | None = None) -> None:
        """Sets `views` and, unless it is None, `size`; dilates the last strides, see `Hypercolumn`.

        Raises:
            UserError: size or tile are too small for the backbone, or a tile for the stride.
        """
        self.views, self.size = views, self.size if size is None else size
        if dilate is not None:
            self.hypercolumn.dilate(dilate)
        self.hypercolumn.check_size(self.size)
        if views.tile is not None:
            self.hypercolumn.check_size(views.tile, "--tile")
            if views.tile < (least := max(self.stride, LEAST_SIDE)):
                raise UserError(f"--tile {views.tile}: a window needs at least {least} pixels")

    def predict(
        self, image: Tensor, size: tuple[int, int], name: str = "the photo"
    ) -> tuple[Tensor, Tensor]:
        """The class ids (height, width) of a photo, uint8, and how likely each is, on the CPU.

        Args:
            image, name: as for `probabilities`.
            size: (height, width) of the photo.
        """
        classes, best = decided(self.rows(image, size, name), size)
        return classes.cpu(), best.cpu()

    def rows(
        self, image: Tensor, size: tuple[int, int], name: str = "the photo"
    ) -> Iterator[Tensor]:
        """The probabilities (C, n, width) of n rows of the photo after the other; as `predict`.

        So memory is bounded, by the views' tile, too, and for photos of any number of sizes.
        """
        seen, cell = partial(self.probabilities, name=name), 1 if self.views.refine else self.stride
        image = image.to(self.hypercolumn.mean.device)
        strips = blended(seen, image, len(self.classes), self.views.tile, cell)
        yield from enlarged(strips, -(-image.shape[1] // cell), size)
        self._photos += 1
        if self._photos % GIVE_BACK_EVERY == 0:
            give_back_freed_memory()

    @torch.inference_mode()
    def probabilities(self, image: Tensor, name: str = "the photo") -> Tensor:
        """The probabilities of the classes: the mean over the views.

        Args:
            image: (3, h, w) uint8 RGB on any device, its shorter side at `input_size`.
            name: of the photo, for the error.

        Returns:
            (C, h, w) float32, on the grid of the largest view, or with refined edges at its size.

        Raises:
            UserError: what the network computes is not finite.
        """
        image = image[None].to(self.hypercolumn.mean.device)
        seen = []
        for scale in self.views.scales:
            share = scale / self.views.scales[-1]
            shape = [max(min(side, LEAST_SIDE), round(side * share)) for side in image.shape[-2:]]
            view = resize(image, shape, antialias=True) if share < 1 else image
            seen.append(self(view).softmax(1))
            if self.views.flip:
                seen.append(self(view.flip(-1)).softmax(1).flip(-1))
        found = sum(resample(scores, self.grid(image)) for scores in seen) / len(seen)
        if self.views.refine:
            found = guided_filter(found, image, max(1, round(REACH / self.stride))).clamp_(0, 1)
        if not found.isfinite().all():
            raise UserError(
                f"{name}: the network's scores are not finite; are its weights damaged, or was "
                "--lr too large?"
            )
        return found[0]


def top_class(scores: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """`decided` for scores (C, h, w) on a grid, resampled bilinearly."""
    return decided(enlarged([scores], scores.shape[1], size), size)


def decided(rows: Iterable[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The class with the highest score at each pixel, (H, W) uint8, and that score, (H, W).

    Args:
        rows: scores (C, n, W), floating point, of n rows of pixels after the other.
        size: (H, W) in pixels; the results are made once, as those of a large photo are large.
    """
    done = 0
    for scores in rows:
        if not done:
            classes, best = scores.new_empty(size, dtype=torch.uint8), scores.new_empty(size)
        part = slice(done, done := done + scores.shape[1])
        best[part], classes[part] = scores.max(0)
    return classes, best
