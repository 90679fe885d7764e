"""Checkpoints give back what was saved, hold plain values only, and never run code or leave half a file."""

import pickle

import pytest
import torch
from torch import nn

from models import RunError
from models.checkpoint import (
    FORMAT,
    load_checkpoint,
    load_extractor,
    load_head,
    load_segmenter,
    save_checkpoint,
    save_extractor,
    save_head,
    save_segmenter,
)
from models.classifier import DenseClassifier, FCClassifier
from models.files import atomic_file
from models.hypercolumn import Hypercolumn
from models.schedule import warm_up_and_decay
from models.segmenter import Segmenter
from tests.conftest import Bomb

NAMES = ["sky", "sea", "boat"]
COLOURS = [[0, 0, 0], [0, 0, 255], [255, 0, 0]]


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("pickled half-way")


@pytest.fixture(scope="module")
def image():
    return torch.randint(0, 256, (1, 3, 32, 39), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def extractor():
    return Hypercolumn("squeezenet1_1", "random", taps=[1, 2], seed=3).eval()


@pytest.fixture(scope="module")
def segmenter(extractor):
    fc = FCClassifier(torch.rand(extractor.Z), torch.rand(extractor.Z) + 0.5, len(NAMES), hidden=8, dropout=0.25)
    dense = DenseClassifier.from_fc(fc, extractor.channels)
    return Segmenter(extractor, dense, size=32, stride=3, names=NAMES, colours=COLOURS).eval()


@pytest.fixture
def saved(tmp_path, segmenter):
    path = tmp_path / "dense.pt"
    save_segmenter(path, segmenter)
    return path


def trained(segmenter, image) -> dict:
    """What a training keeps, after one real step of it."""
    head = segmenter.head
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
    schedule = warm_up_and_decay(optimizer, steps=10)
    segmenter(image).mean().backward()
    optimizer.step()
    schedule.step()
    return {
        "settings": {"lr": 1e-3, "limit": None, "resume": False},
        "log": [{"epoch": 0, "loss": None, "miou": 0.5}],
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "random_state": {"cpu": torch.get_rng_state(), "cuda": []},
    }


def assert_plain(value) -> None:
    if type(value) is dict:
        for key, inner in value.items():
            assert type(key) in (str, int)
            assert_plain(inner)
    elif type(value) in (list, tuple):  # AdamW's betas are a tuple
        for inner in value:
            assert_plain(inner)
    else:
        assert value is None or type(value) in (str, int, float, bool, torch.Tensor), type(value)


def test_extractor_comes_back_with_the_same_levels(tmp_path, extractor, image):
    save_extractor(tmp_path / "backbone.pt", extractor)
    loaded = load_extractor(tmp_path / "backbone.pt")
    assert loaded.spec() == extractor.spec()
    assert loaded.frozen
    for found, expected in zip(loaded.eval()(image), extractor(image), strict=True):
        assert torch.equal(found, expected)


def test_extractor_with_batch_norm_comes_back_with_its_statistics(tmp_path):
    original = Hypercolumn("vgg11_bn", "random", taps=[1])
    original.features[1].running_mean.fill_(0.25)
    save_extractor(tmp_path / "backbone.pt", original)
    loaded = load_extractor(tmp_path / "backbone.pt")
    assert loaded.spec() == original.spec()
    assert torch.equal(loaded.features[1].running_mean, original.features[1].running_mean)


def test_segmenter_comes_back_with_the_same_logits_and_description(saved, segmenter, image):
    loaded, content = load_segmenter(saved)
    assert torch.equal(loaded.eval()(image), segmenter(image))
    assert (loaded.size, loaded.stride, loaded.names, loaded.colours) == (32, 3, NAMES, COLOURS)
    assert (loaded.head.hidden, loaded.head.dropout) == (8, 0.25)
    assert loaded.hypercolumn.spec() == segmenter.hypercolumn.spec()
    assert "training" not in content


def test_training_comes_back_with_its_optimizer(tmp_path, segmenter, image):
    training = trained(segmenter, image)
    save_segmenter(tmp_path / "last.pt", segmenter, training=training)
    loaded, content = load_segmenter(tmp_path / "last.pt")
    found = content["training"]
    assert {name: found[name] for name in ("settings", "log")} == {name: training[name] for name in ("settings", "log")}
    optimizer = torch.optim.AdamW(loaded.head.parameters())
    optimizer.load_state_dict(found["optimizer"])
    moments = [state["exp_avg"] for state in training["optimizer"]["state"].values()]
    assert len(moments) == 6
    for state, expected in zip(optimizer.state.values(), moments, strict=True):
        assert torch.equal(state["exp_avg"], expected)


def test_head_round_trip(tmp_path, segmenter):
    Z = segmenter.hypercolumn.Z
    fc = FCClassifier(torch.rand(Z), torch.rand(Z) + 0.5, len(NAMES), hidden=8, dropout=0.25).eval()
    save_head(tmp_path / "head.pt", fc, segmenter)
    assert torch.equal(load_head(tmp_path / "head.pt").eval()(torch.ones(2, Z)), fc(torch.ones(2, Z)))
    content = load_checkpoint(tmp_path / "head.pt", "head")
    assert content["hypercolumn"] == segmenter.hypercolumn.spec() and content["classes"] == NAMES
    assert content["head"]["hidden"] == 8 and content["size"] == 32


def test_a_head_that_does_not_fit_its_description_is_refused(tmp_path, segmenter):
    save_head(tmp_path / "head.pt", FCClassifier(torch.zeros(7), torch.ones(7), len(NAMES), hidden=8), segmenter)
    with pytest.raises(RunError, match="head.pt: does not describe a model"):
        load_head(tmp_path / "head.pt")


def test_files_hold_plain_values_that_torch_loads_by_itself(tmp_path, extractor, segmenter, image):
    save_extractor(tmp_path / "backbone.pt", extractor)
    save_head(tmp_path / "head.pt", FCClassifier(torch.zeros(7), torch.ones(7), classes=3, hidden=4), segmenter)
    save_segmenter(tmp_path / "last.pt", segmenter, training=trained(segmenter, image))
    for path in tmp_path.iterdir():
        content = torch.load(path, weights_only=True)
        # A state dict is an OrderedDict with one attribute, _metadata: safe, and a dict to every reader.
        assert_plain({key: dict(value) if key == "state" else value for key, value in content.items()})
        assert content["format"] == FORMAT


@pytest.mark.parametrize("old", [None, b"what was there"], ids=["no file before", "a file before"])
@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_write_that_stops_half_way_changes_nothing(tmp_path, old, stop):
    path = tmp_path / "file.bin"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(stop):
        with atomic_file(path) as file:
            file.write(b"half")
            file.flush()
            raise stop
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == ({path.name: old} if old else {})


@pytest.mark.parametrize("old", [None, b"what was there"], ids=["no file before", "a file before"])
def test_a_checkpoint_that_cannot_be_pickled_changes_nothing(tmp_path, old):
    path = tmp_path / "last.pt"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(RuntimeError, match="half-way"):
        save_checkpoint(path, "segmenter", first=torch.ones(1000), second=Unpicklable())
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == ({path.name: old} if old else {})


def test_atomic_file_makes_its_folder_and_replaces_a_file_that_others_may_read(tmp_path):
    path = tmp_path / "new" / "folder" / "file.bin"
    for text in (b"first", b"second"):
        with atomic_file(path) as file:
            file.write(text)
            assert not path.exists() or path.read_bytes() == b"first"
        assert path.read_bytes() == text
    assert path.stat().st_mode & 0o444 == 0o444
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_pickled_code_is_refused_and_not_run(tmp_path, legacy):
    path, mark = tmp_path / "bomb.pt", tmp_path / "mark"
    content = {"format": FORMAT, "kind": "extractor", "state": Bomb(mark)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(RunError, match="could run code"):
        load_checkpoint(path, "extractor")
    assert not mark.exists()
    torch.load(path, weights_only=False)["state"].close()
    assert mark.exists(), "the bomb is a dud: this test could not fail"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such checkpoint"),
        (lambda path: path.touch(), "damaged"),
        (lambda path: path.mkdir(), "directory"),
        (lambda path: path.write_text("kind: segmenter\n"), ""),
        (lambda path: path.write_bytes(pickle.dumps({"kind": "segmenter", "format": FORMAT}, protocol=2)), ""),
        (lambda path: torch.save(nn.Linear(2, 2), path), "could run code"),
        (lambda path: torch.save([1, 2], path), "found: list"),
        (lambda path: save_checkpoint(path, "extractor", state={}), "found: extractor"),
        (lambda path: torch.save({"format": FORMAT + 1, "kind": "segmenter"}, path), "newer version"),
        (lambda path: torch.save({"format": "1", "kind": "segmenter"}, path), ""),
    ],
    ids=["missing", "empty", "folder", "text", "pickle", "module", "list", "another kind", "newer", "format is text"],
)
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(tmp_path, write, message):
    path = tmp_path / "file.pt"
    write(path)
    with pytest.raises(RunError) as refusal:
        load_segmenter(path)
    text = str(refusal.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    assert message in text


@pytest.mark.parametrize("tenths", range(10))
def test_a_truncated_checkpoint_is_refused(saved, tenths):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: len(whole) * tenths // 10])
    with pytest.raises(RunError) as refusal:
        load_segmenter(saved)
    assert str(saved) in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "key", ["format", "kind", "hypercolumn", "head", "size", "stride", "classes", "colours", "state"]
)
def test_a_checkpoint_without_one_of_its_parts_is_refused(saved, key):
    content = torch.load(saved, weights_only=True)
    del content[key]
    torch.save(content, saved)
    with pytest.raises(RunError, match="dense.pt"):
        load_segmenter(saved)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("state", "head.layers.0.bias", None),
        ("state", "head.layers.0.bias", torch.zeros(3)),
        ("state", "hypercolumn.features.0.weight", None),
        ("state", 1, torch.zeros(1)),
        ("head", "hidden", 9),
        ("head", "dropout", 2.0),
        ("head", "channels", [64, 127]),
        ("hypercolumn", "backbone", "vgg11"),
        ("hypercolumn", "backbone", "resnet18"),
        ("hypercolumn", "taps", [1, 9]),
        ("hypercolumn", "taps", None),
    ],
)
def test_a_state_that_does_not_fit_is_refused_with_the_name_of_the_file(saved, part, key, value):
    content = torch.load(saved, weights_only=True)
    if part == "state" and value is None:
        del content[part][key]
    else:
        content[part][key] = value
    torch.save(content, saved)
    with pytest.raises(RunError, match="dense.pt"):
        load_segmenter(saved)


def test_an_extractor_with_a_missing_weight_is_refused(tmp_path, extractor):
    save_extractor(tmp_path / "backbone.pt", extractor)
    content = torch.load(tmp_path / "backbone.pt", weights_only=True)
    del content["state"]["features.0.weight"]
    torch.save(content, tmp_path / "backbone.pt")
    with pytest.raises(RunError, match="backbone.pt: does not describe a model"):
        load_extractor(tmp_path / "backbone.pt")
