"""The loss of a batch: its parts add up to the whole, whatever they are."""

import pytest
import torch
import torch.nn.functional as F

from losses.batch import BatchLoss
from losses.loss import count_classes, cross_entropy2d, draw_pixels, weighting
from losses.lovasz import lovasz_softmax

VOID, CLASSES = 255, 4


def draw(images: int = 5, grid=(4, 5), size=(8, 10)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(images, CLASSES, *grid, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, CLASSES, (images, *size), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.3] = VOID
    target[2] = VOID
    return logits, target


@pytest.mark.parametrize("lovasz", [0.0, 0.5])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["none", "batch"])
def test_shares_add_up_to_the_loss_of_the_batch(kind, smoothing, lovasz):
    logits, target = draw()
    counts = count_classes(target, CLASSES)
    weigh = weighting(kind)
    loss = BatchLoss(weigh, smoothing, lovasz)
    loss.begin(counts, images=len(target))
    parts = [loss.share(logits[part], target[part]) for part in (slice(0, 1), slice(1, 3), slice(3, 5))]
    expected = cross_entropy2d(logits, target, weigh(counts), label_smoothing=smoothing)
    enlarged = F.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=False)
    expected = expected + lovasz * lovasz_softmax(enlarged.flatten(2), target.flatten(1)).mean()
    torch.testing.assert_close(sum(parts), expected)
    gradients = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (sum(parts), expected)]
    torch.testing.assert_close(*gradients)
    assert not gradients[0][2].any(), "an image without labels"


def test_all_pixels_drawn_give_the_share_of_all():
    logits, target = draw(grid=(8, 10))
    loss = BatchLoss(weighting("none"), lovasz=0.3)
    loss.begin(count_classes(target, CLASSES), images=len(target))
    pixels, worth = draw_pixels(target, 80)
    places = pixels[..., 0] * 10 + pixels[..., 1]
    labels = target.flatten(1).gather(1, places).where(worth > 0, VOID)
    drawn = logits.flatten(2).gather(2, places.unsqueeze(1).expand(-1, CLASSES, -1))
    found = loss.share(drawn.unsqueeze(-1), labels.unsqueeze(-1), worth.unsqueeze(-1))
    torch.testing.assert_close(found, loss.share(logits, target))


def test_smoothing_asks_for_a_little_of_every_class():
    target = torch.zeros(1, 1, 1, dtype=torch.int64)
    logits = torch.tensor([3.0, 0.0, 0.0, 0.0]).view(1, 4, 1, 1)
    log = logits.log_softmax(1).flatten()
    expected = -(0.9 + 0.1 / 4) * log[0] - 0.1 / 4 * log[1:].sum()
    torch.testing.assert_close(cross_entropy2d(logits, target, label_smoothing=0.1), expected)
