"""Step 5 as a user runs it: which images it draws, in what order, and what it makes of photos."""

import csv
import json
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

import data.overlay
from data.classes import VOC
from data.gallery import INDEX, SHEET
from data.transforms import ResizeImage
from data.voc import VOCFolder
from losses.score import ConfusionMatrix
from models.checkpoint import load_segmenter
from tests.test_gallery import Cards

SPLIT = ("--split", "train", "--workers", "0")


@pytest.fixture(scope="module")
def trained(drawn, in_turn, tmp_path_factory) -> Path:
    """A run after steps 1 and 2; not to be changed: see `run`."""
    run = tmp_path_factory.mktemp("trained") / "run"
    backbone = ("--backbone", "squeezenet1_1", "--weights", "random", "--size", "48", "--workers", "0")
    in_turn(
        ("sample_features.py", "--data", drawn, "--run", run, *backbone, "--per-class", "20"),
        ("train_cls.py", "--run", run, "--epochs", "20", "--hidden", "16"),
    )
    return run


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="module")
def scores(trained, drawn) -> dict[str, float]:
    """The mIoU of each training image, by its id."""
    segmenter, _ = load_segmenter(trained / "2_cls" / "dense.pt")
    dataset, found = VOCFolder(drawn, "train", ResizeImage(48)), {}
    for sample in dataset:
        matrix = ConfusionMatrix(21)
        matrix.update(segmenter.predict([sample])[0], sample.mask)
        found[sample.id] = matrix.image_miou()
    assert len(set(found.values())) == len(found), "ties would prove nothing"
    return found


def listed(folder: Path) -> list[dict]:
    """What the gallery knows of its pictures; each has its page."""
    links = Cards((folder / INDEX).read_text(encoding="utf-8")).links
    pictures = [json.loads(link["data-picture"]) for link in links]
    for picture in pictures:
        with Image.open(folder / f"{picture['name']}.png") as page:
            assert list(page.size) == picture["size"]
    return pictures


def names(pictures: list[dict]) -> list[str]:
    return [picture["name"] for picture in pictures]


@pytest.mark.parametrize("sort", ["worst", "best"])
def test_sorted_by_score_the_first_few_are_drawn_and_no_other(sort, run, drawn, scores, in_process):
    with mock.patch.object(data.overlay, "panel", side_effect=data.overlay.panel) as panel:
        done = in_process("visualize.py", "--data", drawn, "--run", run, *SPLIT, "--sort", sort, "--limit", "4")
    assert done.returncode == 0, done.stderr
    assert f"  images   the {sort} 4 of 18 images of {drawn}, split train\n" in done.stdout
    assert panel.call_count == 4
    expected = sorted(scores, key=scores.get, reverse=sort == "best")[:4]
    pictures = listed(run / "5_overlays")
    assert names(pictures) == sorted(expected, key=scores.get), "the gallery has the worst of them first"
    assert [picture["miou"] for picture in pictures] == pytest.approx([scores[name] for name in names(pictures)])


