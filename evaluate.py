"""Step 4: validation images -> mIoU, at each image's original size, void ignored.

    python evaluate.py --data data/VOCdevkit/VOC2012 --run runs/voc
    python evaluate.py --run runs/voc --save-predictions --tta flip,0.75,1.25
    python evaluate.py --run runs/voc --tta flip --out runs/voc/flipped  # 4_eval stays as it is
    python evaluate.py --run runs/voc --checkpoint runs/voc/2_cls/dense.pt --out runs/voc/frozen
    python evaluate.py --checkpoint voc               # the network that comes with the project
    torchrun --nproc-per-node 4 -- evaluate.py --run runs/voc     # four GPUs: the same score
    python evaluate.py --data DIR --predictions FOLDER            # index PNGs of any program

Reads RUN/3_seg/best.pt, or RUN/2_cls/dense.pt where step 3 was not run. Writes RUN/4_eval/:
metrics.json, per_class.csv, confusion.csv (pixels), per_image.npz (pixels, image by image),
iou.png, confusion.png, with --save-predictions also predictions/ID.png (8-bit palette indices at
the original size, as the VOC server takes them), config.json (last). With --out all of it goes to
that folder, which must be new, empty, or hold an earlier scoring; step 5 goes on reading 4_eval. A
bad image ends the scoring: left out, it would change the score.

With --checkpoint and neither --run nor --out it prints the table and writes nothing.

--predictions scores FOLDER/ID.png (palette or grey, at the original size) for each image of the
split by the same protocol and prints the table; with --out, or a --run of its own, it also writes
all of the above, ready for `python -m losses.compare`.
"""

import argparse
import math
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from data.classes import VOID
from data.figures.overlay import colour_mask
from data.figures.plots import plot_confusion, plot_iou_bars
from data.files import atomic_file
from data.images import find_predictions, first_of, read_prediction
from data.transforms import ResizeImage
from data.voc import VOCFolder
from losses.metrics import ConfusionMatrix, image_counts, save_image_scores
from models import RunError
from models.backbones import fingerprint
from models.run import args as flags
from models.run import distributed, folder, runtime
from models.segmenter import Segmenter

PROTOCOL = "original size, void ignored, one confusion matrix over all images"
UNFINISHED = "predictions.part"  # a folder, until all images are predicted


class Scores:
    """What is counted of a split, or of a process's share of it.

    Attributes:
        names: of the classes.
        matrix: over all images.
        counts: of each image, by its id.
        void: whether some pixel was void.
    """

    def __init__(self, names: Sequence[str]):
        self.names = list(names)
        self.matrix = ConfusionMatrix(len(names))
        self.counts: dict[str, np.ndarray] = {}
        self.void = False

    def add(self, image_id: str, prediction: np.ndarray, target: np.ndarray) -> None:
        self.matrix.update(prediction, target)
        self.counts[image_id] = image_counts(prediction, target, len(self.names))
        self.void |= bool((target == VOID).any())


def parse() -> tuple[argparse.Namespace, flags.Parser]:
    parser = flags.Parser(__doc__, needs_run=False)
    flags.add_data_flags(parser, split="val")
    checkpoint = "network to score; default: the run's best"
    parser.flag("--checkpoint", type=Path, metavar="FILE", free=True, help=checkpoint)
    flags.add_view_flags(parser)
    flags.add_speed_flags(parser)
    save = "save predictions/ID.png for the VOC server"
    parser.flag("--save-predictions", action="store_true", help=save)
    out = "where to write; default: 4_eval of the run"
    parser.flag("--out", type=Path, metavar="DIR", free=True, help=out)
    predictions = (
        "score these index PNGs, ID.png, instead of a network: prints the table, and with --out or "
        "--run keeps the results"
    )
    parser.flag("--predictions", type=Path, metavar="FOLDER", free=True, help=predictions)
    args = parser.parse_args()
    if args.predictions:
        kept = [name for name in ("out", "run") if getattr(args, name)]
        if len(kept) > 1:
            parser.error("argument --run: not allowed with arguments --predictions and --out")
        quiet = ("quiet",) if kept else ()
        allowed = ("data", "split", "limit", "json", *kept, *quiet)
        parser.allow_beside(args, "predictions", allowed)
    elif not (args.run or args.checkpoint):
        parser.error("the following arguments are required: --run")
    elif args.save_predictions and not (args.run or args.out):
        parser.error("argument --save-predictions: has no effect without --run or --out")
    return args, parser


def main() -> None:
    args, parser = parse()
    place = place_to_write(args.run, args.out, bool(args.predictions))
    if args.predictions:
        dataset = VOCFolder(args.data, args.split, limit=args.limit)
        score_predictions(args.predictions, dataset, place, args.quiet, args.json)
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

    with folder.claim(place) if place else nullcontext():
        unfinished = place / UNFINISHED if args.save_predictions else None
        if unfinished and distributed.is_main():
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
        distributed.barrier()
        scores = predict_split(segmenter, dataset, args.workers, unfinished)
        if not distributed.is_main():
            return
        note_absent_classes(scores, dataset)
        if not place:
            print_scores(scores, args.json, args.started)
            return
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
        config["views"] = how
        split = ("--split", args.split) if args.split != "val" else ()
        next_command = ("visualize.py", "--data", dataset.root, *split, "--run", args.run)
        then = () if args.out else next_command
        folder.finish(args.run, 4, config, wrote, then, place, scores.matrix.scores())


