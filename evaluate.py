"""Step 4: validation images -> mIoU, at each image's original size, void ignored.

    python evaluate.py --data data/VOCdevkit/VOC2012 --run runs/voc
    python evaluate.py --run runs/voc --save-predictions --tta flip,0.75,1.25
    python evaluate.py --run runs/voc --checkpoint runs/voc/2_cls/dense.pt --out runs/voc/frozen
    python evaluate.py --checkpoint voc               # the network that comes with the project
    torchrun --nproc-per-node 4 -- evaluate.py --run runs/voc     # four GPUs: the same score
    python evaluate.py --data DIR --predictions FOLDER            # index PNGs of any program

Reads RUN/3_seg/best.pt, or RUN/2_cls/dense.pt where step 3 was not run. Writes RUN/4_eval/, the
folder of --out, or runs/scores/ where there is no run: metrics.json, per_class.csv, per_image.csv,
confusion.csv, per_image.npz (pixels by image and class, for `python -m losses.compare`),
iou.png, confusion.png, with --save-predictions predictions/ID.png (8-bit palette indices at the
original size, as the VOC server takes them), config.json. A bad image ends the scoring: left out,
it would change the score. A list without any mask, as VOC's test, is predicted alone, with
--save-predictions --out DIR. --predictions scores FOLDER/ID.png (palette or grey) alike.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data import UserError
from data.classes import VOID
from data.image_files import check_sizes, colour_mask, read_mask
from data.transforms import ResizeImage
from data.voc import VOCFolder
from losses.metrics import ConfusionMatrix
from models.run import args as flags
from models.run import chain, distributed, folder, runtime
from models.run.record import save_scores
from models.segmenter import Segmenter

PROTOCOL = "original size, void ignored, one confusion matrix over all images"
CHOICE = ("--split", "--limit")  # of images: told by their number and the name of their list
Prediction = tuple[str, np.ndarray, np.ndarray]  # id, prediction (H, W) and target (H, W) uint8


def parse() -> argparse.Namespace:
    parser = flags.Parser(__doc__, needs_run=False)
    flag = parser.flag
    flags.add_data_flags(parser, split="val", steps=(3, 2))
    flag("--checkpoint", Path, None, "network; default: the run's", free=True, metavar="FILE")
    flags.add_view_flags(parser)
    flags.add_speed_flags(parser)
    flag("--save-predictions", bool, False, "save predictions/ID.png for VOC's server", free=True)
    out = "where to write; default: RUN/4_eval"
    flag("--out", flags.replaced, None, out, free=True, metavar="DIR")
    flag("--predictions", Path, None, "score index PNGs, ID.png", free=True, metavar="FOLDER")
    args = parser.parse_args()
    if args.predictions:
        others = ("run", "checkpoint", "compile", "save_predictions")
        wrong = [name for name in args.changed if name not in CHOICE]
        wrong += [f"--{name.replace('_', '-')}" for name in others if getattr(args, name)]
        if wrong:
            parser.error(f"argument {wrong[0]}: not allowed with argument --predictions")
    elif not (args.run or args.checkpoint):
        parser.error("the following arguments are required: --run")
    return args


def predict_split(segmenter: Segmenter, dataset: VOCFolder, workers: int) -> Iterator[Prediction]:
    """What the network sees in this process's share of the images."""
    mine = distributed.share(len(dataset))
    loader = runtime.image_loader(dataset, mine, workers)
    for sample in runtime.bar(loader, len(mine), "image"):
        prediction = segmenter.predict(sample.image, sample.mask.shape, sample.id)[0].numpy()
        yield sample.id, prediction, sample.mask.numpy()


def read_predictions(place: Path, dataset: VOCFolder) -> Iterator[Prediction]:
    """What another program saw in the images: FOLDER/ID.png."""
    for index, image_id in enumerate(runtime.bar(dataset.ids, len(dataset), "image")):
        path = place / f"{image_id}.png"
        check_sizes(dataset.files(index)[0], path)
        prediction = read_mask(path, dataset.classes, may_be_void=False)
        yield image_id, prediction, dataset.mask(index)


