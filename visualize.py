"""Step 5: pictures of what the network sees: image, ground truth, prediction and errors.

    python visualize.py --data data/VOCdevkit/VOC2012 --run runs/voc
    python visualize.py --run runs/voc --sort worst --limit 24 --classes dog,cat --contact-sheet
    python visualize.py --run runs/voc --limit 50 --report          # the write-up of the run
    python visualize.py --image holiday.jpg         # your own, by a network that is trained already
    python visualize.py --run runs/voc --image holiday.jpg photos/ --out seen      # by yours
    python visualize.py --data DIR --truth --split train            # the masks, before training

Reads RUN/3_seg/best.pt, or RUN/2_cls/dense.pt where step 3 was not run. Writes RUN/5_overlays/:
ID.png, index.html (all of them, to be opened in a browser), with --contact-sheet contact_sheet.png,
with --report report.pdf (settings, architecture, data, curves, scores, best and worst pictures),
config.json. For your own pictures also predictions/NAME.png (8-bit palette indices at the original
size) and photos.csv (the classes of each, their share and how sure the network is of them).
--out names another folder: a new or empty one, or one of earlier pictures alone, which go. Without
a run it is runs/photos/ for --image, with the network that comes with the project, and runs/truth/
for --truth, which shows image and ground truth and needs no network.
"""

import argparse
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from data import UserError
from data.classes import Classes
from data.figures import gallery
from data.figures.picture import Row, draw_page, percent
from data.image_files import colour_mask, find_photos, first_of, read_image
from data.transforms import ResizeImage
from data.voc import VOCFolder
from losses.metrics import ConfusionMatrix, image_mious
from models.run import args as flags
from models.run import chain, folder, runtime
from models.run.predictor import predict_photo
from models.run.record import read_run
from models.segmenter import Segmenter

IMAGES = 12  # of a split that are drawn unless --limit says otherwise


class Record(NamedTuple):
    """What is known of an image; its picture is ID.png."""

    id: str
    title: str
    photo: np.ndarray  # (H, W, 3) uint8 RGB
    truth: np.ndarray | None = None  # (H, W) uint8
    prediction: np.ndarray | None = None  # (H, W) uint8
    confidence: np.ndarray | None = None  # (H, W) float32: probability of the predicted class
    ious: np.ndarray | None = None  # (C,) float64, nan for absent classes
    miou: float | None = None  # None where nothing is scored


def parse() -> argparse.Namespace:
    parser = flags.Parser(__doc__, needs_run=False)
    flag = parser.flag
    limit = f"only N pictures, the first after sorting; default: {IMAGES}, or all of --image"
    flags.add_data_flags(parser, split="val", limit=limit)
    sort = "worst, best: by the mIoU of each image"
    flag("--sort", ("name", "worst", "best", "random"), "name", sort)
    flag("--seed", flags.natural, 0, "of --sort random")
    having = "only images with one of these in the ground truth; photos where the network sees one"
    flag("--classes", lambda text: text.split(","), None, having, metavar="dog,cat")
    flag("--confidence", bool, False, "a tile of how sure the network is, too")
    flag("--contact-sheet", bool, False, "thumbnails of the first 24, too", free=True)
    flag("--truth", bool, False, "the ground truth alone, without a run")
    image = "photos and folders, not --data"
    flag("--image", Path, None, image, free=True, metavar="PATH", nargs="+")
    out = "where to write; default: 5_overlays of the run"
    flag("--out", Path, None, out, free=True, metavar="DIR")
    flag("--checkpoint", Path, None, "network; default: the run's", free=True, metavar="FILE")
    flag("--report", bool, False, "write the run up as report.pdf", free=True)
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
    parser.needs(args, "--seed", "--sort", "random")
    return args


