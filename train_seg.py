"""Step 3: fine-tunes the 1x1 convolutions on whole images; the backbone is frozen, or learns too.

    python train_seg.py --data data/VOCdevkit/VOC2012 --run runs/voc
    python train_seg.py --run runs/voc --split train_aug --epochs 20 --batch-size 16
    python train_seg.py --run runs/voc --pixels 512      # faster: some pixels of each image
    python train_seg.py --run runs/voc --finetune-backbone --pixels 1024 --crop 320 --flip
    python train_seg.py --run runs/voc --resume          # goes on after the last step saved
    python train_seg.py --run runs/mine --data DIR --init runs/voc/3_seg/best.pt    # own classes
    torchrun --nproc-per-node 4 -- train_seg.py --run runs/voc      # four GPUs (processes)

Reads RUN/2_cls/dense.pt, with --from that of another run, with --init any trained network (for
other classes its last layer starts anew). Training sees random square crops, validation whole
images: --val-limit of them after each epoch, all of them at the end. Writes RUN/3_seg/: last.pt
(every --save-every steps and after every epoch), best.pt (by validation mIoU), log.csv (a line per
epoch), steps.csv (a line per step), curve.png, previews/ (overlays of each epoch), with --skip-bad
skipped.txt, config.json (last). Epoch 0 is the network as it came. What an earlier training left
there is kept aside, in RUN/3_seg.1 and so on.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from data.figures.overlay import panel
from data.figures.plots import plot_curve
from data.files import atomic_file
from data.sampling import draw_pixels, epoch_order
from data.transforms import Augment, ResizeImage
from data.voc import VOCFolder
from losses.loss import inverse_frequency, segmentation_loss
from losses.metrics import ConfusionMatrix
from models import RunError
from models.hypercolumn import pixel_centres
from models.run import args as flags
from models.run import distributed, folder, runtime
from models.run.training import Training
from models.segmenter import Segmenter, load_segmenter, save_segmenter, top_class

PREVIEWS = 3  # overlays saved after each epoch
VALIDATED = 200  # images that each epoch is scored on: all 1,449 of VOC's would take half the time


@dataclass(frozen=True)
class Start:
    """What a training starts from, or goes on from.

    Attributes:
        segmenter: the network.
        file: that holds it.
        content: of the file.
        is_resumed: whether the file is the last.pt of this training.
        head: config.json of step 2, unless the network came by --init.
    """

    segmenter: Segmenter
    file: Path
    content: dict[str, Any]
    is_resumed: bool
    head: dict[str, Any] | None

    @property
    def trained_before(self) -> str:
        """What the network of --init had been trained on, in words to be added; else empty."""
        if self.is_resumed:
            return self.content["before"]
        return "" if self.head else f"; before that {self.content['trained_on']}"


@dataclass(frozen=True)
class Objective:
    """What a training minimises.

    Attributes:
        pixels: labelled pixels of each image to train on; None means all, on the logits' grid.
        lovasz: factor of the Lovasz-softmax beside the cross entropy.
        label_smoothing: share of the target that is spread over all classes.
        weight: (C,) class weights, or None.
    """

    pixels: int | None
    lovasz: float
    label_smoothing: float
    weight: Tensor | None

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of logits (B, C, ..) at a target (B, ..), a scalar."""
        return segmentation_loss(logits, target, self.weight, self.label_smoothing, self.lovasz)


