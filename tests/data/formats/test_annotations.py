"""What holds for every form of annotations: photos found, classes numbered, nothing lost unsaid."""

import re
from pathlib import Path

import pytest

from data import UserError
from data.classes import VOID
from data.formats.source import files_in
from tests.data.conftest import turned_by
from tests.data.formats import BOX, DRAWN, coco, cvat, find, labelme, only_mask, photo, supervisely

ABSENT = "left out: no photo of that name, or several, in SOURCE or --images"
ALONE = "left out: in no pair"


@pytest.fixture(params=[labelme, coco, supervisely, cvat], ids=lambda form: form.__name__)
def writes(request, tmp_path):
    """Writes annotations of a photo of 6x4 pixels with one shape; there is an a.jpg."""
    photo(tmp_path / "a.jpg")
    return request.param


@pytest.mark.parametrize("kind", ["cuboid", "polygon"])
def test_shapes_that_draw_nothing_are_counted(kind, writes, tmp_path):
    writes(tmp_path, "a.jpg", kind=kind, box=[[-9, -9], [-5, -9], [-5, -7]])
    source, unknown = find(writes, tmp_path), "no outline" if writes is coco else "cuboid"
    assert not source.pairs.popitem()[1].mask().any()
    note = {"cuboid": f"not drawn ({unknown})", "polygon": "without a pixel in its photo"}[kind]
    assert source.notes == {f"left out: shape {note}": ["a.jpg"]}


def test_what_lies_outside_the_photo_is_cut_off(writes, tmp_path):
    writes(tmp_path, "a.jpg", box=[[-9, -9], [99, -9], [99, 99], [-9, 99]])
    assert only_mask(writes, tmp_path) == [[1] * 6] * 4


@pytest.mark.parametrize("label", ["dog ", 7, "lane 2 3"])
def test_a_name_may_be_a_number_or_hold_some(label, writes, tmp_path):
    writes(tmp_path, "a.jpg", label)
    assert [*find(writes, tmp_path).classes] == ["background", str(label).strip()]


BAD = [{"label": it} for it in (" ", "a\u200b")]
BAD += [{"box": [*BOX, [it, 2]]} for it in (float("nan"), 1e9)]


@pytest.mark.parametrize("shape", BAD)
def test_what_is_no_name_or_number_is_refused_and_can_be_left_out(shape, writes, tmp_path):
    writes(tmp_path, "a.jpg", **shape)
    message = rf"{tmp_path}/json.*: not .* as it is known here"
    with pytest.raises(UserError, match=f"^{message}.*; --skip-bad leaves such images out$"):
        find(writes, tmp_path)
    source = find(writes, tmp_path, skip_bad=True)
    left_out = source.notes["left out: cannot be used"]
    assert all(re.match(message, line) for line in left_out)
    assert not any(pair.mask().any() for pair in source.pairs.values())


ONE = {"id": 1, "file_name": "a.jpg", "width": None}  # as Label Studio writes some
RUNS = {"size": [4, 6], "counts": [5, 2, 2, 2, 2, 2, 9]}
VIDEO = "</image><track></track><image name='b.jpg'>"
CONTRADICTIONS = [(labelme, {"label": it}) for it in (None, True, 1.5, ["dog"], "\ud800")]
CONTRADICTIONS = [(*it, "cannot be the name of a class") for it in CONTRADICTIONS]
CONTRADICTIONS += [
    (coco, {"images": [ONE, ONE | {"id": "1"}]}, "images have an id twice; make the ids unique"),
    (coco, {"categories": [{"id": 5, "name": "dog"}] * 2}, "categories have an id twice"),
    (coco, {"shapes": [{"category_id": 99}]}, "no '99' in it"),
    (coco, {"annotations": [{"segments_info": [], "image_id": 1}]}, "no 'category_id' in it"),
    (coco, {"shapes": [{"segmentation": RUNS | {"counts": [5]}}]}, "run lengths of 5 pixels for 6"),
    (coco, {"shapes": [{"segmentation": RUNS | {"counts": [30, -6]}}]}, "negative values"),
    (coco, {"shapes": [{"segmentation": RUNS | {"size": [6, 4]}}]}, "runs of 4x6 pixels for 6x4"),
    (cvat, {"shapes": [VIDEO]}, "about a video; export it as"),
]


