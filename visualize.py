"""Step 5: pictures of what the network sees: image, ground truth, prediction and errors.

    python visualize.py --data data/VOCdevkit/VOC2012 --run runs/voc
    python visualize.py --run runs/voc --sort worst --limit 24 --classes dog,cat --contact-sheet
    python visualize.py --run runs/voc --limit 50 --report          # the write-up of the run
    python visualize.py --run runs/voc --image holiday.jpg photos/ --out seen      # your own

Reads RUN/3_seg/best.pt, or RUN/2_cls/dense.pt where step 3 was not run. Writes RUN/5_overlays/:
ID.png, index.html (all of them, to be opened in a browser), with --contact-sheet contact_sheet.png,
with --report report.pdf (settings, architecture, data, curves, scores, best and worst pictures),
config.json (last). For your own pictures also predictions/NAME.png (8-bit palette indices at the
original size) and photos.csv (the classes of each). With --out all of it goes to that folder, which
must be new, empty, or hold earlier pictures.
"""

import argparse
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader

from data import DataError
from data.classes import Classes
from data.figures.diagram import draw_architecture
from data.figures.gallery import (
    INDEX,
    PREDICTIONS,
    SHEET,
    Picture,
    check_place,
    contact_sheet,
    gallery,
)
from data.figures.overlay import Panel, colour_mask, panel, percent
from data.figures.report import choose, report_pages, save_pages
from data.files import atomic_file
from data.images import find_photos, first_of, read_image
from data.transforms import ResizeImage
from data.voc import Sample, VOCFolder, photo_sample
from losses.metrics import ConfusionMatrix, ImageScores
from models.backbones import fingerprint
from models.run import args as flags
from models.run import folder, runtime
from models.segmenter import Segmenter
from models.summary import summarise

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


def parse() -> tuple[argparse.Namespace, flags.Parser]:
    parser = flags.Parser(__doc__)
    flag = parser.flag
    limit = (
        f"only N pictures, the first after sorting; default: {IMAGES} of a split, all of --image"
    )
    flags.add_data_flags(parser, split="val", limit=limit)
    by_score = "worst and best by the mIoU of each image"
    flag("--sort", default="name", choices=SORTS, help=by_score)
    flag("--seed", type=flags.natural, default=0, help="of --sort random")
    flag(
        "--classes",
        type=lambda names: [name.strip() for name in names.split(",")],
        metavar="dog,cat",
        help="only images with one of these in the ground truth; photos where the network sees one",
    )
    confidence = "a further tile: how sure the network is of its class"
    flag("--confidence", action="store_true", help=confidence)
    sheet = f"save {SHEET}, too: the first 24 as thumbnails"
    flag("--contact-sheet", action="store_true", help=sheet)
    photos = "photos and folders of them, not --data"
    flag("--image", type=Path, nargs="+", metavar="PATH", help=photos)
    out = "where to write; default: 5_overlays of the run"
    flag("--out", type=Path, metavar="DIR", help=out)
    checkpoint = "network to use; default: the run's best"
    flag("--checkpoint", type=Path, metavar="FILE", help=checkpoint)
    report = f"write the run up as {REPORT}, with these pictures"
    flag("--report", action="store_true", help=report)
    flags.add_view_flags(parser)
    flags.add_speed_flags(parser)
    args = parser.parse_args()
    for name in ("data", "split"):
        if args.image and getattr(args, name) != parser.get_default(name):
            parser.error(f"argument --{name}: not allowed with argument --image")
    if args.image and args.report:
        parser.error("argument --report: not allowed with argument --image")
    if args.seed and args.sort != "random":
        parser.error("argument --seed: has no effect without --sort random")
    if args.image and args.sort in ("worst", "best"):
        raise DataError(
            f"--sort {args.sort}: needs ground truth, which --image does not have; "
            "use name or random"
        )
    return args, parser


def has_any(mask: np.ndarray, wanted: set[int]) -> bool:
    """Whether a mask (H, W) has one of the wanted classes, or none are wanted."""
    return not wanted or not wanted.isdisjoint(np.unique(mask).tolist())


def order(names: Sequence[str], sort: str, seed: int) -> list[int]:
    """The indices of the names, by name or shuffled."""
    indices = sorted(range(len(names)), key=names.__getitem__)
    if sort == "random":
        random.Random(seed).shuffle(indices)
    return indices


def confusion(prediction: np.ndarray, sample: Sample, classes: int) -> ConfusionMatrix:
    """The confusion matrix of one image."""
    matrix = ConfusionMatrix(classes)
    matrix.update(prediction, sample.mask.numpy())
    return matrix


