"""The drawn data set: VOC layout, equal files from equal seeds, every class in every split."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from data.classes import VOC, VOID
from data.shapes import make_shapes

SPLITS = ("train", "val", "test")


def content(folder) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def ids_of(folder, split: str) -> list[str]:
    return (folder / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()


def pictures(folder, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Image and mask of each picture of a split."""
    for name in ids_of(folder, split):
        image = Image.open(folder / "JPEGImages" / f"{name}.jpg")
        with image, Image.open(folder / "SegmentationClass" / f"{name}.png") as mask:
            yield np.array(image), np.array(mask)


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
    assert content(make_shapes(tmp_path / "again", images=24, size=64, seed=0)) == content(drawn)
    fewer = make_shapes(tmp_path / "fewer", images=9, size=64, seed=0)
    files = {name: file for name, file in content(fewer).items() if name.endswith(("jpg", "png"))}
    assert len(files) == 18 and files.items() <= content(drawn).items()
    for split in SPLITS:
        ids = ids_of(fewer, split)
        assert ids_of(drawn, split)[: len(ids)] == ids


def test_every_class_is_in_every_split_of_160_pictures_of_several_sizes(tmp_path):
    folder = make_shapes(tmp_path / "shapes", images=160, size=48, seed=0)
    for split in SPLITS:
        masks = np.concatenate([mask.ravel() for _, mask in pictures(folder, split)])
        assert set(range(21)) <= set(np.unique(masks)), split
    sizes = {mask.shape for split in SPLITS for _, mask in pictures(folder, split)}
    assert sizes == {(48, 64), (64, 48), (48, 48)}


def test_the_command_keeps_an_equal_data_set_and_refuses_other_data(shapes, succeeds, fails):
    def times() -> dict:
        return {path: path.stat().st_mtime_ns for path in shapes.rglob("*")}

    before, command = times(), ("data/shapes.py", shapes, "--images", "24", "--size", "64")
    assert succeeds(*command) == f"{shapes}: 24 pictures of 21 classes\n"
    assert times() == before
    for flag, value in (("--images", "23"), ("--size", "65"), ("--seed", "1")):
        assert "already holds other data; give another folder" in fails(*command, flag, value)
    for flag, value in (("--images", "0"), ("--size", "31"), ("--seed", "-1")):
        assert "at least: --images 1" in fails(*command, flag, value)
    assert times() == before
