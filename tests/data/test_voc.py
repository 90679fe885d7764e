"""A data set in VOC layout: what is accepted, what is refused and how, and what is random."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data import UserError
from data.classes import VOC, VOID
from data.transforms import Augment
from data.voc import TrainingSet, VOCFolder
from data.voc_files import find_pair, read_ids, write_ids
from tests.conftest import BACKBONE, change_masks


def test_a_list_by_the_name_of_other_programs_is_named(shapes):
    """What mmseg calls trainaug is train_aug here; both take the masks of SBD."""
    write_ids(shapes, "trainaug", read_ids(shapes, "train"))
    with pytest.raises(UserError, match="split 'train_aug'; lists there: .*train, trainaug, "):
        VOCFolder(shapes, "train_aug")
    (shapes / "SegmentationClass").rename(shapes / "SegmentationClassAug")
    root = shapes.rename(shapes.with_name("VOC2012"))
    assert len(VOCFolder(root.parent, "trainaug").mask(0)), "the root is found in its folder, too"


def test_items_are_the_first_images_of_the_list_with_their_masks(drawn):
    dataset = VOCFolder(drawn, "train", limit=5)
    assert dataset.ids == read_ids(drawn, "train")[:5] and dataset.classes == VOC
    for image_id, image, mask in (dataset[0], dataset[4]):
        photo, labels = map(Image.open, find_pair(drawn, image_id))
        assert np.array_equal(image.permute(1, 2, 0), photo) and np.array_equal(mask, labels)


def test_a_part_is_spread_evenly_over_the_list_and_the_checksum_tells_order_and_masks(shapes):
    dataset = VOCFolder(shapes, "train")
    assert dataset.spread(3).ids == dataset.ids[::6] and dataset.spread(99).ids == dataset.ids
    write_ids(shapes, "own", dataset.ids[::-1])
    folders = [VOCFolder(shapes, split) for split in ("train", "train", "own")]
    checksums = [one.checksum(one.photo_hashes()) for one in folders]
    assert checksums[0] == checksums[1] != checksums[2] and checksums[2].startswith("18 (")
    (photo, mask), (another, _) = dataset.files(0), dataset.files(1)
    Image.fromarray(np.zeros_like(dataset.mask(0))).save(mask)
    checksums.append(dataset.checksum(dataset.photo_hashes()))
    shutil.copy(another, photo)
    assert len({*checksums, dataset.checksum(dataset.photo_hashes())}) == 4


def test_bad_images_can_be_left_out_up_to_5_in_100(shapes):
    ids = read_ids(shapes, "trainval")[:20]
    (photo, _), (_, mask) = (find_pair(shapes, ids[number]) for number in (3, 19))
    photo.write_bytes(photo.read_bytes()[:-20])
    dataset = VOCFolder(shapes, "trainval", limit=20, skip_bad=True)
    assert dataset.ids == [*ids[:3], *ids[4:]] and [*dataset.skipped] == [ids[3]]
    assert VOCFolder(shapes, "trainval", limit=3, skip_bad=True).skipped == {}
    mask.unlink()
    message = "2 of 20 images of trainval cannot be used, more than the 5 % that --skip-bad tol"
    with pytest.raises(UserError, match=rf"^{shapes}: {message}.* first: {photo}: cannot be read"):
        VOCFolder(shapes, "trainval", limit=20, skip_bad=True)


def training_set(root: Path, seed=0, split="train", pixels=50, **how) -> TrainingSet:
    augment = Augment(64, 48, (0.5, 2), flip=True, jitter=0.2)
    return TrainingSet(VOCFolder(root, split), augment, seed, pixels, **how)


def test_a_training_item_is_a_square_its_pixels_and_the_units_that_dropout_keeps(drawn):
    train_set = training_set(drawn, widths=(8, 16), dropout=0.5)
    assert len(train_set) == 18
    image_id, image, points, labels, kept = train_set[1, 3]
    assert image_id == train_set.folder.ids[3]
    forms = [((3, 48, 48), torch.uint8), ((50, 2), torch.float32), ((50,), torch.int64)]
    assert [(part.shape, part.dtype) for part in (image, points, labels)] == forms
    assert [units.shape for units in kept] == [(4,), (8,)]
    _, square, nowhere, mask, all_kept = training_set(drawn, pixels=None)[1, 3]
    assert torch.equal(square, image) and (mask.shape, mask.dtype) == ((48, 48), torch.int64)
    assert nowhere == () and all_kept == []
    places = points * 48 - 0.5
    assert (places - places.round()).abs().max() < 1e-4, "centres of pixels"
    y, x = places.round().long().T
    assert torch.equal(mask[y, x], labels)


def test_randomness_follows_from_the_seed_the_epoch_and_the_id_alone(drawn, shapes):
    first, before = training_set(drawn)[1, 3], torch.get_rng_state()
    torch.rand(1)
    again = pickle.loads(pickle.dumps(training_set(drawn)))  # as in a process that is spawned
    assert all(map(torch.equal, again[1, 3][1:4], first[1:4]))
    torch.set_rng_state(before)
    write_ids(shapes, "own", read_ids(shapes, "train")[3:])
    other = training_set(shapes, split="own")[1, 0]
    assert all(map(torch.equal, other[1:4], first[1:4])), "other images do not matter"
    assert torch.equal(torch.get_rng_state(), before), "nor is the global generator used"
    for seed, epoch in ((1, 1), (0, 2), (1, 0)):
        assert not torch.equal(training_set(drawn, seed)[epoch, 3][1], first[1])


def test_with_mosaic_another_image_fills_the_square(drawn):
    sets = [training_set(drawn, pixels=None, mosaic=fill) for fill in (False, True, True)]
    masks, *filled = (torch.stack([one[1, index][3] for index in range(18)]) for one in sets)
    assert torch.equal(*filled), "it follows from the seed, too"
    assert (filled[0] == VOID).sum() < 0.85 * (masks == VOID).sum()
    own = [{*np.unique(sets[0].folder.mask(index)).tolist()} for index in range(18)]
    new = [{*mask.tolist()} - labels for mask, labels in zip(filled[0].flatten(1), own)]
    assert any(new), "labels of another image come along"


def test_the_steps_work_on_strokes_and_say_what_they_take(shapes, succeeds, fails, monkeypatch):
    monkeypatch.chdir(shapes.parent)
    flags, lists = ("--run", "run", "--data", "shapes", "--workers", "0"), Path("shapes/ImageSets")
    lists.rename("lists")
    change_masks(shapes, lambda mask: np.where(np.indices(mask.shape)[0] % 10, VOID, mask))
    taken = "  note: no lists in shapes: all 24 pairs of photo and mask are taken\n"
    assert taken in succeeds("visualize.py", *flags[2:4], "--truth", "--limit", 1)
    assert taken in succeeds("sample_features.py", *flags, *BACKBONE)
    ids = Path("run/1_features/images.txt").read_text().split()
    assert ids == sorted(path.stem for path in (shapes / "JPEGImages").iterdir())
    assert "lists there: none" in fails("sample_features.py", *flags, "--split", "holiday")
    succeeds("train_cls.py", "--run", "run", "--epochs", 1, "--hidden", 8)
    assert "python -m data.lists DIR" in fails("train_seg.py", *flags)
    Path("lists").rename(lists)
    said = succeeds("train_seg.py", *flags, "--epochs", 1, "--limit", 4, "--val-limit", 1)
    assert said.count("note: sparse labels") == said.count("note: no pixel of") == 1
