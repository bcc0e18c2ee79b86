"""What a user can mend: `run.cli` shows these as one line. Free of torch, so that small programs start at once."""


class DamagedFile(Exception):
    """A file that is truncated, altered or of another kind."""


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient was nan or infinite; the weights are those before that update."""


class SaveFailed(RuntimeError):
    """A checkpoint could not be written (a full disk, say); the one before is whole."""
