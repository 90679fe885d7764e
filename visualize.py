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
config.json (last). For your own pictures also predictions/NAME.png (8-bit palette indices at the
original size) and photos.csv (the classes of each, their share and how sure the network is of
them). With --out all of it goes to that folder, which must be new, empty, or hold earlier pictures.
--image without --run takes the network that comes with the project, and writes to runs/photos/ or
--out. --truth needs neither run nor network: it shows image and ground truth, and writes to
runs/truth/ or --out.
"""

import argparse
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

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
PHOTOS = Path("runs/photos")  # where --image writes without a run
TRUTH = Path("runs/truth")  # where --truth writes, and the flags that it goes with
BESIDE_TRUTH = ("data", "split", "limit", "workers", "classes", "sort", "seed")
BESIDE_TRUTH += ("contact_sheet", "out", "quiet", "json")
IMAGES = 12  # of a split that are drawn unless --limit says otherwise
SORTS = {"name": "the first", "worst": "the worst", "best": "the best", "random": "a random"}


class Drawn(NamedTuple):
    """The page about an image."""

    name: str
    title: str
    page: Panel
    miou: float | None = None
    indices: Image.Image | None = None  # the prediction, where it is saved on its own, too
    confidence: Mapping[int, float] | None = None  # mean of each class in it, by its id


@dataclass(frozen=True)
class Choice:
    """Which images are drawn, and in what order.

    Attributes:
        sort: a name in `SORTS`.
        seed: of a random order.
        limit: how many at most.
        classes: names, of which an image needs one; none: all images are welcome.
        labels: their ids.
    """

    sort: str
    seed: int
    limit: int
    classes: list[str]
    labels: set[int]

    @classmethod
    def of(cls, args: argparse.Namespace, classes: Classes, images: int, usual: int) -> "Choice":
        """What the flags say about so many images, of which usually only so many are drawn."""
        names = args.classes or []
        limit = min(args.limit or usual, images)
        return cls(args.sort, args.seed, limit, names, classes.labels(names))

    def fits(self, mask: np.ndarray) -> bool:
        """Whether a mask (H, W) has one of the classes."""
        return not self.labels or not self.labels.isdisjoint(np.unique(mask).tolist())

    def order(self, names: Sequence[str]) -> list[int]:
        """The indices of all names, by name or shuffled."""
        indices = sorted(range(len(names)), key=names.__getitem__)
        if self.sort == "random":
            random.Random(self.seed).shuffle(indices)
        return indices

    def in_words(self, images: int, what: str) -> str:
        """Like "the first 12 of 40 images of DIR, with dog or cat"."""
        some = f"{SORTS[self.sort]} {self.limit} of " if self.limit < images else ""
        having = f", with {' or '.join(self.classes)}" if self.classes else ""
        return f"{some}{images} {what}{having}"


class Network(NamedTuple):
    """What predicts."""

    segmenter: Segmenter
    source: Path  # its file
    where: str  # device and precision, in words

    def facts(self) -> dict[str, str]:
        """What a reader of its pictures should know."""
        hypercolumn = self.segmenter.hypercolumn
        return {
            "network": f"{self.source} ({hypercolumn.backbone})",
            "views": f"{self.segmenter.views}{hypercolumn.dilation_in_words}",
        }


class Plan(NamedTuple):
    """What is going to be drawn: a split, its ground truth alone, or the user's own photos."""

    heading: str
    facts: dict[str, str]  # about all pictures, for the header and the gallery
    names: Sequence[str]  # of all images that there are
    choice: Choice
    choose: Callable[[], list[int]]  # indices of the images to draw, in their order
    draw: Callable[[Sequence[int]], Iterator[Drawn | DataError]]  # or why one cannot be read
    network: Network | None = None
    photos: Sequence[Path] = ()  # files of the user's own, which no picture may replace
    note: str = ""


def parse() -> tuple[argparse.Namespace, flags.Parser]:
    parser = flags.Parser(__doc__, needs_run=False)
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
    truth = f"draw the ground truth alone, without a run, into {TRUTH}"
    flag("--truth", action="store_true", help=truth)
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
    if args.truth:
        parser.allow_beside(args, "truth", BESIDE_TRUTH)
    elif not (args.run or args.image or args.checkpoint and args.out):
        parser.error("the following arguments are required: --run, --image or --checkpoint --out")
    parser.check_needs(args, "report", "run")
    for name in ("data", "split", "report"):
        if args.image and getattr(args, name) != parser.get_default(name):
            parser.error(f"argument --{name}: not allowed with argument --image")
    if args.seed and args.sort != "random":
        parser.error("argument --seed: has no effect without --sort random")
    for name, needed in (("image", "ground truth"), ("truth", "predictions")):
        if getattr(args, name) and args.sort in ("worst", "best"):
            raise DataError(
                f"--sort {args.sort}: needs {needed}, which --{name} does not have; "
                "use name or random"
            )
    return args, parser


