"""Time, memory and exactness of the project, beside the textbook network and the bare backbone.

    python -m tests.benchmark                        # some minutes on 2 cores
    python -m tests.benchmark --quick                # about a minute
    python -m tests.benchmark --json FILE            # writes the figures as JSON, too
    python -m tests.benchmark --scale                # instead: steps 1 and 4 at 50, 100, 200 images

On pictures that it draws, with backbones of random weights and untrained heads; the backbone is
VGG11 where a row does not name another. Exit code 1: the two sides differ, with VGG11.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from data.classes import VOC
from data.features import create_rows, moments, open_rows, save_rows
from models.run import args as flags
from models.run import folder as run_folder
from models.run import runtime
from tests.benchmark_sides import BACKBONES, MB, PER_CLASS, RSS, Work, exactness, growth, prepare

HOME = Path(__file__).parent.parent
SCALE = (50, 100, 200)  # images of the runs of --scale
EXACT = ("logits", "gradients", "features")
TOLERANCE = 1e-4  # largest difference, relative to the largest value
CAPTION = """\
seconds: per image (train_cls: the script's), medians of interleaved rounds, as are the ratios
bare: torchvision's features of the row's backbone alone in float32 (sample: and reading the JPEG)
naive: the textbook network
peak: growth of a fresh process's peak resident memory (CUDA: of what is allocated there) after the
models are built and the bare one has run once (memory: all of the script's largest process); in
10^6 bytes"""


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    size: int = 224  # shorter side of the network's input
    drawn: int = 375  # shorter side of the pictures
    warm_up: int = 2  # rounds that do not count
    repeats: int = 9  # rounds that do
    images: int = 10  # of a round of `sample`
    without_peaks: tuple[str, ...] = ()  # rows whose memory is not measured
    memory: tuple[int, int] = (24, 96)  # images of the scripts' runs
    rows: int = 10_000  # that train_cls reads
    epochs: int = 30  # of train_cls


SOME = ("sample", "predict_bf16", "train_step_pixels")
QUICK = Settings(warm_up=1, repeats=4, images=2, without_peaks=SOME, memory=(2, 8), epochs=2)


def row(name: str, note: str = "", **figures: float | None) -> dict[str, Any]:
    """A row of the table; figures that are not given do not apply."""
    seconds = ("ours_s", "naive_s", "bare_s")
    ratios = ("ours_over_bare", "naive_over_ours")
    peaks = ("peak_mb", "naive_peak_mb")
    return {"name": name, **dict.fromkeys(seconds + ratios + peaks), **figures, "note": note}


def timed_row(name: str, work: Work, settings: Settings) -> dict[str, Any]:
    """A row of what is timed in this process, without its peaks."""
    count = settings.warm_up + settings.repeats
    # All sides in each round, so that a moment in which the machine is slow slows all of them.
    rounds = [
        {side: work.seconds(name, side) for side in ("ours", "naive", "bare")}
        for _ in runtime.bar(range(count), count, "round", name)
    ][settings.warm_up :]
    return row(
        name,
        ours_s=median(taken["ours"] for taken in rounds),
        naive_s=median(taken["naive"] for taken in rounds),
        bare_s=median(taken["bare"] for taken in rounds),
        ours_over_bare=median(taken["ours"] / taken["bare"] for taken in rounds),
        naive_over_ours=median(taken["naive"] / taken["ours"] for taken in rounds),
    )


def in_a_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function gives in a process that has done nothing before but imports."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.benchmark_sides"])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *arguments).result()


def peaks(name: str, folder: Path, settings: Settings, device: torch.device) -> dict[str, float]:
    """What a timed row states about memory."""
    if name in settings.without_peaks:
        return {}
    threads = torch.get_num_threads()
    return {
        key: in_a_fresh_process(growth, name, side, folder, settings.images, device, threads)
        for key, side in (("peak_mb", "ours"), ("naive_peak_mb", "naive"))
    }


def run_script(command: str, folder: Path, threads: int) -> tuple[float, float]:
    """Runs a script of the project in `folder`: seconds, and MB at its largest process's peak.

    To be called in a fresh process: the peak is the largest of all that this process has run so
    far, and on Linux at least that of this process.

    Raises:
        RuntimeError: the script failed; with what it said.
    """
    script, *arguments = command.split()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = [sys.executable, str(HOME / script), *arguments]
    start = time.perf_counter()
    done = subprocess.run(process, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stderr}")
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * RSS / MB


def step_command(step: int, images: int, size: int, device: torch.device) -> str:
    """Step 1 or 4 on the first images, in the folder of `prepare`."""
    command = {
        1: f"sample_features.py --weights random --size {size} --per-class {PER_CLASS}",
        4: "evaluate.py --checkpoint vgg11.pt",
    }[step]
    command += f" --data shapes --split trainval --limit {images}"
    return f"{command} --run run_{step}_{images} --device {device}"


def run_steps(
    images: Sequence[int], folder: Path, settings: Settings, device: torch.device
) -> dict[int, list[tuple[float, float]]]:
    """By step, seconds and peak MB of steps 1 and 4 at several numbers of images."""
    costs: dict[int, list[tuple[float, float]]] = {1: [], 4: []}
    for step in costs:
        for count in images:
            command = step_command(step, count, settings.size, device)
            cost = in_a_fresh_process(run_script, command, folder, torch.get_num_threads())
            costs[step].append(cost)
    return costs


def memory_row(folder: Path, settings: Settings, device: torch.device) -> dict[str, Any]:
    """Peaks of steps 1 and 4 at two numbers of images."""
    few, many = settings.memory
    costs = run_steps(settings.memory, folder, settings, device)
    (one_few, one_many), (four_few, four_many) = ([mb for _, mb in costs[step]] for step in costs)
    note = (
        f"step 1: {one_few:.0f} MB at {few} images, {one_many:.0f} at {many}; "
        f"step 4: {four_few:.0f} and {four_many:.0f}"
    )
    return row("memory", note, peak_mb=max(one_many, four_many))


def train_cls_command(folder: Path, settings: Settings, device: torch.device) -> str:
    """Step 2, on made-up features that this puts in the place of step 1's, on the fewest images."""
    run = f"run_1_{settings.memory[0]}"
    place, random = run_folder.step_folder(folder / run, 1), np.random.default_rng(0)
    channels = len(np.load(place / "mean.npy"))
    labels = random.integers(len(VOC), size=settings.rows, dtype=np.uint8)
    create_rows(place, settings.rows, channels)
    means = 0.05 * random.standard_normal((len(VOC), channels), dtype=np.float32)
    noise = random.standard_normal((settings.rows, channels), dtype=np.float32)
    rows = open_rows(place)
    rows[:] = means[labels] + noise
    image, pixel = np.divmod(np.arange(settings.rows), 60)  # pixels of an image
    ids = [f"image_{index}" for index in range(image[-1] + 1)]
    pixels, areas = (
        np.stack([image, pixel, pixel], axis=1),
        np.full(len(labels), np.float32(1 / 60)),
    )
    save_rows(place, labels, pixels, areas, *moments(rows), ids)
    return f"train_cls.py --run {run} --epochs {settings.epochs} --device {device}"


def train_cls_row(folder: Path, settings: Settings, device: torch.device) -> dict[str, Any]:
    """The script of step 2, once."""
    command = train_cls_command(folder, settings, device)
    seconds, peak = in_a_fresh_process(run_script, command, folder, torch.get_num_threads())
    size = f"{settings.rows} hypercolumns, {settings.epochs} epochs"
    return row("train_cls", f"the script, once: {size}; {peak:.0f} MB in all", ours_s=seconds)


def measure(folder: Path, settings: Settings, device: torch.device) -> dict[str, Any]:
    """All rows of the table, and `exactness`."""
    prepare(folder, max(settings.images, *settings.memory), settings.size, settings.drawn)
    vgg11, *others = (Work(folder, settings.images, device, name) for name in BACKBONES)
    exact = exactness(vgg11)
    rows = [
        timed_row(name, vgg11, settings) | peaks(name, folder, settings, device)
        for name in vgg11.calls
    ]
    rows += [timed_row(name, work, settings) for work in others for name in work.calls]
    memory = memory_row(folder, settings, device)
    rows += [train_cls_row(folder, settings, device), memory]  # on what memory_row left
    return {"rows": rows, "exactness": exact}


def scale(folder: Path, settings: Settings, device: torch.device) -> dict[str, Any]:
    """Cost of steps 1 and 4 at several numbers of images, and of one image more: the slope."""
    prepare(folder, SCALE[-1], settings.size, settings.drawn)
    runs, slopes = [], []
    for step, costs in run_steps(SCALE, folder, settings, device).items():
        for images, (seconds, peak) in zip(SCALE, costs):
            figures = {"seconds": seconds, "seconds_per_image": seconds / images, "peak_mb": peak}
            runs.append({"step": step, "images": images, **figures})
        slope = (np.array(costs[-1]) - costs[0]) / (SCALE[-1] - SCALE[0])
        slopes.append({"step": step, "slope_s": slope[0].item(), "slope_mb": slope[1].item()})
    return {"rows": [], "exactness": {}, "scale": {"runs": runs, "slopes": slopes}}


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


def rounded(content: dict[str, Any]) -> dict[str, Any]:
    """Plain values, every float to 4 significant digits, nan as None."""
    return json.loads(
        json.dumps(content),
        parse_float=lambda number: float(f"{float(number):.4g}"),
        parse_constant=lambda _: None,
    )


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Rows that share their keys, aligned."""
    cells = [["-" if cell is None else str(cell) for cell in row.values()] for row in rows]
    table = [list(rows[0]), *cells]
    widths = [max(map(len, column)) for column in zip(*table)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def report(content: dict[str, Any], path: Path | None) -> int:
    """Prints the figures, saves them to `path`, if any; 1 if the two sides differ, else 0."""
    content = rounded(content)
    if path:
        run_folder.save_json(path, content)
    for table in content.get("scale", {}).values():
        print_table(table)
    if not content["rows"]:
        return 0
    print_table(content["rows"])
    print(CAPTION)
    found = content["exactness"]
    differences = " ".join(f"{name} {found[name]}" for name in EXACT)
    print("ours from naive, largest difference over largest value:", differences)
    print(f"pixels whose class bfloat16 leaves as it is: {found['bf16_agreement']:.2%}")
    wrong = [name for name in EXACT if found[name] is None or found[name] > TOLERANCE]
    if wrong:
        print(f"benchmark: more than {TOLERANCE:g} apart: {', '.join(wrong)}", file=sys.stderr)
    return int(bool(wrong))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.benchmark", description=__doc__, formatter_class=flags.Help
    )
    flag = parser.add_argument
    flag("--quick", action="store_true", help="fewer rounds, images and peaks")
    flag("--json", type=Path, metavar="FILE", help="where to write the figures, too")
    flag("--scale", action="store_true", help="only steps 1 and 4 at several numbers of images")
    flag("--threads", type=flags.positive, default=2, help="of torch on the CPU")
    flag("--device", default="cpu", help="a torch device")
    return parser.parse_args()


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    device = runtime.choose_device(args.device)
    env = environment(device)
    print(", ".join(f"{key} {value}" for key, value in env.items()), flush=True)
    with TemporaryDirectory() as folder:
        measured = scale if args.scale else measure
        content = measured(Path(folder), QUICK if args.quick else Settings(), device)
    sys.exit(report({"env": env, **content}, args.json))


if __name__ == "__main__":
    runtime.run_script(main)
