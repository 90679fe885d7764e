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
curve.png, previews/ (overlays of each epoch), with --skip-bad skipped.txt, config.json (last).
Epoch 0 is the network as it came. What an earlier training left there is kept aside, in
RUN/3_seg.1 and so on.
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from data import UserError
from data.files import atomic_file
from data.sampling import EpochSampler
from data.transforms import Augment, ResizeImage
from data.voc import TrainingSet, VOCFolder
from losses.loss import inverse_frequency, segmentation_loss
from losses.metrics import ConfusionMatrix
from models.run import args as flags
from models.run import distributed, folder, runtime
from models.run.training import Training, build_optimizer, build_schedule, save_log
from models.segmenter import Segmenter, load_segmenter, save_segmenter, top_class

PREVIEWS = 3  # overlays saved after each epoch
VALIDATED = 200  # images that each epoch is scored on: all 1,449 of VOC's would take half the time

Loss = Callable[[Tensor, Tensor], Tensor]  # logits (B, C, ..), labels (B, ..) -> a scalar


def parse() -> argparse.Namespace:
    parser = flags.Parser(__doc__)
    flag = parser.flag
    flags.add_data_flags(parser, split="train")
    init = "start from this network (a run or a file), also for other classes, not from step 2's"
    flag("--init", Path, None, init, metavar="RUN")
    val_split = "list that validation reads; it chooses best.pt"
    flag("--val-split", str, "val", val_split, metavar="LIST")
    val_limit = "images, spread over --val-split, to validate each epoch on; at the end, on all"
    flag("--val-limit", flags.positive, VALIDATED, val_limit)
    crop = "side of the random squares to train on, void around; default: --size of step 1"
    flag("--crop", flags.positive, None, crop)
    flag("--scale", flags.bounds, (1.0, 1.0), "random scale of the input", metavar="MIN,MAX")
    flag("--flip", bool, False, "mirror half of the images, at random")
    jitter = "random brightness, contrast and saturation"
    flag("--jitter", flags.fraction, 0.0, jitter, metavar="SHARE")
    flag("--epochs", flags.positive, 10, "passes over the images")
    flag("--batch-size", flags.positive, 8, "images per batch, of all processes together")
    flag("--accumulate", flags.positive, 1, "batches per step: as one N times as large")
    flags.add_optimizer_flags(parser)
    lovasz = "of the Lovasz-softmax in the loss"
    flag("--lovasz", flags.factor, 0.0, lovasz, metavar="FACTOR")
    ema = "decay of a moving average of the weights, which is then scored and kept"
    flag("--ema", flags.fraction, 0.0, ema, metavar="SHARE")
    flag("--finetune-backbone", bool, False, "train the backbone, too")
    flag("--backbone-lr", flags.rate, 1e-4, "its peak rate", metavar="RATE")
    flag("--frozen-stages", flags.natural, 0, "its first N stages, up to tap N, stay as they are")
    flag("--stride", flags.positive, 2, "input size over size of the logits' grid")
    pixels = "train on N random labelled pixels of each image, not on all of the grid"
    flag("--pixels", flags.positive, None, pixels)
    flags.add_speed_flags(parser)
    flag("--seed", flags.natural, 0, "for all that is random")
    flag("--save-every", flags.positive, 100, "save last.pt every N steps, too", free=True)
    flags.add_skip_flag(parser)
    resume = "go on from RUN/3_seg/last.pt, with the same settings"
    flag("--resume", bool, False, resume, free=True)
    args = parser.parse_args()
    flags.check_optimizer_flags(parser, args)
    parser.needs(args, "--backbone-lr", "--finetune-backbone")
    parser.needs(args, "--frozen-stages", "--finetune-backbone")
    if args.batch_size % distributed.world_size():
        parser.error(
            f"argument --batch-size: {args.batch_size} does not divide into "
            f"{distributed.world_size()} processes"
        )
    if args.tensorboard:
        runtime.check_tensorboard()
    return args


def load_start(
    run: Path, init: Path | None, resume: bool
) -> tuple[Segmenter, Path, dict[str, Any], dict[str, Any] | None]:
    """What the training starts from: last.pt of an interrupted one, --init, or step 2's head.

    Returns:
        The network; its file; what every checkpoint of this training says of where it began:
        "made_from", the id of step 2, and "before", what --init was trained on, in words; and the
        state of the training to be resumed.
    """
    last = folder.step_folder(run, 3) / "last.pt"
    if resume and last.is_file():
        segmenter, content = load_segmenter(last)
        folder.check_chain(run, 3, content["made_from"], last)
        origin = {name: content[name] for name in ("made_from", "before")}
        return segmenter, last, origin, content
    if init:
        segmenter, file = folder.trained_segmenter(None, init)
        before = f"; before that {segmenter.trained_on}"
        return segmenter, file, {"made_from": None, "before": before}, None
    step_2, file = folder.finished(run, 2), folder.step_folder(run, 2) / "dense.pt"
    folder.check_chain(run, 3, step_2["id"], file)
    return load_segmenter(file)[0], file, {"made_from": step_2["id"], "before": ""}, None


