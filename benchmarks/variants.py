"""tlprotocols with one of its techniques switched off: `python -m benchmarks.variants NAME -m layers=4,5 ...`.

Only this process and its workers are patched; nothing in tlprotocols knows of it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tlprotocols.config.identity import run_id
from tlprotocols.launching import worker, workers
from tlprotocols.records import Files, read_config

NAMES = ("two_threads", "process_per_run", "loader", "contiguous")


def two_threads() -> None:
    """One process that computes with both cores."""
    import torch

    from tlprotocols import hardware

    before = hardware.one_thread

    def both() -> None:
        before()  # whatever else it settles stays
        torch.set_num_threads(2)

    hardware.one_thread = both


def contiguous() -> None:
    """Channels first in memory."""
    import torch

    torch.channels_last = torch.contiguous_format
    from tlprotocols.images.augment import normalize
    from tlprotocols.training import loop, shards

    patched: tuple[Any, ...] = (loop, shards)
    for module in patched:
        module.normalize = lambda images, dataset: normalize(images, dataset).contiguous()


def loader() -> None:
    """Image files, decoded for every epoch by torchvision, in the process that trains."""
    import torch
    from torch.utils.data import DataLoader, Subset

    from tlprotocols.config.schema import Config
    from tlprotocols.images.cache import ImageCache
    from tlprotocols.images.folders import read_image
    from tlprotocols.training import loop, run

    class Pictures(torch.utils.data.Dataset):
        def __init__(self, files: list[str], side: int) -> None:
            self.files, self.side = files, side

        def __getitem__(self, place: int) -> Any:
            return torch.from_numpy(read_image(self.files[place], self.side))

        def __len__(self) -> int:
            return len(self.files)

    class Decoded(loop.Images):
        """Decodes the images that are read."""

        def __getitem__(self, which: Any) -> Any:
            rows = self.rows[which.numpy() if isinstance(which, torch.Tensor) else which]
            chosen = Subset(PICTURES[id(self.stored)], rows.tolist())
            return next(iter(DataLoader(chosen, len(rows)))), self.labels[which]

    before = run.selected

    def selected(config: Config, part: str, where: torch.device, log: Callable[[str], None] = print) -> loop.Images:
        images, source = before(config, part, where, log), ImageCache.of(config).source
        files = [file for found in source.files[part] for file in found]  # type: ignore[attr-defined]
        PICTURES[id(images.stored)] = Pictures(files, config.dataset.side)
        return Decoded(images.stored, images.rows, images.labels, where)

    run.selected = selected


PICTURES: dict[int, Any] = {}


def serve(name: str, pipe: Connection, gpu: str | None) -> None:
    """A worker with the patch."""
    patches: dict[str, Callable[[], None]] = {"two_threads": two_threads, "loader": loader, "contiguous": contiguous}
    patches[name]()
    worker.serve(pipe, gpu)


class Patched:
    """What a fresh process runs in place of `serve`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, pipe: Connection, gpu: str | None) -> None:
        """Serve."""
        if self.name == "process_per_run":
            serve_fresh(pipe, gpu)
        else:
            serve(self.name, pipe, gpu)


def serve_fresh(pipe: Connection, gpu: str | None) -> None:
    """A new process for every run."""
    while (task := pipe.recv()) is not None:
        config, role = task
        run = [config.results_dir, run_id(config), role]
        line = [sys.executable, "-m", "benchmarks.variants", "one", json.dumps(gpu), *run]
        subprocess.run(line, check=True)
        pipe.send(("finished", None))


class Told:
    """One task, then none."""

    def __init__(self, results: str, id: str, role: str) -> None:
        self.tasks: Iterator[Any] = iter([(read_config(Files(Path(results), id)), role), None])

    def recv(self) -> Any:
        """The next task."""
        return next(self.tasks)

    def send(self, answer: tuple[str, object]) -> None:
        """Fail loudly."""
        assert answer[0] != "failed", answer


def main() -> None:
    """Patch, then the command line of tlprotocols."""
    name = sys.argv.pop(1)
    if name == "one":
        worker.serve(Told(*sys.argv[2:]), json.loads(sys.argv[1]))  # type: ignore[arg-type]
        return
    patched: Any = workers
    if name == "two_threads":
        patched.ONE_THREAD = worker.ONE_THREAD = dict.fromkeys(worker.ONE_THREAD, "2")
    patched.serve = Patched(name)
    sys.argv[0] = "tlprotocols"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
    from tlprotocols.__main__ import main as command

    command()


if __name__ == "__main__":
    main()
