"""Time, memory and exactness of the project, beside the textbook network and the bare backbone.

    python -m tests.benchmark                        # a few minutes on 2 cores
    python -m tests.benchmark --quick                # about a minute
    python -m tests.benchmark --json FILE            # writes the figures as JSON, too
    python -m tests.benchmark --scale                # instead: steps 1 and 4 at 50, 100 and 200 images

On pictures that it draws, with a VGG11 of random weights and an untrained head. Exit code 1: the two sides differ.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision

from data.classes import VOC
from data.features import FeatureWriter
from models import flags, run_folder, runtime
from models.checkpoint import save_extractor
from models.hypercolumn import Hypercolumn
from tests.sides import BATCH, MB, PER_CLASS, RSS, Work, exactness, growth, prepare

HOME = Path(__file__).parent.parent
SCALE = (50, 100, 200)  # images of the runs of --scale
EXACT, TOLERANCE = ("logits", "gradients", "features"), 1e-4  # largest difference, relative to the largest value
GROUPS = (("sample",), ("predict", "predict_bf16"), ("train_step", "train_step_pixels"))  # naive, bare: the first's
# Runs a command; prints its exit code, seconds and peak. It stands between because on Linux a child's `ru_maxrss` is at
# least what the process that started it had reached: this one is small.
LAUNCH = """import json, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.call(sys.argv[1:])
print(json.dumps([code, time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))"""
CAPTION = """\
seconds: per image (train_cls: the script's), medians of interleaved rounds; ratios: medians over the rounds
bare: torchvision's VGG11 features alone in float32 (sample: and reading the JPEG); naive: the textbook network
peak: growth of a fresh process's peak resident memory (CUDA: of what is allocated there) over the level after imports,
building the models and one bare forward (memory: all of the script's largest process); 1 MB is 10^6 bytes"""


class Settings(NamedTuple):
    """How much is measured."""

    size: int = 224  # shorter side of the network's input
    drawn: int = 375  # shorter side of the pictures
    warm_up: int = 2  # rounds that do not count
    repeats: int = 9  # rounds that do
    images: int = 10  # of a round of `sample`
    peaks: tuple[str, ...] = sum(GROUPS, ())
    memory: tuple[int, int] = (24, 96)  # images of the scripts' runs
    rows: int = 10_000  # that train_cls reads
    epochs: int = 30  # of train_cls


QUICK = Settings(warm_up=1, repeats=4, images=2, peaks=("predict", "train_step"), memory=(2, 8), epochs=2)


def row(name: str, note: str = "", **figures: float | None) -> dict[str, Any]:
    """A row of the table; figures that are not given do not apply."""
    keys = ("ours_s", "naive_s", "bare_s", "ours_over_bare", "naive_over_ours", "peak_mb", "naive_peak_mb")
    return {"name": name, **dict.fromkeys(keys), **figures, "note": note}


def timed_rows(work: Work, settings: Settings, peaks: dict[tuple[str, str], float]) -> list[dict[str, Any]]:
    """The rows of what is timed in this process, with those `peaks` by row and side that are known."""
    rows = []
    for group in GROUPS:
        keys = [key for key in work.calls if key[0] in group]
        rounds = settings.warm_up + settings.repeats
        bar = runtime.progress(range(rounds), total=rounds, unit="round", label=group[0])
        # In turn, so that a moment in which the machine is slow slows all sides.
        seconds = [{key: work.calls[key]() for key in keys} for _ in bar][settings.warm_up :]
        for name in group:
            ours, naive, bare = (name, "ours"), (group[0], "naive"), (group[0], "bare")
            times = {f"{key[1]}_s": median(taken[key] for taken in seconds) for key in (ours, naive, bare)}
            figures = {
                "ours_over_bare": median(taken[ours] / taken[bare] for taken in seconds),
                "naive_over_ours": median(taken[naive] / taken[ours] for taken in seconds),
                "peak_mb": peaks.get(ours),
                "naive_peak_mb": peaks.get(naive) if ours in peaks else None,
            }
            rows.append(row(name, **times, **figures))
    return rows


def script(*arguments: Any, threads: int) -> tuple[float, float]:
    """Runs a script of the project as a user would: seconds, and peak memory in MB of its largest process."""
    command = [sys.executable, "-c", LAUNCH, sys.executable, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, cwd=HOME, env=environment, capture_output=True, text=True)
    code, seconds, peak = json.loads(done.stdout.splitlines()[-1])
    if code:
        raise RuntimeError(f"{' '.join(map(str, arguments))} ended with {code}:\n{done.stderr}")
    return seconds, peak * RSS / MB


def two_at_a_time(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What the calls give: for child processes of which only the memory counts."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda call: call(), calls))


def in_a_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function gives there: forked from a server that has done nothing but imports, which saves their time."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.sides"])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *arguments).result()


def run_step(
    number: int, images: int, folder: Path, size: int, device: torch.device, threads: int
) -> tuple[float, float]:
    """Step 1 or 4 on the first images of `folder/shapes`, with `folder/segmenter.pt`: seconds and peak MB."""
    command = {
        1: ("sample_features.py", "--weights", "random", "--size", size, "--per-class", PER_CLASS),
        4: ("evaluate.py", "--checkpoint", folder / "segmenter.pt"),
    }[number]
    where = ("--data", folder / "shapes", "--split", "trainval", "--run", folder / f"run_{number}_{images}")
    return script(*command, *where, "--limit", images, "--device", device, threads=threads)


def fake_step_1(run: Path, rows: int, size: int) -> None:
    """Leaves in `run` what step 1 would: class means plus noise, of 60 pixels an image, and VGG11's extractor."""
    hypercolumn, random = Hypercolumn("vgg11", "random"), np.random.default_rng(0)
    labels = random.integers(len(VOC), size=rows).astype(np.uint8)
    features = 0.05 * random.standard_normal((len(VOC), hypercolumn.Z), dtype=np.float32)[labels]
    features += random.standard_normal(features.shape, dtype=np.float32)
    images = np.arange(rows) // 60
    ids = [f"image_{index}" for index in range(images[-1] + 1)]
    folder = run_folder.begin(run, 1)
    with FeatureWriter(folder, hypercolumn.Z) as writer:
        writer.append(features, labels, np.stack([images, np.arange(rows) % 60, labels], axis=1))
        writer.finish(ids)
    save_extractor(folder / "backbone.pt", hypercolumn)
    settings = {
        "data": "made up",
        "split": "train",
        "images": len(ids),
        "hypercolumn": hypercolumn.spec(),
        "size": size,
        "classes": VOC.names,
        "colours": VOC.colours,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        run_folder.finish(run, 1, settings, wrote="made-up features")


def train_cls_row(folder: Path, settings: Settings, device: torch.device) -> dict[str, Any]:
    """The script of step 2, once."""
    fake_step_1(folder / "run_2", settings.rows, settings.size)
    command = ("train_cls.py", "--run", folder / "run_2", "--epochs", settings.epochs, "--device", device)
    seconds, peak = script(*command, threads=torch.get_num_threads())
    note = f"the script, once: {settings.rows} hypercolumns, {settings.epochs} epochs; {peak:.0f} MB in all"
    return row("train_cls", note, ours_s=seconds)


def measure_memory(
    folder: Path, settings: Settings, device: torch.device
) -> tuple[dict[tuple[str, str], float], dict[str, Any]]:
    """`growth` by row and side, and the row of the scripts of steps 1 and 4 at two numbers of images."""
    keys = [(name, "ours") for name in settings.peaks]
    keys += [(group[0], "naive") for group in GROUPS if group[0] in settings.peaks]
    few, many = settings.memory
    runs = [(step, images) for step in (1, 4) for images in (many, few)]
    threads = max(1, torch.get_num_threads() // 2)  # for each of two at a time
    found = two_at_a_time(
        [partial(run_step, *run, folder, settings.size, device, threads) for run in runs]
        + [partial(in_a_fresh_process, growth, *key, folder, settings.images, device, threads) for key in keys]
    )
    (_, a), (_, b), (_, c), (_, d), *grown = found
    note = f"step 1: {b:.0f} MB at {few} images, {a:.0f} at {many}; step 4: {d:.0f} and {c:.0f}"
    return dict(zip(keys, grown)), row("memory", note, peak_mb=max(a, c))


def measure(folder: Path, settings: Settings, device: torch.device) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """All rows of the table, and `exactness`."""
    prepare(folder, max(settings.images + BATCH, *settings.memory), settings.size, settings.drawn)
    peaks, memory = measure_memory(folder, settings, device)
    work = Work(folder, settings.images, device)
    exact = exactness(work)
    rows = timed_rows(work, settings, peaks)
    return [*rows, train_cls_row(folder, settings, device), memory], exact


def scale(folder: Path, settings: Settings, device: torch.device) -> dict[str, list[dict[str, Any]]]:
    """Cost of the scripts of steps 1 and 4 at several numbers of images, and the slope: what one image more costs."""
    prepare(folder, SCALE[-1], settings.size, settings.drawn)
    runs, slopes = [], []
    for step in (1, 4):
        costs = [run_step(step, images, folder, settings.size, device, torch.get_num_threads()) for images in SCALE]
        for images, (seconds, peak) in zip(SCALE, costs):
            figures = {"seconds": seconds, "seconds_per_image": seconds / images, "peak_mb": peak}
            runs.append({"step": step, "images": images, **figures})
        seconds, peak = ((last - first) / (SCALE[-1] - SCALE[0]) for first, last in zip(costs[0], costs[-1]))
        slopes.append({"step": step, "slope_s": seconds, "slope_mb": peak})
    return {"runs": runs, "slopes": slopes}


def environment(device: torch.device) -> dict[str, Any]:
    """Where and when the figures are measured."""
    info = Path("/proc/cpuinfo")
    cpus = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    return {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpus[0].split(":", 1)[1].strip() if cpus else platform.processor() or None,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def rounded(content: dict[str, Any]) -> dict[str, Any]:
    """Plain values, every float to 4 significant digits, nan as None."""
    text = json.dumps(content)
    return json.loads(text, parse_float=lambda number: float(f"{float(number):.4g}"), parse_constant=lambda _: None)


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Rows that share their keys, aligned; the first and the last column to the left if they are words."""
    table = [list(rows[0]), *(["-" if cell is None else str(cell) for cell in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table)]
    for line in table:
        sides = ["<" if key in ("name", "note") else ">" for key in rows[0]]
        print("  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths)).rstrip())


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = flags.OneLineParser("python -m tests.benchmark", description=__doc__, formatter_class=flags.Help)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, images and peaks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures, too")
    parser.add_argument("--scale", action="store_true", help="steps 1 and 4 at several numbers of images, only that")
    parser.add_argument("--threads", type=flags.positive, default=2, help="of torch on the CPU")
    parser.add_argument("--device", default="cpu", help="a torch device")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    args = parse(arguments)
    torch.set_num_threads(args.threads)
    device = runtime.choose_device(args.device)
    settings = QUICK if args.quick else Settings()
    content: dict[str, Any] = {"env": environment(device), "rows": [], "exactness": {}}
    print(", ".join(f"{key} {value}" for key, value in content["env"].items()), flush=True)
    with TemporaryDirectory() as folder:
        if args.scale:
            content["scale"] = scale(Path(folder), settings, device)
        else:
            content["rows"], content["exactness"] = measure(Path(folder), settings, device)
    return report(rounded(content), args.json)


def report(content: dict[str, Any], path: Path | None) -> int:
    """Prints the figures and writes them to `path`, if there is one; 1 if the two sides differ, else 0."""
    if path:
        run_folder.save_json(path, content)
    for table in content.get("scale", {}).values():
        print_table(table)
    if not content["rows"]:
        return 0
    print_table(content["rows"])
    found = content["exactness"]
    print(CAPTION)
    print("ours from naive, largest difference over largest value:", *(f"{name} {found[name]}" for name in EXACT))
    print(f"pixels whose class bfloat16 leaves as it is: {found['bf16_agreement']:.2%}")
    wrong = [name for name in EXACT if found[name] is None or found[name] > TOLERANCE]
    if wrong:
        print(f"benchmark: more than {TOLERANCE:g} apart: {', '.join(wrong)}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
