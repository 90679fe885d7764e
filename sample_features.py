"""Step 1: images -> sparse hypercolumns, a few pixels of every class present in each image.

    python sample_features.py --run runs/voc                                   # VOC 2012 in ./data, VGG11, ImageNet
    python sample_features.py --run runs/mine --data DIR --weights random      # any folder in VOC layout, no download
    python sample_features.py --run runs/small --data DIR --backbone squeezenet1_1 --size 320 --per-class 10
    python sample_features.py --run runs/wide --size 320 --context image,5,11   # the surroundings join each hypercolumn
    python sample_features.py --run runs/voc --resume                          # goes on where a run was stopped
    torchrun --nproc-per-node 4 -- sample_features.py --run runs/voc           # four GPUs (processes): the same rows

Writes RUN/1_features/: features.npy (N, Z) float32, labels.npy (N,), pixels.npy (N, 3: image index, y, x in the
original mask), images.txt, mean.npy, std.npy (Z,), backbone.pt (the extractor for the next steps), with --skip-bad
skipped.txt, config.json (last).
"""

import argparse
from contextlib import nullcontext

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from data import DataError
from data.features import FeatureWriter
from data.sampling import sample_pixels
from data.stream import batches, stream
from data.transforms import ResizeImage
from data.voc import Sample, VOCFolder
from models import flags, processes, run_folder, runtime
from models.backbones import BACKBONES
from models.checkpoint import save_extractor
from models.hypercolumn import PARTS, Hypercolumn, pixel_centres
from models.interruption import Stop
from models.progress import Progress
from models.segmenter import same_size

FREE_TO_CHANGE = {  # what a resumed run may do differently
    "recipe", "run", "data", "weights", "device", "workers", "strict", "resume", "quiet",
}  # fmt: skip


def parse() -> argparse.Namespace:
    parser = flags.step_parser(__doc__)
    flags.add_data_flags(parser, split="train")
    parser.add_argument("--backbone", default="vgg11", choices=BACKBONES, metavar="NAME", help=", ".join(BACKBONES))
    parser.add_argument("--weights", default="imagenet", help="imagenet (download), random, or a state-dict file")
    parser.add_argument("--taps", type=numbers, metavar="1,2,..", help="levels to use, 1 = finest; default: all")
    parser.add_argument(
        "--context",
        type=contexts,
        default=[],
        metavar="image,5,..",
        help="further levels from the last: its mean over the image, its quadrants, or windows of an odd side",
    )
    flags.add_dilate(parser, 0)
    parser.add_argument(
        "--size", type=flags.positive, default=224, help="shorter side of the network's input, in pixels"
    )
    parser.add_argument("--per-class", type=flags.positive, default=3, help="pixels of each class present in an image")
    parser.add_argument("--batch-size", type=flags.positive, default=8, help="images read at a time")
    parser.add_argument("--seed", type=flags.natural, default=0, help="for the choice of pixels and for random weights")
    flags.add_strictness(parser)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on where an unfinished run of this step was stopped; where it had finished, do it again",
    )
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    return [flags.positive(part) for part in text.split(",")]


def contexts(text: str) -> list[str]:
    parts = text.split(",")
    for part in parts:
        is_window = part.isdecimal() and str(int(part)) == part and int(part) % 2 and int(part) < 1000
        if parts.count(part) > 1 or not (part in PARTS or is_window):
            raise argparse.ArgumentTypeError(f"{text!r} is not some of image, quadrants and odd numbers, each once")
    return parts