@pytest.mark.parametrize("writes, content, reason", CONTRADICTIONS)
def test_what_contradicts_itself_is_refused(writes, content, reason, tmp_path):
    path = writes(tmp_path, "a.jpg", **content)
    photo(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=f"^{path}: .*{reason}"):
        only_mask(writes, tmp_path)


def test_what_is_of_no_pixel_or_no_image_is_counted(tmp_path):
    area, shares = {"segmentation": [sum(BOX, [])]}, [[0.25, 0.25, 1, 0.25, 1, 0.75]]
    shapes = [area, {"segmentation": shares}, area | {"image_id": 9}]
    coco(tmp_path, "a.jpg", shapes=shapes, images=[ONE, ONE | {"id": 2, "file_name": "b.jpg"}])
    for name in ("a.jpg", "b.jpg"):
        photo(tmp_path / name)
    source = find(coco, tmp_path)
    drawn = {name: pair.mask().tolist() for name, pair in source.pairs.items()}
    assert drawn == {"a": DRAWN, "b": [[0] * 6] * 4}
    undrawn = "left out: shape not drawn (coordinates from 0 to 1, not in pixels)"
    left_out = {undrawn: ["a.jpg"], ABSENT: ["image_id 9, not listed"]}
    assert source.notes == left_out | {"nothing is drawn, so background everywhere": ["b.jpg"]}


def test_several_files_are_one_set_and_those_called_instances_come_first(tmp_path):
    coco(tmp_path / "train", "x/a.jpg")
    names = [{"id": 5, "name": "cow"}, {"id": 1, "name": "dog"}]
    coco(tmp_path / "valid", "a.jpg", categories=names)
    for place in ("train/json/x/a.jpg", "valid/json/a.jpg"):
        photo(tmp_path / place)
    source = find(coco, tmp_path)
    assert [*source.classes] == ["background", "dog", "cow"]
    assert list(source.pairs) == ["train_json_x_a", "valid_json_a"]
    drawn = [[2 * value for value in row] for row in DRAWN]
    assert source.pairs["valid_json_a"].mask().tolist() == drawn
    only = Path("valid/json/coco.json")
    assert [*find(coco, tmp_path, annotations=only).pairs] == ["valid_json_a"]
    (tmp_path / only).rename(tmp_path / only.with_name("instances_val.json"))
    assert [*find(coco, tmp_path).pairs] == ["valid_json_a"]


@pytest.mark.parametrize(
    "side, turn, message",
    [
        ("5", 1, "the mask is 6x5 but its image a.jpg is 6x4$"),
        ("1000000000000", 1, "the mask is 6x1000000000000 but its image a.jpg is 6x4$"),
        ("x", 1, "not .* as it is known here"),
        ("4", 6, "turn its pixels, and export the annotations again"),  # the size as it is stored
    ],
)
def test_another_size_than_the_upright_photo_has_is_refused(side, turn, message, writes, tmp_path):
    path = writes(tmp_path, "a.jpg")
    path.write_text(re.sub('(?i)(height"?)(: |=)"?4"?', rf'\1\2"{side}"', path.read_text()))
    photo(tmp_path / "a.jpg", exif=turned_by(turn))
    with pytest.raises(UserError, match=message):
        only_mask(writes, tmp_path)


def test_photos_without_annotations_are_named_or_nothing_is_in_them(writes, tmp_path):
    writes(tmp_path, "a.jpg")
    others = ["a.png", "b.jpg", "images/c.JPG", "shown/d.jpg"]
    for name in others:
        photo(tmp_path / name)
    assert find(writes, tmp_path).notes == {ALONE: others}
    source = find(writes, tmp_path, unmasked=VOID)
    assert source.notes == {ALONE: ["a.png", "shown/d.jpg"]}, "perhaps they are no photos"
    masks = {name: pair.mask() for name, pair in source.pairs.items()}
    assert masks.keys() == {"a", "b", "c"} and (masks["a"] == 1).any()
    assert masks["b"].tolist() == masks["c"].tolist() == [[VOID] * 6] * 4
    (tmp_path / "a.jpg").rename(tmp_path / "images" / "a.jpg")
    for place in (None, Path()):
        found = find(writes, tmp_path, unmasked=0, images=place).pairs
        assert found.keys() == ({"a", "c"} | ({"b", "shown_d"} if place else set()))
    source = find(writes, tmp_path, unmasked=0, unlabelled="void")
    assert [*source.classes] == ["background", "dog"], "though nothing is drawn as background"
    assert not source.pairs["c"].mask().any()


