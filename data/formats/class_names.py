"""Names of classes: the lists that lie beside masks, and the ids of the names in annotations."""

import re
from collections.abc import Iterable
from pathlib import Path

from data import UserError
from data.classes import VOID, parse_classes
from data.files import read_lines
from data.formats.source import Named, Options
from data.image_files import first_of

CLASS_FILES = ("classes.txt", "labelmap.txt", "class_dict.csv")  # ours, CVAT's, and a usual one
FIXED_IDS = {"background": 0, "_background_": 0, "void": VOID, "ignore": VOID, "__ignore__": VOID}


def listed_beside(root: Path) -> Named | None:
    """The classes in the list that lies in a folder; see `read_class_list`."""
    path = next(filter(Path.is_file, (root / name for name in CLASS_FILES)), None)
    return read_class_list(path) if path else None


def read_class_list(path: Path) -> Named:
    """The classes in a file: `name`, `name r g b`, `name,r,g,b` or `name:r,g,b:..` a line.

    Raises:
        UserError: the file or a line cannot be read, or a name is given twice.
    """
    lines = []
    for line in read_lines(path):
        is_head = line.startswith("#") or line.lower().startswith("name,")  # names of columns
        lines.append("" if is_head else " ".join(re.split("[:,]", line)[:4]))
    return parse_classes(lines, path)


def fixed_id(name: str) -> int | None:
    """The id that a class has because of its name: 0 for the background, VOID for void."""
    return FIXED_IDS.get(name.casefold())


def number_classes(names: Named, used: Iterable[str] = ()) -> tuple[Named, dict[str, int]]:
    """The classes, a background in front wherever it stands, and none of void.

    Also the ids of these, and of names listed or used that say their id themselves.
    """
    order = sorted(names, key=lambda name: fixed_id(name) != 0)
    classes = {name: names[name] for name in order if fixed_id(name) != VOID}
    ids = {name: index for index, name in enumerate(classes)}
    fixed = {name: fixed_id(name) for name in (*names, *used)}
    return classes, ids | {name: value for name, value in fixed.items() if value is not None}


def number_labels(labels: Named, used: set[str], options: Options) -> tuple[Named, dict[str, int]]:
    """The classes of a source of annotations, and the ids of their labels.

    The classes are those that the user lists, or else the background and the labels; no background
    if what is not drawn is void.

    Args:
        labels: names in the order of their ids, with colours where known.
        used: the names of what is drawn.
        options: `classes`, `unknown` and `unlabelled` matter.

    Raises:
        UserError: a used label is not listed, or has the place of the background.
    """
    labels = labels | dict.fromkeys(sorted(used - labels.keys()))
    is_background = options.undrawn == 0
    if is_background and not any(fixed_id(name) == 0 for name in labels):
        labels = {"background": None} | labels
    classes, ids = number_classes(options.classes or labels, used)
    unlisted = sorted(used - ids.keys())
    if unlisted and options.unknown is None:
        raise UserError(
            f"--classes has no {first_of(unlisted)}; name all, or say what becomes of the others: "
            "--unknown void or --unknown background"
        )
    wrong = [name for name in used if ids.get(name) == 0 and fixed_id(name) is None]
    if wrong and is_background:
        raise UserError(
            f"--classes: the first class is the background, but {wrong[0]!r} is drawn; write "
            "background before it"
        )
    return classes, ids | dict.fromkeys(unlisted, options.unknown)
