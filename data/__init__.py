"""Data sets and their pixels: reading, checking, sampling. Knows no networks and no scores."""


class UserError(ValueError):
    """What the user can mend; the message says in a line what is wrong, where, and what to do."""

    exit_code = 2
