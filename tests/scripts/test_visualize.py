"""Step 5 as a user runs it: which images it draws, in what order, and what it makes of photos."""

import csv
import json
import re
from pathlib import Path
from urllib.parse import unquote

import matplotlib
import numpy as np
import pytest
from PIL import Image

from data.classes import VOC
from data.figures.gallery import INDEX, SHEET
from data.figures.overlay import percent
from data.images import read_mask
from data.voc import read_ids
from models import load
from models.run.record import scored_mious
from tests.conftest import DATA

OVERLAYS, PHOTOS = Path("run/5_overlays"), Path("photos")
TRAIN = ("visualize.py", "--run", "run", *DATA, "--split", "train")
VAL = ("visualize.py", "--run", "run", *DATA)
TRUTH, MASKS = ("visualize.py", *DATA, "--truth", "--split", "train"), Path("runs/truth")


def listed(folder: Path = OVERLAYS) -> list[dict]:
    """What the gallery knows of its pictures; each has its page."""
    page = (folder / INDEX).read_text(encoding="utf-8")
    pictures = json.loads(re.search(r'<script type="application/json".*?>(.*?)</script>', page)[1])
    for picture in pictures:
        picture["name"] = unquote(picture["href"]).removesuffix(".png")
        with Image.open(folder / f"{picture['name']}.png") as page:
            assert list(page.size) == picture["size"]
    return pictures


def names(folder: Path = OVERLAYS) -> list[str]:
    return [picture["name"] for picture in listed(folder)]


def saved() -> dict[Path, bytes]:
    files = (path for path in Path().rglob("*") if path.suffix not in (".lock", ".holder"))
    return {path: path.read_bytes() for path in files if path.is_file()}


@pytest.fixture
def scores(street, succeeds) -> dict[str, float]:
    """The mIoU of each training image, by its id, worst first."""
    succeeds("evaluate.py", "--run", "run", *DATA, "--split", "train")
    found = scored_mious(Path("run/4_eval/per_image.npz"))
    return dict(sorted(found.items(), key=lambda item: item[1]))


def test_the_worst_and_the_best_images_are_drawn_and_no_other(scores, succeeds):
    ranked = list(scores)
    for sort, expected in (("worst", ranked[:4]), ("best", ranked[-4:])):
        said = succeeds(*TRAIN, "--sort", sort, "--limit", 4)
        words = f"  images   the {sort} 4 of 18 images of shapes, split train\n"
        assert words in said and "\nwrote run/5_overlays: 4 pictures; open" in said
        found = listed()
        assert [scores[picture["name"]] for picture in found] == pytest.approx(
            [scores[name] for name in expected]
        ), "the gallery has the worst of them first"
        assert [picture["miou"] for picture in found] == pytest.approx(
            [scores[picture["name"]] for picture in found]
        )


def test_an_image_without_a_label_is_neither_the_worst_nor_the_best(street, succeeds):
    ids = read_ids(Path("shapes"), "val")
    void = Path(f"shapes/SegmentationClass/{ids[1]}.png")
    Image.new("L", Image.open(void).size, 255).save(void)
    for sort in ("worst", "best"):
        succeeds(*VAL, "--sort", sort, "--limit", 2)
        assert set(names()) == {ids[0], ids[2]}
    succeeds(*VAL)
    assert names()[-1] == ids[1]


def test_by_name_and_at_random(street, succeeds):
    chosen = []
    for flags in (
        (),
        ("--sort", "random"),
        ("--sort", "random"),
        ("--sort", "random", "--seed", 1),
    ):
        succeeds(*TRAIN, "--limit", 2, *flags)
        chosen.append(sorted(names()))
    assert chosen[0] == sorted(read_ids(Path("shapes"), "train"))[:2]
    assert chosen[1] == chosen[2] and chosen[0] != chosen[1] != chosen[3]