def score(
    predictions: Iterator[Prediction], dataset: VOCFolder, save_to: Path | None
) -> tuple[ConfusionMatrix, np.ndarray]:
    """Says the scores over all images of all processes; saves index PNGs in the folder `save_to`.

    Returns:
        The confusion matrix, and (N, C, 3) pixels of each image, in the order of the data set: see
        `ConfusionMatrix.class_counts`.
    """
    matrix, counts, void = ConfusionMatrix(len(dataset.classes)), {}, 0
    if save_to:
        save_to.mkdir(exist_ok=True)
    for image_id, prediction, target in predictions:
        of_image = ConfusionMatrix(len(dataset.classes))
        of_image.update(prediction, target)
        matrix.counts += of_image.counts
        counts[image_id] = of_image.class_counts()
        void += int((target == VOID).sum())
        if save_to:
            colour_mask(prediction, dataset.classes).save(save_to / f"{image_id}.png")
    parts, of_images, voids = zip(*distributed.gather((matrix.counts, counts, void)))
    matrix.counts, void = sum(parts), sum(voids)
    counts = {image_id: pixels for part in of_images for image_id, pixels in part.items()}
    if dataset.has_masks:
        dataset.note_labels(np.append(matrix.counts.sum(axis=1), void)[None])
        for doubt in matrix.doubts(dataset.classes.names):
            print(f"  note: {doubt}")
        print(matrix.table(dataset.classes.names))
    return matrix, np.stack([counts[image_id] for image_id in dataset.ids])


def main() -> None:
    args = parse()
    device = runtime.choose_device(args.device, single=bool(args.predictions))
    place = args.out or (folder.step_folder(args.run, 4) if args.run else Path("runs/scores"))
    source, made_from, history, seen = None, None, {}, 0
    if args.predictions:
        dataset = VOCFolder(args.data, args.split, None, args.limit)
        predictions = read_predictions(args.predictions, dataset)
        made = network = f"predictions in {args.predictions}"
    else:
        segmenter, source = chain.trained_segmenter(args.run, args.checkpoint)
        made_from, history = segmenter.identity(), segmenter.history
        segmenter.look(flags.views(args.tta, args.refine, args.tile), args.size, args.dilate)
        args.settings["--size"] = segmenter.size
        how = ResizeImage(segmenter.input_size), args.limit
        dataset = VOCFolder(args.data, args.split, *how, needs_masks=not args.save_predictions)
        if not (dataset.has_masks or args.out):
            raise UserError(f"no mask of {args.split} to score; --out FOLDER predicts alone")
        chain.check_classes(segmenter.classes.names, dataset.classes.names, source, dataset.root)
        seen = segmenter.has_seen(dataset.photo_hashes())
        network = f"{source} ({segmenter.hypercolumn.backbone}, shorter side {segmenter.size})"
        made = f"trained on {segmenter.trained_on}, input shorter side {segmenter.size}"
        runtime.prepare(segmenter, device, args.amp, args.compile)
        predictions = predict_split(segmenter, dataset, args.workers)
    where = None if args.predictions else runtime.describe(device, args.amp, args.compile)
    facts = {"data": f"{dataset.root}, split {args.split}: {len(dataset)} images"}
    facts |= {"network": network, "protocol": PROTOCOL, "device": where}
    runtime.print_header(4, **facts, flags=runtime.as_typed(args.changed))
    if args.run and not args.checkpoint and not chain.is_finished(args.run, 3):
        print(f"  note: step 3 has not finished in this run; {source} is scored")
    if seen:
        print(f"  note: {seen} of the images have trained this network: the score flatters it")
    if not dataset.has_masks:
        print(f"  note: no mask of {args.split} is there: its images are predicted, not scored")

    distributed.check_same([args.settings, made_from, dataset.ids])
    with folder.new_folder(place, 4) as new:
        save_to = new / "predictions" if args.save_predictions else None
        matrix, counts = score(predictions, dataset, save_to)
        if not distributed.is_main():
            return
        over = f"over {matrix.classes_in_mean()} of {len(dataset.classes)} classes"
        how = f"{made}; {len(dataset)} images of {args.split} at {PROTOCOL}, mean {over}"
        views = {flag: value for flag, value in args.changed.items() if flag not in CHOICE}
        how += f"; {runtime.as_typed(views) or 'one view of each'}"
        how += f"; {seen} of the images have trained the network" * bool(seen)
        facts = {"protocol": how, "checkpoint": source, "images_trained_on": seen}
        if dataset.has_masks:
            save_scores(new, matrix, counts, dataset.ids, dataset.classes.names, facts)
        given = vars(args) | {"checkpoint": source, "data": dataset.root}
        facts = {"made_from": made_from, "history": history, "scores": matrix.scores()}
        config = folder.save_config(new, 4, given, scored_best=not args.checkpoint, **facts)
    split = ("--split", args.split) if args.split != "val" else ()
    then = ("visualize.py", "--data", dataset.root, *split, "--run", args.run)
    scored = f"mIoU {matrix.miou():.4f} {over}" if dataset.has_masks else "predictions"
    scored += f", {len(dataset)} images"
    folder.finish(place, 4, config, scored, then if args.run and not args.out else ())


if __name__ == "__main__":
    runtime.run_script(main)
