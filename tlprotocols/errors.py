"""The errors that a user can cause or must act on."""

import os
import sys
from collections.abc import Callable


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


def until_pipe_closes(command: Callable[[], None]) -> None:
    """Run a command line whose reader may leave before the end, as `head` does: that is no error."""
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
