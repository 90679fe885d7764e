"""A data set in VOC layout: what is accepted, what is refused and how."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import VOCSegmentation

import data.voc
from data import DataError
from data.classes import VOC, VOID
from data.images import EXIF_ORIENTATION
from data.voc import (
    VOCFolder,
    count_pixels,
    find_root,
    read_ids,
    read_photo,
)

OFFICIAL = Path("VOCdevkit") / "VOC2012"
CLASSES = len(VOC)


def keep(image, mask):
    """The transform that changes nothing."""
    return image, mask


def noise(*shape: int, top: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, top, shape, dtype=np.uint8)


def saved(path: Path, pixels: np.ndarray, **options) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def same(first, second) -> bool:
    """Whether two samples are equal."""
    arrays = zip((first.image, first.mask), (second.image, second.mask))
    return (first.id, first.size) == (second.id, second.size) and all(np.array_equal(*pair) for pair in arrays)


def listed(root: Path, split: str) -> Path:
    return root / "ImageSets" / "Segmentation" / f"{split}.txt"


@pytest.fixture
def official(drawn, tmp_path) -> Path:
    """The drawn data set as the official tree; the folder that holds VOCdevkit."""
    shutil.copytree(drawn, tmp_path / "official" / OFFICIAL)
    return tmp_path / "official"


@pytest.mark.parametrize("inside", [".", "VOC2012", OFFICIAL])
def test_root_is_found_in_its_three_places(inside, tmp_path):
    root = tmp_path / inside
    (root / "JPEGImages").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    assert find_root(tmp_path) == root
    assert find_root(str(tmp_path)) == root


@pytest.mark.parametrize("present", [[], ["JPEGImages"], ["ImageSets/Segmentation"], ["deep/VOC2012/JPEGImages"]])
def test_a_folder_in_another_layout_is_refused(present, tmp_path):
    for folder in present:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}: no data set in VOC layout") + ".*data.download"):
        find_root(tmp_path)


def test_a_folder_that_only_lacks_lists_is_told_how_to_make_them(shapes):
    shutil.rmtree(shapes / "ImageSets")
    with pytest.raises(DataError, match=re.escape(f"make them with: python -m data.voc --make-lists {shapes}")):
        find_root(shapes)


@pytest.mark.parametrize(
    "text",
    [b"b_2\na.1\nc\n", b"b_2\r\na.1\r\nc\r\n", b"\n b_2 \n\na.1\nc\n\n", b"\xef\xbb\xbfb_2\na.1\nc"],
    ids=["plain", "windows", "blanks", "byte_order_mark"],
)
def test_ids_are_read_in_the_order_of_the_list(text, shapes):
    listed(shapes, "own").write_bytes(text)
    assert read_ids(shapes, "own") == ["b_2", "a.1", "c"]


@pytest.mark.parametrize(
    "text, message",
    [
        (b"", "the list is empty"),
        (b"\n \n", "the list is empty"),
        (b"a\nb\na\n", "id 'a' is listed twice"),
        (b"a\n../a\n", "'../a' is not an image id"),
        (b"/etc/passwd\n", "'/etc/passwd' is not an image id"),
        (b"a\\b\n", "is not an image id"),
        (b"..\n", "'..' is not an image id"),
        (b"a\0b\n", "is not an image id"),
        (b"\xff\xfe\n", "not a UTF-8 text file"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(text, message, shapes):
    listed(shapes, "own").write_bytes(text)
    with pytest.raises(DataError, match=re.escape(str(listed(shapes, "own"))) + ".*" + re.escape(message)):
        read_ids(shapes, "own")


@pytest.mark.parametrize("split", ["trainn", "", "../train", "sub/train", "/train", "train.txt"])
def test_an_unknown_split_names_the_lists_there(split, shapes):
    (shapes / "ImageSets" / "train.txt").write_text("a\n")  # in reach of ../train, but not a segmentation list
    (shapes / "ImageSets" / "Segmentation" / "sub").mkdir()
    shutil.copy(listed(shapes, "train"), shapes / "ImageSets" / "Segmentation" / "sub")
    with pytest.raises(DataError, match=f"split {split!r}; lists there: test, train, trainval, val$"):
        read_ids(shapes, split)


def test_a_folder_without_lists_says_so(shapes):
    for path in (shapes / "ImageSets" / "Segmentation").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="lists there: none"):
        read_ids(shapes, "train")


@pytest.mark.parametrize("split", ["train", "val", "trainval"])
def test_the_official_tree_is_read_through_torchvision(split, official, drawn, monkeypatch):
    asked = []

    def spy(*arguments, **options):
        asked.append((*arguments, options))
        return VOCSegmentation(*arguments, **options)

    monkeypatch.setattr(data.voc, "VOCSegmentation", spy)
    plain = VOCFolder(drawn, split, keep)
    assert not asked
    for place in (official, official / "VOCdevkit", official / OFFICIAL):
        dataset = VOCFolder(place, split, keep)
        assert dataset.ids == plain.ids
        assert all(map(same, dataset, plain))
    assert asked == 3 * [(str(official), {"year": "2012", "image_set": split})]


def test_the_official_files_are_those_that_torchvision_names(official, drawn, monkeypatch):
    ids = read_ids(drawn, "val")
    named = SimpleNamespace(
        images=[str(drawn / "JPEGImages" / f"{name}.jpg") for name in reversed(ids)],
        masks=[str(drawn / "SegmentationClass" / f"{name}.png") for name in reversed(ids)],
    )
    for folder in ("JPEGImages", "SegmentationClass"):
        shutil.rmtree(official / OFFICIAL / folder)
        (official / OFFICIAL / folder).mkdir()
    monkeypatch.setattr(data.voc, "VOCSegmentation", lambda *_, **__: named)
    assert all(map(same, VOCFolder(official, "val", keep), VOCFolder(drawn, "val", keep)))


@pytest.mark.parametrize("mark, end", [("", "\r\n"), ("", "\n\n"), ("\ufeff", "\n")], ids=["windows", "blanks", "bom"])
def test_an_edited_official_list_reads_as_anywhere_else(mark, end, official, drawn):
    ids = read_ids(drawn, "val")
    listed(official / OFFICIAL, "val").write_bytes((mark + "".join(name + end for name in ids)).encode())
    assert VOCFolder(official, "val", keep).ids == ids


def test_own_lists_in_the_official_tree_are_read_too(official, drawn):
    assert all(map(same, VOCFolder(official, "test", keep), VOCFolder(drawn, "test", keep)))


@pytest.mark.parametrize("place", ["shapes", "official"])
def test_train_aug_reads_the_masks_of_its_own_folder(place, request):
    folder = request.getfixturevalue(place)
    root = find_root(folder)
    ids = read_ids(root, "train")[:2]
    listed(root, "train_aug").write_text("\n".join(ids))
    (root / "SegmentationClassAug").mkdir()
    masks = [np.full_like(VOCFolder(folder, "train", keep).mask(index), 7 + index) for index in range(2)]
    for name, mask in zip(ids, masks):
        saved(root / "SegmentationClassAug" / f"{name}.png", mask)
    dataset = VOCFolder(folder, "train_aug", keep)
    assert all(np.array_equal(dataset.mask(index), masks[index]) for index in range(2))


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png"])
def test_images_may_have_other_suffixes(suffix, shapes):
    name = read_ids(shapes, "val")[0]
    path = shapes / "JPEGImages" / f"{name}.jpg"
    with Image.open(path) as picture:
        picture.load()
    path.unlink()
    picture.save(path.with_suffix(suffix))
    assert VOCFolder(shapes, "val", keep)[0].size == picture.size[::-1]


def test_sample_holds_the_picture_and_its_mask(drawn):
    dataset = VOCFolder(drawn, "train", keep)
    assert dataset.classes == VOC
    for index in (0, len(dataset) - 1):
        sample = dataset[index]
        with Image.open(drawn / "JPEGImages" / f"{sample.id}.jpg") as picture:
            assert np.array_equal(sample.image.transpose(1, 2, 0), picture)
            assert sample.size == picture.size[::-1]
        with Image.open(drawn / "SegmentationClass" / f"{sample.id}.png") as picture:
            assert np.array_equal(sample.mask, picture)
        assert sample.id == dataset.ids[index]
        assert sample.image.dtype == sample.mask.dtype == np.uint8


@pytest.mark.parametrize("limit, expected", [(None, 18), (1, 1), (5, 5), (99, 18)])
def test_limit_takes_the_first_images(limit, expected, drawn):
    dataset = VOCFolder(drawn, "train", keep, limit)
    assert len(dataset) == expected
    assert dataset.ids == read_ids(drawn, "train")[:expected]


@pytest.mark.parametrize("orientation, upright", [(1, (64, 90)), (3, (64, 90)), (6, (90, 64)), (8, (90, 64))])
def test_sizes_are_those_of_the_upright_images(orientation, upright, shapes):
    image_id = read_ids(shapes, "train")[1]
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    saved(shapes / "JPEGImages" / f"{image_id}.jpg", noise(64, 90, 3), exif=exif)
    saved(shapes / "SegmentationClass" / f"{image_id}.png", noise(*upright, top=CLASSES))
    dataset = VOCFolder(shapes, "train", keep)
    assert dataset.sizes[1] == upright
    assert dataset.sizes == [sample.size for sample in dataset]


def test_a_photo_may_have_its_suffix_in_capitals(shapes):
    path = shapes / "JPEGImages" / f"{read_ids(shapes, 'val')[0]}.jpg"
    expected = VOCFolder(shapes, "val", keep)[0]
    path.rename(path.with_suffix(".JPG"))
    assert same(VOCFolder(shapes, "val", keep)[0], expected)


def test_a_data_set_may_bring_its_own_classes(shapes):
    (shapes / "classes.txt").write_text("ground 1 2 3\nthing 9 9 9\n")
    name = read_ids(shapes, "val")[0]
    path = shapes / "SegmentationClass" / f"{name}.png"
    with Image.open(path) as mask:
        values = (np.array(mask) == 0).astype(np.uint8)
    saved(path, values)
    dataset = VOCFolder(shapes, "val", keep)
    assert dataset.classes.names == ("ground", "thing")
    assert np.array_equal(dataset[0].mask, values)
    assert len(count_pixels(VOCFolder(shapes, "val", keep, limit=1))) == 2
    with pytest.raises(DataError, match=r"label \d+ is outside the classes 0..1"):
        dataset[1]


@pytest.mark.parametrize("place", ["shapes", "official"])
@pytest.mark.parametrize(
    "folder, suffix, kind", [("JPEGImages", ".jpg", "image"), ("SegmentationClass", ".png", "mask")]
)
def test_a_missing_file_is_found_at_once(place, folder, suffix, kind, request):
    root = find_root(request.getfixturevalue(place))
    name = read_ids(root, "train")[-1]
    path = root / folder / (name + suffix)
    path.unlink()
    with pytest.raises(DataError, match=re.escape(f"{path}: no {kind} for id '{name}' of split 'train'")):
        VOCFolder(root, "train", keep)


def test_a_mask_of_another_size_is_found_at_once(shapes):
    name = read_ids(shapes, "train")[-1]
    with Image.open(shapes / "JPEGImages" / f"{name}.jpg") as picture:
        width, height = picture.size
    path = saved(shapes / "SegmentationClass" / f"{name}.png", np.zeros((height + 1, width), np.uint8))
    message = f"{path}: the mask is {width}x{height + 1} but its image {name}.jpg is {width}x{height}"
    with pytest.raises(DataError, match=re.escape(message)):
        VOCFolder(shapes, "train", keep)


def truncate(path: Path) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


@pytest.mark.parametrize("folder, suffix", [("JPEGImages", ".jpg"), ("SegmentationClass", ".png")])
def test_a_truncated_file_is_named(folder, suffix, shapes):
    path = truncate(shapes / folder / (read_ids(shapes, "train")[1] + suffix))
    with pytest.raises(DataError, match=re.escape(f"{path}: cannot be read as an image")):
        VOCFolder(shapes, "train", keep)[1]


def test_a_file_that_is_no_image_is_found_at_once(shapes):
    path = shapes / "JPEGImages" / (read_ids(shapes, "train")[1] + ".jpg")
    path.write_text("<html>404</html>")
    with pytest.raises(DataError, match=re.escape(f"{path}: cannot be read as an image")):
        VOCFolder(shapes, "train", keep)


def test_a_photo_comes_with_an_all_void_mask(tmp_path):
    path = saved(tmp_path / "my.holiday.png", noise(4, 6, 3))
    pixels, sample = read_photo(path, lambda image, mask: (image[:, ::2], mask))
    assert np.array_equal(pixels, noise(4, 6, 3))
    assert np.array_equal(sample.image.transpose(1, 2, 0), pixels[::2])
    assert sample.id == "my.holiday" and sample.size == (4, 6)
    assert sample.mask.shape == (4, 6) and (sample.mask == VOID).all()
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'no.jpg'}: no such file")):
        read_photo(tmp_path / "no.jpg", keep)


def test_pixels_are_counted_at_the_original_size(drawn):
    dataset = VOCFolder(drawn, "train", lambda image, mask: (image, mask[:1, :1]))
    expected = [0] * CLASSES
    for name in dataset.ids:
        with Image.open(drawn / "SegmentationClass" / f"{name}.png") as mask:
            for label, count in zip(*np.unique(mask, return_counts=True)):
                if label != VOID:
                    expected[label] += int(count)
    counts = count_pixels(dataset)
    assert counts.tolist() == expected and counts.dtype == np.int64
