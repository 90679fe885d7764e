"""Time and memory of the project, beside the textbook network and the bare backbone.

    python -m tests.benchmark --backbone resnet18

On pictures that it draws, with a backbone of random weights and an untrained head, it takes some
minutes on two cores. A line for each row of `Work`:

    seconds  per image, medians of interleaved rounds, as are the ratios
    bare     torchvision's features of the backbone alone in float32 (sample: and reading the JPEG)
    textbook every level upsampled, stacked, standardised, put through the 1x1 convolutions
    peak MB  growth of a fresh process's peak resident memory (CUDA: of what is allocated there)
             after the models are built and the bare one has run once; in 10^6 bytes
"""

import argparse
import multiprocessing
import platform
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW

from data.classes import VOC
from data.sampling import draw_kept, draw_pixels, pixel_centres, sample_pixels
from data.shapes import make_shapes
from data.transforms import ResizeImage, resize_mask
from data.voc import Sample, VOCFolder
from losses.loss import segmentation_loss
from models.checkpoint import load_segmenter, save_segmenter
from models.hypercolumn import Hypercolumn
from models.run import args as flags
from models.run import folder as run_folder
from models.run import runtime
from models.run.training import Training, build_optimizer, build_schedule
from tests.models.conftest import random_segmenter
from tests.textbook import Textbook

WARM_UP = 2  # rounds that do not count
PER_CLASS = 3  # pixels of a class that step 1 samples
PIXELS = 1024  # of an image that train_step_pixels draws
BATCH = 8  # images of the rows that end in _batch
SIDES = ("ours", "textbook", "bare")
MB = 1e6  # bytes
RSS = 1 if sys.platform == "darwin" else 1024  # bytes in the unit of `ru_maxrss`


