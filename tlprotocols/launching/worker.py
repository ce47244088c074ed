"""A worker: a process with one thread that executes one run after another, as it is told through a pipe."""

import os
import signal
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

from tlprotocols.results import Files, read_config, write_aside

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def serve(pipe: Connection, gpu: str | None) -> None:
    """Execute the (results_dir, run id, role) that arrive until None does. Answers with ("advance", images),
    ("finished", None) or ("failed", reason)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    stop = StopSignal()
    os.environ |= ONE_THREAD
    if gpu is not None:
        os.environ |= {"CUDA_VISIBLE_DEVICES": gpu, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # repeatable sums
    from tlprotocols.hardware import one_thread
    from tlprotocols.training.run import execute

    one_thread()
    while (task := pipe.recv()) is not None:
        results, run_id, role = task
        paths = Files(Path(results), run_id)
        try:
            stop.busy = True
            config = read_config(paths)
            execute(config, role, advance=lambda images: pipe.send(("advance", images)), stop=lambda: stop.came)
        except (BrokenPipeError, EOFError):  # the parent is gone, and with it everybody who wants this result
            return
        except Exception as error:  # one failing run stops nothing else: its reason goes to its file and to the parent
            if stop.came:  # its state is saved, or the signal ended a process that it was waiting for: no failure
                return
            paths.folder.mkdir(parents=True, exist_ok=True)
            write_aside(paths.failure, traceback.format_exc())
            pipe.send(("failed", f"{type(error).__name__}: {error}"))
        else:
            pipe.send(("finished", None))
        stop.busy = False
        if stop.came:
            return


class StopSignal:
    """SIGUSR2 asks a worker to save the state of its run at the end of the epoch, and to leave; at once if idle."""

    def __init__(self) -> None:
        self.came = self.busy = False
        signal.signal(signal.SIGUSR2, self._hear)

    def _hear(self, number: int, frame: object) -> None:
        self.came = True
        if not self.busy:
            raise SystemExit
