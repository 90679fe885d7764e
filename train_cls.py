"""Step 2: sparse hypercolumns -> a fully connected classifier -> the same as 1x1 convolutions.

    python train_cls.py --run runs/voc
    python train_cls.py --run runs/voc --epochs 60 --hidden 512 --class-weights inverse

Reads RUN/1_features/. Writes RUN/2_cls/: head.pt (fully connected), dense.pt (1x1 convolutions with the extractor: all
that later steps need), log.csv, curve.png, config.json (last). A tenth of the images is held out; their pixels give the
held-out accuracy and are never trained on.
"""

import argparse
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from data.features import Features, read_features
from losses.loss import WEIGHTINGS, count_classes, weighting
from losses.plots import plot_curve
from models import RunError, flags, run_folder, runtime
from models.backbones import fingerprint
from models.checkpoint import load_extractor, save_head, save_segmenter
from models.classifier import DenseClassifier, FCClassifier
from models.files import atomic_file
from models.schedule import OPTIMIZERS, warm_up_and_decay
from models.segmenter import Segmenter

STRIDE = 2  # the course's advice, 112x112 features for a 224x224 input; step 3 may choose another


class Rows(NamedTuple):
    """Sampled pixels in memory: features (n, Z) float32 and labels (n,) int64."""

    features: Tensor
    labels: Tensor


def parse() -> argparse.Namespace:
    parser = flags.step_parser(__doc__)
    parser.add_argument("--epochs", type=flags.positive, default=30, help="passes over the sampled pixels")
    parser.add_argument("--hidden", type=flags.positive, default=256, help="width of the two hidden layers")
    parser.add_argument("--dropout", type=flags.fraction, default=0.5, help="share of hidden units dropped")
    flags.add_optimizer_flags(parser)
    parser.add_argument("--batch-size", type=flags.positive, default=256, help="pixels per step")
    parser.add_argument(
        "--class-weights",
        default="none",
        choices=WEIGHTINGS,
        help="weigh classes by inverse frequency, over all training pixels or over each batch",
    )
    parser.add_argument(
        "--held-out",
        type=flags.fraction,
        default=0.1,
        metavar="SHARE",
        help="of the images, whose pixels do not train but show how it goes; 0 trains on all",
    )
    parser.add_argument("--seed", type=flags.natural, default=0, help="for the weights, the order and the hold-out")
    return parser.parse_args()


def split_rows(store: Features, share: float, seed: int, device: torch.device) -> tuple[Rows, Rows]:
    """Training rows and held-out rows: the latter are those of a share of the images (never of all), by the seed."""
    image_index = store.pixels[:, 0]
    images = np.random.default_rng(seed).permutation(np.unique(image_index))
    held_out = np.isin(image_index, images[: min(math.ceil(len(images) * share), len(images) - 1)])
    return tuple(
        Rows(
            torch.from_numpy(store.features[rows]).to(device),
            torch.from_numpy(store.labels[rows].astype(np.int64)).to(device),
        )
        for rows in (~held_out, held_out)
    )


def train_one_epoch(
    fc: FCClassifier,
    rows: Rows,
    optimizer: Optimizer,
    schedule: LRScheduler,
    batch_size: int,
    weigh: Callable[[Tensor], Tensor | None],
    smoothing: float,
) -> dict[str, float]:
    """One pass over the rows in random order; its mean loss (labels smoothed) and accuracy.

    Raises:
        RunError: the loss is not finite.
    """
    fc.train()
    total, loss_sum, hits = len(rows.labels), 0.0, 0
    for chosen in torch.randperm(total).to(rows.labels.device).split(batch_size):
        labels = rows.labels[chosen]
        logits = fc(rows.features[chosen])
        loss = F.cross_entropy(logits, labels, weigh(count_classes(labels, fc.classes)), label_smoothing=smoothing)
        if not math.isfinite(loss.item()):
            raise RunError(f"the loss is {loss.item()}; try a smaller --lr")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        loss_sum += loss.item() * len(chosen)
        hits += int((logits.argmax(1) == labels).sum())
    return {"loss": loss_sum / total, "accuracy": hits / total}


@torch.inference_mode()
def evaluate(fc: FCClassifier, rows: Rows) -> dict[str, float]:
    """Loss, accuracy and accuracy averaged over the classes; nan where there is no row."""
    fc.eval()
    if not len(rows.labels):
        return dict.fromkeys(("val_loss", "val_accuracy", "val_mean_accuracy"), float("nan"))
    logits = fc(rows.features)
    hits = (logits.argmax(1) == rows.labels).float()
    return {
        "val_loss": F.cross_entropy(logits, rows.labels).item(),
        "val_accuracy": hits.mean().item(),
        "val_mean_accuracy": float(
            np.mean([hits[rows.labels == label].mean().item() for label in rows.labels.unique()])
        ),
    }


