"""The README files: blocks `sh runnable` run on tiny data; what they name and link to is there."""

import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributed.run import get_args_parser as torchrun_parser
from torchvision.models import get_model, get_model_weights

from data.classes import VOC
from data.demo import PORTRAIT, commands
from data.shapes import make_shapes
from models import efficientnet_lite  # noqa: F401  which torchvision then knows
from models.checkpoint import save_segmenter
from tests.conftest import HOME
from tests.models.conftest import SMALL, random_segmenter

NAMES = ("README.md", "models/README.md", "models/results.md", "models/trained/voc.md")
PAGES = {name: (HOME / name).read_text(encoding="utf-8") for name in (*NAMES, "tests/README.md")}
ALL = "\n".join(PAGES.values())
PLACES = ("*.py", "data/**/*.py", "models/**/*.py", "losses/*.py", "tests/*.py")
PROGRAMS = [path for pattern in PLACES for path in HOME.glob(pattern)]
SOURCES = "".join(path.read_text(encoding="utf-8") for path in PROGRAMS)
BLOCK = re.compile(r"(?ms)^```(sh runnable|sh|text)\n(.*?)^```$")
BLOCKS = BLOCK.findall(ALL)
RUNNABLE = "".join(body for kind, body in BLOCKS if kind == "sh runnable")
RUNNABLE = RUNNABLE.replace("\\\n", " ").splitlines()
# They install, fetch from the network, take minutes, or are this test.
NOT_RUN = ("pip install ", "python -m data.download", "python -m pytest", "python -m tests.bench")
NOT_RUN += ("python -m data.demo", "python -m tests.few_labels")  # the latter by its own test
# Added to a command, where they win: seconds instead of hours.
SMALLER = {
    "data.shapes": "--images 8 --size 48",
    "sample_features.py": "--size 48 --workers 0",
    "train_cls.py": "--epochs 10 --min-steps 0",
    # bf16 is slow without AVX-512.
    "train_seg.py": "--epochs 1 --crop 48 --batch-size 4 --amp off --workers 0",
    "evaluate.py": "--workers 0",
    "visualize.py": "--workers 0",
    "models.strokes": "--size 64 --steps 20",
    "models.export --onnx": "--checkpoint small.pt",
}
BACKBONES = ("vgg11", "squeezenet1_1", "mobilenet_v2", "efficientnet_lite1", "efficientnet_lite2")
FOREIGN_FLAGS = {"--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--dist"}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with all that the pages take for granted: data, weights, photos, predictions."""
    home = tmp_path_factory.mktemp("readme")
    voc = make_shapes(home / "data/VOCdevkit/VOC2012", images=6, size=48)
    photos, masks = voc / "JPEGImages", voc / "SegmentationClass"
    lists = voc / "ImageSets/Segmentation"
    shutil.copy(lists / "train.txt", lists / "train_aug.txt")
    shutil.copytree(masks, voc / "SegmentationClassAug")
    (home / "DIR").symlink_to(voc)
    shutil.copytree(photos, home / "SOURCE/images")
    shutil.copytree(masks, home / "SOURCE/masks")
    for name in ("holiday.jpg", "photos/sea.jpg", "strokes/sea.png"):
        (home / name).parent.mkdir(exist_ok=True)
        source = photos if name.endswith("jpg") else masks
        shutil.copy(min(source.iterdir()), home / name)
    shutil.copytree(HOME / PORTRAIT, home / PORTRAIT)
    (home / "strokes" / "classes.txt").write_text("\n".join(VOC.names[1:]))
    (home / "theirs").mkdir()
    for mask in masks.iterdir():
        guess = np.asarray(Image.open(mask)) % 255  # void is no prediction
        Image.fromarray(guess).save(home / "theirs" / mask.name)
    save_segmenter(home / "small.pt", random_segmenter(SMALL, 48, 2, taps=[1]))
    fetched = home / "torch/hub/checkpoints"  # where torchvision keeps its downloads
    fetched.mkdir(parents=True)
    for backbone in BACKBONES:
        state = get_model(backbone, weights=None).features.state_dict(prefix="features.")
        torch.save(state, fetched / Path(get_model_weights(backbone).DEFAULT.url).name)
        torch.save(state, home / f"{backbone}-imagenet-features.pth")
    return home


@pytest.mark.parametrize("command", dict.fromkeys(RUNNABLE))
def test_a_command_runs(command, place, succeeds, monkeypatch):
    for package in ("onnx", "onnxscript", "onnxruntime") if "--onnx" in command else ():
        pytest.importorskip(package)
    monkeypatch.chdir(place)
    monkeypatch.setenv("TORCH_HOME", str(place / "torch"))
    program, *words = shlex.split(command)
    if program == "torchrun":  # torchrun's own parser takes its flags; the script then runs alone
        parsed = torchrun_parser().parse_args(words)
        words = [parsed.training_script, *parsed.training_script_args]
    script, *flags = words[1:] if words[0] == "-m" else words
    path = script if script.endswith(".py") else script.replace(".", "/") + ".py"
    smaller = next((more for words, more in SMALLER.items() if words in command), "")
    succeeds(path, *flags, *smaller.split())


def test_the_lines_of_python_run_as_printed(place, monkeypatch):
    (lines,) = re.findall(r"(?ms)^```python\n(.*?)^```$", ALL)
    monkeypatch.chdir(place)
    exec(lines, {})
    assert Path("seen.png").is_file()


def test_every_command_is_run_but_for_a_few():
    """A new command has to be marked, or named in `NOT_RUN` with a reason."""
    assert all(body.startswith(NOT_RUN) for kind, body in BLOCKS if kind == "sh")
    outside = BLOCK.sub("", ALL)
    assert not re.search(r"(?m)^ *(python|torchrun|pip) ", outside)
    for command in re.findall("`(python [^`]+)`", outside):
        assert command.startswith(NOT_RUN) or any(command in known for known in RUNNABLE), command


def test_the_steps_shown_are_those_of_the_demo():
    steps = [" ".join(command) for command in commands(Path("runs/demo"))]
    shown = [line for line in RUNNABLE if "runs/demo" in line and "models.strokes" not in line]
    assert shown == steps


def test_flags_modules_and_files_that_are_named_exist():
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ALL)) - FOREIGN_FLAGS - {"--help"}
    assert {flag for flag in flags if f'"{flag}"' not in SOURCES} == set()
    for module in set(re.findall(r"(?:`|-m )((?:data|models|losses|tests)(?:\.\w+)+)", ALL)):
        assert importlib.util.find_spec(module), module
    files = re.findall(r"`([\w/]+\.py)`", ALL) + re.findall(r"(?m)^ {4}(\w[\w/]*/)  ", ALL)
    assert {name for name in files if not (HOME / name).exists()} == set()


@pytest.mark.parametrize("page", PAGES)
def test_files_and_headings_that_are_linked_exist(page):
    for link in re.findall(r"\]\((?!https://)([^)]+)\)", PAGES[page]):
        name, _, heading = link.partition("#")
        path = (HOME / page).parent / name if name else HOME / page
        assert path.is_file(), link
        titles = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.M) if heading else [""]
        found = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
        assert heading in found, link
