"""Step 3: fine-tunes the 1x1 convolutions on whole images; the backbone stays frozen.

    python train_seg.py --data data/VOCdevkit/VOC2012 --run runs/voc
    python train_seg.py --data data/VOCdevkit/VOC2012 --run runs/voc --split train_aug --epochs 20 --batch-size 16
    python train_seg.py --data data/VOCdevkit/VOC2012 --run runs/voc --pixels 512    # faster: some pixels of each image
    python train_seg.py --data data/VOCdevkit/VOC2012 --run runs/voc --resume       # goes on after the last whole epoch

Reads RUN/2_cls/dense.pt. Writes RUN/3_seg/: last.pt (after every epoch), best.pt (by validation mIoU), log.csv,
curve.png, previews/ (a few overlays per epoch), config.json (last). Epoch 0 is the head as step 2 left it.
"""

import argparse
import math
import shutil
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from data.classes import Classes
from data.overlay import panel
from data.stream import stream
from data.transforms import ResizeBoth, ResizeImage, resized_shape
from data.voc import Sample, VOCFolder, count_pixels
from losses.loss import WEIGHTINGS, cross_entropy2d, divisor, draw_pixels, weighting
from losses.plots import plot_curve
from losses.score import ConfusionMatrix
from models import RunError, run_folder, runtime
from models.cache import LevelCache
from models.checkpoint import load_segmenter, save_segmenter
from models.files import atomic_file
from models.hypercolumn import pixel_centres
from models.schedule import warm_up_and_cosine
from models.segmenter import Segmenter, same_size
from models.training import Training, check_settings

PREVIEWS = 3  # overlays saved after each epoch
FREE_TO_CHANGE = {"run", "data", "device", "workers", "compile", "resume"}  # what a resumed run may do differently


def parse() -> argparse.Namespace:
    parser = runtime.step_parser(__doc__)
    runtime.add_data_flags(parser, split="train")
    parser.add_argument("--val-split", default="val", help="list that validation reads; it chooses best.pt")
    parser.add_argument("--val-limit", type=runtime.positive, metavar="N", help="only the first N of --val-split")
    parser.add_argument("--epochs", type=runtime.positive, default=10, help="passes over the images")
    parser.add_argument("--batch-size", type=runtime.positive, default=8, help="images per step")
    parser.add_argument("--lr", type=runtime.rate, default=1e-3, help="peak rate of AdamW (warm-up, cosine)")
    parser.add_argument("--weight-decay", type=runtime.fraction, default=0.01, help="of AdamW")
    parser.add_argument("--stride", type=runtime.positive, default=2, help="input size over size of the logits' grid")
    parser.add_argument(
        "--class-weights",
        default="none",
        choices=WEIGHTINGS,
        help="weigh classes by inverse frequency, over all pixels of the split or over each batch",
    )
    parser.add_argument(
        "--pixels",
        type=runtime.positive,
        metavar="N",
        help="train on N random labelled pixels of each image, not on all",
    )
    parser.add_argument(
        "--cache",
        type=runtime.gibibytes,
        metavar="GIB",
        help="keep the frozen levels of the images on disk in float16, in at most so much room",
    )
    runtime.add_speed_flags(parser)
    parser.add_argument("--seed", type=runtime.natural, default=0, help="for the order of the images and dropout")
    parser.add_argument("--resume", action="store_true", help="go on from RUN/3_seg/last.pt with the same settings")
    return parser.parse_args()


def summed_loss(
    segmenter: Segmenter, samples: list[Sample], weight: Tensor | None, pixels: int | None, cache: LevelCache | None
) -> Tensor:
    """Sum of the loss over the labelled pixels of images of one size; with `pixels`, its estimate from so many each."""
    device = segmenter.hypercolumn.mean.device
    images = torch.from_numpy(np.stack([sample.image for sample in samples])).to(device)
    target = torch.from_numpy(np.stack([sample.mask for sample in samples])).long().to(device)
    with segmenter.autocast():
        levels = cache([sample.id for sample in samples], images) if cache else segmenter.hypercolumn(images)
    if pixels is None:
        logits = segmenter.logits(levels, segmenter.grid(images))
        del levels  # the finest is the largest thing in memory, and its resampled form is enough from here on
        return cross_entropy2d(logits, target, weight, reduction="sum")
    chosen, worth = draw_pixels(target, pixels)
    centres = pixel_centres(chosen, target.shape[-2:])
    logits = segmenter.logits_at(levels, segmenter.grid(images), centres)
    labels = target.flatten(1).gather(1, chosen[..., 0] * target.shape[-1] + chosen[..., 1])
    losses = cross_entropy2d(logits.unsqueeze(-1), labels.unsqueeze(-1), weight, reduction="none")
    return (losses.squeeze(-1) * worth).sum()


