"""Step 5 as a user runs it: which images it draws, in what order, and what it makes of photos."""

import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from data.classes import VOC
from data.figures.gallery import INDEX, SHEET
from data.image_files import read_mask
from data.voc_files import read_ids
from losses.metrics import image_mious, load_image_scores
from models import load
from tests.conftest import DATA
from tests.data.conftest import turned_by
from tests.scripts.processes import contents, table

OVERLAYS, PHOTOS, SHAPES = Path("run/5_overlays"), Path("photos"), Path("shapes")
MASKS, DRAWN = SHAPES / "SegmentationClass", Path("runs/truth")
RUN = ("visualize.py", "--run", "run")
TRAIN = (*RUN, *DATA, "--split", "train")
TRUTH = ("visualize.py", *DATA, "--truth", "--split", "train")


def listed(folder: Path = OVERLAYS) -> list[dict]:
    """What the gallery knows of its pictures; each has its page."""
    page = (folder / INDEX).read_text(encoding="utf-8")
    pictures = json.loads(re.search(r'<script type="application/json".*?>(.*?)</script>', page)[1])
    for picture in pictures:
        assert (folder / unquote(picture["page"])).is_file()
        with Image.open(folder / unquote(picture["layers"]["image"])) as photo:
            assert list(photo.size) == picture["size"]
    return pictures


def names(folder: Path = OVERLAYS) -> list[str]:
    return [picture["name"] for picture in listed(folder)]


def test_the_worst_and_the_best_images_are_drawn_and_none_without_a_label(street, succeeds):
    void = read_ids(SHAPES, "train")[0]
    mask = MASKS / f"{void}.png"
    Image.new("L", Image.open(mask).size, 255).save(mask)
    succeeds("evaluate.py", "--run", "run", *DATA, "--split", "train")
    _, ids, counts = load_image_scores("run/4_eval/per_image.npz")
    scores = dict(zip(ids[1:], image_mious(counts[1:])))
    ranked = sorted(scores.values())
    for sort, expected in (("worst", ranked[:4]), ("best", ranked[-4:])):
        said = succeeds(*TRAIN, "--sort", sort, "--limit", 4)
        assert "  images   18 images of shapes, split train\n" in said
        assert "\nwrote run/5_overlays: 4 pictures; open" in said
        found = [picture["miou"] for picture in listed()]
        assert found == pytest.approx(expected), "the worst comes first"
        assert found == pytest.approx([scores[name] for name in names()])
    assert "confidence" not in listed()[0]["layers"] and not (OVERLAYS / SHEET).exists()
    succeeds(*TRAIN, "--limit", 18, "--confidence", "--contact-sheet", "--tta", "flip")
    assert ids[0] == names()[-1] == void and (OVERLAYS / SHEET).is_file()
    heat = np.asarray(Image.open(OVERLAYS / listed()[0]["layers"]["confidence"]))
    assert len(np.unique(heat.reshape(-1, 3), axis=0)) > 20, "no constant"


def test_images_are_drawn_by_name_or_at_random_or_with_some_classes(street, succeeds):
    ids = sorted(read_ids(SHAPES, "train"))
    present = {name: {*np.unique(read_mask(MASKS / f"{name}.png", VOC))} for name in ids}
    wanted = sorted(set.union(*present.values()) - {0, 255})[:2]
    expected = [image_id for image_id in ids if present[image_id] & {*wanted}]
    assert 2 < len(expected) < len(ids)
    classes = ("--classes", ",".join(VOC.names[label] for label in wanted))
    chosen, order = [], ("--limit", 2, "--sort", "random")
    for flags in (("--limit", 2), order, order, (*order, "--seed", 1), (*classes, "--limit", 99)):
        said = succeeds(*TRUTH, *flags)
        chosen.append(sorted(names(DRAWN)))
    assert said.endswith("\nnext: python sample_features.py --data shapes --run runs/own\n")
    for picture in listed(DRAWN):
        labels = sorted(present[picture["name"]] - {0, 255})
        assert picture["classes"] == [VOC.names[label] for label in labels]
        assert list(picture["layers"]) == ["image", "ground truth"] and picture["miou"] is None
    assert chosen[0] == ids[:2] and chosen[4] == expected
    assert chosen[1] == chosen[2] and chosen[0] != chosen[1] != chosen[3]
    succeeds(*TRAIN, *classes, "--limit", 2)
    assert sorted(names()) == expected[:2], "the limit counts those"


def test_the_run_is_written_up(street, succeeds):
    run = Path("run").rename("Läufe $1$")
    flags = ("--run", run, *DATA, "--limit", 2, "--report", "--author", "A. Student", "--size", 72)
    assert "2 pictures, report.pdf and" in succeeds("visualize.py", *flags, "--compare", run)
    text = (run / "5_overlays/report.md").read_text(encoding="utf-8")
    for words in ("A. Student", "| optimizer | adamw |", " taken for ", "  IoU cat | ", "](<"):
        assert words in text
    assert "| size | 48 |" in text and "| size | 72 |" not in text, "the run's, not the pictures'"
    pages = re.findall(rb"/Type /Page\b", (run / "5_overlays/report.pdf").read_bytes())
    assert len(pages) == 9, "eight pages and that of two pictures"


