"""Step 4: validation images -> mIoU, at each image's original size, void ignored.

    python evaluate.py --data data/VOCdevkit/VOC2012 --run runs/voc
    python evaluate.py --run runs/voc --save-predictions --tta flip,0.75,1.25
    python evaluate.py --run runs/voc --checkpoint runs/voc/2_cls/dense.pt
    torchrun --nproc-per-node 4 -- evaluate.py --run runs/voc     # four GPUs: the same score
    python evaluate.py --data DIR --predictions FOLDER            # index PNGs of any program
    python evaluate.py --compare runs/voc runs/other              # two runs side by side

Reads RUN/3_seg/best.pt, or RUN/2_cls/dense.pt where step 3 was not run. Writes RUN/4_eval/:
metrics.json, per_class.csv, confusion.csv (pixels), per_image.npz (pixels, image by image),
iou.png, confusion.png, with --save-predictions also predictions/ID.png (8-bit palette indices at
the original size, as the VOC server takes them), config.json (last). A bad image ends the scoring:
left out, it would change the score.

--predictions scores FOLDER/ID.png (palette or grey, at the original size) for each image of the
split by the same protocol and prints the table; with a --run of its own it also writes RUN/4_eval/,
ready for --compare. --compare reads per_image.npz of two runs that have scored the same images and
writes nothing.
"""

import argparse
import math
import shutil
import time
from contextlib import nullcontext
from pathlib import Path

from torch.utils.data import DataLoader

from data import DataError
from data.figures.overlay import colour_mask
from data.figures.plots import plot_confusion, plot_iou_bars
from data.files import atomic_file
from data.images import find_predictions, first_of, read_prediction
from data.transforms import ResizeImage
from data.voc import VOCFolder, absent_classes
from losses.metrics import (
    RESAMPLES,
    ImageScores,
    bootstrap_mious,
    comparison,
    percentile_interval,
)
from models import RunError
from models.backbones import fingerprint
from models.run import args as flags
from models.run import distributed, folder, runtime
from models.segmenter import Segmenter

PROTOCOL = "original size, void ignored, one confusion matrix over all images"
FEW_IMAGES = 30  # with fewer, resamples differ too little and the interval is too narrow


def parse() -> tuple[argparse.Namespace, flags.Parser]:
    parser = flags.Parser(__doc__, needs_run=False)
    flags.add_data_flags(parser, split="val")
    checkpoint = "network to score; default: the run's best"
    parser.flag("--checkpoint", type=Path, metavar="FILE", free=True, help=checkpoint)
    flags.add_view_flags(parser)
    flags.add_speed_flags(parser)
    save = "save predictions/ID.png for the VOC server"
    parser.flag("--save-predictions", action="store_true", help=save)
    predictions = (
        "score these index PNGs, ID.png, instead of a network: prints the table, and with --run "
        "keeps the results"
    )
    parser.flag("--predictions", type=Path, metavar="FOLDER", free=True, help=predictions)
    parser.flag(
        "--compare",
        type=Path,
        nargs=2,
        metavar=("RUN_A", "RUN_B"),
        free=True,
        help="compare the scores of two runs",
    )
    args = parser.parse_args()
    if args.compare:
        parser.allow_beside(args, "compare", ())
    elif args.predictions:
        quiet = ("quiet",) if args.run else ()
        parser.allow_beside(args, "predictions", ("run", "data", "split", "limit", *quiet))
    elif not args.run:
        parser.error("the following arguments are required: --run")
    return args, parser


