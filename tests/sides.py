"""Both sides of what the benchmark times: the project's work and the textbook's, on one picture or a few."""

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

import sample_features
from data.classes import VOC, VOID
from data.features import FeatureWriter
from data.sampling import sample_pixels
from data.shapes import make_shapes
from data.stream import batches, stream
from data.transforms import ResizeBoth, ResizeImage
from data.voc import VOCFolder, read_photo
from losses.batch import BatchLoss
from losses.loss import cross_entropy2d, weighting
from models import flags, runtime
from models.checkpoint import load_segmenter, save_segmenter
from models.classifier import DenseClassifier
from models.hypercolumn import Hypercolumn, pixel_centres
from models.schedule import warm_up_and_decay
from models.segmenter import Segmenter
from models.training import Training
from tests.naive import Textbook
from train_seg import LossOfPart, train_step

PER_CLASS, PIXELS = 3, 1024  # pixels of a class that step 1 samples; pixels of an image that train_step_pixels draws
BATCH = 2  # images that step 1 reads at a time
MB = 1e6  # bytes
RSS = 1 if sys.platform == "darwin" else 1024  # bytes in the unit of `ru_maxrss`


class Work:
    """Both sides of all that is timed in this process, from the folder of `prepare`.

    Attributes:
        calls: by row and side, what does the row's work once and returns its seconds per image.
    """

    def __init__(self, folder: Path, images: int, device: torch.device):
        self.folder, self.device, self.timed = folder, device, range(BATCH, BATCH + images)
        segmenter = load_segmenter(folder / "segmenter.pt")[0]
        self.textbook, self.segmenter = Textbook(segmenter).to(device), segmenter.to(device)
        self.photos, labelled = (
            VOCFolder(folder / "shapes", "trainval", resize(segmenter.size)) for resize in (ResizeImage, ResizeBoth)
        )
        landscape = next(index for index, photo in enumerate(self.photos) if photo.size[1] > photo.size[0])
        self.photo, self.labelled = self.photos[landscape], labelled[landscape]
        self.image = torch.from_numpy(self.photo.image)[None].to(device)
        self.target = torch.from_numpy(self.labelled.mask)[None].long().to(device)
        optimizer = AdamW(segmenter.head.parameters())
        scaler = torch.amp.GradScaler(enabled=False)
        self.training = Training({}, segmenter, optimizer, warm_up_and_decay(optimizer, 1000), scaler)
        self.naive_optimizer = AdamW(self.textbook.head.parameters())
        bare = partial(self.bare, self.textbook.normalise(self.image))
        timed = {
            ("sample", "naive"): self.sample_naive,
            ("sample", "bare"): self.sample_bare,
            ("predict", "ours"): self.predict,
            ("predict_bf16", "ours"): partial(self.predict, torch.bfloat16),
            ("predict", "naive"): partial(self.textbook.predict, self.photo),
            ("predict", "bare"): bare,
            ("train_step", "ours"): self.train,
            ("train_step_pixels", "ours"): partial(self.train, pixels=PIXELS),
            ("train_step", "naive"): self.train_naive,
            ("train_step", "bare"): bare,
        }
        self.calls: dict[tuple[str, str], Callable[[], float]] = {("sample", "ours"): self.sample}
        self.calls |= {
            key: partial(self.seconds, call, images if key[0] == "sample" else 1) for key, call in timed.items()
        }

    def seconds(self, call: Callable[[], Any], images: int = 1) -> float:
        """How long the call takes per image."""
        self.synchronise()
        start = time.perf_counter()
        call()
        self.synchronise()
        return (time.perf_counter() - start) / images

    def synchronise(self) -> None:
        """Waits until the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @torch.inference_mode()
    def bare(self, x: Tensor) -> None:
        """The backbone alone, on normalised images (B, 3, H, W)."""
        self.textbook.features(x)

    def predict(self, amp: torch.dtype | None = None) -> np.ndarray:
        """The photo's class map at its original size; autocast to `amp`."""
        self.segmenter.amp = amp
        predicted = self.segmenter.predict([self.photo])[0]
        self.segmenter.amp = None
        return predicted

    def train(self, pixels: int | None = None) -> None:
        """One step of step 3 on one image."""
        loss = BatchLoss(weighting("none"))
        network = LossOfPart(self.segmenter, loss, pixels, cache=None).train()
        train_step(network, [self.labelled], 1, self.training, loss, 1, len(VOC), 0, self.device)

    def train_naive(self) -> None:
        """The same step as the textbook has it."""
        self.naive_optimizer.zero_grad()
        cross_entropy2d(self.textbook.train()(self.image), self.target).backward()
        self.naive_optimizer.step()

    def sample(self) -> float:
        """The loop of step 1 from its second batch on: seconds per image, without the start of what reads them."""
        times, first = [], 0
        with FeatureWriter(self.folder / "features", self.segmenter.hypercolumn.Z) as writer:
            for samples in stream(self.photos, batches(range(self.timed.stop), BATCH), flags.default_workers()):
                chosen = [sample_pixels(sample.mask, PER_CLASS, 0, sample.id) for sample in samples]
                columns = sample_features.sample(self.segmenter.hypercolumn, samples, [pixels for pixels, _ in chosen])
                for index, (rows, (pixels, labels)) in enumerate(zip(columns, chosen), start=first):
                    writer.append(rows, labels, np.insert(pixels, 0, index, axis=1))
                first += len(samples)
                times.append(time.perf_counter())
        return (times[-1] - times[0]) / len(self.timed)

    def sample_naive(self) -> None:
        """The same pixels, read from dense maps."""
        with FeatureWriter(self.folder / "features", self.segmenter.hypercolumn.Z) as writer:
            for index in self.timed:
                sample = self.photos[index]
                pixels, labels = sample_pixels(sample.mask, PER_CLASS, 0, sample.id)
                writer.append(self.textbook.columns(sample, pixels), labels, np.insert(pixels, 0, index, axis=1))

    def sample_bare(self) -> None:
        """The same images through the bare backbone."""
        for image_id in self.photos.ids[BATCH : self.timed.stop]:
            photo = read_photo(self.photos.root / "JPEGImages" / f"{image_id}.jpg", self.photos.transform)[1]
            self.bare(self.textbook.normalise(torch.from_numpy(photo.image)[None].to(self.device)))