def check_resumed(saved: dict[str, Any], settings: dict[str, Any], last: Path) -> None:
    """Refuses to resume with other settings, and a training that has come to its end.

    Raises:
        UserError: names the first setting that differs, or says how to train on.
    """
    planned = saved["settings"]["--epochs"]
    if settings["--epochs"] > planned and len(saved["training"]["log"]) > planned:
        raise UserError(
            f"--resume: {last.parent} has finished its {folder.count(planned, 'epoch')}, and its "
            "rate has decayed; to train on, start from its network: the same command with another "
            f"--run and --init {last.with_name('best.pt')}, without --resume"
        )
    for name, value in settings.items():
        if saved["settings"].get(name) != value:
            raise UserError(
                f"--resume: {last} was made with {name} {saved['settings'].get(name)}, "
                f"not {value}; keep to that"
            )


def train_one_epoch(
    network: nn.Module,
    training: Training,
    loader: DataLoader,
    micro_batches: int,
    loss_of: Loss,
    last: Path,
    save: Callable[[], None],
) -> None:
    """Trains on the micro-batches of the loader, so many of which are a step.

    Args:
        network: the segmenter, wrapped for several processes.
        last: the checkpoint that is named when something is wrong.
        save: is called after each step.

    Raises:
        UserError: a loss or gradient is not finite.
    """
    training.network.train()
    device, epoch = training.parameters[0].device, len(training.log)
    batches: Any = runtime.bar(loader, len(loader), "batch", f"epoch {epoch}")
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
                f"{', '.join(step_ids)}; {last} is still good: start over with a smaller --lr"
            )
        save()
        batches.set_postfix(loss=f"{training.losses[-1]:.3f}", mIoU=training.log[-1]["miou"])
        step_loss, step_ids = torch.zeros((), device=device), []


@torch.compiler.set_stance("force_eager")  # --compile is for crops, which have one size
def validate(
    segmenter: Segmenter, dataset: VOCFolder, loader: DataLoader, loss_of: Loss, drawn: int = 0
) -> tuple[dict[str, float], dict[str, Any]]:
    """Scores over whole images; on rank 0, overlays of the first `drawn` of them.

    The loss is taken on the grid of the logits, mIoU and accuracy at original size.

    Args:
        loader: of this process's share of the data set.
    """
    matrix, previews, loss_sum = ConfusionMatrix(len(segmenter.names)), {}, torch.zeros(1)
    for sample in runtime.bar(loader, len(loader), "image", "validate"):
        scores = segmenter.probabilities(sample.image, sample.id)  # (C, h, w)
        on_grid = sample.mask[None, None].to(scores.device)
        on_grid = F.interpolate(on_grid, scores.shape[1:], mode="nearest-exact")[0].long()
        loss_sum += loss_of(scores[None].clamp(min=1e-30).log(), on_grid).item()
        prediction = top_class(scores, sample.mask.shape)[0].cpu().numpy()
        matrix.update(prediction, sample.mask.numpy())
        if len(previews) < drawn and distributed.is_main():
            from data.figures.overlay import draw_page  # matplotlib takes a second to import

            photo, title = dataset.image(dataset.ids.index(sample.id)), sample.id
            masks = sample.mask.numpy(), prediction
            previews[title] = draw_page(photo, segmenter.classes, *masks, title=title).picture
    matrix.counts = distributed.total(torch.from_numpy(matrix.counts)).numpy()
    if not matrix.classes_in_mean():
        raise UserError(
            f"split {dataset.split} has no labelled pixel, so there is nothing to choose best.pt by"
        )
    loss = distributed.total(loss_sum).item() / len(dataset)
    scores = {"val_loss": loss, "miou": matrix.miou(), "pixel_accuracy": matrix.pixel_accuracy()}
    return scores, previews


def score_best(
    file: Path,
    dataset: VOCFolder,
    loss_of: Loss,
    device: torch.device,
    amp: str,
    workers: int,
) -> dict[str, float]:
    """The scores of the network that was kept, on all validation images."""
    distributed.barrier()  # until rank 0 has written it
    segmenter, _ = load_segmenter(file)
    runtime.prepare(segmenter, device, amp, compiled=False)
    loader = runtime.image_loader(dataset, distributed.share(len(dataset)), workers)
    return validate(segmenter, dataset, loader, loss_of)[0]


