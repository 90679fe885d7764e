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
from data.figures import gallery, overlay, report
from data.files import atomic_file
from data.images import colour_mask, find_photos, first_of, read_image
from data.transforms import ResizeImage
from data.voc import VOCFolder
from losses.metrics import ConfusionMatrix
from models.run import args as flags
from models.run import folder, runtime
from models.run.predictor import predict_photo
from models.run.record import read_run
from models.segmenter import Segmenter
from models.views import Views

IMAGES = 12  # of a split that are drawn unless --limit says otherwise
SORTS = {"name": "the first", "worst": "the worst", "best": "the best", "random": "a random"}


class Record(NamedTuple):
    """What is known of an image; its picture is ID.png."""

    id: str
    title: str
    photo: np.ndarray  # (H, W, 3) uint8 RGB
    truth: np.ndarray | None = None  # (H, W) uint8
    prediction: np.ndarray | None = None  # (H, W) uint8
    confidence: np.ndarray | None = None  # (H, W) float32: probability of the predicted class
    scores: ConfusionMatrix | None = None

    @property
    def mask(self) -> np.ndarray:
        """By which it is chosen: the ground truth or, without one, the prediction."""
        return self.prediction if self.truth is None else self.truth

    @property
    def miou(self) -> float | None:
        """None where nothing is scored."""
        miou = self.scores.image_miou() if self.scores else math.nan
        return None if math.isnan(miou) else miou


def parse() -> argparse.Namespace:
    parser = flags.Parser(__doc__, needs_run=False)
    flag = parser.flag
    limit = f"only N pictures, the first after sorting; default: {IMAGES}, or all of --image"
    flags.add_data_flags(parser, split="val", limit=limit)
    flag("--sort", SORTS, "name", "worst, best: by the mIoU of each image")
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
    if args.seed and args.sort != "random":
        parser.error("argument --seed: has no effect without --sort random")
    return args


def load_network(
    run: Path | None, checkpoint: Path | None, views: Views, dilate: int | None
) -> tuple[Segmenter, Path]:
    """The network to use and its file."""
    segmenter, source = folder.trained_segmenter(run, checkpoint)
    segmenter.views = views
    if dilate is not None:
        segmenter.hypercolumn.dilate(dilate)
    return segmenter, source


def split_records(
    segmenter: Segmenter, dataset: VOCFolder, indices: Sequence[int], workers: int
) -> Iterator[Record]:
    """Images of a split with ground truth, prediction and scores."""
    for index, sample in zip(indices, runtime.image_loader(dataset, indices, workers)):
        truth, scores = sample.mask.numpy(), ConfusionMatrix(len(dataset.classes))
        found = segmenter.predict(sample.image, truth.shape, sample.id, confidence=True)
        mask, best = (array.numpy() for array in found)
        scores.update(mask, truth)
        yield Record(sample.id, sample.id, dataset.image(index), truth, mask, best, scores)


def truth_records(
    dataset: VOCFolder, indices: Iterable[int], left_out: list[str]
) -> Iterator[Record]:
    """Images of a split with their ground truth alone; adds why one cannot be read."""
    for index in indices:
        try:
            photo, truth = dataset.image(index), dataset.mask(index)
        except UserError as error:
            left_out.append(str(error))
            continue
        yield Record(dataset.ids[index], dataset.ids[index], photo, truth)


def photo_records(
    segmenter: Segmenter, photos: Iterable[tuple[str, Path]], left_out: list[str]
) -> Iterator[Record]:
    """The user's own photos with what the network sees in them; adds why one cannot be read."""
    for name, path in photos:
        try:
            photo = read_image(path)
        except UserError as error:
            left_out.append(str(error))
            continue
        found = predict_photo(segmenter, photo, name, confidence=True)
        yield Record(name, path.name, photo, None, *(array.numpy() for array in found))


