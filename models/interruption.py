"""Ctrl-C and SIGTERM: noted, so that a loop ends between two steps with everything saved."""

import signal
import sys
import threading
from types import FrameType

from models import processes

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """The user, or the system, wants the run to end.

    Args:
        number: the signal's.
        kept: what is kept and how to go on, in words.
    """

    def __init__(self, number: int, kept: str = ""):
        super().__init__(kept)
        self.number = number


class Stop:
    """Takes note of the first Ctrl-C or SIGTERM while it is entered; a second one interrupts at once.

    What was ignored before (Ctrl-C in a job in the background) stays ignored.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def asked(self) -> bool:
        """Whether it is time to stop, here or in another process of the run; all must ask together."""
        asked = processes.agree(self.number is not None)
        if asked and self.number is None:
            self.number = signal.SIGTERM
        return asked

    def now(self, kept: str) -> Interrupted:
        """The exception to end with; `kept` as for `Interrupted`."""
        return Interrupted(self.number, kept)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self.__exit__()  # a second one comes through
        if processes.is_main():
            print("\nstopping as soon as all is saved; once more stops at once", file=sys.stderr, flush=True)