def test_a_file_that_lacks_something_or_is_nested_without_end_is_named(writes, tmp_path):
    path = writes(tmp_path, "a.jpg")
    text = path.read_text()
    broken = text.replace("width", "x").replace("label", "x").replace("file_name", "x")
    deep = text.replace('"dog"', 100_000 * "[" + 100_000 * "]").replace('label="', "label=<")
    for content in (broken, deep):
        path.write_text(content)
        with pytest.raises(UserError, match=f"^{re.escape(str(path))}: not .* as it is known here"):
            find(writes, tmp_path)


def test_other_files_are_of_another_form(writes, tmp_path):
    (tmp_path / "a.json").write_text('{"images": [], "shapes": 1}')
    (tmp_path / "a.xml").write_text("<annotation><folder>VOC2012</folder></annotation>")
    assert find(writes, tmp_path) is None


E_ACUTE, E_AND_ACUTE = "\u00e9", "e\u0301"
FRAME = "json/images{}/frame_000000.PNG"


@pytest.mark.parametrize(
    "writes, name, there, found",
    [
        (labelme, "a.jpg", "json/a.jpg two/a.jpg", "json/a.jpg"),
        (labelme, "..\\one\\a.jpg", "one/a.jpg two/a.jpg", "one/a.jpg"),
        (labelme, "C:\\else\\b.JPG", "one/b.jpg two/b.jpg.png", "one/b.jpg"),
        (labelme, "b/x.jpg", "two/b/x.jpg x.jpg", "two/b/x.jpg"),
        (labelme, "x.jpg", "two/b/x.jpg x.jpg", None),
        (labelme, "x.jpg", "json/drawn/x.jpg x.jpg", None),  # perhaps a picture of it
        (labelme, "x.jpg", "drawn/x.jpg.png", None),
        (labelme, "[1].jpg", "two/[1].jpg 1.jpg", "two/[1].jpg"),
        (labelme, ".", "a.jpg", None),
        (labelme, f"{E_ACUTE}.jpg", f"{E_AND_ACUTE}.jpg", f"{E_AND_ACUTE}.jpg"),
        (coco, "a.jpg", "images/a.jpg clean/a.jpg", None),
        (cvat, "a.jpg", "json/images/a.jpg clean/a.jpg", "json/images/a.jpg"),
        (cvat, "frame_000000", FRAME.format(""), FRAME.format("")),  # of a video
        (cvat, 'frame_000000" subset="one', FRAME.format("/one"), FRAME.format("/one")),
    ],
)
def test_photos_lie_where_the_file_says_or_at_one_place(writes, name, there, found, tmp_path):
    writes(tmp_path, name)
    for path in there.split():
        photo(tmp_path / path)
    pairs = find(writes, tmp_path).pairs.values()
    assert [pair.photo for pair in pairs] == ([tmp_path / found] if found else [])


@pytest.mark.parametrize(
    "writes, file, place",
    [
        (coco, "annotations/instances_{}.json", "images/{}/a.jpg"),
        (coco, "{}/labels.json", "{}/images/a.jpg"),
        (labelme, "site_{}/json/a.json", "site_{}/photos/a.jpg"),
        (supervisely, "{}/ann/a.jpg.json", "{}/img/a.jpg"),
        (cvat, "{}.xml", "images/{}/a.jpg"),
        (cvat, "{}/annotations.xml", "{}/images/a.jpg"),
        (cvat, "{}/annotations.xml", "{}/frames/a.jpg"),
    ],
)
def test_equal_names_in_train_and_val_are_told_apart_by_folders(writes, file, place, tmp_path):
    expected = []
    for name in ("train", "val"):
        path = writes(tmp_path / name, 'a.jpg" subset="' + name if writes is cvat else "a.jpg")
        there = tmp_path / file.format(name)
        there.parent.mkdir(parents=True, exist_ok=True)
        expected.append((path.rename(there), photo(tmp_path / place.format(name))))
    pairs = find(writes, tmp_path).pairs.values()
    assert [(pair.drawn_in, pair.photo) for pair in pairs if pair.mask().any()] == expected


