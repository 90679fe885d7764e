"""The store of sparse features: what is written is read back, whole or not at all, in bounded memory."""

import re
import tracemalloc

import numpy as np
import pytest

from data import DataError
from data.features import Features, FeatureWriter, read_features

CHANNELS, CLASSES, ROWS = 5, 21, 57
NAMES = {*(f"{name}.npy" for name in Features._fields), "images.txt"}
IMAGES = ["2007_000032", "fåtölj"]


def rows(count: int = ROWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(1000, [0, 1e-3, 1, 10, 100], (count, CHANNELS)).astype(np.float32)
    return features, rng.integers(0, CLASSES, count).astype(np.uint8), rng.integers(0, 9999, (count, 3))


def write(folder, blocks, images=IMAGES) -> None:
    with FeatureWriter(folder, CHANNELS) as writer:
        for block in blocks:
            writer.append(*block)
        writer.finish(images)


def chunks(data, sizes):
    """The rows in blocks of these sizes."""
    ends = np.cumsum(sizes)
    return [tuple(array[end - size : end] for array in data) for size, end in zip(sizes, ends)]


@pytest.fixture
def store(tmp_path):
    """A finished store."""
    write(tmp_path / "store", [rows()])
    return tmp_path / "store"


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("sizes", [[57], [1, 0, 7, 30, 19], 57 * [1]], ids=["at_once", "odd", "single"])
def test_rows_are_read_back_whatever_the_blocks(sizes, tmp_path):
    data = rows()
    write(tmp_path / "new" / "store", chunks(data, sizes))
    store = read_features(tmp_path / "new" / "store", CLASSES)
    for array, expected in zip(store, data):
        assert np.array_equal(array, expected) and array.dtype == expected.dtype
    assert isinstance(store.features, np.memmap)
    exact = data[0].astype(np.float64)
    np.testing.assert_allclose(store.mean, exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(store.std, exact.std(0), rtol=1e-5, atol=1e-9)


def test_files_are_plain_numpy_and_text(store):
    arrays = {name: np.load(store / f"{name}.npy") for name in Features._fields}
    assert {name: (array.shape, array.dtype) for name, array in arrays.items()} == {
        "features": ((ROWS, CHANNELS), np.float32),
        "labels": ((ROWS,), np.uint8),
        "pixels": ((ROWS, 3), np.int64),
        "mean": ((CHANNELS,), np.float32),
        "std": ((CHANNELS,), np.float32),
    }
    assert (store / "images.txt").read_text(encoding="utf-8") == "2007_000032\nfåtölj\n"
    assert set(content(store)) == NAMES


def test_types_are_converted_and_strided_rows_accepted(tmp_path):
    features, labels, pixels = rows()
    block = features.astype(np.float64).T.copy().T, labels.astype(np.int64), np.asfortranarray(pixels.astype(np.int32))
    write(tmp_path, [block])
    store = read_features(tmp_path, CLASSES)
    assert all(np.array_equal(array, expected) for array, expected in zip(store, (features, labels, pixels)))


def test_a_writer_counts_its_rows(tmp_path):
    with FeatureWriter(tmp_path, CHANNELS) as writer:
        assert writer.rows == 0
        for block in chunks(rows(), [7, 0, 50]):
            writer.append(*block)
        assert writer.rows == ROWS


def stop(writer) -> None:
    raise InterruptedError


@pytest.mark.parametrize(
    "end, error",
    [
        (stop, InterruptedError),
        (lambda writer: writer.finish([*IMAGES, "\ud800"]), UnicodeEncodeError),  # fails on the way
    ],
    ids=["left", "failed"],
)
def test_a_store_that_is_not_finished_leaves_the_old_one(end, error, store):
    before = content(store)
    with pytest.raises(error), FeatureWriter(store, CHANNELS) as writer:
        writer.append(*rows(9, seed=1))
        assert content(store).items() >= before.items()
        end(writer)
    assert content(store) == before


def test_finish_replaces_the_old_store(store):
    write(store, [rows(9, seed=1)], ["only"])
    assert set(content(store)) == NAMES
    assert np.array_equal(read_features(store, CLASSES).features, rows(9, seed=1)[0])
    assert (store / "images.txt").read_text() == "only\n"


def test_memory_does_not_grow_with_the_rows(tmp_path):
    block = rows(500)

    def peak(blocks: int) -> int:
        tracemalloc.start()
        with FeatureWriter(tmp_path, CHANNELS) as writer:
            for _ in range(blocks):
                writer.append(*block)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(1)  # what is imported and cached once does not count
    assert peak(200) < peak(20) + 10_000  # bytes; a block's features alone have 10,000


def damage_missing(store):
    (store / "pixels.npy").unlink()


def damage_truncated_map(store):
    path = store / "features.npy"
    path.write_bytes(path.read_bytes()[:-4])


def damage_truncated(store):
    path = store / "labels.npy"
    path.write_bytes(path.read_bytes()[:-4])


def damage_empty_file(store):
    (store / "std.npy").write_bytes(b"")


def damage_rows(store):
    np.save(store / "labels.npy", rows(9)[1])


def damage_pixels(store):
    np.save(store / "pixels.npy", rows()[2][:, :2])


def damage_channels(store):
    np.save(store / "mean.npy", np.zeros(CHANNELS + 1, np.float32))


def damage_flat(store):
    np.save(store / "features.npy", np.zeros(ROWS, np.float32))


def damage_label(store):
    labels = rows()[1]
    labels[5] = CLASSES
    np.save(store / "labels.npy", labels)


def damage_pickle(store):
    np.save(store / "labels.npy", np.array([print] * ROWS, dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    "damage, message",
    [
        (damage_missing, "/pixels.npy: no such file; run step 1 again: python sample_features.py"),
        (damage_truncated_map, "/features.npy: cannot be read"),
        (damage_truncated, "/labels.npy: cannot be read"),
        (damage_empty_file, "/std.npy: cannot be read"),
        (damage_rows, f": labels.npy has shape (9,), which does not go with features.npy ({ROWS}, {CHANNELS})"),
        (damage_pixels, f": pixels.npy has shape ({ROWS}, 2), which does not go with features.npy"),
        (damage_channels, f": mean.npy has shape ({CHANNELS + 1},), which does not go with features.npy"),
        (damage_flat, f": features.npy has shape ({ROWS},)"),
        (damage_label, f"/labels.npy: label {CLASSES} is outside the classes 0..{CLASSES - 1}"),
        (damage_pickle, "/labels.npy: cannot be read"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_damaged_store_is_named(damage, message, store):
    damage(store)
    with pytest.raises(DataError, match=re.escape(f"{store}{message}")) as raised:
        read_features(store, CLASSES)
    assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_single_feature_that_is_not_finite_is_noticed(value, tmp_path):
    data = rows()
    data[0][40, 2] = value
    with pytest.raises(DataError, match="the features are not all finite"):
        write(tmp_path, chunks(data, [30, 20, 7]))
    assert not content(tmp_path)


@pytest.mark.parametrize("name", ["mean", "std"])
def test_a_moment_that_is_not_finite_is_noticed(name, store):
    np.save(store / f"{name}.npy", np.full(CHANNELS, np.nan, dtype=np.float32))
    with pytest.raises(DataError, match="the features are not all finite"):
        read_features(store, CLASSES)


def test_a_store_without_rows_is_refused(tmp_path):
    write(tmp_path, [])
    with pytest.raises(DataError, match="features.npy holds no row; are the masks of the split all void"):
        read_features(tmp_path, CLASSES)