@dataclass(frozen=True)
class Saver:
    """Where and how a training is saved; only rank 0 writes.

    Attributes:
        place: the folder of step 3.
        every: steps after which last.pt is saved.
        start: fingerprint of the head of step 2 that the training began from, which tells whether
            step 2 was run again since; None where it began from --init.
        before: what that had been trained on, in words to be added.
        settings: what a resumed training must have in common with this one.
        tensorboard: whether the log is written for it, too.
    """

    place: Path
    every: int
    start: str | None
    before: str
    settings: dict[str, Any]
    tensorboard: bool

    @property
    def began_from(self) -> dict[str, str | None]:
        """What is kept in each checkpoint of where the training began."""
        return {"start": self.start, "before": self.before}

    def keep_earlier_training(self) -> None:
        """Moves what an earlier training left out of the way; nothing is deleted."""
        if distributed.is_main() and (aside := folder.keep_aside(self.place)):
            print(f"  note: what an earlier training left is now in {aside}")

    def save_last(self, training: Training) -> None:
        """Saves last.pt: the network with all that a resumed training needs."""
        if distributed.is_main():
            state = {"settings": self.settings, **training.state_dict()}
            path = self.place / "last.pt"
            save_segmenter(path, training.network, **self.began_from, training=state)

    def save_epoch(
        self, training: Training, previews: dict[str, Image.Image], is_best: bool
    ) -> None:
        """Saves all that belongs to an epoch; last.pt at last, so that it is complete."""
        if not distributed.is_main():
            return
        if is_best:
            save_segmenter(self.place / "best.pt", training.scored, **self.began_from)
        epoch = training.log[-1]["epoch"]
        for image_id, picture in previews.items():
            path = self.place / "previews" / f"epoch_{epoch:03d}" / f"{image_id}.png"
            with atomic_file(path) as file:
                picture.save(file, "PNG")
        folder.save_csv(self.place / "log.csv", training.log)
        losses = enumerate([None, *training.losses])  # step 0 is before the training
        folder.save_csv(self.place / "steps.csv", [{"step": n, "loss": loss} for n, loss in losses])
        with atomic_file(self.place / "curve.png") as file:
            plot_curve(file, training.log, title="Step 3: fine-tuning on whole images")
        if self.tensorboard:
            runtime.add_scalars(self.place / "tensorboard", training.log[-1])
        self.save_last(training)


@dataclass(frozen=True)
class Batches:
    """How the images of an epoch become micro-batches.

    Attributes:
        size: images of a batch, of all processes together.
        accumulate: batches of a step.
        seed: of the order.
        workers: processes that decode images.
    """

    size: int
    accumulate: int
    seed: int
    workers: int

    @property
    def images_per_step(self) -> int:
        """Images of a step, of all processes together."""
        return self.size * self.accumulate

    def loader(self, dataset: VOCFolder, epoch: int, done: int) -> DataLoader:
        """The micro-batches of an epoch for this process, without the steps that are done."""
        dataset.epoch = epoch
        order = epoch_order(len(dataset), self.images_per_step, self.seed, epoch)
        processes = distributed.world_size()
        mine = order[done * self.images_per_step + distributed.rank() :: processes]
        return DataLoader(
            dataset,
            self.size // processes,
            sampler=mine,
            num_workers=self.workers,
            worker_init_fn=runtime.ignore_sigterm,
        )


def train_one_epoch(
    network: nn.Module,
    training: Training,
    loader: DataLoader,
    objective: Objective,
    accumulate: int,
    saver: Saver,
    label: str,
) -> None:
    """Trains on the micro-batches of the loader; a step is `accumulate` of them.

    Args:
        network: the segmenter, wrapped for several processes.
        label: of the progress bar.

    Raises:
        RunError: a loss or gradient is not finite.
    """
    training.network.train()
    device, head = training.network.hypercolumn.mean.device, training.network.head
    batches = runtime.bar(loader, len(loader), "batch", label)
    step_loss, step_ids = 0.0, []
    for count, (ids, images, masks, seeds) in enumerate(batches, start=1):
        # All that is random about an image follows from its seed: its pixels and dropped units.
        generators = [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]
        images, masks = images.to(device), masks.long().to(device)  # (B, 3, S, S), (B, S, S)
        points = None
        if objective.pixels:
            drawn, masks = draw_pixels(masks, objective.pixels, generators)  # masks: (B, n)
            points = pixel_centres(drawn, images.shape[-2:])  # (B, n, 2)

        is_last = count % accumulate == 0
        with distributed.local_gradients(network, enabled=not is_last):
            kept = [
                torch.stack([torch.rand(width, generator=g) >= head.dropout for g in generators])
                for width in head.widths
            ]
            logits = network(images, points, kept if head.dropout else ())
            loss = objective.loss(logits, masks)
            training.scaler.scale(loss / accumulate).backward()
        step_loss, step_ids = step_loss + loss.item() / accumulate, [*step_ids, *ids]
        if not is_last:
            continue

        step_loss = distributed.mean(step_loss)
        training.scaler.unscale_(training.optimizer)
        if not (math.isfinite(step_loss) and training.gradients_are_finite()):
            raise RunError(
                f"step {len(training.losses) + 1}: the loss or a gradient is not finite, at images "
                f"{', '.join(step_ids)}; {saver.place / 'last.pt'} is still good: start over with "
                "a smaller --lr"
            )
        training.step(step_loss)  # optimizer, schedule, moving average
        if len(training.losses) % saver.every == 0:
            saver.save_last(training)
        miou = training.log[-1]["miou"]
        batches.set_postfix(loss=f"{step_loss:.3f}", mIoU=f"{miou:.3f}")
        step_loss, step_ids = 0.0, []


