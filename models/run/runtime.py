"""Device, precision, loaders, what a script prints, and how it ends."""

import io
import os
import platform
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from data import UserError
from data.sampling import EpochSampler
from data.voc import TrainingSet
from models.memory import keep_freed_memory, most_pixels
from models.run import distributed
from models.run.folder import STEPS
from models.segmenter import Segmenter

Item = TypeVar("Item")

SHARED = Path("/dev/shm")  # where the batches of workers wait; in containers it may be small
SHARED_PER_WORKER = 2**25  # bytes of it
PATIENCE = 300  # seconds for a batch, after which its worker is taken for lost
LOST = "^Dist|gloo"
FAILURES = {  # by words of an error that is not ours: what it means for the user
    "MemoryError|can't allocate memory|out of memory": "out of memory ({}); lower --size, --crop, "
    "--batch-size or --tile, or use another --device",
    "DataLoader (worker|timed out)|shared memory": "a worker process was lost ({}); is memory or "
    "/dev/shm full? use --workers 0, in step 3 together with --resume",
    "Kernel size can't be greater|Output size is too small": "an image is too small for the "
    "backbone ({}); take a larger --size",
    "autocast device_type|does not support bfloat16": "--amp: not possible here ({}); leave it out",
    r"^NotImplementedError: .*\w::\w": "the device lacks an operation ({}); use --device cpu",
    "^(BackendCompilerFailed|InductorError)|torch.compile is not supported": "--compile: PyTorch "
    "cannot compile this network ({}); leave it out",
    LOST: "lost another process of this run ({})",
}
PRECISIONS = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Terminated(KeyboardInterrupt):
    """The process got SIGTERM."""


