"""The drawn data set: VOC layout, equal files from equal seeds, every class in every split."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data.shapes
from data import DataError
from data.classes import VOC, VOID
from data.shapes import OBJECTS, make_shapes
from data.voc import VOCFolder, count_pixels, read_ids

SPLITS = ("train", "val", "test")


def content(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def keep(image, mask):
    return image, mask


def test_every_class_of_voc_can_be_drawn():
    assert tuple(OBJECTS) == VOC.names[1:]


def test_layout_is_that_of_voc(drawn):
    ids = [f"shapes_{index:06d}" for index in range(24)]
    assert set(content(drawn)) == {
        "shapes.json",
        *(f"JPEGImages/{name}.jpg" for name in ids),
        *(f"SegmentationClass/{name}.png" for name in ids),
        *(f"ImageSets/Segmentation/{split}.txt" for split in (*SPLITS, "trainval")),
    }


def test_splits_are_disjoint_and_take_an_eighth_each(drawn):
    ids = {split: read_ids(drawn, split) for split in SPLITS}
    assert {split: len(names) for split, names in ids.items()} == {"train": 18, "val": 3, "test": 3}
    assert len({name for names in ids.values() for name in names}) == 24
    assert read_ids(drawn, "trainval") == sorted(ids["train"] + ids["val"])


def test_masks_are_palette_images_of_voc_values_with_void_outlines(drawn):
    for path in (drawn / "SegmentationClass").iterdir():
        with Image.open(path) as mask, Image.open(drawn / "JPEGImages" / f"{path.stem}.jpg") as photo:
            assert (mask.mode, photo.mode, photo.format) == ("P", "RGB", "JPEG")
            assert mask.size == photo.size and min(mask.size) == 64
            assert mask.getpalette() == VOC.palette()
            values = np.array(mask)
        assert set(values.ravel().tolist()) <= {*range(21), VOID}
        assert 0.01 < (values == VOID).mean() < 0.5
        # Nowhere do two values touch without void between them.
        for first, second in ((values[1:], values[:-1]), (values[:, 1:], values[:, :-1])):
            assert not ((first != second) & (first != VOID) & (second != VOID)).any()


def test_most_pictures_hold_several_classes_on_a_ground(drawn):
    present = [set(np.unique(mask)) - {VOID} for mask in map(VOCFolder(drawn, "trainval", keep).mask, range(21))]
    assert all(0 in values for values in present)
    assert np.mean([len(values) >= 3 for values in present]) > 0.8
    assert max(map(len, present)) >= 5


def test_an_object_shows_in_the_photo(drawn):
    """Colours differ between an object and its ground, more than within the ground's own noise."""
    dataset = VOCFolder(drawn, "train", keep)
    distances = []
    for index in range(len(dataset)):
        image, mask = dataset.image(index).astype(float), dataset.mask(index)
        ground = image[mask == 0].mean(0)
        distances += [abs(image[mask == value] - ground).mean() for value in set(np.unique(mask)) - {0, VOID}]
    assert np.mean(distances) > 40  # grey levels


def test_equal_calls_draw_equal_files_and_fewer_images_the_first_of_more(drawn, tmp_path):
    again = make_shapes(tmp_path / "again", images=24, size=64, seed=0)
    fewer = make_shapes(tmp_path / "fewer", images=9, size=64, seed=0)
    assert content(again) == content(drawn)
    pictures = {name: data for name, data in content(fewer).items() if name.endswith(("jpg", "png"))}
    assert len(pictures) == 18 and pictures.items() <= content(drawn).items()
    for split in SPLITS:
        ids = read_ids(fewer, split)
        assert read_ids(drawn, split)[: len(ids)] == ids


def test_another_seed_draws_other_pictures_of_other_shapes(tmp_path):
    folders = [make_shapes(tmp_path / str(seed), images=8, size=32, seed=seed) for seed in (0, 1)]
    first, second = map(content, folders)
    assert set(first) == set(second)
    assert all(first[name] != second[name] for name in first if name.startswith(("JPEGImages", "SegmentationClass")))
    first, second = ([sample.size for sample in VOCFolder(folder, "trainval", keep)] for folder in folders)
    assert first != second


def test_every_class_is_in_every_split_of_160_pictures(tmp_path):
    folder = make_shapes(tmp_path / "shapes", images=160, size=48, seed=0)
    for split in SPLITS:
        assert count_pixels(VOCFolder(folder, split, keep)).all(), split


def test_a_complete_data_set_is_kept_as_it_is(shapes, monkeypatch):
    monkeypatch.setattr(data.shapes, "_picture", lambda *_: pytest.fail("drew again"))
    before = {path: path.stat().st_mtime_ns for path in shapes.rglob("*")}
    assert make_shapes(shapes, images=24, size=64, seed=0) == shapes
    assert {path: path.stat().st_mtime_ns for path in shapes.rglob("*")} == before


@pytest.mark.parametrize("last", ["shapes_000005.jpg", "val.txt", "trainval.txt"])
def test_an_interrupted_data_set_is_drawn_to_its_end(last, tmp_path, monkeypatch):
    def interrupt(do):
        def until(first, *arguments, **options):
            # The file is the method's own path (Path.write_text) or its first argument (Image.save).
            if last in {path.name for path in (first, *arguments) if isinstance(path, Path)}:
                raise KeyboardInterrupt
            return do(first, *arguments, **options)

        return until

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "write_text", interrupt(Path.write_text))
        patch.setattr(Image.Image, "save", interrupt(Image.Image.save))
        make_shapes(tmp_path / "shapes", images=9, size=32)
    make_shapes(tmp_path / "shapes", images=9, size=32)
    assert content(tmp_path / "shapes") == content(make_shapes(tmp_path / "whole", images=9, size=32))


@pytest.mark.parametrize("wish", [{"images": 23}, {"size": 65}, {"seed": 1}])
def test_a_folder_with_another_data_set_is_refused(wish, drawn):
    before = content(drawn)
    with pytest.raises(DataError, match="already holds other data; give another folder or delete it"):
        make_shapes(drawn, **{"images": 24, "size": 64, "seed": 0} | wish)
    assert content(drawn) == before


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="already holds other data"):
        make_shapes(tmp_path, images=1, size=32)
    assert content(tmp_path) == {"thesis.txt": b"mine"}


@pytest.mark.parametrize(
    "wish, message",
    [
        ({"images": 0}, "images is 0; it must be at least 1"),
        ({"size": 31}, "size is 31; it must be at least 32"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
    ],
)
def test_requests_that_cannot_be_drawn_are_named(wish, message, tmp_path):
    with pytest.raises(DataError, match=f"^{message}$"):
        make_shapes(tmp_path / "out", **wish)
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="file.*: cannot be written"):
        make_shapes(tmp_path / "file" / "out", images=1, size=32)


def test_command_draws_the_data_set(script, drawn, tmp_path):
    out = tmp_path / "deep" / "shapes"
    done = script("-m", "data.shapes", out, "--images", 24, "--size", 64, "--seed", 0)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{out}: 24 pictures of 21 classes, shorter side 64 pixels\n"
    assert content(out) == content(drawn)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--size", "31"], "data.shapes: size is 31; it must be at least 32\n"),
        (["--images", "23", "--size", "64"], "data.shapes: {}: already holds other data; give another folder or"),
    ],
)
def test_command_reports_a_mistake_on_one_line(arguments, message, drawn, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["shapes.py", str(drawn), *arguments])
    assert data.shapes.main() == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(message.format(drawn)) and captured.err.count("\n") == 1
    assert not captured.out