def test_an_image_without_a_label_is_neither_the_worst_nor_the_best(run, shapes, in_turn):
    ids = (shapes / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
    void = shapes / "SegmentationClass" / f"{ids[1]}.png"
    Image.new("L", Image.open(void).size, 255).save(void)
    for sort in ("worst", "best"):
        in_turn(("visualize.py", "--data", shapes, "--run", run, "--workers", "0", "--sort", sort, "--limit", "2"))
        assert set(names(listed(run / "5_overlays"))) == {ids[0], ids[2]}
    in_turn(("visualize.py", "--data", shapes, "--run", run, "--workers", "0"))
    assert names(listed(run / "5_overlays"))[-1] == ids[1]


def test_by_name_and_at_random(run, drawn, scores, in_turn):
    chosen = []
    for flags in ((), ("--sort", "random"), ("--sort", "random"), ("--sort", "random", "--seed", "1")):
        in_turn(("visualize.py", "--data", drawn, "--run", run, *SPLIT, "--limit", "5", *flags))
        chosen.append(sorted(names(listed(run / "5_overlays"))))
    assert chosen[0] == sorted(scores)[:5]
    assert chosen[1] == chosen[2] and len({tuple(some) for some in chosen}) == 3


def test_images_with_some_classes(run, drawn, in_process):
    dataset = VOCFolder(drawn, "train", ResizeImage(48))
    present = {image_id: set(np.unique(dataset.mask(index))) for index, image_id in enumerate(dataset.ids)}
    wanted = sorted(set.union(*present.values()) - {0, 255})[:2]
    expected = sorted(image_id for image_id, labels in present.items() if labels & set(wanted))
    assert 2 < len(expected) < len(present)
    flags = ("--classes", ",".join(VOC.names[label] for label in wanted))
    done = in_process("visualize.py", "--data", drawn, "--run", run, *SPLIT, *flags, "--limit", "99")
    assert done.returncode == 0, done.stderr
    assert f"with {VOC.names[wanted[0]]} or {VOC.names[wanted[1]]}\n" in done.stdout
    assert sorted(names(listed(run / "5_overlays"))) == expected
    done = in_process("visualize.py", "--data", drawn, "--run", run, *SPLIT, *flags, "--limit", "2")
    assert sorted(names(listed(run / "5_overlays"))) == expected[:2], "the limit counts those"


def test_confidence_is_one_more_tile_and_the_contact_sheet_one_more_file(run, drawn, in_turn):
    data = ("--data", drawn, "--run", run, "--workers", "0")
    in_turn(("visualize.py", *data))
    before = listed(run / "5_overlays")
    assert not (run / "5_overlays" / SHEET).exists()
    in_turn(("visualize.py", *data, "--confidence", "--contact-sheet", "--tta", "flip"))
    after = listed(run / "5_overlays")
    assert list(after[0]["tiles"]) == [*before[0]["tiles"], "confidence"]
    with Image.open(run / "5_overlays" / f"{after[0]['name']}.png") as page:
        heat = np.asarray(page.crop(after[0]["tiles"]["confidence"]))
    assert len(np.unique(heat.reshape(-1, 3), axis=0)) > 20
    with Image.open(run / "5_overlays" / SHEET) as sheet:
        assert sheet.width == 3 * 340 + 20
    in_turn(("visualize.py", *data))
    assert not (run / "5_overlays" / SHEET).exists(), "one of other images is not left behind"


def test_a_stopped_step_leaves_no_gallery_of_earlier_pictures_and_can_be_repeated(run, drawn, in_process, tmp_path):
    command = ("visualize.py", "--data", drawn, "--run", run, "--workers", "0", "--out", tmp_path / "seen")
    assert in_process(*command, "--confidence", "--contact-sheet", "--report").returncode == 0
    assert (tmp_path / "seen" / "config.json").is_file()
    page = data.overlay.panel(Image.new("RGB", (9, 9)), np.zeros((9, 9), dtype=np.uint8), VOC)
    with mock.patch.object(data.overlay, "panel", side_effect=[page, KeyboardInterrupt]):
        assert in_process(*command).returncode == 130
    assert listed(tmp_path / "seen") == []
    left = {path.name for path in (tmp_path / "seen").iterdir()}
    assert not left & {SHEET, "report.pdf", "config.json"} and INDEX in left
    assert in_process(*command).returncode == 0 and len(listed(tmp_path / "seen")) == 3


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of photos: grey, half clear, turned, and a large one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).convert("L").save(folder / "grey.jpg")
    Image.new("RGBA", (40, 70), (255, 0, 0, 99)).save(folder / "half clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).save(folder / "turned.jpeg", exif=exif)
    Image.fromarray(noise).resize((2000, 1400)).save(folder / "large.tif")
    return folder


def test_own_photos_get_pages_index_pngs_a_table_and_a_gallery(run, photos, in_process, tmp_path):
    out = tmp_path / "seen"
    done = in_process("visualize.py", "--run", run, "--image", photos, "--out", out, "--confidence")
    assert done.returncode == 0, done.stderr
    assert f"wrote {out}: 4 pictures" in done.stdout and not list((run / "5_overlays").glob("*"))
    pictures = {picture["name"]: picture for picture in listed(out)}
    assert set(pictures) == {"grey", "half clear", "turned", "large"}
    rows = list(csv.DictReader(open(out / "photos.csv")))
    for name, title, size in (
        ("grey", "grey.jpg", (90, 60)),
        ("half clear", "half clear.png", (40, 70)),
        ("turned", "turned.jpeg", (60, 90)),
        ("large", "large.tif", (2000, 1400)),
    ):
        with Image.open(out / "predictions" / f"{name}.png") as index:
            assert (index.mode, index.size) == ("P", size)
            labels, counts = np.unique(np.asarray(index), return_counts=True)
            assert index.getpalette("RGB")[: 21 * 3] == VOC.palette()[: 21 * 3]
        shares = {VOC.names[label]: count / (size[0] * size[1]) for label, count in zip(labels, counts)}
        mine = {row["class"]: float(row["share"]) for row in rows if row["photo"] == title}
        assert mine == pytest.approx(shares)
        assert list(mine.values()) == sorted(mine.values(), reverse=True)
        (line,) = [line for line in done.stdout.splitlines() if line.strip().startswith(title)]
        assert all(f"{found} " in line for found in shares)
        assert pictures[name]["miou"] is None and list(pictures[name]["tiles"]) == ["image", "prediction", "confidence"]


def test_photos_are_filtered_by_what_is_seen_in_them(run, photos, in_process, tmp_path):
    command = ("visualize.py", "--run", run, "--image", photos, "--out", tmp_path / "seen")
    assert in_process(*command).returncode == 0
    rows = list(csv.DictReader(open(tmp_path / "seen" / "photos.csv")))
    seen = {name: {row["photo"] for row in rows if row["class"] == name} for name in VOC.names}
    some = next(name for name, titles in seen.items() if 0 < len(titles) < 4)
    none = next(name for name, titles in seen.items() if not titles)
    done = in_process(*command, "--classes", some)
    assert done.returncode == 0, done.stderr
    assert {picture["title"] for picture in listed(tmp_path / "seen")} == seen[some]
    done = in_process(*command, "--classes", none)
    assert done.returncode == 2 and f"--classes {none}: in none of the 4 images" in done.stderr
    assert in_process(*command, "--limit", "3", "--sort", "random").returncode == 0
    assert len(listed(tmp_path / "seen")) == 3


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--classes", "dog,fish"), "--classes: 'fish' is no class here; there are: background, aeroplane, bicycle,"),
        (("--classes", ""), "--classes: '' is no class here"),
        (("--image", "photos", "--sort", "worst"), "--sort worst: needs ground truth, which --image does not have"),
        (("--image", "photos", "--out", "photos"), "photos: holds other files (grey.jpg) that pictures could replace"),
        (("--image", "photos", "--out", "page"), "page: holds other files (index.html) that pictures could replace"),
        (("--image", "run/5_overlays/shapes_000003.png"), "shapes_000003.png: lies where the pictures go"),
        (("--out", "run/2_cls"), "2_cls: holds other files (config.json) that pictures could replace"),
        (("--image", "photos", "--split", "train"), "argument --split: not allowed with argument --image"),
        (("--classes", "tvmonitor", "--split", "val"), "--classes tvmonitor: in none of the 3 images"),
    ],
)
def test_what_cannot_be_drawn_is_said_before_anything_is_replaced(
    flags, words, run, drawn, photos, in_process, in_turn, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("mine")
    in_turn(("visualize.py", "--data", drawn, "--run", run, "--workers", "0"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    data = () if "--image" in flags else ("--data", drawn, "--workers", "0")
    done = in_process("visualize.py", *data, "--run", run, *flags)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
