"""Bring photos with masks from a usual form into the layout that the five steps read.

    python -m data.convert SOURCE OUT
    python -m data.convert SOURCE OUT --images photos --masks labels --mask-suffix _gt
    python -m data.convert SOURCE OUT --classes background,cat --map 0=0,255=1,128=void
    python -m data.convert SOURCE --list-colours
    python -m data.convert SOURCE OUT --unlabelled void     # strokes and clicks; of masks: 0
    python -m data.convert SOURCE OUT --unmasked background  # photos without a mask show nothing

SOURCE holds photos and masks (in folders such as images and masks, or in one folder with names like
a.jpg and a_mask.png), or JSON of LabelMe, COCO or Supervisely, XML of CVAT ("for images"),
Cityscapes, or a table of clicks (CSV with photo, row, column, label). Where areas overlap, the
later lies on top, in CVAT that of higher z_order, in COCO the smaller one (crowds are void, but not
those of CVAT and V7, which call each mask so). SOURCE stays as it is; photos in OUT are links, or
copies; WebP, TIFF and the like become PNG. Lists (train.txt, val.txt, test.txt) are those in
SOURCE/ImageSets/Segmentation, or what folders of these names hold.
"""

import argparse
import re
import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data import UserError, first_of, voc_layout
from data.classes import VOC, VOID, Classes
from data.formats import folders, recognise
from data.formats.class_names import read_class_list
from data.formats.foreign_masks import listing, survey
from data.formats.source import Named, Options, Source
from data.image_files import TURNS, colour_mask, orientation, read_image
from data.voc_files import LISTS, READERS
from models.run import folder, runtime
from models.run.args import rate

UNKNOWN = {"void": VOID, "background": 0}
UNSEEN = 2, 3, 4  # turns by EXIF that leave the size, which then does not tell how a mask lies


def convert(root: Path, out: Path, options: Options, force: bool = False) -> Source:
    """Writes the data set in `root`, in one of the `FORMS`, to a new folder `out`, in VOC layout.

    With `force` an earlier result is replaced, but for its lists, to which new ids are added.

    Returns:
        What was written, with what was left out.

    Raises:
        UserError: nothing is recognised, an image cannot be used, or `out` holds other data.
    """
    before = voc_layout.check_free(out, root, force)
    with folder.new_folder(out) as part:
        for name in ("JPEGImages", "SegmentationClass"):
            (part / name).mkdir()
        source = recognise(root, options)
        classes = voc_layout.write_classes(source.classes, part, root)
        bring = partial(_bring, source, classes, part)
        with ThreadPoolExecutor(READERS) as pool:
            brought = pool.map(bring, source.pairs)
            bar = tqdm(brought, "write", len(source.pairs), disable=None, leave=False)
            labels = dict(zip(source.pairs, bar))
        for names in source.notes.values():
            names.sort()  # the threads ended in any order
        source.pairs = {name: pair for name, pair in source.pairs.items() if labels[name]}
        if not (seen := set().union(*labels.values())) - {VOID, options.undrawn}:
            what = "nothing is drawn in any photo" if source.pairs else "no image can be used"
            what += ", as 255 in masks is void; see --map" * (options.undrawn == 0 and VOID in seen)
            raise UserError(f"{root}: {what}; {source.said() or 'there are no shapes'}")
        made, old = voc_layout.contents(part), {Path(name).stem for name in before}
        if (out / "ImageSets").exists():
            shutil.copytree(out / "ImageSets", part / "ImageSets")
        known = [name for name in source.pairs if labels[name] != {VOID}]
        source.notes |= voc_layout.changes(before, made)
        source.notes |= voc_layout.write_lists(known, old, part, root)
        note = {"source": root, "notes": source.notes, "made": made}
        folder.save_json(part / voc_layout.NOTE, note)
    return source


def _bring(source: Source, classes: Classes, out: Path, image_id: str) -> set[int]:
    """Writes an image; gives the values in its mask, none where it is left out."""
    pair = source.pairs[image_id]
    with source.leaving_out_bad():
        pixels, mask = read_image(pair.photo), pair.mask()
        values = set(np.unique(mask).tolist())
        if pair.drawn_in == pair.photo:
            what = "void" if VOID in values else classes.names[0]
            source.note(f"without a mask, so {what} everywhere", image_id)
        elif values == {VOID}:
            source.note("left out: no labelled pixel", image_id)
            return set()
        elif not source.options.turn_masks and orientation(pair.photo) in (
            TURNS if mask.shape[0] == mask.shape[1] else UNSEEN
        ):
            source.note("in doubt: EXIF turns the photo, its mask is taken as upright", image_id)
        voc_layout.place_photo(pair.photo, pixels, out / "JPEGImages" / image_id)
        colour_mask(mask, classes).save(out / "SegmentationClass" / f"{image_id}.png")
        return values
    return set()


def _classes(text: str) -> Named:
    """The value of --classes."""
    if text == "voc":
        return dict(zip(VOC.names, VOC.colours))
    if Path(text).is_file():
        return read_class_list(Path(text))
    names = dict.fromkeys(name.strip() for name in text.split(","))
    if "" in names or len(names) <= text.count(","):
        raise UserError(
            f"--classes {text}: neither a file nor names that differ, like background,cat"
        )
    return names


