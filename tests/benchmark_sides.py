"""Both sides of what the benchmark times: the project's work and the textbook's."""

import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW
from torch.utils.data import DataLoader

from data.classes import VOC, VOID
from data.features import create_rows, open_rows
from data.sampling import draw_kept, draw_pixels, pixel_centres, sample_pixels
from data.shapes import make_shapes
from data.transforms import ResizeImage, resize_mask
from data.voc import Sample, VOCFolder
from losses.loss import segmentation_loss
from models.checkpoint import load_segmenter, save_segmenter
from models.classifier import DenseClassifier
from models.hypercolumn import Hypercolumn
from models.run import args as flags
from models.run import runtime
from models.run.training import Training, build_optimizer, build_schedule
from models.segmenter import Segmenter
from tests.textbook import Textbook

BACKBONES = ("vgg11", "resnet18", "mobilenet_v2")  # the first has all rows
OF_ALL = ("predict", "train_step")  # the rows that the others have, too
PER_CLASS = 3  # pixels of a class that step 1 samples
PIXELS = 1024  # of an image that train_step_pixels draws
BATCH = 8  # images of the rows that end in _batch
MB = 1e6  # bytes
RSS = 1 if sys.platform == "darwin" else 1024  # bytes in the unit of `ru_maxrss`


