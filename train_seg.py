"""Step 3: fine-tunes the 1x1 convolutions on whole images; the backbone stays frozen.

    python train_seg.py --data data/VOCdevkit/VOC2012 --run runs/voc
    python train_seg.py --data data/VOCdevkit/VOC2012 --run runs/voc --split train_aug --epochs 20 --batch-size 16
    python train_seg.py --data data/VOCdevkit/VOC2012 --run runs/voc --resume       # goes on after the last whole epoch

Reads RUN/2_cls/dense.pt. Writes RUN/3_seg/: last.pt (after every epoch), best.pt (by validation mIoU), log.csv,
curve.png, previews/ (a few overlays per epoch), config.json (last). Epoch 0 is the head as step 2 left it.
"""

import argparse
import math
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler

from data.classes import Classes
from data.overlay import panel
from data.stream import stream
from data.transforms import ResizeBoth, ResizeImage
from data.voc import Sample, VOCFolder, count_pixels
from losses.loss import WEIGHTINGS, cross_entropy2d, divisor, weighting
from losses.plots import plot_curve
from losses.score import ConfusionMatrix
from models import RunError, run_folder, runtime
from models.checkpoint import load_segmenter, save_segmenter
from models.files import atomic_file
from models.schedule import warm_up_and_cosine
from models.segmenter import Segmenter, same_size

PREVIEWS = 3  # overlays saved after each epoch
FREE_TO_CHANGE = {"run", "data", "device", "workers", "resume"}  # what a resumed run may do differently


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
    parser.add_argument("--seed", type=runtime.natural, default=0, help="for the order of the images and dropout")
    parser.add_argument("--resume", action="store_true", help="go on from RUN/3_seg/last.pt with the same settings")
    return parser.parse_args()


def train_one_epoch(
    segmenter: Segmenter,
    batches: Iterable[list[Sample]],
    optimizer: AdamW,
    schedule: LRScheduler,
    weigh: Callable[[Tensor], Tensor | None],
) -> float:
    """One pass over the batches; the mean of their losses.

    Raises:
        RunError: the loss is not finite.
    """
    segmenter.train()
    device, losses = segmenter.hypercolumn.mean.device, []
    for samples in batches:
        targets = [torch.from_numpy(sample.mask).long() for sample in samples]
        labels = torch.cat([target.flatten() for target in targets]).to(device)
        weight = weigh(labels)
        total = divisor(labels, weight)
        optimizer.zero_grad()
        loss = 0.0
        # Images of one size go through together and their gradients add up to that of the whole batch: no padding.
        for indices in same_size([sample.image for sample in samples], device):
            images = torch.from_numpy(np.stack([samples[index].image for index in indices])).to(device)
            target = torch.stack([targets[index] for index in indices]).to(device)
            part = cross_entropy2d(segmenter(images), target, weight, reduction="sum") / total
            part.backward()
            loss += part.item()
        if not math.isfinite(loss):
            ids = ", ".join(sample.id for sample in samples)
            raise RunError(f"the loss is {loss} at images {ids}; try a smaller --lr (last.pt is still good)")
        optimizer.step()
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


@dataclass
class Training:
    """What a training has come to, beside the weights; `state` is what last.pt keeps of it."""

    settings: dict[str, Any]  # what a resumed run must have in common with the one it goes on from
    optimizer: AdamW
    schedule: LRScheduler
    log: list[dict[str, Any]] = field(default_factory=list)  # one row an epoch, epoch 0 first

    def state(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "log": self.log,
            "random_state": runtime.random_state(),
        }

    def go_on_from(self, state: dict[str, Any]) -> None:
        """Takes over a saved `state`, and torch's random state with it."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.log = state["log"]
        runtime.set_random_state(state["random_state"])


def check_settings(saved: dict[str, Any], given: dict[str, Any], source: Path) -> None:
    """Refuses to resume with other settings.

    Raises:
        RunError: naming the first that differs.
    """
    for name, value in given.items():
        if saved.get(name) != value:
            raise RunError(f"--resume: {source} was trained with {name} {saved.get(name)}, not {value}; keep to that")


def fit(
    segmenter: Segmenter,
    dataset: VOCFolder,
    val_set: VOCFolder,
    training: Training,
    weigh: Callable[[Tensor], Tensor | None],
    epochs: int,
    batch_size: int,
    seed: int,
    workers: int,
    folder: Path,
    start: str,
) -> None:
    """Trains to the last epoch, starting after the last one in the log, and saves after every epoch.

    Args:
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
            loss = train_one_epoch(segmenter, batches, training.optimizer, training.schedule, weigh)
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
    settings |= {"images": len(dataset), "validation images": len(val_set)}
    if resumes:
        run_folder.check_start(args.run, content, source)
        check_settings(content.get("training", {}).get("settings", {}), settings, source)
    runtime.announce(
        3,
        data=f"{dataset.root}: {len(dataset)} images of {args.split}, validation on {len(val_set)} of {args.val_split}",
        network=f"{segmenter.hypercolumn.backbone}, frozen; shorter side {segmenter.size}, logits at 1/{args.stride}",
        training=f"{args.epochs} epochs, {args.batch_size} images a step, AdamW, peak rate {args.lr:g}",
        start=f"{source}, after epoch {content['training']['log'][-1]['epoch']}" if resumes else source,
        device=device,
    )

    torch.manual_seed(args.seed)
    segmenter.to(device)
    optimizer = AdamW(segmenter.head.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    schedule = warm_up_and_cosine(optimizer, args.epochs * -(-len(dataset) // args.batch_size))
    training = Training(settings, optimizer, schedule)
    if resumes:
        training.go_on_from(content["training"])
    counts = torch.from_numpy(count_pixels(dataset)) if args.class_weights == "inverse" else None
    weigh = weighting(args.class_weights, len(segmenter.names), counts)
    run_folder.begin(args.run, 3)
    if not resumes:
        shutil.rmtree(folder / "previews", ignore_errors=True)
    try:
        fit(
            segmenter,
            dataset,
            val_set,
            training,
            weigh,
            args.epochs,
            args.batch_size,
            args.seed,
            args.workers,
            folder,
            start,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what was saved is kept; go on with the same command and --resume") from None
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