def _values(text: str) -> dict[int, int]:
    """The value of --map; nothing is mapped for `same`."""
    pairs = re.findall(r"(\d+)=(\d+|void)", text)
    values = {int(value): VOID if to == "void" else int(to) for value, to in pairs}
    is_map = re.fullmatch(r"\d+=(\d+|void)(, *\d+=(\d+|void))*", text) and len(values) == len(pairs)
    if text != "same" and not (is_map and max(values.values()) <= VOID):
        raise UserError(
            f"--map {text}: expected VALUE=CLASS, where CLASS is an id or void, as in "
            "0=0,255=1,128=void"
        )
    return values


def _unlabelled(text: str) -> int | str:
    """The value of --unlabelled."""
    if text not in UNKNOWN and not text.isdecimal():
        raise UserError(f"--unlabelled {text}: expected void, background, or a value of the masks")
    return int(text) if text.isdecimal() else text


def _parser() -> argparse.ArgumentParser:
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m data.convert", None, __doc__, formatter_class=how)
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE", help="folder of photos with masks or annotations")
    add("out", type=Path, metavar="OUT", nargs="?", help="folder to make")
    add("--images", type=Path, metavar="DIR", help="folder of the photos, in SOURCE")
    add("--masks", type=Path, metavar="DIR", help="folder of the masks, in SOURCE")
    add("--annotations", type=Path, metavar="FILE", help="the only file of annotations, in SOURCE")
    add("--image-suffix", metavar="TEXT", help="what photos' names end in, before .jpg")
    add("--mask-suffix", metavar="TEXT", help="what masks' names end in, before .png")
    names = "background,cat,.. or voc, or a file (NAME or NAME R G B a line, void for the colour "
    names += "of no class); default: SOURCE/classes.txt, or what annotations name"
    add("--classes", metavar="NAMES", help=names)
    values = "class id, or void, of each value in the masks; same: values are the ids"
    add("--map", dest="values", metavar="VALUE=CLASS,..", help=values)
    add("--list-colours", action="store_true", help="list what the masks hold, and write nothing")
    unknown = "what colours, values and names without a class become (default: an error); nearest: "
    unknown += "the class of the nearest colour, or value in --map, but void if that is far"
    add("--unknown", choices=[*UNKNOWN, "nearest"], help=unknown)
    undrawn = "what pixels are on which nothing is drawn: void or background, or the value that "
    undrawn += "masks have there, which is void; with 0, value 1 is the first class"
    add("--unlabelled", metavar="WHAT", help=undrawn)
    unmasked = "what photos without a mask or annotations become everywhere: void or background "
    unmasked += "(class 0); default: leave-out"
    add("--unmasked", choices=[*UNKNOWN, "leave-out"], help=unmasked)
    width = "pixels, of points and lines (default: 5)"
    add("--stroke-width", type=rate, default=5.0, metavar="N", help=width)
    turn = "masks lie as photos are stored, before EXIF turns these upright"
    add("--turn-masks", action="store_true", help=turn)
    add("--skip-bad", action="store_true", help="leave out images that cannot be used")
    again = "replace an earlier result in OUT, but for its lists, if masks and classes are as made"
    add("--force", action="store_true", help=again)
    return parser


def main() -> None:
    """Run the command line."""
    parser = _parser()
    args = parser.parse_intermixed_args()  # OUT may stand behind flags
    root, out = args.source, args.out
    if not (out or args.list_colours):
        parser.error("OUT is missing")
    args.classes = None if args.classes is None else _classes(args.classes)
    args.values = None if args.values is None else _values(args.values)
    args.nearest = args.unknown == "nearest"
    args.unknown = VOID if args.nearest else UNKNOWN.get(args.unknown)
    args.unmasked = UNKNOWN.get(args.unmasked)
    if args.skip_bad and args.unmasked is not None:
        raise UserError(
            "--unmasked beside --skip-bad: a photo whose mask cannot be used would count as one "
            "without; mend or remove it"
        )
    args.unlabelled = None if args.unlabelled is None else _unlabelled(args.unlabelled)
    options = Options(*(getattr(args, name) for name in Options._fields))
    if args.list_colours:
        source = Source("photos and masks", options)
        found = survey(folders.find_pairs(root, source), source)
        print(listing(found, root / "classes.txt"))
        return
    source = convert(root, out, options, args.force)
    print(f"{source.form}: {len(source.pairs)} pairs of photo and mask")
    for what, names in source.notes.items():
        print(f"  {what}: {len(names)} ({first_of(list(dict.fromkeys(names)))})")
    print(f"wrote {out}: photos, masks and {len(source.classes)} classes in classes.txt")
    has_lists = (out / LISTS / "train.txt").exists()
    is_listed = not any(re.match("(new|gone) since|in no list", what) for what in source.notes)
    lists = ["-m", "data.lists", str(out), *["--add"] * has_lists]
    look = ["visualize.py", "--data", str(out), "--truth"]
    print(f"next: {shlex.join(['python', *(look if has_lists and is_listed else lists)])}")


if __name__ == "__main__":
    runtime.run_script(main)