def prepare(folder: Path, images: int, size: int, drawn: int) -> None:
    """Makes `folder/shapes`, `images` of them in trainval, and a segmenter of each backbone.

    Args:
        size, drawn: shorter side of the network's input and of the pictures.
    """
    make_shapes(folder / "shapes", -(-max(images, 7) * 8 // 7), drawn)  # trainval is 7 of 8
    dataset = VOCFolder(folder / "shapes", "trainval", ResizeImage(size), limit=4)
    for backbone in BACKBONES:
        hypercolumn = Hypercolumn(backbone, "random").eval()
        torch.manual_seed(0)
        with torch.inference_mode():
            levels = [hypercolumn(sample.image[None]) for sample in dataset]
            columns = [hypercolumn.at_points(level, torch.rand(1, 500, 2))[0] for level in levels]
        std, mean = torch.std_mean(torch.cat(columns), dim=0)
        head = DenseClassifier(hypercolumn.channels, mean, std, len(VOC))
        segmenter = Segmenter(hypercolumn, head, size, 2, VOC)
        save_segmenter(folder / f"{backbone}.pt", segmenter)


class Work:
    """Both sides of each row that is timed in this process, from the folder of `prepare`.

    Args:
        images: of the row `sample`; the others work on one.
        backbone: one of `BACKBONES`.

    Attributes:
        calls: by row and side ("ours", "naive": the textbook's, "bare"), what does the work once.
            Another backbone than the first stands in the names of its rows.
    """

    def __init__(
        self, folder: Path, images: int, device: torch.device, backbone: str = BACKBONES[0]
    ):
        self.place, self.images, self.device = folder / "features", images, device
        segmenter = load_segmenter(folder / f"{backbone}.pt")[0]
        self.textbook, self.segmenter = Textbook(segmenter).to(device), segmenter.to(device)
        optimizer = build_optimizer("adamw", segmenter.head.parameters(), 1e-3, 0.01)
        schedule = build_schedule(optimizer, "cosine", 1, 1000)
        self.training = Training(segmenter, optimizer, schedule)
        self.textbook_optimizer = AdamW(self.textbook.head.parameters())
        shapes, size = folder / "shapes", segmenter.size
        self.photos = VOCFolder(shapes, "trainval", ResizeImage(size))
        workers = flags.default_workers()
        self.loader = DataLoader(
            self.photos,
            batch_size=None,
            sampler=range(images),
            num_workers=workers,
            persistent_workers=workers > 0,  # else each round would wait for them to start
        )
        landscape = next(i for i, s in enumerate(self.photos) if s.mask.shape[1] > s.mask.shape[0])
        self.photo = self.photos[landscape]
        self.image = self.photo.image[None].to(device)  # (1, 3, H, W)
        self.mask = resize_mask(self.photo.mask, self.image.shape[-2:])
        self.generator = torch.Generator().manual_seed(0)
        self.target = self.mask[None].long().to(device)  # (1, H, W)
        bare = partial(self.bare, self.textbook.normalise(self.image))
        predict = {"naive": partial(self.textbook.predict, self.photo), "bare": bare}
        train = {"naive": self.train_textbook, "bare": bare}
        images = self.textbook.normalise(self.image).expand(BATCH, -1, -1, -1)
        batch = {"naive": partial(self.train_textbook, BATCH), "bare": partial(self.bare, images)}
        self.calls: dict[str, dict[str, Callable[[], Any]]] = {
            "sample": {
                "ours": partial(self.sample, self.columns),
                "naive": partial(self.sample, self.textbook.columns),
                "bare": self.sample_bare,
            },
            "predict": {"ours": self.predict, **predict},
            "train_step": {"ours": self.train, **train},
            "train_step_pixels": {"ours": partial(self.train, PIXELS), **train},
            "train_step_batch": {"ours": partial(self.train, None, BATCH), **batch},
            "train_step_pixels_batch": {"ours": partial(self.train, PIXELS, BATCH), **batch},
        }
        if backbone != BACKBONES[0]:
            self.calls = {f"{row}_{backbone}": self.calls[row] for row in OF_ALL}

    def seconds(self, row: str, side: str) -> float:
        """How long the row's work takes per image."""
        start = time.perf_counter()
        self.calls[row][side]()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        images = {"sample": self.images, "batch": BATCH}.get(row.split("_")[-1], 1)
        return (time.perf_counter() - start) / images

    @torch.inference_mode()
    def bare(self, x: Tensor) -> None:
        """The backbone alone, on normalised images (B, 3, H, W)."""
        self.textbook.features(x)

    def sample(self, columns: Callable[[Sample, Tensor], Tensor]) -> None:
        """Step 1 on the first images; `columns` gives hypercolumns (n, Z) of an image's pixels."""
        chosen = [
            sample_pixels(self.photos.mask(index), PER_CLASS, 0, self.photos.ids[index])
            for index in range(self.images)
        ]
        starts = np.cumsum([0] + [len(labels) for _, labels, _ in chosen])
        self.place.mkdir(exist_ok=True)
        create_rows(self.place, int(starts[-1]), self.segmenter.hypercolumn.Z)
        rows = open_rows(self.place)
        for index, sample in enumerate(self.loader):
            found = columns(sample, torch.from_numpy(chosen[index][0]))
            rows[starts[index] : starts[index + 1]] = found.numpy()
        rows.flush()

    @torch.inference_mode()
    def columns(self, sample: Sample, pixels: Tensor) -> Tensor:
        """Hypercolumns (n, Z) as step 1 takes them, at pixels (n, 2) of the mask."""
        hypercolumn = self.segmenter.hypercolumn
        levels = hypercolumn(sample.image[None].to(self.device))
        points = pixel_centres(pixels, sample.mask.shape)
        return hypercolumn.at_points(levels, points[None].to(self.device))[0].cpu()

    def sample_bare(self) -> None:
        """The same images, read and put through the bare backbone."""
        for index in range(self.images):
            photo = torch.from_numpy(self.photos.image(index)).permute(2, 0, 1)
            photo = ResizeImage(self.segmenter.size)(photo)[None].to(self.device)
            self.bare(self.textbook.normalise(photo))

    def predict(self) -> Tensor:
        """The photo's class map at its original size."""
        return self.segmenter.predict(self.photo.image, self.photo.mask.shape)[0]

    def train(self, pixels: int | None = None, images: int = 1) -> None:
        """One step of step 3 on so many images, on all of their pixels or some of each."""
        head = self.segmenter.train().head
        one_by_one = self.device.type == "cpu" and not pixels  # as step 3 does it
        parts = images if one_by_one else 1
        photos = self.image.expand(images // parts, -1, -1, -1)
        points, target = None, self.target.expand(len(photos), -1, -1)
        for _ in range(parts):
            drawn = [draw_kept(head.widths, head.dropout, self.generator) for _ in photos]
            kept = [torch.stack(units).to(self.device) for units in zip(*drawn)]
            if pixels:
                pairs = [draw_pixels(self.mask, pixels, self.generator) for _ in photos]
                places, labels = zip(*pairs)
                points = pixel_centres(torch.stack(places), photos.shape[-2:]).to(self.device)
                target = torch.stack(labels).to(self.device)
            loss = segmentation_loss(self.segmenter(photos, points, kept), target) / parts
            loss.backward()
        self.training.step(loss)

    def train_textbook(self, images: int = 1) -> None:
        """The same step as the textbook has it."""
        self.textbook.head.train()  # not the backbone: its BatchNorm keeps its statistics
        photos, target = (x.expand(images, *x.shape[1:]) for x in (self.image, self.target))
        segmentation_loss(self.textbook(photos), target).backward()
        self.textbook_optimizer.step()
        self.textbook_optimizer.zero_grad()


def growth(
    row: str, side: str, folder: Path, images: int, device: torch.device, threads: int
) -> float:
    """MB by which the peak of this (fresh) process grows, over that of a bare forward."""
    torch.set_num_threads(threads)
    runtime.choose_device(str(device))  # sets the precision of convolutions, too
    work = Work(folder, images, device)
    work.calls["predict"]["bare"]()
    level = peak_bytes(device)
    for _ in range(2):  # a second training step has the optimizer's state, too
        work.calls[row][side]()
    return (peak_bytes(device) - level) / MB


def peak_bytes(device: torch.device) -> int:
    """Peak memory so far: allocated on a CUDA device, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS


def exactness(work: Work) -> dict[str, float]:
    """Largest differences of the two sides, each relative to the largest value.

    Pixels at which a gradient hangs on rounding are void.
    """
    segmenter, textbook, image = work.segmenter.eval(), work.textbook.eval(), work.image
    near_kinks = textbook.near_kinks(image, work.target.shape[1:])
    target = work.target.masked_fill(near_kinks, VOID)
    gradients = [
        torch.autograd.grad(
            segmentation_loss(network(image), target), list(network.head.parameters())
        )
        for network in (segmenter, textbook)
    ]
    grid = segmenter.grid(image)
    cells = torch.cartesian_prod(*map(torch.arange, grid))[::17].to(work.device)
    with torch.inference_mode():
        levels = segmenter.hypercolumn(image)
        points = segmenter.hypercolumn.at_points(levels, pixel_centres(cells[None], grid))
        dense = textbook.dense_map(image)[0, :, cells[:, 0], cells[:, 1]].T
        logits = segmenter(image), textbook(image)
    return {
        "logits": relative(*logits),
        "gradients": max(map(relative, *gradients)),
        "features": relative(points[0], dense),
    }


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()
