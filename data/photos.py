"""The user's own photos, wherever they are: files, and folders of them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data import DataError
from data.images import image_size

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")  # what is a photo in a folder


def find_photos(places: Sequence[Path]) -> dict[str, Path]:
    """The photos of files and folders (not of folders in those), by the names that pictures of them shall have.

    A photo is called by its file's name without the suffix, or with it where `a.jpg` and `a.png` would be one.

    Of each the header is read, so that a file that is no photo stops a run in its first second.

    Raises:
        DataError: a place is missing, a folder is without photos, a file is no photo, two have the same name, or one
            that is no text.
    """
    paths = []
    for place in places:
        if place.is_dir():
            inside = sorted(path for path in place.iterdir() if _is_photo(path))
            if not inside:
                raise DataError(f"{place}: no photo in this folder; a photo is a file called {' '.join(SUFFIXES)}")
            paths += inside
        elif place.is_file():
            paths.append(place)
        else:
            raise DataError(f"{place}: no such file or folder")
    stems = Counter(path.stem.casefold() for path in paths)  # some disks do not tell A from a
    names = [path.stem if stems[path.stem.casefold()] == 1 else path.name for path in paths]
    for name, count in Counter(name.casefold() for name in names).items():
        if count > 1:
            raise DataError(f"--image: {count} files are called {name!r}, but each needs a picture; draw them in turn")
    for name in names:
        if not name.isprintable():  # bytes that are no UTF-8, line ends: neither a page nor a table can show them
            raise DataError(f"--image: a file is called {name!r}; give it a name of letters that can be shown")
    for path in paths:
        image_size(path, upright=True)
    return dict(zip(names, paths))


def _is_photo(path: Path) -> bool:
    """By its name; hidden files are litter of the system, as macOS leaves beside photos."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
