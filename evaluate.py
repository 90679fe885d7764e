"""Step 4: validation images -> mIoU, at each image's original size, void ignored.

    python evaluate.py --data data/VOCdevkit/VOC2012 --run runs/voc
    python evaluate.py --data data/VOCdevkit/VOC2012 --run runs/voc --save-predictions --tta flip,0.75,1.25
    python evaluate.py --data data/VOCdevkit/VOC2012 --run runs/voc --checkpoint runs/voc/2_cls/dense.pt
    python evaluate.py --data data/VOCdevkit/VOC2012 --run runs/voc --resume      # goes on where a run was stopped
    torchrun --nproc-per-node 4 -- evaluate.py --data data/VOCdevkit/VOC2012 --run runs/voc    # the same score
    python evaluate.py --data data/VOCdevkit/VOC2012 --predictions FOLDER      # index PNGs that any program made
    python evaluate.py --compare runs/voc runs/other      # two runs side by side, and how sure their difference is

Reads RUN/3_seg/best.pt, or RUN/2_cls/dense.pt where step 3 was not run. Writes RUN/4_eval/: metrics.json,
per_class.csv, confusion.csv (pixels), per_image.npz (pixels, image by image), iou.png, confusion.png, with
--save-predictions also predictions/ID.png (8-bit palette indices at the original size, as the VOC server takes them),
config.json (last). A bad image ends the scoring: left out, it would change the score.

--predictions scores FOLDER/ID.png (palette or grey, at the original size) for each image of the split by the same
protocol and prints the table; with a --run of its own it also writes RUN/4_eval/, ready for --compare. --compare reads
per_image.npz of two runs that have scored the same images; it writes nothing.
"""

import argparse
import math
import shutil
from pathlib import Path

from data import DataError
from data.classes import Classes
from data.images import find_predictions, read_prediction
from data.overlay import colour_mask
from data.stream import batches, stream
from data.transforms import ResizeImage
from data.voc import VOCFolder
from losses.image_scores import ImageScores
from losses.plots import plot_confusion, plot_iou_bars
from losses.score import RESAMPLES, bootstrap_mious, comparison, percentile_interval
from models import RunError, flags, processes, run_folder, runtime
from models.backbones import fingerprint
from models.files import atomic_file
from models.interruption import Stop
from models.progress import Progress

PER_IMAGE = "per_image.npz"
PROTOCOL = "original size, void ignored, one confusion matrix over all images"
FEW_IMAGES = 30  # fewer differ too little from draw to draw: the interval comes out too narrow

FREE_TO_CHANGE = {  # what a resumed run may do differently
    "recipe", "run", "data", "checkpoint", "device", "workers", "compile", "strict", "resume", "predictions", "compare",
    "quiet",
}  # fmt: skip
OF_A_NETWORK = (
    "recipe", "checkpoint", "tta", "dilate", "refine", "save_predictions", "resume", "device", "workers", "batch_size",
    "amp", "compile",
)  # fmt: skip
OF_DATA = ("run", "data", "split", "limit")


def parse() -> argparse.Namespace:
    parser = flags.step_parser(__doc__, needs_run=False)
    flags.add_data_flags(parser, split="val")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="network to score; default: the run's best")
    flags.add_view_flags(parser)
    flags.add_speed_flags(parser)
    parser.add_argument("--batch-size", type=flags.positive, default=8, help="images read at a time")
    parser.add_argument("--save-predictions", action="store_true", help="save predictions/ID.png for the VOC server")
    parser.add_argument("--strict", action="store_true", default=True, help="end at the first bad image; always so")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on where an unfinished run of this step was stopped; where it had finished, do it again",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--predictions",
        type=Path,
        metavar="FOLDER",
        help="score these index PNGs, ID.png, instead of a network: prints the table, and with --run keeps the results",
    )
    instead.add_argument(
        "--compare", type=Path, nargs=2, metavar=("RUN_A", "RUN_B"), help="compare the scores of two runs"
    )
    args = parser.parse_args()
    flags.check_beside(parser, args, "predictions", OF_A_NETWORK if args.run else (*OF_A_NETWORK, "quiet"))
    flags.check_beside(parser, args, "compare", (*OF_A_NETWORK, *OF_DATA, "quiet"))
    if not (args.run or args.predictions or args.compare):
        parser.error("the following arguments are required: --run")
    return args


