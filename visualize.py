"""Step 5: pictures of what the network sees: image, ground truth, prediction and errors.

    python visualize.py --data data/VOCdevkit/VOC2012 --run runs/voc
    python visualize.py --run runs/voc --sort worst --limit 24 --classes dog,cat --contact-sheet
    python visualize.py --run runs/voc --limit 50 --report --author "A. Student"  # its write-up
    python visualize.py --run runs/voc --report --compare runs/other   # with a page of experiments
    python visualize.py --image holiday.jpg         # your own, by a network that is trained already
    python visualize.py --run runs/voc --image holiday.jpg photos/ --out seen      # by yours
    python visualize.py --data DIR --truth --split train            # the masks, before training

Reads RUN/3_seg/best.pt, or RUN/2_cls/dense.pt where step 3 was not run. Writes RUN/5_overlays/:
ID.png, index.html (all of them, to be opened in a browser), with --contact-sheet contact_sheet.png,
with --report report.pdf (settings, architecture, data, curves, scores, best and worst pictures) and
report.md (its text, to be edited), config.json. For your own pictures also predictions/NAME.png
(8-bit palette indices at the original size) and photos.csv (the classes of each, their share and
how sure the network is of them, or why it could not be read), in RUN/photos/: photo by photo, so
that --resume goes on with what was interrupted. --masks-only draws no pictures, --recursive looks
into sub-folders.
--out names another folder: a new or empty one, or one of earlier pictures alone, which go. Without
a run it is runs/photos/ for --image, with the network that comes with the project, and runs/truth/
for --truth, which shows image and ground truth and needs no network.
"""

import argparse
import math
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from data import UserError, first_of
from data.figures import gallery
from data.figures.overlay import Record
from data.figures.photos import MASKS, PhotoTable, photo_folder, photo_records
from data.image_files import find_photos
from data.transforms import ResizeImage
from data.voc import VOCFolder
from losses.compare import compare_runs
from losses.metrics import ConfusionMatrix, image_mious
from models.run import args as flags
from models.run import chain, folder, runtime
from models.run.record import read_run
from models.segmenter import Segmenter

IMAGES = 12  # of a split that are drawn unless --limit says otherwise


def parse() -> argparse.Namespace:
    parser = flags.Parser(__doc__, needs_run=False)
    flag = parser.flag
    limit = f"only N pictures, the first after sorting; default: {IMAGES}, or all of --image"
    flags.add_data_flags(parser, split="val", steps=(3, 2), limit=limit)
    sort = "worst, best: by the mIoU of each image"
    flag("--sort", ("name", "worst", "best", "random"), "name", sort)
    flag("--seed", flags.natural, 0, "of the order", needs="--sort random")
    having = "only images with one of these in the ground truth; photos where the network sees one"
    flag("--classes", lambda text: text.split(","), None, having, metavar="dog,cat")
    flag("--confidence", bool, False, "a tile of how sure the network is, too")
    flag("--contact-sheet", bool, False, "thumbnails of the first 24, too", free=True)
    flag("--truth", bool, False, "the ground truth alone, without a run")
    image = "photos and folders, not --data"
    flag("--image", Path, None, image, free=True, metavar="PATH", nargs="+")
    out = "where to write; default: 5_overlays of the run, or its photos"
    flag("--out", flags.replaced, None, out, free=True, metavar="DIR")
    flag("--checkpoint", Path, None, "network; default: the run's", free=True, metavar="FILE")
    masks = "index PNGs and the table alone"
    flag("--masks-only", bool, False, masks, free=True, needs="--image")
    flag("--recursive", bool, False, "photos in sub-folders, too", free=True, needs="--image")
    resume = "go on with the photos that are not in photos.csv yet"
    flag("--resume", bool, False, resume, free=True, needs="--image")
    flag("--report", bool, False, "write the run up as report.pdf and report.md", free=True)
    report = "--report"
    flag("--author", str, None, "who wrote it, on page 1", free=True, needs=report, metavar="NAME")
    others = "runs, or folders of evaluate.py --out: a page of experiments"
    flag("--compare", Path, None, others, free=True, needs=report, metavar="RUN", nargs="+")
    flags.add_view_flags(parser)
    flags.add_speed_flags(parser)
    args = parser.parse_args()
    alone = "image" if args.image else "truth" if args.truth else None
    if args.image and args.truth:
        parser.error("argument --image: not allowed with argument --truth")
    if not (alone or args.run or args.checkpoint and args.out):
        parser.error("the following arguments are required: --run, --image or --checkpoint --out")
    if args.report and (alone or not args.run):
        parser.error("argument --report: has no effect without --run and --data")
    if alone and args.sort in ("worst", "best"):
        parser.error(f"argument --sort: {args.sort} needs scores, which --{alone} does not have")
    return args


def split_records(
    segmenter: Segmenter | None, dataset: VOCFolder, indices: Sequence[int], workers: int
) -> Iterator[Record]:
    """Images of a split with ground truth and, if there is a network, prediction and scores."""
    workers = workers if segmenter else 0  # whole photos would fill the memory that these share
    for index, sample in zip(indices, runtime.image_loader(dataset, indices, workers)):
        photo = dataset.image(index) if segmenter else sample.image.permute(1, 2, 0).numpy()
        record = Record(sample.id, sample.id, photo, sample.mask.numpy())
        if segmenter:
            found = segmenter.predict(sample.image, record.truth.shape, sample.id)
            prediction, confidence = (array.numpy() for array in found)
            scores = ConfusionMatrix(len(dataset.classes))
            scores.update(prediction, record.truth)
            record = record._replace(prediction=prediction, confidence=confidence)
            miou = float(image_mious(scores.class_counts()))
            record = record._replace(ious=scores.iou(), miou=None if math.isnan(miou) else miou)
        yield record


