"""Step 3: fine-tunes the 1x1 convolutions on whole images; the backbone stays frozen, or learns, too.

    python train_seg.py --data data/VOCdevkit/VOC2012 --run runs/voc
    python train_seg.py --data data/VOCdevkit/VOC2012 --run runs/voc --split train_aug --epochs 20 --batch-size 16
    python train_seg.py --data data/VOCdevkit/VOC2012 --run runs/voc --pixels 512    # faster: some pixels of each image
    python train_seg.py --data data/VOCdevkit/VOC2012 --run runs/voc --finetune-backbone --pixels 1024 --crop 320 --flip
    python train_seg.py --data data/VOCdevkit/VOC2012 --run runs/voc --resume        # goes on after the last step saved
    torchrun --nproc-per-node 4 -- train_seg.py --data data/VOCdevkit/VOC2012 --run runs/voc    # four GPUs (processes)

Reads RUN/2_cls/dense.pt. Writes RUN/3_seg/: last.pt (every --save-every steps, after every epoch, and when stopped),
best.pt (by validation mIoU), log.csv (an epoch a line), steps.csv (a step a line), curve.png, previews/ (a few overlays
per epoch), with --skip-bad skipped.txt, config.json (last). Epoch 0 is the head as step 2 left it.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from data import DataError
from data.classes import VOID, Classes
from data.overlay import panel
from data.sampling import image_seed
from data.stream import batches, stream
from data.transforms import Augment, ResizeImage, resized_shape
from data.voc import Sample, VOCFolder, count_pixels
from losses.batch import BatchLoss
from losses.loss import WEIGHTINGS, count_classes, draw_pixels, weighting
from losses.plots import plot_curve
from losses.score import ConfusionMatrix
from models import RunError, flags, processes, run_folder, runtime
from models.cache import LevelCache
from models.checkpoint import load_segmenter
from models.hypercolumn import pixel_centres
from models.interruption import Interrupted, Stop
from models.records import Records
from models.segmenter import Segmenter, same_size
from models.training import Training

CLASS_WEIGHTS = "weigh classes by inverse frequency, over all pixels of the split or over each batch"
PREVIEWS = 3  # overlays saved after each epoch
FREE_TO_CHANGE = {  # what a resumed run may do differently
    "recipe", "run", "data", "device", "workers", "compile", "resume", "save_every", "skip_nonfinite", "strict",
    "quiet",
}  # fmt: skip


def parse() -> argparse.Namespace:
    parser = flags.step_parser(__doc__)
    flags.add_data_flags(parser, split="train")
    parser.add_argument("--val-split", default="val", help="list that validation reads; it chooses best.pt")
    parser.add_argument("--val-limit", type=flags.positive, metavar="N", help="only the first N of --val-split")
    flags.add_augment_flags(parser)
    parser.add_argument("--epochs", type=flags.positive, default=10, help="passes over the images")
    parser.add_argument(
        "--batch-size", type=flags.positive, default=8, help="images per step, of all processes together"
    )
    parser.add_argument(
        "--accumulate", type=flags.positive, default=1, metavar="K", help="batches per step: as one K times as large"
    )
    flags.add_optimizer_flags(parser)
    parser.add_argument("--lovasz", type=flags.factor, default=0.0, help="factor of the Lovasz-softmax in the loss")
    parser.add_argument("--class-weights", default="none", choices=WEIGHTINGS, help=CLASS_WEIGHTS)
    parser.add_argument("--ema", type=flags.fraction, default=0.0, help="decay of a moving average of the weights")
    flags.add_backbone_flags(parser)
    flags.add_effort_flags(parser)
    flags.add_speed_flags(parser)
    parser.add_argument("--seed", type=flags.natural, default=0, help="for all that is left to chance")
    flags.add_long_run_flags(parser)
    flags.add_strictness(parser)
    parser.add_argument("--resume", action="store_true", help="go on from RUN/3_seg/last.pt with the same settings")
    return parser.parse_args()


def smallest_input(crop: int | None, scale: list[float], size: int) -> tuple[int, str]:
    """Shorter side of the smallest input that chance may make, in pixels, and the flag that is to blame for it."""
    return (crop, "--crop") if crop else (round(size * scale[0]), "--scale")


class LossOfPart(nn.Module):
    """Segmenter and loss in one, as `models.training.Training.step` wants it.

    Args:
        pixels: labelled pixels of each image to train on; None means all.
        cache: where the levels come from; None means the backbone.
    """

    def __init__(self, segmenter: Segmenter, loss: BatchLoss, pixels: int | None, cache: LevelCache | None):
        super().__init__()
        self.segmenter, self.loss, self.pixels, self.cache = segmenter, loss, pixels, cache

    def forward(self, samples: list[Sample], chance: Callable[[str], int]) -> Tensor:
        """What images of one size (or none) add to the loss of the batch; `chance` gives a seed for each id."""
        segmenter = self.segmenter
        if not samples:  # a process without an image still takes part in the exchange of gradients
            return 0 * sum(parameter.sum() for parameter in segmenter.parameters() if parameter.requires_grad)
        device, ids = segmenter.hypercolumn.mean.device, [sample.id for sample in samples]
        generators = [torch.Generator().manual_seed(chance(image_id)) for image_id in ids]
        images = torch.from_numpy(np.stack([sample.image for sample in samples])).to(device)
        target = torch.from_numpy(np.stack([sample.mask for sample in samples])).long().to(device)
        with segmenter.autocast():
            levels = self.cache(ids, images) if self.cache else segmenter.hypercolumn(images)
        if self.pixels is None:
            logits = segmenter.logits(levels, segmenter.grid(images), generators)
            del levels  # the finest is the largest thing in memory, and its resampled form is enough from here on
            return self.loss.share(logits, target)
        chosen, worth = draw_pixels(target, self.pixels, generators=generators)
        # A backbone in training has its gradient at the price of every place that is read: no grid around the pixels.
        grid = segmenter.grid(images) if segmenter.hypercolumn.frozen else None
        logits = segmenter.logits_at(levels, grid, pixel_centres(chosen, target.shape[-2:]), generators)
        labels = target.flatten(1).gather(1, chosen[..., 0] * target.shape[-1] + chosen[..., 1])
        labels = labels.where(worth > 0, VOID)
        return self.loss.share(logits.unsqueeze(-1), labels.unsqueeze(-1), worth.unsqueeze(-1))


def train_step(
    network: nn.Module,
    samples: list[Sample],
    epoch: int,
    training: Training,
    loss: BatchLoss,
    at_once: int,
    classes: int,
    seed: int,
    device: torch.device,
) -> float:
    """One step on the samples of this process, at most `at_once` of them together; the loss of all processes' samples.

    Images of one size go through together and the gradients of the parts add up to that of the whole: no padding.
    """
    masks = [torch.from_numpy(sample.mask).flatten() for sample in samples]
    counts = count_classes(torch.cat(masks or [torch.empty(0)]), classes)
    *counts, images = processes.total(torch.tensor([*counts, len(samples)]))
    loss.begin(torch.stack(counts), int(images))
    chance = partial(image_seed, seed, epoch, "training")
    parts = [
        ([batch[index] for index in indices], chance)
        for batch in batches(samples, at_once)
        for indices in same_size([sample.image for sample in batch], device)
    ]
    return training.step(network, parts or [([], chance)])


def validate(
    segmenter: Segmenter, dataset: VOCFolder, batch_size: int, workers: int, after_round: Callable[[], None]
) -> tuple[ConfusionMatrix, dict[str, Image.Image]]:
    """Confusion matrix over a split at original size, and overlays of its first few images by their ids (on rank 0)."""
    matrix = ConfusionMatrix(len(segmenter.names))
    classes = Classes.from_lists(segmenter.names, segmenter.colours)
    plan, previews = processes.turns(batches(range(len(dataset)), batch_size)), {}
    rounds = runtime.progress(stream(dataset, plan, workers), total=len(plan), unit="batch", label="validate")
    for samples, indices in zip(rounds, plan):
        for index, sample, prediction in zip(indices, samples, segmenter.predict(samples)):
            matrix.update(prediction, sample.mask)
            if index < PREVIEWS:
                photo = Image.fromarray(dataset.image(index))
                previews[sample.id] = panel(photo, prediction, classes, sample.mask, title=sample.id).picture
        rounds.set_postfix(mIoU=f"{matrix.miou():.3f}", refresh=False)
        after_round()
    for part in processes.gather(previews):
        previews.update(part)
    matrix.counts = processes.total(torch.from_numpy(matrix.counts)).numpy()
    if not matrix.classes_in_mean():
        raise RunError(f"split {dataset.split} has no labelled pixel, so there is nothing to choose best.pt by")
    return matrix, previews


def fit(
    records: Records,
    dataset: VOCFolder,
    train: Callable[[list[Sample], int], float],
    validate: Callable[[Callable[[], None]], tuple[ConfusionMatrix, dict[str, Image.Image]]],
    epochs: int,
    images_per_step: int,
    seed: int,
    workers: int,
    save_every: int,
    skip_nonfinite: int,
    stop: Stop,
) -> None:
    """Trains to the last epoch, from where the records have come to; they are kept after every epoch and in between.

    Args:
        train: one step on this process's share of the samples, in an epoch; gives its loss.
        validate: gives a score and overlays; calls what it is given between its rounds.

    Raises:
        RunError: too many steps were not finite.
        Interrupted: the user wanted the training to end; it can be resumed.
    """

    def end_if_asked() -> None:
        if stop.asked():
            raise stop.now(records.save_last())

    losses = records.training.losses
    for epoch in range(len(records.training.log), epochs + 1):
        began = time.perf_counter()
        if epoch > 0:
            order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed + epoch)).tolist()
            dataset.chance = partial(image_seed, seed, epoch, "augmentation")
            steps = batches(order, images_per_step)[len(losses) - (epoch - 1) * records.steps :]
            mine = [indices[processes.rank() :: processes.count()] for indices in steps]
            shares = runtime.progress(stream(dataset, mine, workers), len(mine), "step", f"epoch {epoch}/{epochs}")
            for samples, indices in zip(shares, steps):
                loss = train(samples, epoch)
                shares.set_postfix(loss=f"{loss:.3f}", mIoU=f"{records.training.log[-1]['miou']:.3f}", refresh=False)
                records.check(loss, [dataset.ids[index] for index in indices], skip_nonfinite)
                end_if_asked()
                if len(losses) % save_every == 0:
                    records.save_last()
        matrix, previews = validate(end_if_asked)
        scores = {"miou": matrix.miou(), "pixel_accuracy": matrix.pixel_accuracy()}
        said = records.end_epoch(scores, previews, partial(plot_curve, title="Step 3: fine-tuning on whole images"))
        print(f"  {said}, {time.perf_counter() - began:.0f} s", flush=True)


def main() -> None:
    args = parse()
    device = runtime.choose_device(args.device)
    start = run_folder.finished(args.run, 2)["head"]
    folder = run_folder.prepare(args.run, 3)
    source = run_folder.step_folder(args.run, 2) / "dense.pt"
    if resumes := args.resume and (folder / "last.pt").is_file():
        source = folder / "last.pt"
    segmenter, content = load_segmenter(source)
    run_folder.check_features(args.run, segmenter, source)
    segmenter.hypercolumn.check_size(*smallest_input(args.crop, args.scale, segmenter.size))
    segmenter.stride = args.stride
    augment = Augment(segmenter.size, args.scale, args.crop, args.flip, args.jitter)
    dataset = VOCFolder(args.data, args.split, augment, args.limit, args.skip_bad)
    val_set = VOCFolder(args.data, args.val_split, ResizeImage(segmenter.size), args.val_limit)
    run_folder.check_classes(segmenter.names, dataset.classes.names, source, dataset.root)
    if not dataset.has_labels():
        raise DataError(f"{dataset.root}: the {len(dataset)} images of {args.split} have no labelled pixel to train on")
    images = {"images": dataset.fingerprint(), "validation images": val_set.fingerprint()}
    settings = run_folder.settings(vars(args), FREE_TO_CHANGE) | {"--cache": args.cache is not None, **images}
    if resumes:
        run_folder.check_start(args.run, content, source)
        run_folder.check_settings(content.get("training", {}).get("settings", {}), settings, source)
    parts = [(segmenter.head, args.lr)]
    if args.finetune_backbone:
        segmenter.origin = segmenter.origin or segmenter.hypercolumn.spec()["fingerprint"]
        segmenter.hypercolumn.unfreeze(args.frozen_stages).recompute = args.recompute
        parts.append((segmenter.hypercolumn, args.backbone_lr))
    elif args.frozen_stages or args.recompute:
        raise RunError("--frozen-stages and --recompute are about a backbone that learns; add --finetune-backbone")
    precision = segmenter.to(device).speed_up(args.amp, args.compile)
    cache, room = None, "no: every epoch runs the backbone"
    if args.cache:
        if args.finetune_backbone or args.crop or args.flip or args.jitter or args.scale != [1, 1]:
            raise RunError("--cache keeps what never changes; leave out --finetune-backbone and all augmentation")
        cache = LevelCache(folder, segmenter.hypercolumn, segmenter.size)
        room = cache.make_room((resized_shape(*size, segmenter.size) for size in dataset.sizes), args.cache)
    done = len(content["training"]["losses"]) if resumes else 0
    learning = sum(parameter.numel() for parameter in segmenter.parameters() if parameter.requires_grad)
    stages = f", its first {args.frozen_stages} stages frozen" if args.frozen_stages else ""
    trained = f"trained with peak rate {args.backbone_lr:g}{stages}" if args.finetune_backbone else "frozen"
    accumulated = f" of {args.accumulate} batches" if args.accumulate > 1 else ""
    runtime.announce(
        3,
        args.quiet,
        recipe=args.recipe,
        data=f"{dataset.root}: {len(dataset)} images of {args.split}, validation on {len(val_set)} of {args.val_split}",
        network=f"{segmenter.hypercolumn.backbone}, {trained}; size {segmenter.size}, logits at 1/{args.stride}",
        parameters=f"{learning:,} learn",
        training=f"{args.epochs} epochs, {args.batch_size * args.accumulate} images a step{accumulated}, "
        f"{args.optimizer}, peak rate {args.lr:g}",
        pixels=f"{args.pixels} random labelled ones of each image" if args.pixels else "all labelled ones",
        cache=room,
        start=f"{source}, after {done} steps" if resumes else source,
        device=f"{processes.describe(device)}, {precision}",
    )

    torch.manual_seed(args.seed)
    steps = -(-len(dataset) // (args.batch_size * args.accumulate))
    training = Training.begin(
        settings,
        segmenter,
        parts,
        args.epochs * steps,
        optimizer=args.optimizer,
        decay=args.decay,
        weight_decay=args.weight_decay,
        ema=args.ema,
        float16=args.amp == "fp16",
    )
    if resumes:
        training.go_on_from(content["training"])
    counts = torch.from_numpy(count_pixels(dataset)) if args.class_weights == "inverse" else None
    loss = BatchLoss(weighting(args.class_weights, counts), args.label_smoothing, args.lovasz)
    network = processes.wrap(LossOfPart(segmenter, loss, args.pixels, cache).train())
    records = Records(args.run, training, start, f"{len(dataset)} images of {args.split}", steps)
    train = partial(
        train_step,
        network,
        training=training,
        loss=loss,
        at_once=-(-args.batch_size // processes.count()),
        classes=len(segmenter.names),
        seed=args.seed,
        device=device,
    )
    processes.same([settings, done])  # and all have read the folder
    if processes.is_main():
        records.begin(resumes)
    try:
        with Stop() as stop:
            fit(
                records,
                dataset,
                train,
                partial(validate, training.best(), val_set, args.batch_size, args.workers),
                args.epochs,
                args.batch_size * args.accumulate,
                args.seed,
                args.workers,
                args.save_every,
                args.skip_nonfinite,
                stop,
            )
    except Interrupted:
        raise
    except KeyboardInterrupt:
        kept = "what was saved is kept; go on with the same command and --resume"
        raise KeyboardInterrupt(kept if training.log else "the training had not begun") from None
    if not processes.is_main():
        return
    if cache:
        cache.remove()
    skipped = run_folder.save_skipped(folder, dataset.skipped)
    best = max(training.log, key=lambda row: row["miou"])
    run_folder.finish(
        args.run,
        3,
        {**vars(args), "start": start, "parameters": learning, "best_epoch": best["epoch"], "val_miou": best["miou"]},
        wrote=f"best.pt is epoch {best['epoch']}, validation mIoU {best['miou']:.4f}{skipped}",
        then=("evaluate.py", "--data", dataset.root, "--run", args.run),
    )


if __name__ == "__main__":
    runtime.run_step(main)
