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
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data import UserError
from data.classes import VOID, Classes
from data.formats import FORMS, folders
from data.formats.layout import NOTE, fit_mask, new_folder, place_photo, write_classes
from data.formats.masks import listing
from data.formats.names import VOC_LIST, class_list, read_class_list
from data.formats.source import ClassList, Options, Source
from data.images import LISTED, first_of

UNKNOWN = {"void": VOID, "background": 0}
READERS = 4  # threads; each holds one photo at a time


def convert(
    root: Path,
    out: Path,
    options: Options,
    form: str | None = None,
    copy: bool = False,
    turn_masks: bool = False,
    force: bool = False,
) -> tuple[Source, Classes, np.ndarray, Counter[str]]:
    """Write the data set in `root`, in one of the `FORMS`, to the folder `out`, in VOC layout.

    Args:
        root: a folder.
        out: folder to make, outside `root`.
        options: what the user says about the source.
        form: the only form to try.
        copy: copy the photos instead of linking them.
        turn_masks: turn masks as EXIF turns their photos: they were drawn on these as stored.
        force: replace an earlier result.

    Returns:
        What was found, with what was left out; its classes; (n, classes + 1) int64, the pixels of
        each class and of void in each image; and the photos by how they came to their place.

    Raises:
        UserError: nothing is recognised, an image cannot be used, or `out` holds other data.
        OSError: a full disk, or no permission.
    """
    with new_folder(out, root, force) as part:
        source = recognise(root, options, form)
        classes = write_classes(source, part)
        bring = partial(_bring, source, classes, part, copy, turn_masks)
        with ThreadPoolExecutor(READERS) as pool:
            brought = pool.map(bring, source.pairs)
            bar = tqdm(brought, "write", len(source.pairs), disable=None, leave=False)
            kept = {image_id: found for image_id, found in zip(source.pairs, bar) if found}
        for path in (part / "JPEGImages").iterdir():
            if path.stem not in kept:
                path.unlink()
        for names in (source.bad, *source.left_out.values()):
            names.sort()  # the threads ended in any order
        reasons = [f"{why}: {first_of(names)}" for why, names in source.left_out.items()]
        if not kept:
            raise UserError(f"{root}: no image can be used; {[*source.bad, *reasons, 'none'][0]}")
        if source.drawn == 0:
            reasons = "; ".join(reasons) or "there are no shapes"
            raise UserError(f"{root}: nothing is drawn in any photo; {reasons}")
        note = {"source": str(root), "left_out": source.left_out, "cannot be used": source.bad}
        (part / NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    pixels, placed = zip(*kept.values())
    return source, classes, np.stack(pixels), Counter(placed)


def recognise(root: Path, options: Options, form: str | None = None) -> Source:
    """What the folder holds, in the first of the `FORMS` that knows it.

    Raises:
        UserError: none does, or the one that does cannot go on.
    """
    if options.annotations and not (root / options.annotations).is_file():
        raise UserError(f"--annotations: there is no file {root / options.annotations}")
    forms = [form] if form else ["folders"] if options.masks else FORMS
    for name in forms:
        if source := FORMS[name](root, options):
            return source
    raise UserError(f"{root}: nothing of the form {' or '.join(forms)} there")


def _bring(
    source: Source, classes: Classes, out: Path, copy: bool, turn_masks: bool, image_id: str
) -> tuple[np.ndarray, str] | None:
    """Pixels of each class and of void, and how the photo came; None if it is left out."""
    with source.leaving_out_bad():
        pair = source.pairs[image_id]
        size, photo, how = place_photo(pair.photo, out / "JPEGImages" / image_id, copy)
        mask = fit_mask(pair.mask(), photo, size, turn_masks, source)
        pixels = np.bincount(mask.ravel(), minlength=256)[[*range(len(classes)), VOID]]
        if pixels[:-1].any():
            picture = Image.fromarray(mask)
            picture.putpalette(classes.palette())
            picture.save(out / "SegmentationClass" / f"{image_id}.png")
            return pixels, how
        source.leave_out("no labelled pixel", image_id)
    return None


def report(source: Source, classes: Classes, pixels: np.ndarray) -> Iterable[str]:
    """What was found, left out and written, a line each."""
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
            f"are taken as upright (--turn-masks turns them): {first_of(sorted(source.doubts))}"
        )
    width = max(map(len, (*classes.names, "void")))
    yield f"{'':{width + 4}}{'pixels':>14}{'share':>10}{'images':>8}"
    counts, images = pixels.sum(0), (pixels > 0).sum(0)
    for index, name in enumerate((*classes.names, "void")):
        value = VOID if index == len(classes) else index
        share = 100 * counts[index] / counts.sum()
        yield f"{value:3} {name:{width}}{counts[index]:14}{share:8.2f} %{images[index]:8}"