def train_one_epoch(
    segmenter: Segmenter,
    batches: Iterable[list[Sample]],
    optimizer: Optimizer,
    schedule: LRScheduler,
    weigh: Callable[[Tensor], Tensor | None],
    scaler: GradScaler,
    pixels: int | None = None,
    cache: LevelCache | None = None,
) -> float:
    """One pass over the batches; the mean of their losses.

    Args:
        pixels: labelled pixels of each image to train on; None means all.
        cache: where the levels come from; None means the backbone.

    Raises:
        RunError: the loss is not finite.
    """
    segmenter.train()
    device, losses = segmenter.hypercolumn.mean.device, []
    for samples in batches:
        labels = torch.cat([torch.from_numpy(sample.mask).flatten() for sample in samples]).long().to(device)
        weight = weigh(labels)
        total = divisor(labels, weight)
        optimizer.zero_grad()
        loss = 0.0
        # Images of one size go through together and their gradients add up to that of the whole batch: no padding.
        for indices in same_size([sample.image for sample in samples], device):
            part = summed_loss(segmenter, [samples[index] for index in indices], weight, pixels, cache) / total
            scaler.scale(part).backward()
            loss += part.item()
        if not math.isfinite(loss):
            ids = ", ".join(sample.id for sample in samples)
            raise RunError(f"the loss is {loss} at images {ids}; try a smaller --lr (last.pt is still good)")
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() >= scale:  # smaller: gradients overflowed float16, and the optimizer's step was left out
            schedule.step()
        losses.append(loss)
    return float(np.mean(losses))


def validate(
    segmenter: Segmenter, dataset: VOCFolder, batch_size: int, workers: int, previews: Path
) -> ConfusionMatrix:
    """Confusion matrix over a split at original size; the first few images are drawn into the folder `previews`."""
    matrix = ConfusionMatrix(len(segmenter.names))
    classes = Classes.from_lists(segmenter.names, segmenter.colours)
    pairs = segmenter.predict_all(stream(dataset, batch_size, workers))
    for index, (sample, prediction) in enumerate(
        runtime.progress(pairs, total=len(dataset), unit="image", label="validate")
    ):
        matrix.update(prediction, sample.mask)
        if index < PREVIEWS:
            with atomic_file(previews / f"{sample.id}.png") as file:
                photo = Image.fromarray(dataset.image(index))
                panel(photo, prediction, classes, sample.mask, title=sample.id).save(file, "PNG")
    return matrix


