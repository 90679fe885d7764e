"""Step 2: sparse hypercolumns -> a fully connected classifier -> the same as 1x1 convolutions.

    python train_cls.py --run runs/voc
    python train_cls.py --run runs/voc --epochs 60 --hidden 512 --class-weights inverse
    python train_cls.py --run runs/deep --from runs/voc --hidden 512,256,128 --activation gelu

Reads RUN/1_features/, with --from those of another run. Writes RUN/2_cls/: head.pt (fully
connected), dense.pt (1x1 convolutions with the extractor: all that later steps need), log.csv,
curve.png, config.json (last). A tenth of the images is held out; their pixels give the held-out
accuracy and are never trained on.
"""

import argparse
import math
import shutil
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from data.features import Features, read_features
from data.figures.plots import plot_curve
from data.files import atomic_file
from losses.loss import inverse_frequency
from models import RunError
from models.backbones import fingerprint
from models.classifier import ACTIVATIONS, DenseClassifier, FCClassifier
from models.run import args as flags
from models.run import folder, runtime
from models.segmenter import Segmenter, load_extractor, save_segmenter

STRIDE = 2  # the course's advice, 112x112 features for a 224x224 input; step 3 may choose another


class Rows(NamedTuple):
    """Sampled pixels in memory."""

    features: Tensor  # (n, Z) float32
    labels: Tensor  # (n,) int64
    weights: Tensor  # (n,) float32, how much each counts in the loss


def parse() -> tuple[argparse.Namespace, flags.Parser]:
    parser = flags.Parser(__doc__)
    epochs = "passes over the sampled pixels"
    parser.flag("--epochs", type=flags.positive, default=30, help=epochs)
    flags.add_from_flag(parser, "the features")
    hidden = (
        "widths of up to 9 hidden layers; one number: 2 of that width; N, (with a comma): one; "
    )
    hidden += "none: a linear classifier"
    parser.flag("--hidden", type=flags.widths, default=(256, 256), metavar="N,N,..", help=hidden)
    activation = "of the hidden layers"
    parser.flag("--activation", default="relu", choices=ACTIVATIONS, help=activation)
    parser.flag("--dropout", type=flags.fraction, default=0.5, help="share of hidden units dropped")
    flags.add_optimizer_flags(parser)
    area = (
        "a pixel counts by the share of its image that it stands for, to this power; 0: all alike"
    )
    parser.flag("--area-weight", type=flags.factor, default=0.0, metavar="POWER", help=area)
    parser.flag("--batch-size", type=flags.positive, default=256, help="pixels per step")
    parser.flag(
        "--held-out",
        type=flags.fraction,
        default=0.1,
        metavar="SHARE",
        help="of the images, whose pixels do not train but show how it goes; 0 trains on all",
    )
    seed = "for the weights, the order and the hold-out"
    parser.flag("--seed", type=flags.natural, default=0, help=seed)
    args = parser.parse_args()
    if not args.hidden and args.activation != parser.get_default("activation"):
        parser.error("argument --activation: has no effect with --hidden none")
    return args, parser


def split_rows(
    store: Features, area_weight: float, share: float, seed: int, device: torch.device
) -> tuple[Rows, Rows]:
    """Training rows, and the held-out rows: those of a random share of the images, never of all."""
    image_index = store.pixels[:, 0]
    images = np.random.default_rng(seed).permutation(np.unique(image_index))
    count = min(math.ceil(len(images) * share), len(images) - 1)
    is_held_out = np.isin(image_index, images[:count])

    def rows(chosen: np.ndarray) -> Rows:
        features = torch.from_numpy(store.features[chosen])
        labels = torch.from_numpy(store.labels[chosen].astype(np.int64))
        weights = torch.from_numpy(store.areas[chosen]) ** area_weight
        return Rows(features.to(device), labels.to(device), weights.to(device))

    return rows(~is_held_out), rows(is_held_out)


