"""The errors that a user can cause or must act on."""


class ConfigError(ValueError):
    """A value that cannot be used: says the key, the value, what is legal and the next step, in one line."""

    def __init__(self, key: str, value: object, legal: str) -> None:
        super().__init__(key, str(value), legal)  # plain arguments, so that it survives the way between processes

    def __str__(self) -> str:
        key, value, legal = self.args
        return f"{key}={'null' if value == 'None' else value}: {legal}"


class RunsFailed(RuntimeError):
    """Some runs of a sweep failed; all others are finished."""


class Stopped(RuntimeError):
    """A run was requested to stop, saved its state and can resume; this is no failure."""


class Damaged(OSError, ValueError):
    """A file of the results folder is gone or damaged; the same command makes it anew."""


PASSING = (OSError, MemoryError, ConfigError)  # files, disks, memory; images that changed after they were checked
PASSING_OF_TORCH = ("OutOfMemoryError", "AcceleratorError")
NO_MEMORY = "can't allocate memory"  # torch's words, in a RuntimeError, for the memory of a processor


def is_passing(error: BaseException) -> bool:
    """Whether an error says something of the machine at that moment, and nothing of the run that it ended."""
    return isinstance(error, PASSING) or type(error).__name__ in PASSING_OF_TORCH or NO_MEMORY in str(error)
