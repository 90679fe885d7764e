"""Step 5: pictures of what the network sees: image, ground truth, prediction and error map side by side.

    python visualize.py --data data/VOCdevkit/VOC2012 --run runs/voc
    python visualize.py --run runs/voc --image holiday.jpg cat.png        # your own pictures

Reads RUN/3_seg/best.pt, or RUN/2_cls/dense.pt where step 3 was not run. Writes RUN/5_overlays/ID.png, with --report
report.pdf (the run written up: settings, architecture, data, curves, scores, best and worst pictures), config.json
(last).
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from data import DataError
from data.classes import Classes
from data.overlay import panel
from data.stream import batches, stream
from data.transforms import ResizeImage
from data.voc import VOCFolder, read_photo
from losses.report import report_pages, save_pages
from losses.score import ConfusionMatrix
from models import flags, run_folder, runtime
from models.diagram import draw_architecture
from models.files import atomic_file
from models.history import read_history
from models.segmenter import Segmenter


def parse() -> argparse.Namespace:
    parser = flags.step_parser(__doc__)
    flags.add_data_flags(parser, split="val")
    parser.set_defaults(limit=12)
    parser.add_argument("--image", type=Path, nargs="+", metavar="FILE", help="pictures of your own, instead of --data")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="network to use; default: the run's best")
    parser.add_argument("--report", action="store_true", help="write the run up as report.pdf, with these pictures")
    flags.add_view_flags(parser)
    flags.add_speed_flags(parser)
    return parser.parse_args()


Drawn = Iterator[tuple[str, Image.Image, float | None]]  # name, panel, mIoU if there is a ground truth


def draw_split(segmenter: Segmenter, dataset: VOCFolder, workers: int) -> Drawn:
    """Each image of a split, with its ground truth and the mIoU over the classes in that."""
    classes = Classes.from_lists(segmenter.names, segmenter.colours)
    for index, (sample, prediction) in enumerate(
        segmenter.predict_all(stream(dataset, batches(range(len(dataset)), 1), workers))
    ):
        matrix = ConfusionMatrix(len(classes))
        matrix.update(prediction, sample.mask)
        scores = {label: iou for label, iou in enumerate(matrix.iou().tolist()) if not math.isnan(iou)}
        miou = matrix.image_miou() if scores else None
        photo = Image.fromarray(dataset.image(index))
        yield sample.id, panel(photo, prediction, classes, sample.mask, sample.id, scores, miou), miou


def draw_photos(segmenter: Segmenter, paths: list[Path]) -> Drawn:
    """Each picture of the user's own, without ground truth."""
    classes = Classes.from_lists(segmenter.names, segmenter.colours)
    for path in paths:
        photo, sample = read_photo(path, ResizeImage(segmenter.input_size))
        yield path.stem, panel(Image.fromarray(photo), segmenter.predict([sample])[0], classes, title=path.name), None


def main() -> None:
    args = parse()
    device = runtime.choose_device(args.device, alone=True)
    segmenter, source = run_folder.trained_segmenter(args.run, args.checkpoint)
    precision = segmenter.to(device).speed_up(args.amp, args.compile)
    views = segmenter.look(*args.tta or ([], False), args.dilate, args.refine)
    folder = run_folder.prepare(args.run, 5)
    history = read_history(args.run) if args.report else {}
    if args.image:
        names = [path.stem for path in args.image]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"--image: two files are called {twice!r}, but each needs a {twice}.png; draw them in turn")
        what, total, drawn = f"{len(names)} files of --image", len(names), draw_photos(segmenter, args.image)
    else:
        dataset = VOCFolder(args.data, args.split, ResizeImage(segmenter.input_size), args.limit)
        run_folder.check_classes(segmenter.names, dataset.classes.names, source, dataset.root)
        what, total = f"{dataset.root}, split {args.split}: the first {len(dataset)} images", len(dataset)
        drawn = draw_split(segmenter, dataset, args.workers)
    runtime.announce(
        5,
        recipe=args.recipe,
        images=what,
        network=f"{source} ({segmenter.hypercolumn.backbone})",
        views=views,
        device=f"{device}, {precision}",
    )

    run_folder.begin(args.run, 5)
    mious = {}
    for name, picture, miou in runtime.progress(drawn, total=total, unit="image"):
        mious[name] = miou
        with atomic_file(folder / f"{name}.png") as file:
            picture.save(file, "PNG")
    if args.report:
        network = f"{source}, {views}"
        pages = report_pages(
            **history, architecture=draw_architecture(segmenter), network=network, pictures=folder, mious=mious
        )
        with atomic_file(folder / "report.pdf") as file:
            save_pages(file, pages)
    run_folder.finish(
        args.run,
        5,
        {**vars(args), "checkpoint": str(source)},
        wrote=f"{total} pictures" + " and report.pdf" * args.report,
    )


if __name__ == "__main__":
    runtime.run_step(main)