def fit(
    segmenter: Segmenter,
    dataset: VOCFolder,
    val_set: VOCFolder,
    training: Training,
    train: Callable[[Iterable[list[Sample]]], float],
    epochs: int,
    batch_size: int,
    seed: int,
    workers: int,
    folder: Path,
    start: str,
) -> None:
    """Trains to the last epoch, starting after the last one in the log, and saves after every epoch.

    Args:
        train: one pass over the batches; gives their mean loss.
        start: `fingerprint` of the head that the training began from; saved with the checkpoints.
    """
    for epoch in range(len(training.log), epochs + 1):
        began, loss = time.perf_counter(), None
        if epoch > 0:
            order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed + epoch)).tolist()
            batches = runtime.progress(
                stream(dataset, batch_size, workers, order),
                total=-(-len(order) // batch_size),
                unit="step",
                label=f"epoch {epoch}/{epochs}",
            )
            loss = train(batches)
            segmenter.trained_on = f"{len(dataset)} images of {dataset.split}, {epoch} epochs"
        matrix = validate(segmenter, val_set, batch_size, workers, folder / "previews" / f"epoch_{epoch:03d}")
        if not matrix.classes_in_mean():
            raise RunError(f"split {val_set.split} has no labelled pixel, so there is nothing to choose best.pt by")
        is_best = all(matrix.miou() > row["miou"] for row in training.log)
        training.log.append(
            {
                "epoch": epoch,
                "loss": loss,
                "miou": matrix.miou(),
                "pixel_accuracy": matrix.pixel_accuracy(),
                "seconds": round(time.perf_counter() - began, 1),
            }
        )
        if is_best:  # saved first, so that last.pt never knows of a best epoch that is not there
            save_segmenter(folder / "best.pt", segmenter, start=start)
        save_segmenter(folder / "last.pt", segmenter, start=start, training=training.state())
        run_folder.save_csv(folder / "log.csv", training.log)
        with atomic_file(folder / "curve.png") as file:
            plot_curve(file, training.log, title="Step 3: fine-tuning on whole images")
        before = "as step 2 left it" if loss is None else f"loss {loss:.4f}"
        print(f"  epoch {epoch}/{epochs}  {before}, validation mIoU {matrix.miou():.4f}", flush=True)


def main() -> None:
    args = parse()
    device = runtime.choose_device(args.device)
    folder = run_folder.step_folder(args.run, 3)
    start = run_folder.finished(args.run, 2)["head"]
    source = run_folder.step_folder(args.run, 2) / "dense.pt"
    if resumes := args.resume and (folder / "last.pt").is_file():
        source = folder / "last.pt"
    segmenter, content = load_segmenter(source)
    run_folder.check_features(args.run, segmenter, source)
    segmenter.stride = args.stride
    dataset = VOCFolder(args.data, args.split, ResizeBoth(segmenter.size), args.limit)
    val_set = VOCFolder(args.data, args.val_split, ResizeImage(segmenter.size), args.val_limit)
    run_folder.check_classes(segmenter.names, dataset.classes.names, source, dataset.root)
    settings = {
        f"--{name}".replace("_", "-"): value for name, value in vars(args).items() if name not in FREE_TO_CHANGE
    }
    settings |= {"--cache": args.cache is not None, "images": len(dataset), "validation images": len(val_set)}
    if resumes:
        run_folder.check_start(args.run, content, source)
        check_settings(content.get("training", {}).get("settings", {}), settings, source)
    precision = segmenter.to(device).speed_up(args.amp, args.compile)
    cache, room = None, "no: every epoch runs the backbone"
    if args.cache:
        cache = LevelCache(folder, segmenter.hypercolumn, segmenter.size)
        room = cache.make_room((resized_shape(*size, segmenter.size) for size in dataset.sizes), args.cache)
    runtime.announce(
        3,
        data=f"{dataset.root}: {len(dataset)} images of {args.split}, validation on {len(val_set)} of {args.val_split}",
        network=f"{segmenter.hypercolumn.backbone}, frozen; shorter side {segmenter.size}, logits at 1/{args.stride}",
        training=f"{args.epochs} epochs, {args.batch_size} images a step, AdamW, peak rate {args.lr:g}",
        pixels=f"{args.pixels} random labelled ones of each image" if args.pixels else "all labelled ones",
        cache=room,
        start=f"{source}, after epoch {content['training']['log'][-1]['epoch']}" if resumes else source,
        device=f"{device}, {precision}",
    )

    torch.manual_seed(args.seed)
    optimizer = AdamW(segmenter.head.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    schedule = warm_up_and_cosine(optimizer, args.epochs * -(-len(dataset) // args.batch_size))
    scaler = GradScaler(device.type, enabled=args.amp == "fp16")
    training = Training(settings, optimizer, schedule, scaler)
    if resumes:
        training.go_on_from(content["training"])
    counts = torch.from_numpy(count_pixels(dataset)) if args.class_weights == "inverse" else None
    weigh = weighting(args.class_weights, len(segmenter.names), counts)
    train = partial(
        train_one_epoch,
        segmenter,
        optimizer=optimizer,
        schedule=schedule,
        weigh=weigh,
        scaler=scaler,
        pixels=args.pixels,
        cache=cache,
    )
    run_folder.begin(args.run, 3)
    if not resumes:
        # The levels that an interrupted training left may be of other images.
        for leftover in (folder / "previews", *folder.glob("cache_*")):
            shutil.rmtree(leftover, ignore_errors=True)
    try:
        fit(
            segmenter,
            dataset,
            val_set,
            training,
            train,
            args.epochs,
            args.batch_size,
            args.seed,
            args.workers,
            folder,
            start,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what was saved is kept; go on with the same command and --resume") from None
    if cache:
        cache.remove()
    best = max(training.log, key=lambda row: row["miou"])
    run_folder.finish(
        args.run,
        3,
        {**vars(args), "start": start, "best_epoch": best["epoch"], "val_miou": best["miou"]},
        wrote=f"best.pt is epoch {best['epoch']}, validation mIoU {best['miou']:.4f}",
        then=("evaluate.py", "--data", dataset.root, "--run", args.run),
    )


if __name__ == "__main__":
    runtime.run_step(main)
