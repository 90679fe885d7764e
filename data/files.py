"""Text is UTF-8; files are written whole or not at all."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data import UserError


def read_lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8, with a byte order mark or without."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a UTF-8 text file") from None


def hash_files(paths: Iterable[Path]) -> np.ndarray:
    """What tells each file from others, whatever it is called: (N,) int64, of its bytes."""
    digests = (hashlib.blake2b(path.read_bytes(), digest_size=8).digest() for path in paths)
    return np.frombuffer(b"".join(digests), dtype=np.int64).copy()  # else it is read-only


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write, which gets the name `path` only when the block ends well.

    Its folder is made. If the block raises, what was at `path` before is still there, whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")  # what a killed process left is written over
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)  # the name that the user knows
        raise
