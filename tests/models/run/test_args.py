"""The flags: values that are refused in a line, recipes, and which flags decide the result."""

import json
import runpy
import sys
from unittest import mock

import pytest

from models.run import args as flags
from models.run.folder import STEPS
from models.run.recipes import RECIPES
from models.views import Views
from tests.conftest import HOME

SCRIPTS = [name for name, _ in STEPS.values()]
REFUSED = [  # script, flag, values that it does not take
    ("train_seg", "--seed", ["-1", "1.0", "", "two", "1e3", "²", "2147483648"]),
    ("train_seg", "--epochs", ["0", "-1", "0.5", ""]),
    ("train_seg", "--lr", ["0", "-1e-3", "nan", "inf", "1001", "", "fast"]),
    ("train_seg", "--ema", ["1", "-0.1", "nan", "inf", "", "half"]),
    ("train_seg", "--lovasz", ["-0.1", "nan", "1001"]),
    ("train_seg", "--scale", ["1", "2,1", "0.01,1", "1,11", "a,b", "1,2,3", "nan,1"]),
    ("train_cls", "--milestones", ["", "1,", "0,1", "1;2"]),
    ("train_cls", "--hidden", ["256,none", "0", ",", ",".join("1234567890")]),
    ("sample_features", "--context", ["", "4", "image,", "0", "-3", "image,image", "05", "1001"]),
    ("sample_features", "--size", ["0"]),
    ("evaluate", "--tta", ["flop", "0", "0.75,,1", "5", "nan", "-1"]),
    ("evaluate", "--workers", ["-2"]),
    ("visualize", "--limit", ["0"]),
    ("visualize", "--recipe", ["cake"]),
]


@pytest.mark.parametrize("script, flag, values", REFUSED)
def test_a_value_that_a_flag_does_not_take_is_refused_in_a_line(script, flag, values, fails):
    for value in values:
        line = fails(f"{script}.py", "--run", "run", f"{flag}={value}")
        assert line.startswith(f"{script}: argument {flag}: ") and line.endswith("; see --help")


def parsed(script: str, *given: str) -> dict:
    """The flags of a script as its `parse` reads them."""
    with mock.patch.object(sys, "argv", [f"{script}.py", "--run", "R", *given]):
        values = vars(runpy.run_path(str(HOME / f"{script}.py"), run_name="other")["parse"]())
    return {name: value for name, value in values.items() if name != "started"}


def test_values_are_read_and_those_that_decide_the_result_are_kept_as_json():
    free = ("--data", "d", "--workers", "3", "--device", "cpu", "--quiet", "--save-every", "9")
    usual, found = parsed("train_seg"), parsed("train_seg", *free, "--scale", "0.5,2", "--flip")
    assert (found["workers"], found["scale"], found["flip"]) == (3, (0.5, 2.0), True)
    assert found["changed"] == {"--scale": [0.5, 2.0], "--flip": True} and not usual["changed"]
    assert found["settings"] == usual["settings"] | found["changed"]
    assert json.loads(json.dumps(found["settings"])) == found["settings"]
    assert "--momentum" not in usual["settings"], "which adamw does not have"
    assert parsed("train_seg", "--optimizer", "sgd")["settings"]["--momentum"] == 0.9
    falls = parsed("train_seg", "--decay", "step")["settings"]  # of 10 epochs
    assert (falls["--gamma"], falls["--milestones"]) == (0.1, [6, 8])
    for text, widths in {"8": (8, 8), "8,": (8,), "none": ()}.items():
        assert parsed("train_cls", "--hidden", text)["hidden"] == widths


def test_what_the_network_sees_follows_from_the_flags():
    tta = ("--tta", "2,flip,0.5", "--refine")
    for given, views in {
        (): Views(),
        tta: Views((0.5, 1.0, 2.0), flip=True, refine=True),
        ("--tile", "64"): Views(tile=64),
    }.items():
        found = parsed("evaluate", *given)
        assert flags.views(found["tta"], found["refine"], found["tile"]) == views


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_what_a_user_could_type(name, script):
    typed = parsed(script, *RECIPES[name].get(script, "").split())
    assert parsed(script, "--recipe", name) == typed | {"recipe": name}
    assert set(RECIPES[name]) <= set(SCRIPTS)


def test_flags_beside_a_recipe_win_wherever_they_stand():
    before, behind = ("--epochs", "2", "--recipe", "best"), ("--recipe", "best", "--epochs", "2")
    found = parsed("train_seg", *before)
    assert found == parsed("train_seg", *behind) and found["epochs"] == 2 and found["ema"] > 0