def has_one(mask: np.ndarray, wanted: set[int]) -> bool:
    """Whether a mask (H, W) has one of these classes; always, where none is wanted."""
    return not wanted or not wanted.isdisjoint(np.unique(mask).tolist())


def in_order(names: Sequence[str], sort: str, seed: int) -> list[int]:
    """The indices of the names, by name or shuffled."""
    order = sorted(range(len(names)), key=names.__getitem__)
    if sort == "random":
        random.Random(seed).shuffle(order)
    return order


def choose(
    segmenter: Segmenter, dataset: VOCFolder, fitting: Iterable[int], sort: str, workers: int
) -> Iterable[int]:
    """The images of a split in the order of `sort`; by mIoU all are predicted, all void come last.

    Args:
        fitting: their indices by name or at random.
    """
    if sort not in ("worst", "best"):
        return fitting
    indices, sign = list(fitting), -1 if sort == "best" else 1
    records = split_records(segmenter, dataset, indices, workers)
    records = runtime.bar(records, len(indices), "image", "score")
    mious = [math.inf if record.miou is None else sign * record.miou for record in records]
    return [index for _, index in sorted(zip(mious, indices), key=lambda pair: pair[0])]


def page_of(record: Record, classes: Classes, sure: bool = False) -> overlay.Page:
    """The page about a record; `sure`: with its confidence."""
    masks = record.truth, record.prediction, record.confidence if sure else None
    ious = record.scores.iou() if record.scores else None
    return overlay.draw_page(record.photo, classes, *masks, ious, record.miou, record.title)


def save_png(path: Path, image: Image.Image) -> None:
    with atomic_file(path) as file:
        image.save(file, "PNG")


def save_photo(place: Path, record: Record, classes: Classes) -> list[dict[str, Any]]:
    """Saves the prediction for a photo; rows about the classes in it, the largest first."""
    alone = colour_mask(record.prediction, classes)
    save_png(place / gallery.PREDICTIONS / f"{record.id}.png", alone)
    labels, counts = np.unique(record.prediction, return_counts=True)
    rows = []
    for count, label in sorted(zip(counts.tolist(), labels), reverse=True):
        sure = record.confidence[record.prediction == label].mean()
        row = {"photo": record.title, "class": classes.names[label]}
        rows.append({**row, "share": count / record.prediction.size, "confidence": float(sure)})
    words = (f"{row['class']} {overlay.percent(row['share'])}" for row in rows)
    print(f"  {record.title}  {'  '.join(words)}")
    return rows


def save_report(
    path: Path,
    run: Path,
    segmenter: Segmenter,
    dataset: VOCFolder,
    mious: Mapping[str, float | None],
    shown: str,
) -> None:
    """Writes the run up, with the best, typical and worst of the images that step 4 has scored.

    Args:
        mious: of images, by id, to choose from where step 4 has scored others or none.
        shown: which images those are, in words.
    """
    values = read_run(run, segmenter)
    if values["mious"] and values["mious"].keys() <= set(dataset.ids):
        mious = values["mious"]
        shown = f"the {len(mious)} images that step 4 has scored"
    chosen = [(kind, name) for kind, names in report.choose(mious).items() for name in names]
    indices = [dataset.ids.index(name) for _, name in chosen]
    records = split_records(segmenter, dataset, indices, workers=0)
    pages = (page_of(record, dataset.classes).picture for record in records)
    pictures = [(kind, page) for (kind, _), page in zip(chosen, pages)]
    with atomic_file(path) as file:
        report.save_pages(file, report.report_pages(values, shown, pictures))


