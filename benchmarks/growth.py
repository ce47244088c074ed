"""How cost grows with images per class, classes, and number of runs: the exponent of a power law, 1 where linear."""

import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from benchmarks.plan import planned, write_rows
from benchmarks.tables import Row, Tables
from tlprotocols.config.compose import load
from tlprotocols.hardware import one_thread
from tlprotocols.planning.plan import plan
from tlprotocols.results import load as load_rows
from tlprotocols.training import models, optimizers
from tlprotocols.training.loop import Images, evaluate, fit


def measure(full: bool = False, *, root: str | None = None, scale: float = 1.0) -> Tables:
    """Each cost at four sizes, least of three times."""
    one_thread()
    stretch = scale * (4 if full else 1)
    ns, classes, runs = ([max(1, int(size * stretch)) for size in sizes] for sizes in SIZES)
    runs = [100 * max(1, count // 100) for count in runs]
    with tempfile.TemporaryDirectory() as scratch:
        found = [
            _growth("images per class (100 classes), an epoch and an evaluation", ns, lambda n: _epoch(n, 100)),
            _growth("classes (10 images each), an epoch and an evaluation", classes, lambda count: _epoch(10, count)),
            _growth("runs, planned", runs, lambda count: _planning(count, scratch)),
            _growth("runs, loaded", runs, lambda count: _loading(count, scratch)),
        ]
    return {"growth: seconds against size": found}


SIZES = ((10, 20, 40, 80), (100, 200, 400, 800), (300, 600, 1200, 2400))


def _growth(what: str, sizes: Sequence[int], job: Callable[[int], Callable[[], object]]) -> Row:
    jobs = [job(size) for size in sizes]
    best = [min(_seconds(one) for _ in range(3)) for one in jobs]
    slope = float(np.polyfit(np.log(sizes), np.log(best), 1)[0]) if len(set(sizes)) > 1 else 1.0
    shown = {
        f"size {place + 1}": f"{size}: {cost:.3g} s" for place, (size, cost) in enumerate(zip(sizes, best, strict=True))
    }
    return {"cost of": what, **shown, "exponent": round(slope, 2)}


def _seconds(job: Callable[[], object]) -> float:
    begun = time.perf_counter()
    job()
    return time.perf_counter() - begun


def _epoch(n: int, classes: int) -> Callable[[], object]:
    config = load("layers=0", "epochs=1000000")
    stored = torch.randint(0, 256, (n * classes, config.dataset.side, config.dataset.side, 3), dtype=torch.uint8)
    labels = torch.arange(classes).repeat_interleave(n)
    images = Images(stored, np.arange(len(stored)), labels, torch.device("cpu"))
    net = models.build(config, classes).to(memory_format=torch.channels_last)
    epochs = fit(net, optimizers.optimizer(net, config), config, images)
    next(epochs)
    return lambda: (next(epochs), evaluate(net, config, images))


def _planning(count: int, scratch: str) -> Callable[[], object]:
    return lambda: plan(planned(count, f"results_dir={scratch}/none"))


def _loading(count: int, scratch: str) -> Callable[[], object]:
    write_rows(planned(count, f"results_dir={scratch}/{count}"))
    return lambda: load_rows(f"{scratch}/{count}")
