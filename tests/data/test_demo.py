"""The commands of the demo: the five steps in order, with flags that exist and no download."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from data.demo import HOME, PORTRAIT, commands

COMMANDS = commands(Path("runs") / "a demo")
STEPS = ["sample_features.py", "train_cls.py", "train_seg.py", "evaluate.py", "visualize.py"]


@pytest.mark.parametrize("command", COMMANDS, ids=["shapes", *STEPS])
def test_a_command_uses_flags_that_exist(command, monkeypatch, capsys):
    script = "data/shapes.py" if command[1] == "-m" else command[1]
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(HOME / script), run_name="__main__")
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert {word for word in command if word.startswith("--")} <= known


@pytest.mark.parametrize("command", COMMANDS[1:], ids=STEPS)
def test_all_steps_share_one_run_and_its_data(command):
    flags = dict(zip(command, command[1:]))
    assert flags["--run"] == str(Path("runs/a demo"))
    assert flags.get("--data", COMMANDS[0][3]) == COMMANDS[0][3]


def test_the_demo_downloads_nothing():
    sampling = COMMANDS[1]
    assert sampling[sampling.index("--weights") + 1] == "random"


def test_the_real_photo_is_installed():
    assert PORTRAIT.is_file()


def test_only_the_last_two_steps_see_the_test_split():
    for command in COMMANDS[-2:]:
        assert command[command.index("--split") + 1] == "test"
    assert "test" not in sum(COMMANDS[:-2], [])
