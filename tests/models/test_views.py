"""The views of a prediction: which there are, their mean on one grid, and how they are named."""

import pytest
import torch
from torch import nn
from torchvision.transforms.v2.functional import resize

from models.views import Views, mean_probabilities
from tests.textbook import upsample


def test_each_scale_and_its_mirror_image_count_alike():
    torch.manual_seed(0)
    network, image = nn.Conv2d(3, 4, 3, stride=2, padding=1), torch.rand(1, 3, 100, 125)
    seen, total = [], 0

    def logits(view):
        seen.append(view)
        return network(view)

    found = mean_probabilities(logits, image, Views((0.5, 1.0, 1.25), flip=True), (50, 63))
    for height, width in ((40, 50), (80, 100), (100, 125)):
        view = resize(image, [height, width], antialias=True)
        there, back = network(view).softmax(1), network(view.flip(-1)).softmax(1).flip(-1)
        total = total + (upsample(there, (50, 63)) + upsample(back, (50, 63))) / 6
    torch.testing.assert_close(found, total)
    torch.testing.assert_close(found.sum(1), torch.ones(1, 50, 63))
    assert len(seen) == 6 and torch.equal(seen[-1], image.flip(-1))


@pytest.mark.parametrize(
    ("views", "words"),
    [
        (Views(), "one view of each image"),
        (Views(refine=True), "one view of each image, edges refined"),
        (Views((0.75, 1.0), True), "mean probabilities at scales 0.75, 1, flipped too"),
        (
            Views(flip=True, refine=True),
            "mean probabilities at scales 1, flipped too, edges refined",
        ),
    ],
)
def test_views_in_words(views, words):
    assert str(views) == words
