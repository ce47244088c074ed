"""Rows/s of the results table."""

import tempfile
import time
from statistics import median

from benchmarks.plan import planned, write_rows
from benchmarks.tables import Row, Tables
from tlprotocols.results import load


def measure(full: bool = False, *, root: str | None = None, sizes: tuple[int, ...] = (1000, 20000)) -> Tables:
    """`load` of a folder of rows, everything in the page cache."""
    return {"load: rows/s of the results table": [_loading(count) for count in sizes]}


def _loading(count: int) -> Row:
    with tempfile.TemporaryDirectory() as results:
        write_rows(planned(count, f"results_dir={results}"))
        times = []
        for _ in range(4):
            begun = time.perf_counter()
            table = load(results)
            times.append(time.perf_counter() - begun)
            assert len(table) == count
    seconds = median(times[1:])
    return {"rows": count, "columns": table.shape[1], "seconds": seconds, "rows/s": count / seconds}
