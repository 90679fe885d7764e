"""Step 1: images -> sparse hypercolumns, a few pixels of every class present in each image.

    python sample_features.py --run runs/voc                  # VOC 2012 in ./data, VGG11, ImageNet
    python sample_features.py --run runs/mine --data DIR --weights random       # no download
    python sample_features.py --run runs/wide --size 320 --context image,5,11   # sees surroundings
    torchrun --nproc-per-node 4 -- sample_features.py --run runs/voc            # four GPUs

Writes RUN/1_features/: features.npy (N, Z) float32, labels.npy (N,), pixels.npy (N, 3: image index,
y, x in the original mask), areas.npy (N,: the share of its image that a pixel stands for), of
sparse labels places.npy (images, 8, Z: elsewhere in them), images.txt, photos.npy (of each a
hash), mean.npy, std.npy (Z,), backbone.pt (the extractor), with --skip-bad skipped.txt,
config.json.
"""

import argparse
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from data import UserError
from data.features import check_several, create_rows, open_rows, save_rows
from data.sampling import KEPT, PLACES, pixel_centres, random_places, sample_pixels
from data.transforms import DEFAULT_SIZE, ResizeImage
from data.voc import VOCFolder
from models.checkpoint import save_extractor
from models.hypercolumn import Hypercolumn
from models.run import args as flags
from models.run import distributed, folder, runtime

CLICKED = 0.1  # of the pixels: labels of fewer are clicks or strokes, which do not tell areas
FEW_IMAGES = 12  # of fewer, context windows teach little but where things are


def parse() -> argparse.Namespace:
    parser = flags.Parser(__doc__)
    flag = parser.flag
    flags.add_data_flags(parser, split="train")
    backbone = "a classification network of torchvision, like resnet50; a wrong name lists all"
    flag("--backbone", str, "vgg11", backbone, metavar="NAME")
    weights = "imagenet (downloaded), another of torchvision's names, random, or a state-dict file"
    flag("--weights", str, "imagenet", weights, metavar="NAME")
    taps = "levels to use, 1 = finest, or bN, the map after the N-th block; default: all levels"
    flag("--taps", flags.taps, None, taps, metavar="1,2,..")
    context = "further levels from the last: its mean over the image, or over odd windows"
    flag("--context", flags.contexts, [], context, metavar="image,5,..")
    flag("--dilate", flags.natural, 0, flags.DILATE)
    flag("--size", flags.positive, DEFAULT_SIZE, "shorter side of the network's input, in pixels")
    flag("--per-class", flags.positive, 3, "pixels of each class present in an image")
    flag("--seed", flags.natural, 0, "for the choice of pixels and for random weights")
    flag("--skip-bad", bool, False, flags.SKIP_BAD)
    return parser.parse_args()


def choose_pixels(dataset: VOCFolder, per_class: int, seed: int) -> Iterable[np.ndarray]:
    """Draws pixels of every class in every mask, see `sample_pixels`.

    Returns:
        pixels (N, 3) int64: image index, y, x in the original mask; labels (N,) uint8; areas (N,)
        float32, the share of its image that a pixel stands for.
    """
    drawn = []
    for index in runtime.bar(range(len(dataset)), len(dataset), "mask", "choose pixels"):
        image_id, mask = dataset.ids[index], dataset.mask(index)
        places, *of_pixels = sample_pixels(mask, per_class, seed, image_id)
        drawn.append((np.insert(places, 0, index, axis=1), *of_pixels))
    return map(np.concatenate, zip(*drawn))