@torch.compiler.set_stance("force_eager")  # --compile is for crops, which have one size
def validate(
    segmenter: Segmenter,
    dataset: VOCFolder,
    objective: Objective,
    workers: int,
    drawn: int = PREVIEWS,
) -> tuple[dict[str, float], dict[str, Image.Image]]:
    """Scores over whole images; on rank 0, overlays of the first `drawn` of them.

    The loss is taken on the grid of the logits, mIoU and accuracy at original size.
    """
    matrix, previews, loss_sum = ConfusionMatrix(len(segmenter.names)), {}, torch.zeros(1)
    classes = segmenter.classes
    mine = distributed.share(len(dataset))
    loader = runtime.image_loader(dataset, mine, workers)
    images = runtime.bar(loader, len(mine), "image", "validate")
    for index, sample in zip(mine, images):
        logits = segmenter.probabilities(sample.image, sample.id).log()  # (C, h, w)
        on_grid = sample.mask[None, None].to(logits.device)
        on_grid = F.interpolate(on_grid, logits.shape[1:], mode="nearest-exact")[0].long()
        loss_sum += objective.loss(logits[None], on_grid).item()
        prediction = top_class(logits, sample.mask.shape)[0].cpu().numpy()
        target = sample.mask.numpy()
        matrix.update(prediction, target)
        images.set_postfix(mIoU=f"{matrix.miou():.3f}", refresh=False)
        if len(previews) < drawn and distributed.is_main():
            photo = Image.fromarray(dataset.image(index))
            previews[sample.id] = panel(photo, prediction, classes, target, sample.id).picture
    matrix.counts = distributed.total(torch.from_numpy(matrix.counts)).numpy()
    if not matrix.classes_in_mean():
        raise RunError(
            f"split {dataset.split} has no labelled pixel, so there is nothing to choose best.pt by"
        )
    loss = distributed.total(loss_sum).item() / len(dataset)
    scores = {"val_loss": loss, "miou": matrix.miou(), "pixel_accuracy": matrix.pixel_accuracy()}
    return scores, previews


def fit(
    training: Training,
    dataset: VOCFolder,
    val_set: VOCFolder,
    objective: Objective,
    batches: Batches,
    epochs: int,
    saver: Saver,
) -> None:
    """Trains and validates to the last epoch, from where the training stands."""
    network = distributed.wrap(training.network)
    images = f"{len(dataset)} images of {dataset.split}"
    for epoch in range(len(training.log), epochs + 1):
        if epoch > 0:
            # Steps of this epoch that were made before an interruption.
            done = len(training.losses) - (epoch - 1) * training.steps_per_epoch
            loader = batches.loader(dataset, epoch, done)
            label = f"epoch {epoch}/{epochs}"
            train_one_epoch(network, training, loader, objective, batches.accumulate, saver, label)
        scores, previews = validate(training.scored, val_set, objective, batches.workers)
        if epoch == 0:
            saver.keep_earlier_training()
        is_best = training.end_epoch(scores)
        if epoch > 0:
            backbone = "" if training.network.hypercolumn.frozen else ", backbone too"
            seen = f"{images}, {folder.count(epoch, 'epoch')}{backbone}{saver.before}"
            training.network.trained_on = training.scored.trained_on = seen
        saver.save_epoch(training, previews, is_best)
        row = training.log[-1]
        what = f"loss {row['loss']:.4f}" if epoch else "as it came"
        print(f"  epoch {epoch}  {what}, validation mIoU {row['miou']:.4f}, {row['seconds']:.0f} s")
        sys.stdout.flush()


