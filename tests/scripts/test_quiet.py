"""What the scripts say while they run: a bar with loss and mIoU on a terminal, else lines, with --quiet nothing."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.street import BACKBONE, contents

HOME = Path(__file__).parent.parent


def steps(data: Path, run: Path) -> list[tuple]:
    images = ("--data", data, "--run", run, "--workers", 0)
    return [
        ("sample_features.py", *images, *BACKBONE),
        ("train_cls.py", "--run", run, "--epochs", 2, "--hidden", 8),
        ("train_seg.py", *images, "--epochs", 1),
        ("evaluate.py", *images),
        ("visualize.py", *images, "--limit", 2),
    ]


@pytest.fixture(scope="module")
def told(drawn, in_process, tmp_path_factory) -> tuple[Path, list[subprocess.CompletedProcess]]:
    """A run, and what each of its steps said."""
    run = tmp_path_factory.mktemp("told") / "run"
    return run, [in_process(*step) for step in steps(drawn, run)]


def on_a_terminal(*arguments) -> str:
    """What a script draws on a terminal, every change of its bar included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
    environment = {**os.environ, "TQDM_MININTERVAL": "0"}
    with open(ours, "rb", buffering=0) as terminal:
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)], cwd=HOME, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        drawn = b""
        try:
            while part := terminal.read(4096):
                drawn += part
        except OSError:  # Linux: the other end was closed
            pass
    assert process.wait(60) == 0, drawn
    return drawn.decode()


def test_a_quiet_street_leaves_the_same_and_says_nothing(drawn, told, in_process, tmp_path):
    run, loud = told
    for step in steps(drawn, tmp_path / "run"):
        done = in_process(*step, "--quiet")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), step
    assert all(done.returncode == 0 and "next: " in done.stdout for done in loud[:-1])

    def results(folder: Path) -> dict:  # without what tells of the run's own name and of its time
        return {
            path: content
            for path, content in contents(folder).items()
            if not path.endswith(("config.json", "metrics.json", "index.html", "last.pt"))
        }

    assert results(tmp_path / "run") == results(run) and len(results(run)) > 25


def test_a_quiet_step_still_says_what_is_wrong(in_process, tmp_path):
    done = in_process("train_cls.py", "--run", tmp_path, "--quiet")
    assert done.returncode == 2 and done.stdout == "" and "step 1 has not finished" in done.stderr


def test_quiet_is_refused_where_the_text_is_the_result(in_process, tmp_path):
    done = in_process("evaluate.py", "--compare", tmp_path, tmp_path, "--quiet")
    assert done.returncode == 2 and "--quiet: not allowed with argument --compare" in done.stderr


def test_off_a_terminal_there_are_lines_and_no_bar(told):
    for step, done in enumerate(told[1], start=1):
        assert done.stdout.startswith(f"[{step}/5] ") and done.stderr == ""
        assert "\r" not in done.stdout and "it/s" not in done.stdout
    assert re.search(r"^  epoch 1  loss [\d.]+, validation mIoU [\d.]+, \d+ s$", told[1][2].stdout, re.MULTILINE)


def test_on_a_terminal_a_bar_shows_rate_loss_and_miou(drawn, told):
    run, _ = told
    seen = on_a_terminal("train_seg.py", "--data", drawn, "--run", run, "--epochs", 1, "--workers", 0)
    assert re.search(r"epoch 1/1: .*\d/3 \[.*step.*, loss=\d\.\d{3}, mIoU=0\.\d{3}\]", seen), seen
    assert re.search(r"validate: .*, mIoU=0\.\d{3}\]", seen), seen
    assert "it/s" not in on_a_terminal("evaluate.py", "--data", drawn, "--run", run, "--workers", 0, "--quiet")
