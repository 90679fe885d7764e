"""Data sets and their pixels: reading, checking, sampling. Knows no networks and no scores."""


class UserError(ValueError):
    """What the user can mend, in data, flags, runs or checkpoints: what, where, what to do."""

    exit_code = 2


DataError = UserError  # its earlier name
