"""Checkpoints: plain dicts of tensors, numbers, strings and lists, loaded without running code.

What is in them: `models.segmenter` (backbone.pt, head.pt, dense.pt, best.pt); last.pt holds the
same as best.pt and `models.run.training.Training.state_dict`.
"""

import io
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from data.files import atomic_file
from models import RunError

# What torch and zipfile raise on a damaged file.
DAMAGED = (OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)
TRAINED = Path(__file__).parent / "trained"  # the networks that come with the project
FORMAT = 3  # raised when what is in the files changes


def find_checkpoint(name: Path) -> Path:
    """A file by its path, or one of `TRAINED` by its name alone, like "voc"."""
    trained = TRAINED / f"{name}.pt"
    return trained if len(name.parts) == 1 and not name.is_file() and trained.exists() else name


def save_checkpoint(path: Path, kind: str, **content: Any) -> None:
    """Saves `content` (tensors, numbers, strings, lists, dicts) with its kind and format."""
    whole = io.BytesIO()  # writing to a full disk, torch.save would not name the disk as the reason
    torch.save({"format": FORMAT, "kind": kind, **content}, whole)
    with atomic_file(path) as file:
        file.write(whole.getbuffer())


def load_checkpoint(path: Path, kind: str) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote, onto the CPU; see `find_checkpoint` for the path.

    Raises:
        RunError: the file is missing, damaged, holds pickled code, is of another kind or from
            another version.
    """
    path = find_checkpoint(path)
    content = load_tensors(path, "checkpoint")
    found = content.get("kind") if isinstance(content, dict) else type(content).__name__
    if found != kind:
        raise RunError(f"{path}: not a {kind} checkpoint of this project (found: {found})")
    if content["format"] != FORMAT:
        age = "a newer" if content["format"] > FORMAT else "an earlier"
        raise RunError(
            f"{path}: written by {age} version (format {content['format']}, this one reads "
            f"{FORMAT}); use that version, or train again"
        )
    return content


def load_tensors(path: Path, what: str) -> Any:
    """What `torch.save` wrote, onto the CPU, with `weights_only=True`: plain values and tensors.

    Args:
        what: what the file should be, for the messages.

    Raises:
        RunError: the file is missing, damaged, or holds pickled code.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(record.file_size for record in archive.infolist())
                if unpacked > 2 * path.stat().st_size:  # torch does not compress
                    raise zipfile.BadZipFile("it would unpack to many times its size")
                if archive.testzip():  # torch.load does not look at checksums
                    raise zipfile.BadZipFile("a checksum is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"{path}: no such {what} file") from None
    except pickle.UnpicklingError:
        raise RunError(
            f"{path}: not a {what} file of plain tensors and values, so it was not loaded "
            "(it could run code)"
        ) from None
    except DAMAGED as error:
        if isinstance(error, OSError) and error.filename:  # no permission, for example
            raise
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise RunError(
            f"{path}: cannot be read as a {what} file ({reason}); is it damaged?"
        ) from None
