"""How the score grows with the number of labelled pixels: steps 1, 2 and 4 of `--recipe quick`.

    python -m tests.few_labels --data DIR --split train train_aug --out runs/few \\
        --backbone efficientnet_lite0 --taps 1,2,3,4,b18,b19
    python -m tests.few_labels --data DIR --split train --out runs/strokes --strokes 3 \\
        --per-class 20 --backbone efficientnet_lite0 --taps 1,2,3,4,b18,b19

Draws 1, 3, 10 and 20 pixels per class and image with three seeds, in the masks of each --split,
which are void elsewhere, as of clicks; with --known-areas step 1 draws them itself, from the whole
masks. With --strokes they lie in a stroke so many pixels wide in each class of each image, see
`tests.drawn_strokes`. Scores whole images of `val`. Other flags are those of step 1. Writes
OUT/few_labels.csv, a row for each head, few_labels.png, of all CSV files that --chart names, and
OUT/run of the last of them.
"""

import argparse
import json
import runpy
import shutil
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from data.classes import VOID
from data.image_files import colour_mask
from data.sampling import sample_pixels
from data.voc import VOCFolder
from data.voc_files import MASK_FOLDERS, write_ids
from models.run import runtime
from models.run.folder import read_json, read_table, save_csv
from tests.drawn_strokes import draw_strokes

PIXELS, SEEDS = (1, 3, 10, 20), (0, 1, 2)


def draw(dataset: VOCFolder, pixels: int, seed: int, width: float, out: Path) -> None:
    """Makes a data set of the same photos, labelled at so many pixels of each class alone.

    Args:
        width: of the strokes they are drawn from; 0 for the whole mask.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "JPEGImages").symlink_to((dataset.root / "JPEGImages").resolve())
    if (classes := dataset.root / "classes.txt").is_file():
        shutil.copy(classes, out)
    masks = out / MASK_FOLDERS.get(dataset.split, "SegmentationClass")
    masks.mkdir()
    for index, image_id in enumerate(dataset.ids):
        mask = dataset.mask(index)
        sparse, how = np.full_like(mask, VOID), (width, [seed, *image_id.encode()])
        known = draw_strokes(mask, *how) if width else mask
        places, labels, _ = sample_pixels(known, pixels, seed, image_id)
        sparse[tuple(places.T)] = labels
        colour_mask(sparse, dataset.classes).save(masks / f"{image_id}.png")
    write_ids(out, dataset.split, dataset.ids)


def run(step: str, *flags: Any) -> None:
    """A step of `--recipe quick`."""
    sys.argv = [f"{step}.py", "--recipe", "quick", *map(str, flags)]
    runpy.run_path(str(Path(__file__).parent.parent / sys.argv[0]), run_name="__main__")


def chart(tables: list[Path], path: Path) -> None:
    """mIoU against labelled pixels: mean of the seeds, and from the least to the greatest."""
    figure = Figure((7, 4.5), layout="constrained")
    axes, curves = figure.subplots(), {}
    for row in (row for table in tables for row in read_table(table)):
        label = f"{row['network']}, {int(row['images']):,} images"
        label += ", strokes" * (float(row["strokes"]) > 0)
        label += ", areas known" * (row["known_areas"] == "1")
        seeds = curves.setdefault(label, {}).setdefault(row["per_class"], [])
        seeds.append((float(row["pixels"]), float(row["miou"])))
    for label, found in curves.items():
        pixels, mious = np.moveaxis(sorted(found.values()), 2, 0)  # (per class, seeds) each
        (line,) = axes.plot(pixels.mean(1), mious.mean(1), "o-", label=label)
        span = pixels.mean(1), mious.min(1), mious.max(1)
        axes.fill_between(*span, color=line.get_color(), alpha=0.2)
    axes.set(xscale="log", xlabel="labelled pixels, in all", ylabel="mIoU")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, fontsize="small")
    figure.savefig(path, dpi=110, format="png")


def main() -> None:
    how = {"description": __doc__, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser("python -m tests.few_labels", **how)
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR")
    add("--split", nargs="+", default=["train"], metavar="LIST")
    add("--out", type=Path, required=True, metavar="DIR")
    add("--per-class", type=int, nargs="+", default=PIXELS, metavar="N")
    add("--strokes", type=float, default=0.0, metavar="WIDTH", help="px (default: whole masks)")
    add("--known-areas", action="store_true", help="of the masks, which clicks do not tell")
    add("--chart", type=Path, nargs="*", default=[], metavar="CSV", help="of other backbones, too")
    args, network = parser.parse_known_args()
    place, table, rows = args.out / "run", args.out / "few_labels.csv", []
    for split, per_class, seed in product(args.split, args.per_class, SEEDS):
        data = args.data if args.known_areas else args.out / "data"
        if not args.known_areas:
            draw(VOCFolder(args.data, split), per_class, seed, args.strokes, data)
        drawn = "--data", data, "--split", split, "--per-class", per_class, "--seed", seed
        run("sample_features", "--run", place, *drawn, *network)
        run("train_cls", "--run", place, "--seed", seed)
        run("evaluate", "--run", place, "--data", args.data)
        step_1 = read_json(place / "1_features/config.json")
        row = {"network": step_1["backbone"], "split": split, "images": step_1["images"]}
        row |= {"strokes": args.strokes, "known_areas": int(args.known_areas)}
        row |= {"per_class": per_class, "pixels": step_1["rows"], "seed": seed}
        rows.append(row | {"miou": read_json(place / "4_eval/metrics.json")["miou"]})
        save_csv(table, rows)
        print(json.dumps(rows[-1]), flush=True)
    chart([table, *args.chart], args.out / "few_labels.png")


if __name__ == "__main__":
    runtime.run_script(main)