def choose_images(
    segmenter: Segmenter,
    dataset: VOCFolder,
    wanted: set[int],
    sort: str,
    seed: int,
    limit: int,
    workers: int,
) -> list[int]:
    """The images of a split to draw, in their order; to sort by score, all are predicted."""
    indices = order(dataset.ids, sort, seed)
    fitting = (index for index in indices if has_any(dataset.mask(index), wanted))
    if sort in ("name", "random"):
        return list(islice(fitting, limit))
    found = list(fitting)
    loader = DataLoader(dataset, batch_size=None, sampler=found, num_workers=workers)
    mious = []
    for sample in runtime.bar(loader, len(found), "image", "score"):
        prediction = segmenter.predict(sample.image, sample.mask.shape, sample.id).numpy()
        mious.append(confusion(prediction, sample, len(segmenter.names)).image_miou())
    sign = -1 if sort == "best" else 1
    ranked = sorted(zip(mious, found), key=lambda pair: (math.isnan(pair[0]), sign * pair[0]))
    return [index for _, index in ranked[:limit]]  # images that are all void come last


def predict(
    segmenter: Segmenter, sample: Sample, confidence: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """The class map of an image and, on request, the probability of its classes."""
    size = tuple(sample.mask.shape)
    if not confidence:
        return segmenter.predict(sample.image, size, sample.id).numpy(), None
    classes, probability = segmenter.predict_with_confidence(sample.image, size, sample.id)
    return classes.numpy(), probability.numpy()


def draw_split(
    segmenter: Segmenter, dataset: VOCFolder, indices: list[int], workers: int, confidence: bool
) -> Iterator[Drawn]:
    """The chosen images of a split, with their ground truth and mIoU."""
    classes = dataset.classes
    loader = DataLoader(dataset, batch_size=None, sampler=indices, num_workers=workers)
    for index, sample in zip(indices, loader):
        prediction, top = predict(segmenter, sample, confidence)
        matrix = confusion(prediction, sample, len(classes))
        scores = {label: iou for label, iou in enumerate(matrix.iou().tolist()) if iou == iou}
        miou = matrix.image_miou() if scores else None
        photo, target = Image.fromarray(dataset.image(index)), sample.mask.numpy()
        page = panel(photo, prediction, classes, target, sample.id, scores, miou, top)
        yield Drawn(sample.id, sample.id, page, prediction, miou)


def draw_photos(
    segmenter: Segmenter,
    photos: Mapping[str, Path],
    wanted: set[int],
    confidence: bool,
    unreadable: list[str],
) -> Iterator[Drawn]:
    """The user's own photos in which one of the wanted classes is seen; without ground truth.

    Why a photo cannot be read is added to `unreadable`.
    """
    classes = segmenter.classes
    for name, path in photos.items():
        try:
            photo = read_image(path)
        except DataError as error:
            unreadable.append(str(error))
            continue
        sample = photo_sample(name, photo, ResizeImage(segmenter.input_size))
        prediction, top = predict(segmenter, sample, confidence)
        if has_any(prediction, wanted):
            picture = Image.fromarray(photo)
            page = panel(picture, prediction, classes, title=path.name, confidence=top)
            yield Drawn(name, path.name, page, prediction)


def save_pictures(
    place: Path,
    drawings: Iterator[Drawn],
    total: int,
    heading: str,
    facts: Mapping[str, str],
    classes: Classes | None,
) -> list[Picture]:
    """Saves a page per picture and the gallery; index PNGs as well where `classes` are given."""
    pictures = []
    for drawn in runtime.bar(drawings, total, "image"):
        if not pictures:
            folder.mark_unfinished(place)
            for name in (SHEET, REPORT, TABLE):  # earlier ones would be of other pictures
                (place / name).unlink(missing_ok=True)
            save_gallery(place, pictures, heading, facts)  # so a folder left half done is ours
        with atomic_file(place / f"{drawn.name}.png") as file:
            drawn.page.picture.save(file, "PNG")
        if classes:
            with atomic_file(place / PREDICTIONS / f"{drawn.name}.png") as file:
                colour_mask(drawn.prediction, classes).save(file, "PNG")
        pictures.append(Picture.of(drawn.name, drawn.title, drawn.page, drawn.miou))
    if pictures:
        save_gallery(place, pictures, heading, facts)
    return pictures


def save_gallery(
    place: Path, pictures: list[Picture], heading: str, facts: Mapping[str, str]
) -> None:
    """Writes the page for the browser."""
    with atomic_file(place / INDEX) as file:
        file.write(gallery(pictures, heading, facts).encode())


def save_table(path: Path, pictures: list[Picture]) -> None:
    """Saves as CSV, and prints, the classes of each photo and their shares, the largest first."""
    rows, width = [], max(len(picture.title) for picture in pictures)
    for picture in pictures:
        shares = [(row.shares["prediction"], row.name) for row in picture.classes]
        seen = sorted(shares, reverse=True)
        rows += [{"photo": picture.title, "class": name, "share": share} for share, name in seen]
        words = "  ".join(f"{name} {percent(share)}" for share, name in seen)
        print(f"  {picture.title:{width}}  {words}")
    folder.save_csv(path, rows)


def scored_mious(
    run: Path, config: Mapping[str, Any] | None, segmenter: Segmenter, ids: Sequence[str]
) -> dict[str, float | None]:
    """The mIoU of every image that step 4 has scored, by its id.

    Empty if it has not finished, has scored another network, or other images than these.

    Args:
        config: of step 4, if it has finished.
    """
    if not config or config.get("network") != fingerprint(segmenter):
        return {}
    path = folder.step_folder(run, 4) / folder.PER_IMAGE
    mious = ImageScores.load(path).image_mious()
    if not set(mious) <= set(ids):
        return {}
    return {image_id: None if math.isnan(miou) else miou for image_id, miou in mious.items()}


def save_report(
    path: Path,
    record: Mapping[str, Any],
    segmenter: Segmenter,
    shown: str,
    mious: Mapping[str, float | None],
    draw: Callable[[list[str]], Iterator[Drawn]],
) -> None:
    """Writes the run up as PDF, with the best, typical and worst pictures by their mIoUs.

    `draw` draws the images with these ids.
    """
    chosen = choose(mious)
    drawn = draw([image_id for ids in chosen.values() for image_id in ids])
    pictures = {one.name: one.page.picture for one in drawn}
    kinds = [(kind, pictures[image_id]) for kind, ids in chosen.items() for image_id in ids]
    pages = report_pages(record, draw_architecture(**summarise(segmenter)), shown, kinds)
    with atomic_file(path) as file:
        save_pages(file, pages)


def main() -> None:
    args, parser = parse()
    device = runtime.choose_device(args.device, single=True)
    segmenter, source = folder.trained_segmenter(args.run, args.checkpoint)
    segmenter.views = flags.views_of(args.tta, args.refine)
    if args.dilate is not None:
        segmenter.hypercolumn.dilate(args.dilate)
    runtime.prepare(segmenter, device, args.amp, args.compile)
    classes = segmenter.classes
    wanted = classes.labels(args.classes or ())
    record = folder.read_run(args.run) if args.report else {}

    photos, others, unreadable = {}, [], []
    if args.image:
        photos, others = find_photos(args.image)
        names, what = list(photos), f"{len(photos)} photos"
        limit = min(args.limit or len(photos), len(photos))
    else:
        dataset = VOCFolder(args.data, args.split, ResizeImage(segmenter.input_size))
        folder.check_classes(segmenter.names, dataset.classes.names, source, dataset.root)
        names = dataset.ids
        what = f"{len(dataset)} images of {dataset.root}, split {args.split}"
        limit = min(args.limit or IMAGES, len(dataset))
    what = f"{SORTS[args.sort]} {limit} of {what}" if limit < len(names) else what
    facts = {
        "images": what + (f", with {' or '.join(args.classes)}" if wanted else ""),
        "network": f"{source} ({segmenter.hypercolumn.backbone})",
        "views": f"{segmenter.views}{segmenter.hypercolumn.dilation_in_words}",
    }
    place = args.out or folder.step_folder(args.run, 5)
    check_place(place, not args.out, names, photos.values())
    where = runtime.describe(device, args.amp, args.compile)
    title = folder.step_title(5)
    runtime.print_header(title, args.quiet, recipe=args.recipe, **facts, device=where)

    if others:
        print(f"  note: {folder.count(len(others), 'file')} left out: {first_of(others)}")
    with nullcontext() if args.out else folder.claim(place):
        if args.image:
            indices = order(names, args.sort, args.seed)
            in_order = {names[index]: photos[names[index]] for index in indices}
            drawings = islice(
                draw_photos(segmenter, in_order, wanted, args.confidence, unreadable), limit
            )
        else:
            chosen = choose_images(
                segmenter, dataset, wanted, args.sort, args.seed, limit, args.workers
            )
            drawings = draw_split(segmenter, dataset, chosen, args.workers, args.confidence)
            limit = len(chosen)
        index_classes = classes if args.image else None
        heading = f"Predictions of {args.run}"
        pictures = save_pictures(place, drawings, limit, heading, facts, index_classes)
        if unreadable and not pictures:
            raise DataError("; ".join(unreadable))
        if not pictures:
            wanted_names = ",".join(args.classes)
            raise DataError(f"--classes {wanted_names}: in none of the {len(names)} images")
        if args.contact_sheet:
            with atomic_file(place / SHEET) as file:
                contact_sheet(pictures).save(file, "PNG")
        if args.report:
            shown, mious = facts["images"], {picture.name: picture.miou for picture in pictures}
            if scored := scored_mious(args.run, record["configs"][4], segmenter, dataset.ids):
                shown, mious = f"the {len(scored)} images that step 4 has scored", scored
            shown += f"; {source}, {facts['views']}"

            def draw(ids: list[str]) -> Iterator[Drawn]:
                indices = [dataset.ids.index(image_id) for image_id in ids]
                return draw_split(segmenter, dataset, indices, args.workers, args.confidence)

            save_report(place / REPORT, record, segmenter, shown, mious, draw)
        if args.image:
            save_table(place / TABLE, pictures)
        wrote = f"{folder.count(len(pictures), 'picture')}" + f" and {REPORT}" * args.report
        wrote += f"; open {place / INDEX} in a browser"
        config = {**vars(args), "changed": parser.changed(args), "checkpoint": str(source)}
        folder.finish(args.run, 5, config, wrote=wrote, folder=place)
    if unreadable:
        raise DataError(f"left out {'; '.join(unreadable)}; the others are done")


if __name__ == "__main__":
    runtime.run_script(main)