def score_best(
    path: Path,
    dataset: VOCFolder,
    objective: Objective,
    workers: int,
    device: torch.device,
    amp: str,
) -> dict[str, float]:
    """The scores of the network that was kept."""
    distributed.barrier()  # until rank 0 has written it
    segmenter, _ = load_segmenter(path)
    runtime.prepare(segmenter, device, amp, compiled=False)
    return validate(segmenter, dataset, objective, workers, drawn=0)[0]


def parse() -> tuple[argparse.Namespace, flags.Parser]:
    parser = flags.Parser(__doc__)
    flag = parser.flag
    flags.add_data_flags(parser, split="train")
    flags.add_from_flag(parser, "the head")
    init = "start from this network, also for other classes, not from the head of step 2"
    flag("--init", type=Path, metavar="FILE", help=init)
    flag("--val-split", default="val", help="list that validation reads; it chooses best.pt")
    val_limit = "images, spread over --val-split, to validate each epoch on; at the end, on all"
    flag("--val-limit", type=flags.positive, default=VALIDATED, metavar="N", help=val_limit)
    flags.add_augment_flags(parser)
    flag("--epochs", type=flags.positive, default=10, help="passes over the images")
    batch_size = "images per batch, of all processes together"
    flag("--batch-size", type=flags.positive, default=8, help=batch_size)
    accumulate = "batches per step: as one K times as large"
    flag("--accumulate", type=flags.positive, default=1, metavar="K", help=accumulate)
    flags.add_optimizer_flags(parser)
    lovasz = "factor of the Lovasz-softmax in the loss"
    flag("--lovasz", type=flags.factor, default=0.0, help=lovasz)
    ema = "decay of a moving average of the weights, which is then scored and kept"
    flag("--ema", type=flags.fraction, default=0.0, help=ema)
    flags.add_backbone_flags(parser)
    stride = "input size over size of the logits' grid"
    flag("--stride", type=flags.positive, default=2, help=stride)
    pixels = "train on N random labelled pixels of each image, not on all of the grid"
    flag("--pixels", type=flags.positive, metavar="N", help=pixels)
    flags.add_speed_flags(parser)
    flag("--seed", type=flags.natural, default=0, help="for all that is random")
    save_every = "save last.pt every N steps, too"
    flag("--save-every", type=flags.positive, default=100, free=True, metavar="N", help=save_every)
    flags.add_skip_flag(parser)
    resume = "go on from RUN/3_seg/last.pt, with the same settings"
    flag("--resume", action="store_true", free=True, help=resume)
    args = parser.parse_args()
    for name in ("backbone_lr", "frozen_stages"):
        parser.check_needs(args, name, "finetune_backbone")
    if args.init and args.from_run:
        parser.error("argument --from: not allowed with argument --init")
    if args.batch_size % distributed.world_size():
        parser.error(
            f"argument --batch-size: {args.batch_size} does not divide into "
            f"{distributed.world_size()} processes"
        )
    return args, parser


def load_start(args: argparse.Namespace) -> Start:
    """The network of --init, of step 2, or of the training to be resumed."""
    if args.from_run and distributed.is_main():
        folder.borrow(args.run, args.from_run, before=3)
    distributed.barrier()
    last, head = folder.step_folder(args.run, 3) / "last.pt", None
    is_resumed = args.resume and last.is_file()
    if not args.init and (folder.is_finished(args.run, 2) or not is_resumed):
        head = folder.finished(args.run, 2)
    file = last if is_resumed else args.init or folder.step_folder(args.run, 2) / "dense.pt"
    segmenter, content = load_segmenter(file)
    folder.check_features(args.run, segmenter, file)
    return Start(segmenter, file, content, is_resumed, head)


