"""Step 3: fine-tunes the 1x1 convolutions on whole images; the backbone is frozen, or learns too.

    python train_seg.py --data data/VOCdevkit/VOC2012 --run runs/voc
    python train_seg.py --run runs/voc --split train_aug --epochs 20 --batch-size 16
    python train_seg.py --run runs/voc --pixels 512      # faster: some pixels of each image
    python train_seg.py --run runs/voc --finetune-backbone --pixels 1024 --crop 320 --flip
    python train_seg.py --run runs/voc --resume          # goes on after the last step saved
    python train_seg.py --run runs/mine --data DIR --init runs/voc                  # own classes
    torchrun --nproc-per-node 4 -- train_seg.py --run runs/voc      # four GPUs (processes)

Reads RUN/2_cls/dense.pt, with --init any trained network (for other classes its last layer starts
anew). Training sees random square crops, validation whole images: --val-limit of them after each
epoch, all of them at the end. Writes RUN/3_seg/: last.pt (every --save-every steps and after every
epoch), best.pt (by validation mIoU), log.csv (a line per epoch), steps.csv (a line per step),
curve.png, previews/ (overlays of each epoch), config.json (last).
Epoch 0 is the network as it came. What an earlier training left is kept, in RUN/3_seg.1 and so on.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from data import UserError
from data.transforms import Augment, ResizeImage
from data.voc import TrainingSet, VOCFolder
from losses.loss import inverse_frequency, segmentation_loss
from losses.metrics import ConfusionMatrix
from models.checkpoint import load_segmenter
from models.run import args as flags
from models.run import chain, distributed, folder, runtime
from models.run.training import (
    Training,
    build_optimizer,
    build_schedule,
    parameter_groups,
    save_epoch,
    save_last,
)
from models.segmenter import Segmenter, top_class
from models.views import Views

PREVIEWS = 3  # overlays saved after each epoch
VALIDATED = 200  # images that each epoch is scored on: all 1,449 of VOC's would take half the time

Loss = Callable[[Tensor, Tensor], Tensor]  # logits (B, C, ..), labels (B, ..) -> a scalar


def parse() -> argparse.Namespace:
    parser = flags.Parser(__doc__)
    flag = parser.flag
    flags.add_data_flags(parser, split="train", steps=(2, 3))
    flag("--init", Path, None, "run or file to start from, not step 2's head", metavar="RUN")
    flag("--val-split", str, "val", "list to validate on, which chooses best.pt", metavar="LIST")
    flag("--val-limit", flags.positive, VALIDATED, "images of it for an epoch; at the end all")
    flag("--size", flags.positive, None, "shorter side of the input, in pixels; default: as it was")
    flag("--crop", flags.positive, None, "side of the random squares; default: --size")
    flag("--scale", flags.bounds, (1.0, 1.0), "random scale of the input", metavar="MIN,MAX")
    flag("--flip", bool, False, "mirror half of the images, at random")
    flag("--jitter", flags.fraction, 0.0, "of brightness, contrast, saturation", metavar="SHARE")
    flag("--mosaic", bool, False, "fill what an image leaves of its square with another image")
    flag("--epochs", flags.positive, 10, "passes over the images")
    flag("--batch-size", flags.positive, 8, "images per batch, of all processes together")
    flag("--accumulate", flags.positive, 1, "batches per step: as one N times as large")
    flags.add_optimizer_flags(parser)
    flag("--lovasz", flags.factor, 0.0, "of the Lovasz-softmax in the loss", metavar="FACTOR")
    flag("--ema", flags.fraction, 0.0, "of a moving average, scored and kept", metavar="SHARE")
    flag("--finetune-backbone", bool, False, "train the backbone, too")
    needs = "--finetune-backbone"
    flag("--backbone-lr", flags.rate, 1e-4, "its peak rate", metavar="RATE", needs=needs)
    stages = "its first N stages, up to tap N, stay as they are"
    flag("--frozen-stages", flags.natural, 0, stages, needs=needs)
    flag("--stride", flags.positive, 2, "input size over size of the logits' grid")
    flag("--pixels", flags.positive, None, "train on N random labelled pixels of each image alone")
    flags.add_speed_flags(parser)
    flag("--seed", flags.natural, 0, "for all that is random")
    flag("--save-every", flags.positive, 100, "save last.pt every N steps, too", free=True)
    flag("--skip-bad", bool, False, flags.SKIP_BAD)
    flag("--resume", bool, False, "go on from 3_seg/last.pt, with the same settings", free=True)
    args = parser.parse_args()
    flags.check_optimizer_flags(parser, args)
    if args.batch_size % (processes := distributed.world_size()):
        parser.error(f"argument --batch-size: does not divide into {processes} processes")
    return args


def train_one_epoch(
    network: nn.Module, training: Training, loader: DataLoader, loss_of: Loss
) -> Iterator[None]:
    """Trains on the micro-batches of the loader; `network` is wrapped for several processes.

    Yields after each step.

    Raises:
        UserError: a loss or gradient is not finite.
    """
    training.network.train()
    device, micro_batches = training.parameters[0].device, loader.batch_sampler.micro_batches
    batches: Any = runtime.bar(loader, len(loader), "batch", f"epoch {len(training.log)}")
    step_loss, step_ids = torch.zeros((), device=device), []
    for count, (ids, images, points, labels, kept) in enumerate(batches, start=1):
        images, labels = (x.to(device, non_blocking=True) for x in (images, labels))
        points = points.to(device, non_blocking=True) if len(points) else None  # None: the grid
        kept = [units.to(device, non_blocking=True) for units in kept]
        is_last = count % micro_batches == 0
        alone = is_last or network is training.network  # else processes add up their gradients
        with nullcontext() if alone else network.no_sync():
            logits = network(images, points, kept)  # (B, C, n) at points, (B, C, h, w) on the grid
            loss = loss_of(logits, labels) / micro_batches
            training.scaler.scale(loss).backward()
        step_loss, step_ids = step_loss + loss.detach(), [*step_ids, *ids]
        if not is_last:
            continue
        if not training.step(step_loss):  # optimizer, schedule, moving average
            raise UserError(
                f"step {len(training.losses) + 1}: the loss or a gradient is not finite, at images "
                f"{', '.join(step_ids)}; last.pt is still good: start over with a smaller --lr"
            )
        batches.set_postfix(loss=f"{training.losses[-1]:.3f}", mIoU=training.log[-1]["miou"])
        step_loss, step_ids = torch.zeros((), device=device), []
        yield


@torch.compiler.set_stance("force_eager")  # --compile is for crops, which have one size
def validate(
    segmenter: Segmenter, loader: DataLoader, loss_of: Loss, drawn: int = 0
) -> tuple[dict[str, float], dict[str, Any]]:
    """Scores over whole images; on rank 0, overlays of the first `drawn` of them.

    The loss is taken on the grid of the logits, mIoU and accuracy at original size.

    Args:
        loader: of this process's share of the data set.
    """
    matrix, previews, loss_sum = ConfusionMatrix(len(segmenter.classes)), {}, torch.zeros(1)
    dataset = loader.dataset
    for sample in runtime.bar(loader, len(loader), "image", "validate"):
        scores = segmenter.probabilities(sample.image, sample.id)  # (C, h, w)
        on_grid = sample.mask[None, None].to(scores.device)
        on_grid = F.interpolate(on_grid, scores.shape[1:], mode="nearest-exact")[0].long()
        loss_sum += loss_of(scores[None].clamp(min=1e-30).log(), on_grid).item()
        prediction = top_class(scores, sample.mask.shape)[0].cpu().numpy()
        matrix.update(prediction, sample.mask.numpy())
        if len(previews) < drawn and distributed.is_main():
            from data.figures.overlay import Record, draw_page  # matplotlib takes a second

            photo = dataset.image(dataset.ids.index(sample.id))
            seen = Record(sample.id, sample.id, photo, sample.mask.numpy(), prediction)
            previews[sample.id] = draw_page(seen, segmenter.classes).picture
    matrix.counts = sum(distributed.gather(matrix.counts))
    loss = sum(distributed.gather(loss_sum)).item() / len(dataset)
    scores = {"val_loss": loss, "miou": matrix.miou(), "pixel_accuracy": matrix.pixel_accuracy()}
    return scores, previews


def score_file(
    file: Path, dataset: VOCFolder, loss_of: Loss, device: torch.device, amp: str, workers: int
) -> dict[str, float]:
    """The scores of a saved network on all images of a data set."""
    segmenter, _ = load_segmenter(file)
    runtime.prepare(segmenter, device, amp, compiled=False)
    loader = runtime.image_loader(dataset, distributed.share(len(dataset)), workers)
    return validate(segmenter, loader, loss_of)[0]


def fit(
    training: Training,
    loader: DataLoader,
    val_loader: DataLoader,
    loss_of: Loss,
    epochs: int,
    every: int,
    place: Path,
    facts: dict[str, Any],
) -> None:
    """Trains and validates to the last epoch, from where the training stands; rank 0 saves.

    Args:
        every: steps after which last.pt is saved; it is after each epoch, too.
        facts: what every checkpoint holds beside the network.
    """
    sampler, images, val_set = loader.batch_sampler, loader.dataset.folder, val_loader.dataset
    segmenter, network = training.network, distributed.wrap(training.network)
    val_set.note_labels(val_set.measure()[0])

    for epoch in range(len(training.log), epochs + 1):
        if epoch > 0:
            # Steps of this epoch that were made before an interruption.
            done = len(training.losses) - (epoch - 1) * sampler.steps
            sampler.epoch, sampler.done = epoch, done * sampler.micro_batches
            for _ in train_one_epoch(network, training, loader, loss_of):
                if len(training.losses) % every == 0 and distributed.is_main():
                    save_last(place, training, facts)
            seen = f"{len(images)} images of {images.split}, {folder.count(epoch, 'epoch')}"
            seen += "" if segmenter.hypercolumn.frozen else ", backbone too"
            segmenter.trained_on = training.scored.trained_on = seen + facts["before"]
        scores, previews = validate(training.scored, val_loader, loss_of, PREVIEWS)
        is_best = training.end_epoch(scores, sampler.steps)
        if distributed.is_main():
            if epoch == 0 and (aside := folder.keep_aside(place)):
                print(f"  note: what an earlier training left is now in {aside}")
            save_epoch(place, training, facts, is_best, previews)
        row = training.log[-1]
        what = f"loss {row['loss']:.4f}" if epoch else "as it came"
        score = f"validation mIoU {row['miou']:.4f}, {row['seconds']:.0f} s"
        print(f"  epoch {epoch}  {what}, {score}", flush=True)
    distributed.barrier()  # until rank 0 has written all


def save_result(
    given: dict[str, Any], place: Path, training: Training, scores: dict[str, float], data: Path
) -> None:
    """Writes config.json, and says what was reached: best.pt has these scores, on all images."""
    best, shown = training.best, {name: scores[name] for name in ("miou", "pixel_accuracy")}
    config = folder.save_config(place, 3, given, best_epoch=best["epoch"], scores=shown)
    wrote = f"best.pt is epoch {best['epoch']}, validation mIoU {best['miou']:.4f}"
    wrote += f", on all of {given['val_split']} {scores['miou']:.4f}" * (scores != best)
    split = ("--split", given["val_split"]) if given["val_split"] != "val" else ()
    then = ("evaluate.py", "--data", data, *split, "--run", given["run"])
    folder.finish(place, 3, config, wrote, then)


def main() -> None:
    args = parse()
    device, place = runtime.choose_device(args.device), folder.step_folder(args.run, 3)
    segmenter, start, begun, saved = chain.training_start(args.run, args.init, args.resume)

    # Random squares to train on, whole images to validate on.
    segmenter.look(Views(), args.size)
    segmenter.hypercolumn.check_size(crop := args.crop or segmenter.size, "--crop")
    images = VOCFolder(args.data, args.split, None, args.limit, args.skip_bad)
    val_set = VOCFolder(args.data, args.val_split, ResizeImage(segmenter.size))
    val_part = val_set.spread(args.val_limit)
    new_classes = not saved and args.init and segmenter.classes.names != images.classes.names
    if new_classes:
        segmenter.replace_classes(images.classes, args.seed)
    chain.check_classes(segmenter.classes.names, images.classes.names, start, images.root)
    segmenter.remember(photos := images.photo_hashes())
    args.settings |= {"--size": segmenter.size, "--crop": crop, "images": images.checksum(photos)}
    args.settings["validation images"] = val_part.checksum(val_part.photo_hashes())
    before = segmenter.history.get("train_seg", {})  # of last.pt
    segmenter.history = segmenter.history | {"train_seg": args.settings}
    augment = Augment(segmenter.size, crop, args.scale, args.flip, args.jitter)
    drop = segmenter.head.widths, segmenter.head.dropout
    train_set = TrainingSet(images, augment, args.seed, args.pixels, *drop, args.mosaic)
    # A CPU trains the whole grid image by image: maps of several would not stay in its caches.
    step_size = args.batch_size * args.accumulate
    one_by_one = device.type == "cpu" and not args.pixels
    micro_batches = step_size // distributed.world_size() if one_by_one else args.accumulate
    loader = runtime.training_loader(train_set, step_size, micro_batches, args.seed, args.workers)
    val_loader = runtime.image_loader(val_part, distributed.share(len(val_part)), args.workers)

    # What learns, and what is minimised.
    segmenter.stride = args.stride
    runtime.prepare(segmenter, device, args.amp, args.compile, sizes_vary=False)
    frozen = args.frozen_stages if args.finetune_backbone else None
    groups = parameter_groups(segmenter, args.lr, args.backbone_lr, frozen)
    sgd = args.momentum, args.nesterov
    optimizer = build_optimizer(args.optimizer, groups, args.lr, args.weight_decay, *sgd)
    rate = args.warmup, args.milestones, args.gamma
    schedule = build_schedule(optimizer, args.decay, args.epochs, loader.batch_sampler.steps, *rate)
    training = Training(segmenter, optimizer, schedule, args.ema, args.amp == "fp16")
    learned = sum(parameter.numel() for parameter in training.parameters)
    loss_of = partial(segmentation_loss, label_smoothing=args.label_smoothing, lovasz=args.lovasz)
    if args.class_weights == "inverse":
        counts = torch.from_numpy(images.measure()[0].sum(0)[:-1])
        loss_of = partial(loss_of, weight=inverse_frequency(counts).to(device))
    if saved:
        chain.check_resumed(before, args.settings, start)
        training.load_state_dict(saved["training"])
        args.started = training.began  # of the first run

    runtime.print_header(
        3,
        data=f"{images.root}: {len(images)} images of {args.split}, validation on {len(val_part)} "
        f"of the {len(val_set)} of {args.val_split}",
        network=f"{segmenter.hypercolumn.backbone}, size {segmenter.size}, crop {crop}, logits at "
        f"1/{args.stride}, {learned:,} parameters learn",
        start=f"{start}" + (f", after {len(training.losses)} steps" if saved else ""),
        training=f"{folder.count(args.epochs, 'epoch')} of {loader.batch_sampler.steps} steps",
        device=runtime.describe(device, args.amp, args.compile),
        flags=runtime.as_typed(args.changed),
    )
    if new_classes:
        images.note_labels(*images.measure(), segmenter.size)
        print("  note: other classes than in --init: the last layer of the head starts anew")
    if both := segmenter.has_seen(val_set.photo_hashes()):
        print(f"  note: {both} of {len(val_set)} validation images are also trained on")
    distributed.check_same([args.settings, len(training.losses)])
    facts = {"tensorboard": args.tensorboard, **begun}
    with folder.claim(place):
        try:
            fit(training, loader, val_loader, loss_of, args.epochs, args.save_every, place, facts)
            scores, how = training.best, (device, args.amp, args.workers)
            if len(val_part) < len(val_set):
                scores = score_file(place / "best.pt", val_set, loss_of, *how)
        except KeyboardInterrupt as stop:
            has_begun = training.log and (place / "last.pt").is_file()
            kept = f"go on from {place / 'last.pt'} with the same command and --resume"
            raise type(stop)(kept if has_begun else "the training had not begun") from None
        if distributed.is_main():
            given = vars(args) | {"parameters": learned, "val_images_trained_on": both}
            given |= {"made_from": begun["made_from"], "skipped": images.skipped}
            save_result(given, place, training, scores, images.root)


if __name__ == "__main__":
    runtime.run_script(main)
