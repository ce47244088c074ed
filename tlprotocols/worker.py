"""A worker: a process with one thread that executes one run after another, as it is told through a pipe."""

import json
import os
import signal
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

from tlprotocols.reader import build
from tlprotocols.results import Files, write_aside

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def serve(pipe: Connection, gpu: int | None) -> None:
    """Execute the (results_dir, run id, role) that arrive until None does. Answers with ("advance", images),
    ("finished", None) or ("failed", reason)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    os.environ |= ONE_THREAD
    if gpu is not None:
        os.environ |= {"CUDA_VISIBLE_DEVICES": str(gpu), "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # repeatable sums
    from tlprotocols.hardware import one_thread
    from tlprotocols.run import execute

    one_thread()
    while (task := pipe.recv()) is not None:
        results, run_id, role = task
        paths = Files(Path(results), run_id)
        try:
            config = build(json.loads(paths.config.read_bytes()))
            execute(config, role, advance=lambda images: pipe.send(("advance", images)))
        except (BrokenPipeError, EOFError):  # the parent is gone, and with it everybody who wants this result
            return
        except Exception as error:  # one failing run stops nothing else: its reason goes to its file and to the parent
            paths.folder.mkdir(parents=True, exist_ok=True)
            write_aside(paths.failure, traceback.format_exc())
            pipe.send(("failed", f"{type(error).__name__}: {error}"))
        else:
            pipe.send(("finished", None))
