"""The main job with each of our techniques switched off in turn, on images that were decoded before.

All ways take turns; seconds are medians.
"""

import tempfile
from collections.abc import Sequence
from statistics import median

from benchmarks.sweep import CLASSES, GRID, Job
from benchmarks.tables import Row, Tables
from benchmarks.tiny_sweep import EPOCHS

NOTHING = "nothing: all on"
WAYS: dict[str, tuple[str, tuple[str, ...]]] = {  # technique that is off: variant of the program, overrides
    NOTHING: ("", ()),
    "bf16 (fp32 instead)": ("", ("precision=fp32", "base.precision=fp32")),
    "two shards of a batch while the base trains (one)": ("", ("base.shards=1",)),
    "two workers (one, with one thread)": ("", ("hydra.launcher.workers=1", "base.shards=1")),
    "one thread each (one process, two threads)": ("two_threads", ("hydra.launcher.workers=1", "base.shards=1")),
    "evaluation at the end (after every epoch)": ("", ("curve=true",)),
    "the store (files decoded in every epoch)": ("loader", ()),
    "persistent workers (a process per run)": ("process_per_run", ()),
    "channels last": ("contiguous", ()),
}


def measure(
    full: bool = False,
    *,
    root: str | None = None,
    repetitions: int = 3,
    classes: int = CLASSES,
    grid: Sequence[str] = GRID,
    ways: Sequence[str] = tuple(WAYS),
) -> Tables:
    """Seconds of our command line on glyphs, and on Tiny ImageNet if `root` says where it is."""
    tables: Tables = {}
    for where in (None, root) if root else (None,):
        with tempfile.TemporaryDirectory() as scratch:
            size = {"classes": None if where or full else classes, "epochs": EPOCHS if where and not full else None}
            job = Job(scratch, grid, root=where, **size)
            tables |= {job.title: _switched(job, repetitions, ways)}
    return tables


def _switched(job: Job, repetitions: int, ways: Sequence[str]) -> list[Row]:
    job.ours()  # decodes
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, found in seconds.items():
            variant, overrides = WAYS[name]
            found.append(job.ours(*overrides, variant=variant)[0])
    middle = {name: median(found) for name, found in seconds.items()}
    return [
        {"without": name, "runs": repetitions, "seconds": took, "times slower": round(took / middle[NOTHING], 2)}
        for name, took in middle.items()
    ]