def main() -> None:
    args = parse()
    if args.predictions:
        score_predictions(args.predictions, args.data, args.split, args.limit, args.run, args.quiet)
        return
    if args.compare:
        compare(*args.compare)
        return
    device = runtime.choose_device(args.device)
    segmenter, source = run_folder.trained_segmenter(args.run, args.checkpoint)
    precision = segmenter.to(device).speed_up(args.amp, args.compile)
    views = segmenter.look(*args.tta or ([], False), args.dilate, args.refine)
    dataset = VOCFolder(args.data, args.split, ResizeImage(segmenter.input_size), args.limit)
    classes = Classes.from_lists(segmenter.names, segmenter.colours)
    run_folder.check_classes(classes.names, dataset.classes.names, source, dataset.root)
    settings = run_folder.settings(
        vars(args), FREE_TO_CHANGE, network=fingerprint(segmenter), images=dataset.fingerprint()
    )
    progress = Progress(args.run, 4, settings, len(dataset), args.batch_size, args.resume)
    runtime.announce(
        4,
        args.quiet,
        recipe=args.recipe,
        data=f"{dataset.root}, split {args.split}: {len(dataset)} images",
        network=f"{source} ({segmenter.hypercolumn.backbone}, shorter side {segmenter.size})",
        protocol=PROTOCOL,
        views=views,
        start=progress.start(),
        device=f"{processes.describe(device)}, {precision}",
    )
    if not args.checkpoint and source == run_folder.step_folder(args.run, 2) / "dense.pt":
        print("  note: no 3_seg/best.pt in this run; scoring the head of step 2, trained on sparse pixels only")
    elif not args.checkpoint and not (source.parent / "config.json").is_file():
        print(f"  note: {source.parent} has not finished; scoring its best epoch so far")

    folder = run_folder.prepare(args.run, 4)
    predictions, unfinished = folder / "predictions", folder / "predictions.part"
    scores, unfinished_scores = ImageScores(classes.names), folder / f"{PER_IMAGE}.part"
    if progress.done and processes.is_main():
        scores = first_images(unfinished_scores, dataset.ids[: progress.done])
    elif processes.is_main():
        shutil.rmtree(unfinished, ignore_errors=True)

    def keep() -> dict:
        """Brings the scores of the images that are done to disk; of more than progress.json knows, the first count."""
        with atomic_file(unfinished_scores) as file:
            scores.save(file)
        return {}

    with Stop() as stop:
        plan = processes.turns(batches(range(progress.done, len(dataset)), args.batch_size))
        rounds = runtime.progress(stream(dataset, plan, args.workers), total=len(plan), unit="batch")
        for samples in rounds:
            mine, seen = segmenter.predict(samples), ImageScores(classes.names)
            for sample, prediction in zip(samples, mine):
                seen.add(sample.id, prediction, sample.mask)
            for part in processes.gather(seen):
                scores.extend(part)
            if not rounds.disable:
                rounds.set_postfix(mIoU=f"{scores.total().miou():.3f}", refresh=False)
            if args.save_predictions:
                found = [(sample.id, prediction) for sample, prediction in zip(samples, mine)]
                for image_id, prediction in (image for part in processes.gather(found) for image in part):
                    with atomic_file(unfinished / f"{image_id}.png") as file:
                        colour_mask(prediction, classes).save(file, "PNG")
            progress.round_done(stop, keep)
    if not processes.is_main():
        return

    check_labelled(scores, dataset)
    run_folder.begin(args.run, 4)
    if predictions.is_dir():
        shutil.rmtree(predictions)
        print(f"  note: the predictions of an earlier scoring in {predictions} are gone")
    if args.save_predictions:
        unfinished.rename(predictions)
    how = f"trained on {segmenter.trained_on}, input shorter side {segmenter.size}; scored with {views}"
    wrote = save_scores(folder, scores, args.split, how, checkpoint=str(source))
    unfinished_scores.unlink(missing_ok=True)
    run_folder.finish(
        args.run,
        4,
        {**vars(args), "hypercolumn": segmenter.hypercolumn.spec(), "checkpoint": str(source)},
        wrote=wrote,
        then=("visualize.py", "--data", dataset.root, "--run", args.run),
    )


def score_predictions(folder: Path, data: Path, split: str, limit: int | None, run: Path | None, quiet: bool) -> None:
    """Scores the index PNGs in a folder, whatever program made them; with a run folder keeps the results in it."""
    runtime.choose_device("cpu", alone=True)
    dataset = VOCFolder(data, split, None, limit)
    paths = find_predictions(folder, dataset.ids)
    for step in (1, 2, 3) if run else ():
        if run_folder.step_folder(run, step).exists():
            raise RunError(
                f"--run {run}: holds step {step} of a network, so its 4_eval is for that; name another folder"
            )
    runtime.announce(
        4,
        quiet,
        data=f"{dataset.root}, split {split}: {len(dataset)} images of {len(dataset.classes)} classes",
        predictions=folder,
        protocol=PROTOCOL,
    )
    results = run_folder.prepare(run, 4) if run else None
    scores = ImageScores(dataset.classes.names)
    for index, path in enumerate(runtime.progress(paths, total=len(paths), unit="image")):
        target = dataset.mask(index)
        scores.add(dataset.ids[index], read_prediction(path, len(dataset.classes), target.shape), target)
    check_labelled(scores, dataset)
    if results:
        run_folder.begin(run, 4)
        wrote = save_scores(
            results, scores, split, f"predictions in {folder}", checkpoint=None, predictions=str(folder)
        )
        settings = {"data": dataset.root, "split": split, "limit": limit, "checkpoint": None, "predictions": folder}
        run_folder.finish(run, 4, settings, wrote)
    else:
        print(scores.total().table(scores.names))


