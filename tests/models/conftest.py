"""What the tests of networks share: photos, and a small network that is sure of some pixels."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from data.classes import Classes
from models.classifier import DenseClassifier
from models.hypercolumn import Hypercolumn
from models.segmenter import Segmenter

SMALL = "squeezenet1_1"
CLASSES = Classes(("sky", "sea", "boat", "sand"), ((0, 0, 0), (0, 0, 255), (255, 0, 0), (9, 9, 9)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "network.pt"


def noise(height: int, width: int, images: int = 1) -> Tensor:
    """Photos (images, 3, height, width) uint8 of random pixels."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (images, 3, height, width), dtype=torch.uint8, generator=generator)


def blots(height: int, width: int) -> Tensor:
    """A photo (3, height, width) uint8 of soft blots of colour."""
    few = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(height))
    return (255 * F.interpolate(few, (height, width), mode="bilinear")[0]).to(torch.uint8)


def random_segmenter(
    backbone: str, size: int, stride: int, widths=(16, 16), classes=CLASSES, **extractor
) -> Segmenter:
    """With the moments of a photo, and a last bias that gives each class a share of it."""
    hypercolumn = Hypercolumn(backbone, "random", seed=1, **extractor)
    levels = hypercolumn(blots(96, 90)[None])
    torch.manual_seed(0)
    moments = (torch.std_mean(level, (0, 2, 3), correction=0) for level in levels)
    std, mean = map(torch.cat, zip(*moments))
    head = DenseClassifier(hypercolumn.channels, mean, std, len(classes), widths, dropout=0.25)
    with torch.no_grad():
        head.layers[-1].weight *= 10  # sure of some pixels
        head.layers[-1].bias -= head(levels, (16, 16)).mean((0, 2, 3))
    return Segmenter(hypercolumn, head, size, stride, classes).eval()


def assert_near(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Equal to a share of the largest expected value, which is not 0."""
    largest = expected.abs().max().item()
    assert largest > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * largest)
