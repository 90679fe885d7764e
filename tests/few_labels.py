"""How the score grows with the number of labelled pixels: frozen features, the recipe's head.

    python -m tests.few_labels --data DIR --out runs/few --backbone efficientnet_lite0 \\
        --taps 1,2,3,4,b18,b19

Draws 1, 3, 10 and 20 pixels per class and image with three seeds, of all images of --split and of
those of them that are in `train`, fits the head of `--recipe quick` on each, and scores it on the
whole images of `val`, at original size. The features of an image are computed once. Writes
OUT/few_labels.csv, a row for each head, and few_labels.png, of all CSV files that --chart names.
Nothing but the pixels is known, as of clicks, and a first head estimates the areas that they stand
for; with --known-areas these are those of the masks. With --strokes the pixels are drawn from a
stroke so many pixels wide in each class of each image, see `tests.drawn_strokes`.
"""

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from data.classes import VOID
from data.features import estimate_areas
from data.sampling import KEPT, PLACES, pixel_centres, random_places, sample_pixels
from data.transforms import ResizeImage
from data.voc import VOCFolder
from data.voc_files import read_ids
from losses.metrics import ConfusionMatrix
from models.classifier import DenseClassifier, FCClassifier
from models.hypercolumn import Hypercolumn
from models.run import runtime
from models.run.args import taps
from models.run.folder import read_table, save_csv
from models.run.training import enough_steps
from models.segmenter import top_class
from models.strokes import SIZE, classifier
from tests.drawn_strokes import draw_strokes

PIXELS, SEEDS = (1, 3, 10, 20), (0, 1, 2)
AREA, STRIDE = 0.5, 4
CONTEXT, MIXUP, OF_INPUT = ["image", "half", "5", "11"], 1.0, 0.3  # as in `--recipe quick`


@torch.inference_mode()
def extract(
    hypercolumn: Hypercolumn, dataset: VOCFolder, out: Path, per_class: int, width: float
) -> None:
    """Saves features.npy and drawn.npy, see `draw`; sums.npy, places.npy of random places."""
    drawn = [draw(dataset, index, per_class, width) for index in range(len(dataset))]
    out.mkdir(parents=True, exist_ok=True)
    shape, done, places, sums = (sum(map(len, drawn)), hypercolumn.Z), 0, [], []
    rows = np.lib.format.open_memmap(out / "features.npy", "w+", np.float32, shape)
    loader = runtime.image_loader(dataset, range(len(dataset)), workers=0)
    bar = runtime.bar(loader, len(dataset), "image")
    for mine, sample in zip(drawn, bar):
        pixels = torch.from_numpy(mine[:, 3:5])
        points = pixel_centres(pixels, sample.mask.shape).float()
        points = torch.cat([points, random_places(0, sample.id)])
        columns = hypercolumn.at_points(hypercolumn(sample.image[None]), points[None])[0].float()
        rows[done : done + len(mine)] = columns[: len(mine)].numpy()
        done += len(mine)
        places.append(columns[len(mine) :][:KEPT].clone())
        anywhere = columns[len(mine) :].double()
        sums.append(torch.stack([anywhere.sum(0), anywhere.square().sum(0)]))
    np.save(out / "drawn.npy", np.concatenate(drawn))
    np.save(out / "places.npy", torch.stack(places).numpy())
    np.save(out / "sums.npy", torch.stack(sums).numpy())


def draw(dataset: VOCFolder, index: int, per_class: int, width: float) -> np.ndarray:
    """An image's pixels of all seeds: seed, image, label, place, rank and number in class, area.

    So many per class, from strokes of this width or, if that is 0, from the whole mask.
    """
    mask, image_id, rows = dataset.mask(index), dataset.ids[index], []
    for seed in SEEDS:
        how = width, [seed, *image_id.encode()]  # else all lie at the same place of the image
        known = draw_strokes(mask, *how) if width else mask
        pixels, labels, _ = sample_pixels(known, per_class, seed, image_id)
        counts = np.unique(labels, return_counts=True)[1]
        rank, count = np.concatenate([*map(np.arange, counts)]), np.repeat(counts, counts)
        areas = np.bincount(mask[mask != VOID])[labels] / (mask != VOID).sum() / count
        whose = np.full((len(labels), 2), (seed, index))
        rows.append(np.column_stack([whose, labels, pixels, rank, count, areas]))
    return np.concatenate(rows)


