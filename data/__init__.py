"""Data sets and their pixels: reading, checking, sampling. Knows no networks and no scores."""


class UserError(ValueError):
    """Something that the user can mend; the message says what, where, what to do."""

    exit_code = 2


DataError = UserError