def main() -> None:
    args = parse()
    device = runtime.choose_device("cpu" if args.truth else args.device, single=True)
    segmenter, facts, left_out = None, {}, []
    if not args.truth:
        views = flags.views_of(args.tta, args.refine)
        segmenter, source = load_network(args.run, args.checkpoint, views, args.dilate)
        runtime.prepare(segmenter, device, args.amp, args.compile)
        facts["network"] = f"{source} ({segmenter.hypercolumn.backbone})"
        facts["views"] = f"{segmenter.views}{segmenter.hypercolumn.dilation_in_words}"
    photos, others = find_photos(args.image or ())
    if photos:
        names, classes, what = list(photos), segmenter.classes, "photos"
    else:
        dataset = VOCFolder(args.data, args.split, segmenter and ResizeImage(segmenter.input_size))
        names, classes = dataset.ids, dataset.classes
        what = f"images of {dataset.root}, split {args.split}"
        if segmenter:
            folder.check_classes(segmenter.names, classes.names, source, dataset.root)
    wanted = classes.labels(args.classes or ())
    limit = min(args.limit or (len(names) if photos else IMAGES), len(names))
    some = f"{SORTS[args.sort]} {limit} of " if limit < len(names) else ""
    having = f", with {' or '.join(args.classes)}" if wanted else ""
    facts = {"images": f"{some}{len(names)} {what}{having}", **facts}
    in_run = bool(args.run and not args.out)
    elsewhere = args.out or Path("runs/photos" if photos else "runs/truth")
    place = folder.step_folder(args.run, 5) if in_run else elsewhere
    gallery.check_place(place, in_run, names, photos.values())
    where = segmenter and runtime.describe(device, args.amp, args.compile)
    runtime.print_header(folder.step_title(5), args.quiet, args.changed, **facts, device=where)
    if others:
        print(f"  note: {folder.count(len(others), 'file')} left out: {first_of(others)}")

    order = in_order(names, args.sort, args.seed)
    if photos:
        chosen = [(names[index], photos[names[index]]) for index in order]
        records = photo_records(segmenter, chosen, left_out)
    elif args.truth:
        records = truth_records(dataset, order, left_out)
    else:
        fitting = (index for index in order if not wanted or has_one(dataset.mask(index), wanted))
        chosen = choose(segmenter, dataset, fitting, args.sort, args.workers)
        records = split_records(segmenter, dataset, list(islice(chosen, limit)), args.workers)
    records = islice((record for record in records if has_one(record.mask, wanted)), limit)

    with folder.new_folder(place) as new:
        pictures, table = [], []
        for record in runtime.bar(records, limit, "image"):
            page = page_of(record, classes, args.confidence)
            save_png(new / f"{record.id}.png", page.picture)
            pictures.append(gallery.picture(record.id, record.title, page, record.miou))
            if photos:
                table += save_photo(new, record, classes)
        if not pictures:
            none = f"--classes {','.join(args.classes or ())}: in none of the {len(names)} images"
            raise UserError(first_of(left_out) or none)
        heading = f"{'Ground truth' if args.truth else 'Predictions'} of {what}"
        (new / gallery.INDEX).write_bytes(gallery.gallery(pictures, heading, facts).encode())
        if args.contact_sheet:
            save_png(new / gallery.SHEET, gallery.contact_sheet(pictures))
        if photos:
            folder.save_csv(new / "photos.csv", table)
        if args.report:
            mious = {picture.name: picture.miou for picture in pictures}
            save_report(new / "report.pdf", args.run, segmenter, dataset, mious, facts["images"])
        files = [path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_file()]
        config = folder.save_config(
            new,
            5,
            vars(args),
            checkpoint=str(source) if segmenter else None,
            files=sorted([*files, "config.json"]),
            scores={"pictures": len(pictures)},
        )
    wrote = f"{folder.count(len(pictures), 'picture')}{' and report.pdf' * args.report}"
    wrote += f"; open {place / gallery.INDEX} in a browser"
    then = ("sample_features.py", "--data", args.data, "--run", "runs/own")
    folder.finish(args.run, 5, config, wrote, then if args.truth and not left_out else (), place)
    if left_out:
        raise UserError(f"left out {first_of(left_out)}; the others are done")


if __name__ == "__main__":
    runtime.run_script(main)
