"""Step 1: images -> sparse hypercolumns, a few pixels of every class present in each image.

    python sample_features.py --run runs/voc                  # VOC 2012 in ./data, VGG11, ImageNet
    python sample_features.py --run runs/mine --data DIR --weights random       # no download
    python sample_features.py --run runs/small --data DIR --backbone squeezenet1_1 --per-class 10
    python sample_features.py --run runs/wide --size 320 --context image,5,11   # sees surroundings
    torchrun --nproc-per-node 4 -- sample_features.py --run runs/voc            # four GPUs

Writes RUN/1_features/: features.npy (N, Z) float32, labels.npy (N,), pixels.npy (N, 3: image index,
y, x in the original mask), areas.npy (N,: the share of its image that a pixel stands for),
images.txt, mean.npy, std.npy (Z,), backbone.pt (the extractor for the next steps), with --skip-bad
skipped.txt, config.json (last).
"""

import argparse
from typing import NamedTuple

import numpy as np
import torch

from data.classes import VOID
from data.features import create_rows, finish_rows, moments, open_rows
from data.images import first_of
from data.sampling import sample_pixels
from data.transforms import ResizeImage
from data.voc import VOCFolder
from models import RunError
from models.backbones import find_weights
from models.hypercolumn import Hypercolumn, pixel_centres
from models.run import args as flags
from models.run import distributed, folder, runtime
from models.segmenter import save_extractor


def parse() -> tuple[argparse.Namespace, flags.Parser]:
    parser = flags.Parser(__doc__)
    flags.add_data_flags(parser, split="train")
    backbone = "a classification network of torchvision, like resnet50; a wrong name lists all"
    parser.flag("--backbone", default="vgg11", metavar="NAME", help=backbone)
    weights = (
        "imagenet (torchvision's DEFAULT, downloaded), another of its names, like IMAGENET1K_V2, "
        "random, or a state-dict file"
    )
    parser.flag("--weights", default="imagenet", help=weights)
    taps = "levels to use, 1 = finest, or bN, the map after the network's N-th block; default: all"
    parser.flag("--taps", type=flags.taps, metavar="1,2,..", help=taps)
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


class Chosen(NamedTuple):
    """The pixels to sample, image after image."""

    pixels: np.ndarray  # (N, 3) int64: image index, y, x in the original mask
    labels: np.ndarray  # (N,) uint8 class ids
    areas: np.ndarray  # (N,) float32, the share of its image that a pixel stands for
    starts: np.ndarray  # (images + 1,) the rows of image i are starts[i] .. starts[i + 1] - 1

    def of_image(self, index: int) -> slice:
        """The rows of an image."""
        return slice(self.starts[index], self.starts[index + 1])


def choose(dataset: VOCFolder, per_class: int, seed: int) -> Chosen:
    """Draws pixels of every class in every mask; notes classes that no mask has.

    They follow from the masks alone, so all rows have their place before the first image is read.

    Raises:
        DataError: there is no labelled pixel, or nothing but background and void.
    """
    pixels, labels, areas, has_void = [], [], [], False
    for index in runtime.bar(range(len(dataset)), len(dataset), "mask", "choose pixels"):
        mask = dataset.mask(index)
        found, classes, shares = sample_pixels(mask, per_class, seed, dataset.ids[index])
        pixels.append(np.insert(found, 0, index, axis=1))
        labels.append(classes)
        areas.append(shares)
        has_void |= bool((mask == VOID).any())
    starts = np.cumsum([0, *map(len, labels)])
    chosen = Chosen(*map(np.concatenate, (pixels, labels, areas)), starts)
    counts = np.bincount(chosen.labels, minlength=len(dataset.classes))
    if absent := dataset.absent_classes(counts, has_void):
        print(f"  note: no pixel of {first_of(absent)} in {dataset.split}")
    return chosen


