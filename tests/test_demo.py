"""The commands of the demo: the five steps in order, as their parsers take them, with nothing to download."""

import importlib
import sys
from pathlib import Path

import pytest

from data.demo import commands
from models.runtime import STEPS
from tests.conftest import HOME

OUT = Path("runs") / "a demo"
COMMANDS = commands(OUT)


def script_of(command: list[str]) -> str:
    """The module that a command runs."""
    return command[2] if command[1] == "-m" else command[1].removesuffix(".py")


def test_the_demo_draws_and_then_takes_the_five_steps_in_order():
    assert [script_of(command) for command in COMMANDS] == ["data.shapes", *(name for name, _ in STEPS.values())]
    assert all(command[0] == "python" for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=script_of)
def test_a_command_is_taken_by_its_script(command, monkeypatch):
    """Parsed in this process: the scripts' imports would cost seconds each."""
    name = script_of(command)
    arguments = command[2:] if command[1] != "-m" else command[3:]
    assert (HOME / (name.replace(".", "/") + ".py")).is_file()
    module = importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    if name == "data.shapes":
        asked = {}
        monkeypatch.setattr(module, "make_shapes", lambda **options: asked.update(options))
        assert module.main() == 0
        assert asked["out"] == OUT / "shapes"
    else:
        options = module.parse()
        assert options.run == OUT
        assert "--data" not in arguments or options.data == OUT / "shapes"


def test_the_demo_downloads_nothing():
    words = [word for command in COMMANDS for word in command]
    assert not any("imagenet" in word or "http" in word or "download" in word for word in words)
    sampling = COMMANDS[1]
    assert sampling[sampling.index("--weights") + 1] == "random"


def test_the_demo_scores_and_draws_pictures_that_no_step_has_seen():
    for command in COMMANDS[-2:]:
        assert command[command.index("--split") + 1] == "test"
    assert "test" not in [word for command in COMMANDS[:-2] for word in command]
