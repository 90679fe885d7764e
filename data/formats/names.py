"""Names of classes: the lists that lie beside masks, and the ids of the names in annotations."""

from collections.abc import Iterable
from pathlib import Path

from data import UserError
from data.classes import VOC, VOID, Colour, parse_classes
from data.formats.source import ClassList, Named, Options
from data.images import first_of

CLASS_FILES = ("classes.txt", "labelmap.txt", "class_dict.csv")  # ours, CVAT's, and a usual one
FIXED_IDS = {"background": 0, "_background_": 0, "void": VOID, "ignore": VOID, "__ignore__": VOID}
VOC_LIST = ClassList(dict(zip(VOC.names, VOC.colours)))


def find_class_list(root: Path) -> Path | None:
    """The list of classes that lies in a folder."""
    return next(filter(Path.is_file, (root / name for name in CLASS_FILES)), None)


def read_class_list(path: Path) -> ClassList:
    """The classes in a file: `name`, `name r g b`, `name,r,g,b` or `name:r,g,b:..` a line.

    Raises:
        UserError: the file or a line cannot be read, or a name is given twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of classes ({error})") from None
    if path.suffix.lower() == ".csv":
        lines[:1] = [""]  # the names of the columns
        lines = [line.replace(",", " ") for line in lines]
    elif path.name == "labelmap.txt":  # name:r,g,b:parts:actions
        fields = [line.split(":") if not line.startswith("#") else [] for line in lines]
        lines = [" ".join(field[:2]).replace(",", " ") for field in fields]
    return class_list(parse_classes(lines, path))


def class_list(classes: Named) -> ClassList:
    """The classes with a background, wherever it stands, in front; one called void is none."""
    void = [colour for name, colour in classes.items() if fixed_id(name) == VOID and colour]
    names = [name for name in classes if fixed_id(name) != VOID]
    names.sort(key=lambda name: fixed_id(name) != 0)
    return ClassList({name: classes[name] for name in names}, tuple(void))


def fixed_id(name: str) -> int | None:
    """The id that a class has because of its name: 0 for the background, VOID for void."""
    return FIXED_IDS.get(name.casefold())


def hex_colour(text: str | None) -> Colour | None:
    """The colour `#rrggbb`."""
    return tuple(bytes.fromhex(text.removeprefix("#")[:6])) if text else None


def number(
    labels: Named, used: Iterable[str], options: Options, where: Path
) -> tuple[Named, dict[str, int]]:
    """The classes of a source of annotations, and the ids of their labels.

    The classes are those that the user lists, or else the background and the labels.

    Args:
        labels: all names, in order, with colours where known.
        used: the names of what is drawn.
        options: `classes` and `unknown` matter.
        where: what an error should name.

    Raises:
        UserError: a used label is not listed, or has the place of the background.
    """
    classes = (options.classes or class_list(labels)).classes
    if options.classes is None and not any(fixed_id(name) == 0 for name in classes):
        classes = {"background": None, **classes}
    ids, unlisted = {name: index for index, name in enumerate(classes)}, []
    for name in sorted(used):
        if (fixed := fixed_id(name)) is not None:
            ids[name] = fixed
        elif name not in ids:
            unlisted.append(name)
        elif ids[name] == 0:
            raise UserError(
                f"--classes: the first class is the background, but {name!r} is drawn in {where}; "
                "write background before it"
            )
    if unlisted and options.unknown is None:
        raise UserError(
            f"{where}: --classes has no {first_of(unlisted)}; name all, or say what becomes of "
            "the others: --unknown void or --unknown background"
        )
    return classes, ids | dict.fromkeys(unlisted, options.unknown)
