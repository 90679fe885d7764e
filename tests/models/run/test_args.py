"""The flags: types, what decides the result, recipes, and refusals in a line."""

import argparse
import json
import runpy
import sys
from pathlib import Path

import pytest

from models.run import args as flags
from models.run.folder import STEPS
from models.views import Views
from tests.conftest import HOME

SCRIPTS = [name for name, _ in STEPS.values()]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (flags.natural, {"0": 0, "12": 12, "2147483647": 2**31 - 1}),
        (flags.positive, {"1": 1}),
        (flags.rate, {"1e-3": 1e-3, "2": 2.0}),
        (flags.fraction, {"0": 0.0, "0.999": 0.999}),
        (flags.factor, {"0.00": 0.0, "2.5": 2.5}),
        (flags.numbers, {"3": [3], "1,2": [1, 2]}),
        (flags.bounds, {"0.5,2": (0.5, 2.0), "1,1": (1.0, 1.0)}),
        (flags.contexts, {"image": ["image"], "image,5,quadrants": ["image", "5", "quadrants"]}),
        (flags.tta, {"2,flip,0.5": "2,flip,0.5"}),
    ],
)
def test_types_of_flags(kind, values):
    for text, value in values.items():
        found = kind(text)
        assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (flags.natural, ["-1", "1.0", "", "two", "1e3", " 1", "²", "1_000", "2147483648"]),
        (flags.positive, ["0", "-1", "0.5", ""]),
        (flags.rate, ["0", "-1e-3", "nan", "inf", "1001", "", "fast"]),
        (flags.fraction, ["1", "-0.1", "nan", "inf", "", "half"]),
        (flags.factor, ["-0.1", "nan", "1001"]),
        (flags.numbers, ["", "1,", "0,1", "1;2"]),
        (flags.bounds, ["1", "2,1", "0.01,1", "1,11", "a,b", "1,2,3", "nan,1"]),
        (flags.contexts, ["", "4", "image,", "0", "-3", "image,image", "05", "1001"]),
        (flags.tta, ["flop", "0", "0.75,,1", "5", "nan", "-1"]),
    ],
)
def test_texts_that_are_no_such_flag_are_refused(kind, texts):
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError):
            kind(text)


@pytest.mark.parametrize(
    ("tta", "refine", "views"),
    [
        (None, False, Views()),
        (None, True, Views(refine=True)),
        ("flip", False, Views(flip=True)),
        ("2,flip,0.5", True, Views((0.5, 1.0, 2.0), flip=True, refine=True)),
        ("0.75,1", False, Views((0.75, 1.0))),
    ],
)
def test_the_views_of_two_flags(tta, refine, views):
    assert flags.views_of(tta, refine) == views


