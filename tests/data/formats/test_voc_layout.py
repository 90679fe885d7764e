"""What is written: classes as they are read, photos in their place, masks as photos lie."""

import re
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from data import UserError
from data.formats.source import Options, Source
from data.formats.voc_layout import check_fit, place_photo, write_classes
from data.image_files import EXIF_ORIENTATION, read_image


@pytest.mark.parametrize(
    "names, message",
    [
        (["background"], "test: 1 classes; needed are 2 to 255"),
        (map(str, range(256)), "test: 256 classes"),
        (["background", "a 1 2 3"], "test: 'a 1 2 3' cannot be the name of a class; rename it"),
        (["background", "lane 2 3"], "classes.txt, line 2: .* found 'lane 2 3'"),
    ],
)
def test_classes_that_cannot_be_written_are_refused(names, message, tmp_path):
    with pytest.raises(UserError, match=message):
        write_classes(Source("test", Options(), dict.fromkeys(names)), tmp_path)


def photo(path: Path, orientation: int = 1, size: tuple[int, int] = (6, 4)) -> Path:
    image = Image.new("RGB", size, "red")
    image.putpixel((0, 0), (0, 0, 255))
    image.getexif()[EXIF_ORIENTATION] = orientation
    image.save(path, exif=image.getexif())
    return path


@pytest.mark.parametrize(
    "name, placed, linked",
    [("a.JPEG", "id.1.jpg", True), ("a.PNG", "id.1.png", True), ("a.TIFF", "id.1.png", False)],
)
@pytest.mark.parametrize("links", [True, False])
def test_photos_are_linked_where_they_can_be_and_never_lose(
    links, name, placed, linked, tmp_path, monkeypatch
):
    if not links:
        monkeypatch.setattr("os.link", mock.Mock(side_effect=OSError))
    original = photo(tmp_path / name)
    pixels = read_image(original)
    place_photo(original, pixels, tmp_path / "id.1")
    assert np.array_equal(read_image(tmp_path / placed), pixels)
    assert original.samefile(tmp_path / placed) == (linked and links)


@pytest.mark.parametrize(
    "orientation, size, doubts",
    [(1, (6, 4), []), (6, (6, 4), []), (3, (6, 4), ["a.jpg"]), (6, (4, 4), ["a.jpg"])],
)
def test_masks_lie_as_upright_photos_and_turns_that_leave_the_size_are_told(
    orientation, size, doubts, tmp_path
):
    path, source = photo(tmp_path / "a.jpg", orientation, size), Source("test", Options())
    shape = size if orientation == 6 else size[::-1]
    check_fit(np.zeros(shape), path, read_image(path).shape[:2], source)
    assert sum(source.notes.values(), []) == doubts
    message = f"^{re.escape(str(path))}: the photo is .* but its mask 9x9"
    with pytest.raises(UserError, match=message + ".*EXIF" * (orientation > 1)):
        check_fit(np.zeros((9, 9)), path, shape, source)
