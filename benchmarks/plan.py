"""Cells/s of planning, beside plain composition by Hydra; the second start of a finished sweep of a thousand runs."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.tables import Row, Tables
from tlprotocols.config.compose import composer
from tlprotocols.config.identity import factors
from tlprotocols.config.schema import Config
from tlprotocols.planning.plan import plan, resolved
from tlprotocols.records import files

SAMPLE = 20  # cells composed by Hydra alone
MEASURED = {
    **dict.fromkeys(("train_loss", "train_eval_loss", "val_loss"), 1.5),
    **dict.fromkeys(("train_top1", "val_top1", "val_top1_even", "val_top1_odd", "base_top1"), 0.5),
    **{"collapsed": False, "diverged": False, "classes_learned": 500, "train_images": 5000, "updates": 632},
    **{"seconds": 4.25, "images_per_second": 9876.5, "device": "a processor", "role": "run", "log": "runs/x/log.txt"},
    **{
        "tlprotocols": "0.1.0",
        "torch": "2.15.0",
        "python": "3.12",
        "host": "here",
        "date": "2026-01-01T00:00:00+00:00",
    },
}


def measure(full: bool = False, *, root: str | None = None, sizes: tuple[int, ...] = (1000, 10000)) -> Tables:
    """Planning, and finding everything finished."""
    with tempfile.TemporaryDirectory() as scratch:
        return {
            "plan: cells/s, composed, checked and planned": [_planning(count, scratch) for count in sizes],
            "plan: second start of a finished sweep": [_second_start(sizes[0], Path(scratch))],
        }


def overrides(count: int, results: str) -> list[str]:
    """The command line of a sweep of `count` cells (a multiple of 100)."""
    ns = "n_per_class=10,25,50,75,100"
    return ["layers=4,5,6,7", ns, "split=0,1,2,3,4", f"seed={','.join(map(str, range(count // 100)))}", results]


def cells(count: int, results: str) -> list[list[str]]:
    """The cells of that command line."""
    grid = [(layers, n, split) for layers in (4, 5, 6, 7) for n in (10, 25, 50, 75, 100) for split in range(5)]
    return [
        [f"layers={layers}", f"n_per_class={n}", f"split={split}", f"seed={seed}", results]
        for layers, n, split in grid
        for seed in range(count // 100)
    ]


def planned(count: int, results: str) -> list[Config]:
    """Their configurations, resolved."""
    compose = composer()
    return [resolved(compose(cell)) for cell in cells(count, results)]


def _planning(count: int, scratch: str) -> Row:
    results = f"results_dir={scratch}/none"
    begun = time.perf_counter()
    configs = planned(count, results)
    composed = time.perf_counter() - begun
    assert len(plan(configs).requested) == count
    whole = time.perf_counter() - begun
    compose, sample = composer(), cells(count, results)[:SAMPLE]
    begun = time.perf_counter()
    for cell in sample:
        compose.loader.load_sweep_config(compose.master, cell)
    by_hydra = len(sample) / (time.perf_counter() - begun)
    return {
        "cells": count,
        "cells/s": count / whole,
        "composed/s": count / composed,
        "composed/s by Hydra alone": by_hydra,
        "composing is faster by": round(count / composed / by_hydra, 1),
    }


def write_rows(configs: list[Config]) -> None:
    """Rows as finished runs leave them."""
    (files(configs[0]).row.parent).mkdir(parents=True, exist_ok=True)
    for number, config in enumerate(configs):
        row = {"run_id": files(config).id, "base_id": "0" * 16, **factors(config), **MEASURED, "val_top1": number / 1e6}
        files(config).row.write_text(json.dumps(row, indent=1))


def _second_start(count: int, scratch: Path) -> Row:
    results = f"results_dir={scratch / 'finished'}"
    write_rows(planned(count, results))
    begun = time.perf_counter()
    line = [sys.executable, "-m", "tlprotocols", "-m", *overrides(count, results)]
    ended = subprocess.run(line, cwd=scratch, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - begun
    assert f"{count:,} runs, {count:,} finished" in ended.stdout, ended.stdout[:500]
    return {"finished runs": count, "seconds until the table stands": seconds}