@torch.inference_mode()
def difference(fc: FCClassifier, dense: DenseClassifier, features: Tensor) -> float:
    """Largest difference between the logits of the two forms over features (n, Z), relative to the largest logit."""
    expected = fc.eval()(features)
    found = dense.eval()(features.T[None, :, :, None])[0, :, :, 0].T
    return ((found - expected).abs().max() / expected.abs().max()).item()


def main() -> None:
    args = parse()
    device = runtime.choose_device(args.device, alone=True)
    config = run_folder.finished(args.run, 1)
    source = run_folder.step_folder(args.run, 1)
    hypercolumn = load_extractor(source / "backbone.pt")
    folder = run_folder.prepare(args.run, 2)
    store = read_features(source, len(config["classes"]))
    torch.manual_seed(args.seed)
    rows, held_out = split_rows(store, args.held_out, args.seed, device)
    moments = torch.from_numpy(store.mean), torch.from_numpy(store.std)
    fc = FCClassifier(*moments, len(config["classes"]), args.hidden, args.dropout).to(device)
    runtime.announce(
        2,
        args.quiet,
        recipe=args.recipe,
        features=f"{len(rows.labels)} for training, {len(held_out.labels)} of held-out images",
        head=f"{hypercolumn.Z} -> {args.hidden} -> {args.hidden} -> {fc.classes}, dropout {args.dropout:g}",
        training=f"{args.epochs} epochs, {args.batch_size} pixels a step, {args.optimizer}, peak rate {args.lr:g}",
        device=device,
    )

    weigh = weighting(args.class_weights, count_classes(rows.labels, fc.classes))
    optimizer = OPTIMIZERS[args.optimizer](fc.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    steps = args.epochs * -(-len(rows.labels) // args.batch_size)
    schedule = warm_up_and_decay(optimizer, steps, args.decay)
    log = []
    epochs = runtime.progress(range(1, args.epochs + 1), total=args.epochs, unit="epoch")
    for epoch in epochs:
        trained = train_one_epoch(fc, rows, optimizer, schedule, args.batch_size, weigh, args.label_smoothing)
        log.append({"epoch": epoch, **trained, **evaluate(fc, held_out)})
        epochs.set_postfix(loss=f"{trained['loss']:.3f}", accuracy=f"{trained['accuracy']:.3f}", refresh=False)

    dense = DenseClassifier.from_fc(fc, hypercolumn.channels).to(device)
    error = difference(fc, dense, torch.cat([rows.features[:1000], held_out.features[:1000]]))
    if not error < 1e-4:
        raise RunError(
            f"the 1x1 convolutions differ from the fully connected layers by {error:.1e} of the largest logit"
        )
    print(f"dense equals fully connected: largest difference {error:.1e} of the largest logit")
    segmenter = Segmenter(hypercolumn, dense, config["size"], STRIDE, config["classes"], config["colours"])
    segmenter.trained_on = f"{len(rows.labels)} pixels of {config['images']} images of {config['split']}"
    run_folder.begin(args.run, 2)
    save_head(folder / "head.pt", fc, segmenter)
    save_segmenter(folder / "dense.pt", segmenter)
    run_folder.save_csv(folder / "log.csv", log)
    with atomic_file(folder / "curve.png") as file:
        plot_curve(file, log, title="Step 2: classifier on sparse hypercolumns")
    pixels, accuracy = (
        ("held-out", log[-1]["val_accuracy"]) if len(held_out.labels) else ("training", log[-1]["accuracy"])
    )
    settings = {
        **vars(args),
        "head": fingerprint(dense),
        "rows": len(rows.labels),
        "held_out_rows": len(held_out.labels),
        "val_accuracy": log[-1]["val_accuracy"],
        "val_mean_accuracy": log[-1]["val_mean_accuracy"],
        "dense_minus_fc": error,
    }
    run_folder.finish(
        args.run,
        2,
        settings,
        wrote=f"{pixels} pixel accuracy {accuracy:.3f} after {args.epochs} epochs",
        then=("train_seg.py", "--data", config["data"], "--run", args.run),
    )


if __name__ == "__main__":
    runtime.run_step(main)
