"""Names of classes: the lists that lie beside masks, and the ids of the names in annotations."""

import re
from collections.abc import Iterable
from pathlib import Path

from data import UserError, first_of
from data.classes import NO_CLASS, VOID, parse_classes
from data.files import read_lines
from data.formats.source import Named, Options

HEAD = r"(?i)#|(pixel value|name|(class|label)([ _]name)?)\s*,"  # names of columns, a comment
FIXED_IDS = {"background": 0, "_background_": 0} | dict.fromkeys(NO_CLASS, VOID)


def read_class_list(path: Path) -> Named:
    """The classes in a file, a line each: `name`, `name r g b`, `r g b name`, or with , or : there.

    In a CSV a value may stand before each name.

    Raises:
        UserError: the file or a line cannot be read, values are not 0, 1, .., or a name is given
            twice.
    """
    lines, values = [], []
    for line in read_lines(path):
        is_head = re.match(HEAD, line)
        value, name = re.fullmatch(r"(?:(\d+)\s*,)?(.*)", line.strip()).groups()
        values += [int(value)] if value else []
        words = "" if is_head else " ".join(re.split("[:,]", name)[:4])
        lines.append(re.sub(r"^\s*((?:\d+\s+){3})(.+)", r"\2 \1", words))
    if values != [*range(len(values))]:
        raise UserError(f"{path}: values {first_of([*map(str, values)])}; needed are 0, 1, 2, ..")
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
    """The classes of a source of annotations, and the ids of the labels that are among them.

    The classes are those that the user lists, or else the labels. A background comes before them,
    unless one is there, or the first class is drawn nowhere, or nothing becomes background.

    Args:
        labels: names in the order of their ids, with colours where known.
        used: the names of what is drawn.

    Raises:
        UserError: a used label is not listed, and nothing says what it becomes.
    """
    listed = options.classes or labels | dict.fromkeys(sorted(used - labels.keys()))
    needs_background = 0 in (options.undrawn, options.unmasked) and not any(
        fixed_id(name) == 0 for name in listed
    )
    if needs_background and not (options.classes and used.isdisjoint([*listed][:1])):
        listed = {"background": None} | listed
    classes, ids = number_classes(listed, used)
    unlisted = sorted(used - ids.keys())
    if unlisted and options.unknown is None:
        raise UserError(
            f"--classes has no {first_of(unlisted)}; name all, or say what becomes of the others: "
            "--unknown void or --unknown background"
        )
    return classes, ids
