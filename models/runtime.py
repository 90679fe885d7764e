"""What every script needs from its surroundings: flags, device, random state, progress, and how it ends."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import torch
from tqdm import tqdm

from models import RunError, processes
from models.interruption import Interrupted
from models.run_folder import STEPS
from models.segmenter import PRECISIONS

Item = TypeVar("Item")

RANK_0_FIRST = 5.0  # seconds that another process waits with its last words: mostly they are those of rank 0


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the docstring as it is and states every default that there is."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help if action.default is None else super()._get_help_string(action)


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with a flag on one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        _last_words(f"{Path(self.prog).stem}: {message}; see --help", 2)


def step_parser(doc: str) -> argparse.ArgumentParser:
    """A parser whose help shows the script's docstring and every default, with the flags that all steps share."""

    parser = OneLineParser(description=doc, formatter_class=Help)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="run folder, shared by the five steps")
    parser.add_argument(
        "--device", default="auto", help="auto (cuda, else mps, else cpu) or a torch device, like cuda:1"
    )
    return parser


def add_data_flags(parser: argparse.ArgumentParser, split: str) -> None:
    """The flags of the steps that read images."""
    default = Path("data/VOCdevkit/VOC2012")
    parser.add_argument("--data", type=Path, default=default, metavar="DIR", help="data set in PASCAL VOC layout")
    parser.add_argument("--split", default=split, help="list in ImageSets/Segmentation to read")
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N images of the split")
    parser.add_argument("--workers", type=natural, default=default_workers(), help="extra processes that decode images")


def add_strictness(parser: argparse.ArgumentParser) -> None:
    """The flags of the steps that may do without a few images."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--strict", action="store_true", help="end at the first bad image; this is the default")
    either.add_argument(
        "--skip-bad", action="store_true", help="read all images first and leave out bad ones, up to 5 in 100"
    )


def default_workers() -> int:
    """Half of the cores beside a GPU; else those that torch does not compute with: more would only get in its way."""
    cores, is_gpu = os.cpu_count() or 1, torch.cuda.is_available() or torch.backends.mps.is_available()
    cores //= int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # the others that torchrun started here need some, too
    return min(8, cores // 2 if is_gpu else max(0, cores - torch.get_num_threads()))


def add_speed_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the steps that run the whole network."""
    parser.add_argument("--amp", default="off", choices=PRECISIONS, help="autocast to lower precision; off: float32")
    parser.add_argument("--compile", action="store_true", help="compile the backbone with torch.compile first")


def positive(text: str) -> int:
    """argparse type: a whole number of at least 1."""
    value = natural(text)
    if not value:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def natural(text: str) -> int:
    """argparse type: a whole number from 0 to below 2**31."""
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to below 2**31")
    return int(text)


def rate(text: str) -> float:
    """argparse type: a learning rate, above 0 and at most 1000."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and at most 1000")
    return value


def fraction(text: str) -> float:
    """argparse type: a number of at least 0 and below 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to below 1")
    return value


def gibibytes(text: str) -> float:
    """argparse type: a size in GiB, above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size in GiB above 0")
    return value


def run_step(main: Callable[[], None]) -> None:
    """Runs a script's `main`; a user's mistake becomes one line and exit code 2, Ctrl-C one line and 130, SIGTERM 143.

    The user's mistakes are the errors that carry an `exit_code` (`data.DataError`, `models.RunError`) and what the
    system refuses (no permission, disk full); any other error is ours and keeps its traceback. Under `torchrun` the end
    of one process ends the others, whatever they wait for; the one that ended first says why.
    """
    name = Path(sys.argv[0]).stem
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        main()
        processes.leave()
    except KeyboardInterrupt as stop:
        number = getattr(stop, "number", signal.SIGINT)
        if not processes.is_main():  # rank 0 speaks for all
            sys.exit(128 + number)
        what = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        kept = str(stop) or "what was finished before is kept"
        _last_words(f"\n{name}: stopped by {what}; {kept}", 128 + number)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _last_words(f"{name}: {where}{error.strerror or error}; what was finished before is kept", 2)
    except ValueError as error:
        if not hasattr(error, "exit_code"):
            raise
        _last_words(f"{name}: {error}", error.exit_code)
    except RuntimeError as error:
        if not processes.is_parting(error):
            raise
        _last_words(f"{name}: rank {processes.rank()} has lost another process of this run, whose message tells why", 1)
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)


def _last_words(line: str, code: int) -> NoReturn:
    """Says why the run ends, and ends it."""
    if not processes.is_main():
        # What is wrong in all processes is said once: by rank 0, upon whose end torchrun ends this one.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(RANK_0_FIRST)
    print(line, file=sys.stderr, flush=True)
    sys.exit(code)


def choose_device(name: str, alone: bool = False) -> torch.device:
    """The device a flag means; "auto" takes cuda, else mps, else cpu. Convolutions on it are in full float32.

    Under `torchrun` each process takes a GPU of its own, and here they meet.

    Args:
        alone: whether the step is one for a single process.

    Raises:
        RunError: no such device here; or several processes where one is wanted.
    """
    if alone and processes.count() > 1:
        raise RunError("this step is quick and runs in one process: start it with python, not with torchrun")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and processes.count() > 1:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    # TensorFloat-32 would be on in convolutions but off in matrix products, and the two must agree.
    torch.backends.cudnn.allow_tf32 = False
    try:
        kind = torch.device(name).type
        if kind not in ("cpu", "cuda", "mps", "xpu"):
            raise RuntimeError("a device that computes nothing, or one that nobody has tried")
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError):
        raise RunError(f"--device {name}: not available here; use auto or cpu") from None
    processes.join(device)
    return device


def announce(step: int, **facts: Any) -> None:
    """Prints the step's number and name, then what it is about to do, aligned."""
    print(f"[{step}/{len(STEPS)}] {STEPS[step][0]}")
    width = max(map(len, facts))
    for name, fact in facts.items():
        print(f"  {name:{width}}  {fact}")
    sys.stdout.flush()


def progress(items: Iterable[Item], total: int, unit: str, label: str = "") -> Iterable[Item]:
    """The items, with a progress bar (rate, ETA) on standard error; silent off a terminal and off rank 0."""
    silent = None if processes.is_main() else True
    return tqdm(items, desc=label, total=total, unit=unit, disable=silent, leave=False, dynamic_ncols=True)


def random_state() -> dict[str, Any]:
    """The state of torch's random generators, as tensors."""
    cuda, mps = torch.cuda.is_initialized(), torch.backends.mps.is_available()
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if cuda else [],
        "mps": [torch.mps.get_rng_state()] if mps else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Puts back what `random_state` gave; generators of GPUs that are not here are left out."""
    torch.set_rng_state(state["cpu"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    for mps in state["mps"] if torch.backends.mps.is_available() else []:
        torch.mps.set_rng_state(mps)