def make_loader(
    train_set: TrainingSet, step_size: int, micro_batches: int, seed: int, workers: int
) -> DataLoader:
    """Loads the micro-batches of this process; its workers live across epochs."""
    part = (distributed.rank(), distributed.world_size(), micro_batches)
    sampler = EpochSampler(len(train_set), step_size, seed, *part)
    options = runtime.worker_options(workers, len(train_set))
    return DataLoader(train_set, batch_sampler=sampler, **options)


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
    network, last = distributed.wrap(training.network), place / "last.pt"

    def save_last() -> None:
        if distributed.is_main():
            state = training.state_dict()
            save_segmenter(last, training.network, **facts, training=state)

    def after_step() -> None:
        if len(training.losses) % every == 0:
            save_last()

    for epoch in range(len(training.log), epochs + 1):
        if epoch > 0:
            # Steps of this epoch that were made before an interruption.
            done = len(training.losses) - (epoch - 1) * sampler.steps
            sampler.epoch, sampler.done = epoch, done * sampler.micro_batches
            train_one_epoch(
                network, training, loader, sampler.micro_batches, loss_of, last, after_step
            )
            learned = "" if training.network.hypercolumn.frozen else ", backbone too"
            seen = f"{len(images)} images of {images.split}, {folder.count(epoch, 'epoch')}"
            training.network.trained_on = f"{seen}{learned}{facts['before']}"
            training.scored.trained_on = training.network.trained_on
        scores, previews = validate(training.scored, val_set, val_loader, loss_of, PREVIEWS)
        is_best = training.end_epoch(scores, sampler.steps)
        row = training.log[-1]
        if distributed.is_main():
            if epoch == 0 and (aside := folder.keep_aside(place)):
                print(f"  note: what an earlier training left is now in {aside}")
            if is_best:
                save_segmenter(place / "best.pt", training.scored, **facts)
            for image_id, picture in previews.items():
                path = place / "previews" / f"epoch_{epoch:03d}" / f"{image_id}.png"
                with atomic_file(path) as file:
                    picture.save(file, "PNG")
            losses = enumerate([None, *training.losses])  # step 0 is before the training
            rows = [{"step": step, "loss": loss} for step, loss in losses]
            folder.save_csv(place / "steps.csv", rows)
            new = [row] if facts["tensorboard"] else ()
            save_log(place, training.log, "Step 3: fine-tuning on whole images", new)
        save_last()  # when the rest is there
        what = f"loss {row['loss']:.4f}" if epoch else "as it came"
        print(f"  epoch {epoch}  {what}, validation mIoU {row['miou']:.4f}, {row['seconds']:.0f} s")
        sys.stdout.flush()


def build_training(
    segmenter: Segmenter, args: argparse.Namespace, steps_per_epoch: int
) -> Training:
    """Optimizer, schedule and moving average of what learns: the head, on request the backbone."""
    groups = [{"params": list(segmenter.head.parameters()), "lr": args.lr}]
    if args.finetune_backbone:
        segmenter.origin = segmenter.origin or segmenter.hypercolumn.spec()["fingerprint"]
        segmenter.hypercolumn.unfreeze(args.frozen_stages)
        backbone = [p for p in segmenter.hypercolumn.parameters() if p.requires_grad]
        groups.append({"params": backbone, "lr": args.backbone_lr})
    optimizer = build_optimizer(
        args.optimizer, groups, args.lr, args.weight_decay, args.momentum, args.nesterov
    )
    decay = (args.warmup, args.milestones, args.gamma)
    schedule = build_schedule(optimizer, args.decay, args.epochs, steps_per_epoch, *decay)
    return Training(segmenter, optimizer, schedule, args.ema, args.amp == "fp16")


def print_notes(run: Path, starts_over: bool, new_classes: bool, both: int, of: int) -> None:
    """Says what a user might not expect of this training."""
    if starts_over:
        print("  note: no 3_seg/last.pt to go on from: the training starts at epoch 0")
    if new_classes:
        print("  note: other classes than in --init: the last layer of the head starts anew")
    if folder.is_finished(run, 2) and not folder.finished(run, 2)["beats_majority"]:
        print("  note: the head of step 2 is no better than always naming the most frequent class")
    if both:
        print(f"  note: {both} of {of} validation images are also trained on")


