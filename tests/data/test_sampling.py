"""Sampled pixels: how many of which class and from where; seeds that depend on what they should."""

import math
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from data.classes import VOID
from data.sampling import EpochSampler, draw_kept, draw_pixels, image_seed, sample_pixels
from tests.data.conftest import seeded

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=8)
MASKS = arrays(np.uint8, SHAPES, elements=st.sampled_from([0, 1, 5, 254, VOID]))
SEEDS = st.integers(0, 2**31 - 1)


@given(mask=MASKS, per_class=st.integers(1, 12), seed=SEEDS)
def test_samples_are_distinct_labelled_as_the_mask_and_complete(mask, per_class, seed):
    pixels, labels, areas = sample_pixels(mask, per_class, seed, "a")
    assert pixels.shape == (len(labels), 2) and pixels.dtype == np.int64
    assert np.array_equal(mask[tuple(pixels.T)], labels)
    assert len({tuple(pixel) for pixel in pixels.tolist()}) == len(pixels)
    assert labels.tolist() == sorted(labels.tolist())
    there = Counter(mask[mask != VOID].tolist())
    assert Counter(labels.tolist()) == {label: min(per_class, n) for label, n in there.items()}
    for label, n in there.items():  # the areas of a class add up to its share of what is labelled
        assert areas[labels == label].sum() == pytest.approx(n / there.total(), rel=1e-5)
        assert len(set(areas[labels == label])) == 1
    assert np.array_equal(sample_pixels(mask, per_class, seed, "a")[0], pixels)


def test_pixels_are_drawn_uniformly_by_the_seed_and_the_id():
    mask, counts = np.zeros((5, 8), np.uint8), np.zeros((5, 8))
    seen = [str(sample_pixels(mask, 10, *how)[0]) for how in ((0, "a"), (1, "a"), (0, "é"))]
    assert len(set(seen)) == 3
    for seed in range(1000):
        np.add.at(counts, tuple(sample_pixels(mask, 10, seed, "a")[0].T), 1)
    # 250 expected of each pixel, standard deviation 13.7: five of them are beyond chance.
    assert abs(counts - 250).max() < 5 * 13.7


def passes(sampler: EpochSampler, epoch: int, done: int = 0) -> list[list[int]]:
    """The indices of the micro-batches of an epoch."""
    sampler.epoch, sampler.done = epoch, done
    batches = list(sampler)
    assert len(batches) == len(sampler) and {pair[0] for b in batches for pair in b} <= {epoch}
    return [[index for _, index in batch] for batch in batches]


parts = {"processes": st.integers(1, 3), "micro_batches": st.integers(1, 3)}


@given(images=st.integers(1, 50), share=st.integers(1, 4), done=st.integers(0, 3), **parts)
def test_an_epoch_has_every_image_in_whole_steps(images, share, done, processes, micro_batches):
    step = share * processes * micro_batches
    order = sum(passes(EpochSampler(images, step, seed=3), 1), [])
    assert len(order) % step == 0 and 0 <= len(order) - images < step
    assert sorted(order[:images]) == list(range(images))
    assert all(order[place] == order[place - images] for place in range(images, len(order)))
    part = (processes, micro_batches)
    samplers = [EpochSampler(images, step, 3, rank, *part) for rank in range(processes)]
    everyone = zip(*(passes(sampler, 1) for sampler in samplers))
    together = [np.stack(shares, axis=1).ravel().tolist() for shares in everyone]
    assert sum(together, []) == order, "processes and micro-batches share the same steps"
    assert len(together) == samplers[0].steps * micro_batches
    done = min(done, len(together))
    assert passes(samplers[0], 1, done) == passes(samplers[0], 1)[done:]


def test_orders_and_seeds_differ_by_seed_and_epoch_and_image():
    """Seed 1 is not seed 0 an epoch later."""
    cases = list(product((0, 1, 2), (1, 2, 3)))
    orders = {case: str(passes(EpochSampler(20, 4, case[0]), case[1])) for case in cases}
    assert len(set(orders.values())) == len(cases)
    seeds = [image_seed(*case, image_id) for case in cases for image_id in ("a", "b", "fåtölj")]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)


@given(mask=MASKS, count=st.sampled_from([1, 3, 19, 20, 2**31]), seed=SEEDS)
def test_drawn_pixels_are_distinct_and_labelled_then_void(mask, count, seed):
    mask = torch.from_numpy(mask)
    pixels, labels = draw_pixels(mask, count, seeded(seed))
    n = min(count, mask.numel())
    assert pixels.dtype == labels.dtype == torch.int64
    assert (pixels.shape, labels.shape) == ((n, 2), (n,))
    drawn = min(n, int((mask != VOID).sum()))
    assert (labels[:drawn] != VOID).all() and (labels[drawn:] == VOID).all()
    assert torch.equal(mask[pixels[:, 0], pixels[:, 1]].long(), labels)
    assert len({tuple(place) for place in pixels.tolist()}) == n


def test_every_set_of_labelled_pixels_is_equally_likely():
    mask = torch.tensor([[0, VOID, 1, 2], [VOID, 1, VOID, 0]])  # five labelled pixels
    draws, sets, generator = 2000, 10, seeded()
    pixels = torch.stack([draw_pixels(mask, 2, generator)[0] for _ in range(draws)])
    drawn = (pixels[..., 0] * 4 + pixels[..., 1]).sort(dim=1).values
    found, times = drawn.unique(dim=0, return_counts=True)
    assert found.tolist() == [list(pair) for pair in combinations([0, 2, 3, 5, 7], 2)]
    spread = math.sqrt(draws / sets * (1 - 1 / sets))
    assert (times - draws / sets).abs().max() < 4 * spread


def test_dropout_keeps_its_share_of_the_units_each_as_likely_and_at_least_one():
    assert draw_kept((4, 8), 0.0, seeded()) == draw_kept((), 0.5, seeded()) == []
    draws = [draw_kept((10, 5), 0.3, seeded(seed)) for seed in range(2000)]
    first, second = map(torch.stack, zip(*draws))
    assert (first.dtype, first.shape, second.shape) == (torch.int64, (2000, 7), (2000, 4))
    assert (first.diff() > 0).all(), "ascending, so none twice"
    shares = first.flatten().bincount() / 2000
    assert (shares - 0.7).abs().max() < 0.05
    assert draw_kept((5,), 0.999, seeded())[0].shape == (1,)
