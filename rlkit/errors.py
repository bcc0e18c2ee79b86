"""What a user can mend: a command shows these as one line. Free of torch, so that small programs start at once."""


class DamagedFile(Exception):
    """A file that is truncated, altered or of another kind."""


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient was nan or infinite, and the weights are those before that update; or weights are."""


class SaveFailed(RuntimeError):
    """A checkpoint or an agent could not be written (a full disk, say); the one before is whole."""


class ExperienceFailed(RuntimeError):
    """An environment raised an error. The trainer saves, and hands it on."""