def load_data(args: argparse.Namespace, segmenter: Segmenter) -> tuple[VOCFolder, VOCFolder]:
    """Random squares to train on, whole images to validate on."""
    crop = args.crop or segmenter.size
    segmenter.hypercolumn.check_size(crop, "--crop")
    augment = Augment(segmenter.size, crop, args.scale, args.flip, args.jitter)
    dataset = VOCFolder(args.data, args.split, augment, args.limit, args.skip_bad, args.seed)
    resize = ResizeImage(segmenter.size)
    return dataset, VOCFolder(args.data, args.val_split, resize)


def choose_what_learns(args: argparse.Namespace, segmenter: Segmenter) -> dict[nn.Module, float]:
    """The head, and on request the backbone, with their peak rates."""
    rates, backbone = {segmenter.head: args.lr}, segmenter.hypercolumn
    if args.finetune_backbone:
        segmenter.origin = segmenter.origin or backbone.spec()["fingerprint"]
        backbone.unfreeze(args.frozen_stages)
        rates[backbone] = args.backbone_lr
    return rates


def make_objective(args: argparse.Namespace, dataset: VOCFolder, device: torch.device) -> Objective:
    """What is minimised, with class weights that follow from the data, if asked for."""
    weight = None
    if args.class_weights == "inverse":
        counts, _ = dataset.count_pixels()
        weight = inverse_frequency(torch.from_numpy(counts)).to(device)
    return Objective(args.pixels, args.lovasz, args.label_smoothing, weight)


def describe_data(
    args: argparse.Namespace, dataset: VOCFolder, val_set: VOCFolder, val_part: VOCFolder
) -> str:
    """What is trained and validated on, in words."""
    at_the_end = f", on all {len(val_set)} at the end" if len(val_part) < len(val_set) else ""
    return (
        f"{dataset.root}: {len(dataset)} images of {args.split}, validation on {len(val_part)} of "
        f"{args.val_split}{at_the_end}"
    )


def describe_network(args: argparse.Namespace, segmenter: Segmenter) -> str:
    """Backbone, what of it learns, and the sizes of what it sees, in words."""
    trained = "frozen"
    if args.finetune_backbone:
        stages = folder.count(args.frozen_stages, "stage")
        stages = f", its first {stages} frozen" if args.frozen_stages else ""
        trained = f"trained with peak rate {args.backbone_lr:g}{stages}"
    return (
        f"{segmenter.hypercolumn.backbone}, {trained}; size {segmenter.size}, "
        f"crop {args.crop or segmenter.size}, logits at 1/{args.stride}"
    )


def describe_training(args: argparse.Namespace, batches: Batches) -> str:
    """Length, batch and rate, in words."""
    together = f" of {args.accumulate} batches" if args.accumulate > 1 else ""
    return (
        f"{folder.count(args.epochs, 'epoch')}, {batches.images_per_step} images a step{together}, "
        f"{args.optimizer}, peak rate {args.lr:g}, {args.decay}"
    )


def finish(
    args: argparse.Namespace,
    changed: dict[str, Any],
    training: Training,
    dataset: VOCFolder,
    on_all: dict[str, float] | None,
    results: dict[str, Any],
) -> None:
    """Writes config.json with all flags and results, and says what was reached.

    Args:
        changed: flags that are not at their defaults.
        on_all: scores of best.pt on all validation images, if its epoch was scored on some.
        results: others to be written.
    """
    best = max(training.log, key=lambda row: row["miou"])
    scores = on_all or best
    said = f", on all of {args.val_split} {scores['miou']:.4f}" if on_all else ""
    skipped = folder.save_skipped(folder.step_folder(args.run, 3), dataset.skipped)
    results |= {
        "parameters": training.parameter_count,
        "best_epoch": best["epoch"],
        "val_miou": best["miou"],
        "val_miou_on_all": scores["miou"],
    }
    folder.finish(
        args.run,
        3,
        {**vars(args), "changed": changed, **results},
        wrote=f"best.pt is epoch {best['epoch']}, validation mIoU {best['miou']:.4f}"
        f"{said}{skipped}",
        then=("evaluate.py", "--data", dataset.root, "--run", args.run),
        scores={"miou": scores["miou"], "pixel_accuracy": scores["pixel_accuracy"]},
    )


