"""A trained network for photos, outside of the scripts: `from models import load`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.image_files import read_image
from data.transforms import ResizeImage
from models.hypercolumn import resample
from models.run.runtime import find_device
from models.segmenter import Segmenter

Photo: TypeAlias = str | Path | Image.Image | np.ndarray | Tensor


class Predictor:
    """A trained network; several threads may predict with it.

    On a GPU it computes in exact float32, as the scripts do: cuDNN's TensorFloat-32 is turned off.

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

    def predict(
        self, photos: Photo | Sequence[Photo], probabilities: bool = False
    ) -> np.ndarray | list[np.ndarray]:
        """The classes of each pixel.

        Args:
            photos: a photo, or a list of them: a path (turned upright as its EXIF data say), a PIL
                image, an array (H, W, 3) or (H, W) uint8, or a tensor (3, H, W), uint8 or floating
                point 0..1.
            probabilities: of all classes, not the most likely class.

        Returns:
            (H, W) uint8 class ids, or (C, H, W) float32 probabilities; of a list, a list of them.

        Raises:
            UserError: a file that is missing or no photo.
            ValueError, TypeError: an array or tensor of another shape or dtype.
        """
        if isinstance(photos, Sequence) and not isinstance(photos, str):
            return [self.predict(photo, probabilities) for photo in photos]
        pixels, segmenter = to_array(photos), self.segmenter
        if not probabilities:
            return predict_photo(segmenter, pixels)[0].numpy()
        height, width = pixels.shape[:2]
        parts = segmenter.rows(network_input(segmenter, pixels), height)
        found = [resample(part[None], (part.shape[1], width))[0].cpu() for part in parts]
        return torch.cat(found, dim=1).numpy()

    def overlay(self, photo: Photo, mask: np.ndarray | None = None) -> Image.Image:
        """The photo with the classes tinted, outlined and named, at its own size.

        Args:
            photo: as in `predict`.
            mask: (H, W) class ids, if they are known already.
        """
        from data.figures.picture import overlay  # not needed to predict

        mask = self.predict(photo) if mask is None else mask
        return overlay(to_array(photo), mask, self.segmenter.classes)


def network_input(segmenter: Segmenter, pixels: np.ndarray) -> Tensor:
    """A photo (H, W, 3) uint8 as `Segmenter.predict` takes it: (3, h, w)."""
    return ResizeImage(segmenter.input_size)(torch.from_numpy(pixels).permute(2, 0, 1))


def predict_photo(
    segmenter: Segmenter, pixels: np.ndarray, name: str = "the photo"
) -> tuple[Tensor, Tensor]:
    """What `Segmenter.predict` gives for a photo (H, W, 3) uint8 of any size, at that size."""
    return segmenter.predict(network_input(segmenter, pixels), pixels.shape[:2], name)


def to_array(photo: Photo) -> np.ndarray:
    """A photo as (H, W, 3) uint8 RGB; see `Predictor.predict`."""
    if isinstance(photo, str | Path):
        return read_image(Path(photo))
    if isinstance(photo, Image.Image):
        return np.array(photo.convert("RGB"))
    if isinstance(photo, Tensor):
        if photo.ndim != 3 or len(photo) != 3:
            raise ValueError(f"expected a tensor (3, H, W), got {tuple(photo.shape)}")
        if photo.is_floating_point():
            if not 0 <= photo.min() <= photo.max() <= 1:
                raise ValueError("expected values from 0 to 1 in a floating-point tensor")
            photo = (255 * photo).round().to(torch.uint8)
        photo = photo.permute(1, 2, 0).cpu().numpy()
    if not isinstance(photo, np.ndarray) or photo.dtype != np.uint8:
        found = getattr(photo, "dtype", type(photo).__name__)
        raise TypeError(f"expected a path, a PIL image, or uint8 pixels, got {found}")
    if photo.ndim == 2:
        photo = np.stack([photo] * 3, axis=-1)
    if photo.shape[2:] != (3,) or not photo.size:
        raise ValueError(f"expected an array (H, W, 3) or (H, W), got {photo.shape}")
    return np.require(photo, requirements=["C", "W"])  # torch takes no other, as of mirrored arrays