@pytest.fixture
def parser(monkeypatch) -> flags.Parser:
    """Of step 3, with a few flags of all kinds."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/train_seg.py"])
    parser = flags.Parser("Step 9: the title\n\n    an example, indented")
    flags.add_data_flags(parser, split="train_aug")
    flags.add_view_flags(parser)
    parser.flag("--scale", flags.bounds, (1.0, 1.0), "")
    parser.flag("--epochs", flags.positive, 10, "")
    parser.flag("--pixels", flags.positive, None, "")
    parser.flag("--more", bool, False, "")
    return parser


def refusal(parser, capsys, *given) -> str:
    with pytest.raises(SystemExit) as ending:
        parser.parse_args(given)
    assert ending.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("train_seg: ") and text.endswith("; see --help\n")
    assert text.count("\n") == 1
    return text


def test_help_shows_the_docstring_and_the_defaults_that_say_something(parser, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ending:
        parser.parse_args(["--help"])
    text = capsys.readouterr().out
    assert ending.value.code == 0 and "(default: None)" not in text and "False" not in text
    for part in ("Step 9: the title\n\n    an example, indented\n", "(default: train_aug)"):
        assert part in text


def test_what_is_wrong_is_said_in_a_line(parser, capsys):
    assert "--run" in refusal(parser, capsys)
    assert "argument --limit: must be at least 1" in refusal(parser, capsys, "--limit", "0")
    assert "--speed" in refusal(parser, capsys, "--run", "r", "--speed")
    message = refusal(parser, capsys, "--run", "r", "--recipe", "cake")
    assert "argument --recipe: invalid choice: 'cake'" in message


def test_settings_are_the_flags_that_decide_the_result(parser):
    given = "--run r --device cpu --data d --workers 3 --quiet --tta flip --scale 0.5,2"
    values = parser.parse_args(given.split())
    assert (values.run, values.data, values.workers) == (Path("r"), Path("d"), 3)
    settings = values.settings
    assert json.loads(json.dumps(settings)) == settings
    usual = {"--split": "train_aug", "--limit": None, "--dilate": None, "--refine": False}
    given = {"--tta": "flip", "--scale": [0.5, 2.0]}
    assert settings == {**usual, **given, "--epochs": 10, "--pixels": None, "--more": False}
    assert values.changed == given and parser.parse_args(["--run", "other"]).changed == {}


def test_a_flag_without_effect_is_refused(parser, capsys):
    values = parser.parse_args(["--run", "r", "--epochs", "3", "--more", "--split", "a"])
    parser.needs(values, "--epochs", "--more")
    parser.needs(values, "--epochs", "--split", "b", "a")
    parser.needs(parser.parse_args(["--run", "r"]), "--epochs", "--more")
    values = parser.parse_args(["--run", "r", "--epochs", "3"])
    for needed, choices in (("--more", ()), ("--split train", ("train", "trainval"))):
        with pytest.raises(SystemExit):
            parser.needs(values, "--epochs", needed.split()[0], *choices)
        said = f"train_seg: argument --epochs: has no effect without {needed}; see --help\n"
        assert capsys.readouterr().err == said


def test_a_recipe_gives_way_to_the_flags_beside_it_wherever_they_stand(parser, monkeypatch):
    monkeypatch.setitem(flags.RECIPES, "best", {"train_seg": "--epochs 30 --pixels 1024"})
    for given in ("--recipe best --epochs 2", "--epochs 2 --recipe best"):
        values = parser.parse_args(["--run", "r", *given.split()])
        assert (values.epochs, values.pixels) == (2, 1024)
        assert values.recipe == "best: --epochs 30 --pixels 1024"
        assert values.changed == {"--epochs": 2, "--pixels": 1024}
    monkeypatch.setitem(flags.RECIPES, "best", {"evaluate": "--refine"})
    values = parser.parse_args(["--run", "r", "--recipe", "best"])
    assert values.recipe == "best: nothing but the defaults" and not values.refine


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("name", flags.RECIPES)
def test_a_recipe_is_what_a_user_could_type(name, script, monkeypatch):
    def parsed(*given) -> dict:
        monkeypatch.setattr(sys, "argv", [f"{script}.py", "--run", "R", *given])
        values = runpy.run_path(str(HOME / f"{script}.py"), run_name="other")["parse"]()
        return {k: value for k, value in vars(values).items() if k not in ("recipe", "started")}

    typed = flags.RECIPES[name].get(script, "").split()
    assert parsed("--recipe", name) == parsed(*typed)
    assert not typed or parsed(*typed) != parsed()
    assert set(flags.RECIPES[name]) <= set(SCRIPTS)


@pytest.mark.parametrize(
    ("cores", "threads", "gpu", "processes", "workers"),
    [
        (2, 2, False, 1, 0),
        (16, 8, False, 1, 8),
        (4, 6, False, 1, 0),
        (2, 1, True, 1, 1),
        (64, 32, True, 1, 8),
        (16, 2, False, 4, 2),
    ],
)
def test_images_are_decoded_by_idle_cores(cores, threads, gpu, processes, workers, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(cores))
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert flags.default_workers() == workers