def chosen_records(
    segmenter: Segmenter | None,
    dataset: VOCFolder,
    wanted: set[int],
    sort: str,
    limit: int,
    workers: int,
) -> Iterator[Record]:
    """Up to `limit` images of a split, of those with a wanted class if there are any."""
    every = range(len(dataset.ids))
    chosen = (i for i in every if not wanted or wanted & {*np.unique(dataset.mask(i))})
    if sort in ("worst", "best"):  # all are predicted; those without a label come last
        chosen = [*chosen]
        records = split_records(segmenter, dataset, chosen, workers)
        records = runtime.bar(records, len(chosen), "image", "score")
        mious = np.array([record.miou for record in records], dtype=float)  # None is nan: last
        order = np.argsort(mious if sort == "worst" else -mious, kind="stable")
        chosen = [chosen[place] for place in order]
    return split_records(segmenter, dataset, [*islice(chosen, limit)], workers)


def main() -> None:
    args = parse()
    device = runtime.choose_device("cpu" if args.truth else args.device, single=True)
    segmenter, source, where, run, facts, given = None, None, None, None, {}, vars(args)
    if not args.truth:
        segmenter, source = chain.trained_segmenter(args.run, args.checkpoint)
        given = given | {"checkpoint": source, "made_from": segmenter.identity()}
        run = read_run(args.run, segmenter) if args.report else None  # its size, not --size
        segmenter.look(flags.views(args.tta, args.refine, args.tile), args.size, args.dilate)
        runtime.prepare(segmenter, device, args.amp, args.compile)
        facts["network"] = f"{source} ({segmenter.hypercolumn.backbone})"
        where = runtime.describe(device, args.amp, args.compile)
    place = args.out or (args.run or Path("runs")) / "photos"
    photos, others = find_photos(args.image or (), args.recursive, place)
    if photos:
        names, classes, what = sorted(photos), segmenter.classes, "photos"
        notes = [f"left out, as no photos: {first_of(others)}"] if others else []
    else:
        how = segmenter and ResizeImage(segmenter.input_size)
        dataset = VOCFolder(args.data, args.split, how, needs_lists=not args.truth)
        names, classes, notes = sorted(dataset.ids), dataset.classes, dataset.notes
        what = f"images of {dataset.root}, split {args.split}"
        of_run = folder.step_folder(args.run, 5) if args.run else Path("runs/truth")
        place = args.out or of_run
        if segmenter:
            chain.check_classes(segmenter.classes.names, classes.names, source, dataset.root)
    facts = {"images": f"{len(names)} {what}", **facts}
    if args.sort == "random":
        random.Random(args.seed).shuffle(names)
    own, sheet = (f"{MASKS}/", f"{gallery.FILES}/"), gallery.SHEET * args.contact_sheet
    if taken := [name for name in names if name.startswith(own) or f"{name}.png" == sheet]:
        raise UserError(f"{taken[0]}: a name that the pictures use themselves; rename that photo")
    wanted = classes.labels(args.classes or ())
    if run:
        run |= {"author": args.author, "experiments": []}
    if args.compare:
        run["compared"], run["experiments"] = compare_runs([args.run, *args.compare])
    runtime.print_header(5, **facts, device=where, flags=runtime.as_typed(args.changed))
    for note in notes:
        print(f"  note: {note}")

    limit = min(args.limit or (len(names) if photos else IMAGES), len(names))
    with photo_folder(place, given) if photos else folder.new_folder(place, 5) as new:
        table = PhotoTable(new, classes) if photos else None
        if table:
            records = photo_records(segmenter, {n: photos[n] for n in names}, table, wanted)
        else:
            dataset.ids = names
            records = chosen_records(segmenter, dataset, wanted, args.sort, limit, args.workers)
        for record in runtime.bar(islice(records, limit), limit, "image"):
            if not args.masks_only:
                gallery.save_page(new, record, classes, args.confidence)
            if table:
                table.add(record)
        pictures, errors = gallery.read_pictures(new), [*table.errors.values()] if table else []
        count = len(table.done) if table else len(pictures)
        if not count:
            none = f"--classes {','.join(args.classes or ())}: in none of the {len(names)} images"
            raise UserError(first_of(errors) or none)
        facts["flags"] = runtime.as_typed(args.changed) or "none"
        if pictures:
            heading = f"{'Ground truth' if args.truth else 'Predictions'} of {what}"
            gallery.save_gallery(new, pictures, heading, facts)
            if args.contact_sheet:
                gallery.contact_sheet(new, pictures).savefig(new / gallery.SHEET, format="png")
        if run:
            from data.figures.report import save_report  # matplotlib takes a second to import

            save_report(new, run, pictures, f"{len(pictures)} of {facts['images']}")
        config = folder.save_config(new, 5, given, scores={"pictures": count})
    wrote = f"{folder.count(count, 'picture')}{', report.pdf and report.md' * args.report}"
    wrote += f"; open {place / gallery.INDEX} in a browser" * bool(pictures)
    then = ("sample_features.py", "--data", args.data, "--run", "runs/own") if args.truth else ()
    folder.finish(place, 5, config, wrote, then)
    if errors:
        raise UserError(f"left out {first_of(errors)}; the others are done")


if __name__ == "__main__":
    runtime.run_script(main)
