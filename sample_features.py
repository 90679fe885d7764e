"""Step 1: images -> sparse hypercolumns, a few pixels of every class present in each image.

    python sample_features.py --run runs/voc                  # VOC 2012 in ./data, VGG11, ImageNet
    python sample_features.py --run runs/mine --data DIR --weights random       # no download
    torchrun --nproc-per-node 4 -- sample_features.py --run runs/voc            # four GPUs

Writes RUN/1_features/: features.npy (N, Z) float32, labels.npy (N,), pixels.npy (N, 3: image index,
y, x in the original mask), areas.npy (N,: the share of its image that a pixel stands for), of
sparse labels places.npy (images, 8, Z: elsewhere in them), images.txt, photos.npy (of each a
hash), mean.npy, std.npy (Z,), backbone.pt (the extractor), config.json.
"""

import argparse

import numpy as np
import torch

from data import UserError
from data.features import Features, check_several, save_features
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
    flags.add_data_flags(parser, split="train", steps=(1,))
    backbone = "a classification network of torchvision, like resnet50; a wrong name lists all"
    flag("--backbone", str, "vgg11", backbone, metavar="NAME")
    weights = "imagenet (downloaded), another of torchvision's names, random, or a state-dict file"
    flag("--weights", str, "imagenet", weights, metavar="NAME")
    taps = "levels to use, 1 = finest, or bN, the map after the N-th block; default: all levels"
    flag("--taps", flags.taps, None, taps, metavar="1,2,..")
    context = "further levels: means of the last over the image, it at half size, or odd windows"
    flag("--context", flags.contexts, [], context, metavar="image,5,..")
    flag("--dilate", flags.natural, 0, flags.DILATE)
    flag("--size", flags.positive, DEFAULT_SIZE, "shorter side of the network's input, in pixels")
    flag("--per-class", flags.positive, 3, "pixels of each class present in an image")
    flag("--seed", flags.natural, 0, "for the choice of pixels and for random weights")
    flag("--skip-bad", bool, False, flags.SKIP_BAD)
    return parser.parse_args()


@torch.inference_mode()
def extract(
    hypercolumn: Hypercolumn,
    dataset: VOCFolder,
    photos: np.ndarray,
    counts: np.ndarray,
    per_class: int,
    seed: int,
    workers: int,
) -> Features:
    """Hypercolumns of pixels of each class in each mask, see `sample_pixels`; all on rank 0 alone.

    Args:
        photos: their hashes, see `VOCFolder.photo_hashes`.
        counts: (N, C + 1), the pixels of each class in each mask, void last.

    Raises:
        UserError: a feature is not finite.
    """
    device, found, mine = hypercolumn.mean.device, [], distributed.share(len(dataset))
    sums = torch.zeros(2, 3, hypercolumn.Z, dtype=torch.float64)  # of rows, of places: 1, x, x^2
    ends = np.minimum(counts[:, :-1], per_class).sum(1).cumsum()  # of the rows of each image
    features = np.empty((ends[-1], hypercolumn.Z), np.float32)  # perhaps gigabytes, so made once
    kept = KEPT if counts[:, :-1].sum() < CLICKED * counts.sum() else 0
    loader = runtime.image_loader(dataset, mine, workers)
    for index, sample in zip(mine, runtime.bar(loader, len(mine), "image")):
        levels = hypercolumn(sample.image[None].to(device))  # (1, C_l, h_l, w_l) each
        pixels, labels, areas = sample_pixels(sample.mask.numpy(), per_class, seed, sample.id)
        points = pixel_centres(torch.from_numpy(pixels), sample.mask.shape)  # (n, 2)
        points = torch.cat([points, random_places(seed, sample.id)])[None].to(device)
        columns = hypercolumn.at_points(levels, points)[0].float().cpu()  # (n + PLACES, Z)
        rows, places = columns.split([len(pixels), PLACES])
        for total, some in zip(sums, (rows.double(), places.double())):
            total += torch.stack([torch.ones_like(some), some, some.square()]).sum(1)
        features[ends[index] - len(rows) : ends[index]] = rows.numpy()
        places = places[None, :kept].numpy().copy()  # else all of `columns` stays
        found.append((labels, np.insert(pixels, 0, index, axis=1), areas, places))
    counts, sums, squares = torch.stack(distributed.gather(sums)).sum(0).unbind(1)
    means, mean_squares = sums / counts, squares / counts
    # Few pixels may hardly vary in a feature; divided by their own std, it would be huge elsewhere.
    std = (mean_squares - means**2).clamp(min=0).sqrt().amax(0)
    if not std.isfinite().all():
        raise UserError("the features are not all finite; are the backbone's weights damaged?")
    parts = distributed.gather(found)  # of every N-th image
    in_order = (parts[i % len(parts)][i // len(parts)] for i in range(len(dataset)))
    labels, pixels, areas, places = map(np.concatenate, zip(*in_order))
    distributed.merge(features, pixels[:, 0] % len(parts))
    moments = means[0].float().numpy(), std.float().numpy()
    return Features(features, labels, pixels, areas, *moments, photos, places if kept else None)


def main() -> None:
    args = parse()
    device = runtime.choose_device(args.device)
    place = folder.step_folder(args.run, 1)
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
    distributed.check_same([args.settings, images := dataset.checksum(photos)])

    with folder.new_folder(place, 1) as new:
        counts, outlines = dataset.measure()
        dataset.note_labels(counts, outlines, args.size)
        check_several(np.flatnonzero(counts.sum(0)[:-1]), where)
        how = args.per_class, args.seed, args.workers
        store = extract(hypercolumn, dataset, photos, counts, *how)
        if not distributed.is_main():
            return
        save_features(new, store)
        (new / "images.txt").write_text("\n".join([*dataset.ids, ""]), encoding="utf-8")
        save_extractor(new / "backbone.pt", hypercolumn)
        names, scores = dataset.classes.names, {"images": len(dataset), "rows": len(store.labels)}
        facts = {"classes": names, "colours": dataset.classes.colours, "skipped": dataset.skipped}
        facts["rows_per_class"] = np.bincount(store.labels, minlength=len(names)).tolist()
        made = [spec := hypercolumn.spec(), args.size, args.per_class, args.seed, images]
        args.settings |= {"--taps": hypercolumn.taps, "--weights": weights}  # what it was
        args.settings |= {"fingerprint": spec["fingerprint"], "images": images}
        given = vars(args) | {"data": dataset.root}
        config = folder.save_config(new, 1, given, id=made, **facts, **scores, scores=scores)
    wrote = f"{len(store.labels)} hypercolumns (Z = {hypercolumn.Z}) from {len(dataset)} images"
    folder.finish(place, 1, config, wrote, ("train_cls.py", "--run", args.run))


if __name__ == "__main__":
    runtime.run_script(main)
