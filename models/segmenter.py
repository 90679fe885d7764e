"""The whole network: image -> hypercolumn levels -> dense classifier -> logits -> class map at the original size."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2.functional import resize

from models import RunError
from models.classifier import DenseClassifier
from models.files import first_line
from models.hypercolumn import Hypercolumn, corners_of, pixel_centres, resample
from models.refine import guided_filter

PRECISIONS = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
CPU_BATCH = 2  # larger batches leave a CPU's caches and the allocator's reused memory, and take longer per image
REACH = 32  # pixels of the input to each side, over which refined edges look at the photo
LEAST_SIDE = 32  # pixels of a scaled view, which the backbones need
STRIP = 1 << 22  # logits held at original resolution at a time: 16 MiB of float32, whatever the size of the photo


class Photo(Protocol):
    """What a prediction needs of an image: (3, h, w) uint8 with the shorter side resized, and its original size."""

    image: np.ndarray
    size: tuple[int, int]


AnyPhoto = TypeVar("AnyPhoto", bound=Photo)
Found = TypeVar("Found")


class Segmenter(nn.Module):
    """Hypercolumn extractor and dense classifier, with what is needed to use them on an image.

    Args:
        hypercolumn, head: the two parts; the head's channels are the hypercolumn's.
        size: shorter side of the input images, in pixels.
        stride: the logits' grid is the input size over this, rounded up, in each direction.
        names: class names, C of them; colours: their RGB colours, 0..255.

    Attributes:
        origin: `fingerprint` of the backbone before it was fine-tuned; None where it is as it was.
        scales, flips, refined: how predictions look at a photo, see `look`.
        trained_on: the images that the head has been trained on, in words, to be stated beside every score.
        amp: the dtype of autocast, or None for exact float32.
    """

    def __init__(
        self,
        hypercolumn: Hypercolumn,
        head: DenseClassifier,
        size: int,
        stride: int,
        names: Sequence[str],
        colours: Sequence[Sequence[int]],
    ):
        super().__init__()
        self.hypercolumn, self.head = hypercolumn, head
        self.size, self.stride = size, stride
        self.origin: str | None = None
        self.scales, self.flips, self.refined = [1.0], [False], False
        self.trained_on = "nothing"
        self.amp: torch.dtype | None = None
        self.names, self.colours = list(names), [list(colour) for colour in colours]

    def speed_up(self, amp: str = "off", compiled: bool = False) -> str:
        """Chooses the precision and whether the backbone is compiled, on the device where the network is now.

        Args:
            amp: "off" for exact float32, or the format of autocast: "bf16" or "fp16".
            compiled: through `torch.compile`; the first images then take a minute more.

        Returns:
            The choice, in words.

        Raises:
            RunError: the device does not have that autocast, or there is no compiler.
        """
        device, precision = self.hypercolumn.mean.device, PRECISIONS[amp]
        if precision and not _has_autocast(device.type, precision):
            raise RunError(f"--amp {amp}: not available on {device.type}; leave --amp out")
        if compiled:
            try:
                torch.compile(torch.relu)(torch.zeros(2, device=device))
            except Exception as error:  # compilers fail in many ways; all mean the same to the user
                raise RunError(f"--compile: no working compiler here ({first_line(error)}); leave it out") from None
            self.hypercolumn.compile(dynamic=True)
        self.amp = precision
        return (f"autocast to {amp}" if self.amp else "exact float32") + ", compiled" * compiled

    def look(self, scales: Sequence[float], flip: bool, dilated: int | None = None, refined: bool = False) -> str:
        """Chooses how predictions look at a photo, and says it in words; probabilities of several views are averaged.

        Args:
            scales: of the input, beside 1.
            flip: whether each view is also seen in a mirror.
            dilated: so many of the last pooling layers have no stride; None leaves them as they are.
            refined: whether edges follow those of the photo, see `models.refine`.

        Raises:
            RunError: there are not so many pooling layers.
        """
        self.scales, self.flips, self.refined = sorted({1.0, *scales}), [False, True] if flip else [False], refined
        if dilated is not None and dilated != self.hypercolumn.dilated:
            self.hypercolumn.dilate(dilated)
        words = "one view of each image"
        if len(self.scales) > 1 or flip:
            scales_in_words = ", ".join(f"{scale:g}" for scale in self.scales)
            words = f"mean probabilities at scales {scales_in_words}" + ", flipped too" * flip
        words += f", last {self.hypercolumn.dilated} poolings dilated" if self.hypercolumn.dilated else ""
        return words + ", edges refined" * refined

    @property
    def input_size(self) -> int:
        """Shorter side of the images that `predict` wants, in pixels: `size` at the largest of the scales."""
        return round(self.size * self.scales[-1])

    def autocast(self) -> torch.autocast:
        """The context in which the network runs: its precision."""
        return torch.autocast(self.hypercolumn.mean.device.type, self.amp, enabled=self.amp is not None)

    def grid(self, images: Tensor) -> tuple[int, int]:
        """(h, w) of the logits for a batch (B, 3, H, W)."""
        height, width = images.shape[-2:]
        return -(-height // self.stride), -(-width // self.stride)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB, uint8 0..255 or float 0..1 -> logits (B, C, ceil(H / stride), ceil(W / stride))."""
        with self.autocast():
            levels = self.hypercolumn(images)
        return self.logits(levels, self.grid(images))

    def logits(
        self, levels: Sequence[Tensor], grid: tuple[int, int], generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """The head on the levels of a batch: (B, C, *grid), float32 whatever the precision.

        `generators`, one an image, decide in training what dropout drops.
        """
        with self.autocast():
            return self.head.on_levels(levels, grid, generators)

    def logits_at(
        self,
        levels: Sequence[Tensor],
        grid: tuple[int, int] | None,
        points: Tensor,
        generators: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """The logits on the grid, resampled bilinearly to a few places, at the cost of four hypercolumns for each.

        Args:
            levels: of a batch.
            grid: (h, w), see `grid`; None means the logits of the hypercolumns at the places themselves, one for each.
            points: (B, n, 2), (y, x) as fractions of height and width.
            generators: see `logits`.

        Returns:
            (B, C, n); with a grid what `resample(self(images), size)` holds at the pixels whose centres the points are.
        """
        corners, shares = corners_of(points, grid) if grid else (None, None)
        places = pixel_centres(corners, grid).flatten(1, 2) if grid else points
        with self.autocast():
            logits = self.head.at_points(levels, places, generators)
        return (logits.unflatten(-1, shares.shape[1:]) * shares.unsqueeze(1)).sum(-1) if grid else logits

    @torch.inference_mode()
    def predict(self, photos: Sequence[Photo]) -> list[np.ndarray]:
        """Class maps of photos, each at its original size; those of one size go through together.

        Dropout is off for the call; a module in training mode comes back in training mode.

        Args:
            photos: with the shorter side at `input_size`.

        Returns:
            (height, width) uint8 class ids each, in the order of the photos.
        """
        return self._at_original(photos, lambda scores, size: argmax_at(scores, size).cpu().numpy())

    @torch.inference_mode()
    def predict_with_confidence(self, photos: Sequence[Photo]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The class maps of `predict`, each with the probability (height, width) float32, 0..1, of its classes."""

        def read(scores: Tensor, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
            classes, top = top_at(scores, size, are_logits=self._gives_logits())
            return classes.cpu().numpy(), top.cpu().numpy()

        return self._at_original(photos, read)

    def _at_original(self, photos: Sequence[Photo], read: Callable[[Tensor, tuple[int, int]], Found]) -> list[Found]:
        """What is read off each photo's scores (C, h, w), given its original size; see `predict`."""
        was_training, device = self.training, self.hypercolumn.mean.device
        found: list[Found | None] = [None] * len(photos)
        try:
            self.eval()
            for indices in same_size([photo.image for photo in photos], device):
                images = torch.from_numpy(np.stack([photos[index].image for index in indices]))
                for index, scores in zip(indices, self._scores(images.to(device))):
                    found[index] = read(scores, photos[index].size)
        finally:
            self.train(was_training)
        return found

    def _views(self) -> list[tuple[float, bool]]:
        """(scale, flipped) of each view that a prediction averages."""
        return [(scale, flipped) for scale in self.scales for flipped in self.flips]

    def _gives_logits(self) -> bool:
        """Whether the scores of a prediction are logits; else they are probabilities."""
        return len(self._views()) == 1 and not self.refined

    def _scores(self, images: Tensor) -> Tensor:
        """Logits (B, C, h, w); or, of several views, the mean of their probabilities, on the grid of the largest.

        The images come at the largest scale; the other views, that at scale 1 too, are made smaller from there. Refined
        probabilities have the size of the images.
        """
        if self._gives_logits():
            return self(images)
        views, total, grid = self._views(), 0, self.grid(images)
        for scale, flipped in views:
            shape = [max(min(side, LEAST_SIDE), round(side * scale / self.scales[-1])) for side in images.shape[-2:]]
            view = resize(images, shape, antialias=True) if scale < self.scales[-1] else images
            probabilities = self(view.flip(-1) if flipped else view).softmax(1)
            total = total + resample(probabilities.flip(-1) if flipped else probabilities, grid)
        mean = total / len(views)
        return guided_filter(mean, images, max(1, round(REACH / self.stride))) if self.refined else mean

    def predict_all(self, batches: Iterable[Sequence[AnyPhoto]]) -> Iterator[tuple[AnyPhoto, np.ndarray]]:
        """Each photo of the batches with its class map, one after the other; see `predict`."""
        for photos in batches:
            yield from zip(photos, self.predict(photos))


def _has_autocast(device: str, dtype: torch.dtype) -> bool:
    """Whether autocast to the dtype does anything on this kind of device; where not, torch warns or fails."""
    if not torch.amp.is_autocast_available(device):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.autocast(device, dtype):
                return torch.is_autocast_enabled(device)
        except RuntimeError:
            return False


def same_size(images: Sequence[np.ndarray], device: torch.device) -> Iterator[list[int]]:
    """Groups of indices of the images (3, h, w) that have one size: each group is a batch without padding.

    On a CPU a group has at most `CPU_BATCH` images.
    """

    def shape(index: int) -> tuple[int, ...]:
        return images[index].shape

    for _, group in groupby(sorted(range(len(images)), key=shape), key=shape):
        indices = list(group)
        at_once = CPU_BATCH if device.type == "cpu" else len(indices)
        for start in range(0, len(indices), at_once):
            yield indices[start : start + at_once]


def argmax_at(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The most likely class at a larger (or smaller) size: bilinear logits, then argmax, strip by strip of rows.

    Equals `F.interpolate(logits, size, mode="bilinear", align_corners=False).argmax(channel)`, without holding the
    logits of a whole large photo.

    Args:
        logits: (C, h, w) floating point.
        size: (H, W).

    Returns:
        (H, W) uint8.
    """
    # max gives argmax, four times faster on a CPU
    return torch.cat([strip.max(0).indices.to(torch.uint8) for strip in _strips_at(logits, size)])


def top_at(scores: Tensor, size: tuple[int, int], are_logits: bool) -> tuple[Tensor, Tensor]:
    """The class of `argmax_at` and its probability, as frugal with memory.

    Args:
        scores: (C, h, w) floating point: logits, or probabilities already.
        size: (H, W).

    Returns:
        (H, W) uint8, and (H, W) float32, 0..1 (what a filter has carried beyond is cut).
    """
    classes, tops = [], []
    for strip in _strips_at(scores, size):
        top, indices = strip.max(0)
        classes.append(indices.to(torch.uint8))
        tops.append((top - strip.logsumexp(0)).exp() if are_logits else top)
    return torch.cat(classes), torch.cat(tops).float().clamp(0, 1)


def _strips_at(logits: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """Bilinear logits (C, h, w) at size (H, W), as strips (C, rows, W) of at most `STRIP` values, from the top."""
    (channels, source_height, _), (height, width) = logits.shape, size
    places = ((torch.arange(height, device=logits.device) + 0.5) * (source_height / height) - 0.5).clamp(min=0)
    above = places.long().clamp(max=source_height - 1)
    below = (above + 1).clamp(max=source_height - 1)
    share = (places - above).to(logits.dtype).view(-1, 1)
    for rows in torch.arange(height, device=logits.device).split(max(1, STRIP // (channels * width))):
        strip = torch.lerp(logits[:, above[rows]], logits[:, below[rows]], share[rows])
        yield F.interpolate(strip[None], (len(rows), width), mode="bilinear", align_corners=False)[0]
