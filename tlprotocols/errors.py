"""The errors that a user can cause or must act on."""

import io
import os
import sys
from collections.abc import Callable

LISTED = 20  # bad images by name in a message


class ConfigError(ValueError):
    """A value that cannot be used: says the key, the value, what is legal and the next step, in one line."""

    def __init__(self, key: str, value: object, legal: str) -> None:
        super().__init__(key, str(value), legal)  # plain arguments, so that it survives the way between processes

    def __str__(self) -> str:
        key, value, legal = self.args
        line = f"{key}={'null' if value == 'None' else value}: {legal}"
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)  # names of files


class BadImages(ConfigError):
    """Files that cannot be read as images, and why, all that were found."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files
        (first, why), count = next(iter(files.items())), len(files)
        if count == 1:
            legal = f"cannot be read as an image ({why}); fix or delete this file, or say dataset.on_bad_image=skip"
            super().__init__("dataset.root", first, legal)
            return
        named = ", ".join(f"{file} ({why})" for file, why in list(files.items())[:LISTED])
        more = f" and {count - LISTED} more" if count > LISTED else ""
        legal = f"{count} files cannot be read as images: {named}{more}; fix or delete them, or say"
        super().__init__("dataset.root", os.path.commonpath(files), f"{legal} dataset.on_bad_image=skip")

    def __reduce__(self) -> tuple[type, tuple[dict[str, str]]]:
        return BadImages, (self.files,)


class RunsFailed(RuntimeError):
    """Some runs of a sweep failed; all others are finished."""


class Stopped(RuntimeError):
    """A run was requested to stop, saved its state and can resume; this is no failure."""


def until_pipe_closes(command: Callable[[], None]) -> None:
    """Run a command line whose reader may leave before the end, as `head` does: that is no error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files that are not in its encoding
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


class Damaged(OSError, ValueError):
    """A file of the results folder is gone or damaged; the same command makes it anew."""


PASSING = (OSError, MemoryError, ConfigError)  # files, disks, memory; images that changed after they were checked
PASSING_OF_TORCH = ("OutOfMemoryError", "AcceleratorError")
NO_MEMORY = "can't allocate memory"  # torch's words, in a RuntimeError, for the memory of a processor


def is_passing(error: BaseException) -> bool:
    """Whether an error says something of the machine at that moment, and nothing of the run that it ended."""
    return isinstance(error, PASSING) or type(error).__name__ in PASSING_OF_TORCH or NO_MEMORY in str(error)
