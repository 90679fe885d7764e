"""Bring photos with masks from a usual form into the layout that the five steps read.

    python -m data.convert SOURCE OUT
    python -m data.convert SOURCE OUT --images photos --masks labels --mask-suffix _gt
    python -m data.convert SOURCE OUT --classes background,cat --map 0=0,255=1,128=void
    python -m data.convert SOURCE --list-colours

SOURCE holds photos and masks (in folders such as images and masks, or in one folder with names like
a.jpg and a_mask.png), or is one of these, recognised by itself: JSON of LabelMe, COCO or
Supervisely, XML of CVAT ("for images"), Cityscapes. OUT gets JPEGImages, SegmentationClass and
classes.txt. SOURCE stays as it is; where the system allows it, the photos in OUT are links to it.
"""

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data import DataError
from data.classes import VOID, Classes
from data.formats import FORMS, folders
from data.formats.layout import NOTE, fit_mask, new_folder, place_photo, save_mask, write_classes
from data.formats.masks import listing
from data.formats.names import VOC_LIST, class_list, read_class_list
from data.formats.source import ClassList, Options, Source
from data.images import LISTED, first_of
from data.lists import read_pairs
from data.voc import find_pair

UNKNOWN = {"void": VOID, "background": 0}


class Result(NamedTuple):
    """What `convert` found and wrote."""

    source: Source  # with what was left out
    classes: Classes
    pixels: np.ndarray  # (n, classes + 1) int64: of each class and of void, in each image
    placed: Counter[str]  # photos, by how they came to their place