def compare(*runs: Path) -> None:
    """Prints the scores of two runs A and B side by side, and the interval of the difference of their mIoUs."""
    runtime.choose_device("cpu", alone=True)
    configs = [run_folder.finished(run, 4) for run in runs]
    again = "run step 4 again, for"
    first, second = (read_scores(run_folder.step_folder(run, 4) / PER_IMAGE, f"{again} {run}") for run in runs)
    try:
        second = first.matched(second)
    except ValueError as error:
        raise RunError(f"{runs[0]} and {runs[1]} cannot be compared: {error}; score both on the same list") from None
    a, b = (f"{run}: {config['checkpoint'] or config['predictions']}" for run, config in zip(runs, configs))
    runtime.announce(4, A=a, B=b, images=f"{len(first)}, the same for both", protocol=PROTOCOL)
    print(comparison(first.total(), second.total(), first.names))
    mious = bootstrap_mious([first.pixels(), second.pixels()])
    low, high = percentile_interval(mious[:, 1] - mious[:, 0])
    print(f"95 % interval of the difference: {low:+.4f} to {high:+.4f} ({RESAMPLES:,} paired resamples of the images)")
    verdict = f"{'B' if low > 0 else 'A'} is better" if low > 0 or high < 0 else "A and B may be equally good"
    print(f"{verdict}, on images like these")
    if len(first) < FEW_IMAGES:
        print(f"note: {len(first)} images are few, so the interval is rather too narrow")


def read_scores(path: Path, otherwise: str) -> ImageScores:
    """What step 4 has kept of each image.

    Raises:
        RunError: there is no such file, or it cannot be read; it ends with what to do `otherwise`.
    """
    try:
        return ImageScores.load(path)
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; {otherwise}") from None
    except ValueError as error:
        raise RunError(f"{error}; {otherwise}") from None


def first_images(path: Path, ids: list[str]) -> ImageScores:
    """Of the scores that an unfinished run has kept, those of these images, with which they begin.

    Raises:
        RunError: they do not, or cannot be read.
    """
    over = "start over without --resume"
    scores = read_scores(path, over)
    if scores.ids[: len(ids)] != ids:
        raise RunError(f"{path}: does not hold the {len(ids)} images to go on from; {over}")
    return scores.take(range(len(ids)))


def check_labelled(scores: ImageScores, dataset: VOCFolder) -> None:
    """Refuses ground truth that is all void.

    Raises:
        DataError: it is.
    """
    if not scores.total().classes_in_mean():
        raise DataError(f"{dataset.root}: the {len(dataset)} images of {dataset.split} have no labelled pixel to score")


def save_scores(folder: Path, scores: ImageScores, split: str, how: str, **source: str | None) -> str:
    """Prints the table and writes all that step 4 tells of a score; what it wrote, in words.

    Args:
        how: the predictions came about, for the protocol.
        source: what was scored, for metrics.json.
    """
    matrix, names = scores.total(), scores.names
    present = f"{matrix.classes_in_mean()} of {len(names)} classes present"
    per_class = {name: None if math.isnan(iou) else iou for name, iou in zip(names, matrix.iou().tolist())}
    metrics = {
        "miou": matrix.miou(),
        "pixel_accuracy": matrix.pixel_accuracy(),
        "mean_accuracy": matrix.mean_accuracy(),
        "fw_iou": matrix.fw_iou(),
        "classes_in_mean": matrix.classes_in_mean(),
        "images": len(scores),
        "per_class": per_class,
        "protocol": f"{how}; {len(scores)} images of {split} at {PROTOCOL}, mean over the {present}",
        **source,
    }
    run_folder.save_json(folder / "metrics.json", metrics)
    run_folder.save_csv(folder / "per_class.csv", [{"class": name, "iou": iou} for name, iou in per_class.items()])
    pixels = [{"ground truth": name, **dict(zip(names, row))} for name, row in zip(names, matrix.counts)]
    run_folder.save_csv(folder / "confusion.csv", pixels)
    with atomic_file(folder / PER_IMAGE) as file:
        scores.save(file)
    with atomic_file(folder / "confusion.png") as file:
        plot_confusion(file, matrix.counts, names)
    with atomic_file(folder / "iou.png") as file:
        plot_iou_bars(file, names, list(per_class.values()), matrix.miou())
    print(matrix.table(names))
    return f"mIoU {matrix.miou():.4f} over {matrix.classes_in_mean()} classes, {len(scores)} images"


if __name__ == "__main__":
    runtime.run_step(main)
