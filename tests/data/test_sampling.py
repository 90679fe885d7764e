"""Sampled pixels: how many of which class and from where; seeds that depend on what they should."""

import math
from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from data.classes import VOID
from data.sampling import draw_pixels, epoch_order, image_seed, sample_pixels

MASK = np.zeros((20, 30), np.uint8)
MASK[2:12, 3:13] = 7
MASK[15, 10:13] = 20
MASK[:2] = VOID


def sampled(mask=MASK, per_class=5, seed=0, image_id="2007_000032"):
    return sample_pixels(mask, per_class, seed, image_id)


@pytest.mark.parametrize(
    ("per_class", "expected"), [(1, [1, 1, 1]), (5, [5, 5, 3]), (10**6, [437, 100, 3])]
)
def test_every_class_gives_as_many_as_asked_or_all_it_has(per_class, expected):
    pixels, labels, _ = sampled(per_class=per_class)
    assert [(labels == label).sum() for label in (0, 7, 20)] == expected
    assert pixels.dtype == np.int64 and labels.dtype == np.uint8


@given(
    mask=arrays.arrays(
        np.uint8,
        st.tuples(st.integers(1, 8), st.integers(1, 8)),
        elements=st.sampled_from([0, 1, 5, 254, VOID]),
    ),
    per_class=st.integers(1, 12),
    seed=st.integers(0, 2**31 - 1),
)
def test_samples_are_distinct_labelled_as_the_mask_and_complete(mask, per_class, seed):
    pixels, labels, areas = sampled(mask, per_class, seed)
    assert pixels.shape == (len(labels), 2)
    assert np.array_equal(mask[tuple(pixels.T)], labels)
    assert len({tuple(pixel) for pixel in pixels.tolist()}) == len(pixels)
    assert labels.tolist() == sorted(labels.tolist())
    present = set(mask.ravel().tolist()) - {VOID}
    expected = {label: min(per_class, int((mask == label).sum())) for label in present}
    assert {label: labels.tolist().count(label) for label in set(labels.tolist())} == expected
    for label in present:  # the areas of a class add up to its share of what is labelled
        share = (mask == label).sum() / (mask != VOID).sum()
        assert areas[labels == label].sum() == pytest.approx(share, rel=1e-5)
        assert len(set(areas[labels == label])) == 1


def test_pixels_depend_on_the_seed_and_the_id_alone():
    first = sampled()[0]
    np.random.seed(1)
    assert np.array_equal(sampled(MASK.copy())[0], first)
    for other in ({"seed": 1}, {"image_id": "2007_000033"}, {"image_id": "2007_00003é"}):
        assert not np.array_equal(sampled(**other)[0], first)


def test_pixels_are_drawn_uniformly():
    mask, counts = np.zeros((5, 8), np.uint8), np.zeros((5, 8))
    for seed in range(1000):
        np.add.at(counts, tuple(sampled(mask, 10, seed)[0].T), 1)
    # 250 expected of each pixel, standard deviation 13.7: five of them are beyond chance.
    assert abs(counts - 250).max() < 5 * 13.7


@given(images=st.integers(1, 50), batch_size=st.integers(1, 60))
def test_an_epoch_has_every_image_and_is_filled_up_to_whole_batches(images, batch_size):
    order = epoch_order(images, batch_size, seed=3, epoch=1)
    assert len(order) % batch_size == 0 and 0 <= len(order) - images < batch_size
    assert sorted(order[:images]) == list(range(images))
    assert all(order[place] == order[place - images] for place in range(images, len(order)))


def test_orders_and_seeds_differ_by_seed_and_epoch_and_image():
    """Seed 1 is not seed 0 an epoch later."""
    cases = list(product((0, 1, 2), (1, 2, 3)))
    orders = {case: tuple(epoch_order(20, 4, *case)) for case in cases}
    assert len(set(orders.values())) == len(cases)
    assert tuple(epoch_order(20, 4, 0, 1)) == orders[0, 1]
    seeds = [image_seed(*case, image_id) for case in cases for image_id in ("a", "b", "fåtölj")]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)
    assert image_seed(0, 1, "a") == seeds[0]


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    void=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    count=st.sampled_from([1, 3, 19, 20, 2**31]),
)
def test_drawn_pixels_are_distinct_and_labelled_then_void(seed, void, count):
    random = np.random.default_rng(seed)
    target = np.where(random.random((3, 4, 5)) < void, VOID, random.integers(3, size=(3, 4, 5)))
    target = torch.from_numpy(target)
    pixels, labels = draw_pixels(target, count, generators(1, 2, 3))
    n = min(count, 4 * 5)
    assert pixels.dtype == labels.dtype == torch.int64
    assert (pixels.shape, labels.shape) == ((3, n, 2), (3, n))
    for image, places, ids in zip(target, pixels, labels):
        drawn = min(n, int((image != VOID).sum()))
        assert (ids[:drawn] != VOID).all() and (ids[drawn:] == VOID).all()
        assert torch.equal(image[places[:, 0], places[:, 1]], ids)
        assert len({tuple(place) for place in places[:drawn].tolist()}) == drawn


def test_the_draw_of_an_image_follows_from_its_generator_alone():
    target = torch.zeros(2, 30, 40, dtype=torch.int64)
    pixels = draw_pixels(target, 50, generators(1, 2))[0]
    assert torch.equal(draw_pixels(target[:1], 50, generators(2))[0], pixels[1:])
    assert not torch.equal(pixels[0], pixels[1])


def test_without_generators_the_draw_follows_torchs_seed():
    target = torch.zeros(1, 30, 40, dtype=torch.int64)
    torch.manual_seed(0)
    first, second = (draw_pixels(target, 50)[0] for _ in range(2))
    torch.manual_seed(0)
    assert torch.equal(draw_pixels(target, 50)[0], first)
    assert not torch.equal(first, second)


FIVE_LABELLED = torch.tensor([[0, VOID, 1, 2], [VOID, 1, VOID, 0]])


def test_every_set_of_labelled_pixels_is_equally_likely():
    draws, sets = 2000, 10
    (generator,) = generators(0)
    pixels, _ = draw_pixels(FIVE_LABELLED.expand(draws, 2, 4), 2, [generator] * draws)
    drawn = (pixels[..., 0] * 4 + pixels[..., 1]).sort(dim=1).values
    found, times = drawn.unique(dim=0, return_counts=True)
    assert found.tolist() == [list(pair) for pair in combinations([0, 2, 3, 5, 7], 2)]
    spread = math.sqrt(draws / sets * (1 - 1 / sets))
    assert (times - draws / sets).abs().max() < 4 * spread