@pytest.mark.parametrize("command, place", [(TRAIN, OVERLAYS), (TRUTH, MASKS)])
def test_only_images_with_some_classes(command, place, street, succeeds):
    masks = Path("shapes/SegmentationClass")
    present = {
        image_id: set(np.unique(read_mask(masks / f"{image_id}.png", 21)))
        for image_id in read_ids(Path("shapes"), "train")
    }
    wanted = sorted(set.union(*present.values()) - {0, 255})[:2]
    expected = sorted(image_id for image_id, labels in present.items() if labels & set(wanted))
    assert 2 < len(expected) < len(present)
    first, second = (VOC.names[label] for label in wanted)
    said = succeeds(*command, "--classes", f"{first},{second}", "--limit", 99)
    assert f"with {first} or {second}\n" in said and sorted(names(place)) == expected
    succeeds(*command, "--classes", f"{first},{second}", "--limit", 2)
    assert sorted(names(place)) == expected[:2], "the limit counts those"


def test_confidence_is_one_more_tile_and_the_contact_sheet_one_more_file(street, succeeds):
    before = listed()
    assert not (OVERLAYS / SHEET).exists()
    succeeds(*VAL, "--confidence", "--contact-sheet", "--tta", "flip")
    after = listed()
    assert list(after[0]["tiles"]) == [*before[0]["tiles"], "confidence"]
    with Image.open(OVERLAYS / f"{after[0]['name']}.png") as page:
        heat = np.asarray(page.crop(after[0]["tiles"]["confidence"]))
    assert len(np.unique(heat.reshape(-1, 3), axis=0)) > 20
    with Image.open(OVERLAYS / SHEET) as sheet:
        assert sheet.width == 3 * 340 + 20
    succeeds(*VAL)
    assert not (OVERLAYS / SHEET).exists(), "one of other images is not left behind"


def test_the_run_is_written_up(street, succeeds):
    run = Path("run").rename("Läufe $1$")
    assert "2 pictures and report.pdf" in succeeds(
        "visualize.py", "--run", run, *DATA, "--limit", 2, "--report"
    )
    report = (run / "5_overlays" / "report.pdf").read_bytes()
    pages = len(re.findall(rb"/Type /Page\b", report))
    assert pages == 10, "seven pages, two of the three images that step 4 has scored, the commands"


def test_a_stopped_step_leaves_what_was_there_and_one_that_ends_replaces_it(
    street, in_process, succeeds
):
    command = (*TRAIN, "--out", "seen", "--limit", 4)
    succeeds(*command, "--contact-sheet")
    before = saved()
    image_id = sorted(read_ids(Path("shapes"), "train"))[2]
    photo = Path(f"shapes/JPEGImages/{image_id}.jpg")
    good = photo.read_bytes()
    photo.write_bytes(good[: len(good) // 2])
    assert in_process(*command).returncode == 2
    photo.write_bytes(good)
    assert saved() == before
    succeeds(*command, "--limit", 2)
    assert len(names(Path("seen"))) == len(list(Path("seen").glob("*.png"))) == 2


@pytest.fixture
def untrained(shapes, monkeypatch) -> None:
    """A folder with a data set and nothing else."""
    monkeypatch.chdir(shapes.parent)


def test_the_truth_alone_needs_no_run(untrained, succeeds):
    said = succeeds(*TRUTH, "--limit", 5, "--contact-sheet")
    assert "  images  the first 5 of 18 images of shapes, split train\n" in said
    assert f"\nwrote {MASKS}: 5 pictures; open" in said
    assert said.splitlines()[-1] == "next: python sample_features.py --data shapes --run runs/own"
    assert names(MASKS) == sorted(read_ids(Path("shapes"), "train"))[:5]
    for picture in listed(MASKS):
        mask = read_mask(Path(f"shapes/SegmentationClass/{picture['name']}.png"), 21)
        rows = {name: share for name, _, share in picture["rows"]}
        labels, counts = np.unique(mask, return_counts=True)
        found = ["void" if label == 255 else VOC.names[label] for label in labels]
        assert rows == dict(zip(found, map(percent, counts / mask.size)))
        assert list(picture["tiles"]) == ["image", "ground truth"]
        assert picture["columns"] == ["ground truth"] and picture["miou"] is None
    assert (MASKS / SHEET).is_file()
    cards = (MASKS / INDEX).read_text(encoding="utf-8").split("<script>")[0]
    assert "prediction" not in cards


def test_a_mask_that_cannot_be_read_is_left_out_and_named(untrained, in_process):
    first, second, *_ = sorted(read_ids(Path("shapes"), "train"))
    mask = Path(f"shapes/SegmentationClass/{first}.png")
    Image.new("L", Image.open(mask).size, 38).save(mask)
    done = in_process(*TRUTH, "--limit", 1)
    assert f"left out {mask}: label 38 is outside the classes 0..20" in done.stderr
    assert done.returncode == 2 and "next:" not in done.stdout and names(MASKS) == [second]


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--image", "a.jpg"), "argument --image: not allowed with argument --truth"),
        (("--report",), "argument --report: has no effect without --run and --data"),
        (("--sort", "worst"), "argument --sort: worst needs scores, which --truth does not have"),
        (("--classes", "fish"), "--classes: 'fish' is no class here"),
        (("--out", "shapes"), "shapes: holds other files (ImageSets) that pictures could replace"),
    ],
)
def test_what_means_nothing_without_a_network_is_refused(flags, words, untrained, fails):
    before = saved()
    assert words in fails(*TRUTH, *flags)
    assert saved() == before