def prepare(folder: Path, backbone: str, images: int, size: int, drawn: int) -> None:
    """Makes `folder/shapes`, shorter side `drawn`, and `folder/network.pt`, of inputs of `size`."""
    make_shapes(folder / "shapes", -(-max(images, 7) * 8 // 7), drawn)  # trainval is 7 of 8
    segmenter = random_segmenter(backbone, size, 2, (256, 256), VOC)
    save_segmenter(folder / "network.pt", segmenter)


class Work:
    """What is timed: ours, the textbook's and the bare backbone's way, from `prepare`'s folder.

    The row `sample` works on so many `images`, the others on one, or on `BATCH`. `calls` has by row
    what does the work once, for each of `SIDES`.
    """

    def __init__(self, folder: Path, images: int, device: torch.device):
        self.place, self.count, self.device = folder / "features.npy", images, device
        segmenter = load_segmenter(folder / "network.pt")[0]
        self.textbook, self.segmenter = Textbook(segmenter).to(device), segmenter.to(device)
        optimizer = build_optimizer("adamw", segmenter.head.parameters(), 1e-3, 0.01)
        self.training = Training(segmenter, optimizer, build_schedule(optimizer, "cosine", 1, 1000))
        self.textbook_optimizer = AdamW(self.textbook.head.parameters())
        self.photos = VOCFolder(folder / "shapes", "trainval", ResizeImage(segmenter.size))
        self.photo = next(s for s in self.photos if s.mask.shape[1] > s.mask.shape[0])  # landscape
        self.image = self.photo.image[None].to(device)  # (1, 3, H, W)
        self.mask = resize_mask(self.photo.mask, self.image.shape[-2:])
        self.target = self.mask[None].long().to(device)  # (1, H, W)
        self.generator = torch.Generator().manual_seed(0)
        samples = [partial(self.sample, of) for of in (self.columns, self.textbook.columns)]
        predict = partial(segmenter.predict, self.photo.image, self.photo.mask.shape)
        textbook, bare = partial(self.textbook.predict, self.photo), partial(self.bare, self.image)
        self.calls: dict[str, tuple[Callable[[], Any], ...]] = {
            "sample": (*samples, self.sample_bare),
            "predict": (predict, textbook, bare),
        }
        for batch, count in (("", 1), ("_batch", BATCH)):
            photos = self.image.expand(count, -1, -1, -1)
            others = partial(self.train_textbook, photos), partial(self.bare, photos)
            for name, pixels in (("train_step", None), ("train_step_pixels", PIXELS)):
                self.calls[name + batch] = partial(self.train, photos, pixels), *others

    def seconds(self, row: str) -> list[float]:
        """How long the row's work takes per image, on each side."""
        images = {"sample": self.count, "batch": BATCH}.get(row.split("_")[-1], 1)
        found = []
        for call in self.calls[row]:
            start = time.perf_counter()
            call()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            found.append((time.perf_counter() - start) / images)
        return found

    @torch.inference_mode()
    def bare(self, photos: Tensor) -> None:
        self.textbook.features(self.textbook.normalise(photos))

    def sample_bare(self) -> None:
        """The images of `sample`, read and put through the bare backbone."""
        for index in range(self.count):
            photo = torch.from_numpy(self.photos.image(index)).permute(2, 0, 1)
            self.bare(ResizeImage(self.segmenter.size)(photo)[None].to(self.device))

    def sample(self, columns: Callable[[Sample, Tensor], Tensor]) -> None:
        """Step 1 on the first images; `columns` gives hypercolumns (n, Z) of an image's pixels."""
        rows = []
        for index in range(self.count):
            mask, image_id = self.photos.mask(index), self.photos.ids[index]
            pixels = sample_pixels(mask, PER_CLASS, 0, image_id)[0]
            rows.append(columns(self.photos[index], torch.from_numpy(pixels)))
        np.save(self.place, torch.cat(rows).numpy())

    @torch.inference_mode()
    def columns(self, sample: Sample, pixels: Tensor) -> Tensor:
        """Hypercolumns (n, Z) as step 1 takes them, at pixels (n, 2) of the mask."""
        levels = self.segmenter.hypercolumn(sample.image[None].to(self.device))
        points = pixel_centres(pixels, sample.mask.shape)[None].to(self.device)
        return Hypercolumn.at_points(levels, points)[0].cpu()

    def train(self, photos: Tensor, pixels: int | None) -> None:
        """One step of step 3 on photos, on all of their pixels or some of each."""
        head = self.segmenter.train().head
        one_by_one = self.device.type == "cpu" and not pixels  # as step 3 does it
        parts = photos.split(1 if one_by_one else len(photos))
        for part in parts:
            drawn = [draw_kept(head.widths, head.dropout, self.generator) for _ in part]
            kept = [torch.stack(units).to(self.device) for units in zip(*drawn)]
            points, target = None, self.target.expand(len(part), -1, -1)
            if pixels:
                pairs = [draw_pixels(self.mask, pixels, self.generator) for _ in part]
                places, labels = map(torch.stack, zip(*pairs))
                points = pixel_centres(places, part.shape[-2:]).to(self.device)
                target = labels.to(self.device)
            loss = segmentation_loss(self.segmenter(part, points, kept), target) / len(parts)
            loss.backward()
        self.training.step(loss)

    def train_textbook(self, photos: Tensor) -> None:
        """The same step as the textbook has it."""
        self.textbook.head.train()  # not the backbone: its BatchNorm keeps its statistics
        target = self.target.expand(len(photos), -1, -1)
        segmentation_loss(self.textbook(photos), target).backward()
        self.textbook_optimizer.step()
        self.textbook_optimizer.zero_grad()


def growth(row: str, side: int, folder: Path, images: int, device: torch.device, threads) -> float:
    """MB by which the peak of this (fresh) process grows, over that of a bare forward."""
    torch.set_num_threads(threads)
    runtime.choose_device(str(device))  # sets the precision of convolutions, too
    work = Work(folder, images, device)
    work.bare(work.image)
    level = peak_bytes(device)
    for _ in range(2):  # a second training step has the optimizer's state, too
        work.calls[row][side]()
    return (peak_bytes(device) - level) / MB


def peak_bytes(device: torch.device) -> int:
    """Peak memory so far: allocated on a CUDA device, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS


def measure(
    folder: Path, images: int, device: torch.device, rounds: int, with_peaks: bool
) -> list[dict[str, Any]]:
    """Prints and gives the rows; `folder`, `images` and `device` are those of `Work`."""
    work, rows = Work(folder, images, device), []
    processes = multiprocessing.get_context("forkserver")
    for name in work.calls:
        # All sides in each round, so that a moment in which the machine is slow slows all of them.
        taken = np.array([work.seconds(name) for _ in range(WARM_UP + rounds)])[WARM_UP:]
        ours, textbook, bare = taken.T
        found = dict(zip((f"{side} s" for side in SIDES), taken.T))
        found |= {"ours/bare": ours / bare, "textbook/ours": textbook / ours}
        row: dict[str, Any] = {"name": name}
        row |= {title: float(np.median(values)) for title, values in found.items()}
        for side in (0, 1) if with_peaks else ():
            how = name, side, folder, images, device, torch.get_num_threads()
            with processes.Pool(1) as pool:
                row[f"{SIDES[side]} peak MB"] = pool.apply(growth, how)
        rows.append(row)
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else v for k, v in row.items()))
    return rows


def main() -> None:
    how = {"description": __doc__, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser("python -m tests.benchmark", **how)
    flag = parser.add_argument
    flag("--backbone", default="vgg11", help="one of torchvision's")
    flag("--quick", action="store_true", help="fewer rounds and images, no memory")
    flag("--threads", type=flags.positive, default=2, help="of torch on the CPU")
    flag("--device", default="cpu", help="a torch device")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = runtime.choose_device(args.device)
    print(args.backbone, device, platform.platform(), f"{args.threads} threads", end=", ")
    print(", ".join(f"{key} {value}" for key, value in run_folder.versions().items()), flush=True)
    rounds, images = (4, 2) if args.quick else (9, 10)
    with TemporaryDirectory() as place:
        prepare(Path(place), args.backbone, images, size=224, drawn=375)  # shorter sides, pixels
        measure(Path(place), images, device, rounds, with_peaks=not args.quick)


if __name__ == "__main__":
    runtime.run_script(main)