def test_a_photo_without_annotations_may_have_the_name_of_another_folders(tmp_path):
    labelme(tmp_path, "a.jpg")
    for folder in ("json", "next"):
        photo(tmp_path / folder / "a.jpg")
    pairs = find(labelme, tmp_path, unmasked=0, images=Path()).pairs
    drawn = {name: pair.mask().any() for name, pair in pairs.items()}
    assert drawn == {"json_a": True, "next_a": False}
    assert [*find(labelme, tmp_path, images=Path("json")).pairs] == ["a"]


def test_an_id_has_letters_in_one_piece_and_plain_blanks(tmp_path):
    labelme(tmp_path, f"{E_AND_ACUTE}\u202fa.jpg")
    photo(tmp_path / f"{E_AND_ACUTE}\u202fa.jpg")
    assert [*find(labelme, tmp_path).pairs] == [f"{E_ACUTE} a"]


def test_the_photo_of_one_is_no_others(tmp_path):
    """train/a.jpg is missing; val/a.jpg has annotations of its own."""
    images = [ONE | {"file_name": "train/a.jpg"}, ONE | {"id": 2, "file_name": "val/a.jpg"}]
    coco(tmp_path, "train/a.jpg", images=images)
    photo(tmp_path / "val" / "a.jpg")
    source = find(coco, tmp_path)
    assert len(source.pairs) == 1 and source.notes == {ABSENT: ["train/a.jpg"]}
    assert not source.pairs["val_a"].mask().any(), "train/a.jpg has the shape"


def test_a_file_that_names_another_photo_than_that_of_its_own_name_is_left_out(tmp_path):
    """As when photos are renumbered after they were annotated."""
    labelme(tmp_path, "c.jpg").rename(tmp_path / "json" / "c.json")
    labelme(tmp_path, "b.jpg")
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        photo(tmp_path / "far" / name)
    source = find(labelme, tmp_path)
    reason = "left out: names another photo than that of its own name"
    assert source.notes == {reason: ["a.json"], ALONE: ["far/a.jpg", "far/b.jpg"]}
    assert [*source.pairs] == [*find(labelme, tmp_path, unmasked=0).pairs] == ["far_c"]


def test_two_files_about_one_photo_are_refused(tmp_path):
    path, second = labelme(tmp_path, "a.jpg"), tmp_path / "json" / "b.json"
    second.write_text(path.read_text())
    image = photo(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=f"^{second}: .*{image} .* as {image} of {path} has"):
        find(labelme, tmp_path)


@pytest.mark.parametrize("unknown", [0, 255])
def test_labels_that_are_not_listed_are_refused_or_counted(unknown, writes, tmp_path):
    writes(tmp_path, "a.jpg")
    listed = dict.fromkeys(["background", "cat"])
    with pytest.raises(UserError, match="^--classes has no dog; .* --unknown void or"):
        find(writes, tmp_path, classes=listed)
    source = find(writes, tmp_path, classes=listed, unknown=unknown)
    mask, pixels = source.pairs["a"].mask(), 12 if writes in (labelme, supervisely) else 6
    assert set(mask.ravel().tolist()) == {0, unknown} and (mask[1:3, 1:4] == unknown).all()
    assert source.notes == {"of a class that is not listed": [f"a.jpg: {pixels} pixels of dog"]}


def test_files_below_links_count_and_hidden_ones_do_not(tmp_path):
    for name in ("far/b.png", "[here]/a.png", "[here]/.a.png", "[here]/.git/c.png"):
        photo(tmp_path / name)
    (tmp_path / "[here]" / "link").symlink_to(tmp_path / "far")
    names = [path.relative_to(tmp_path).as_posix() for path in files_in(tmp_path / "[here]")]
    assert names == ["[here]/a.png", "[here]/link/b.png"]
