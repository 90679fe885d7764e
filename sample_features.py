"""Step 1: images -> sparse hypercolumns, a few pixels of every class present in each image.

    python sample_features.py --run runs/voc                  # VOC 2012 in ./data, VGG11, ImageNet
    python sample_features.py --run runs/mine --data DIR --weights random       # no download
    python sample_features.py --run runs/small --data DIR --backbone squeezenet1_1 --per-class 10
    python sample_features.py --run runs/wide --size 320 --context image,5,11   # sees surroundings
    torchrun --nproc-per-node 4 -- sample_features.py --run runs/voc            # four GPUs

Writes RUN/1_features/: features.npy (N, Z) float32, labels.npy (N,), pixels.npy (N, 3: image index,
y, x in the original mask), images.txt, mean.npy, std.npy (Z,), backbone.pt (the extractor for the
next steps), with --skip-bad skipped.txt, config.json (last).
"""

import argparse

import numpy as np
import torch
from torch.utils.data import DataLoader

from data import DataError
from data.features import create_rows, finish_rows, open_rows
from data.sampling import sample_pixels
from data.transforms import ResizeImage
from data.voc import VOCFolder
from models.backbones import BACKBONES
from models.hypercolumn import Hypercolumn, pixel_centres
from models.run import args as flags
from models.run import distributed, folder, runtime
from models.segmenter import save_extractor


def parse() -> tuple[argparse.Namespace, flags.Parser]:
    parser = flags.Parser(__doc__)
    flags.add_data_flags(parser, split="train")
    names = ", ".join(BACKBONES)
    parser.flag("--backbone", default="vgg11", choices=BACKBONES, metavar="NAME", help=names)
    weights = "imagenet (download), random, or a state-dict file"
    parser.flag("--weights", default="imagenet", help=weights)
    taps = "levels to use, 1 = finest; default: all"
    parser.flag("--taps", type=flags.numbers, metavar="1,2,..", help=taps)
    parser.flag(
        "--context",
        type=flags.contexts,
        default=[],
        metavar="image,5,..",
        help="further levels from the last: its mean over the image, its quadrants, or windows of "
        "an odd side",
    )
    flags.add_dilate_flag(parser, 0)
    size = "shorter side of the network's input, in pixels"
    parser.flag("--size", type=flags.positive, default=224, help=size)
    per_class = "pixels of each class present in an image"
    parser.flag("--per-class", type=flags.positive, default=3, help=per_class)
    seed = "for the choice of pixels and for random weights"
    parser.flag("--seed", type=flags.natural, default=0, help=seed)
    flags.add_skip_flag(parser)
    return parser.parse_args(), parser


def main() -> None:
    args, parser = parse()
    device = runtime.choose_device(args.device)
    transform = ResizeImage(args.size)
    dataset = VOCFolder(args.data, args.split, transform, args.limit, args.skip_bad)
    hypercolumn = Hypercolumn(
        args.backbone, args.weights, args.taps, args.seed, args.context, args.dilate
    )
    hypercolumn.check_size(args.size)
    hypercolumn.to(device).eval()
    widths = "+".join(map(str, hypercolumn.channels))
    runtime.print_header(
        folder.step_title(1),
        args.quiet,
        recipe=args.recipe,
        data=f"{dataset.root}, split {args.split}: {len(dataset)} images, "
        f"{len(dataset.classes)} classes",
        backbone=f"{args.backbone}, weights {args.weights}, Z = {widths} = {hypercolumn.Z}",
        sampling=f"{args.per_class} pixels per class and image, shorter side {args.size}, "
        f"seed {args.seed}",
        device=runtime.describe(device),
    )
    distributed.check_same([parser.settings(args), dataset.fingerprint()])
    place = folder.make_writable(folder.step_folder(args.run, 1))

    # The pixels follow from the masks alone, so all rows have their place before the first image.
    everyone = range(len(dataset))
    chosen = [
        sample_pixels(dataset.mask(index), args.per_class, args.seed, dataset.ids[index])
        for index in runtime.bar(everyone, len(dataset), "mask", "choose pixels")
    ]
    starts = np.cumsum([0] + [len(labels) for _, labels in chosen])
    labels = np.concatenate([labels for _, labels in chosen])
    pixels = np.concatenate(
        [np.insert(pixels, 0, index, axis=1) for index, (pixels, _) in enumerate(chosen)]
    )
    if not len(labels):
        raise DataError(
            f"{dataset.root}: the {len(dataset)} images of {args.split} have no labelled pixel"
        )

    if distributed.is_main():
        create_rows(place, len(labels), hypercolumn.Z)
    distributed.barrier()
    rows = open_rows(place)
    mine = everyone[distributed.rank() :: distributed.world_size()]
    loader = DataLoader(dataset, batch_size=None, sampler=mine, num_workers=args.workers)
    with torch.inference_mode():
        for index, sample in zip(mine, runtime.bar(loader, len(mine), "image", "extract")):
            levels = hypercolumn(sample.image[None].to(device))
            points = pixel_centres(torch.from_numpy(chosen[index][0]), sample.mask.shape)
            columns = hypercolumn.at_points(levels, points[None].to(device))  # (1, n, Z)
            rows[starts[index] : starts[index + 1]] = columns[0].float().cpu().numpy()
    rows.flush()
    distributed.barrier()
    if not distributed.is_main():
        return

    folder.mark_unfinished(place)
    save_extractor(place / "backbone.pt", hypercolumn)
    finish_rows(place, labels, pixels, dataset.ids)
    skipped = folder.save_skipped(place, dataset.skipped)
    config = {
        **vars(args),
        "changed": parser.changed(args),
        "data": str(dataset.root),
        "images": len(dataset),
        "rows": len(labels),
        "hypercolumn": hypercolumn.spec(),
        "channels": hypercolumn.channels,
        "classes": list(dataset.classes.names),
        "colours": dataset.classes.colours,
        "rows_per_class": np.bincount(labels, minlength=len(dataset.classes)).tolist(),
    }
    folder.finish(
        args.run,
        1,
        config,
        wrote=f"{len(labels)} hypercolumns of {hypercolumn.Z} channels "
        f"from {len(dataset)} images{skipped}",
        then=("train_cls.py", "--run", args.run),
    )


if __name__ == "__main__":
    runtime.run_script(main)
