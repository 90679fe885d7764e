"""The whole project in one command: draws the `shapes` data set and runs the five steps on it.

    python -m data.demo --out DIR        # default: runs/demo; nothing is downloaded

At last the network that comes with the project looks at a real photo, and learns what else is on
it from a few clicks.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from matplotlib import get_data_path

HOME = Path(__file__).parent.parent
PORTRAIT = Path(get_data_path(), "sample_data", "grace_hopper.jpg")  # public domain
CLICKS = {  # (row, column) on the portrait
    "background": [(60, 430), (250, 440), (20, 270), (330, 480)],
    "flag": [(60, 60), (200, 60), (290, 90), (480, 15), (100, 160), (250, 130)],
    "cap": [(110, 260), (70, 195), (60, 335), (140, 350)],
    "face": [(250, 270), (230, 165), (300, 230), (160, 260)],
    "uniform": [(450, 60), (420, 400), (560, 330), (370, 160)],
}


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


def save_clicks(folder: Path) -> None:
    """Puts the portrait and the table of clicks on it into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PORTRAIT, folder / PORTRAIT.name)
    lines = ["photo,row,column,label"]
    for label, places in CLICKS.items():
        lines += [f"{PORTRAIT.name},{row},{column},{label}" for row, column in places]
    (folder / "clicks.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser("python -m data.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="default: %(default)s")
    out = parser.parse_args().out.absolute()
    out = out.relative_to(HOME) if out.is_relative_to(HOME) else out
    print("VGG11 with random weights, so that nothing is downloaded")
    photo = ["python", "visualize.py", "--image", str(PORTRAIT), "--out", str(out / "photos")]
    portrait, table = out / "portrait", out / "portrait" / "clicks.csv"
    save_clicks(HOME / portrait)
    clicks = ["python", "-m", "models.strokes", str(portrait), str(table)]
    for command in [*commands(out), photo, [*clicks, "--out", str(out / "strokes")]]:
        print(f"\n$ {shlex.join(command)}", flush=True)
        if code := subprocess.run([sys.executable, *command[1:]], cwd=HOME).returncode:
            sys.exit(code)
    metrics = json.loads((HOME / out / "4_eval" / "metrics.json").read_text(encoding="utf-8"))
    print(
        f"\nmIoU {metrics['miou']:.3f} on {metrics['images']} pictures that no step has seen\n"
        f"look at them in a browser: {out / '5_overlays' / 'index.html'}\n"
        f"a real photo, by the network in the box: {out / 'photos' / 'index.html'}\n"
        f"what it learned from {sum(map(len, CLICKS.values()))} clicks: "
        f"{out / 'strokes' / '5_overlays' / 'index.html'}\n"
        "your own: python visualize.py --image holiday.jpg"
    )


if __name__ == "__main__":
    from models.run.runtime import run_script

    run_script(main)