def plan_truth(args: argparse.Namespace) -> Plan:
    """Images of a split with their ground truth alone."""
    runtime.choose_device("cpu", single=True)
    dataset = VOCFolder(args.data, args.split)
    classes, images = dataset.classes, len(dataset)
    choice = Choice.of(args, classes, images, IMAGES)
    words = choice.in_words(images, f"images of {dataset.root}, split {args.split}")
    return Plan(
        heading=f"Ground truth of {dataset.root}",
        facts={"images": words, "classes": f"{len(classes)}: {first_of(classes.names)}"},
        names=dataset.ids,
        choice=choice,
        choose=partial(choice.order, dataset.ids),
        draw=partial(draw_truth, dataset, choice),
    )


def plan_split(args: argparse.Namespace) -> Plan:
    """Images of a split with their ground truth and what the network sees in them."""
    network = load_network(args)
    segmenter = network.segmenter
    dataset = VOCFolder(args.data, args.split, ResizeImage(segmenter.input_size))
    folder.check_classes(segmenter.names, dataset.classes.names, network.source, dataset.root)
    classes, images = dataset.classes, len(dataset)
    choice = Choice.of(args, classes, images, IMAGES)
    words = choice.in_words(images, f"images of {dataset.root}, split {args.split}")
    return Plan(
        heading=f"Predictions of {args.run or network.source}",
        facts={"images": words, **network.facts()},
        names=dataset.ids,
        choice=choice,
        choose=partial(choose_images, segmenter, dataset, choice, args.workers),
        draw=partial(draw_split, segmenter, dataset, args.confidence, args.workers),
        network=network,
    )


def plan_photos(args: argparse.Namespace) -> Plan:
    """The user's own photos, without ground truth, and what the network sees in them."""
    network = load_network(args)
    photos, others = find_photos(args.image)
    names, images = list(photos), len(photos)
    choice = Choice.of(args, network.segmenter.classes, images, images)
    note = f"{folder.count(len(others), 'file')} left out: {first_of(others)}" if others else ""
    return Plan(
        heading=f"Predictions of {args.run or network.source}",
        facts={"images": choice.in_words(images, "photos"), **network.facts()},
        names=names,
        choice=choice,
        choose=partial(choice.order, names),
        draw=partial(draw_photos, network.segmenter, photos, choice, args.confidence),
        network=network,
        photos=list(photos.values()),
        note=note,
    )


def load_network(args: argparse.Namespace) -> Network:
    """The network of a run, ready to predict as the flags say."""
    device = runtime.choose_device(args.device, single=True)
    segmenter, source = folder.trained_segmenter(args.run, args.checkpoint)
    segmenter.views = flags.views_of(args.tta, args.refine)
    if args.dilate is not None:
        segmenter.hypercolumn.dilate(args.dilate)
    runtime.prepare(segmenter, device, args.amp, args.compile)
    return Network(segmenter, source, runtime.describe(device, args.amp, args.compile))


def confusion(prediction: np.ndarray, sample: Sample, classes: int) -> ConfusionMatrix:
    """The confusion matrix of one image."""
    matrix = ConfusionMatrix(classes)
    matrix.update(prediction, sample.mask.numpy())
    return matrix


def choose_images(
    segmenter: Segmenter, dataset: VOCFolder, choice: Choice, workers: int
) -> list[int]:
    """The images of a split to draw, in their order; to sort by score, all are predicted."""
    indices = choice.order(dataset.ids)
    fitting = (index for index in indices if choice.fits(dataset.mask(index)))
    if choice.sort in ("name", "random"):
        return list(islice(fitting, choice.limit))
    found = list(fitting)
    loader = runtime.image_loader(dataset, found, workers)
    mious = []
    for sample in runtime.bar(loader, len(found), "image", "score"):
        prediction = segmenter.predict(sample.image, sample.mask.shape, sample.id).numpy()
        mious.append(confusion(prediction, sample, len(segmenter.names)).image_miou())
    sign = -1 if choice.sort == "best" else 1
    ranked = sorted(zip(mious, found), key=lambda pair: (math.isnan(pair[0]), sign * pair[0]))
    return [index for _, index in ranked[: choice.limit]]  # images that are all void come last


