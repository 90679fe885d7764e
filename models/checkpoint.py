"""Checkpoints: plain dicts of tensors, numbers, strings and lists; saved atomically, loaded without running code."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from models import RunError
from models.classifier import DenseClassifier, FCClassifier
from models.files import atomic_file, first_line, load_plain
from models.hypercolumn import Hypercolumn
from models.segmenter import Segmenter

FORMAT = 1  # raised when an older program could no longer read what we write


def save_checkpoint(path: Path, kind: str, **content: Any) -> None:
    """Saves `content` (tensors, numbers, strings, lists and dicts of them) with its kind and format version."""
    whole = io.BytesIO()  # on a full disk torch.save would speak of its own positions, and not of the disk
    torch.save({"format": FORMAT, "kind": kind, **content}, whole)
    with atomic_file(path) as file:
        file.write(whole.getbuffer())


def load_checkpoint(path: Path, kind: str) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote, onto the CPU, with `weights_only=True`.

    Raises:
        RunError: the file is missing, damaged, holds pickled code, is of another kind or from a newer version.
    """
    content = load_plain(path, "checkpoint")
    if not isinstance(content, dict) or content.get("kind") != kind:
        found = content.get("kind") if isinstance(content, dict) else type(content).__name__
        raise RunError(f"{path}: not a {kind} checkpoint of this project (found: {found})")
    if not isinstance(content.get("format"), int):
        raise RunError(f"{path}: does not say which format it has; is the file damaged?")
    if content["format"] > FORMAT:
        raise RunError(f"{path}: written by a newer version (format {content['format']}, this one reads {FORMAT})")
    return content


def save_extractor(path: Path, hypercolumn: Hypercolumn) -> None:
    """Saves the extractor with its weights, so that later steps need neither the weights file nor the network."""
    save_checkpoint(path, "extractor", hypercolumn=hypercolumn.spec(), state=hypercolumn.state_dict())


def load_extractor(path: Path) -> Hypercolumn:
    """The extractor of `save_extractor`, on the CPU.

    Raises:
        RunError: see `load_checkpoint`; or the content does not make an extractor.
    """
    content = load_checkpoint(path, "extractor")
    with _described(path):
        hypercolumn = _empty_extractor(content["hypercolumn"])
        hypercolumn.load_state_dict(content["state"])
    return hypercolumn


def save_head(path: Path, fc: FCClassifier, segmenter: Segmenter) -> None:
    """Saves the fully connected classifier, with the description of the segmenter that was made from it."""
    save_checkpoint(path, "head", **_description(segmenter), state=fc.state_dict())


def load_head(path: Path) -> FCClassifier:
    """The fully connected classifier of `save_head`, on the CPU.

    Raises:
        RunError: see `load_checkpoint`; or the content does not make a classifier.
    """
    content = load_checkpoint(path, "head")
    with _described(path):
        head, Z = content["head"], sum(content["head"]["channels"])
        classes = len(content["classes"])
        fc = FCClassifier(torch.zeros(Z), torch.ones(Z), classes, head["hidden"], head["dropout"])
        fc.load_state_dict(content["state"])
    return fc


def save_segmenter(path: Path, segmenter: Segmenter, **training: Any) -> None:
    """Saves everything needed to rebuild the segmenter, and whatever else a training wants to keep."""
    save_checkpoint(path, "segmenter", **_description(segmenter), state=segmenter.state_dict(), **training)


def load_segmenter(path: Path) -> tuple[Segmenter, dict[str, Any]]:
    """The segmenter of `save_segmenter`, on the CPU, and the whole content (for the training that is in it).

    Raises:
        RunError: see `load_checkpoint`; or the content does not make a segmenter.
    """
    content = load_checkpoint(path, "segmenter")
    with _described(path):
        head, classes = content["head"], content["classes"]
        moments = torch.zeros(sum(head["channels"])), torch.ones(sum(head["channels"]))
        segmenter = Segmenter(
            _empty_extractor(content["hypercolumn"]),
            DenseClassifier(head["channels"], *moments, len(classes), head["hidden"], head["dropout"]),
            content["size"],
            content["stride"],
            classes,
            content["colours"],
        )
        segmenter.load_state_dict(content["state"])
        segmenter.trained_on, segmenter.origin = content["trained_on"], content.get("origin")
    return segmenter, content


def _description(segmenter: Segmenter) -> dict[str, Any]:
    """What the segmenter is made of, but for its weights."""
    head = segmenter.head
    return {
        "hypercolumn": segmenter.hypercolumn.spec(),
        "head": {"channels": head.channels, "hidden": head.hidden, "dropout": head.dropout},
        "size": segmenter.size,
        "stride": segmenter.stride,
        "classes": segmenter.names,
        "colours": segmenter.colours,
        "trained_on": segmenter.trained_on,
        "origin": segmenter.origin,
    }


def _empty_extractor(spec: dict[str, Any]) -> Hypercolumn:
    context, dilated = spec.get("context", []), spec.get("dilated", 0)  # which older versions did not have
    return Hypercolumn(spec["backbone"], weights=None, taps=spec["taps"], context=context, dilated=dilated)


@contextmanager
def _described(path: Path) -> Iterator[None]:
    """Turns what goes wrong while a model is rebuilt from `path` into one clear error."""
    try:
        yield
    except Exception as error:  # whatever the file holds instead, it means the same to the user
        raise RunError(f"{path}: does not describe a model ({first_line(error)}); is the file damaged?") from None
