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


def fill(out: Path, root: Path, text: str, force: bool = False, stop: type | None = None) -> None:
    with new_folder(out, root, force) as part:
        for name in (NOTE, "classes.txt"):
            (part / name).write_text(text)
        if stop:
            raise stop


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


def test_only_an_earlier_result_is_replaced_by_force_and_when_the_new_one_is_whole(root, tmp_path):
    for left in (".out.part", ".out.old"):  # by a run that was killed
        (tmp_path / left / "JPEGImages").mkdir(parents=True)
    out = tmp_path / "out"
    fill(out, root, "old")
    (out / "ImageSets").mkdir()
    (out / ".DS_Store").touch()
    message = re.escape(f"{out}: holds an earlier result; --force replaces it, and its lists")
    with pytest.raises(UserError, match=message):
        fill(out, root, "new")
    for stop in (KeyboardInterrupt, UserError):
        with pytest.raises(stop):
            fill(out, root, "new", force=True, stop=stop)
    assert content(out) == {NOTE: "old", "classes.txt": "old", ".DS_Store": ""}
    fill(out, root, "new", force=True)
    assert content(out) == {NOTE: "new", "classes.txt": "new"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


@pytest.mark.parametrize("there", ["out/thesis.txt", "out/classes.txt", "out"])
def test_other_data_stays(there, root, tmp_path):
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_text("mine")
    with pytest.raises(UserError, match="name another OUT, or move it away"):
        fill(tmp_path / "out", root, "new", force=True)
    assert (tmp_path / there).read_text() == "mine"


@pytest.mark.parametrize("out", ["source", "source/out"])
def test_the_source_is_no_place_for_the_result(out, root, tmp_path):
    with pytest.raises(UserError, match="lies in SOURCE, which stays as it is"):
        fill(tmp_path / out, root, "new")
    assert not any(root.iterdir())


def test_classes_are_written_as_they_are_read(tmp_path):
    classes = {"background": (1, 2, 3), "traffic  light": None, "route 66": None}
    names = write_classes(Source("test", Options(), classes=classes), tmp_path).names
    assert names == ("background", "traffic light", "route 66")
    text = (tmp_path / "classes.txt").read_text()
    assert text == "background 1 2 3\ntraffic light\nroute 66\n"


@pytest.mark.parametrize(
    "names, message",
    [
        (["background"], r"test: 1 classes \(background\); a data set needs 2 to 255"),
        (map(str, range(256)), r"test: 256 classes .* and 246 more\); a data set needs 2 to 255"),
        (["background", "a 1 2 3"], "test: 'a 1 2 3' cannot be the name of a class; rename it"),
        (["background", "lane 2 3"], "test: 'lane 2 3' cannot be the name of a class; rename it"),
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


@pytest.mark.parametrize(
    "name, copy, placed, how",
    [
        ("a.JPEG", False, "id.1.jpg", "hard links"),
        ("a.jfif", False, "id.1.jpg", "hard links"),
        ("a.PNG", False, "id.1.png", "hard links"),
        ("a.jpg", True, "id.1.jpg", "copies"),
        ("a.TIFF", False, "id.1.png", "saved as PNG"),
        ("a.webp", False, "id.1.png", "saved as PNG"),
    ],
)
def test_photos_are_linked_where_they_can_be_and_never_lose(name, copy, placed, how, tmp_path):
    original = photo(tmp_path / name)
    before, pixels = original.read_bytes(), read_image(original)
    assert place_photo(original, tmp_path / "id.1", copy) == ((4, 6), original, how)
    assert np.array_equal(read_image(tmp_path / placed), pixels)
    assert original.samefile(tmp_path / placed) == (how == "hard links")
    assert original.read_bytes() == before


def test_a_link_to_a_photo_is_followed(tmp_path):
    (tmp_path / "b.jpg").symlink_to(photo(tmp_path / "a.jpg"))
    place_photo(tmp_path / "b.jpg", tmp_path / "id", copy=False)
    assert not (tmp_path / "id.jpg").is_symlink()


@pytest.mark.parametrize("name", ["id.jpg", "id.png"])
def test_photos_in_annotations_are_written_as_they_are(name, tmp_path):
    data = photo(tmp_path / f"a{Path(name).suffix}").read_bytes()
    assert place_photo(lambda: data, tmp_path / "id", copy=False)[1] == tmp_path / name
    assert (tmp_path / name).read_bytes() == data


def fit(path: Path, shape: tuple[int, int], turn: bool = False) -> tuple[np.ndarray, list[str]]:
    """The mask of 0, 1, .. on its photo, and the photos where it may lie otherwise."""
    source, mask = Source("test", Options()), np.arange(np.prod(shape), dtype=np.uint8)
    size = read_image(path).shape[:2]
    return fit_mask(mask.reshape(shape), path, size, turn, source), source.doubts


@pytest.mark.parametrize(
    "orientation, size, doubts",
    [(1, (6, 4), []), (6, (6, 4), []), (3, (6, 4), ["a.jpg"]), (6, (4, 4), ["a.jpg"])],
)
def test_masks_lie_as_upright_photos(orientation, size, doubts, tmp_path):
    """Turns that leave the size are told."""
    path = photo(tmp_path / "a.jpg", orientation, size)
    shape = size if orientation == 6 else size[::-1]
    mask, told = fit(path, shape)
    assert mask.ravel().tolist() == list(range(mask.size)) and told == doubts


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_masks_are_turned_as_their_photos_on_request(orientation, suffix, tmp_path):
    """A mask that is 0 where the photo as stored is blue, is 0 where it is blue upright."""
    path = photo(tmp_path / f"a.{suffix}", orientation)
    turned, _ = fit(path, (4, 6), turn=True)
    assert np.array_equal(turned == 0, read_image(path)[:, :, 2] == 255)


@pytest.mark.parametrize(
    "shape, message",
    [
        ((4, 6), "the mask is 6x4, as the photo is stored, but EXIF turns .* 4x6; .*--turn-masks"),
        ((4, 5), "the photo is 4x6 but its mask 5x4"),
    ],
)
def test_other_sizes_are_refused(shape, message, tmp_path):
    path = photo(tmp_path / "a.jpg", orientation=6)
    with pytest.raises(UserError, match=f"^{re.escape(str(path))}: {message}"):
        fit(path, shape)