@pytest.fixture
def photos(street) -> dict[str, tuple[int, int]]:
    """Fills PHOTOS: grey, half clear, turned, and a large one; their sizes."""
    PHOTOS.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).convert("L").save(PHOTOS / "grey.Jpg")
    Image.new("RGBA", (40, 70), (255, 0, 0, 99)).save(PHOTOS / "half clear.png")
    Image.fromarray(noise).save(PHOTOS / "turned.jfif", exif=turned_by(6))
    Image.fromarray(noise).resize((1000, 700)).save(PHOTOS / "large.tif")
    sizes = (90, 60), (40, 70), (1000, 700), (60, 90)
    return dict(zip(("grey.Jpg", "half clear.png", "large.tif", "turned.jfif"), sizes))


def test_photos_get_pages_index_pngs_a_table_and_a_gallery(photos, succeeds, fails):
    out, before, command = Path("seen"), contents("."), (*RUN, "--image", PHOTOS, "--out", "seen")
    assert f"wrote {out}: 4 pictures" in succeeds(*command, "--confidence")
    assert before.items() <= contents(".").items()
    pictures, rows = {one["title"]: one for one in listed(out)}, table(out / "photos.csv")
    assert set(pictures) == set(photos)
    network = load("run")
    for title, size in photos.items():
        index = Image.open(out / f"predictions/{Path(title).stem}.png")
        assert (index.mode, index.size) == ("P", size)
        found, sure = network.predict(PHOTOS / title, confidence=True)
        assert np.array_equal(index, found), "by the same path"
        own = {VOC.names[label]: found == label for label in np.unique(found)}
        mine = {row["class"]: row for row in rows if row["photo"] == title}
        assert mine.keys() == own.keys()
        for name, row in mine.items():
            expected = own[name].mean(), sure[own[name]].mean()
            assert (float(row["share"]), float(row["confidence"])) == pytest.approx(expected, 1e-4)
        assert list(pictures[title]["layers"]) == ["image", "prediction", "confidence"]
    seen = {name: {row["photo"] for row in rows if row["class"] == name} for name in VOC.names}
    some, none = (next(n for n in seen if bool(seen[n]) is there) for there in (True, False))
    succeeds(*command, "--classes", some)
    assert {picture["title"] for picture in listed(out)} == seen[some]
    assert f"--classes {none}: in none of the 4 images" in fails(*command, "--classes", none)
    assert not out.exists(), "nothing is left to go on with"


def test_photos_go_on_where_they_were_interrupted(photos, succeeds, in_process):
    (PHOTOS / "sub").mkdir()
    (PHOTOS / "grey.Jpg").rename(PHOTOS / "sub/grey.Jpg")
    for name in ("broken.jpg", "c.heic", "notes.txt"):
        (PHOTOS / name).touch()
    command = (*RUN, "--image", PHOTOS, "--out", "seen", "--recursive", "--masks-only")
    done = in_process(*command, "--limit", 2)
    assert "  note: left out, as no photos: c.heic, notes.txt" in done.stdout
    line = r"visualize: left out photos/broken.jpg: cannot be read .*; the others are done\n"
    assert done.returncode == 2 and re.fullmatch(line, done.stderr)
    (error, *rows) = table("seen/photos.csv")
    assert error["photo"] == "broken.jpg" and "damaged" in error["error"]
    before = ["half clear.png", "large.tif"]
    assert [*dict.fromkeys(row["photo"] for row in rows)] == before
    for mask in Path("seen/predictions").iterdir():
        mask.write_bytes(b"kept")
    shutil.copy(PHOTOS / "turned.jfif", PHOTOS / "broken.jpg")
    assert "2 of them are done" in succeeds(*command, "--resume")
    rows = table("seen/photos.csv")
    found = [*dict.fromkeys(row["photo"] for row in rows)]
    assert found == [*before, "broken.jpg", "sub/grey.Jpg", "turned.jfif"]
    assert not any(row["error"] for row in rows)
    masks = [path.read_bytes() for path in Path("seen/predictions").rglob("*.png")]
    assert masks.count(b"kept") == 2 and len(masks) == 5 and not Path("seen/index.html").exists()
    Path("seen/predictions").rename("masks")
    assert "5 of them are done" in succeeds(*command, "--resume"), "what is moved away is done"
    line = in_process(*command, "--resume", "--tta", "flip").stderr
    assert "--resume: seen was made with --tta None, not ['flip']" in line
    config = json.loads(Path("seen/config.json").read_text())
    Path("seen/config.json").write_text(json.dumps(config | {"unfinished": True}))
    assert "seen: was interrupted; go on with --resume" in in_process(*command).stderr
    Path("seen/config.json").write_text(json.dumps(config))
    succeeds(*RUN, "--image", PHOTOS / "large.tif", "--out", "seen")
    assert [path.name for path in Path("seen/predictions").iterdir()] == ["large.png"]
