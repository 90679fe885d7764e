"""Time, memory and exactness of the project, beside the textbook network and the bare backbone.

    python -m tests.benchmark                        # some minutes on 2 cores
    python -m tests.benchmark --quick                # fewer rounds, no memory
    python -m tests.benchmark --json FILE            # writes the figures as JSON, too

On pictures that it draws, with backbones of random weights and untrained heads; the backbone is
VGG11 where a row does not name another. Exit code 1: the two sides differ, with VGG11.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from models.run import args as flags
from models.run import folder as run_folder
from models.run import runtime
from tests.benchmark_sides import BACKBONES, Work, exactness, growth, prepare

SIDES = ("ours", "naive", "bare")
SECONDS = ("ours_s", "naive_s", "bare_s", "ours_over_bare", "naive_over_ours")
PEAKS = ("peak_mb", "naive_peak_mb")
WARM_UP = 2  # rounds that do not count
TOLERANCE = 1e-4  # largest difference, relative to the largest value
CAPTION = """\
seconds: per image, medians of interleaved rounds, as are the ratios
bare: torchvision's features of the row's backbone alone in float32 (sample: and reading the JPEG)
naive: the textbook network
peak: growth of a fresh process's peak resident memory (CUDA: of what is allocated there) after the
models are built and the bare one has run once; in 10^6 bytes"""


def seconds(work: Work, row: str, rounds: int) -> dict[str, float]:
    """The `SECONDS` of a row."""
    # All sides in each round, so that a moment in which the machine is slow slows all of them.
    taken = [[work.seconds(row, side) for side in SIDES] for _ in range(WARM_UP + rounds)]
    ours, naive, bare = np.array(taken[WARM_UP:]).T
    found = map(np.median, (ours, naive, bare, ours / bare, naive / ours))
    return dict(zip(SECONDS, map(float, found)))


def peaks(row: str, folder: Path, images: int, device: torch.device) -> dict[str, float]:
    """The `PEAKS` of a row: each side in a process that has done nothing before but imports."""
    context, how = get_context("forkserver"), (folder, images, device, torch.get_num_threads())
    context.set_forkserver_preload(["tests.benchmark_sides"])
    with context.Pool(1, maxtasksperchild=1) as pool:
        found = [pool.apply(growth, (row, side, *how)) for side in ("ours", "naive")]
    return dict(zip(PEAKS, found))


def measure(
    folder: Path,
    device: torch.device,
    rounds: int,
    images: int,
    size: int = 224,
    drawn: int = 375,
    with_peaks: bool = True,
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The rows of the table, and `exactness`.

    Args:
        folder: where the pictures are drawn and the networks saved.
        images: of a round of `sample`.
        size, drawn: shorter side of the network's input and of the pictures.
        with_peaks: whether memory is measured, too; VGG11's alone.
    """
    prepare(folder, images, size, drawn)
    rows: list[dict[str, Any]] = []
    for backbone in BACKBONES:
        work = Work(folder, images, device, backbone)
        if backbone == BACKBONES[0]:
            exact = exactness(work)
        for name in work.calls:
            row = {"name": name, **seconds(work, name, rounds), **dict.fromkeys(PEAKS)}
            if with_peaks and backbone == BACKBONES[0]:
                row |= peaks(name, folder, images, device)
            rows.append(row)
    return rows, exact


def environment(device: torch.device) -> dict[str, Any]:
    """Where and when the figures are measured."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    cpus = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        **run_folder.versions(),
        "platform": platform.platform(),
        "cpu": cpus[0] if cpus else platform.processor() or None,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def report(rows: Sequence[Mapping[str, Any]], exact: Mapping[str, float]) -> int:
    """Prints the figures to 4 digits; 1 if the two sides differ, else 0."""
    cells = [list(rows[0])]
    for row in rows:
        cells.append([f"{x:.4g}" if isinstance(x, float) else x or "-" for x in row.values()])
    widths = [max(map(len, column)) for column in zip(*cells)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    print(CAPTION)
    differences = ", ".join(f"{name} {value:.4g}" for name, value in exact.items())
    print("ours from naive, largest difference over largest value:", differences)
    wrong = [name for name, value in exact.items() if not value <= TOLERANCE]  # nan is wrong, too
    if wrong:
        print(f"benchmark: more than {TOLERANCE:g} apart: {', '.join(wrong)}", file=sys.stderr)
    return int(bool(wrong))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flag = parser.add_argument
    flag("--quick", action="store_true", help="fewer rounds and images, no memory")
    flag("--json", type=Path, metavar="FILE", help="where to write the figures, too")
    flag("--threads", type=flags.positive, default=2, help="of torch on the CPU")
    flag("--device", default="cpu", help="a torch device")
    return parser.parse_args()


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    device = runtime.choose_device(args.device)
    env = environment(device)
    print(", ".join(f"{key} {value}" for key, value in env.items()), flush=True)
    rounds, images = (4, 2) if args.quick else (9, 10)
    with TemporaryDirectory() as folder:
        rows, exact = measure(Path(folder), device, rounds, images, with_peaks=not args.quick)
    if args.json:
        content = {"env": env, "rows": rows, "exactness": exact}
        args.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    sys.exit(report(rows, exact))


if __name__ == "__main__":
    runtime.run_script(main)
