"""The segmenter: logits on its grid, class maps at the original size, views."""

import os
import platform
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.transforms.v2.functional import resize

from data.voc import Sample
from models.segmenter import GIVE_BACK_EVERY, Segmenter
from models.views import Views, guided_filter
from tests.models.conftest import SMALL, blots, noise, random_segmenter
from tests.textbook import Textbook, upsample


@pytest.fixture
def segmenter() -> Segmenter:
    return random_segmenter(SMALL, 40, 2)


@pytest.mark.parametrize("size, stride", [((40, 57), 2), ((20, 31), 1), ((131, 187), 7)])
def test_a_prediction_is_the_textbooks_at_the_original_size(segmenter, size, stride):
    image, segmenter.stride = noise(41, 57)[0], stride
    sure, expected = Textbook(segmenter).predict(Sample("id", image, torch.zeros(size)))
    found, confidence = segmenter.train().predict(image, size)
    assert found.dtype == torch.uint8 and found.shape == size and len(found.unique()) > 1
    assert (found == expected).float().mean() > 0.999
    torch.testing.assert_close(confidence, sure, rtol=1e-3, atol=1e-4)


def test_probabilities_of_the_views_are_averaged_on_the_grid_of_the_largest(segmenter):
    segmenter.views = Views((0.5, 1.0, 1.25), flip=True)
    assert segmenter.input_size == 50
    image, total = noise(100, 125), 0
    for height, width in ((40, 50), (80, 100), (100, 125)):
        view = resize(image, [height, width], antialias=True)
        for turn in (lambda x: x, lambda x: x.flip(-1)):
            total = total + upsample(turn(segmenter(turn(view)).softmax(1)), (50, 63)) / 6
    scores = segmenter.probabilities(image[0])
    torch.testing.assert_close(scores, total[0], rtol=1e-4, atol=1e-5)
    expected = upsample(total, (80, 100))[0].argmax(0)
    assert (segmenter.predict(image[0], (80, 100))[0] == expected).float().mean() > 0.999


def test_refined_scores_have_the_photos_size_and_follow_its_edges(segmenter):
    image, segmenter.views = noise(40, 52)[0], Views(refine=True)
    scores, probabilities = segmenter.probabilities(image), segmenter(image[None]).softmax(1)
    torch.testing.assert_close(scores, guided_filter(probabilities, image[None], 16)[0].clamp(0, 1))
    assert scores.shape == (4, 40, 52)


def test_views_of_the_smallest_and_longest_photos_are_large_enough_for_the_backbone(segmenter):
    segmenter.views = Views((0.25, 1.0, 4.0), flip=True)
    for size in ((32, 32), (32, 400)):
        assert segmenter.predict(noise(*size)[0], (3, 70))[0].shape == (3, 70)


@pytest.mark.parametrize("views", [Views(), Views((0.8, 1.0), flip=True), Views(refine=True)])
def test_a_photo_in_tiles_is_nearly_the_whole_and_exactly_where_it_fits(segmenter, views):
    image, size = blots(160, 230), (200, 280)
    segmenter.views = views
    whole, sure = segmenter.predict(image, size)
    segmenter.views = replace(views, tile=230)
    assert all(map(torch.equal, segmenter.predict(image, size), (whole, sure)))
    segmenter.views = replace(views, tile=128)
    classes, found = segmenter.predict(image, size)
    assert classes.shape == found.shape == size and len(whole.unique()) > 1
    same, turned = ((classes == other).float().mean() for other in (whole, whole.flip(0)))
    assert same > 0.75 and same > turned + 0.2 and (found - sure).abs().mean() < 0.1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_memory_that_many_photos_have_left_in_holes_goes_back_to_the_system(segmenter):
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    blocks = [bytearray(2**16) for _ in range(3000)]
    del blocks[::2]  # 100 MB of holes
    before = resident()
    for photo in range(GIVE_BACK_EVERY):
        assert photo == 0 or resident() > before - 2**25
        segmenter.predict(noise(40, 57)[0], (40, 57))
    assert resident() < before - 2**26
