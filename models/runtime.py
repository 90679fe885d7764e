"""What every script needs from its surroundings: device, random state, progress, and how it ends."""

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
from models.files import first_line
from models.interruption import Interrupted
from models.run_folder import STEPS

Item = TypeVar("Item")

RANK_0_FIRST = 5.0  # seconds that another process waits with its last words: mostly they are those of rank 0


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
        last_words(f"\n{name}: stopped by {what}; {kept}", 128 + number)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        last_words(f"{name}: {where}{error.strerror or error}; what was finished before is kept", 2)
    except ValueError as error:
        if not hasattr(error, "exit_code"):
            raise
        last_words(f"{name}: {error}", error.exit_code)
    except RuntimeError as error:
        if not processes.is_parting(error):
            raise
        last_words(f"{name}: rank {processes.rank()} has lost another process of this run ({first_line(error)})", 1)
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)


def last_words(line: str, code: int) -> NoReturn:
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
    if name.startswith("cuda:") and processes.count() > 1:
        raise RunError(f"--device {name}: under torchrun each process takes a GPU of its own; use cuda")
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


def announce(step: int, quiet: bool = False, **facts: Any) -> None:
    """Prints the step's number and name, then what it is about to do, aligned; without what is None.

    A quiet step says nothing here, nor later, but what is wrong.
    """
    if quiet:
        processes.mute()
    print(f"[{step}/{len(STEPS)}] {STEPS[step][0]}")
    facts = {name: fact for name, fact in facts.items() if fact is not None}
    width = max(map(len, facts))
    for name, fact in facts.items():
        print(f"  {name:{width}}  {fact}")
    sys.stdout.flush()


def progress(items: Iterable[Item], total: int, unit: str, label: str = "") -> "tqdm[Item]":
    """The items, with a progress bar (rate, ETA) on standard error; silent off a terminal, off rank 0 and when quiet.

    What the bar shows besides is up to the caller: `set_postfix(loss=.., refresh=False)`.
    """
    silent = True if processes.is_muted() else None
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
