"""The user's own photos: files and folders, and the names of their pictures."""

import pytest
from PIL import Image

from data import DataError
from data.photos import find_photos


def photo(path) -> None:
    """A small photo, whatever its name says."""
    Image.new("RGB", (4, 3)).save(path, "PNG")


@pytest.fixture
def folder(tmp_path):
    """With photos, something else, and a folder that is not looked into."""
    for name in ("b.JPG", "a.png", "a.jpeg", "notes.txt", "c.tiff"):
        photo(tmp_path / name)
    for name in (".hidden", "._a.png"):
        (tmp_path / name).touch()
    (tmp_path / "more.png").mkdir()
    photo(tmp_path / "more.png" / "d.png")
    return tmp_path


def test_the_photos_of_a_folder_are_called_by_their_stems_or_files(folder):
    photos = find_photos([folder])
    assert photos == {name: folder / name for name in ("a.jpeg", "a.png")} | {
        "b": folder / "b.JPG",
        "c": folder / "c.tiff",
    }


def test_files_come_in_their_order_whatever_their_suffix(folder):
    photos = find_photos([folder / "notes.txt", folder / "b.JPG", folder / "more.png"])
    assert list(photos.items()) == [
        ("notes", folder / "notes.txt"),
        ("b", folder / "b.JPG"),
        ("d", folder / "more.png" / "d.png"),
    ]


def test_names_that_differ_in_case_alone_are_one_on_some_disks(tmp_path):
    for name in ("cat.jpg", "Cat.png"):
        photo(tmp_path / name)
    assert list(find_photos([tmp_path])) == ["Cat.png", "cat.jpg"]


@pytest.mark.parametrize(
    "places, words",
    [
        (["absent.jpg"], "absent.jpg: no such file or folder"),
        (["b.JPG", "more.png", "empty"], "empty: no photo in this folder; a photo is a file called .jpg .jpeg .png"),
        (["b.JPG", "other/b.JPG"], "2 files are called 'b.jpg', but each needs a picture; draw them in turn"),
        (["b.JPG", "b.JPG"], "2 files are called 'b.jpg'"),
        (["two\nlines.png"], "a file is called 'two\\nlines'; give it a name of letters that can be shown"),
        (["\udcff.png"], r"a file is called '\udcff'"),
    ],
)
def test_what_cannot_be_drawn_is_named(places, words, folder):
    for name in ("empty", "other"):
        (folder / name).mkdir()
    for name in ("other/b.JPG", "two\nlines.png", "\udcff.png"):
        (folder / name).touch()
    with pytest.raises(DataError) as error:
        find_photos([folder / place for place in places])
    assert words in str(error.value)


def test_a_file_that_is_no_photo_is_found_before_any_is_drawn(folder):
    (folder / "z.jpg").write_bytes(b"no photo")
    with pytest.raises(DataError, match="z.jpg: cannot be read as an image"):
        find_photos([folder])