def predict(
    segmenter: Segmenter, sample: Sample, confidence: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """The class map of an image and, on request, the probability of its classes."""
    size = tuple(sample.mask.shape)
    if not confidence:
        return segmenter.predict(sample.image, size, sample.id).numpy(), None
    classes, probability = segmenter.predict(sample.image, size, sample.id, confidence=True)
    return classes.numpy(), probability.numpy()


def draw_truth(
    dataset: VOCFolder, choice: Choice, indices: Sequence[int]
) -> Iterator[Drawn | DataError]:
    """Images of a split that fit, with their ground truth."""
    for index in indices:
        name = dataset.ids[index]
        try:
            photo, mask = Image.fromarray(dataset.image(index)), dataset.mask(index)
        except DataError as error:
            yield error
            continue
        if choice.fits(mask):
            yield Drawn(name, name, panel(photo, None, dataset.classes, mask, name))


def draw_split(
    segmenter: Segmenter,
    dataset: VOCFolder,
    confidence: bool,
    workers: int,
    indices: Sequence[int],
) -> Iterator[Drawn]:
    """Images of a split, with their ground truth, prediction and mIoU."""
    classes = dataset.classes
    loader = runtime.image_loader(dataset, indices, workers)
    for index, sample in zip(indices, loader):
        prediction, top = predict(segmenter, sample, confidence)
        matrix = confusion(prediction, sample, len(classes))
        ious = enumerate(matrix.iou().tolist())
        scores = {label: iou for label, iou in ious if not math.isnan(iou)}
        miou = matrix.image_miou() if scores else None
        photo, target = Image.fromarray(dataset.image(index)), sample.mask.numpy()
        page = panel(photo, prediction, classes, target, sample.id, scores, miou, top)
        yield Drawn(sample.id, sample.id, page, miou)


def draw_photos(
    segmenter: Segmenter,
    photos: Mapping[str, Path],
    choice: Choice,
    confidence: bool,
    indices: Sequence[int],
) -> Iterator[Drawn | DataError]:
    """The user's own photos in which one of the wanted classes is seen; without ground truth."""
    classes, named = segmenter.classes, list(photos.items())
    for name, path in (named[index] for index in indices):
        try:
            photo = read_image(path)
        except DataError as error:
            yield error
            continue
        sample = photo_sample(name, photo, ResizeImage(segmenter.input_size))
        prediction, top = predict(segmenter, sample, confidence=True)
        if choice.fits(prediction):
            seen = np.unique(prediction).tolist()
            sure = {label: float(top[prediction == label].mean()) for label in seen}
            picture, top = Image.fromarray(photo), top if confidence else None
            page = panel(picture, prediction, classes, title=path.name, confidence=top)
            alone = colour_mask(prediction, classes)
            yield Drawn(name, path.name, page, indices=alone, confidence=sure)


class Saved(NamedTuple):
    """What was drawn and saved."""

    pictures: list[Picture]
    confidences: dict[str, Mapping[int, float]]  # of photos, by name: see `Drawn`
    unreadable: list[str]  # why images were left out


def save_pictures(place: Path, plan: Plan) -> Saved:
    """Draws and saves: a page per picture, and the gallery.

    Raises:
        DataError: there was nothing to draw.
    """
    saved, indices = Saved([], {}, []), plan.choose()
    total = min(len(indices), plan.choice.limit)
    for drawn in runtime.bar(plan.draw(indices), total, "image"):
        if isinstance(drawn, DataError):
            saved.unreadable.append(str(drawn))
            continue
        if not saved.pictures:
            folder.mark_unfinished(place)
            for name in (SHEET, REPORT, TABLE):  # earlier ones would be of other pictures
                (place / name).unlink(missing_ok=True)
            save_gallery(place, [], plan)  # so a folder left half done is ours
        with atomic_file(place / f"{drawn.name}.png") as file:
            drawn.page.picture.save(file, "PNG")
        if drawn.indices:
            with atomic_file(place / PREDICTIONS / f"{drawn.name}.png") as file:
                drawn.indices.save(file, "PNG")
        saved.pictures.append(Picture.of(drawn.name, drawn.title, drawn.page, drawn.miou))
        saved.confidences[drawn.name] = drawn.confidence
        if len(saved.pictures) == plan.choice.limit:
            break
    if saved.unreadable and not saved.pictures:
        raise DataError(first_of(saved.unreadable))
    if not saved.pictures:
        wanted = ",".join(plan.choice.classes)
        raise DataError(f"--classes {wanted}: in none of the {len(plan.names)} images")
    save_gallery(place, saved.pictures, plan)
    return saved


def save_gallery(place: Path, pictures: list[Picture], plan: Plan) -> None:
    """Writes the page for the browser."""
    with atomic_file(place / INDEX) as file:
        file.write(gallery(pictures, plan.heading, plan.facts).encode())


def save_table(path: Path, saved: Saved) -> None:
    """Saves as CSV, and prints, the classes of each photo and their shares, the largest first."""
    rows, width = [], max(len(picture.title) for picture in saved.pictures)
    for picture in saved.pictures:
        confidences = saved.confidences[picture.name]
        seen = sorted(picture.classes, key=lambda row: -row.shares["prediction"])
        for row in seen:
            share, confidence = row.shares["prediction"], confidences[row.label]
            facts = {"class": row.name, "share": share, "confidence": confidence}
            rows.append({"photo": picture.title, **facts})
        words = "  ".join(f"{row.name} {percent(row.shares['prediction'])}" for row in seen)
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
    path: Path, record: Mapping[str, Any], plan: Plan, pictures: Sequence[Picture]
) -> None:
    """Writes the run up as PDF, with the best, typical and worst images by their mIoUs.

    They are among those that step 4 has scored or, where it has not, the `pictures`.
    """
    segmenter, source, _ = plan.network
    shown, mious = plan.facts["images"], {picture.name: picture.miou for picture in pictures}
    run, config = Path(record["run"]), record["configs"][4]
    if scored := scored_mious(run, config, segmenter, plan.names):
        shown, mious = f"the {len(scored)} images that step 4 has scored", scored
    shown += f"; {source}, {plan.facts['views']}"
    chosen = choose(mious)
    indices = [plan.names.index(image_id) for ids in chosen.values() for image_id in ids]
    drawn = {one.name: one.page.picture for one in plan.draw(indices)}
    kinds = [(kind, drawn[image_id]) for kind, ids in chosen.items() for image_id in ids]
    pages = report_pages(record, draw_architecture(**summarise(segmenter)), shown, kinds)
    with atomic_file(path) as file:
        save_pages(file, pages)


