"""Scores of runs side by side, and whether each differs from the first.

    python -m losses.compare runs/voc runs/voc/flipped runs/other
    python -m losses.compare runs/voc runs/other --out runs/table

Reads what `evaluate.py` keeps of each image, of runs or of folders of its --out that have scored
the same images. The 95 % intervals are of paired resamples of these images: each resample is the
same for all runs, so that what makes an image hard drops out of their difference.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data import UserError
from losses.metrics import class_ious, iou_cell, load_image_scores, mean, ratio
from models.run import chain, folder, runtime

RESAMPLES = 10_000
BLOCK = 100  # resamples that are in memory together
FEW_IMAGES = 30  # with fewer, resamples differ too little and the intervals are too narrow

Row = dict[str, float | str | None]


def bootstrap_mious(counts: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """The bootstrap: mIoUs over as many images as there are, drawn anew with replacement.

    Efron, "Bootstrap Methods: Another Look at the Jackknife", The Annals of Statistics 7(1), 1979.

    Args:
        counts: (runs, N, C, 3) class counts of the same N images; the runs share each draw.
        resamples: how often N images are drawn.
        seed: of the draws.

    Returns:
        (resamples, runs) float64; nan where all images drawn are void.
    """
    rng, images = np.random.default_rng(seed), counts.shape[1]
    chances = np.full(images, 1 / images)
    counts = counts.astype(float)  # whole numbers below 2^53: sums are exact in any order
    mious = []
    for start in range(0, resamples, BLOCK):
        times = rng.multinomial(images, chances, size=min(BLOCK, resamples - start))
        sums = np.tensordot(times.astype(float), counts, (1, 1))  # (block, runs, C, 3)
        mious.append(mean(class_ious(sums)))
    return np.concatenate(mious)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Bounds of the middle 95 % of bootstrapped values (n,), leaving out nan.

    Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def compared(counts: np.ndarray) -> list[Row]:
    """How good each run is, and whether it differs from the first: a row for each.

    Args:
        counts: (runs, N, C, 3) class counts of the same images.

    Returns:
        "miou" with its 95 % interval, from "miou_low" to "miou_high"; "pixel_accuracy"; the
        "difference" of the mIoU to that of the first with its interval, from "difference_low" to
        "difference_high"; and the "verdict" on it. The last four are None in the first row.
    """
    totals, resampled = counts.sum(1), bootstrap_mious(counts)
    mious = mean(class_ious(totals)).tolist()
    accuracies = ratio(totals[..., 2].sum(1), totals[..., 0].sum(1)).tolist()
    rows = []
    for run, (miou, accuracy) in enumerate(zip(mious, accuracies)):
        low, high = interval(resampled[:, run])
        row = {"miou": miou, "miou_low": low, "miou_high": high, "pixel_accuracy": accuracy}
        difference = low = high = verdict = None
        if run:
            difference = miou - mious[0]
            low, high = interval(resampled[:, run] - resampled[:, 0])
            verdict = "better" if low > 0 else "worse" if high < 0 else "may be equal"
        row |= {"difference": difference, "difference_low": low, "difference_high": high}
        rows.append(row | {"verdict": verdict})
    return rows


def run_table(rows: Sequence[Row], runs: Sequence[str]) -> str:
    """The rows of `compared` as text, by the names of the runs."""
    cells = [["", "mIoU", "95 % interval", "pixel acc.", "minus first", "95 % interval", ""]]
    score = ["{miou:.4f}", "{miou_low:.4f} to {miou_high:.4f}", "{pixel_accuracy:.4f}"]
    gain = ["{difference:+.4f}", "{difference_low:+.4f} to {difference_high:+.4f}", "{verdict}"]
    for run, row in zip(runs, rows):
        formats = score + (gain if row["verdict"] else ["", "", ""])
        cells.append([run, *(one.format(**row) for one in formats)])
    return in_columns(cells)


def class_table(counts: np.ndarray, names: Sequence[str], runs: Sequence[str]) -> str:
    """IoU of each class (by its name) in each run as text; of two runs also the differences."""
    ious = class_ious(counts.sum(1)).T  # (C, runs)
    cells = [["", *runs], *([name, *map(iou_cell, row)] for name, row in zip(names, ious))]
    cells.append(["classes", *map(str, np.isfinite(ious).sum(0))])
    if len(runs) == 2:
        gains = ["" if np.isnan(gain) else f"{gain:+.3f}" for gain in ious[:, 1] - ious[:, 0]]
        cells = [[*row, gain] for row, gain in zip(cells, ["minus first", *gains, ""])]
    return in_columns(cells)


def in_columns(cells: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first row a heading, as a table in GitHub's markdown."""
    first, *others = (max(map(len, column)) for column in zip(*cells))
    rows = [
        [f"{name:{first}}", *(f"{cell:>{width}}" for cell, width in zip(row, others))]
        for name, *row in cells
    ]
    rows.insert(1, ["-" * first, *("-" * (width - 1) + ":" for width in others)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def matched(first: tuple, other: tuple) -> np.ndarray:
    """Counts of other scores, images in the order of the first; see `load_image_scores` for both.

    Raises:
        UserError: they are of other classes or images, or of another ground truth.
    """
    (names, ids, counts), (its_names, its_ids, its_counts) = first, other
    if odd := set(names) ^ set(its_names):
        raise UserError(f"class {min(odd)!r} is in one alone")
    if names != its_names:
        raise UserError("their classes are in another order")
    if odd := set(ids) ^ set(its_ids):
        raise UserError(f"image {min(odd)} is in one alone")
    places = {image_id: place for place, image_id in enumerate(its_ids)}
    its_counts = its_counts[[places[image_id] for image_id in ids]]
    differs = (counts[..., 0] != its_counts[..., 0]).any(axis=1)
    if differs.any():
        image_id = ids[differs.argmax()]
        raise UserError(f"the ground truth of {image_id} is not the same, so it is other data")
    return its_counts


def read_scores(places: Sequence[Path]) -> tuple[list[str], np.ndarray]:
    """Names of the classes, and (runs, N, C, 3) class counts of the same images.

    Raises:
        UserError: scores are missing, damaged or of a network that the run has no more, or the
            runs have not scored the same.
    """
    scores, counts = [], []
    for place in places:
        path = chain.scores_folder(place) / folder.PER_IMAGE
        if chain.scored_another_network(place):
            raise UserError(
                f"{path.parent}: scores of an earlier network; run step 4 again, for {place}"
            )
        scores.append(load_image_scores(path))
        try:
            counts.append(matched(scores[0], scores[-1]))
        except UserError as error:
            raise UserError(
                f"{places[0]} and {place} cannot be compared: {error}; score both on the same list"
            ) from None
    return scores[0][0], np.stack(counts)


def short_names(places: Sequence[Path]) -> list[str]:
    """The parts of the paths that tell them apart, without what all of them begin or end with."""
    parts = [place.absolute().parts for place in places]
    for _ in ("begin", "end"):
        while min(map(len, parts)) > 1 and len({first for first, *_ in parts}) == 1:
            parts = [others for _, *others in parts]
        parts = [own[::-1] for own in parts]
    return ["/".join(own) for own in parts]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        "python -m losses.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = "run, or folder of evaluate.py --out"
    parser.add_argument("first", type=Path, metavar="RUN", help=f"{what}, to compare with")
    parser.add_argument("others", type=Path, metavar="RUN", nargs="+", help=what)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write compare.csv and compare.png")
    args = parser.parse_args()

    places = [args.first, *args.others]
    configs = [chain.finished(place, 4) for place in places]
    names, counts = read_scores(places)
    runs, rows, images = short_names(places), compared(counts), counts.shape[1]
    for place, config in zip(places, configs):
        views = f", {config['views']}" if config.get("views") else ""
        print(f"{place}: {config['checkpoint'] or config['predictions']}{views}")
    print("", class_table(counts, names, runs), "", run_table(rows, runs), "", sep="\n")
    print(f"95 % intervals from {RESAMPLES:,} paired resamples of the {images} images")
    print(f"better or worse: than {runs[0]}, on images like these")
    if len(runs) > 2:
        print("note: each is judged by itself; of 20 just as good, one would seem better or worse")
    if images < FEW_IMAGES:
        print(f"note: {images} images are few, so the intervals are rather too narrow")
    if args.out:
        table = [{"run": run, **row} for run, row in zip(runs, rows)]
        folder.save_csv(args.out / "compare.csv", table)
        folder.save_chart(args.out / "compare.png", "comparison", runs, rows)
        print(f"wrote {args.out}: compare.csv, compare.png")


if __name__ == "__main__":
    runtime.run_script(main)
