"""The network and its checkpoints. Knows no data sets and no scores."""


class RunError(ValueError):
    """A run, checkpoint or flag is unusable; the message says what, where, what to do."""

    exit_code = 2
