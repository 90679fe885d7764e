"""A few strokes -> the whole photos: steps 1, 2 and 5 at once, in memory, for photos of your own.

    python -m models.strokes PHOTOS STROKES
    python -m models.strokes PHOTOS STROKES --predict MORE --out runs/roots
    python -m models.strokes PHOTOS STROKES --watch     # again whenever you save a stroke

PHOTOS is a folder. STROKES is a folder of masks, named like their photos or NAME_mask.png, in which
0 (or transparent) is not drawn and 1, 2, .. are the classes, or in which strokes have the colours
of classes.txt, on anything; or of LabelMe's, CVAT's or Supervisely's files with points, lines and
areas; or a table of clicks (CSV with photo, row, column, label). A classes.txt beside masks names
their classes. The features are by default those of the network in the box, which has seen PASCAL
VOC. Writes OUT/2_cls/dense.pt (for models.load, models.export and visualize.py --run OUT --image)
and OUT/5_overlays/: pictures, index.html, predictions/ and photos.csv of all photos, those with
strokes first.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data import UserError, first_of
from data.classes import VOID, Classes
from data.features import Rows, check_several, draw_batches
from data.figures import gallery
from data.figures.photos import PhotoTable, photo_records
from data.files import hash_files
from data.formats import recognise
from data.formats.source import Options, Source, files_in
from data.image_files import find_photos, read_image
from data.sampling import pixel_centres, random_places, sample_pixels
from models.checkpoint import load_segmenter, save_segmenter
from models.classifier import DenseClassifier, FCClassifier
from models.hypercolumn import Hypercolumn
from models.run import folder, runtime
from models.run.args import positive, rate
from models.run.predictor import network_input
from models.run.training import build_optimizer, build_schedule
from models.segmenter import Segmenter
from models.weight_files import fingerprint
from sample_features import FEW_IMAGES
from train_cls import evaluate, fit

SIZE, STRIDE = 416, 4
PER_CLASS = 200  # pixels of a class that are taken of a photo
EPOCHS, BATCH, RATE, DECAY, DROPOUT = 6, 512, 5e-4, 0.05, 0.2  # as in `--recipe quick`
CONTEXT = ["image", "5", "11"]  # see `Hypercolumn`; the recipe's "half" brings few photos nothing
PAUSE = 0.3  # seconds between two looks at the files


def read_strokes(place: Path, photos: Path, width: float) -> Source:
    """The strokes, as `data.convert` reads them; undrawn pixels are void."""
    root, name = (place.parent, Path(place.name)) if place.is_file() else (place, None)
    # What is of no class is paper, a smoothed edge, or the photo on which somebody has drawn.
    options = Options(photos.resolve(), annotations=name, unknown=VOID, unlabelled=0)
    source = recognise(root, options._replace(stroke_width=width, skip_bad=True))
    if not source.pairs:
        raise UserError(f"{place}: no strokes on a photo of {photos}; {source.said()}")
    return source


@torch.inference_mode()
def extract(
    network: Segmenter, source: Source, known: dict[tuple[int, int], list[Tensor]]
) -> tuple[dict[Path, np.ndarray], Rows, Tensor]:
    """The photos with strokes, and the features of their pixels.

    Args:
        known: the levels of photos, by the hash and the number of levels; new ones are added.

    Returns:
        Of each photo the mask (H, W) uint8, class ids and VOID; the rows to fit a classifier on;
        and (Z,) float32, the std of the features at random places of the photos.
    """
    extractor, masks, parts = network.hypercolumn, {}, []
    extractor.surround(CONTEXT[:1] if len(source.pairs) < FEW_IMAGES else CONTEXT)
    for name, pair in source.pairs.items():
        photo, mask = pair.photo.resolve(), pair.mask()
        key = hash_files([photo]).item(), len(extractor.channels)
        if key not in known:
            image = network_input(network, read_image(photo))
            known[key] = extractor(image[None].to(extractor.mean.device))
        pixels, labels, _ = sample_pixels(mask, PER_CLASS, 0, name)
        points = pixel_centres(torch.from_numpy(pixels), mask.shape)
        points = torch.cat([points, random_places(0, name)])[None].to(extractor.mean.device)
        columns = extractor.at_points(known[key], points)[0].float()
        parts.append((columns[: len(labels)], torch.from_numpy(labels), columns[len(labels) :]))
        masks[photo] = mask
    features, labels, anywhere = map(torch.cat, zip(*parts))
    rows = features, labels.long().to(features.device), features.new_ones(len(labels))
    return masks, rows, anywhere.std(0, correction=0)


def classifier(
    rows: Rows,
    floor: Tensor,
    classes: int,
    min_steps: int,
    seed: int = 0,
    mixup: float = 0.0,
    input_dropout: float = 0.0,
) -> FCClassifier:
    """A shallow classifier, fitted on the rows as by `--recipe quick`.

    But that has mixup and dropout of the input, too, which do harm with strokes on a few photos.

    Args:
        rows: features, labels, weights; see `data.features.Rows`.
        floor: (Z,) float32, the std of the features anywhere in the images; see step 1's `extract`.
    """
    features, labels, _ = rows
    moments = features.mean(0), torch.maximum(features.std(0, correction=0), floor)
    torch.manual_seed(seed)
    fc = FCClassifier(*moments, classes, dropout=DROPOUT, input_dropout=input_dropout)
    fc = fc.to(features.device)
    steps = math.ceil(len(labels) / BATCH)
    epochs = max(EPOCHS, math.ceil(min_steps / steps))
    optimizer = build_optimizer("adamw", fc.parameters(), RATE, DECAY)
    schedule = build_schedule(optimizer, "cosine", epochs, steps)
    nothing = tuple(part[:0] for part in rows)  # is held out
    batches = partial(draw_batches, rows, torch.arange(len(labels)), BATCH, classes, mixup)
    fit(fc, batches, nothing, epochs, optimizer, schedule)
    right = evaluate(fc, rows, 0.0)["val_accuracy"]
    print(f"  {len(labels)} labelled pixels, {right:.1%} of these come out right")
    return fc


def save(
    segmenter: Segmenter,
    photos: dict[str, Path],
    masks: dict[Path, np.ndarray],
    settings: dict[str, Any],
    out: Path,
) -> None:
    """Saves the network, then pictures and predictions of all photos, the strokes on them."""
    command = folder.shell_line(["python", "-m", "models.strokes", *sys.argv[1:]])
    flags = {"started": time.perf_counter(), "command": command, "features": None}
    flags |= {"changed": settings, "settings": settings}
    with folder.new_folder(folder.step_folder(out, 2)) as new:
        save_segmenter(new / "dense.pt", segmenter, made_from=None)
        folder.save_config(new, 2, flags, id=fingerprint(segmenter.head), made_from=None)
    order = sorted(photos.items(), key=lambda photo: photo[1].resolve() not in masks)
    place = folder.step_folder(out, 5)
    with folder.new_folder(place) as new:
        table = PhotoTable(new, segmenter.classes)
        for record in photo_records(segmenter, dict(order), table):
            record = record._replace(truth=masks.get(photos[record.id].resolve()))
            gallery.save_page(new, record, segmenter.classes, confidence=True)
            table.add(record)
        pictures = gallery.read_pictures(new)
        facts = {"network": segmenter.trained_on, "strokes": f"{len(masks)} photos"}
        heading = f"What a few strokes make of {len(photos)} photos"
        gallery.save_gallery(new, pictures, heading, facts)
        folder.save_config(new, 5, flags)
    if table.errors:
        print(f"  left out {first_of([*table.errors.values()])}")
    index, count = place / gallery.INDEX, folder.count(len(pictures), "picture")
    print(f"wrote {count}; open {index} in a browser", flush=True)


def changes(places: Sequence[Path], out: Path) -> Iterator[None]:
    """Comes back at once, and whenever a file in these places changes that is not made in `out`."""
    before, made = None, [folder.step_folder(out, step).resolve() for step in (2, 5)]
    while True:
        files = [f for place in places for f in ([place] if place.is_file() else files_in(place))]
        files = [path for path in files if not any(map(path.resolve().is_relative_to, made))]
        with suppress(FileNotFoundError):  # one that has gone since
            now = {path: path.stat().st_mtime_ns for path in files}
            if now != before:
                before = now
                yield
        time.sleep(PAUSE)


def main() -> None:
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m models.strokes", None, __doc__, formatter_class=how)
    add = parser.add_argument
    add("photos", type=Path, metavar="PHOTOS", help="folder of photos")
    add("strokes", type=Path, metavar="STROKES", help="folder of strokes, or a file of them")
    add("--predict", type=Path, nargs="+", default=[], metavar="PATH", help="further photos")
    add("--out", type=Path, default=Path("runs/strokes"), metavar="DIR", help="where to write")
    add("--watch", action="store_true", help="go on, and fit again when a stroke changes")
    add("--backbone", metavar="NAME", help="as in step 1 (default: that of the network in the box)")
    add("--weights", default="imagenet", metavar="NAME", help="of --backbone, as in step 1")
    size = f"shorter side of the input, px; thin things need more (default: {SIZE})"
    add("--size", type=positive, default=SIZE, metavar="N", help=size)
    add("--steps", type=positive, default=400, metavar="N", help="of the training (default: 400)")
    add("--stroke-width", type=rate, default=5.0, metavar="N", help="of points and lines, px")
    add("--device", default="auto", metavar="NAME", help="as in step 1")
    args = parser.parse_args()
    if any(folder.step_folder(args.out, step).exists() for step in (1, 3, 4)):
        raise UserError(f"{args.out}: holds a run of the five steps; name another --out")
    for step in (2, 5):
        folder.check_free(folder.step_folder(args.out, step), step)
    device = runtime.choose_device(args.device, single=True)
    network, _ = load_segmenter(Path("voc"))  # the box's, whose head will be replaced
    if args.backbone:
        network.hypercolumn = Hypercolumn(args.backbone, args.weights)
        network.origin, network.trained_on, network.seen = None, args.weights, network.seen[:0]
    backbone, seen = network.trained_on, network.seen
    network.look(network.views, args.size)
    network.eval().to(device).stride = STRIDE
    known: dict[tuple[int, int], list[Tensor]] = {}  # of photos with strokes
    print(f"photos are seen with {args.size} pixels on the shorter side: --size")
    settings = {"--size": args.size, "--steps": args.steps, "--stroke-width": args.stroke_width}
    for _ in changes([args.strokes, args.photos, *args.predict], args.out):
        try:
            photos, _ = find_photos([args.photos, *args.predict])
            source = read_strokes(args.strokes, args.photos, args.stroke_width)
            masks, rows, floor = extract(network, source, known)
            drawn = rows[1].unique().tolist()
            if gone := [name for label, name in enumerate(source.classes) if label not in drawn]:
                source.notes["no stroke of"] = gone
            if source.notes:
                print(f"  note: {source.said()}")
            content = hash_files(masks)
            check_several(rows[1], args.strokes)
            fc = classifier(rows, floor, len(source.classes), args.steps)
        except UserError as error:
            if not args.watch:
                raise
            print(f"  {error}", flush=True)  # perhaps a file is being written
            continue
        network.head = DenseClassifier.from_fc(fc, network.hypercolumn.channels)
        network.classes, network.seen = Classes.from_named(source.classes), seen
        network.remember(content)
        network.history = {"models.strokes": settings}
        network.trained_on = f"strokes on {len(masks)} photos; backbone: {backbone}"
        save(network, photos, masks, settings, args.out)
        if not args.watch:
            break
        print("watching: save a stroke, and it goes on; Ctrl-C ends it", flush=True)


if __name__ == "__main__":
    runtime.run_script(main)
