"""The whole network: image -> levels -> classifier -> logits -> class map at original size."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.classes import Classes
from models import RunError
from models.checkpoint import load_checkpoint, save_checkpoint
from models.classifier import DenseClassifier, FCClassifier, HiddenLayers
from models.hypercolumn import Hypercolumn, resample
from models.refine import guided_filter
from models.views import Views, mean_probabilities

REACH = 32  # pixels of the input to each side, over which refined edges look at the photo


class Segmenter(nn.Module):
    """Hypercolumn extractor and dense classifier, with what is needed to use them on an image.

    Args:
        hypercolumn, head: the two parts; the head's channels are the hypercolumn's.
        size: shorter side of the input images, in pixels.
        stride: the logits' grid is the input size over this, rounded up, in each direction.
        names: class names, C of them; colours: their RGB colours, 0..255.

    Attributes:
        origin: `fingerprint` of the backbone before it was fine-tuned; None where it is as it was.
        trained_on: the images that trained it, in words, to be stated beside every score.
        views: how `predict` looks at a photo.
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
        self.names, self.colours = list(names), [list(colour) for colour in colours]
        self.origin: str | None = None
        self.trained_on = "nothing"
        self.views = Views()
        self.amp: torch.dtype | None = None

    @property
    def classes(self) -> Classes:
        """Names and colours."""
        return Classes.from_lists(self.names, self.colours)

    def replace_classes(self, classes: Classes, seed: int) -> None:
        """Takes over other classes; the last layer of the head starts at random."""
        self.head.renew_last_layer(len(classes), seed)
        self.names, self.colours = list(classes.names), [list(c) for c in classes.colours]

    def forward(
        self,
        images: Tensor,
        points: Tensor | None = None,
        generators: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """Logits on the grid, or at points.

        Args:
            images: (B, 3, H, W) RGB, uint8 0..255 or float 0..1.
            points: (B, n, 2), (y, x) as shares of height and width; None means the grid.
            generators: for dropout, one per image, on the CPU; None means torch's global one.

        Returns:
            (B, C, ceil(H / stride), ceil(W / stride)), or (B, C, n); float32 at least.
        """
        with torch.autocast(images.device.type, self.amp, enabled=self.amp is not None):
            levels = self.hypercolumn(images)
            if points is None:
                logits = self.head.on_grid(levels, self.grid(images), generators)
            else:
                logits = self.head.at_points(levels, points, generators)
        return logits.float() if logits.dtype.itemsize < 4 else logits

    def grid(self, images: Tensor) -> tuple[int, int]:
        """(h, w) of the logits for a batch (B, 3, H, W)."""
        height, width = images.shape[-2:]
        return -(-height // self.stride), -(-width // self.stride)

    @property
    def input_size(self) -> int:
        """Shorter side of the images that `predict` takes: `size` at the largest of the scales."""
        return round(self.size * self.views.scales[-1])

    def predict(self, image: Tensor, size: tuple[int, int], name: str = "an image") -> Tensor:
        """The class map of a photo.

        Args:
            image: (3, h, w) uint8 RGB on any device, its shorter side at `input_size`.
            size: (height, width) of the photo.
            name: of the photo, for the error.

        Returns:
            (height, width) uint8 class ids, on the CPU.

        Raises:
            RunError: what the network computes is not finite.
        """
        return top_class(self.scores(image, name)[0], size)[0].cpu()

    def predict_with_confidence(
        self, image: Tensor, size: tuple[int, int], name: str = "an image"
    ) -> tuple[Tensor, Tensor]:
        """The class map of `predict`, and the probability of each pixel's class.

        Returns:
            (height, width) uint8 and (height, width) float32, 0..1, on the CPU.
        """
        scores, are_logits = self.scores(image, name)
        classes, best = top_class(scores, size)
        if are_logits:
            best = (best - log_sum_exp(scores, size)).exp()
        return classes.cpu(), best.clamp(0, 1).cpu()  # what refining carried beyond is cut

    def probabilities(self, image: Tensor, size: tuple[int, int], name: str = "an image") -> Tensor:
        """The probabilities of all classes at each pixel of a photo; see `predict`.

        Returns:
            (C, height, width) float32, on the CPU; for 12 megapixels and 21 classes 1 GB.
        """
        scores, are_logits = self.scores(image, name)
        scores = resample(scores[None], size)[0]
        return (scores.softmax(0) if are_logits else scores.clamp(0, 1)).cpu()

    @torch.inference_mode()
    def scores(self, image: Tensor, name: str) -> tuple[Tensor, bool]:
        """Scores (C, h, w) of an image (3, H, W), in eval mode, and whether they are logits.

        One unrefined view gives its logits. Several give the mean of their probabilities on the
        grid of the largest, from which the others are made smaller; refined ones have the image's
        size.

        Raises:
            RunError: a score is not finite; gives the image's name.
        """
        was_training = self.training
        self.eval()
        image, views = image[None].to(self.hypercolumn.mean.device), self.views
        if views == Views():
            scores = self(image)
        else:
            scores = mean_probabilities(self, image, views, self.grid(image))
            if views.refine:
                scores = guided_filter(scores, image, max(1, round(REACH / self.stride)))
        self.train(was_training)
        if not scores.isfinite().all():
            raise RunError(
                f"{name}: the network's scores are not finite; are its weights damaged, or was "
                "--lr too large?"
            )
        return scores[0], views == Views()

    def description(self) -> dict[str, Any]:
        """What the network is made of, but for its weights: plain values."""
        head = self.head
        return {
            "hypercolumn": self.hypercolumn.spec(),
            "head": {"channels": head.channels, **asdict(head.hidden)},
            "size": self.size,
            "stride": self.stride,
            "classes": self.names,
            "colours": self.colours,
            "trained_on": self.trained_on,
            "origin": self.origin,
        }


def top_class(scores: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The class with the highest score at each pixel, scores resampled bilinearly, and that score.

    One class after the other, so that memory does not grow with their number: the logits of 12
    megapixels and 21 classes would take 1 GB.

    Args:
        scores: (C, h, w) floating point.
        size: (H, W).

    Returns:
        (H, W) uint8 and (H, W) of the scores' dtype.
    """
    best = resample(scores[:1, None], size)[0, 0]
    classes = torch.zeros_like(best, dtype=torch.uint8)
    for label in range(1, len(scores)):
        score = resample(scores[label][None, None], size)[0, 0]
        classes.masked_fill_(score > best, label)
        best = torch.maximum(best, score)
    return classes, best


def log_sum_exp(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """log(sum(exp)) over the classes of logits (C, h, w), resampled bilinearly to (H, W)."""
    total = resample(logits[:1, None], size)[0, 0]
    for logit in logits[1:]:
        total = torch.logaddexp(total, resample(logit[None, None], size)[0, 0])
    return total


def save_extractor(path: Path, hypercolumn: Hypercolumn) -> None:
    """Saves the extractor with its weights: later steps need neither weights file nor network."""
    spec, state = hypercolumn.spec(), hypercolumn.state_dict()
    save_checkpoint(path, "extractor", hypercolumn=spec, state=state)


def load_extractor(path: Path) -> Hypercolumn:
    """The extractor of `save_extractor`, on the CPU.

    Raises:
        RunError: see `models.checkpoint.load_checkpoint`.
    """
    content = load_checkpoint(path, "extractor")
    hypercolumn = _empty_extractor(content["hypercolumn"])
    hypercolumn.load_state_dict(content["state"])
    return hypercolumn


def save_head(path: Path, fc: FCClassifier, segmenter: Segmenter) -> None:
    """Saves the fully connected classifier and the description of the segmenter made from it."""
    save_checkpoint(path, "head", **segmenter.description(), state=fc.state_dict())


def save_segmenter(path: Path, segmenter: Segmenter, **training: Any) -> None:
    """Saves all that is needed to rebuild the segmenter, and what a training wants to keep."""
    state = segmenter.state_dict()
    save_checkpoint(path, "segmenter", **segmenter.description(), state=state, **training)


def load_segmenter(path: Path) -> tuple[Segmenter, dict[str, Any]]:
    """The segmenter of `save_segmenter`, on the CPU, and the whole content of the file.

    Raises:
        RunError: see `models.checkpoint.load_checkpoint`.
    """
    content = load_checkpoint(path, "segmenter")
    for name in ("size", "stride"):
        if type(content[name]) is not int or content[name] < 1:
            raise RunError(f"{path}: its {name} is {content[name]!r}; is the file damaged?")
    head, names = content["head"], content["classes"]
    channels = head.pop("channels")
    hidden = HiddenLayers(tuple(head.pop("widths")), **head)
    moments = torch.zeros(sum(channels)), torch.ones(sum(channels))
    segmenter = Segmenter(
        _empty_extractor(content["hypercolumn"]),
        DenseClassifier(channels, *moments, len(names), hidden),
        content["size"],
        content["stride"],
        names,
        content["colours"],
    )
    segmenter.load_state_dict(content["state"])
    segmenter.trained_on, segmenter.origin = content["trained_on"], content["origin"]
    return segmenter, content


def _empty_extractor(spec: dict[str, Any]) -> Hypercolumn:
    names = ("backbone", "taps", "context", "dilated")
    return Hypercolumn(weights=None, **{name: spec[name] for name in names})