def main() -> None:
    args, parser = parse()
    if args.compare:
        compare(*args.compare)
        return
    if args.predictions:
        dataset = VOCFolder(args.data, args.split, limit=args.limit)
        score_predictions(args.predictions, dataset, args.run, args.quiet)
        return
    device = runtime.choose_device(args.device)
    segmenter, source = folder.trained_segmenter(args.run, args.checkpoint)
    segmenter.views = flags.views_of(args.tta, args.refine)
    if args.dilate is not None:
        segmenter.hypercolumn.dilate(args.dilate)
    transform = ResizeImage(segmenter.input_size)
    dataset = VOCFolder(args.data, args.split, transform, args.limit)
    folder.check_classes(segmenter.names, dataset.classes.names, source, dataset.root)
    runtime.prepare(segmenter, device, args.amp, args.compile)
    how = f"{segmenter.views}{segmenter.hypercolumn.dilation_in_words}"
    runtime.print_header(
        folder.step_title(4),
        args.quiet,
        recipe=args.recipe,
        data=f"{dataset.root}, split {args.split}: {len(dataset)} images",
        network=f"{source} ({segmenter.hypercolumn.backbone}, shorter side {segmenter.size})",
        protocol=PROTOCOL,
        views=how,
        device=runtime.describe(device, args.amp, args.compile),
    )
    if not args.checkpoint and source.parent == folder.step_folder(args.run, 2):
        print("  note: no 3_seg/best.pt in this run; scoring the head of step 2")
    elif not args.checkpoint and not folder.is_finished(args.run, 3):
        print(f"  note: {source.parent} has not finished; scoring its best epoch so far")

    place = folder.step_folder(args.run, 4)
    with folder.claim(place):
        unfinished = place / "predictions.part" if args.save_predictions else None
        if unfinished and distributed.is_main():
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
        distributed.barrier()
        scores = predict_split(segmenter, dataset, args.workers, unfinished)
        if not distributed.is_main():
            return
        note_absent_classes(scores, dataset)
        folder.mark_unfinished(place)
        predictions = place / "predictions"
        if predictions.is_dir():
            shutil.rmtree(predictions)
            print(f"  note: the predictions of an earlier scoring in {predictions} are gone")
        if unfinished:
            unfinished.rename(predictions)
        made = f"trained on {segmenter.trained_on}, input shorter side {segmenter.size}"
        protocol = f"{made}; scored with {how}"
        wrote = save_scores(place, scores, args.split, protocol, checkpoint=str(source))
        config = {**vars(args), "changed": parser.changed(args), "checkpoint": str(source)}
        config["hypercolumn"] = segmenter.hypercolumn.spec()
        config["network"], config["scored_best"] = fingerprint(segmenter), not args.checkpoint
        split = ("--split", args.split) if args.split != "val" else ()
        next_command = ("visualize.py", "--data", dataset.root, *split, "--run", args.run)
        folder.finish(args.run, 4, config, wrote, next_command)


def predict_split(
    segmenter: Segmenter, dataset: VOCFolder, workers: int, save_to: Path | None
) -> ImageScores:
    """The scores of all images, complete on rank 0; saves their index PNGs if there is a folder."""
    classes = segmenter.classes
    mine = distributed.share(len(dataset))
    loader = DataLoader(dataset, batch_size=None, sampler=mine, num_workers=workers)
    scores = ImageScores(segmenter.names)
    for sample in runtime.bar(loader, len(mine), "image"):
        prediction = segmenter.predict(sample.image, sample.mask.shape, sample.id).numpy()
        scores.add(sample.id, prediction, sample.mask.numpy())
        if save_to:
            with atomic_file(save_to / f"{sample.id}.png") as file:
                colour_mask(prediction, classes).save(file, "PNG")
    everyone = ImageScores(segmenter.names)
    for part in distributed.gather(scores):
        everyone.extend(part)
    places = {image_id: place for place, image_id in enumerate(everyone.ids)}
    return everyone.take([places[image_id] for image_id in dataset.ids if image_id in places])


def score_predictions(predictions: Path, dataset: VOCFolder, run: Path | None, quiet: bool) -> None:
    """Scores the index PNGs in a folder, whatever program made them; keeps results in a run."""
    started = time.time()
    runtime.choose_device("cpu", single=True)
    paths = find_predictions(predictions, dataset.ids)
    for step in (1, 2, 3) if run else ():
        if folder.step_folder(run, step).exists():
            raise RunError(
                f"--run {run}: holds step {step} of a network, so its 4_eval is for that; "
                "name another folder"
            )
    names, split = dataset.classes.names, dataset.split
    runtime.print_header(
        folder.step_title(4),
        quiet,
        data=f"{dataset.root}, split {split}: {len(dataset)} images of {len(names)} classes",
        predictions=predictions,
        protocol=PROTOCOL,
    )
    place = folder.step_folder(run, 4) if run else None
    with folder.claim(place) if place else nullcontext():
        scores = ImageScores(names)
        for index, path in enumerate(runtime.bar(paths, len(paths), "image")):
            target = dataset.mask(index)
            prediction = read_prediction(path, len(names), target.shape)
            scores.add(dataset.ids[index], prediction, target)
        note_absent_classes(scores, dataset)
        if not place:
            print(scores.total().table(scores.names))
            return
        folder.mark_unfinished(place)
        source = {"checkpoint": None, "predictions": str(predictions)}
        wrote = save_scores(place, scores, split, f"predictions in {predictions}", **source)
        config = {"data": dataset.root, "split": split, "images": len(dataset), "changed": {}}
        folder.finish(run, 4, {**config, **source, "started": started}, wrote)