def main() -> None:
    args, parser = parse()
    how = flags.optimization(args, parser)
    device = runtime.choose_device(args.device)
    if args.tensorboard:
        runtime.check_tensorboard()
    place = folder.step_folder(args.run, 3)
    start = load_start(args)
    segmenter = start.segmenter
    dataset, val_set = load_data(args, segmenter)
    val_part = val_set.spread(args.val_limit)
    is_new = args.init and not start.is_resumed
    has_other_classes = is_new and segmenter.names != list(dataset.classes.names)
    if has_other_classes:
        segmenter.replace_classes(dataset.classes, args.seed)
    folder.check_classes(segmenter.names, dataset.classes.names, start.file, dataset.root)
    settings = parser.settings(args)
    settings |= {"images": dataset.fingerprint(), "validation images": val_part.fingerprint()}
    if start.is_resumed:
        folder.check_start(args.run, start.content, start.file)
        folder.check_unfinished(args.run, start.content["training"], args.epochs)
        folder.check_settings(start.content["training"]["settings"], settings, start.file)

    segmenter.stride = args.stride
    rates = choose_what_learns(args, segmenter)
    runtime.prepare(segmenter, device, args.amp, args.compile, sizes_vary=False)
    objective = make_objective(args, dataset, device)

    # Optimizer, schedule and moving average.
    batches = Batches(args.batch_size, args.accumulate, args.seed, args.workers)
    steps = math.ceil(len(dataset) / batches.images_per_step)
    fp16 = args.amp == "fp16"
    training = Training(segmenter, rates, args.epochs, steps, how, args.ema, fp16)
    if start.is_resumed:
        training.load_state_dict(start.content["training"])
        args.started -= training.seconds  # those of the runs before

    after = f", after {len(training.losses)} steps" if start.is_resumed else ""
    runtime.print_header(
        folder.step_title(3),
        args.quiet,
        recipe=args.recipe,
        data=describe_data(args, dataset, val_set, val_part),
        network=describe_network(args, segmenter),
        parameters=f"{training.parameter_count:,} learn",
        training=describe_training(args, batches),
        pixels=f"{args.pixels} random labelled ones of each image" if args.pixels else "all",
        start=f"{start.file}{after}",
        device=runtime.describe(device, args.amp, args.compile),
    )
    if args.resume and not start.is_resumed:
        print(f"  note: no {place / 'last.pt'} to go on from: the training starts at epoch 0")
    if has_other_classes:
        print(f"  note: other classes than in {args.init}: the last layer of the head starts anew")
    if start.head and not start.head["beats_majority"]:
        print("  note: the head of step 2 is no better than always naming the most frequent class")
    if both := len(set(dataset.ids) & set(val_set.ids)):
        print(f"  note: {both} of {len(val_set)} validation images are also trained on")
    distributed.check_same([settings, len(training.losses)])

    head = start.head and start.head["head"]
    saver = Saver(place, args.save_every, head, start.trained_before, settings, args.tensorboard)
    with folder.claim(place):
        if start.is_resumed and distributed.is_main():
            folder.mark_unfinished(place)
        try:
            fit(training, dataset, val_part, objective, batches, args.epochs, saver)
            scores = None
            if len(val_part) < len(val_set):
                best = place / "best.pt"
                scores = score_best(best, val_set, objective, args.workers, device, args.amp)
        except KeyboardInterrupt as stop:
            has_begun = training.log and (place / "last.pt").is_file()
            kept = f"go on from {place / 'last.pt'} with the same command and --resume"
            raise type(stop)(kept if has_begun else "the training had not begun") from None
        if distributed.is_main():
            results = {"start": head, "val_images_trained_on": both}
            finish(args, parser.changed(args), training, dataset, scores, results)


if __name__ == "__main__":
    runtime.run_script(main)