def head_of(
    out: Path, seed: int, images: np.ndarray, pixels: int, classes: int, known_areas: bool
) -> tuple[int, FCClassifier]:
    """The head fitted on so many pixels per class of these images, and how many they are."""
    drawn, sums = np.load(out / "drawn.npy"), np.load(out / "sums.npy")[images]
    chosen = (drawn[:, 0] == seed) & np.isin(drawn[:, 1], images) & (drawn[:, 5] < pixels)
    features = torch.from_numpy(np.load(out / "features.npy", mmap_mode="r")[chosen])
    labels = torch.from_numpy(drawn[chosen, 2].astype(np.int64))
    count, areas = drawn[chosen, 6:].T
    areas = areas * count / np.minimum(count, pixels)
    mean, mean_square = sums.sum(0) / (PLACES * len(images))
    floor = torch.from_numpy(np.sqrt((mean_square - mean**2).clip(0))).float()
    how = floor, classes, enough_steps(len(labels), len(images)), seed, MIXUP, OF_INPUT
    if not known_areas:
        whose, places = drawn[chosen, 1].astype(np.int64), np.load(out / "places.npy")
        even = torch.from_numpy(1 / np.bincount(whose)[whose])
        fc = classifier((features, labels, even.pow(AREA).float()), *how)
        areas = estimate_areas(whose, labels.numpy(), places, fc.eval())
    weights = torch.from_numpy(areas).pow(AREA).float()  # as `--area-weight` says
    return len(labels), classifier((features, labels, weights), *how)


@torch.inference_mode()
def score(hypercolumn: Hypercolumn, heads: list[DenseClassifier], dataset: VOCFolder) -> list:
    """The mIoU of each head on whole images, by the protocol of step 4, one view."""
    matrices = [ConfusionMatrix(len(dataset.classes)) for _ in heads]
    for sample in runtime.bar(dataset, len(dataset), "image"):
        levels = hypercolumn(sample.image[None])
        grid = [-(-side // STRIDE) for side in sample.image.shape[1:]]
        for matrix, head in zip(matrices, heads):
            found = top_class(head(levels, tuple(grid))[0].softmax(0), sample.mask.shape)[0]
            matrix.update(found.numpy(), sample.mask.numpy())
    return [matrix.miou() for matrix in matrices]


def chart(tables: list[Path], path: Path) -> None:
    """mIoU against labelled pixels: mean of the seeds, and from the least to the greatest."""
    figure = Figure((7, 4.5), layout="constrained")
    axes = figure.subplots()
    for table in map(read_table, tables):
        curves: dict[str, dict[str, list]] = {}
        for row in table:
            seeds = curves.setdefault(row["images"], {}).setdefault(row["per_class"], [])
            seeds.append((float(row["pixels"]), float(row["miou"])))
        how = ", strokes" if float(table[0]["strokes"]) else ""
        how += ", areas known" if int(table[0]["known_areas"]) else ""
        for images, found in curves.items():
            pixels, mious = np.moveaxis(sorted(found.values()), 2, 0)  # (per class, seeds) each
            label = f"{table[0]['backbone']}, {int(images):,} images{how}"
            (line,) = axes.plot(pixels.mean(1), mious.mean(1), "o-", label=label)
            span = pixels.mean(1), mious.min(1), mious.max(1)
            axes.fill_between(*span, color=line.get_color(), alpha=0.2)
    axes.set(xscale="log", xlabel="labelled pixels, in all", ylabel="mIoU")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    how = {"description": __doc__, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser("python -m tests.few_labels", **how)
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR")
    add("--split", default="train_aug", metavar="LIST")
    add("--val-split", default="val", metavar="LIST")
    add("--out", type=Path, required=True, metavar="DIR")
    add("--backbone", required=True, metavar="NAME")
    add("--weights", default="imagenet", metavar="NAME")
    add("--taps", type=taps, metavar="1,2,..")
    add("--per-class", type=int, nargs="+", default=PIXELS, metavar="N")
    add("--strokes", type=float, default=0.0, metavar="WIDTH", help="px (default: whole masks)")
    add("--known-areas", action="store_true", help="of the masks, which clicks do not tell")
    add("--chart", type=Path, nargs="*", default=[], metavar="CSV", help="of other backbones, too")
    args = parser.parse_args()
    runtime.choose_device("cpu")
    hypercolumn = Hypercolumn(args.backbone, args.weights, args.taps, context=CONTEXT).eval()
    dataset = VOCFolder(args.data, args.split, ResizeImage(SIZE))
    if not (args.out / "sums.npy").is_file():
        extract(hypercolumn, dataset, args.out, max(args.per_class), args.strokes)
    of_train = np.flatnonzero(np.isin(dataset.ids, read_ids(args.data, "train")))
    rows, heads = [], []
    chosen = {len(images): images for images in (of_train, np.arange(len(dataset)))}
    for images, pixels, seed in product(chosen.values(), args.per_class, SEEDS):
        how = len(dataset.classes), args.known_areas
        count, fc = head_of(args.out, seed, images, pixels, *how)
        row = {"backbone": args.backbone, "strokes": args.strokes, "images": len(images)}
        row["known_areas"] = int(args.known_areas)
        rows.append({**row, "per_class": pixels, "pixels": count, "seed": seed})
        heads.append(DenseClassifier.from_fc(fc, hypercolumn.channels).eval())
        print(json.dumps(rows[-1]), flush=True)
    val_set = VOCFolder(args.data, args.val_split, ResizeImage(SIZE))
    table, mious = args.out / "few_labels.csv", score(hypercolumn, heads, val_set)
    save_csv(table, [{**row, "miou": round(miou, 4)} for row, miou in zip(rows, mious)])
    chart([table, *args.chart], args.out / "few_labels.png")


if __name__ == "__main__":
    runtime.run_script(main)
