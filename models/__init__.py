"""Networks, their checkpoints and the run folder. Knows nothing of data sets or scores."""


class RunError(ValueError):
    """A run folder, checkpoint or flag that cannot be used; the message says what, where and what to do, in a line."""

    exit_code = 2
