"""A folder in VOC layout, whole or not at all; photos in their place; masks as photos lie."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import UserError
from data.formats.layout import NOTE, fit_mask, new_folder, place_photo, write_classes
from data.formats.source import Options, Source
from data.images import EXIF_ORIENTATION, read_image


def fill(out: Path, root: Path, text: str, force: bool = False) -> None:
    with new_folder(out, root, force) as part:
        (part / NOTE).write_text(text)
        (part / "classes.txt").write_text(text)


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


def test_a_folder_is_there_when_it_is_whole(root, tmp_path):
    out = tmp_path / "deep" / "out"
    with new_folder(out, root, force=False) as part:
        (part / NOTE).touch()
        assert (part / "JPEGImages").is_dir() and not out.exists()
    assert sorted(path.name for path in out.iterdir()) == ["JPEGImages", "SegmentationClass", NOTE]
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, UserError])
def test_an_interrupted_run_leaves_what_was_there(stop, root, tmp_path):
    out = tmp_path / "out"
    fill(out, root, "old")
    with pytest.raises(stop), new_folder(out, root, force=True) as part:
        (part / "classes.txt").write_text("new")
        raise stop
    assert content(out) == {NOTE: b"old", "classes.txt": b"old"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_what_a_killed_run_left_is_cleared_away(root, tmp_path):
    for name in (".out.part", ".out.old"):
        (tmp_path / name / "JPEGImages").mkdir(parents=True)
        (tmp_path / name / "classes.txt").touch()
    fill(tmp_path / "out", root, "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_only_an_earlier_result_is_replaced_and_only_by_force(root, tmp_path):
    out = tmp_path / "out"
    fill(out, root, "old")
    (out / "ImageSets").mkdir()
    (out / ".DS_Store").touch()
    message = re.escape(f"{out}: holds an earlier result; --force replaces it, and its lists")
    with pytest.raises(UserError, match=message):
        fill(out, root, "new")
    assert content(out)[NOTE] == b"old"
    fill(out, root, "new", force=True)
    assert content(out) == {NOTE: b"new", "classes.txt": b"new"}
    assert not (tmp_path / "out.old").exists()


@pytest.mark.parametrize("there", ["out/thesis.txt", "out/classes.txt", "out"])
def test_other_data_stays(there, root, tmp_path):
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_text("mine")
    with pytest.raises(UserError, match="name another OUT, or move it away"):
        fill(tmp_path / "out", root, "new", force=True)
    assert (tmp_path / there).read_text() == "mine"


def test_an_empty_folder_may_be_there(root, tmp_path):
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out", root, "new")
    assert NOTE in content(tmp_path / "out")


@pytest.mark.parametrize("out", ["source", "source/out"])
def test_the_source_is_no_place_for_the_result(out, root, tmp_path):
    with pytest.raises(UserError, match="lies in SOURCE, which stays as it is"):
        fill(tmp_path / out, root, "new")
    assert not any(root.iterdir())


def test_classes_are_written_as_they_are_read(tmp_path):
    classes = {"background": (1, 2, 3), "traffic  light": None, "route 66": None}
    assert write_classes(Source("test", Options(), classes=classes), tmp_path).names == (
        "background",
        "traffic light",
        "route 66",
    )
    text = (tmp_path / "classes.txt").read_text()
    assert text == "background 1 2 3\ntraffic light\nroute 66\n"


@pytest.mark.parametrize(
    "names, message",
    [
        (["background"], r"test: 1 classes \(background\); a data set needs 2 to 255"),
        (map(str, range(256)), r"test: 256 classes .* and 246 more\); a data set needs 2 to 255"),
        (["background", "a 1 2 3"], "test: 'a 1 2 3' cannot be the name of a class; rename it"),
    ],
)
def test_classes_that_cannot_be_written_are_refused(names, message, tmp_path):
    with pytest.raises(UserError, match=message):
        write_classes(Source("test", Options(), classes=dict.fromkeys(names)), tmp_path)


def photo(path: Path, orientation: int = 1, size: tuple[int, int] = (6, 4)) -> Path:
    image = Image.new("RGB", size, "red")
    image.putpixel((0, 0), (0, 0, 255))
    image.getexif()[EXIF_ORIENTATION] = orientation
    image.save(path, exif=image.getexif())
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.jfif", "a.png", "a.PNG"])
def test_photos_of_the_layout_are_linked(name, tmp_path):
    original = photo(tmp_path / name)
    size, look, how = place_photo(original, tmp_path / "id.1", copy=False)
    placed = tmp_path / ("id.1.png" if original.suffix.lower() == ".png" else "id.1.jpg")
    assert (size, look, how) == ((4, 6), original, "hard links") and placed.samefile(original)


def test_a_link_to_a_photo_is_followed(tmp_path):
    original = photo(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to(original)
    place_photo(tmp_path / "b.jpg", tmp_path / "id", copy=False)
    assert not (tmp_path / "id.jpg").is_symlink() and (tmp_path / "id.jpg").samefile(original)


def test_photos_are_copied_on_request(tmp_path):
    original = photo(tmp_path / "a.jpg")
    assert place_photo(original, tmp_path / "id", copy=True) == ((4, 6), original, "copies")
    placed = tmp_path / "id.jpg"
    assert placed.read_bytes() == original.read_bytes() and not placed.samefile(original)


@pytest.mark.parametrize("name", ["a.tif", "a.bmp", "a.webp", "a.TIFF"])
def test_other_photos_are_saved_without_loss(name, tmp_path):
    original = photo(tmp_path / name)
    before = original.read_bytes()
    assert place_photo(original, tmp_path / "id", copy=False) == ((4, 6), original, "saved as PNG")
    assert np.array_equal(read_image(tmp_path / "id.png"), read_image(original))
    assert original.read_bytes() == before


@pytest.mark.parametrize("name", ["id.jpg", "id.png"])
def test_photos_in_annotations_are_written_as_they_are(name, tmp_path):
    data = photo(tmp_path / f"a{Path(name).suffix}").read_bytes()
    assert place_photo(lambda: data, tmp_path / "id", copy=False)[1] == tmp_path / name
    assert (tmp_path / name).read_bytes() == data


def mask(height: int, width: int) -> np.ndarray:
    return np.arange(height * width, dtype=np.uint8).reshape(height, width)


def fit(path: Path, mask: np.ndarray, turn: bool = False) -> tuple[np.ndarray, list[str]]:
    """The mask on its photo, and the photos where it may lie otherwise."""
    source = Source("test", Options())
    size = read_image(path).shape[:2]
    return fit_mask(mask, path, size, turn, source), source.doubts


def test_masks_lie_as_upright_photos(tmp_path):
    for orientation, shape in ((1, (4, 6)), (6, (6, 4))):
        fitted, doubts = fit(photo(tmp_path / "a.jpg", orientation), mask(*shape))
        assert np.array_equal(fitted, mask(*shape)) and not doubts


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_masks_are_turned_as_their_photos_on_request(orientation, suffix, tmp_path):
    """A mask that is 1 where the photo as stored is blue, is 1 where it is blue upright."""
    path = photo(tmp_path / f"a.{suffix}", orientation)
    stored = np.zeros((4, 6), dtype=np.uint8)
    stored[0, 0] = 1
    turned, _ = fit(path, stored, turn=True)
    assert np.array_equal(turned == 1, read_image(path)[:, :, 2] == 255)


def test_a_mask_of_the_size_of_the_stored_photo_is_refused(tmp_path):
    path = photo(tmp_path / "a.jpg", orientation=6)
    message = f"{path}: the mask is 6x4, as the photo is stored, but EXIF turns the photo to 4x6; "
    with pytest.raises(UserError, match=re.escape(message) + ".*--turn-masks"):
        fit(path, mask(4, 6))


@pytest.mark.parametrize("orientation, size", [(3, (6, 4)), (2, (6, 4)), (6, (4, 4))])
def test_turns_that_leave_the_size_are_told(orientation, size, tmp_path):
    path = photo(tmp_path / "a.jpg", orientation, size)
    assert fit(path, mask(*size[::-1]))[1] == ["a.jpg"]


def test_another_size_is_refused(tmp_path):
    path = photo(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=re.escape(f"{path}: the photo is 6x4 but its mask 5x4")):
        fit(path, mask(4, 5))