def convert(
    root: Path,
    out: Path,
    options: Options,
    form: str | None = None,
    copy: bool = False,
    turn_masks: bool = False,
    force: bool = False,
) -> Result:
    """Write the data set in `root` to the folder `out`, in VOC layout, and read it back.

    Args:
        root: folder in one of the `FORMS`.
        out: folder to make, outside `root`.
        options: what the user says about the source.
        form: the only form to try.
        copy: copy the photos instead of linking them.
        turn_masks: turn masks as EXIF turns their photos: they were drawn on these as stored.
        force: replace an earlier result.

    Raises:
        DataError: nothing is recognised, an image cannot be used, or `out` holds other data.
        OSError: a full disk, or no permission.
    """
    with new_folder(out, root, force) as part:
        source = recognise(root, options, form)
        classes = write_classes(source, part)
        palette, photos, placed = classes.palette(), {}, {}
        for image_id, load in tqdm(source.pairs.items(), "write", disable=None, leave=False):
            with source.leaving_out_bad(options):
                photo, mask = load()
                photo, how = place_photo(photo, part / "JPEGImages" / image_id, copy)
                mask = fit_mask(mask, photo, turn_masks, source)
                save_mask(mask, part / "SegmentationClass" / f"{image_id}.png", palette)
                photos[image_id], placed[image_id] = photo, how
        pixels, damaged = read_pairs(part, list(photos), len(classes))  # all that is written
        for image_id, reason in damaged.items():
            with source.leaving_out_bad(options):
                raise DataError(f"{photos.pop(image_id)}: {reason.partition(': ')[2]}")
        labelled = pixels[:, :-1].any(axis=1)
        for image_id in [name for name, some in zip(photos, labelled) if not some]:
            source.leave_out("no labelled pixel", image_id)
            photos.pop(image_id)
        for image_id in source.pairs.keys() - photos:
            for path in find_pair(part, image_id):
                path.unlink(missing_ok=True)
        if not photos:
            reasons = [f"{why}: {first_of(names)}" for why, names in source.left_out.items()]
            raise DataError(f"{root}: no image can be used; {[*source.bad, *reasons][0]}")
        note = {"source": str(root), "left_out": source.left_out, "cannot be used": source.bad}
        (part / NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    return Result(source, classes, pixels[labelled], Counter(placed[name] for name in photos))


def recognise(root: Path, options: Options, form: str | None = None) -> Source:
    """What the folder holds, in the first of the `FORMS` that knows it.

    Raises:
        DataError: none does, or the one that does cannot go on.
    """
    if options.annotations and not (root / options.annotations).is_file():
        raise DataError(f"--annotations: there is no file {root / options.annotations}")
    forms = [form] if form else ["folders"] if options.masks else FORMS
    for name in forms:
        if source := FORMS[name].find(root, options):
            return source
    raise DataError(f"{root}: nothing of the form {' or '.join(forms)} there")


def report(result: Result) -> Iterable[str]:
    """What was found, left out and written, a line each."""
    source, classes, pixels = result.source, result.classes, result.pixels
    yield f"{source.form}: {source.images} images, {len(pixels)} pairs of photo and mask"
    for reason, names in source.left_out.items():
        yield f"  left out {len(names)}: {reason}: {first_of(list(dict.fromkeys(names)))}"
    if source.bad:
        yield f"  left out {len(source.bad)} that cannot be used, all of them in {NOTE}:"
        yield from (f"    {reason}" for reason in source.bad[:LISTED])
    if source.note:
        yield f"  note: {source.note}"
    if source.doubts:
        yield (
            f"  note: EXIF turns {len(source.doubts)} photos but leaves their size; their masks "
            f"are taken as upright (--turn-masks turns them): {first_of(source.doubts)}"
        )
    width = max(map(len, (*classes.names, "void")))
    yield f"{'':{width + 4}}{'pixels':>14}{'share':>10}{'images':>8}"
    counts, images = pixels.sum(0), (pixels > 0).sum(0)
    for index, name in enumerate((*classes.names, "void")):
        value = VOID if index == len(classes) else index
        share = 100 * counts[index] / counts.sum()
        yield f"{value:3} {name:{width}}{counts[index]:14}{share:8.2f} %{images[index]:8}"


def _classes(text: str) -> ClassList:
    """The value of --classes.

    Raises:
        DataError: see `read_class_list`, or a name is empty or given twice.
    """
    if text == "voc":
        return VOC_LIST
    if Path(text).is_file():
        return read_class_list(Path(text))
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise DataError(
            f"--classes {text}: neither a file nor names that differ, like background,cat"
        )
    return class_list(dict.fromkeys(names))


def _values(text: str) -> dict[int, int]:
    """The value of --map.

    Raises:
        DataError: it cannot be read.
    """
    if text == "same":
        return {}
    values = {}
    for pair in text.split(","):
        value, _, to = (part.strip() for part in pair.partition("="))
        to = str(VOID) if to == "void" else to
        if not (value.isdecimal() and to.isdecimal() and int(to) <= VOID):
            raise DataError(
                f"--map {text}: expected VALUE=CLASS, where CLASS is an id or void, as in "
                "0=0,255=1,128=void"
            )
        values[int(value)] = int(to)
    return values


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m data.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE", help="folder of photos with masks or annotations")
    add("out", type=Path, metavar="OUT", nargs="?", help="folder to make")
    add("--from", dest="form", choices=FORMS, help="the form of SOURCE (default: what is found)")
    add("--images", type=Path, metavar="DIR", help="folder of the photos, in SOURCE")
    add("--masks", type=Path, metavar="DIR", help="folder of the masks, in SOURCE")
    add("--annotations", type=Path, metavar="FILE", help="the only file of annotations, in SOURCE")
    add("--image-suffix", metavar="TEXT", help="what photos' names end in, before .jpg")
    add("--mask-suffix", metavar="TEXT", help="what masks' names end in, before .png")
    add(
        "--classes",
        metavar="NAMES",
        help="background,cat,.. or a file like classes.txt (NAME or NAME R G B a line, the "
        "background first, void for the colour of no class), or voc "
        "(default: SOURCE/classes.txt, or what annotations name)",
    )
    add(
        "--map",
        metavar="VALUE=CLASS,..",
        help="class id, or void, of each value in the masks; same: values are the ids",
    )
    add("--list-colours", action="store_true", help="list what the masks hold, and write nothing")
    add(
        "--unknown",
        choices=UNKNOWN,
        help="what colours, values and names without a class become (default: an error)",
    )
    add("--turn-masks", action="store_true", help="turn masks as EXIF turns their photos")
    add("--copy", action="store_true", help="copy the photos instead of linking them")
    add("--skip-bad", action="store_true", help="leave out images that cannot be used")
    add("--force", action="store_true", help="replace an earlier result in OUT")
    flags = parser.parse_args()
    if not (flags.out or flags.list_colours):
        parser.error("OUT is missing")
    try:
        options = Options(
            images=flags.images,
            masks=flags.masks,
            annotations=flags.annotations,
            image_suffix=flags.image_suffix,
            mask_suffix=flags.mask_suffix,
            classes=_classes(flags.classes) if flags.classes else None,
            values=_values(flags.map) if flags.map else None,
            unknown=UNKNOWN.get(flags.unknown),
            skip_bad=flags.skip_bad,
        )
        if flags.list_colours:
            found = folders.survey_masks(flags.source, options)
            print(listing(found, flags.source / "classes.txt"))
            return 0
        how = (flags.form, flags.copy, flags.turn_masks, flags.force)
        result = convert(flags.source, flags.out, options, *how)
    except DataError as error:
        print(f"data.convert: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"data.convert: {error.filename}: {error.strerror or error}", file=sys.stderr)
        return 2
    for line in report(result):
        print(line)
    placed = ", ".join(f"{count} {how}" for how, count in result.placed.items())
    print(f"wrote {flags.out}: photos ({placed}), masks, classes.txt")
    print(f"next: {shlex.join(['python', '-m', 'data.lists', str(flags.out)])}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
