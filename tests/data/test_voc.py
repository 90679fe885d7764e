"""A data set in VOC layout: what is accepted, what is refused and how, and what is random."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from data import DataError
from data.classes import VOC, VOID
from data.images import EXIF_ORIENTATION
from data.transforms import Augment, ResizeImage
from data.voc import MASK_FOLDERS, VOCFolder, find_root, photo_sample, read_ids


def keep(image, mask):
    """The transform that changes nothing."""
    return image, mask


def list_of(root: Path, split: str) -> Path:
    return root / "ImageSets" / "Segmentation" / f"{split}.txt"


def photo_of(root: Path, image_id: str) -> Path:
    return root / "JPEGImages" / f"{image_id}.jpg"


def mask_of(root: Path, image_id: str) -> Path:
    return root / "SegmentationClass" / f"{image_id}.png"


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) of an image."""
    with Image.open(path) as image:
        return image.size[::-1]


def save(path: Path, *shape: int, **options) -> None:
    pixels = np.random.default_rng(0).integers(0, 21, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


@pytest.mark.parametrize("inside", [".", "VOC2012", "VOCdevkit/VOC2012"])
def test_the_root_is_found_in_its_three_places(inside, tmp_path):
    root = tmp_path / inside
    (root / "JPEGImages").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    assert find_root(tmp_path) == root


@pytest.mark.parametrize("present", [[], ["JPEGImages"], ["ImageSets/Segmentation"]])
def test_a_folder_in_another_layout_is_refused(present, tmp_path):
    for folder in present:
        (tmp_path / folder).mkdir(parents=True)
    message = re.escape(f"{tmp_path}: no data set in VOC layout") + ".*python -m data.download$"
    with pytest.raises(DataError, match=message):
        find_root(tmp_path)


def test_a_folder_without_lists_is_told_how_to_make_them(tmp_path):
    (tmp_path / "my data" / "JPEGImages").mkdir(parents=True)
    (tmp_path / "my data" / "SegmentationClass").mkdir()
    with pytest.raises(DataError, match=f"with: python -m data.lists '{tmp_path}/my data'$"):
        find_root(tmp_path / "my data")


@pytest.mark.parametrize(
    "text",
    [b"b_2\na.1\nc\n", b"b_2\r\na.1\r\nc\r\n", b"\n b_2 \n\na.1\nc", b"\xef\xbb\xbfb_2\na.1\nc"],
)
def test_ids_are_read_in_the_order_of_the_list(text, shapes):
    list_of(shapes, "own").write_bytes(text)
    assert read_ids(shapes, "own") == ["b_2", "a.1", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\n \n", "the list is empty"),
        (b"a\nb\na\n", "id 'a' is listed twice"),
        (b"a\n../a\n", "'../a' is not an image id"),
        (b"/etc/passwd\n", "'/etc/passwd' is not an image id"),
        (b"a\\b\n", "is not an image id"),
        (b"..\n", "'..' is not an image id"),
        (b"a\0b\n", "'a\\x00b' is not an image id"),
        (b"a\x1bb\n", "'a\\x1bb' is not an image id"),
        (b"\xff\xfe\n", "not a UTF-8 text file"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(text, message, shapes):
    path = list_of(shapes, "own")
    path.write_bytes(text)
    with pytest.raises(DataError, match=re.escape(f"{path}: ") + ".*" + re.escape(message)):
        read_ids(shapes, "own")


@pytest.mark.parametrize("split", ["trainn", "", "../train", "sub/train", "train.txt"])
def test_an_unknown_split_names_the_lists_there(split, shapes):
    folder = list_of(shapes, "train").parent
    (folder / "sub").mkdir()
    for place in (folder.parent, folder / "sub"):
        shutil.copy(folder / "train.txt", place)
    with pytest.raises(
        DataError, match=f"split {split!r}; lists there: test, train, trainval, val$"
    ):
        read_ids(shapes, split)


# Items


@pytest.mark.parametrize(("limit", "expected"), [(None, 18), (1, 1), (5, 5), (99, 18)])
def test_items_are_the_first_images_of_the_list_with_their_masks(limit, expected, drawn):
    dataset = VOCFolder(drawn, "train", keep, limit)
    assert len(dataset) == expected and dataset.classes == VOC
    assert dataset.ids == read_ids(drawn, "train")[:expected]
    for index in (0, expected - 1):
        sample = dataset[index]
        assert (sample.id, sample.seed) == (dataset.ids[index], 0)
        assert type(sample.image) is type(sample.mask) is torch.Tensor
        with Image.open(photo_of(drawn, sample.id)) as photo:
            assert np.array_equal(sample.image.permute(1, 2, 0), photo)
            assert np.array_equal(dataset.image(index), photo)
        with Image.open(mask_of(drawn, sample.id)) as mask:
            assert np.array_equal(sample.mask, mask)
            assert np.array_equal(dataset.mask(index), mask)


def test_the_transform_makes_the_item(drawn):
    sample = VOCFolder(drawn, "val", ResizeImage(32))[0]
    assert min(sample.image.shape[1:]) == 32 and sample.image.dtype == torch.uint8
    assert sample.mask.shape == size_of(photo_of(drawn, sample.id))


def test_train_aug_has_masks_of_its_own(shapes):
    image_id = read_ids(shapes, "train")[0]
    list_of(shapes, "train_aug").write_text(image_id)
    aug = shapes / MASK_FOLDERS["train_aug"]
    aug.mkdir()
    shape = size_of(photo_of(shapes, image_id))
    Image.fromarray(np.full(shape, 7, np.uint8)).save(aug / f"{image_id}.png")
    assert (VOCFolder(shapes, "train_aug", keep).mask(0) == 7).all()


@pytest.mark.parametrize("suffix", [".jpeg", ".png", ".JPG"])
def test_photos_may_have_other_suffixes(suffix, shapes):
    path = photo_of(shapes, read_ids(shapes, "val")[0])
    expected = VOCFolder(shapes, "val", keep)[0].image
    path.rename(path.with_suffix(suffix))  # the content says what it is
    assert torch.equal(VOCFolder(shapes, "val", keep)[0].image, expected)


@pytest.mark.parametrize(("orientation", "upright"), [(3, (64, 90)), (6, (90, 64))])
def test_masks_go_with_the_upright_photo(orientation, upright, shapes):
    image_id, exif = read_ids(shapes, "train")[0], Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    save(photo_of(shapes, image_id), 64, 90, 3, exif=exif)
    save(mask_of(shapes, image_id), *upright)
    assert VOCFolder(shapes, "train", keep, limit=1)[0].image.shape[1:] == upright


def test_a_data_set_may_have_its_own_classes(shapes):
    (shapes / "classes.txt").write_text("ground 1 2 3\nthing 9 9 9\n")
    image_id = read_ids(shapes, "val")[0]
    shape = size_of(photo_of(shapes, image_id))
    Image.fromarray(np.ones(shape, np.uint8)).save(mask_of(shapes, image_id))
    dataset = VOCFolder(shapes, "val", keep)
    assert dataset.classes.names == ("ground", "thing")
    assert (dataset.mask(0) == 1).all()
    with pytest.raises(DataError, match=r"label \d+ is outside the classes 0..1"):
        dataset[1]


def test_pixels_are_counted_at_the_original_size_and_void_apart(drawn):
    dataset = VOCFolder(drawn, "train", ResizeImage(32))
    values = np.concatenate([dataset.mask(index).ravel() for index in range(len(dataset))])
    expected = [(values == label).sum() for label in range(len(VOC))]
    counts, void = dataset.count_pixels()
    assert counts.tolist() == expected and void == (values == VOID).sum() > 0


def test_absent_classes_are_named_and_binary_masks_of_0_and_255_are_refused(shapes):
    dataset, counts = VOCFolder(shapes, "train", keep), np.arange(len(VOC))
    assert dataset.absent_classes(counts, has_void=True) == ["background"]
    counts[:3] = 5, 0, 0
    assert dataset.absent_classes(counts, has_void=False) == ["aeroplane", "bicycle"]
    counts[1:] = 0
    assert len(dataset.absent_classes(counts, has_void=False)) == len(VOC) - 1
    with pytest.raises(DataError, match=f"^{shapes}: .* of train: the masks hold only 0 and 255, "):
        dataset.absent_classes(counts, has_void=True)
    with pytest.raises(DataError, match="images of train have no labelled pixel$"):
        dataset.absent_classes(np.zeros(len(VOC), int), has_void=True)


def test_the_fingerprint_is_of_the_ids_in_their_order(shapes):
    first = VOCFolder(shapes, "train", keep)
    assert first.fingerprint() == VOCFolder(shapes, "train", ResizeImage(32)).fingerprint()
    list_of(shapes, "own").write_text("\n".join(first.ids[::-1]))
    other = VOCFolder(shapes, "own", keep).fingerprint()
    assert other != first.fingerprint() and other.startswith("18 (")


def test_a_photo_comes_with_an_all_void_mask():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    sample = photo_sample("my.holiday", pixels, lambda image, mask: (image[:, ::2], mask))
    assert sample.id == "my.holiday"
    assert np.array_equal(sample.image.permute(1, 2, 0), pixels[::2])
    assert sample.mask.shape == (4, 6) and (sample.mask == VOID).all()


# What is random


def same(first, second) -> bool:
    is_same = torch.equal(first.image, second.image) and torch.equal(first.mask, second.mask)
    return is_same and (first.id, first.seed) == (second.id, second.seed)


def test_randomness_depends_on_the_seed_the_epoch_and_the_id_alone(drawn, shapes):
    def dataset(seed=0, epoch=1, split="train", root=drawn):
        found = VOCFolder(root, split, Augment(64, 48, (0.5, 2), True, 0.2), seed=seed)
        found.epoch = epoch
        return found

    torch.manual_seed(0)
    before, first = torch.get_rng_state(), dataset()[3]
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert same(dataset()[3], first)
    list_of(shapes, "own").write_text("\n".join(dataset().ids[3:]))
    assert same(dataset(split="own", root=shapes)[0], first), "other images do not matter"
    for other in (dataset(seed=1), dataset(epoch=2), dataset(seed=1, epoch=0)):
        assert not torch.equal(other[3].image, first.image) and other[3].seed != first.seed
    (loaded,) = DataLoader(dataset(), batch_size=None, sampler=[3], num_workers=1)
    assert same(loaded, first), "nor does the process that reads"


# Bad data


@pytest.mark.parametrize(("kind", "path_of"), [("image", photo_of), ("mask", mask_of)])
def test_a_missing_file_is_found_at_once(kind, path_of, shapes):
    image_id = read_ids(shapes, "train")[-1]
    path = path_of(shapes, image_id)
    path.unlink()
    with pytest.raises(DataError) as error:
        VOCFolder(shapes, "train", keep)
    assert str(error.value) == f"{path}: no {kind} for id {image_id!r} of split 'train'"


def test_a_mask_of_another_size_is_found_at_once(shapes):
    image_id = read_ids(shapes, "train")[-1]
    height, width = size_of(photo_of(shapes, image_id))
    save(mask_of(shapes, image_id), height + 1, width)
    with pytest.raises(DataError) as error:
        VOCFolder(shapes, "train", keep)
    sizes = f"the mask is {width}x{height + 1} but its image {image_id}.jpg is {width}x{height}"
    assert str(error.value) == f"{mask_of(shapes, image_id)}: {sizes}"


def test_a_mask_drawn_on_a_photo_before_exif_turned_it_is_said_to_be_that(shapes):
    image_id, exif = read_ids(shapes, "train")[0], Image.Exif()
    exif[EXIF_ORIENTATION] = 8
    save(photo_of(shapes, image_id), 64, 90, 3, exif=exif)
    save(mask_of(shapes, image_id), 64, 90)
    turned = f"the mask is 90x64, as its image {image_id}.jpg is stored, but the EXIF orientation"
    with pytest.raises(DataError, match=f"{turned} turns that to 64x90; turn the mask too, or"):
        VOCFolder(shapes, "train", keep)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("path_of", [photo_of, mask_of])
def test_a_file_that_is_no_image_is_found_at_once_and_a_truncated_one_when_read(path_of, shapes):
    path = path_of(shapes, read_ids(shapes, "train")[1])
    truncate(path)
    dataset = VOCFolder(shapes, "train", keep)
    with pytest.raises(DataError, match=re.escape(f"{path}: cannot be read as an image")):
        dataset[1]
    path.write_text("<html>404</html>")
    with pytest.raises(DataError, match=re.escape(f"{path}: cannot be read as an image")):
        VOCFolder(shapes, "train", keep)


def test_bad_images_can_be_left_out_up_to_5_in_100(shapes):
    list_of(shapes, "own").write_text("\n".join(f"{number:02}" for number in range(40)))
    ids = read_ids(shapes, "own")
    for image_id in ids:
        shutil.copy(photo_of(shapes, read_ids(shapes, "val")[0]), photo_of(shapes, image_id))
        shutil.copy(mask_of(shapes, read_ids(shapes, "val")[0]), mask_of(shapes, image_id))
    truncate(photo_of(shapes, "03"))
    mask_of(shapes, "20").unlink()
    dataset = VOCFolder(shapes, "own", keep, skip_bad=True)
    assert dataset.ids == [image_id for image_id in ids if image_id not in ("03", "20")]
    assert list(dataset.skipped) == ["03", "20"]
    assert dataset.skipped["20"] == f"{mask_of(shapes, '20')}: no mask for id '20' of split 'own'"
    assert VOCFolder(shapes, "own", keep, limit=3, skip_bad=True).skipped == {}
    save(mask_of(shapes, "39"), 3, 3)
    message = f"{shapes}: 3 of 40 images of own cannot be used, more than the 5 % that --skip-bad"
    with pytest.raises(DataError, match=re.escape(message)) as error:
        VOCFolder(shapes, "own", keep, skip_bad=True)
    assert f"the first: {photo_of(shapes, '03')}: cannot be read" in str(error.value)
