"""Scores of runs side by side, and whether each differs from the first.

    python -m losses.compare runs/voc runs/voc/flipped runs/other
    python -m losses.compare runs/voc runs/other --out runs/table

Reads what `evaluate.py` keeps of each image, of runs or of folders of its --out that have scored
the same images, and says which flags of their steps differ from those of the first. The 95 %
intervals are of paired resamples of these images: each resample is the same for all runs, so that
what makes an image hard drops out of their difference.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import UserError
from losses.metrics import class_ious, load_image_scores, mean, ratio
from models.run import chain, folder, runtime

RESAMPLES = 10_000
BLOCK = 100  # resamples that are in memory together
FEW_IMAGES = 30  # with fewer, resamples differ too little and the intervals are too narrow


def bootstrap_mious(counts: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """The bootstrap: mIoUs over as many images as there are, drawn anew with replacement.

    Efron, "Bootstrap Methods: Another Look at the Jackknife", The Annals of Statistics 7(1), 1979.

    Args:
        counts: (runs, N, C, 3) class counts of the same N images; the runs share each draw.

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


def compared(counts: np.ndarray) -> list[dict[str, Any]]:
    """How good each run is, and whether it differs from the first: a row for each.

    Args:
        counts: (runs, N, C, 3) class counts of the same images.

    Returns:
        "miou" with its 95 % interval, from "miou_low" to "miou_high"; "pixel_accuracy"; the
        "difference" of the mIoU to that of the first with its interval, from "difference_low" to
        "difference_high"; and the "verdict" on it, empty in the first row.
    """
    totals, resampled = counts.sum(1), bootstrap_mious(counts)
    mious, gains = mean(class_ious(totals)), resampled - resampled[:, :1]
    low, high = np.nanquantile(resampled, [0.025, 0.975], axis=0)
    gain_low, gain_high = np.nanquantile(gains, [0.025, 0.975], axis=0)
    verdicts = np.select([gain_low > 0, gain_high < 0], ["better", "worse"], "may be equal")
    verdicts[0] = ""
    columns = {
        "miou": mious,
        "miou_low": low,
        "miou_high": high,
        "pixel_accuracy": ratio(totals[..., 2].sum(1), totals[..., 0].sum(1)),
        "difference": mious - mious[0],
        "difference_low": gain_low,
        "difference_high": gain_high,
        "verdict": verdicts,
    }
    return [dict(zip(columns, row)) for row in zip(*(x.tolist() for x in columns.values()))]


def differing(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What has led to the scores of `other`, by its config.json, and not to those of `first`."""
    made = [config.get("history") or {} for config in (first, other)]
    words = changed(*made) if all(made) else []
    if not words and (first["made_from"] != other["made_from"] or not other["made_from"]):
        words = [f"network {other['checkpoint'] or other['predictions']}"]
    seen = ({"evaluate": config["settings"]} for config in (first, other))
    return "; ".join([*words, *changed(*seen)])


def changed(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What differs in the settings of scripts, as one would type it."""
    words = [f"without {script}" for script in first if script not in other]
    words += [f"with {script}" for script in other if script not in first]
    for script in [script for script in other if script in first]:
        before, flags = first[script], other[script]
        names = [flag for flag in before | flags if before.get(flag) != flags.get(flag)]
        if names:
            values = {flag: "none" if flags.get(flag) is None else flags[flag] for flag in names}
            words.append(f"{script} {runtime.as_typed(values)}")
    return words


def compare_runs(places: Sequence[Path]) -> tuple[str, list[dict[str, Any]]]:
    """Runs, or folders of scores, side by side with the first.

    Returns:
        What differs and a table in markdown, a column for each run; and its columns as dicts: "run"
        and "images", the scores of `compared`, the IoU of each class, and what "differs" from the
        settings of the first, in words.

    Raises:
        UserError: see `read_scores`.
    """
    names, counts = read_scores(places)
    configs, runs, lines = [chain.finished(place, 4) for place in places], [], []
    for place, config, own, scores in zip(places, configs, counts, compared(counts)):
        ious = zip((f"IoU {name}" for name in names), class_ious(own.sum(0)).tolist())
        facts = {"run": str(place), "differs": differing(configs[0], config), "images": len(own)}
        runs.append(facts | scores | dict(ious))
    for key in [key for key in runs[0] if key != "differs"]:
        lines.append([key.replace("_", " "), *(_cell(key, run[key]) for run in runs)])
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * (width - 1) + ":" for width in widths])
    padded = ([cell.rjust(width) for cell, width in zip(line, widths)] for line in lines)
    words = [f"{run['run']} differs in: {run['differs'] or 'nothing'}\n" for run in runs[1:]]
    return "\n".join([*words, *(f"| {' | '.join(line)} |" for line in padded)]), runs


def _cell(key: str, value: Any) -> str:
    """A fact of a run in a table."""
    if not isinstance(value, float):
        return str(value)
    return "absent" if np.isnan(value) else f"{value:{'+' * ('difference' in key)}.4f}"


def read_scores(places: Sequence[Path]) -> tuple[list[str], np.ndarray]:
    """Names of the classes, and (runs, N, C, 3) class counts of the same images.

    Raises:
        UserError: scores are missing, damaged or of a network that the run has no more, or the
            runs have not scored the same classes, images and ground truth in the same order.
    """
    first, found = {}, []
    for place in places:
        scores = chain.scores_folder(place)
        if chain.scored_another_network(place):
            raise UserError(
                f"{scores}: scores of an earlier network; run step 4 again, for {place}"
            )
        names, ids, counts = load_image_scores(scores / folder.PER_IMAGE)
        found.append(counts)
        scored = {"classes": names, "images": ids, "ground truth": counts[..., 0]}
        first = first or scored
        for what in scored:
            if not np.array_equal(first[what], scored[what]):
                raise UserError(
                    f"{places[0]} and {place} cannot be compared: they have not scored the same "
                    f"{what}; score both on the same list of the same data"
                )
    return names, np.stack(found)


def main() -> None:
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m losses.compare", None, __doc__, formatter_class=how)
    what = "runs, or folders of evaluate.py --out, compared with the first"
    parser.add_argument("runs", type=Path, metavar="RUN", nargs="+", help=what)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write compare.csv and compare.png")
    args = parser.parse_args()

    text, runs = compare_runs(args.runs)
    print(f"{text}\n")
    images = runs[0]["images"]
    print(f"95 % intervals, from low to high, of {RESAMPLES:,} paired resamples of the images")
    if images < FEW_IMAGES:
        print(f"note: {images} images are few, so the intervals are rather too narrow")
    if args.out:
        folder.save_csv(args.out / "compare.csv", runs)
        folder.save_chart(args.out / "compare.png", "comparison", runs)
        print(f"wrote {args.out}: compare.csv, compare.png")


if __name__ == "__main__":
    runtime.run_script(main)