@torch.inference_mode()
def extract(
    hypercolumn: Hypercolumn,
    dataset: VOCFolder,
    pixels: np.ndarray,
    place: Path,
    workers: int,
    seed: int,
) -> np.ndarray:
    """Fills the rows on disk with the hypercolumns of this process's share of the images.

    Returns:
        (Z,) float32, their std over all images of all processes, labelled or not: at random places.
    """
    device, rows = hypercolumn.mean.device, open_rows(place)
    places = open_rows(place, "places") if (place / "places.npy").exists() else None
    sums = torch.zeros(2, hypercolumn.Z, dtype=torch.float64)  # of features, and of their squares
    starts = np.searchsorted(pixels[:, 0], range(len(dataset) + 1))  # rows of image i: from, to
    mine = distributed.share(len(dataset))
    loader = runtime.image_loader(dataset, mine, workers)
    for index, sample in zip(mine, runtime.bar(loader, len(mine), "image", "extract")):
        levels = hypercolumn(sample.image[None].to(device))  # (1, C_l, h_l, w_l) each
        of_image = slice(starts[index], starts[index + 1])
        chosen = pixel_centres(torch.from_numpy(pixels[of_image, 1:]), sample.mask.shape)  # (n, 2)
        points = torch.cat([chosen, random_places(seed, sample.id)]).to(device)
        columns = hypercolumn.at_points(levels, points[None])[0].float().cpu()  # (n + .., Z)
        rows[of_image], elsewhere = columns[: len(chosen)].numpy(), columns[len(chosen) :].double()
        sums += torch.stack([elsewhere.sum(0), elsewhere.square().sum(0)])
        if places is not None:
            places[index] = elsewhere[:KEPT]
    rows.flush()
    mean, mean_square = distributed.total(sums) / (PLACES * len(dataset))
    return (mean_square - mean**2).clamp(min=0).sqrt().float().numpy()


def main() -> None:
    args = parse()
    device = runtime.choose_device(args.device)
    if distributed.local_world_size() < distributed.world_size():
        raise UserError("step 1 runs on one machine, as its processes write into one mapped file")
    place = folder.step_folder(args.run, 1)
    folder.check_free(place, 1)
    how = ResizeImage(args.size), args.limit, args.skip_bad
    dataset = VOCFolder(args.data, args.split, *how, needs_lists=False)
    built = args.weights, args.taps, args.seed, args.context, args.dilate
    hypercolumn = Hypercolumn(args.backbone, *built).to(device).eval()
    hypercolumn.check_size(args.size)
    weights = hypercolumn.features.weights
    channels = "+".join(map(str, hypercolumn.channels))
    where = f"{dataset.root}, split {args.split}"
    runtime.print_header(
        1,
        data=f"{where}: {len(dataset)} images, {len(dataset.classes)} classes",
        network=f"{args.backbone}, weights {weights}, Z = {channels} = {hypercolumn.Z}",
        device=runtime.describe(device),
        flags=runtime.as_typed(args.changed),
    )
    if len(dataset) < FEW_IMAGES and any(part.isdigit() for part in args.context):
        dataset.notes.append(f"windows (--context) may do harm with fewer than {FEW_IMAGES} images")
    photos = dataset.photo_hashes()
    images = dataset.checksum(photos)
    distributed.check_same([args.settings, images])

    with folder.new_folder(place) as new:
        counts, widths = dataset.measure(args.size)  # pixels of each class, the last of void
        dataset.note_labels(counts, widths, args.size)
        pixels, labels, areas = choose_pixels(dataset, args.per_class, args.seed)
        check_several(labels, where)
        if distributed.is_main():
            create_rows(new, len(labels), hypercolumn.Z)
            if counts[:-1].sum() < CLICKED * counts.sum():
                create_rows(new, len(dataset), KEPT, hypercolumn.Z, name="places")
        distributed.barrier()
        spread = extract(hypercolumn, dataset, pixels, new, args.workers, args.seed)
        distributed.barrier()
        if distributed.is_main():
            save_rows(new, labels, pixels, areas, dataset.ids, photos, spread)
            save_extractor(new / "backbone.pt", hypercolumn)
            skipped = folder.save_skipped(new, dataset.skipped)
            made_of = [hypercolumn.spec(), args.size, args.per_class, args.seed, images]
            made = hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]
            names, colours = dataset.classes.names, dataset.classes.colours
            drawn = np.bincount(labels, minlength=len(names)).tolist()
            facts = {"id": made, "classes": names, "colours": colours, "rows_per_class": drawn}
            scores = {"images": len(dataset), "rows": len(labels)}
            args.settings |= {"--taps": hypercolumn.taps, "--weights": weights}  # what it was
            given = vars(args) | {"data": dataset.root}
            config = folder.save_config(new, 1, given, **facts, **scores, scores=scores)
    if distributed.is_main():
        wrote = f"{len(labels)} hypercolumns of {hypercolumn.Z} channels from {len(dataset)} images"
        folder.finish(place, 1, config, wrote + skipped, ("train_cls.py", "--run", args.run))


if __name__ == "__main__":
    runtime.run_script(main)
