"""Step 5: pictures of what the network sees: image, ground truth, prediction and error map side by side.

    python visualize.py --data data/VOCdevkit/VOC2012 --run runs/voc
    python visualize.py --run runs/voc --sort worst --limit 24 --classes dog,cat --confidence --contact-sheet
    python visualize.py --run runs/voc --limit 50 --report        # the write-up of the run
    python visualize.py --run runs/voc --image holiday.jpg photos/ --out seen        # your own pictures

Reads RUN/3_seg/best.pt, or RUN/2_cls/dense.pt where step 3 was not run. Writes RUN/5_overlays/: ID.png, index.html
(all of them, to be opened in a browser), with --contact-sheet contact_sheet.png, with --report report.pdf (the run
written up: settings, architecture, data, curves, scores, best and worst pictures), config.json (last). For your own
pictures also predictions/NAME.png (8-bit palette indices at the original size) and photos.csv (each one's classes).
With --out all of it goes to that folder, which must be new, empty, or hold earlier pictures.
"""

import argparse
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from data import DataError
from data.classes import Classes
from data.gallery import INDEX, PREDICTIONS, SHEET, Picture, check_place, contact_sheet, gallery
from data.overlay import Panel, colour_mask, panel, percent
from data.photos import find_photos
from data.stream import batches, stream
from data.transforms import ResizeImage
from data.voc import Sample, VOCFolder, read_photo
from losses.report import report_pages, save_pages
from losses.score import ConfusionMatrix
from models import flags, run_folder, runtime
from models.diagram import draw_architecture
from models.files import atomic_file
from models.history import read_history
from models.segmenter import Segmenter

REPORT, TABLE = "report.pdf", "photos.csv"
IMAGES = 12  # of a split that are drawn unless --limit says otherwise
SORTS = {"name": "the first", "worst": "the worst", "best": "the best", "random": "a random"}


class Drawn(NamedTuple):
    """An image and what the network sees in it."""

    name: str
    title: str
    page: Panel
    prediction: np.ndarray  # (H, W) uint8 class ids
    miou: float | None = None


def parse() -> argparse.Namespace:
    parser = flags.step_parser(__doc__)
    limit = f"only N pictures, the first after sorting; default: {IMAGES} of a split, all of --image"
    flags.add_data_flags(parser, split="val", limit=limit)
    parser.add_argument("--sort", default="name", choices=SORTS, help="worst and best by the mIoU of each image")
    parser.add_argument("--seed", type=flags.natural, default=0, help="of --sort random")
    parser.add_argument(
        "--classes",
        type=lambda names: [name.strip() for name in names.split(",")],
        metavar="dog,cat",
        help="only images with one of these in the ground truth; photos where the network sees one",
    )
    parser.add_argument(
        "--confidence", action="store_true", help="a further tile: how sure the network is of its class"
    )
    parser.add_argument("--contact-sheet", action="store_true", help=f"save {SHEET}, too: the first 24 as thumbnails")
    parser.add_argument("--image", type=Path, nargs="+", metavar="PATH", help="photos and folders of them, not --data")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write; default: 5_overlays of the run")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="network to use; default: the run's best")
    parser.add_argument("--report", action="store_true", help=f"write the run up as {REPORT}, with these pictures")
    flags.add_view_flags(parser)
    flags.add_speed_flags(parser)
    args = parser.parse_args()
    flags.check_beside(parser, args, "image", ("data", "split"))
    return args


def has(mask: np.ndarray, wanted: set[int]) -> bool:
    """Whether a mask (H, W) has one of the wanted classes, if any are."""
    return not wanted or not wanted.isdisjoint(np.unique(mask).tolist())


def in_order(names: Sequence[str], sort: str, seed: int) -> list[int]:
    """The places of the names, by name or shuffled."""
    order = sorted(range(len(names)), key=names.__getitem__)
    if sort == "random":
        random.Random(seed).shuffle(order)
    return order