def note_absent_classes(scores: ImageScores, dataset: VOCFolder) -> None:
    """Notes the classes that the ground truth does not have.

    Raises:
        DataError: it has no labelled pixel, or nothing but background and void.
    """
    counts = scores.total().counts.sum(axis=1)
    where = f"{dataset.root}: the {len(dataset)} images of {dataset.split}"
    if not counts.any():
        raise DataError(f"{where} have no labelled pixel to score")
    has_void = scores.void_pixels > 0
    if absent := absent_classes(counts, has_void, dataset.classes, where):
        print(f"  note: no pixel of {first_of(absent)} in {dataset.split}")


def save_scores(
    place: Path, scores: ImageScores, split: str, how: str, **source: str | None
) -> str:
    """Prints the table and writes all that step 4 keeps of a score; gives the score in words.

    Args:
        how: the predictions were made, for the protocol.
        source: what was scored, for metrics.json.
    """
    matrix, names = scores.total(), scores.names
    ious = [None if math.isnan(iou) else iou for iou in matrix.iou().tolist()]
    present = f"{matrix.classes_in_mean()} of {len(names)} classes"
    metrics = {
        "miou": matrix.miou(),
        "pixel_accuracy": matrix.pixel_accuracy(),
        "mean_accuracy": matrix.mean_accuracy(),
        "fw_iou": matrix.fw_iou(),
        "classes_in_mean": matrix.classes_in_mean(),
        "images": len(scores),
        "per_class": dict(zip(names, ious)),
        "protocol": f"{how}; {len(scores)} images of {split} at {PROTOCOL}, mean over {present}",
        **source,
    }
    folder.save_json(place / "metrics.json", metrics)
    per_class = [{"class": name, "iou": iou} for name, iou in zip(names, ious)]
    folder.save_csv(place / "per_class.csv", per_class)
    pixels = [{"ground truth": n, **dict(zip(names, row))} for n, row in zip(names, matrix.counts)]
    folder.save_csv(place / "confusion.csv", pixels)
    with atomic_file(place / folder.PER_IMAGE) as file:
        scores.save(file)
    with atomic_file(place / "confusion.png") as file:
        plot_confusion(file, matrix.counts, names)
    with atomic_file(place / "iou.png") as file:
        plot_iou_bars(file, names, ious, matrix.miou())
    print(matrix.table(names))
    return f"mIoU {matrix.miou():.4f} over {present}, {len(scores)} images"


def compare(*runs: Path) -> None:
    """Prints the scores of two runs A and B, their difference and its bootstrapped interval."""
    runtime.choose_device("cpu", single=True)
    configs = [folder.finished(run, 4) for run in runs]
    for run in runs:
        if folder.scored_another_network(run):
            raise RunError(
                f"{folder.step_folder(run, 4)}: scores of an earlier network; run step 4 again, "
                f"for {run}"
            )
    first, second = (read_scores(run) for run in runs)
    try:
        second = first.matched(second)
    except ValueError as error:
        raise RunError(
            f"{runs[0]} and {runs[1]} cannot be compared: {error}; score both on the same list"
        ) from None
    scored = [config["checkpoint"] or config["predictions"] for config in configs]
    a, b = (f"{run}: {source}" for run, source in zip(runs, scored))
    images = f"{len(first)}, the same for both"
    runtime.print_header(folder.step_title(4), A=a, B=b, images=images, protocol=PROTOCOL)
    print(comparison(first.total(), second.total(), first.names))
    mious = bootstrap_mious([first.pixels(), second.pixels()])
    low, high = percentile_interval(mious[:, 1] - mious[:, 0])
    interval = f"95 % interval of the difference: {low:+.4f} to {high:+.4f}"
    print(f"{interval} ({RESAMPLES:,} paired resamples of the images)")
    better = "B is better" if low > 0 else "A is better" if high < 0 else None
    print(f"{better or 'A and B may be equally good'}, on images like these")
    if len(first) < FEW_IMAGES:
        print(f"note: {len(first)} images are few, so the interval is rather too narrow")


def read_scores(run: Path) -> ImageScores:
    """What step 4 of a run has kept of each image.

    Raises:
        RunError: there is no such file, or it cannot be read.
    """
    path, again = folder.step_folder(run, 4) / folder.PER_IMAGE, f"run step 4 again, for {run}"
    try:
        return ImageScores.load(path)
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; {again}") from None
    except ValueError as error:
        raise RunError(f"{error}; {again}") from None


if __name__ == "__main__":
    runtime.run_script(main)
