"""The method stands alone: it needs no tool of the project, and no package that only tools need."""

import os
import shutil
import subprocess
import sys

from tests.conftest import HOME, STEPS

TOOLS = ("data/formats", "data/figures", "data/convert.py", "data/lists.py", "models/export.py")
PROGRAM = """
import runpy, sys
sys.modules |= dict.fromkeys(("matplotlib", "filelock"))
import data.voc, losses.loss, losses.metrics, models.segmenter
from models import load
import numpy as np
mask = load("voc").predict(np.zeros((40, 50, 3), dtype=np.uint8))
assert mask.shape == (40, 50)
del sys.modules["filelock"]  # steps need it
for sys.argv in {steps}:
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_steps_1_2_and_4_run_without_the_tools_and_a_network_without_their_packages(
    drawn, tmp_path
):
    home = tmp_path / "home"
    left_out = shutil.ignore_patterns("tests", "runs", ".*", "__pycache__")
    shutil.copytree(HOME, home, ignore=left_out)
    for name in TOOLS:
        place = home / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    shutil.copytree(drawn, tmp_path / "shapes")
    steps = [
        [str(home / f"{step}.py"), "--run", "run", *STEPS[step]]
        for step in ("sample_features", "train_cls", "evaluate")
    ]
    environment = {**os.environ, "PYTHONPATH": str(home), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", PROGRAM.format(steps=steps)]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/4_eval/metrics.json").is_file()
