"""How a prediction looks at a photo: at several scales, mirrored too, with refined edges."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torchvision.transforms.v2.functional import resize

from data.transforms import LEAST_SIDE
from models.hypercolumn import resample


@dataclass(frozen=True)
class Views:
    """How a prediction looks at a photo; the probabilities of several views are averaged.

    Attributes:
        scales: of the input, 1 among them, ascending.
        flip: whether each view is also seen mirrored.
        refine: whether edges follow those of the photo, see `models.refine`.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    refine: bool = False

    def __str__(self) -> str:
        words = "one view of each image"
        if len(self.scales) > 1 or self.flip:
            scales = ", ".join(f"{scale:g}" for scale in self.scales)
            words = f"mean probabilities at scales {scales}" + ", flipped too" * self.flip
        return words + ", edges refined" * self.refine


def mean_probabilities(
    network: Callable[[Tensor], Tensor], image: Tensor, views: Views, grid: tuple[int, int]
) -> Tensor:
    """The mean of the probabilities that the network gives over the views of an image.

    Args:
        network: gives the logits (1, C, .., ..) of an image of any size.
        image: (1, 3, H, W), at the largest of the scales.
        grid: (h, w) of the result.

    Returns:
        (1, C, h, w)
    """
    total = 0
    for scale in views.scales:
        share = scale / views.scales[-1]
        shape = [max(min(side, LEAST_SIDE), round(side * share)) for side in image.shape[-2:]]
        view = resize(image, shape, antialias=True) if share < 1 else image
        total = total + resample(network(view).softmax(1), grid)
        if views.flip:
            total = total + resample(network(view.flip(-1)).softmax(1).flip(-1), grid)
    return total / (len(views.scales) * (1 + views.flip))
