"""The README's commands: those in blocks marked `sh runnable` are run, in their order, on tiny data."""

import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.classes import VOC
from data.demo import commands
from data.shapes import make_shapes
from models.backbones import empty_features, load_weights
from tests.conftest import HOME
from tests.street import ended, torchrun

README = (HOME / "README.md").read_text(encoding="utf-8")
SOURCES = "".join(
    path.read_text(encoding="utf-8")
    for places in ("*.py", "data/*.py", "models/*.py", "losses/*.py", "tests/benchmark.py")
    for path in HOME.glob(places)
)
BLOCK = re.compile(r"^( *)```(?P<kind>sh runnable|sh|text)\n(?P<body>.*?)^\1```$", re.DOTALL | re.MULTILINE)
BLOCKS = [(match["kind"], match["body"]) for match in BLOCK.finditer(README)]
RUNNABLE = [body for kind, body in BLOCKS if kind == "sh runnable"]
# Not run here: they install, fetch from the network, take other machines or minutes, or are this test itself.
NOT_RUN = (
    "pip install -r requirements.txt && python -m data.demo",
    "pip install -r requirements.txt && python -m pytest",
    "python -m data.download",
    "torchrun --nnodes 2 ",
    "python -m tests.benchmark",
)
SMALLER = {  # so that it takes minutes, not hours
    "--images 320": "--images 8",
    "--nproc-per-node 4": "--nproc-per-node 2",
    "train_seg.py --recipe best": "train_seg.py --recipe best --epochs 2",
    "--epochs 8 ": "--epochs 1 ",
    "--epochs 20": "--epochs 2",
}
FOREIGN = {  # flags of argparse, torchrun and pip
    "--help", "--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--shutdown-timeout", "--upgrade",
}  # fmt: skip
FOREIGN_MESSAGES = ("operator torchvision::nms", "out of memory", "DataLoader worker", "paging file", "torchrun: error")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with all that the README takes for granted: data, weights, photos, predictions."""
    home = tmp_path_factory.mktemp("readme")
    voc = make_shapes(home / "data" / "VOCdevkit" / "VOC2012", images=8, size=64, seed=0)
    lists = voc / "ImageSets" / "Segmentation"
    shutil.copy(lists / "train.txt", lists / "train_aug.txt")
    shutil.copytree(voc / "SegmentationClass", voc / "SegmentationClassAug")
    (home / "DIR").symlink_to(voc)
    for folder in ("JPEGImages", "SegmentationClass"):
        shutil.copytree(voc / folder, home / "mydata" / folder)
    (home / "photos").mkdir()
    for name in ("holiday.jpg", "photos/sea.jpg"):
        shutil.copy(next(voc.glob("JPEGImages/*.jpg")), home / name)
    (home / "theirs").mkdir()
    for mask in (voc / "SegmentationClass").iterdir():
        guess = np.asarray(Image.open(mask)) % 255  # void is no prediction
        Image.fromarray(guess.astype(np.uint8)).save(home / "theirs" / mask.name)

    weights = home / "torch" / "hub" / "checkpoints"  # where torchvision keeps what it has fetched
    weights.mkdir(parents=True)
    files = {"vgg11": weights / "vgg11-8a719046.pth", "squeezenet1_1": home / "squeezenet1_1-imagenet-features.pth"}
    for backbone, path in files.items():
        features = empty_features(backbone).to_empty(device="cpu")
        load_weights(backbone, features, "random", 0)
        torch.save(features.state_dict(prefix="features."), path)
    return home


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What the commands have printed so far."""
    return []


def first_words(body: str) -> str:
    return body.strip().splitlines()[-1][:60]


@pytest.mark.parametrize("body", RUNNABLE, ids=first_words)
def test_a_block_runs(body, place, said, in_process, monkeypatch):
    """Line by line; in this process what needs none of its own."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("TORCH_HOME", str(place / "torch"))
    for ours, smaller in SMALLER.items():
        body = body.replace(ours, smaller)
    for line in body.replace("\\\n", " ").splitlines():
        program, *words = shlex.split(line)
        if program == "torchrun":
            assert words[:3] == ["--nproc-per-node", "2", "--"]
            done = ended(torchrun(*words[3:], cwd=place))
        else:
            assert program == "python"
            script, *flags = [words[1].replace(".", "/") + ".py", *words[2:]] if words[0] == "-m" else words
            done = in_process(script, *flags)
        assert done.returncode == 0, line + done.stdout + done.stderr
        said += done.stdout.splitlines()


def test_what_the_readme_shows_is_what_they_print(said):
    """Line by line, but for numbers, folders, how many images there are to choose from, and the scores of classes."""

    def kind(line: str) -> str:
        line = line.split(": ")[0] if line.startswith(("  A ", "  B ")) else line
        line = line.replace("the first 12 of ", "").replace("pictures;", "picture;")
        for pattern, stand_in in ((r"runs/\w+", "RUN"), (r"[-+]?[\d.,]+(e-\d+)?", "#"), (" +", " ")):
            line = re.sub(pattern, stand_in, line)
        return line

    def kinds(lines: list[str]) -> set[str]:
        return {kind(line) for line in lines if line.split(" ")[0] not in VOC.names}

    if not said:
        pytest.skip("the commands have not been run")
    shown = [line for kind, body in BLOCKS if kind == "text" for line in body.splitlines() if line != "..."]
    assert len(shown) > 50
    assert kinds(shown) - kinds(said) == set()


def test_every_command_is_run_but_for_a_few():
    """A new command has to be marked, or named above with a reason."""
    lines = [line for kind, body in BLOCKS if kind == "sh" for line in body.splitlines() if not line.startswith(" ")]
    assert sorted(lines) == sorted(line for line in lines if line.startswith(NOT_RUN)) and len(lines) == len(NOT_RUN)
    assert len(RUNNABLE) > 12
    outside = BLOCK.sub("", README)
    assert not re.search(r"^ *(python|torchrun|pip) ", outside, re.MULTILINE)


def test_the_steps_are_those_of_the_demo():
    steps = [" ".join(command) for command in commands(Path("runs") / "demo")]
    assert [body.strip() for body in RUNNABLE[: len(steps)]] == steps


def test_flags_and_modules_that_are_named_exist():
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) - FOREIGN
    assert {flag for flag in flags if f'"{flag}"' not in SOURCES} == set() and len(flags) > 40
    for module in set(re.findall(r"python -m ((?:data|tests)\.\w+)", README)):
        assert importlib.util.find_spec(module), module


def test_messages_that_are_explained_exist():
    """The first column of the table of errors quotes them, with numbers and names that are left out here."""
    table = README.split("| you see | do |")[1].split("\n## ")[0]
    quoted = [text for row in table.splitlines() if row for text in re.findall("`([^`]+)`", row.split(" | ")[0])]
    ours = [text for text in quoted if not text.startswith(FOREIGN_MESSAGES)]
    assert len(ours) > 6
    for text in ours:
        assert max(re.split(r"\d+|\.\.\.", text), key=len).strip() in SOURCES, text


def test_files_and_headings_that_are_linked_exist():
    headings = {
        re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    }
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    for link in links:
        assert link[1:] in headings if link.startswith("#") else (HOME / link).is_file(), link
