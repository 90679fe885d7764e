"""The method stands alone: it needs no tool of the project, and no package that only tools need."""

import os
import shutil
import subprocess
import sys

from tests.conftest import HOME, STEPS

TOOLS = ("formats", "figures", "convert.py", "lists.py", "export.py")
PROGRAM = """
import os, runpy, sys
sys.modules |= dict.fromkeys(("matplotlib", "filelock", "tqdm"))
import data.voc, losses.loss, losses.metrics, models.segmenter
from models import load
import numpy as np, torch
network, photo = load("voc"), np.zeros((300, 400, 3), dtype=np.uint8)
torch.set_num_threads(2)  # which a fork loses
mask = network.predict(photo)
assert mask.shape == (300, 400)
if hasattr(os, "fork"):  # as servers do once they have loaded the network
    if (child := os.fork()) == 0:
        found = [network.predict(photo), load("voc").predict(photo)]
        os._exit(not all(np.array_equal(one, mask) for one in found))
    assert os.waitpid(child, 0)[1] == 0 and torch.get_num_threads() == 2
torch.set_num_threads(1)
del sys.modules["filelock"], sys.modules["tqdm"]  # steps need them
for sys.argv in {steps}:
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_method_runs_without_the_tools_and_a_network_without_their_packages(drawn, tmp_path):
    home, needless = tmp_path / "home", ("tests", "runs", ".*", "__pycache__")
    shutil.copytree(HOME, home, ignore=shutil.ignore_patterns(*needless, *TOOLS))
    shutil.copytree(drawn, tmp_path / "shapes")
    names = ("sample_features", "train_cls", "evaluate")
    steps = [[str(home / f"{name}.py"), "--run", "run", *STEPS[name]] for name in names]
    environment = {**os.environ, "PYTHONPATH": str(home), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", PROGRAM.format(steps=steps)]
    how = {"cwd": tmp_path, "env": environment, "timeout": 120}
    done = subprocess.run(words, **how, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/4_eval/metrics.json").is_file()
