"""Checkpoints give back what was saved, hold plain values, run no code and show their damage."""

import copy
from itertools import product

import pytest
import torch

from data import UserError
from models import checkpoint
from tests.models.conftest import SMALL, noise, random_segmenter


def test_a_segmenter_and_its_extractor_come_back_with_the_same_results_and_facts(path):
    how = {"taps": ["b1", 2], "context": ["image", "3"], "dilated": 1}
    segmenter, photo = random_segmenter("vgg11_bn", 40, 2, **how), noise(32, 39)
    segmenter.hypercolumn.features[1].running_mean.fill_(0.25)  # not folded: a level is before it
    segmenter.trained_on, segmenter.origin = "9 images", "0123"
    checkpoint.save_segmenter(path, segmenter, start="abcd", training={"losses": [1.5]})
    loaded, content = checkpoint.load_segmenter(path)
    for name in ("size", "stride", "classes", "trained_on", "origin"):
        assert getattr(loaded, name) == getattr(segmenter, name)
    assert torch.equal(loaded(photo), segmenter(photo))
    assert content["start"] == "abcd" and content["training"] == {"losses": [1.5]}
    assert (loaded.head.widths, loaded.head.dropout) == ((16, 16), 0.25)
    checkpoint.save_extractor(path, segmenter.hypercolumn)
    extractor = checkpoint.load_extractor(path)
    assert extractor.spec() == segmenter.hypercolumn.spec() and extractor.frozen
    assert all(map(torch.equal, extractor(photo), segmenter.hypercolumn(photo)))


def test_a_file_that_is_no_extractor_is_refused_in_a_line(path):
    checkpoint.save_segmenter(path, random_segmenter(SMALL, 40, 2))
    with pytest.raises(UserError, match=f"^{path}: [^\n]* do not fit [^\n]*$"):
        checkpoint.load_extractor(path)
    for content in ([1, 2], {"0.bias": torch.ones(1)}):
        torch.save(content, path)
        with pytest.raises(UserError, match="by another version .*None, .*or by another program"):
            checkpoint.load_extractor(path)


def test_a_description_that_was_changed_is_refused_or_the_same_network(path):
    segmenter, image, refused = random_segmenter(SMALL, 40, 2, taps=[1, 2]), noise(40, 50), 0
    checkpoint.save_segmenter(path, segmenter)
    content, expected = torch.load(path, weights_only=True), segmenter(image)
    places = [("", name) for name in content if name != "state"]
    places += [(part, name) for part in ("hypercolumn", "head") for name in content[part]]
    places.remove(("hypercolumn", "dilated"))  # another number is another network, too
    for (part, name), change in product(places, (None, [], "x", -1, 0.3, 10**9, "left out")):
        changed = copy.deepcopy(content)
        place = changed[part] if part else changed
        place[name] = change
        if change == "left out":
            del place[name]
        torch.save(changed, path)
        try:
            found = checkpoint.load_segmenter(path)[0].eval()(image)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert torch.equal(found, expected), (name, change)
    assert refused > 50