def split_records(
    segmenter: Segmenter, dataset: VOCFolder, indices: Sequence[int], workers: int
) -> Iterator[Record]:
    """Images of a split with ground truth, prediction and scores."""
    for index, sample in zip(indices, runtime.image_loader(dataset, indices, workers)):
        photo, truth = dataset.image(index), sample.mask.numpy()
        found = segmenter.predict(sample.image, truth.shape, sample.id)
        prediction, confidence = (array.numpy() for array in found)
        scores = ConfusionMatrix(len(dataset.classes))
        scores.update(prediction, truth)
        miou = float(image_mious(scores.class_counts()))
        shown = photo, truth, prediction, confidence, scores.iou()
        yield Record(sample.id, sample.id, *shown, None if math.isnan(miou) else miou)


def truth_records(dataset: VOCFolder, indices: Iterable[int]) -> Iterator[Record]:
    """Images of a split with their ground truth alone."""
    for index in indices:
        name = dataset.ids[index]
        yield Record(name, name, dataset.image(index), dataset.mask(index))


def photo_records(
    segmenter: Segmenter, photos: Mapping[str, Path], left_out: list[str]
) -> Iterator[Record]:
    """The user's own photos with what the network sees in them; adds why one cannot be read."""
    for name, path in photos.items():
        try:
            photo = read_image(path)
        except UserError as error:
            left_out.append(str(error))
            continue
        found = predict_photo(segmenter, photo, name)
        yield Record(name, path.name, photo, None, *(array.numpy() for array in found))


def by_miou(
    segmenter: Segmenter, dataset: VOCFolder, indices: Sequence[int], best: bool, workers: int
) -> list[int]:
    """Images of a split, all predicted: the worst or the best first, without a label last."""
    records = split_records(segmenter, dataset, indices, workers)
    records = runtime.bar(records, len(indices), "image", "score")
    mious = np.array([record.miou for record in records], dtype=float)  # None is nan: last
    order = np.argsort(-mious if best else mious, kind="stable")
    return [indices[place] for place in order]


def save_pages(
    new: Path, records: Iterable[Record], classes: Classes, confidence: bool = False
) -> list[gallery.Picture]:
    """Draws a page of each image, ID.png, with a tile of the confidence if asked for.

    Of photos without scores it also saves predictions/ID.png and photos.csv.
    """
    pictures, table = [], []
    for record in records:
        masks = record.truth, record.prediction, record.confidence if confidence else None
        scores = record.ious, record.miou
        page = draw_page(record.photo, classes, *masks, *scores, record.title)
        page.picture.save(new / f"{record.id}.png")
        pictures.append(gallery.picture(record.id, record.title, page, record.miou))
        if record.prediction is not None and record.ious is None:
            table += save_photo(new, record, classes, page.rows)
    if table:
        folder.save_csv(new / "photos.csv", table)
    return pictures


def save_photo(
    new: Path, record: Record, classes: Classes, legend: Sequence[Row]
) -> list[dict[str, Any]]:
    """Saves the index PNG of a photo; prints and returns its rows of photos.csv.

    A row is a class in it, the largest first, with its share and mean confidence, 0..1.
    """
    (new / "predictions").mkdir(exist_ok=True)
    colour_mask(record.prediction, classes).save(new / "predictions" / f"{record.id}.png")
    rows, words = [], []
    seen = [line for line in legend if line.shares["prediction"]]  # not what strokes alone hold
    for line in sorted(seen, key=lambda line: -line.shares["prediction"]):
        share = line.shares["prediction"]
        sure = float(record.confidence.mean(where=record.prediction == line.label))
        rows.append({"photo": record.title, "class": line.name, "share": share, "confidence": sure})
        words.append(f"{line.name} {percent(share)}")
    print(f"  {record.title}  {'  '.join(words)}")
    return rows


def save_report(
    new: Path, run: Path, segmenter: Segmenter, pictures: Sequence[gallery.Picture], images: str
) -> None:
    """Writes the run up as report.pdf, with some of the pictures, drawn of these images."""
    from data.figures import report  # matplotlib takes a second to import

    chosen = report.choose({picture.name: picture.miou for picture in pictures})
    shown = [(kind, Image.open(new / f"{name}.png")) for kind, name in chosen]
    words, record = f"{len(pictures)} of {images}", read_run(run, segmenter)
    report.save_pages(new / "report.pdf", report.report_pages(record, words, shown))


