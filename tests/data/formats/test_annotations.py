"""What holds for every form of annotations: photos found, classes numbered, nothing lost unsaid."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from data import UserError, formats
from data.formats import annotations
from data.formats.source import Options, Pair, Source, files_in

BOX = [[1, 1], [4, 1], [4, 3], [1, 3]]


def labelme(root: Path, photo: str, label: str = "dog", kind: str = "polygon", box=BOX) -> Path:
    path = root / "json" / "a.json"
    shape = {"label": label, "points": box, "shape_type": kind}
    size = {"imageWidth": 6, "imageHeight": 4}
    return write(path, {"shapes": [shape], "imagePath": photo, "imageData": None, **size})


def coco(root: Path, photo: str, label: str = "dog", kind: str = "polygon", box=BOX) -> Path:
    outline = [sum(box, [])] if kind == "polygon" else []
    area = {"id": 1, "image_id": 1, "category_id": 5, "segmentation": outline}
    image = {"id": 1, "file_name": photo, "width": 6, "height": 4}
    content = {"images": [image], "annotations": [area], "categories": [{"id": 5, "name": label}]}
    return write(root / "json" / "coco.json", content)


def supervisely(root: Path, photo: str, label: str = "dog", kind: str = "polygon", box=BOX) -> Path:
    write(root / "json" / "meta.json", {"classes": [{"title": label, "color": "#0a0B0c"}]})
    thing = {"geometryType": kind, "classTitle": label, "points": {"exterior": box}}
    content = {"size": {"width": 6, "height": 4}, "objects": [thing]}
    return write(root / "json" / "ds" / "ann" / f"{photo}.json", content)


def cvat(root: Path, photo: str, label: str = "dog", kind: str = "polygon", box=BOX) -> Path:
    points = ";".join(f"{x},{y}" for x, y in box)
    shape = f'<{kind} label="{label}" points="{points}"/>'
    image = f'<image name="{photo}" width="6" height="4">{shape}</image>'
    return write(root / "json" / "annotations.xml", f"<annotations>{image}</annotations>")


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture(params=[labelme, coco, supervisely, cvat], ids=lambda form: form.__name__)
def form(request):
    """Writes annotations of a photo of 6x4 pixels with one shape."""
    return request.param


def find(form, root: Path, **options) -> Source | None:
    return annotations.find(getattr(formats, form.__name__), root, Options(**options))


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4)).save(path)
    return path


def test_kinds_of_shapes_without_an_area_are_counted(form, tmp_path):
    form(tmp_path, "a.jpg", kind="line")
    photo(tmp_path / "a.jpg")
    source, kind = find(form, tmp_path), "no outline" if form is coco else "line"
    assert not source.pairs.popitem()[1].mask().any()
    assert source.notes == {f"left out: shape not drawn ({kind})": ["a.jpg"]}


def test_a_photo_that_is_missing_or_there_twice_is_left_out(form, tmp_path):
    form(tmp_path, "a.jpg")
    left_out = {"left out: no photo of that name, or several": ["a.jpg"]}
    assert find(form, tmp_path).notes == left_out
    for folder in ("one", "two"):
        photo(tmp_path / folder / "a.jpg")
    assert find(form, tmp_path).notes == left_out


def test_a_file_that_is_not_as_it_should_be_is_named_or_left_out(form, tmp_path):
    path = form(tmp_path, "a.jpg")
    path.write_text(path.read_text().replace("file_name", "x").replace("label", "x"))
    path.write_text(path.read_text().replace("width", "x").replace("dog", '"'))
    message = f"^{re.escape(str(path))}: not .* as it is known here"
    with pytest.raises(UserError, match=f"{message}.*; --skip-bad leaves such images out$"):
        find(form, tmp_path)
    source = find(form, tmp_path, skip_bad=True)
    assert not source.pairs and re.match(message, source.notes["left out: cannot be used"][0])


@pytest.mark.parametrize("x", [float("nan"), float("inf"), 1e300])
def test_a_coordinate_that_is_no_number_is_refused(x, form, tmp_path):
    path = form(tmp_path, "a.jpg", box=[*BOX, [x, 2]])
    photo(tmp_path / "a.jpg")
    message = (
        f"^{re.escape(str(path))}: not .* as it is known here .*a coordinate that is no number"
    )
    with pytest.raises(UserError, match=message):
        find(form, tmp_path).pairs.popitem()[1].mask()


def test_a_shape_beside_its_photo_is_counted(form, tmp_path):
    form(tmp_path, "a.jpg", box=[[-9, -9], [-5, -9], [-5, -7]])
    photo(tmp_path / "a.jpg")
    source = find(form, tmp_path)
    assert not source.pairs.popitem()[1].mask().any()
    assert source.notes == {"left out: shape without a pixel in its photo": ["a.jpg"]}


def test_other_files_are_of_another_form(form, tmp_path):
    write(tmp_path / "a.json", '{"images": [], "shapes": 1}')
    write(tmp_path / "a.xml", "<annotation><folder>VOC2012</folder></annotation>")
    assert find(form, tmp_path) is None


@pytest.mark.parametrize(
    "name, there, found",
    [
        ("a.jpg", "json/a.jpg two/a.jpg", "json/a.jpg"),
        ("..\\one\\a.jpg", "one/a.jpg two/a.jpg", "one/a.jpg"),
        ("C:\\else\\b.JPG", "one/b.JPG", "one/b.JPG"),
        ("b/x.jpg", "two/b/x.jpg x.jpg", "two/b/x.jpg"),
        ("x.jpg", "two/b/x.jpg x.jpg", None),
    ],
)
def test_photos_lie_where_the_file_says_or_anywhere_if_there_is_one(name, there, found, tmp_path):
    labelme(tmp_path, name)
    for path in there.split():
        photo(tmp_path / path)
    photos = [pair.photo for pair in find(labelme, tmp_path).pairs.values()]
    assert photos == ([tmp_path / found] if found else [])


def test_the_photo_of_one_is_no_others(tmp_path):
    """train/a.jpg is missing; val/a.jpg has annotations of its own."""
    path = coco(tmp_path, "train/a.jpg")
    content = json.loads(path.read_text())
    content["images"].append(content["images"][0] | {"id": 2, "file_name": "val/a.jpg"})
    write(path, content)
    photo(tmp_path / "val" / "a.jpg")
    source = find(coco, tmp_path)
    assert list(source.pairs) == ["val_a"]
    assert source.notes == {"left out: no photo of that name, or several": ["train/a.jpg"]}


def test_a_file_that_names_another_photo_than_that_of_its_own_name_is_left_out(tmp_path):
    """As when photos are renumbered after they were annotated."""
    labelme(tmp_path, "b.jpg")
    for name in ("a.jpg", "b.jpg"):
        photo(tmp_path / "far" / name)
    source = find(labelme, tmp_path)
    reason = "left out: names another photo than that of its own name"
    assert source.notes == {reason: ["a.json"]} and not source.pairs


def test_two_files_about_one_photo_are_refused(tmp_path):
    path, second = labelme(tmp_path, "a.jpg"), tmp_path / "json" / "b.json"
    second.write_text(path.read_text())
    photo(tmp_path / "a.jpg")
    message = f"^{second}: names the photo {tmp_path / 'a.jpg'}, as {path} does; keep one"
    with pytest.raises(UserError, match=message):
        find(labelme, tmp_path)


@pytest.mark.parametrize(
    "name, image_id",
    [
        ("a", "a"),
        ("..\\images\\a", "images_a"),
        ("/photos/me/a", "photos_me_a"),
        (" a\n.b ", "a_.b"),
    ],
)
def test_ids_can_stand_in_a_list_and_are_given_once(name, image_id):
    source = Source("test", Options())
    source.add(name, Pair(Path("a.jpg"), list))
    assert list(source.pairs) == [image_id]
    with pytest.raises(UserError, match=f"two photos would get the id {image_id!r}"):
        source.add(image_id, Pair(Path("b.jpg"), list))


def test_files_below_links_count_and_hidden_ones_do_not(tmp_path):
    for name in ("far/b.png", "here/a.png", "here/.a.png", "here/.git/c.png"):
        photo(tmp_path / name)
    (tmp_path / "here" / "link").symlink_to(tmp_path / "far")
    names = [path.relative_to(tmp_path).as_posix() for path in files_in(tmp_path / "here")]
    assert names == ["here/a.png", "here/link/b.png"]
