"""A trained network for photos, outside of the scripts: `from models import load`."""

import io
import os
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.classes import VOID
from data.image_files import read_image
from data.transforms import ResizeImage
from models.run.runtime import find_device
from models.segmenter import Segmenter

Photo: TypeAlias = str | Path | bytes | BinaryIO | Image.Image | np.ndarray | Tensor


class Predictor:
    """A trained network; several threads may predict with it.

    On a GPU it computes in exact float32, as the scripts do: cuDNN's TensorFloat-32 is turned off.
    In processes that are forked from then on torch has one thread: the others are lost.

    Args:
        segmenter: the network.
        device: a torch device, or "auto": cuda, else mps, else cpu.

    Attributes:
        names: of the classes, C of them; a mask holds indices into them.
        colours: their RGB colours, 0..255.
        segmenter: the network itself; `segmenter.views` says how it looks at a photo.
    """

    def __init__(self, segmenter: Segmenter, device: str = "auto"):
        self.segmenter = segmenter.to(find_device(device))
        self.names, self.colours = segmenter.classes.names, segmenter.classes.colours
        _use_one_thread_after_forks()

    def predict(
        self,
        photos: Photo | Sequence[Photo],
        probabilities: bool = False,
        confidence: bool = False,
        threshold: float = 0.0,
    ) -> Any:
        """The classes of each pixel.

        Args:
            photos: a photo, or a list of them, each: a path, an opened file or its bytes, or a PIL
                image, all turned upright as their EXIF data say; an array (H, W), (H, W, 1) or
                (H, W, 3) or a tensor (3, H, W), uint8 or floating point 0..1.
            probabilities: of all classes, not the most likely class.
            confidence: the probability of the most likely class, too.
            threshold: less likely pixels become `data.classes.VOID`.

        Returns:
            (H, W) uint8 class ids; with `confidence` a pair of these and (H, W) float32; or
            (C, H, W) float32 probabilities. Of a list, a list of them.

        Raises:
            UserError: a file that is missing or no photo; the others of a list are lost, too.
            ValueError, TypeError: an array or tensor of another shape or dtype, another threshold.
        """
        if probabilities and (confidence or threshold):
            raise ValueError("probabilities are of all classes: without confidence and threshold")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold {threshold}: a probability is from 0 to 1")
        how = probabilities, confidence, threshold
        if isinstance(photos, list | tuple):
            found = []
            for index, photo in enumerate(photos):
                try:
                    found.append(self.predict(photo, *how))
                except (ValueError, TypeError) as error:
                    raise type(error)(f"photo {index} of the list: {error}") from None
            return found
        pixels, segmenter = to_array(photos), self.segmenter
        if not probabilities:
            classes, sure = (part.numpy() for part in predict_photo(segmenter, pixels))
            classes[sure < threshold] = VOID
            return (classes, sure) if confidence else classes
        parts = segmenter.rows(network_input(segmenter, pixels), pixels.shape[:2])
        return torch.cat([part.cpu() for part in parts], dim=1).numpy()

    def overlay(self, photo: Photo, mask: np.ndarray | None = None) -> Image.Image:
        """The photo with the classes tinted, outlined and named, at its own size.

        Args:
            photo: as in `predict`.
            mask: (H, W) class ids, an array or a tensor, if they are known already.

        Raises:
            ValueError: the mask has another size than the photo.
        """
        from data.figures.overlay import overlay  # matplotlib is not needed to predict

        pixels, mask = to_array(photo), np.asarray(self.predict(photo) if mask is None else mask)
        if mask.shape != pixels.shape[:2]:
            raise ValueError(f"expected a mask {pixels.shape[:2]} for this photo, got {mask.shape}")
        return overlay(pixels, mask, self.segmenter.classes)


@cache
def _use_one_thread_after_forks() -> None:
    """Waiting for threads of the parent, which a fork does not copy, torch would hang."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


def network_input(segmenter: Segmenter, pixels: np.ndarray) -> Tensor:
    """A photo (H, W, 3) uint8 as `Segmenter.predict` takes it: (3, h, w)."""
    return ResizeImage(segmenter.input_size)(torch.from_numpy(pixels).permute(2, 0, 1))


def predict_photo(
    segmenter: Segmenter, pixels: np.ndarray, name: str = "the photo"
) -> tuple[Tensor, Tensor]:
    """What `Segmenter.predict` gives for a photo (H, W, 3) uint8 of any size, at that size."""
    return segmenter.predict(network_input(segmenter, pixels), pixels.shape[:2], name)


def to_array(photo: Any) -> np.ndarray:
    """A photo as (H, W, 3) uint8 RGB; see `Predictor.predict`."""
    if isinstance(photo, str) and "://" in photo:
        raise ValueError(f"{photo}: is not fetched; pass what is there, as bytes")
    if isinstance(photo, bytes | bytearray | memoryview):
        return read_image(io.BytesIO(photo))
    if isinstance(photo, str | Path):
        return read_image(Path(photo))
    if hasattr(photo, "read"):
        return read_image(photo if photo.seekable() else io.BytesIO(photo.read()))
    if isinstance(photo, Image.Image):
        photo = read_image(photo)
    if isinstance(photo, Tensor):
        if photo.ndim != 3 or len(photo) != 3:
            raise ValueError(f"expected a tensor (3, H, W), got {tuple(photo.shape)}")
        photo = photo.float() if photo.is_floating_point() else photo  # NumPy has no bfloat16
        photo = photo.detach().permute(1, 2, 0).cpu().numpy()
    is_array = isinstance(photo, np.ndarray)
    if is_array and photo.dtype.kind == "f":
        if photo.size and not 0 <= photo.min() <= photo.max() <= 1:
            raise ValueError("expected floating-point values from 0 to 1")
        photo = (255 * photo).round().astype(np.uint8)
    if not is_array or photo.dtype != np.uint8:
        found = getattr(photo, "dtype", type(photo).__name__)
        raise TypeError(f"expected a file, a PIL image, or pixels, uint8 or 0..1, got {found}")
    if photo.ndim == 2 or photo.shape[2:] == (1,):
        photo = np.stack([photo.reshape(photo.shape[:2])] * 3, axis=-1)
    if photo.shape[2:] != (3,) or not photo.size:
        raise ValueError(f"expected an array (H, W, 3) or (H, W), got {photo.shape}")
    return np.require(photo, requirements=["C", "W"])  # torch takes no other, as of mirrored arrays
