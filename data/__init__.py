"""Data sets and their pixels: reading, checking, sampling. Builds no networks."""

from collections.abc import Sequence

LISTED = 10  # names that a message lists


class UserError(ValueError):
    """What the user can mend; the message says in a line what is wrong, where, and what to do."""


def first_of(names: Sequence[str]) -> str:
    """The first `LISTED` of the names on one line, and how many more there are."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")