def confusion(prediction: np.ndarray, sample: Sample, classes: int) -> ConfusionMatrix:
    """Of one image alone."""
    matrix = ConfusionMatrix(classes)
    matrix.update(prediction, sample.mask)
    return matrix


def choose(
    segmenter: Segmenter, dataset: VOCFolder, wanted: set[int], sort: str, seed: int, limit: int, workers: int
) -> list[int]:
    """The images of a split to draw, in their order; to sort by score all are predicted, and no picture is kept."""
    fitting = (index for index in in_order(dataset.ids, sort, seed) if has(dataset.mask(index), wanted))
    if sort in ("name", "random"):
        return list(islice(fitting, limit))
    found, sign = list(fitting), -1 if sort == "best" else 1
    seen = segmenter.predict_all(stream(dataset, batches(found, 1), workers))
    scores = [
        sign * confusion(prediction, sample, len(segmenter.names)).image_miou()
        for sample, prediction in runtime.progress(seen, total=len(found), unit="image", label="score")
    ]
    ranked = sorted(zip(scores, found), key=lambda pair: (math.isnan(pair[0]), pair[0]))  # all void: last
    return [index for _, index in ranked[:limit]]


def predict(segmenter: Segmenter, sample: Sample, confidence: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """The class map of an image and, where it is asked for, the probability of its classes."""
    return segmenter.predict_with_confidence([sample])[0] if confidence else (segmenter.predict([sample])[0], None)


def draw_split(
    segmenter: Segmenter, classes: Classes, dataset: VOCFolder, indices: list[int], workers: int, confidence: bool
) -> Iterator[Drawn]:
    """The chosen images of a split, with their ground truth and mIoU."""
    for index, (sample,) in zip(indices, stream(dataset, batches(indices, 1), workers)):
        prediction, top = predict(segmenter, sample, confidence)
        matrix = confusion(prediction, sample, len(classes))
        scores = {label: iou for label, iou in enumerate(matrix.iou().tolist()) if not math.isnan(iou)}
        miou = matrix.image_miou() if scores else None
        photo = Image.fromarray(dataset.image(index))
        page = panel(photo, prediction, classes, sample.mask, sample.id, scores, miou, top)
        yield Drawn(sample.id, sample.id, page, prediction, miou)


def draw_photos(
    segmenter: Segmenter, classes: Classes, photos: Mapping[str, Path], wanted: set[int], confidence: bool
) -> Iterator[Drawn]:
    """The user's own photos in which one of the wanted classes is seen; without ground truth."""
    for name, path in photos.items():
        pixels, sample = read_photo(path, ResizeImage(segmenter.input_size))
        prediction, top = predict(segmenter, sample, confidence)
        if has(prediction, wanted):
            page = panel(Image.fromarray(pixels), prediction, classes, title=path.name, confidence=top)
            yield Drawn(name, path.name, page, prediction)


def save_gallery(folder: Path, pictures: list[Picture], run: Path, facts: Mapping[str, str]) -> None:
    """Writes the page for the browser."""
    with atomic_file(folder / INDEX) as file:
        file.write(gallery(pictures, f"Predictions of {run}", facts).encode())


def save_table(path: Path, pictures: list[Picture]) -> None:
    """The classes seen in each photo and their share of its pixels, the largest first: saved as CSV, and printed."""
    rows, width = [], max(len(picture.title) for picture in pictures)
    for picture in pictures:
        seen = sorted(((row.shares["prediction"], row.name) for row in picture.classes), reverse=True)
        rows += [{"photo": picture.title, "class": name, "share": share} for share, name in seen]
        print(f"  {picture.title:{width}}  " + "  ".join(f"{name} {percent(share)}" for share, name in seen))
    run_folder.save_csv(path, rows)


def main() -> None:
    args = parse()
    device = runtime.choose_device(args.device, alone=True)
    segmenter, source = run_folder.trained_segmenter(args.run, args.checkpoint)
    classes = Classes.from_lists(segmenter.names, segmenter.colours)
    wanted = classes.labels(args.classes or ())
    precision = segmenter.to(device).speed_up(args.amp, args.compile)
    views = segmenter.look(*args.tta or ([], False), args.dilate, args.refine)
    history = read_history(args.run) if args.report else {}
    if args.image:
        if args.sort in ("worst", "best"):
            raise DataError(f"--sort {args.sort}: needs ground truth, which --image does not have; use name or random")
        photos = find_photos(args.image)
        names, what = list(photos), f"{len(photos)} photos"
        limit = min(args.limit or len(photos), len(photos))
    else:
        dataset = VOCFolder(args.data, args.split, ResizeImage(segmenter.input_size))
        run_folder.check_classes(classes.names, dataset.classes.names, source, dataset.root)
        photos, names, what = {}, dataset.ids, f"{len(dataset)} images of {dataset.root}, split {args.split}"
        limit = min(args.limit or IMAGES, len(dataset))
    if limit < len(names):
        what = f"{SORTS[args.sort]} {limit} of {what}"
    if wanted:
        what += f", with {' or '.join(args.classes)}"
    facts = {
        "images": what,
        "network": f"{source} ({segmenter.hypercolumn.backbone})",
        "views": views,
    }
    folder = args.out or run_folder.step_folder(args.run, 5)
    check_place(folder, not args.out, names, photos.values())
    run_folder.prepare(args.run, 5, folder)
    runtime.announce(5, args.quiet, recipe=args.recipe, **facts, device=f"{device}, {precision}")

    if args.image:
        order = {names[place]: photos[names[place]] for place in in_order(names, args.sort, args.seed)}
        drawings = islice(draw_photos(segmenter, classes, order, wanted, args.confidence), limit)
    else:
        chosen = choose(segmenter, dataset, wanted, args.sort, args.seed, limit, args.workers)
        drawings, limit = draw_split(segmenter, classes, dataset, chosen, args.workers, args.confidence), len(chosen)
    pictures = []
    for drawn in runtime.progress(drawings, total=limit, unit="image"):
        if not pictures:
            run_folder.begin(args.run, 5, folder)
            for name in (SHEET, REPORT, TABLE):  # earlier ones would tell of other pictures
                (folder / name).unlink(missing_ok=True)
            save_gallery(folder, pictures, args.run, facts)  # should this run be stopped, the folder is known as ours
        with atomic_file(folder / f"{drawn.name}.png") as file:
            drawn.page.picture.save(file, "PNG")
        if args.image:
            with atomic_file(folder / PREDICTIONS / f"{drawn.name}.png") as file:
                colour_mask(drawn.prediction, classes).save(file, "PNG")
        pictures.append(Picture.of(drawn.name, drawn.title, drawn.page, drawn.miou))
    if not pictures:
        raise DataError(f"--classes {','.join(args.classes)}: in none of the {len(names)} images")

    save_gallery(folder, pictures, args.run, facts)
    if args.contact_sheet:
        with atomic_file(folder / SHEET) as file:
            contact_sheet(pictures).save(file, "PNG")
    if args.report:
        pages = report_pages(
            **history,
            architecture=draw_architecture(segmenter),
            shown=f"{what}; {source}, {views}",
            pictures=folder,
            mious={picture.name: picture.miou for picture in pictures},
        )
        with atomic_file(folder / REPORT) as file:
            save_pages(file, pages)
    if args.image:
        save_table(folder / TABLE, pictures)
    wrote = f"{len(pictures)} picture" + "s" * (len(pictures) > 1) + f" and {REPORT}" * args.report
    wrote += f"; open {folder / INDEX} in a browser"
    run_folder.finish(args.run, 5, {**vars(args), "checkpoint": str(source)}, wrote=wrote, folder=folder)


if __name__ == "__main__":
    runtime.run_step(main)