def run_script(main: Callable[[], None]) -> None:
    """Runs a script's `main`; a user's mistake becomes one line and exit code 2.

    Mistakes are UserError and what the system refuses (no permission, full disk, no memory, no such
    package); any other error is ours and keeps its traceback. Ctrl-C ends with one line and 130,
    SIGTERM with 143.
    """
    own = partial(_terminate, os.getpid())
    output, handler = sys.stdout, signal.signal(signal.SIGTERM, own)
    limit, most = Image.MAX_IMAGE_PIXELS, most_pixels()
    Image.MAX_IMAGE_PIXELS = most // 2 if most else limit  # twice of it Pillow refuses
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console may lack letters of a class name
    try:
        main()
        distributed.shutdown()
    except KeyboardInterrupt as stop:
        code, how = (143, "SIGTERM") if isinstance(stop, Terminated) else (130, "Ctrl-C")
        end("; ".join([f"stopped by {how}", *stop.args]), code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        end(f"{where}{error.strerror or _last_line(error)}", 2)
    except ModuleNotFoundError as error:
        end(f"{error}; pip install {error.name}", 2)
    except UserError as error:
        end(_last_line(error).removeprefix("data.UserError: "), 2)
    except (RuntimeError, MemoryError) as error:
        reason = str(error).partition("\n")[0] or "no more is known"
        for words, meaning in FAILURES.items():
            if re.search(words, f"{type(error).__name__}: {error}"):
                end(meaning.format(reason), 1 if words == LOST else 2)
        raise
    finally:  # a notebook goes on with all three
        Image.MAX_IMAGE_PIXELS = limit
        sys.stdout = output
        signal.signal(signal.SIGTERM, handler)


def end(line: str, code: int) -> NoReturn:
    """Prints why the script ends on standard error, and ends it."""
    rank = "" if distributed.is_main() else f"rank {distributed.rank()}: "
    print(f"{Path(sys.argv[0]).stem}: {rank}{line}", file=sys.stderr, flush=True)
    sys.exit(code)


def _last_line(error: Exception) -> str:
    """Of its message, which comes from a worker process with a traceback before it."""
    return (str(error) or type(error).__name__).splitlines()[-1]


def _terminate(process: int, number: int, frame: object) -> NoReturn:
    if os.getpid() != process:  # a worker that is just being forked
        os._exit(143)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # workers that end, too, are not the reason
    raise Terminated


def image_loader(dataset: Dataset, indices: Sequence[int], workers: int) -> DataLoader:
    """Items of a data set one by one, for whole images, which differ in size."""
    return DataLoader(dataset, None, sampler=indices, **worker_options(workers, len(indices)))


def training_loader(
    dataset: TrainingSet, step_size: int, micro_batches: int, seed: int, workers: int
) -> DataLoader:
    """The micro-batches of this process, see `EpochSampler`, so many of which are a step."""
    part = (distributed.rank(), distributed.world_size(), micro_batches)
    sampler = EpochSampler(len(dataset), step_size, seed, *part)
    return DataLoader(dataset, batch_sampler=sampler, **worker_options(workers, len(dataset)))


def worker_options(workers: int, items: int) -> dict[str, Any]:
    """What every loader is told about its workers, which get at least two items each.

    They live across passes, since starting them takes seconds where they are not forked.
    """
    workers = min(workers, items // 2)
    room = shutil.disk_usage(SHARED).free // SHARED_PER_WORKER if SHARED.is_dir() else workers
    if workers > room:  # one that waits for room may wait for ever
        print(f"  note: {room} of {workers} workers, as {SHARED} is nearly full")
        workers = room
    return {
        "num_workers": workers,
        "timeout": PATIENCE if workers else 0,
        "persistent_workers": workers > 0,
        "pin_memory": torch.cuda.is_available(),
    }


def default_workers() -> int:
    """Half of the cores beside a GPU, else those that torch does not compute with."""
    has_affinity = hasattr(os, "sched_getaffinity")  # a job may have some of a machine's cores
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    cores //= distributed.local_world_size()
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    return min(8, cores // 2 if has_gpu else max(0, cores - torch.get_num_threads()))


def find_device(name: str) -> torch.device:
    """The device of that name, computing in exact float32; "auto" is cuda, else mps, else cpu."""
    if name == "auto":
        mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    # Else convolutions would be in TensorFloat-32 and matrix products, equal to them, would not.
    torch.backends.cudnn.allow_tf32 = False
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError, ImportError):
        raise UserError(f"--device {name}: not available here; use auto or cpu") from None


def choose_device(name: str, single: bool = False) -> torch.device:
    """The device of a script's flag, see `find_device`. Under `torchrun` processes meet.

    Args:
        single: whether the step runs in one process only.

    Raises:
        UserError: no such device here, or several processes where one is wanted.
    """
    several = distributed.world_size() > 1
    if several and single:
        raise UserError(
            "this step is quick and runs in one process: start it with python, not with torchrun"
        )
    device = find_device(name)
    if several and device.type == "cuda":  # each process takes a GPU of its own
        device = find_device(f"cuda:{os.environ['LOCAL_RANK']}")
    if device.type == "cpu":
        keep_freed_memory()
    distributed.init(device)
    return device


def prepare(
    segmenter: Segmenter, device: torch.device, amp: str, compiled: bool, sizes_vary: bool = True
) -> None:
    """Moves the segmenter to the device and sets its precision, a name in `PRECISIONS`.

    Args:
        compiled: whether its backbone is compiled, too.
        sizes_vary: then it is compiled for images of any size, which is slower than for one size.
    """
    segmenter.amp = PRECISIONS[amp]
    if compiled:
        segmenter.hypercolumn.compile(dynamic=sizes_vary)
    segmenter.to(device)


def describe(device: torch.device, amp: str = "off", compiled: bool = False) -> str:
    """Device, number of processes and precision, in words."""
    processes = distributed.world_size()
    where = str(device) if processes == 1 else f"{device.type}, {processes} processes"
    precision = "exact float32" if amp == "off" else f"autocast to {amp}"
    if amp != "off" and device.type == "cpu" and not has_arithmetic(amp):
        precision += " (slower than float32 on this CPU)"
    return f"{where}, {precision}" + ", compiled" * compiled


def has_arithmetic(precision: str) -> bool:
    """Whether this CPU computes in "bf16" or "fp16"; only of x86 is it known."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    if precision == "fp16":
        return torch.cpu._is_amx_fp16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def print_header(step: int, **facts: str | None) -> None:
    """Prints the step and what it is about to do, aligned, without facts that are None or empty."""
    print(f"[{step}/{len(STEPS)}] {STEPS[step][0]}")
    facts = {name: fact for name, fact in facts.items() if fact}
    width = max(map(len, facts))
    for name, fact in facts.items():
        print(f"  {name:{width}}  {fact}")
    sys.stdout.flush()


def as_typed(flags: Mapping[str, Any]) -> str:
    """Flags by their names, plain values, as one would type them."""
    words = []
    for name, value in flags.items():
        text = ",".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
        words += [name] if value is True else [name, text]
    return " ".join(words)


def bar(items: Iterable[Item], total: int, unit: str, label: str = "") -> Iterable[Item]:
    """The items with a progress bar on standard error; none off a terminal or where silent."""
    from tqdm import tqdm  # a network in a server does without it

    disable = getattr(sys.stdout, "name", None) == os.devnull or None
    return tqdm(items, label, total, unit=unit, disable=disable, leave=False, dynamic_ncols=True)
