"""Step 4: validation images -> mIoU, at each image's original size, void ignored.

    python evaluate.py --data data/VOCdevkit/VOC2012 --run runs/voc
    python evaluate.py --data data/VOCdevkit/VOC2012 --run runs/voc --save-predictions --tta flip,0.75,1.25
    python evaluate.py --data data/VOCdevkit/VOC2012 --run runs/voc --checkpoint runs/voc/2_cls/dense.pt
    python evaluate.py --data data/VOCdevkit/VOC2012 --run runs/voc --resume      # goes on where a run was stopped
    torchrun --nproc-per-node 4 -- evaluate.py --data data/VOCdevkit/VOC2012 --run runs/voc    # the same score

Reads RUN/3_seg/best.pt, or RUN/2_cls/dense.pt where step 3 was not run. Writes RUN/4_eval/: metrics.json,
per_class.csv, confusion.csv (pixels), iou.png, confusion.png, with --save-predictions also predictions/ID.png (8-bit
palette indices at the original size, as the VOC server takes them), config.json (last). A bad image ends the scoring:
left out, it would change the score.
"""

import argparse
import math
import shutil
from pathlib import Path

import numpy as np
import torch

from data import DataError
from data.classes import Classes
from data.overlay import colour_mask
from data.stream import batches, stream
from data.transforms import ResizeImage
from data.voc import VOCFolder
from losses.plots import plot_confusion, plot_iou_bars
from losses.score import ConfusionMatrix
from models import flags, processes, run_folder, runtime
from models.backbones import fingerprint
from models.files import atomic_file
from models.interruption import Stop
from models.progress import Progress

FREE_TO_CHANGE = {  # what a resumed run may do differently
    "recipe", "run", "data", "checkpoint", "device", "workers", "compile", "strict", "resume",
}  # fmt: skip


def parse() -> argparse.Namespace:
    parser = flags.step_parser(__doc__)
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
    return parser.parse_args()


def main() -> None:
    args = parse()
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
        recipe=args.recipe,
        data=f"{dataset.root}, split {args.split}: {len(dataset)} images",
        network=f"{source} ({segmenter.hypercolumn.backbone}, shorter side {segmenter.size})",
        protocol="original size, void ignored, one confusion matrix over all images",
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
    matrix = ConfusionMatrix(len(classes))
    if progress.state:
        matrix.counts = np.array(progress.state["counts"])
    elif processes.is_main():
        shutil.rmtree(unfinished, ignore_errors=True)
    with Stop() as stop:
        plan = processes.turns(batches(range(progress.done, len(dataset)), args.batch_size))
        for samples in runtime.progress(stream(dataset, plan, args.workers), total=len(plan), unit="batch"):
            mine = segmenter.predict(samples)
            seen = ConfusionMatrix(len(classes))
            for sample, prediction in zip(samples, mine):
                seen.update(prediction, sample.mask)
            matrix.counts += processes.total(torch.from_numpy(seen.counts)).numpy()
            if args.save_predictions:
                found = [(sample.id, prediction) for sample, prediction in zip(samples, mine)]
                for image_id, prediction in (image for part in processes.gather(found) for image in part):
                    with atomic_file(unfinished / f"{image_id}.png") as file:
                        colour_mask(prediction, classes).save(file, "PNG")
            progress.round_done(stop, lambda: {"counts": matrix.counts.tolist()})
    if not processes.is_main():
        return

    if not matrix.classes_in_mean():
        raise DataError(f"{dataset.root}: the {len(dataset)} images of {args.split} have no labelled pixel to score")
    per_class = {name: None if math.isnan(iou) else iou for name, iou in zip(classes.names, matrix.iou().tolist())}
    metrics = {
        "miou": matrix.miou(),
        "pixel_accuracy": matrix.pixel_accuracy(),
        "mean_accuracy": matrix.mean_accuracy(),
        "fw_iou": matrix.fw_iou(),
        "classes_in_mean": matrix.classes_in_mean(),
        "images": len(dataset),
        "per_class": per_class,
        "protocol": f"trained on {segmenter.trained_on}, input shorter side {segmenter.size}; scored on {len(dataset)} "
        f"images of {args.split} at original size, {views}, void ignored, one confusion matrix over all images, "
        f"mean over the {matrix.classes_in_mean()} of {len(classes)} classes present",
        "checkpoint": str(source),
    }
    run_folder.begin(args.run, 4)
    if predictions.is_dir():
        shutil.rmtree(predictions)
        print(f"  note: the predictions of an earlier scoring in {predictions} are gone")
    if args.save_predictions:
        unfinished.rename(predictions)
    run_folder.save_json(folder / "metrics.json", metrics)
    run_folder.save_csv(folder / "per_class.csv", [{"class": name, "iou": iou} for name, iou in per_class.items()])
    counts = [
        {"ground truth": name, **dict(zip(classes.names, row))} for name, row in zip(classes.names, matrix.counts)
    ]
    run_folder.save_csv(folder / "confusion.csv", counts)
    with atomic_file(folder / "confusion.png") as file:
        plot_confusion(file, matrix.counts, classes.names)
    with atomic_file(folder / "iou.png") as file:
        plot_iou_bars(file, classes.names, list(per_class.values()), matrix.miou())
    print(matrix.table(classes.names))
    run_folder.finish(
        args.run,
        4,
        {**vars(args), "hypercolumn": segmenter.hypercolumn.spec(), "checkpoint": str(source)},
        wrote=f"mIoU {matrix.miou():.4f} over {matrix.classes_in_mean()} classes, {len(dataset)} images",
        then=("visualize.py", "--data", dataset.root, "--run", args.run),
    )


if __name__ == "__main__":
    runtime.run_step(main)
