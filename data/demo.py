"""The whole street in one command: draws the `shapes` data set, then runs the five steps on it as a user would.

python -m data.demo                  # into runs/demo; needs no network
python -m data.demo --out DIR
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parent.parent

IMAGES, SIZE = 320, 144  # as much as keeps the demo under three minutes on two cores


def commands(out: Path) -> list[list[str]]:
    """The commands of the demo, in order, each as it would be typed in the project's folder."""
    data, run = str(out / "shapes"), str(out)
    street = [
        ["-m", "data.shapes", data, "--images", str(IMAGES), "--size", str(SIZE)],
        ["sample_features.py", "--data", data, "--run", run, "--weights", "random", "--size", str(SIZE)]
        + ["--per-class", "20"],
        ["train_cls.py", "--run", run, "--epochs", "20"],
        ["train_seg.py", "--data", data, "--run", run, "--epochs", "2"],
        ["evaluate.py", "--data", data, "--run", run, "--split", "test"],
        ["visualize.py", "--data", data, "--run", run, "--split", "test"],
    ]
    return [["python", *arguments] for arguments in street]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="run folder (default: runs/demo)")
    out = parser.parse_args().out.absolute()
    out = out.relative_to(HOME) if out.is_relative_to(HOME) else out
    print(
        "VGG11 with seeded random weights, so that nothing is downloaded; "
        "for ImageNet's (a 507 MB download) run sample_features.py with --weights imagenet."
    )
    for command in commands(out):
        print(f"\n$ {shlex.join(command)}", flush=True)
        code = subprocess.run([sys.executable, *command[1:]], cwd=HOME).returncode
        if code:
            sys.exit(code)
    metrics = json.loads((HOME / out / "4_eval" / "metrics.json").read_text(encoding="utf-8"))
    print(
        f"\nmIoU {metrics['miou']:.3f} on {metrics['images']} pictures that no step has seen. "
        f"Look at them: open {out / '5_overlays' / 'index.html'} in a browser"
    )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
