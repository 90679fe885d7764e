"""Files: written whole or not at all, loaded without running code."""

import os
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from models import RunError

ZIP_START = b"PK\x03\x04"  # what tells torch's zip format from the one before torch 1.6, which has no checksums
ZIP_FOLDER = 0x10  # attribute of a record: torch gives one that has it by damage whatever was in memory


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write that gets the name `path` only when the block ends well; else nothing is left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):  # say where, as the user knows it
            error.filename = str(path)
        raise


def load_plain(path: Path, what: str) -> Any:
    """What `torch.save` wrote, onto the CPU, with `weights_only=True`: plain values and tensors.

    Args:
        what: what the file should be, for the messages.

    Raises:
        RunError: the file is missing, damaged, or holds pickled code.
    """
    try:
        _check_records(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"{path}: no such {what} file") from None
    except pickle.UnpicklingError:
        raise RunError(
            f"{path}: not a {what} file of plain tensors and values, so it was not loaded (it could run code)"
        ) from None
    except Exception as error:  # torch raises many kinds on damaged files; all mean the same to the user
        raise RunError(f"{path}: cannot be read as a {what} file ({first_line(error)}); is it damaged?") from None


def _check_records(path: Path) -> None:
    """Reads a file in torch's zip format once and compares its checksums, which `torch.load` does not look at."""
    with open(path, "rb") as file:
        if file.read(len(ZIP_START)) != ZIP_START:
            return
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            is_folder = any(record.file_size and record.external_attr & ZIP_FOLDER for record in records)
            has_sums = any(record.CRC for record in records)  # all 0 after `set_crc32_options(False)` of torch
            if is_folder or (has_sums and archive.testzip()):
                raise zipfile.BadZipFile("a checksum is wrong")


def first_line(error: Exception) -> str:
    """The first sentence of an error's message, or its kind where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]
