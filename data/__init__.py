"""Data sets and their pixels: reading, checking, sampling, drawing. Knows nothing of networks or scores."""


class DataError(ValueError):
    """Something is wrong with the user's data; the message says what, where and what to do, on one line."""

    exit_code = 2