@torch.inference_mode()
def sample(hypercolumn: Hypercolumn, samples: list[Sample], pixels: list[np.ndarray]) -> list[np.ndarray]:
    """Hypercolumns (n_i, Z) float32 of each image at its pixels (n_i, 2); images of one size go through together."""
    device = hypercolumn.mean.device
    columns: list[np.ndarray] = [np.empty(0)] * len(samples)
    for indices in same_size([sample.image for sample in samples], device):
        points = [pixel_centres(torch.from_numpy(pixels[index]), samples[index].size) for index in indices]
        images = torch.from_numpy(np.stack([samples[index].image for index in indices]))
        levels = hypercolumn(images.to(device))
        rows = hypercolumn.at_points(levels, pad_sequence(points, batch_first=True).to(device)).float().cpu().numpy()
        for index, image_rows in zip(indices, rows):
            columns[index] = image_rows[: len(pixels[index])]
    return columns


def main() -> None:
    args = parse()
    device = runtime.choose_device(args.device)
    dataset = VOCFolder(args.data, args.split, ResizeImage(args.size), args.limit, args.skip_bad)
    hypercolumn = Hypercolumn(args.backbone, args.weights, args.taps, args.seed, args.context, args.dilate)
    hypercolumn = hypercolumn.to(device).eval()
    widths = "+".join(map(str, hypercolumn.channels))
    hypercolumn.check_size(args.size)
    settings = run_folder.settings(vars(args), FREE_TO_CHANGE, weights=hypercolumn.spec(), images=dataset.fingerprint())
    progress = Progress(args.run, 1, settings, len(dataset), args.batch_size, args.resume)
    runtime.announce(
        1,
        args.quiet,
        recipe=args.recipe,
        data=f"{dataset.root}, split {args.split}: {len(dataset)} images, {len(dataset.classes)} classes",
        backbone=f"{args.backbone}, weights {args.weights}, Z = {widths} = {hypercolumn.Z}",
        sampling=f"{args.per_class} pixels per class and image, shorter side {args.size}, seed {args.seed}",
        start=progress.start(),
        device=processes.describe(device),
    )

    folder = run_folder.prepare(args.run, 1)
    state = progress.state or {"counts": [0] * len(dataset.classes), "store": None}
    counts = np.array(state["counts"])
    store = FeatureWriter(folder, hypercolumn.Z, state["store"]) if processes.is_main() else nullcontext()
    with Stop() as stop, store as writer:
        plan = processes.turns(batches(range(progress.done, len(dataset)), args.batch_size))
        rounds = runtime.progress(stream(dataset, plan, args.workers), total=len(plan), unit="batch")
        for samples, indices in zip(rounds, plan):
            chosen = [sample_pixels(image.mask, args.per_class, args.seed, image.id) for image in samples]
            columns = sample(hypercolumn, samples, [pixels for pixels, _ in chosen])
            found = [
                (rows, labels, np.insert(pixels, 0, index, axis=1))
                for index, rows, (pixels, labels) in zip(indices, columns, chosen)
            ]
            for image in (image for part in processes.gather(found) for image in part):
                writer.append(*image)
                np.add.at(counts, image[1], 1)
            progress.round_done(stop, lambda: {"counts": counts.tolist(), "store": writer.pause()})
        if not processes.is_main():
            return
        if not writer.rows:
            raise DataError(f"{dataset.root}: the {len(dataset)} images of {args.split} have no labelled pixel")
        run_folder.begin(args.run, 1)
        save_extractor(folder / "backbone.pt", hypercolumn)
        writer.finish(dataset.ids)

    skipped = run_folder.save_skipped(folder, dataset.skipped)
    settings = {
        **vars(args),
        "data": str(dataset.root),
        "images": len(dataset),
        "rows": writer.rows,
        "hypercolumn": hypercolumn.spec(),
        "channels": hypercolumn.channels,
        "classes": list(dataset.classes.names),
        "colours": dataset.classes.colours,
        "rows_per_class": counts.tolist(),
    }
    run_folder.finish(
        args.run,
        1,
        settings,
        wrote=f"{writer.rows} hypercolumns of {hypercolumn.Z} channels from {len(dataset)} images{skipped}",
        then=("train_cls.py", "--run", args.run),
    )


if __name__ == "__main__":
    runtime.run_step(main)
