"""The method stands alone: it needs no tool of the project, and no package that only tools need."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import HOME, STEPS

TOOLS = ("data/formats", "data/figures", "data/convert.py", "data/lists.py", "models/export.py")
FORBID = """
import sys
sys.modules |= dict.fromkeys(("matplotlib", "filelock"))
import data.voc, losses.loss, losses.metrics, models.segmenter
from models import load
import numpy as np
mask = load("voc").predict(np.zeros((40, 50, 3), dtype=np.uint8))
assert mask.shape == (40, 50)
"""


def run(place: Path, home: Path, *command) -> None:
    environment = {**os.environ, "PYTHONPATH": str(home), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, *map(str, command)]
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_steps_1_2_and_4_run_without_the_tools(drawn, tmp_path):
    home = tmp_path / "home"
    left_out = shutil.ignore_patterns("tests", "runs", ".*", "__pycache__")
    shutil.copytree(HOME, home, ignore=left_out)
    for name in TOOLS:
        place = home / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    shutil.copytree(drawn, tmp_path / "shapes")
    for step in ("sample_features", "train_cls", "evaluate"):
        run(tmp_path, home, home / f"{step}.py", "--run", "run", *STEPS[step])
    assert (tmp_path / "run/4_eval/metrics.json").is_file()


def test_a_network_predicts_without_matplotlib_and_filelock(tmp_path):
    run(tmp_path, HOME, "-c", FORBID)
