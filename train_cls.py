"""Step 2: sparse hypercolumns -> a fully connected classifier -> the same as 1x1 convolutions.

    python train_cls.py --run runs/voc
    python train_cls.py --run runs/deep --features runs/voc --hidden 512,256,128 --epochs 60

Reads RUN/1_features/, with --features that of another run. Writes RUN/2_cls/: dense.pt (the
classifier as 1x1 convolutions, with the extractor: all that later steps need), log.csv, curve.png,
config.json. A tenth of the images is held out, for the accuracy, and never trained on.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from data import UserError
from data.classes import Classes
from data.features import Rows, check_several, draw_batches, estimate_areas, hold_out, read_features
from losses.loss import inverse_frequency, weighted_cross_entropy
from models.checkpoint import load_extractor, save_segmenter
from models.classifier import ACTIVATIONS, DenseClassifier, FCClassifier, largest_difference
from models.run import args as flags
from models.run import chain, folder, runtime
from models.run.recipes import RECIPES
from models.run.training import build_optimizer, build_schedule, save_log
from models.segmenter import Segmenter
from models.weight_files import fingerprint

FEW_STEPS = 200  # with fewer, nothing much is learned
STRIDE = 2  # the course's advice, 112x112 features for a 224x224 input; step 3 may choose another


def parse() -> argparse.Namespace:
    parser = flags.Parser(__doc__)
    flag = parser.flag
    flag("--features", Path, None, "use step 1 of this run", free=True, metavar="RUN")
    flag("--epochs", flags.positive, 30, "passes over the sampled pixels")
    flag("--min-steps", flags.natural, 0, "more epochs, where --epochs make fewer than N steps")
    flag("--batch-size", flags.positive, 256, "pixels per step")
    hidden = "widths of the hidden layers; N: two of that width; N, (with a comma): one; or none"
    flag("--hidden", flags.widths, (256, 256), hidden, metavar="N,N,..")
    flag("--activation", ACTIVATIONS, "relu", "of the hidden layers")
    flag("--dropout", flags.fraction, 0.5, "share of hidden units dropped", metavar="SHARE")
    flag("--input-dropout", flags.fraction, 0.0, "the same of the features", metavar="SHARE")
    flags.add_optimizer_flags(parser)
    flag("--area-weight", flags.factor, 0.0, "a pixel counts by area**POWER", metavar="POWER")
    flag("--mixup", flags.factor, 0.0, "train between two pixels, by Beta(A, A)", metavar="A")
    flag("--held-out", flags.fraction, 0.1, "of the images, which do not train", metavar="SHARE")
    flag("--seed", flags.natural, 0, "for the weights, the order and the hold-out")
    args = parser.parse_args()
    flags.check_optimizer_flags(parser, args)
    return args


def fit(
    fc: FCClassifier,
    batches: Callable[[], Iterable[Rows]],
    held_out: Rows,
    epochs: int,
    optimizer: Optimizer,
    schedule: LRScheduler,
    label_smoothing: float = 0.0,
) -> list[dict[str, float]]:
    """Passes over the batches, see `draw_batches`; gives the log, a row per epoch.

    Raises:
        UserError: the loss is not finite.
    """
    log = []
    for epoch in runtime.bar(range(1, epochs + 1), epochs, "epoch"):
        began, total, loss_sum, hits = time.perf_counter(), 0, 0.0, 0
        fc.train()
        for features, targets, weights in batches():
            logits = fc(features)
            loss = weighted_cross_entropy(logits, targets, weights, label_smoothing)
            if not math.isfinite(loss.item()):
                raise UserError(f"the loss is {loss.item()}; try a smaller --lr")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate = schedule.get_last_lr()[0]
            schedule.step()
            total += len(features)
            loss_sum += loss.item() * len(features)
            hits += int((logits.argmax(1) == targets.argmax(1)).sum())
        row = {"lr": rate, "loss": loss_sum / total, "accuracy": hits / total}
        row |= evaluate(fc, held_out, label_smoothing)
        log.append({"epoch": epoch, "seconds": time.perf_counter() - began, **row})
    return log


@torch.inference_mode()
def evaluate(fc: FCClassifier, rows: Rows, label_smoothing: float) -> dict[str, float]:
    """Loss, accuracy and accuracy averaged over the classes; nan where there is no row."""
    features, labels, weights = rows
    logits = fc.eval()(features)
    loss = weighted_cross_entropy(logits, labels, weights, label_smoothing)
    hits = (logits.argmax(1) == labels).float()
    of_classes = torch.tensor([hits[labels == label].mean() for label in labels.unique()])
    found = {"loss": loss, "accuracy": hits.mean(), "mean_accuracy": of_classes.mean()}
    return {f"val_{name}": value.item() for name, value in found.items()}


def main() -> None:
    args = parse()
    device = runtime.choose_device(args.device, single=True)
    source = folder.step_folder(args.features or args.run, 1)
    place = folder.step_folder(args.run, 2)
    folder.check_free(place, 2)
    is_other = args.features and args.features.resolve() != args.run.resolve()
    if is_other and chain.is_finished(args.run, 1):
        raise UserError(f"--features: {args.run} has a step 1 of its own; use another --run")
    step_1 = chain.finished(args.features or args.run, 1)
    names, hypercolumn = step_1["classes"], load_extractor(source / "backbone.pt")
    store = read_features(source)
    is_held = hold_out(store.pixels[:, 0], args.held_out, args.seed)
    parts = [torch.from_numpy(np.flatnonzero(part)) for part in (~is_held, is_held)]
    features = [torch.from_numpy(store.features)[part].to(device) for part in parts]
    labels, areas = torch.from_numpy(store.labels).long(), store.areas
    check_several(labels[parts[0]], source)
    steps = math.ceil(len(parts[0]) / args.batch_size)  # of an epoch
    epochs = max(args.epochs, math.ceil(args.min_steps / steps))
    # Sparse labels do not tell the areas that they stand for: a first classifier estimates them.
    needs_areas = store.places is not None and args.area_weight > 0
    twice = ", twice, as sparse labels tell no areas" * needs_areas
    runtime.print_header(
        2,
        data=f"{source}: {len(parts[0])} for training, {len(parts[1])} of held-out images",
        training=f"{folder.count(epochs, 'epoch')} of {folder.count(steps, 'step')}{twice}",
        network=" -> ".join(map(str, [hypercolumn.Z, *(args.hidden or ["linear"]), len(names)])),
        device=runtime.describe(device),
        flags=runtime.as_typed(args.changed),
    )
    if epochs * steps < FEW_STEPS:
        print(f"  note: {epochs * steps} steps are few to learn in; --min-steps 400 makes more")

    # The classifier: standardisation by the moments of the samples, then fully connected layers.
    moments = torch.from_numpy(store.mean), torch.from_numpy(store.std)
    how = args.hidden, args.activation, args.dropout
    sgd = {"momentum": args.momentum, "nesterov": args.nesterov}
    decay = args.warmup, args.milestones, args.gamma
    with folder.new_folder(place) as new:
        for is_first in [True, False] if needs_areas else [False]:
            weights = torch.from_numpy(areas**args.area_weight)  # of the rows in the loss
            if args.class_weights == "inverse":
                counts = labels[parts[0]].bincount(minlength=len(names))
                weights = weights * inverse_frequency(counts)[labels]
            rows, held_out = (
                (x, labels[part].to(device), weights[part].to(device))
                for x, part in zip(features, parts)
            )
            torch.manual_seed(args.seed)
            fc = FCClassifier(*moments, len(names), *how, input_dropout=args.input_dropout)
            learned = fc.to(device).parameters()
            optimizer = build_optimizer(args.optimizer, learned, args.lr, args.weight_decay, **sgd)
            schedule = build_schedule(optimizer, args.decay, epochs, steps, *decay)
            batches = partial(draw_batches, rows, args.batch_size, len(names), args.mixup)
            log = fit(fc, batches, held_out, epochs, optimizer, schedule, args.label_smoothing)
            if is_first:
                known = store.pixels[:, 0], store.labels, store.places
                areas = estimate_areas(*known, fc.eval().cpu())
        dense = DenseClassifier.from_fc(fc, hypercolumn.channels)
        error = largest_difference(fc, dense, torch.cat([rows[0][:1000], held_out[0][:1000]]))
        print(f"dense equals fully connected: largest difference {error:.1e} of the largest logit")
        judged, which = (held_out[1], "held-out") if len(held_out[1]) else (rows[1], "training")
        accuracy = log[-1]["val_accuracy" if which == "held-out" else "accuracy"]
        majority = (judged.bincount().max() / len(judged)).item()
        classes = Classes(tuple(names), tuple(map(tuple, step_1["colours"])))
        segmenter = Segmenter(hypercolumn, dense.cpu(), step_1["size"], STRIDE, classes)
        where = f"{step_1['images']} images of {step_1['split']}"
        segmenter.trained_on = f"{len(rows[1])} pixels of {where}"
        segmenter.remember(store.photos[np.unique(store.pixels[~is_held, 0])])
        save_segmenter(new / "dense.pt", segmenter, made_from=step_1["id"])
        save_log(new, log, "Step 2: the classifier", log if args.tensorboard else ())
        given = vars(args) | {"epochs": epochs, "data": step_1["data"]}  # of --min-steps
        results = {"id": fingerprint(dense), "made_from": step_1["id"], "dense_minus_fc": error}
        results |= {"rows": len(rows[1]), "held_out_rows": len(held_out[1])}
        results["scores"] = {name: log[-1][name] for name in log[-1] if name.endswith("accuracy")}
        config = folder.save_config(new, 2, given, **results)
    wrote = f"{which} pixel accuracy {accuracy:.3f} (always the commonest class: {majority:.3f})"
    same = {name: step_1["changed"].get(name) for name in ("--split", "--limit", "--skip-bad")}
    images = [word for flag in same.items() if flag[1] for word in flag if word is not True]
    ends = args.recipe and "train_seg" not in RECIPES[args.recipe.partition(":")[0]]
    then = ("evaluate.py",) if ends else ("train_seg.py", *images)
    folder.finish(place, 2, config, wrote, (*then, "--run", args.run))


if __name__ == "__main__":
    runtime.run_script(main)
