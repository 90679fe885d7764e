"""How large a photo may be; and what glibc's malloc does with freed memory, where it is glibc's."""

import ctypes
import os
import sys

GLIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
PIXEL = 24  # bytes that one of a large photo takes, read, predicted and drawn
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def most_pixels() -> int | None:
    """Of a photo that this machine's memory has room for; None where that is not known."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // PIXEL


def keep_freed_memory() -> None:
    """Keeps up to 1 GiB of freed memory in this process, for the maps that come next.

    By default glibc gives large blocks back to the system, and each use of new ones waits for it
    page by page: up to a third of a training step.
    """
    if mallopt := getattr(GLIBC, "mallopt", None):
        mallopt(M_TRIM_THRESHOLD, 2**30)
        mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)  # some take no more


def give_back_freed_memory() -> None:
    """Gives the freed memory of this process back to the system.

    Maps of ever other sizes leave ever more holes between them, which glibc keeps.
    """
    if malloc_trim := getattr(GLIBC, "malloc_trim", None):
        malloc_trim(0)
