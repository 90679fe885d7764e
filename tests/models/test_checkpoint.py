"""Checkpoints give back what was saved, hold plain values, run no code and show their damage."""

import copy
from itertools import product

import pytest
import torch
from torch import nn

from data import UserError
from models import checkpoint
from models.hypercolumn import Hypercolumn
from tests.models.conftest import SMALL, noise, random_segmenter


@pytest.fixture
def path(tmp_path):
    return tmp_path / "dense.pt"


def test_an_extractor_comes_back_with_the_same_levels(path):
    original = Hypercolumn("vgg11_bn", "random", ["b1", 2], context=["image", "3"], dilated=1)
    original.features[1].running_mean.fill_(0.25)  # not folded, as a level is before it
    checkpoint.save_extractor(path, original)
    loaded = checkpoint.load_extractor(path)
    assert loaded.spec() == original.spec() and loaded.frozen
    assert all(map(torch.equal, loaded(noise(32, 39)), original(noise(32, 39))))


def test_a_segmenter_comes_back_with_the_same_predictions_and_facts(path):
    segmenter = random_segmenter(SMALL, 40, 2)
    segmenter.trained_on, segmenter.origin = "9 images", "0123"
    checkpoint.save_segmenter(path, segmenter, start="abcd", training={"losses": [1.5]})
    loaded, content = checkpoint.load_segmenter(path)
    for name in ("size", "stride", "classes", "trained_on", "origin"):
        assert getattr(loaded, name) == getattr(segmenter, name)
    assert torch.equal(loaded(noise(40, 50)), segmenter(noise(40, 50)))
    assert content["start"] == "abcd" and content["training"] == {"losses": [1.5]}
    assert (loaded.head.widths, loaded.head.dropout) == ((16, 16), 0.25)


OTHERS = [
    (lambda path: None, "no such checkpoint file"),
    (lambda path: torch.save(nn.Linear(2, 2), path), "could run code"),
    (lambda path: torch.save([1, 2], path), "of no network of this project, or .*another version"),
    (lambda path: torch.save({"0.bias": torch.ones(1)}, path), "of no network of this project"),
    (lambda path: checkpoint.save_segmenter(path, random_segmenter(SMALL, 40, 2)), "do not fit"),
]


@pytest.mark.parametrize(("write", "message"), OTHERS)
def test_a_file_that_is_no_such_checkpoint_is_refused_in_a_line(path, write, message):
    write(path)
    with pytest.raises(UserError, match=f"^{path}: [^\n]*{message}[^\n]*$"):
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
