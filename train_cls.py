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
from models.run.training import build_optimizer, build_schedule, enough_steps, save_log
from models.segmenter import Segmenter
from models.weight_files import fingerprint

FEW_STEPS = 200  # with fewer, nothing much is learned
STRIDE = 2  # the course's advice, 112x112 features for a 224x224 input; step 3 may choose another


def parse() -> argparse.Namespace:
    parser = flags.Parser(__doc__)
    flag = parser.flag
    flag("--features", Path, None, "use step 1 of this run", free=True, metavar="RUN")
    flag("--epochs", flags.positive, 30, "passes over the sampled pixels")
    flag("--min-steps", flags.steps, 0, "at least so many, in more epochs; or auto", metavar="N")
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
        began, sums = time.perf_counter(), np.zeros(3)  # of rows, loss, hits
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
            hits = (logits.argmax(1) == targets.argmax(1)).sum().item()
            sums += len(features), len(features) * loss.item(), hits
        _, loss_mean, accuracy = (sums / sums[0]).tolist()
        row = {"lr": rate, "loss": loss_mean, "accuracy": accuracy}
        row |= evaluate(fc, held_out, label_smoothing)
        log.append({"epoch": epoch, "seconds": time.perf_counter() - began, **row})
    return log


@torch.inference_mode()
def evaluate(fc: FCClassifier, rows: Rows, label_smoothing: float) -> dict[str, float]:
    """Loss and accuracy; nan where there is no row."""
    features, labels, weights = rows
    logits = fc.eval()(features)
    loss = weighted_cross_entropy(logits, labels, weights, label_smoothing)
    hits = (logits.argmax(1) == labels).float()
    return {"val_loss": loss.item(), "val_accuracy": hits.mean().item()}


def main() -> None:
    args = parse()
    device = runtime.choose_device(args.device, single=True)
    features_of, place = args.features or args.run, folder.step_folder(args.run, 2)
    if chain.is_finished(args.run, 1) and features_of.resolve() != args.run.resolve():
        raise UserError(f"--features: {args.run} has a step 1 of its own; use another --run")
    source, step_1 = folder.step_folder(features_of, 1), chain.finished(features_of, 1)
    names, hypercolumn = step_1["classes"], load_extractor(source / "backbone.pt")
    store = read_features(source)
    images, labels = store.pixels[:, 0], torch.from_numpy(store.labels).long()
    trained, held = hold_out(images, args.held_out, args.seed)
    check_several(labels[trained], source)
    steps = math.ceil(len(trained) / args.batch_size)  # of an epoch
    used = np.unique(images[trained])
    auto = args.min_steps == "auto"
    least = enough_steps(len(trained), len(used)) if auto else args.min_steps
    epochs = max(args.epochs, math.ceil(least / steps))
    # Sparse labels do not tell the areas that they stand for: a first classifier estimates them.
    needs_areas = store.places is not None and args.area_weight > 0
    twice = ", twice, as sparse labels tell no areas" * needs_areas
    runtime.print_header(
        2,
        data=f"{source}: {len(trained)} for training, {len(held)} of held-out images",
        training=f"{folder.count(epochs, 'epoch')} of {folder.count(steps, 'step')}{twice}",
        network=" -> ".join(map(str, [hypercolumn.Z, *(args.hidden or ["linear"]), len(names)])),
        device=runtime.describe(device),
        flags=runtime.as_typed(args.changed),
    )
    if epochs * steps < FEW_STEPS:
        print(f"  note: {epochs * steps} steps are few to learn in; --min-steps auto makes more")

    balanced = inverse_frequency(labels[trained].bincount(minlength=len(names)))
    balance = balanced[labels] if args.class_weights == "inverse" else 1
    features, targets = (x.to(device) for x in (torch.from_numpy(store.features), labels))

    def train(areas: np.ndarray) -> tuple[FCClassifier, list[dict[str, float]]]:
        """A classifier, each row counting by the area (N,) that it stands for, and its log."""
        weights = balance * torch.from_numpy(areas**args.area_weight)
        rows = features, targets, weights.to(device)
        torch.manual_seed(args.seed)
        shape = args.hidden, args.activation, args.dropout, args.input_dropout
        moments = torch.from_numpy(store.mean), torch.from_numpy(store.std)  # of the samples
        fc = FCClassifier(*moments, len(names), *shape).to(device)
        rate, sgd = (args.lr, args.weight_decay), (args.momentum, args.nesterov)
        optimizer = build_optimizer(args.optimizer, fc.parameters(), *rate, *sgd)
        # What --min-steps adds stretches the schedule: --milestones and --gamma count --epochs.
        falls = args.decay, args.epochs, steps * epochs / args.epochs
        schedule = build_schedule(optimizer, *falls, args.warmup, args.milestones, args.gamma)
        batches = partial(draw_batches, rows, trained, args.batch_size, len(names), args.mixup)
        held_out = [part[held] for part in rows]
        return fc, fit(fc, batches, held_out, epochs, optimizer, schedule, args.label_smoothing)

    with folder.new_folder(place, 2) as new:
        fc, log = train(store.areas)
        if needs_areas:
            fc.eval().cpu()
            fc, log = train(estimate_areas(images, store.labels, store.places, fc))
        dense = DenseClassifier.from_fc(fc, hypercolumn.channels)
        error = largest_difference(fc, dense, features[:1000])
        print(f"dense equals fully connected: largest difference {error:.1e} of the largest logit")
        classes = Classes(tuple(names), tuple(map(tuple, step_1["colours"])))
        segmenter = Segmenter(hypercolumn, dense.cpu(), step_1["size"], STRIDE, classes)
        of = f"{len(used)} images of {step_1['split']}"
        segmenter.trained_on = f"{len(trained)} pixels of {of}"
        segmenter.history = {"sample_features": step_1["settings"], "train_cls": args.settings}
        segmenter.remember(store.photos[used])
        save_segmenter(new / "dense.pt", segmenter, made_from=step_1["id"])
        save_log(new, log, "Step 2: the classifier", log if args.tensorboard else ())
        given = vars(args) | {"data": step_1["data"]}
        results = {"id": fingerprint(dense), "made_from": step_1["id"], "dense_minus_fc": error}
        results |= {"rows": len(trained), "held_out_rows": len(held), "steps": epochs * steps}
        results["scores"] = {name: log[-1][name] for name in log[-1] if name.endswith("accuracy")}
        config = folder.save_config(new, 2, given, **results)
    wrote = f"pixel accuracy while training, with dropout and the like, {log[-1]['accuracy']:.3f}"
    if len(held):
        commonest = labels[held].bincount().max() / len(held)
        wrote = f"held-out pixel accuracy {log[-1]['val_accuracy']:.3f}"
        wrote += f" (always the commonest class: {commonest:.3f})"
    kept = ("--split", "--limit", "--skip-bad")
    same = {name: value for name, value in step_1["changed"].items() if name in kept}
    ends = args.recipe and "train_seg" not in RECIPES[args.recipe]
    then = ["evaluate.py"] if ends else ["train_seg.py", *runtime.as_typed(same).split()]
    folder.finish(place, 2, config, wrote, [*then, "--run", args.run])


if __name__ == "__main__":
    runtime.run_script(main)
