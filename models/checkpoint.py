"""Checkpoints: plain dicts of tensors, numbers, strings and lists, loaded without running code.

What is in them: `save_segmenter`; last.pt also holds `models.run.training.Training.state_dict`.
"""

import io
from pathlib import Path
from typing import Any

import torch

from data import UserError
from data.classes import Classes
from data.files import atomic_file
from models.classifier import DenseClassifier
from models.hypercolumn import Hypercolumn
from models.segmenter import Segmenter
from models.weight_files import load_state, load_tensors

TRAINED = Path(__file__).parent / "trained"  # the networks that come with the project
FORMAT = 3  # raised when what is in the files changes
HEAD = ("widths", "activation", "dropout")  # arguments of a `DenseClassifier`


def save_checkpoint(path: Path, **content: Any) -> None:
    """Saves `content` (tensors, numbers, strings, lists, dicts) with its format."""
    whole = io.BytesIO()  # writing to a full disk, torch.save would not name the disk as the reason
    torch.save({"format": FORMAT, **content}, whole)
    with atomic_file(path) as file:
        file.write(whole.getbuffer())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote, onto the CPU; a name alone, like "voc", may be of `TRAINED`.

    Raises:
        UserError: see `load_tensors`; or it is of something else, or from another version.
    """
    trained = TRAINED / f"{path}.pt"
    if len(path.parts) == 1 and not path.is_file() and trained.exists():
        path = trained
    content = load_tensors(path, "checkpoint")
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise UserError(
            f"{path}: written by another version (format {found}, this one reads {FORMAT}), or by "
            "another program; use that version, or train again"
        )
    return content


def save_extractor(path: Path, hypercolumn: Hypercolumn) -> None:
    """Saves the extractor with its weights: later steps need neither weights file nor network."""
    save_checkpoint(path, hypercolumn=hypercolumn.spec(), state=hypercolumn.state_dict())


def load_extractor(path: Path) -> Hypercolumn:
    """The extractor of `save_extractor`, on the CPU."""
    content = load_checkpoint(path)
    hypercolumn = rebuilt_extractor(content["hypercolumn"])
    load_state(hypercolumn, content["state"], path, hypercolumn.backbone)
    return hypercolumn


def save_segmenter(path: Path, segmenter: Segmenter, **training: Any) -> None:
    """Saves all that is needed to rebuild the segmenter, and what a training wants to keep."""
    save_checkpoint(
        path,
        hypercolumn=segmenter.hypercolumn.spec(),
        head={name: getattr(segmenter.head, name) for name in HEAD},
        size=segmenter.size,
        stride=segmenter.stride,
        classes=list(segmenter.classes.names),
        colours=[list(colour) for colour in segmenter.classes.colours],
        trained_on=segmenter.trained_on,
        history=segmenter.history,
        seen=segmenter.seen,
        origin=segmenter.origin,
        state=segmenter.state_dict(),
        **training,
    )


def load_segmenter(path: Path) -> tuple[Segmenter, dict[str, Any]]:
    """The segmenter of `save_segmenter`, on the CPU, and the whole content of the file."""
    content = load_checkpoint(path)
    if "head" not in content:
        raise UserError(f"{path}: an extractor alone; name dense.pt of step 2 or best.pt of step 3")
    try:
        hypercolumn = rebuilt_extractor(content["hypercolumn"])
        classes = Classes(tuple(content["classes"]), tuple(map(tuple, content["colours"])))
        ones, how = torch.ones(hypercolumn.Z), {name: content["head"][name] for name in HEAD}
        head = DenseClassifier(hypercolumn.channels, ones, ones, len(classes), **how)
        size, stride = content["size"], content["stride"]
        if not 1 <= stride <= size:
            raise ValueError(f"size {size}, stride {stride}")
        segmenter = Segmenter(hypercolumn, head, size, stride, classes)
        segmenter.trained_on, segmenter.origin = content["trained_on"], content["origin"]
        segmenter.history = content.get("history", {})
        segmenter.seen = content.get("seen", segmenter.seen).long().flatten()
        state = content["state"]
    except UserError:  # as where a package is missing, which is no damage of the file
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path}: describes no network ({error}); is the file damaged?") from None
    load_state(segmenter, state, path, hypercolumn.backbone)
    return segmenter, content


def rebuilt_extractor(spec: dict[str, Any]) -> Hypercolumn:
    """The extractor that a `Hypercolumn.spec` describes, before its weights are loaded."""
    arguments = {name: value for name, value in spec.items() if name != "fingerprint"}
    return Hypercolumn(weights=None, **arguments)
