"""Frozen levels on disk: what is read back, when the backbone runs, and what is refused before it is too late."""

import re
import shutil
from types import SimpleNamespace

import pytest
import torch

from models import RunError
from models.cache import GIB, LevelCache
from models.hypercolumn import Hypercolumn

SIZE = 32
IDS = ["2007_000032", "a.b", "photos/1"]  # the last lies in a folder of its own


@pytest.fixture(scope="module")
def hypercolumn():
    return Hypercolumn("squeezenet1_1", "random", taps=[1, 2, 3], seed=1)


@pytest.fixture
def cache(hypercolumn, tmp_path):
    return LevelCache(tmp_path / "3_seg", hypercolumn, SIZE)


@pytest.fixture
def passes(hypercolumn):
    """The number of images of each pass through the backbone."""
    seen = []
    handle = hypercolumn.register_forward_hook(lambda _, inputs, levels: seen.append(len(inputs[0])))
    yield seen
    handle.remove()


def pictures(count=3, height=40, width=57) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def files(cache) -> set[str]:
    return {str(path.relative_to(cache.folder)) for path in cache.folder.rglob("*") if path.is_file()}


def written(cache) -> int:
    return sum((cache.folder / name).stat().st_size for name in files(cache))


def test_levels_come_back_rounded_to_float16_and_without_the_backbone(cache, passes):
    expected = cache.hypercolumn(pictures())
    passes.clear()
    first = cache(IDS, pictures())
    assert passes == [len(IDS)]
    second = cache(IDS, pictures())
    assert passes == [len(IDS)], "read, not computed"
    assert len(first) == len(second) == len(expected)
    for ours, again, theirs in zip(first, second, expected):
        assert torch.equal(ours, again) and ours.dtype == torch.float32
        # Half a unit in the last of 11 binary digits, or of the least number where float16 runs out.
        assert ((ours - theirs).abs() <= theirs.abs() * 2**-11 + 2**-25).all()
        assert theirs.any() and not torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_levels_may_be_computed_in_low_precision(cache, dtype):
    exact = cache.hypercolumn(pictures())
    with torch.autocast("cpu", dtype):
        first, second = cache(IDS, pictures()), cache(IDS, pictures())
    for ours, again, theirs in zip(first, second, exact):
        assert ours.dtype == torch.float32 and torch.equal(ours, again)
        assert 0 < (ours - theirs).abs().max() <= 0.03 * theirs.abs().max()


def test_only_images_that_are_not_there_yet_go_through_the_backbone(cache, passes):
    one_by_one = [cache([image_id], image[None]) for image_id, image in zip(IDS, pictures())]
    cache.remove()
    cache(IDS[1:2], pictures()[1:2])
    passes.clear()
    mixed = cache(IDS, pictures())
    assert passes == [2]
    for index, levels in enumerate(one_by_one):
        for ours, theirs in zip(mixed, levels):
            torch.testing.assert_close(ours[index], theirs[0], rtol=2e-3, atol=1e-5)
    passes.clear()
    reordered = cache(IDS[::-1], pictures().flip(0))
    assert passes == []
    assert all(torch.equal(ours.flip(0), theirs) for ours, theirs in zip(reordered, mixed))


def test_there_is_a_file_an_image_in_a_folder_named_by_extractor_and_size(cache, tmp_path):
    cache(IDS, pictures())
    assert cache.folder.parent == tmp_path / "3_seg"
    assert cache.folder.name.startswith("cache_") and cache.folder.name.endswith(f"_{SIZE}")
    names = sorted(files(cache))
    assert len(names) == len(IDS), "and no unfinished one"
    for name, image_id in zip(names, IDS):
        assert re.fullmatch(re.escape(image_id) + r"\.40x57\.[0-9a-f]{8}\.npz", name)


def test_an_image_that_has_changed_is_computed_anew(cache, passes):
    cache(IDS[:1], pictures(1))
    passes.clear()
    changed = pictures(1)
    changed[0, 0, 0, 0] ^= 1
    upright = torch.zeros(1, 3, 64, 40, dtype=torch.uint8)
    for images in (changed, upright, upright.transpose(2, 3)):
        levels = cache(IDS[:1], images)
        assert [level.shape[1:] for level in levels] == cache.hypercolumn.level_shapes(*images.shape[-2:])
    assert passes == [1, 1, 1]


