"""Data sets and their pixels: reading, checking, sampling. Knows no networks and no scores."""


class DataError(ValueError):
    """Something is wrong with the user's data; the message says what, where, what to do."""

    exit_code = 2