def prepare(folder: Path, images: int, size: int, drawn: int) -> None:
    """Draws `folder/shapes`, so many in trainval, and saves `folder/segmenter.pt`, standardised by four of them."""
    make_shapes(folder / "shapes", -(-max(images, 7) * 8 // 7), drawn)  # trainval is seven of eight
    dataset = VOCFolder(folder / "shapes", "trainval", ResizeImage(size), limit=4)
    hypercolumn = Hypercolumn("vgg11", "random").eval()
    torch.manual_seed(0)
    with torch.inference_mode():
        levels = [hypercolumn(torch.from_numpy(sample.image)[None]) for sample in dataset]
        columns = torch.cat([hypercolumn.at_points(level, torch.rand(1, 500, 2))[0] for level in levels])
    head = DenseClassifier(hypercolumn.channels, columns.mean(0), columns.std(0), len(VOC))
    save_segmenter(folder / "segmenter.pt", Segmenter(hypercolumn, head, size, 2, VOC.names, VOC.colours))


def peak_bytes(device: torch.device) -> int:
    """Peak memory so far: allocated on a CUDA device, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS


def growth(row: str, side: str, folder: Path, images: int, device: torch.device, threads: int) -> float:
    """MB by which this (fresh) process's peak grows over that of a bare forward when a row's work is done twice."""
    torch.set_num_threads(threads)
    runtime.choose_device(str(device))
    work = Work(folder, images, device)
    work.calls["predict", "bare"]()
    level = peak_bytes(device)
    for _ in range(2):  # a second training step has the optimizer's state, too
        work.calls[row, side]()
    return (peak_bytes(device) - level) / MB


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def exactness(work: Work) -> dict[str, float]:
    """How far the two sides are apart, relatively, and the share of pixels whose class bfloat16 leaves as it is."""
    segmenter, textbook, image = work.segmenter.eval(), work.textbook.eval(), work.image
    grid = segmenter.grid(image)
    cells = torch.cartesian_prod(*map(torch.arange, grid))[::17]
    target = work.target.masked_fill(textbook.near_kinks(image, work.target.shape[-2:]), VOID)
    gradients = [
        torch.autograd.grad(cross_entropy2d(network(image), target), list(network.head.parameters()))
        for network in (segmenter, textbook)
    ]
    with torch.inference_mode():
        centres = pixel_centres(cells[None], grid).to(work.device)
        points = segmenter.hypercolumn.at_points(segmenter.hypercolumn(image), centres)
        dense = textbook.dense_map(image)[0, :, cells[:, 0], cells[:, 1]].T
        return {
            "logits": relative(segmenter(image), textbook(image)),
            "gradients": max(map(relative, *gradients)),
            "features": relative(points[0], dense),
            "bf16_agreement": float((work.predict(torch.bfloat16) == work.predict()).mean()),
        }