def test_another_extractor_or_size_has_another_folder(cache, hypercolumn, tmp_path):
    others = [
        Hypercolumn("squeezenet1_1", "random", taps=[1, 2, 3], seed=2),
        Hypercolumn("squeezenet1_1", "random", taps=[1, 2], seed=1),
        Hypercolumn("squeezenet1_1", "random", taps=[1, 3], seed=1),
        Hypercolumn("squeezenet1_1", "random", taps=[3], seed=1),
        Hypercolumn("squeezenet1_0", "random", taps=[1, 2, 3], seed=1),
    ]
    folders = [LevelCache(tmp_path / "3_seg", other, SIZE).folder for other in others]
    folders += [cache.folder, LevelCache(tmp_path / "3_seg", hypercolumn, SIZE + 1).folder]
    assert len(set(folders)) == len(folders)
    same = Hypercolumn("squeezenet1_1", "random", taps=[1, 2, 3], seed=1)
    assert LevelCache(tmp_path / "3_seg", same, SIZE).folder == cache.folder


def test_the_room_that_is_asked_for_is_what_gets_written(cache):
    shapes = [(64, 97), (64, 64), (64, 97)]
    for index, shape in enumerate(shapes):
        cache([f"image_{index}"], pictures(1, *shape))
    size = written(cache) / GIB
    words = cache.make_room(iter(shapes), 1.02 * size)
    amount, _, rest = words.partition(" ")
    assert float(amount) == pytest.approx(size, rel=0.02) and rest == f"GiB in {cache.folder}, removed at the end"
    with pytest.raises(RunError, match="allow that much, use fewer images or levels, or leave --cache out"):
        cache.make_room(iter(shapes), 0.98 * size)


def test_a_budget_that_is_too_small_is_refused_before_anything_is_made(cache, passes, tmp_path):
    with pytest.raises(RunError, match=r"^--cache 0.5: the levels of 3000 images take 10\.\d GiB; allow"):
        cache.make_room([(224, 300)] * 3000, 0.5)
    assert not passes and not list(tmp_path.iterdir())


def test_the_disk_must_hold_what_is_not_written_yet(cache, monkeypatch):
    shapes = [(64, 97), (64, 97)]
    cache(["photos/1"], pictures(1, *shapes[0]))
    one = written(cache)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=int(1.02 * one)))
    cache.make_room(shapes, budget=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=int(0.98 * one)))
    with pytest.raises(
        RunError, match=r"^--cache: .*cache_.* needs 0\.000\d+ GiB more, but .* has 0\.000\d+ GiB free$"
    ):
        cache.make_room(shapes, budget=1)


@pytest.mark.parametrize("damage", ["empty", "half", "flipped", "another kind"])
def test_a_damaged_file_is_named_and_may_be_deleted(cache, damage):
    expected = cache(IDS, pictures())
    (path,) = cache.folder.glob(f"{IDS[1]}.*.npz")
    whole, middle = path.read_bytes(), path.stat().st_size // 2
    flipped = whole[:middle] + bytes([~whole[middle] & 255]) + whole[middle + 1 :]
    path.write_bytes({"empty": b"", "half": whole[:middle], "flipped": flipped, "another kind": b"\x93NUMPY"}[damage])
    with pytest.raises(RunError) as caught:
        cache(IDS, pictures())
    message = str(caught.value)
    assert message.startswith(f"{path}: cannot be read (") and message.endswith("; delete it and go on with --resume")
    assert "\n" not in message
    path.unlink()
    for ours, theirs in zip(cache(IDS, pictures()), expected):
        torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("value", [1e9, float("inf"), float("nan")])
def test_activations_that_float16_cannot_hold_are_refused_and_not_kept(cache, value):
    images = pictures().float() / 255
    images[1] *= value
    with pytest.raises(
        RunError, match="^--cache: a.b has activations too large for float16; leave out --cache and --amp fp16$"
    ):
        cache(IDS, images)
    assert all(name.startswith("2007_000032.") for name in files(cache))


def test_removed_is_removed(cache):
    cache(IDS, pictures())
    beside = cache.folder.parent / "last.pt"
    beside.write_text("kept")
    cache.remove()
    assert list(cache.folder.parent.iterdir()) == [beside]
    cache.remove()
