"""The drawn data set: VOC layout, equal files from equal seeds, every class in every split."""

import numpy as np
from PIL import Image

from data.classes import VOC, VOID
from data.shapes import make_shapes
from data.voc_files import find_pair, read_ids
from tests.data.conftest import files_in, times

SPLITS = ("train", "val", "test")


def test_masks_are_palette_images_of_voc_values_with_void_outlines(drawn):
    for path in (drawn / "SegmentationClass").iterdir():
        photo = Image.open(drawn / "JPEGImages" / f"{path.stem}.jpg")
        with photo, Image.open(path) as mask:
            assert (mask.mode, photo.mode, photo.format) == ("P", "RGB", "JPEG")
            assert mask.size == photo.size and min(mask.size) == 64
            assert mask.getpalette() == VOC.palette()
            values = np.array(mask)
        assert set(values.ravel().tolist()) <= {*range(21), VOID}
        assert 0.01 < (values == VOID).mean() < 0.5
        for one, next_to_it in ((values[1:], values[:-1]), (values[:, 1:], values[:, :-1])):
            assert not ((one != next_to_it) & (one != VOID) & (next_to_it != VOID)).any()


def test_equal_calls_draw_equal_files_and_fewer_images_are_the_first_of_more(drawn, tmp_path):
    assert files_in(make_shapes(tmp_path / "again", images=24, size=64, seed=0)) == files_in(drawn)
    fewer = make_shapes(tmp_path / "fewer", images=9, size=64, seed=0)
    files = {name: file for name, file in files_in(fewer).items() if name.endswith(("jpg", "png"))}
    assert len(files) == 18 and files.items() <= files_in(drawn).items()
    for split in SPLITS:
        ids = read_ids(fewer, split)
        assert read_ids(drawn, split)[: len(ids)] == ids


def test_every_class_is_in_every_split_of_160_pictures_of_several_sizes(tmp_path):
    folder, sizes = make_shapes(tmp_path / "shapes", images=160, size=48, seed=0), set()
    for split in SPLITS:
        masks = [Image.open(find_pair(folder, name)[1]) for name in read_ids(folder, split)]
        assert {*range(21)} <= {value for mask in masks for value in np.unique(mask)}, split
        sizes |= {mask.size for mask in masks}
    assert sizes == {(48, 64), (64, 48), (48, 48)}


def test_the_command_keeps_an_equal_data_set_and_refuses_other_data(shapes, succeeds, fails):
    before, command = times(shapes), ("data/shapes.py", shapes, "--images", "24", "--size", "64")
    assert succeeds(*command) == f"{shapes}: 24 pictures of 21 classes\n"
    assert times(shapes) == before
    for flag, value in (("--images", "23"), ("--size", "65"), ("--seed", "1")):
        assert "already holds other data; give another folder" in fails(*command, flag, value)
    for flag, value in (("--images", "0"), ("--size", "31"), ("--seed", "-1")):
        assert "at least: --images 1" in fails(*command, flag, value)
    assert times(shapes) == before
