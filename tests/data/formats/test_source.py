"""Ids, photos by name, and files that are not what they should be."""

import re
from pathlib import Path

import pytest

from data import DataError
from data.formats.source import Options, Photos, Source, annotations_in, files_in, read_json


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    "name, image_id",
    [
        ("a", "a"),
        ("train/city/a", "train_city_a"),
        ("..\\images\\a", "images_a"),
        ("/photos/me/a", "photos_me_a"),
        (" a\n.b ", "a_.b"),
        (Path("x/a"), "x_a"),
    ],
)
def test_ids_can_stand_in_a_list(name, image_id):
    source = Source("test")
    source.add(name, list)
    assert list(source.pairs) == [image_id]


def test_an_id_is_given_once():
    source = Source("test")
    source.add("a/b", list)
    with pytest.raises(DataError, match="^a_b: two photos would get the id 'a_b'"):
        source.add("a_b", list)


def test_files_below_links_count_and_hidden_ones_do_not(tmp_path):
    touch(tmp_path, "far/b.png", "here/a.png", "here/.a.png", "here/.git/c.png")
    (tmp_path / "here" / "link").symlink_to(tmp_path / "far")
    names = [path.relative_to(tmp_path).as_posix() for path in files_in(tmp_path / "here")]
    assert names == ["here/a.png", "here/link/b.png"]
    with pytest.raises(DataError, match="nowhere: no such folder"):
        files_in(tmp_path / "nowhere")


def test_photos_are_found_beside_or_anywhere_if_there_is_one(tmp_path):
    touch(tmp_path, "json/a.jpg", "one/a.jpg", "one/b.JPG", "two/c.png", "two/b/x.jpg", "x.jpg")
    photos = Photos(tmp_path)
    beside = tmp_path / "json"

    def found(name: str) -> str | None:
        path = photos.find(name, beside)
        return path and path.resolve().relative_to(tmp_path).as_posix()

    assert found("a.jpg") == "json/a.jpg"
    assert found("..\\one\\a.jpg") == "one/a.jpg"
    assert found("C:\\else\\b.JPG") == "one/b.JPG"
    assert found("b/x.jpg") == "two/b/x.jpg"
    assert found("x.jpg") is None, "there are two"
    assert found("d.jpg") is None


def test_annotations_are_known_by_what_they_hold(tmp_path):
    texts = {"a.json": '{"images": 1}', "b.JSON": '{"images": 1, "more": 2}', "c.txt": '"images"'}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)

    def found(*words: str, **options) -> list[str]:
        paths = annotations_in(tmp_path, Options(**options), ".json", *words)
        return [path.name for path in paths]

    assert found('"images"') == ["a.json", "b.JSON"]
    assert found('"images"', '"more"') == ["b.JSON"]
    assert found('"images"', annotations=Path("a.json")) == ["a.json"]


@pytest.mark.parametrize("text", [b"{", b"[1, 2]", b"\xff\xfe\x00"])
def test_a_file_that_is_no_json_is_named(text, tmp_path):
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'a.json'}: not JSON as it is")):
        read_json(tmp_path / "a.json")
