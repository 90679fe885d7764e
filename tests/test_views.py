"""Test-time averaging: probabilities of mirrored and scaled views; and logits at places without a grid."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.v2.functional import resize

from models.classifier import DenseClassifier
from models.flags import views
from models.hypercolumn import Hypercolumn, pixel_centres
from models.segmenter import Segmenter
from tests.test_segmenter import CLASSES, Picture


@pytest.fixture
def segmenter() -> Segmenter:
    hypercolumn = Hypercolumn("squeezenet1_1", "random", taps=[1, 2], seed=1)
    levels = hypercolumn(photo()[None])
    mean, std = (torch.cat([getattr(level, what)((0, 2, 3)) for level in levels]) for what in ("mean", "std"))
    torch.manual_seed(0)
    head = DenseClassifier(hypercolumn.channels, mean, std, CLASSES, hidden=16)
    head.layers[-1].weight.data *= 20  # sure of some pixels
    return Segmenter(hypercolumn, head, 32, 2, list("abcd"), [[0, 0, 0]] * CLASSES).eval()


def photo(height: int = 40, width: int = 51) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


def seen(segmenter, image) -> np.ndarray:
    return segmenter.predict([Picture(image.numpy(), (40, 51))])[0]


@pytest.mark.parametrize("scales, flip", [([], False), ([0.5], True)])
def test_confidence_is_the_probability_of_the_predicted_class(scales, flip, segmenter):
    segmenter.look(scales, flip)
    photos = [Picture(photo().numpy(), (40, 51)), Picture(photo(32, 32).numpy(), (90, 91))]
    maps = segmenter.predict(photos)
    for (found, top), expected, (image, size) in zip(segmenter.predict_with_confidence(photos), maps, photos):
        assert np.array_equal(found, expected)
        assert top.shape == size and top.dtype == np.float32
        with torch.inference_mode():
            scores = segmenter._scores(torch.from_numpy(image)[None])
        dense = F.interpolate(scores, size, mode="bilinear", align_corners=False)[0]
        dense = dense if scales else dense.softmax(0)
        assert dense.sum(0) == pytest.approx(1, abs=1e-5)
        assert top == pytest.approx(dense.amax(0).numpy(), abs=1e-5)
        assert 1 / CLASSES <= top.min() < top.max() <= 1 + 1e-6


def test_one_view_is_what_there_was(segmenter):
    before = seen(segmenter, photo())
    assert segmenter.look([], False) == "one view of each image" and segmenter.input_size == 32
    assert np.array_equal(seen(segmenter, photo()), before)
    assert segmenter.look([1.0], False) == "one view of each image"


def test_with_mirrored_views_a_mirrored_photo_has_the_mirrored_classes(segmenter):
    image = photo(40, 52)[..., :52]
    alone = segmenter.predict([Picture(image.numpy(), (40, 52)), Picture(image.flip(-1).numpy(), (40, 52))])
    assert (alone[0] != alone[1][:, ::-1]).mean() > 0.01, "the network itself is not symmetric"
    assert segmenter.look([], True) == "mean probabilities at scales 1, flipped too"
    both = segmenter.predict([Picture(image.numpy(), (40, 52)), Picture(image.flip(-1).numpy(), (40, 52))])
    assert (both[0] != both[1][:, ::-1]).mean() < 0.002, "but for ties within rounding"


def test_probabilities_of_the_views_are_averaged_on_the_grid_of_the_largest(segmenter):
    said = segmenter.look([0.5, 1.25], True)
    assert said == "mean probabilities at scales 0.5, 1, 1.25, flipped too" and segmenter.input_size == 40
    images = photo(80, 102)[None]  # at the largest scale, 1.25
    grid, total = segmenter.grid(images), 0
    for height, width in ((32, 41), (64, 82), (80, 102)):
        view = resize(images, [height, width], antialias=True)
        for flipped in (False, True):
            probabilities = segmenter(view.flip(-1) if flipped else view).softmax(1)
            probabilities = probabilities.flip(-1) if flipped else probabilities
            total = total + F.interpolate(probabilities, grid, mode="bilinear", align_corners=False) / 6
    dense = F.interpolate(total, (40, 51), mode="bilinear", align_corners=False)[0]
    found = torch.from_numpy(seen(segmenter, images[0])).long()
    assert (dense.amax(0) - dense.gather(0, found[None])[0]).max() < 1e-5
    labels_only = segmenter(images).argmax(1)
    assert labels_only.unique().numel() > 1


@pytest.mark.parametrize("scales", [[0.25], [4]])
def test_views_of_the_smallest_and_longest_photos_are_large_enough_for_the_backbone(scales, segmenter):
    segmenter.look(scales, True)
    for size in ((32, 32), (32, 400)):
        found = segmenter.predict([Picture(photo(*size).numpy(), (3, 70))])[0]
        assert found.shape == (3, 70)


def test_logits_without_a_grid_are_those_of_the_hypercolumns_there(segmenter):
    images = torch.stack([photo(), photo().flip(-1)])
    points = pixel_centres(torch.tensor([[[3, 4], [39, 50], [0, 0]], [[7, 7], [20, 1], [5, 30]]]), (40, 51))
    levels = segmenter.hypercolumn(images)
    columns = segmenter.hypercolumn.at_points(levels, points)
    expected = segmenter.head(columns.transpose(1, 2).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(segmenter.logits_at(levels, None, points), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("flip", ([], True)), ("0.75,1.25", ([0.75, 1.25], False)), ("flip,0.75,1.25", ([0.75, 1.25], True))],
)
def test_views_as_a_flag(text, expected):
    assert views(text) == expected


@pytest.mark.parametrize("text", ["", "flop", "0", "0.75,,1", "5", "nan", "-1"])
def test_views_that_make_no_sense_are_refused(text, in_process, tmp_path):
    done = in_process("evaluate.py", "--run", tmp_path, "--tta", text)
    assert done.returncode == 2 and "argument --tta: " in done.stderr and len(done.stderr.splitlines()) == 1