def _classes(text: str) -> ClassList:
    """The value of --classes."""
    if text == "voc":
        return VOC_LIST
    if Path(text).is_file():
        return read_class_list(Path(text))
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise UserError(
            f"--classes {text}: neither a file nor names that differ, like background,cat"
        )
    return class_list(dict.fromkeys(names))


def _values(text: str) -> dict[int, int]:
    """The value of --map."""
    values = {}
    for pair in text.split(",") if text != "same" else ():
        value, _, to = (part.strip() for part in pair.partition("="))
        to = str(VOID) if to == "void" else to
        if not (value.isdecimal() and to.isdecimal() and int(to) <= VOID):
            raise UserError(
                f"--map {text}: expected VALUE=CLASS, where CLASS is an id or void, as in "
                "0=0,255=1,128=void"
            )
        values[int(value)] = int(to)
    return values


def _parser() -> argparse.ArgumentParser:
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m data.convert", None, __doc__, formatter_class=how)
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE", help="folder of photos with masks or annotations")
    add("out", type=Path, metavar="OUT", nargs="?", help="folder to make")
    add("--from", dest="form", choices=FORMS, help="the form of SOURCE (default: what is found)")
    add("--images", type=Path, metavar="DIR", help="folder of the photos, in SOURCE")
    add("--masks", type=Path, metavar="DIR", help="folder of the masks, in SOURCE")
    add("--annotations", type=Path, metavar="FILE", help="the only file of annotations, in SOURCE")
    add("--image-suffix", metavar="TEXT", help="what photos' names end in, before .jpg")
    add("--mask-suffix", metavar="TEXT", help="what masks' names end in, before .png")
    names = (
        "background,cat,.. or a file like classes.txt (NAME or NAME R G B a line, the background "
    )
    names += (
        "first, void for the colour of no class), or voc (default: SOURCE/classes.txt, or what "
    )
    add("--classes", metavar="NAMES", help=names + "annotations name)")
    values = "class id, or void, of each value in the masks; same: values are the ids"
    add("--map", metavar="VALUE=CLASS,..", help=values)
    add("--list-colours", action="store_true", help="list what the masks hold, and write nothing")
    unknown = "what colours, values and names without a class become (default: an error)"
    add("--unknown", choices=UNKNOWN, help=unknown)
    add("--turn-masks", action="store_true", help="turn masks as EXIF turns their photos")
    add("--copy", action="store_true", help="copy the photos instead of linking them")
    add("--skip-bad", action="store_true", help="leave out images that cannot be used")
    add("--force", action="store_true", help="replace an earlier result in OUT")
    return parser


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = _parser()
    args = parser.parse_args()
    if not (args.out or args.list_colours):
        parser.error("OUT is missing")
    try:
        options = Options(
            images=args.images,
            masks=args.masks,
            annotations=args.annotations,
            image_suffix=args.image_suffix,
            mask_suffix=args.mask_suffix,
            classes=_classes(args.classes) if args.classes else None,
            values=_values(args.map) if args.map else None,
            unknown=UNKNOWN.get(args.unknown),
            skip_bad=args.skip_bad,
        )
        if args.list_colours:
            files = folders.find_files(args.source, options)
            found = folders.survey_masks(args.source, *files, options.skip_bad)
            print(listing(found, args.source / "classes.txt"))
            return 0
        how = (args.form, args.copy, args.turn_masks, args.force)
        source, classes, pixels, placed = convert(args.source, args.out, options, *how)
    except UserError as error:
        print(f"data.convert: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"data.convert: {error.filename}: {error.strerror or error}", file=sys.stderr)
        return 2
    print(*report(source, classes, pixels), sep="\n")
    placed = ", ".join(f"{count} {how}" for how, count in placed.items())
    print(f"wrote {args.out}: photos ({placed}), masks, classes.txt")
    print(f"next: {shlex.join(['python', '-m', 'data.lists', str(args.out)])}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