def weighted_loss(logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """The weighted mean of the cross entropies of rows (n, C), a scalar."""
    losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    return (losses * weights).sum() / weights.sum()


def train_one_epoch(
    fc: FCClassifier,
    rows: Rows,
    batch_size: int,
    optimizer: Optimizer,
    schedule: LRScheduler,
    label_smoothing: float,
) -> dict[str, float]:
    """One pass over the rows in random order; gives its last rate, mean loss and accuracy.

    Raises:
        RunError: the loss is not finite.
    """
    fc.train()
    loss_sum, hits, total = 0.0, 0, len(rows.labels)
    for batch in torch.randperm(total).to(rows.labels.device).split(batch_size):
        labels = rows.labels[batch]
        logits = fc(rows.features[batch])
        loss = weighted_loss(logits, labels, rows.weights[batch], label_smoothing)
        if not math.isfinite(loss.item()):
            raise RunError(f"the loss is {loss.item()}; try a smaller --lr")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate = schedule.get_last_lr()[0]
        schedule.step()
        loss_sum += loss.item() * len(batch)
        hits += int((logits.argmax(1) == labels).sum())
    return {"lr": rate, "loss": loss_sum / total, "accuracy": hits / total}


@torch.inference_mode()
def evaluate(fc: FCClassifier, rows: Rows, label_smoothing: float) -> dict[str, float]:
    """Loss, accuracy and accuracy averaged over the classes; nan where there is no row."""
    if not len(rows.labels):
        return dict.fromkeys(("val_loss", "val_accuracy", "val_mean_accuracy"), math.nan)
    logits = fc.eval()(rows.features)
    hits = (logits.argmax(1) == rows.labels).float()
    of_classes = [hits[rows.labels == label].mean().item() for label in rows.labels.unique()]
    return {
        "val_loss": weighted_loss(logits, rows.labels, rows.weights, label_smoothing).item(),
        "val_accuracy": hits.mean().item(),
        "val_mean_accuracy": sum(of_classes) / len(of_classes),
    }


@torch.no_grad()
def to_convolutions(
    fc: FCClassifier, channels: Sequence[int], features: Tensor
) -> tuple[DenseClassifier, float]:
    """The same classifier as 1x1 convolutions, tried on features (n, Z).

    Returns:
        The classifier, and the largest difference of the two forms' logits over the largest logit.

    Raises:
        RunError: they differ by more than rounding.
    """
    dense = DenseClassifier.from_fc(fc, channels).to(features.device)
    expected = fc.eval()(features)
    levels = [part.T[None, :, :, None] for part in features.split(list(channels), 1)]
    found = dense.eval()(levels, (len(features), 1))[0, :, :, 0].T
    error = ((found - expected).abs().max() / expected.abs().max()).item()
    if not error < 1e-4:  # nor nan
        raise RunError(
            f"the 1x1 convolutions differ from the fully connected layers by {error:.1e} "
            "of the largest logit"
        )
    return dense, error


def majority_share(labels: Tensor) -> float:
    """The accuracy of always naming the most frequent class."""
    return (labels.bincount().max() / len(labels)).item()


def save(place: Path, fc: FCClassifier, segmenter: Segmenter, log: list[dict[str, float]]) -> None:
    """Saves both forms of the classifier, the log and its curve."""
    save_segmenter(place / "dense.pt", segmenter)
    folder.save_csv(place / "log.csv", log)
    with atomic_file(place / "curve.png") as file:
        plot_curve(file, log, title="Step 2: classifier on sparse hypercolumns")


def main() -> None:
    args, parser = parse()
    how = flags.optimization(args, parser)
    device = runtime.choose_device(args.device, single=True)
    if args.tensorboard:
        runtime.check_tensorboard()
    if args.from_run:
        folder.borrow(args.run, args.from_run, before=2)
    config = folder.finished(args.run, 1)
    source, place = folder.step_folder(args.run, 1), folder.step_folder(args.run, 2)
    hypercolumn = load_extractor(source / "backbone.pt")
    store = read_features(source, len(config["classes"]))
    torch.manual_seed(args.seed)
    rows, held_out = split_rows(store, args.area_weight, args.held_out, args.seed, device)
    moments = torch.from_numpy(store.mean), torch.from_numpy(store.std)
    hidden = args.hidden, args.activation, args.dropout
    fc = FCClassifier(*moments, len(config["classes"]), *hidden).to(device)
    runtime.print_header(
        folder.step_title(2),
        args.quiet,
        recipe=args.recipe,
        features=f"{len(rows.labels)} for training, {len(held_out.labels)} of held-out images",
        head=f"{hypercolumn.Z} -> {hidden} -> {fc.classes} classes",
        training=f"{folder.count(args.epochs, 'epoch')}, {args.batch_size} pixels a step, "
        f"{args.optimizer}, peak rate {args.lr:g}, {args.decay}",
        device=runtime.describe(device),
    )
    if args.class_weights == "inverse":
        weight = inverse_frequency(torch.bincount(rows.labels, minlength=fc.classes))
        rows, held_out = (
            some._replace(weights=some.weights * weight[some.labels]) for some in (rows, held_out)
        )
    optimizer = how.build_optimizer(fc.parameters(), args.lr)
    steps_per_epoch = math.ceil(len(rows.labels) / args.batch_size)
    schedule = how.build_schedule(optimizer, args.epochs, steps_per_epoch)

    with folder.claim(place):
        shutil.rmtree(place / "tensorboard", ignore_errors=True)
        log = []
        epochs = runtime.bar(range(1, args.epochs + 1), args.epochs, "epoch")
        for epoch in epochs:
            began = time.perf_counter()
            trained = train_one_epoch(
                fc, rows, args.batch_size, optimizer, schedule, args.label_smoothing
            )
            scores = {**trained, **evaluate(fc, held_out, args.label_smoothing)}
            log.append({"epoch": epoch, "seconds": time.perf_counter() - began, **scores})
            if args.tensorboard:
                runtime.add_scalars(place / "tensorboard", log[-1])
            epochs.set_postfix(loss=trained["loss"], accuracy=trained["accuracy"])

        some = torch.cat([rows.features[:1000], held_out.features[:1000]])
        dense, error = to_convolutions(fc, hypercolumn.channels, some)
        print(f"dense equals fully connected: largest difference {error:.1e} of the largest logit")
        is_held_out = len(held_out.labels) > 0
        accuracy = log[-1]["val_accuracy" if is_held_out else "accuracy"]
        majority = majority_share((held_out if is_held_out else rows).labels)
        if not accuracy > majority:
            print(f"  note: no better than always naming the most frequent class ({majority:.3f})")

        segmenter = Segmenter(
            hypercolumn, dense, config["size"], STRIDE, config["classes"], config["colours"]
        )
        images = f"{config['images']} images of {config['split']}"
        segmenter.trained_on = f"{len(rows.labels)} pixels of {images}"
        folder.mark_unfinished(place)
        save(place, fc, segmenter, log)
        results = {
            "head": fingerprint(dense),
            "rows": len(rows.labels),
            "held_out_rows": len(held_out.labels),
            "val_accuracy": log[-1]["val_accuracy"],
            "val_mean_accuracy": log[-1]["val_mean_accuracy"],
            "beats_majority": accuracy > majority,
            "dense_minus_fc": error,
        }
        which = "held-out" if is_held_out else "training"
        folder.finish(
            args.run,
            2,
            {**vars(args), "changed": parser.changed(args), **results},
            wrote=f"{which} pixel accuracy {accuracy:.3f} after "
            f"{folder.count(args.epochs, 'epoch')}",
            then=("train_seg.py", "--data", config["data"], *of_step_1(config), "--run", args.run),
            scores={
                name: log[-1][name] for name in ("accuracy", "val_accuracy", "val_mean_accuracy")
            },
        )


def of_step_1(config: dict[str, Any]) -> list[Any]:
    """The flags of step 1 that step 3 should be given, too: which images."""
    changed = config["changed"]
    pairs = [[name, changed[name]] for name in ("--split", "--limit") if name in changed]
    return [*chain(*pairs), *(name for name in ("--skip-bad",) if name in changed)]


if __name__ == "__main__":
    runtime.run_script(main)
