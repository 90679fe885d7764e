"""Recipes: each is a set of flags that its script accepts, that gives way to flags beside it, and that is told."""

import json
import runpy
import sys

import pytest

from models.recipes import RECIPES
from models.run_folder import STEPS
from tests.conftest import HOME

SCRIPTS = [name for name, _ in STEPS.values()]


def parse(monkeypatch, script, *given):
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--run", "R", *given])
    return vars(runpy.run_path(str(HOME / f"{script}.py"), run_name="not main")["parse"]())


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_what_a_user_would_type(name, script, monkeypatch):
    flags = RECIPES[name].get(script, "")
    typed, named = parse(monkeypatch, script, *flags.split()), parse(monkeypatch, script, "--recipe", name)
    assert named.pop("recipe") == f"{name}: {flags}" and typed.pop("recipe") is None
    assert named == typed != {key: value for key, value in parse(monkeypatch, script).items() if key != "recipe"}


def test_recipes_are_for_scripts_that_there_are():
    assert all(set(recipe) <= set(SCRIPTS) for recipe in RECIPES.values())


def test_flags_beside_a_recipe_win_wherever_they_stand(monkeypatch):
    for given in (("--recipe", "best", "--epochs", "2"), ("--epochs", "2", "--recipe", "best")):
        found = parse(monkeypatch, "train_seg", *given)
        assert (found["epochs"], found["crop"]) == (2, 320)


def test_a_recipe_is_printed_and_recorded(drawn, in_process, tmp_path):
    done = in_process(
        "sample_features.py", "--data", drawn, "--run", tmp_path, "--recipe", "best", "--weights", "random",
        "--backbone", "squeezenet1_1", "--size", "64", "--workers", "0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"recipe    best: {RECIPES['best']['sample_features']}" in done.stdout
    config = json.loads((tmp_path / "1_features" / "config.json").read_text())
    assert (config["recipe"].split(":")[0], config["size"], config["per_class"]) == ("best", 64, 10)


def test_an_unknown_recipe_is_refused(in_process, tmp_path):
    done = in_process("train_cls.py", "--run", tmp_path, "--recipe", "cake")
    assert done.returncode == 2 and "argument --recipe: invalid choice: 'cake'" in done.stderr