def test_the_truth_replaces_no_run(untrained, fails):
    (MASKS / "1_features").mkdir(parents=True)
    assert f"{MASKS}: holds other files (1_features)" in fails(*TRUTH)


def test_without_the_truth_a_run_is_required(untrained, fails):
    assert "required: --run" in fails("visualize.py", *DATA)


@pytest.fixture
def photos(street) -> None:
    """Photos in a folder: grey, half clear, turned, and a large one."""
    PHOTOS.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).convert("L").save(PHOTOS / "grey.jpg")
    Image.new("RGBA", (40, 70), (255, 0, 0, 99)).save(PHOTOS / "half clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).save(PHOTOS / "turned.jpeg", exif=exif)
    Image.fromarray(noise).resize((1000, 700)).save(PHOTOS / "large.tif")


SIZES = {"grey.jpg": (90, 60), "half clear.png": (40, 70), "turned.jpeg": (60, 90)}
SIZES["large.tif"] = (1000, 700)


def test_photos_get_pages_index_pngs_a_table_and_a_gallery(photos, succeeds):
    out, before = Path("seen"), saved()
    said = succeeds("visualize.py", "--run", "run", "--image", PHOTOS, "--out", out, "--confidence")
    assert f"wrote {out}: 4 pictures" in said and before.items() <= saved().items()
    pictures = {picture["title"]: picture for picture in listed(out)}
    assert set(pictures) == set(SIZES)
    with open(out / "photos.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for title, size in SIZES.items():
        with Image.open(out / "predictions" / f"{Path(title).stem}.png") as index:
            assert (index.mode, index.size) == ("P", size)
            labels, counts = np.unique(np.asarray(index), return_counts=True)
            assert index.getpalette("RGB")[: 21 * 3] == VOC.palette()[: 21 * 3]
        shares = {VOC.names[label]: n / (size[0] * size[1]) for label, n in zip(labels, counts)}
        mine = {row["class"]: float(row["share"]) for row in rows if row["photo"] == title}
        assert mine == pytest.approx(shares)
        assert list(mine.values()) == sorted(mine.values(), reverse=True)
        sure = [float(row["confidence"]) for row in rows if row["photo"] == title]
        assert all(1 / 21 <= confidence <= 1 for confidence in sure)
        (line,) = [line for line in said.splitlines() if line.strip().startswith(title)]
        assert all(f"{name} " in line for name in shares)
        assert pictures[title]["miou"] is None
        assert list(pictures[title]["tiles"]) == ["image", "prediction", "confidence"]


def test_without_a_run_photos_are_seen_by_the_network_in_the_box(photos, succeeds, fails):
    portrait = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
    said = succeeds("visualize.py", "--image", portrait, PHOTOS / "grey.jpg")
    assert "wrote runs/photos: 2 pictures" in said and "voc (mobilenet_v2)" in said
    with open("runs/photos/photos.csv", encoding="utf-8", newline="") as file:
        (person, *_) = [row for row in csv.DictReader(file) if row["class"] == "person"]
    index = np.asarray(Image.open("runs/photos/predictions/grace_hopper.png")) == 15
    assert float(person["share"]) == pytest.approx(index.mean())
    assert np.array_equal(load().predict(portrait) == 15, index), "by the same path"
    expected = load().predict(portrait, probabilities=True)[15][index].mean()
    assert float(person["confidence"]) == pytest.approx(expected, rel=1e-4)
    assert "--report: has no effect without --run" in fails(
        "visualize.py", *DATA, "--checkpoint", "voc", "--out", "seen", "--report"
    )


def test_photos_are_filtered_by_what_is_seen_in_them(photos, succeeds, fails):
    command = ("visualize.py", "--run", "run", "--image", PHOTOS, "--out", "seen")
    succeeds(*command)
    with open("seen/photos.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    seen = {name: {row["photo"] for row in rows if row["class"] == name} for name in VOC.names}
    some = next(name for name, titles in seen.items() if titles)
    none = next(name for name, titles in seen.items() if not titles)
    succeeds(*command, "--classes", some)
    assert {picture["title"] for picture in listed(Path("seen"))} == seen[some]
    assert f"--classes {none}: in none of the 4 images" in fails(*command, "--classes", none)
    succeeds(*command, "--limit", 3, "--sort", "random")
    assert len(names(Path("seen"))) == 3


def test_a_damaged_photo_is_left_out_and_named(photos, fails):
    photo = PHOTOS / "grey.jpg"
    photo.write_bytes(photo.read_bytes()[:300])
    line = fails("visualize.py", "--run", "run", "--image", PHOTOS, "--out", "seen")
    assert (
        f"left out {photo}: cannot be read as an image" in line and "; the others are done" in line
    )
    assert set(names(Path("seen"))) == {"half clear", "large", "turned"}


OVER = "that pictures could replace"
REFUSED = [
    (("--classes", "dog,fish"), "--classes: 'fish' is no class here; there are: background, aero"),
    (("--classes", ""), "--classes: '' is no class here"),
    (("--classes", "tvmonitor"), "--classes tvmonitor: in none of the 3 images"),
    (
        ("--image", "photos", "--sort", "worst"),
        "--sort: worst needs scores, which --image does not",
    ),
    (("--image", "photos", "--out", "photos"), f"photos: holds other files (grey.jpg) {OVER}"),
    (("--image", "photos", "--out", "page"), f"page: holds other files (index.html) {OVER}"),
    (("--image", "run/5_overlays/shapes_000003.png"), "shapes_000003.png: lies where the pictures"),
    (("--out", "run/2_cls"), f"2_cls: holds other files (config.json) {OVER}"),
    (
        ("--image", "photos", "--report"),
        "argument --report: has no effect without --run and --data",
    ),
]


@pytest.mark.parametrize("flags, words", REFUSED)
def test_what_cannot_be_drawn_is_said_before_anything_is_replaced(flags, words, photos, fails):
    Path("page").mkdir()
    Path("page/index.html").write_text("mine")
    masks = Path("shapes/SegmentationClass")
    for image_id in read_ids(Path("shapes"), "val"):
        values = read_mask(masks / f"{image_id}.png", 21)
        Image.fromarray(np.where(values == 20, 0, values)).save(masks / f"{image_id}.png")
    before = saved()
    data = () if "--image" in flags else DATA
    assert words in fails("visualize.py", "--run", "run", *data, *flags)
    assert saved() == before
