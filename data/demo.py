"""The whole project in one command: draws the `shapes` data set and runs the five steps on it.

    python -m data.demo --out DIR        # default: runs/demo; nothing is downloaded

At last the network that comes with the project looks at a real photo, and learns what else is on
it from a few clicks.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parent.parent
PORTRAIT = Path("data/portrait")  # a photo in the public domain, and clicks on it


def commands(out: Path) -> list[list[str]]:
    """The commands of the demo, in order, as they would be typed in the project's folder."""
    shapes, run = str(out / "shapes"), ["--run", str(out)]
    sampling = ["--weights", "random", "--size", "144", "--per-class", "20"]
    return [
        ["python", "-m", "data.shapes", shapes, "--images", "320", "--size", "144"],
        ["python", "sample_features.py", "--data", shapes, *run, *sampling],
        ["python", "train_cls.py", *run, "--epochs", "20"],
        ["python", "train_seg.py", *run, "--epochs", "2"],
        ["python", "evaluate.py", *run, "--split", "test"],
        ["python", "visualize.py", *run, "--split", "test"],
    ]


def main() -> None:
    parser = argparse.ArgumentParser("python -m data.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="default: %(default)s")
    out = parser.parse_args().out.absolute()
    out = out.relative_to(HOME) if out.is_relative_to(HOME) else out
    print("VGG11 with random weights, so that nothing is downloaded")
    photo, clicks = str(PORTRAIT / "hopper.jpg"), str(PORTRAIT / "clicks.csv")
    look = ["python", "visualize.py", "--image", photo, "--out", str(out / "photos")]
    learn = ["python", "-m", "models.strokes", str(PORTRAIT), clicks, "--out", str(out / "strokes")]
    for command in [*commands(out), look, learn]:
        print(f"\n$ {shlex.join(command)}", flush=True)
        if code := subprocess.run([sys.executable, *command[1:]], cwd=HOME).returncode:
            sys.exit(code)
    metrics = json.loads((HOME / out / "4_eval" / "metrics.json").read_text(encoding="utf-8"))
    print(
        f"\nmIoU {metrics['miou']:.3f} on {metrics['images']} pictures that no step has seen\n"
        f"look at them in a browser: {out / '5_overlays' / 'index.html'}\n"
        f"a real photo, by the network in the box: {out / 'photos' / 'index.html'}\n"
        f"what it learned from a few clicks: {out / 'strokes' / '5_overlays' / 'index.html'}\n"
        "your own: python visualize.py --image holiday.jpg"
    )


if __name__ == "__main__":
    from models.run.runtime import run_script

    run_script(main)