def main() -> None:
    args = parse()
    device = runtime.choose_device("cpu" if args.truth else args.device, single=True)
    segmenter, source, where, facts = None, None, None, {}
    if not args.truth:
        segmenter, source = chain.trained_segmenter(args.run, args.checkpoint)
        views = args.tta, args.refine, args.dilate, args.size, args.tile
        flags.set_views(segmenter, *views)
        runtime.prepare(segmenter, device, args.amp, args.compile)
        facts["network"] = f"{source} ({segmenter.hypercolumn.backbone})"
        where = runtime.describe(device, args.amp, args.compile)
    (photos, others), notes = find_photos(args.image or ()), []
    if photos:
        names, classes, what = sorted(photos), segmenter.classes, "photos"
        own_place = Path("runs/photos")
    else:
        how = segmenter and ResizeImage(segmenter.input_size)
        dataset = VOCFolder(args.data, args.split, how, needs_lists=not args.truth)
        notes = dataset.notes
        names, classes = sorted(dataset.ids), dataset.classes
        what = f"images of {dataset.root}, split {args.split}"
        own_place = Path("runs/truth")
        if segmenter:
            chain.check_classes(segmenter.classes.names, classes.names, source, dataset.root)
    if args.sort == "random":
        random.Random(args.seed).shuffle(names)
    wanted = classes.labels(args.classes or ())
    place = args.out or (folder.step_folder(args.run, 5) if args.run else own_place)
    folder.check_free(place, 5)
    facts = {"images": f"{len(names)} {what}", **facts}
    runtime.print_header(folder.step_title(5), args.quiet, args.changed, **facts, device=where)
    if others:
        notes.append(f"left out, as no photos: {first_of(others)}")
    for note in notes:
        print(f"  note: {note}")

    left_out: list[str] = []
    limit = min(args.limit or (len(names) if photos else IMAGES), len(names))
    if photos:
        records = photo_records(segmenter, {name: photos[name] for name in names}, left_out)
        records = (one for one in records if not wanted or wanted & {*np.unique(one.prediction)})
    else:
        dataset.ids, every = names, range(len(names))
        chosen = (i for i in every if not wanted or wanted & {*np.unique(dataset.mask(i))})
        if args.sort in ("worst", "best"):
            chosen = by_miou(segmenter, dataset, [*chosen], args.sort == "best", args.workers)
        chosen = list(islice(chosen, limit))
        records = truth_records(dataset, chosen)
        if segmenter:
            records = split_records(segmenter, dataset, chosen, args.workers)

    with folder.new_folder(place) as new:
        records = runtime.bar(islice(records, limit), limit, "image")
        pictures = save_pages(new, records, classes, args.confidence)
        if not pictures:
            none = f"--classes {','.join(args.classes or ())}: in none of the {len(names)} images"
            raise UserError(first_of(left_out) or none)
        facts["flags"] = runtime.as_typed(args.changed) or "none"
        heading = f"{'Ground truth' if args.truth else 'Predictions'} of {what}"
        gallery.save_gallery(new, pictures, heading, facts)
        if args.contact_sheet:
            gallery.contact_sheet(pictures).save(new / gallery.SHEET)
        if args.report:
            save_report(new, args.run, segmenter, pictures, facts["images"])
        found = {"checkpoint": source, "scores": {"pictures": len(pictures)}}
        config = folder.save_config(new, 5, vars(args), **found)
    wrote = f"{folder.count(len(pictures), 'picture')}{' and report.pdf' * args.report}"
    wrote += f"; open {place / gallery.INDEX} in a browser"
    then = ("sample_features.py", "--data", args.data, "--run", "runs/own") if args.truth else ()
    folder.finish(args.run, 5, config, wrote, then, place)
    if left_out:
        raise UserError(f"left out {first_of(left_out)}; the others are done")


if __name__ == "__main__":
    runtime.run_script(main)
