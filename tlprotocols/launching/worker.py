"""The side of a worker process: it executes one run after another, as the pipe says."""

import os
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from tlprotocols.config.schema import Config
from tlprotocols.errors import Stopped, is_passing
from tlprotocols.processes import end_with_parent
from tlprotocols.records import files, write_atomic

AGAIN = "the same command tries it again"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def serve(pipe: Connection, gpu: str | None) -> None:
    """Execute the (configuration, role) that arrive until None does. Answers with ("advance", images),
    ("finished", None) or ("failed", reason)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    end_with_parent()
    stop = StopSignal()
    prepare(gpu)
    while (task := pipe.recv()) is not None:
        stop.busy = True
        try:
            config, role = task
            advance = lambda images: pipe.send(("advance", images))  # noqa: E731
            reason = attempt(config, role, advance, lambda: stop.requested)
            pipe.send(("finished", None) if reason is None else ("failed", reason))
        except (BrokenPipeError, EOFError, Stopped):  # the parent is gone, and with it everybody who wants this result
            return
        stop.busy = False
        if stop.requested:
            return


def prepare(gpu: str | None) -> None:
    """Make this process compute with one thread, on one GPU or none."""
    os.environ |= ONE_THREAD
    if gpu is not None:
        os.environ |= {"CUDA_VISIBLE_DEVICES": gpu, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # repeatable sums
    from tlprotocols.hardware import one_thread

    one_thread()


def attempt(
    config: Config, role: str, advance: Callable[[int], None], stop: Callable[[], bool] = lambda: False
) -> str | None:
    """Execute a run. Returns why it failed, or None; the traceback is in its folder.

    An error of its own makes it fail for good; after any other (`errors.is_passing`) the next command tries again.

    Raises:
        Stopped: `stop` returned true; the state is saved.
    """
    from tlprotocols.training.run import execute

    paths = files(config)
    try:
        execute(config, role, advance, stop)
    except (BrokenPipeError, EOFError, Stopped):
        raise
    except Exception as error:  # one failing run stops nothing else: its reason goes to its file and to the caller
        if stop():  # the signal ended a process that it was waiting for: no failure
            raise Stopped("while it began") from error
        passing = is_passing(error)
        keep_reason(paths.accident if passing else paths.failure, traceback.format_exc())
        return f"{type(error).__name__}: {error}" + (f"; {AGAIN}" if passing else "")
    return None


def keep_reason(path: Path, text: str) -> None:
    """Write why a run has no row, if the disk takes it: on a full one the sweep goes on without."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)


class StopSignal:
    """SIGUSR2 requests a worker to save the state of its run at the end of the epoch, and to leave; at once if idle."""

    def __init__(self) -> None:
        self.requested = self.busy = False
        signal.signal(signal.SIGUSR2, self._receive)

    def _receive(self, number: int, frame: object) -> None:
        self.requested = True
        if not self.busy:
            raise SystemExit