def finish(
    args: argparse.Namespace,
    training: Training,
    scores: dict[str, float],
    images: VOCFolder,
    facts: dict[str, Any],
) -> None:
    """Writes config.json, and says what was reached: best.pt has these scores."""
    place, best = folder.step_folder(args.run, 3), max(training.log, key=lambda row: row["miou"])
    skipped = folder.save_skipped(place, images.skipped)
    config = folder.save_config(
        place,
        3,
        vars(args),
        parameters=training.parameter_count,
        best_epoch=best["epoch"],
        val_miou=best["miou"],
        val_miou_on_all=scores["miou"],
        scores={name: scores[name] for name in ("miou", "pixel_accuracy")},
        **facts,
    )
    wrote = f"best.pt is epoch {best['epoch']}, validation mIoU {best['miou']:.4f}"
    wrote += f", on all of {args.val_split} {scores['miou']:.4f}" if scores is not best else ""
    then = ("evaluate.py", "--data", images.root, "--run", args.run)
    folder.finish(args.run, 3, config, wrote + skipped, then)


def main() -> None:
    args = parse()
    device = runtime.choose_device(args.device)
    segmenter, start, facts, saved = load_start(args.run, args.init, args.resume)

    # Random squares to train on, whole images to validate on.
    crop = args.crop or segmenter.size
    segmenter.hypercolumn.check_size(crop, "--crop")
    augment = Augment(segmenter.size, crop, args.scale, args.flip, args.jitter)
    images = VOCFolder(args.data, args.split, None, args.limit, args.skip_bad)
    val_set = VOCFolder(args.data, args.val_split, ResizeImage(segmenter.size))
    val_part = val_set.spread(args.val_limit)
    new_classes = not saved and args.init and segmenter.names != list(images.classes.names)
    if new_classes:
        segmenter.replace_classes(images.classes, args.seed)
    folder.check_classes(segmenter.names, images.classes.names, start, images.root)
    settings = args.settings | {
        "images": images.fingerprint(),
        "validation images": val_part.fingerprint(),
    }
    if saved:
        check_resumed(saved, settings, start)

    # A CPU trains the whole grid image by image: maps of several would not stay in its caches.
    step_size, one_by_one = args.batch_size * args.accumulate, device.type == "cpu"
    one_by_one &= not args.pixels
    micro_batches = step_size // distributed.world_size() if one_by_one else args.accumulate
    drop = segmenter.head.widths, segmenter.head.dropout
    train_set = TrainingSet(images, augment, args.seed, args.pixels, *drop)
    loader = make_loader(train_set, step_size, micro_batches, args.seed, args.workers)
    val_loader = runtime.image_loader(val_part, distributed.share(len(val_part)), args.workers)

    # What learns, and what is minimised.
    segmenter.stride = args.stride
    runtime.prepare(segmenter, device, args.amp, args.compile, sizes_vary=False)
    training = build_training(segmenter, args, loader.batch_sampler.steps)
    weight = None
    if args.class_weights == "inverse":
        weight = inverse_frequency(torch.from_numpy(images.count_pixels()[0])).to(device)
    how = {"label_smoothing": args.label_smoothing, "lovasz": args.lovasz}
    loss_of = partial(segmentation_loss, weight=weight, **how)
    if saved:
        training.load_state_dict(saved["training"])
        args.started -= training.seconds  # those of the runs before

    runtime.print_header(
        folder.step_title(3),
        args.quiet,
        args.changed,
        data=f"{images.root}: {len(images)} images of {args.split}, validation on {len(val_part)} "
        f"of the {len(val_set)} of {args.val_split}",
        network=f"{segmenter.hypercolumn.backbone}, size {segmenter.size}, crop {crop}, logits at "
        f"1/{args.stride}, {training.parameter_count:,} parameters learn",
        start=f"{start}" + (f", after {len(training.losses)} steps" if saved else ""),
        device=runtime.describe(device, args.amp, args.compile),
    )
    trained_too = len(set(images.ids) & set(val_set.ids))
    print_notes(args.run, args.resume and not saved, new_classes, trained_too, len(val_set))
    distributed.check_same([settings, len(training.losses)])

    place = folder.step_folder(args.run, 3)
    facts |= {"settings": settings, "tensorboard": args.tensorboard}
    with folder.claim(place):
        if saved and distributed.is_main():
            for left in (place / folder.CONFIG, *place.rglob(".*.part")):  # of a killed process
                left.unlink(missing_ok=True)
        try:
            fit(training, loader, val_loader, loss_of, args.epochs, args.save_every, place, facts)
            scores = max(training.log, key=lambda row: row["miou"])
            if len(val_part) < len(val_set):
                best_file, how = place / "best.pt", (device, args.amp, args.workers)
                scores = score_best(best_file, val_set, loss_of, *how)
        except KeyboardInterrupt as stop:
            has_begun = training.log and (place / "last.pt").is_file()
            kept = f"go on from {place / 'last.pt'} with the same command and --resume"
            raise type(stop)(kept if has_begun else "the training had not begun") from None
        if distributed.is_main():
            facts = {"made_from": facts["made_from"], "val_images_trained_on": trained_too}
            finish(args, training, scores, images, facts)


if __name__ == "__main__":
    runtime.run_script(main)
