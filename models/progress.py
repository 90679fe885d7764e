"""How far a step has come through its images: kept now and then, and taken up again with `--resume`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models import RunError, processes
from models.interruption import Stop
from models.run_folder import PROGRESS, check_settings, save_json, step_folder

SAVE_EVERY = 20  # rounds (a batch in each process)


class Progress:
    """A step's way through its images, in rounds: a batch in each process.

    Args:
        run, step: the step, for its folder.
        settings: what a resumed run must have in common with the one it goes on from; plain values.
        images: how many there are.
        batch_size: images of a batch.
        resume: whether to go on from where an unfinished run has come; without, that is forgotten.

    Attributes:
        done: how many images are done.
        state: what an unfinished run has kept (see `round_done`); None at the beginning.

    Raises:
        RunError: what was kept cannot be read, or is of other settings.
    """

    def __init__(self, run: Path, step: int, settings: dict[str, Any], images: int, batch_size: int, resume: bool):
        self._path = step_folder(run, step) / PROGRESS
        self._settings, self._images, self._batch_size = settings, images, batch_size
        self._rounds = 0
        self.done, self.state = self._load() if resume else (0, None)
        processes.same([settings, self.done])  # and all have read it
        if processes.is_main() and self.state is None:
            self._path.unlink(missing_ok=True)

    def round_done(self, stop: Stop, state: Callable[[], dict[str, Any]]) -> None:
        """Call it after every round, in all processes.

        Args:
            stop: tells whether the user wants the run to end.
            state: gives what rank 0 needs to go on from here, as plain values; called now and then.

        Raises:
            Interrupted: the run is to end, and can be resumed.
        """
        self._rounds += 1
        self.done = min(self.done + self._batch_size * processes.count(), self._images)
        stopping = stop.asked() and self.done < self._images
        if processes.is_main() and (stopping or self._rounds % SAVE_EVERY == 0):
            save_json(self._path, {"settings": self._settings, "images": self.done, "state": state()})
        if stopping:
            raise stop.now(f"{self.done} images are done; go on with the same command and --resume")

    def start(self) -> str:
        """Where the step begins, in words."""
        return f"after {self.done} images" if self.done else "first image"

    def _load(self) -> tuple[int, dict[str, Any] | None]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            settings, done, state = content["settings"], content["images"], content["state"]
        except FileNotFoundError:
            return 0, None
        except (ValueError, KeyError, TypeError):
            raise RunError(f"{self._path}: cannot be read; start over without --resume") from None
        check_settings(settings, self._settings, self._path)
        return done, state
