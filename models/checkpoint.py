"""Checkpoints: plain dicts of tensors, numbers, strings and lists, loaded without running code.

What is in them: `models.segmenter`; last.pt also holds `models.run.training.Training.state_dict`.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from data import UserError
from data.files import atomic_file

TRAINED = Path(__file__).parent / "trained"  # the networks that come with the project
FORMAT = 3  # raised when what is in the files changes


def save_checkpoint(path: Path, kind: str, **content: Any) -> None:
    """Saves `content` (tensors, numbers, strings, lists, dicts) with its kind and format."""
    whole = io.BytesIO()  # writing to a full disk, torch.save would not name the disk as the reason
    torch.save({"format": FORMAT, "kind": kind, **content}, whole)
    with atomic_file(path) as file:
        file.write(whole.getbuffer())


def load_checkpoint(path: Path, kind: str) -> dict[str, Any]:
    """What `save_checkpoint` wrote, onto the CPU; a name alone, like "voc", may be of `TRAINED`.

    Raises:
        UserError: see `load_tensors`; or it is of another kind or from another version.
    """
    trained = TRAINED / f"{path}.pt"
    if len(path.parts) == 1 and not path.is_file() and trained.exists():
        path = trained
    content = load_tensors(path, "checkpoint")
    found = content.get("kind") if isinstance(content, dict) else type(content).__name__
    if found != kind:
        raise UserError(f"{path}: not a {kind} checkpoint of this project (found: {found})")
    if content["format"] != FORMAT:
        age = "a newer" if content["format"] > FORMAT else "an earlier"
        raise UserError(
            f"{path}: written by {age} version (format {content['format']}, this one reads "
            f"{FORMAT}); use that version, or train again"
        )
    return content


def load_tensors(path: Path, what: str) -> Any:
    """What `torch.save` wrote, onto the CPU; `what` the file should be is for the messages.

    Raises:
        UserError: the file is missing, damaged, or holds pickled code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such {what} file") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: not a {what} file of plain tensors and values, so it was not loaded "
            "(it could run code)"
        ) from None
    except Exception as error:  # a damaged file lets torch raise nearly anything
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise UserError(
            f"{path}: cannot be read as a {what} file ({reason}); is it damaged?"
        ) from None
