"""Scores image by image: what is kept of each, on disk and back, and which of two belong together."""

import io
import re

import numpy as np
import pytest

from losses.image_scores import ImageScores
from losses.score import ConfusionMatrix

NAMES = ["ground", "car", "tree"]
VOID = 255


def noise(seed: int, void: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a target (6, 7); the target, and so what is void, follows from the seed alone."""
    rng = np.random.default_rng(seed)
    target = np.where(rng.random((6, 7)) < void, VOID, rng.integers(0, 3, (6, 7)))
    return rng.integers(0, 3, (6, 7)), target


def scored(ids: str = "abcd", shift: int = 0, names: list[str] = NAMES) -> ImageScores:
    """Scores of images with one letter as id; `shift` changes every prediction."""
    scores = ImageScores(names)
    for image_id in ids:
        prediction, target = noise(ord(image_id), void=1.0 if image_id == "v" else 0.3)
        scores.add(image_id, (prediction + shift) % 3, target)
    return scores


def test_the_total_is_that_of_one_matrix_over_all_images():
    matrix = ConfusionMatrix(3)
    for image_id in "avb":
        matrix.update(*noise(ord(image_id), void=1.0 if image_id == "v" else 0.3))
    scores = scored("avb")
    assert np.array_equal(scores.total().counts, matrix.counts)
    assert scores.ids == ["a", "v", "b"] and len(scores) == 3


def test_pixels_are_those_of_each_image():
    pixels = scored("avb").pixels()
    for index, image_id in enumerate("avb"):
        prediction, target = noise(ord(image_id), void=1.0 if image_id == "v" else 0.3)
        for label in range(3):
            assert pixels.truth[index, label] == (target == label).sum()
            assert pixels.predicted[index, label] == ((prediction == label) & (target != VOID)).sum()
            assert pixels.hits[index, label] == ((prediction == label) & (target == label)).sum()


def test_scores_in_parts_are_those_of_all():
    parts = ImageScores(NAMES)
    for ids in ("ab", "", "vc"):
        parts.extend(scored(ids))
    assert bytes_of(parts) == bytes_of(scored("abvc"))
    assert bytes_of(parts.take([3, 0])) == bytes_of(scored("ca"))


def bytes_of(scores: ImageScores) -> bytes:
    file = io.BytesIO()
    scores.save(file)
    return file.getvalue()


@pytest.mark.parametrize("ids", ["a", "v", "va", "avv", "abcd", "vvavbv"])
def test_scores_survive_a_file(ids, tmp_path):
    (tmp_path / "scores").write_bytes(bytes_of(scored(ids)))
    back = ImageScores.load(tmp_path / "scores")
    assert (back.ids, back.names) == (list(ids), NAMES)
    assert all(np.array_equal(*pair) for pair in zip(back.pixels(), scored(ids).pixels()))
    assert bytes_of(back) == bytes_of(scored(ids))


def test_the_file_can_be_read_without_this_project(tmp_path):
    (tmp_path / "scores.npz").write_bytes(bytes_of(scored("ab")))
    arrays = np.load(tmp_path / "scores.npz")
    prediction, target = noise(ord("b"))
    here = (arrays["image"] == 1) & (arrays["truth"] == 2) & (arrays["prediction"] == 1)
    assert arrays["ids"][1] == "b" and arrays["classes"].tolist() == NAMES
    assert arrays["pixels"][here].tolist() == [((target == 2) & (prediction == 1)).sum()]


def test_sixty_classes_and_ten_thousand_images_stay_small():
    rng = np.random.default_rng(0)
    scores = ImageScores([f"class_{index}" for index in range(60)])
    one = ImageScores(scores.names)
    one.add("x", rng.integers(0, 8, (90, 90)), rng.integers(0, 5, (90, 90)))  # 40 pairs of classes
    for index in range(10_000):
        one.ids = [f"2012_{index:06}"]
        scores.extend(one)
    assert len(bytes_of(scores)) < 2 << 20
    assert scores.pixels().truth.shape == (10_000, 60)
    assert scores.total().counts.sum() == 10_000 * 90 * 90


def test_every_damaged_byte_is_noticed(tmp_path):
    whole = bytes_of(scored("abc"))
    expected = scored("abc").pixels()
    noticed = 0
    for place in range(0, len(whole), 7):
        (tmp_path / "scores").write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            back = ImageScores.load(tmp_path / "scores")
        except ValueError as error:
            assert str(error) == f"{tmp_path / 'scores'}: cannot be read as the scores of images"
            noticed += 1
        else:  # a byte that tells nothing, as a date
            assert back.ids == ["a", "b", "c"] and all(np.array_equal(*pair) for pair in zip(back.pixels(), expected))
    assert noticed > len(whole) / 7 / 2


@pytest.mark.parametrize(
    "change",
    [
        {"image": np.array([0, 0, 0])},
        {"ids": np.array(["a"])},
        {"classes": np.array(["ground", "car"])},
        {"truth": None},
        {"pixels": np.array([{}], dtype=object)},
    ],
    ids=["lengths", "images", "classes", "missing", "objects"],
)
def test_arrays_that_do_not_belong_together_are_refused(change, tmp_path):
    (tmp_path / "whole.npz").write_bytes(bytes_of(scored("ab")))
    arrays = {**np.load(tmp_path / "whole.npz"), **change}
    np.savez(tmp_path / "changed.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ValueError, match="changed.npz: cannot be read as the scores of images"):
        ImageScores.load(tmp_path / "changed.npz")


@pytest.mark.parametrize("content", [b"", b"no archive", bytes_of(scored("ab"))[:-40]])
def test_a_file_that_is_none_of_scores_is_refused(content, tmp_path):
    (tmp_path / "scores").write_bytes(content)
    with pytest.raises(ValueError, match="scores: cannot be read as the scores of images"):
        ImageScores.load(tmp_path / "scores")
    with pytest.raises(FileNotFoundError):
        ImageScores.load(tmp_path / "absent")


def test_scores_of_the_same_images_are_matched_whatever_their_order():
    matched = scored("abcd").matched(scored("cadb", shift=1))
    assert bytes_of(matched) == bytes_of(scored("abcd", shift=1)) != bytes_of(scored("abcd"))


def other_truth() -> ImageScores:
    scores = scored("ab")
    prediction, target = noise(ord("z"))
    scores.add("c", prediction, target)
    return scores


@pytest.mark.parametrize(
    "others, message",
    [
        (scored("abc", names=["ground", "cat", "tree"]), "class 1 is 'car' in one and 'cat' in the other"),
        (scored("abc", names=[*NAMES, "sky"]), "class 3 is 'none' in one and 'sky' in the other"),
        (scored("ab"), "they are of other images (3 and 2; c is in one alone)"),
        (scored("abcd"), "they are of other images (3 and 4; d is in one alone)"),
        (scored("abd"), "they are of other images (3 and 3; c is in one alone)"),
        (other_truth(), "the ground truth of c is not the same, so it is other data"),
    ],
)
def test_scores_that_do_not_belong_together_are_refused(others, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        scored("abc").matched(others)