def place_to_write(run: Path | None, out: Path | None, are_predictions: bool) -> Path | None:
    """The folder that the scores go to; None without a run or `out`.

    Args:
        are_predictions: those of another program, not of a network, are scored.

    Raises:
        RunError: files of something else are there.
    """
    if out:
        inside = out.iterdir() if out.exists() else ()
        found = {path.name for path in inside if not path.name.startswith(".")}
        if found and found.isdisjoint((folder.PER_IMAGE, UNFINISHED)):
            raise RunError(f"--out {out}: holds other files ({min(found)}); name a new folder")
        return out
    if not run:
        return None
    for step in (1, 2, 3) if are_predictions else ():
        if folder.step_folder(run, step).exists():
            raise RunError(
                f"--run {run}: holds step {step} of a network, so its 4_eval is for that; "
                "name another folder"
            )
    return folder.step_folder(run, 4)


def predict_split(
    segmenter: Segmenter, dataset: VOCFolder, workers: int, save_to: Path | None
) -> Scores:
    """The scores of all images, complete on rank 0; saves their index PNGs if there is a folder."""
    classes = segmenter.classes
    mine = distributed.share(len(dataset))
    loader = runtime.image_loader(dataset, mine, workers)
    scores = Scores(segmenter.names)
    for sample in runtime.bar(loader, len(mine), "image"):
        prediction = segmenter.predict(sample.image, sample.mask.shape, sample.id).numpy()
        scores.add(sample.id, prediction, sample.mask.numpy())
        if save_to:
            with atomic_file(save_to / f"{sample.id}.png") as file:
                colour_mask(prediction, classes).save(file, "PNG")
    everyone = Scores(segmenter.names)
    for part in distributed.gather(scores):
        everyone.matrix.counts += part.matrix.counts
        everyone.counts |= part.counts
        everyone.void |= part.void
    everyone.counts = {key: everyone.counts[key] for key in dataset.ids if key in everyone.counts}
    return everyone


def score_predictions(
    predictions: Path, dataset: VOCFolder, place: Path | None, quiet: bool, as_json: bool
) -> None:
    """Scores the index PNGs in a folder, whatever program made them; keeps results in `place`."""
    started = time.time()
    runtime.choose_device("cpu", single=True)
    paths = find_predictions(predictions, dataset.ids)
    names, split = dataset.classes.names, dataset.split
    runtime.print_header(
        folder.step_title(4),
        quiet,
        data=f"{dataset.root}, split {split}: {len(dataset)} images of {len(names)} classes",
        predictions=predictions,
        protocol=PROTOCOL,
    )
    with folder.claim(place) if place else nullcontext():
        scores = Scores(names)
        for index, path in enumerate(runtime.bar(paths, len(paths), "image")):
            target = dataset.mask(index)
            prediction = read_prediction(path, len(names), target.shape)
            scores.add(dataset.ids[index], prediction, target)
        note_absent_classes(scores, dataset)
        if not place:
            print_scores(scores, as_json, started)
            return
        folder.mark_unfinished(place)
        source = {"checkpoint": None, "predictions": str(predictions)}
        wrote = save_scores(place, scores, split, f"predictions in {predictions}", **source)
        config = {"data": dataset.root, "split": split, "images": len(dataset), "changed": {}}
        config |= {**source, "started": started, "json": as_json}
        folder.finish(place, 4, config, wrote, folder=place, scores=scores.matrix.scores())


def note_absent_classes(scores: Scores, dataset: VOCFolder) -> None:
    """Notes the classes that the ground truth does not have.

    Raises:
        DataError: see `data.voc.check_labels`.
    """
    counts = scores.matrix.counts.sum(axis=1)
    if absent := dataset.absent_classes(counts, has_void=scores.void):
        print(f"  note: no pixel of {first_of(absent)} in {dataset.split}")


def print_scores(scores: Scores, as_json: bool, started: float) -> None:
    """The table, and on request the line for programs, of scores that no folder keeps."""
    print(scores.matrix.table(scores.names))
    if as_json:
        folder.print_json(4, None, scores.matrix.scores(), time.time() - started)


def save_scores(place: Path, scores: Scores, split: str, how: str, **source: str | None) -> str:
    """Prints the table and writes all that step 4 keeps of a score; gives the score in words.

    Args:
        how: the predictions were made, for the protocol.
        source: what was scored, for metrics.json.
    """
    matrix, names = scores.matrix, scores.names
    ious = [None if math.isnan(iou) else iou for iou in matrix.iou().tolist()]
    present = f"{matrix.classes_in_mean()} of {len(names)} classes"
    metrics = {
        **matrix.scores(),
        "classes_in_mean": matrix.classes_in_mean(),
        "images": len(scores.counts),
        "per_class": dict(zip(names, ious)),
        "protocol": f"{how}; {len(scores.counts)} images of {split} at {PROTOCOL}, "
        f"mean over {present}",
        **source,
    }
    folder.save_json(place / "metrics.json", metrics)
    per_class = [{"class": name, "iou": iou} for name, iou in zip(names, ious)]
    folder.save_csv(place / "per_class.csv", per_class)
    pixels = [{"ground truth": n, **dict(zip(names, row))} for n, row in zip(names, matrix.counts)]
    folder.save_csv(place / "confusion.csv", pixels)
    with atomic_file(place / folder.PER_IMAGE) as file:
        save_image_scores(file, names, list(scores.counts), np.stack([*scores.counts.values()]))
    with atomic_file(place / "confusion.png") as file:
        plot_confusion(file, matrix.counts, names)
    with atomic_file(place / "iou.png") as file:
        plot_iou_bars(file, names, ious, matrix.miou())
    print(matrix.table(names))
    return f"mIoU {matrix.miou():.4f} over {present}, {len(scores.counts)} images"


if __name__ == "__main__":
    runtime.run_script(main)
