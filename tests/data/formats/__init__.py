"""What the tests of the forms share."""

from pathlib import Path

from PIL import Image

from data.formats import annotations
from data.formats.source import Options

DRAWN = [[0] * 6, [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0] * 6]  # a box of class 1


def photo(path: Path) -> Path:
    """A photo of 6x4 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4)).save(path)
    return path


def find(form, root: Path, **options):
    """The source that a form of annotations finds."""
    return annotations.find(form, root, Options(**options))


def only_mask(form, root: Path, **options) -> list:
    """The mask of the only photo."""
    (pair,) = find(form, root, **options).pairs.values()
    return pair.mask().tolist()
