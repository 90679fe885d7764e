"""Data sets and their pixels: reading, checking, sampling. Builds no networks."""


class UserError(ValueError):
    """What the user can mend; the message says in a line what is wrong, where, and what to do."""
