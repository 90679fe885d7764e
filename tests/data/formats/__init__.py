"""What the tests of the forms share."""

import json
from pathlib import Path

from PIL import Image

from data.formats import annotations
from data.formats.source import Options

DRAWN = [[0] * 6, [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0] * 6]  # a box of class 1


def photo(path: Path, size: tuple[int, int] = (6, 4)) -> Path:
    """A photo, 6 pixels wide and 4 high if nothing else is said."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def write(path: Path, content: object) -> Path:
    """A file of text, or of anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def find(form, root: Path, **options):
    """The source that a form of annotations finds."""
    return annotations.find(form, root, Options(**options))


def only_mask(form, root: Path, **options) -> list:
    """The mask of the only photo."""
    (pair,) = find(form, root, **options).pairs.values()
    return pair.mask().tolist()