def main() -> None:
    args, parser = parse()
    plan_it = plan_truth if args.truth else plan_photos if args.image else plan_split
    plan = plan_it(args)
    record = folder.read_run(args.run) if args.report else {}
    is_in_run = bool(args.run and not args.out)
    elsewhere = args.out or (TRUTH if args.truth else PHOTOS)
    place = folder.step_folder(args.run, 5) if is_in_run else elsewhere
    check_place(place, is_in_run, plan.names, plan.photos)
    title = "ground truth" if args.truth else folder.step_title(5)
    where = plan.network and plan.network.where
    runtime.print_header(title, args.quiet, recipe=args.recipe, **plan.facts, device=where)
    if plan.note:
        print(f"  note: {plan.note}")

    with folder.claim(place) if is_in_run else nullcontext():
        saved = save_pictures(place, plan)
        if args.contact_sheet:
            with atomic_file(place / SHEET) as file:
                contact_sheet(saved.pictures).save(file, "PNG")
        if args.report:
            save_report(place / REPORT, record, plan, saved.pictures)
        if args.image:
            save_table(place / TABLE, saved)
        wrote = f"{folder.count(len(saved.pictures), 'picture')}" + f" and {REPORT}" * args.report
        wrote += f"; open {place / INDEX} in a browser"
        source = plan.network and str(plan.network.source)
        config = {**vars(args), "changed": parser.changed(args), "checkpoint": source}
        step_1 = ("sample_features.py", "--data", args.data, "--run", "runs/own")
        then = step_1 if args.truth and not saved.unreadable else ()
        scores = {"pictures": len(saved.pictures)}
        folder.finish(args.run, 5, config, wrote, then, folder=place, scores=scores)
    if saved.unreadable:
        raise DataError(f"left out {first_of(saved.unreadable)}; the others are done")


if __name__ == "__main__":
    runtime.run_script(main)