@torch.inference_mode()
def extract(
    hypercolumn: Hypercolumn, dataset: VOCFolder, chosen: Chosen, rows: np.ndarray, workers: int
) -> None:
    """Fills `rows` (N, Z) with the hypercolumns of this process's share of the images."""
    device = hypercolumn.mean.device
    mine = distributed.share(len(dataset))
    loader = runtime.image_loader(dataset, mine, workers)
    for index, sample in zip(mine, runtime.bar(loader, len(mine), "image", "extract")):
        levels = hypercolumn(sample.image[None].to(device))  # (1, C_l, h_l, w_l) each
        pixels = torch.from_numpy(chosen.pixels[chosen.of_image(index), 1:])
        points = pixel_centres(pixels, sample.mask.shape)[None].to(device)  # (1, n, 2)
        columns = hypercolumn.at_points(levels, points)  # (1, n, Z)
        rows[chosen.of_image(index)] = columns[0].float().cpu().numpy()
    rows.flush()


def main() -> None:
    args, parser = parse()
    device = runtime.choose_device(args.device)
    if not distributed.is_one_machine():
        raise RunError("step 1 runs on one machine, as its processes write into one mapped file")
    transform = ResizeImage(args.size)
    dataset = VOCFolder(args.data, args.split, transform, args.limit, args.skip_bad)
    hypercolumn = Hypercolumn(
        args.backbone,
        args.weights,
        args.taps,
        args.seed,
        args.context,
        args.dilate,
    )
    hypercolumn.check_size(args.size)
    hypercolumn.to(device).eval()
    preset = find_weights(args.backbone, args.weights)
    weights = preset.name if preset else args.weights
    widths = "+".join(map(str, hypercolumn.channels))
    runtime.print_header(
        folder.step_title(1),
        args.quiet,
        recipe=args.recipe,
        data=f"{dataset.root}, split {args.split}: {len(dataset)} images, "
        f"{len(dataset.classes)} classes",
        backbone=f"{args.backbone}, weights {weights}, Z = {widths} = {hypercolumn.Z}",
        sampling=f"{args.per_class} pixels per class and image, shorter side {args.size}, "
        f"seed {args.seed}",
        device=runtime.describe(device),
    )
    distributed.check_same([parser.settings(args), dataset.fingerprint()])
    place = folder.step_folder(args.run, 1)
    with folder.claim(place):
        chosen = choose(dataset, args.per_class, args.seed)
        if distributed.is_main():
            create_rows(place, len(chosen.labels), hypercolumn.Z)
        distributed.barrier()
        rows = open_rows(place)
        extract(hypercolumn, dataset, chosen, rows, args.workers)
        distributed.barrier()
        if not distributed.is_main():
            return
        mean, std = moments(rows)
        folder.mark_unfinished(place)
        save_extractor(place / "backbone.pt", hypercolumn)
        finish_rows(place, chosen.labels, chosen.pixels, chosen.areas, mean, std, dataset.ids)
        skipped = folder.save_skipped(place, dataset.skipped)
        config = {
            **vars(args),
            "changed": parser.changed(args),
            "weights": weights,
            "data": str(dataset.root),
            "images": len(dataset),
            "rows": len(chosen.labels),
            "hypercolumn": hypercolumn.spec(),
            "channels": hypercolumn.channels,
            "classes": list(dataset.classes.names),
            "colours": dataset.classes.colours,
            "rows_per_class": np.bincount(chosen.labels, minlength=len(dataset.classes)).tolist(),
        }
        wrote = f"{len(chosen.labels)} hypercolumns of {hypercolumn.Z} channels "
        wrote += f"from {len(dataset)} images{skipped}"
        folder.finish(
            args.run,
            1,
            config,
            wrote,
            then=("train_cls.py", "--run", args.run),
            scores={"rows": len(chosen.labels), "images": len(dataset)},
        )


if __name__ == "__main__":
    runtime.run_script(main)
