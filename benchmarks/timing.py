"""Two ways of doing the same thing, in turn, several times over: absolute times mean little on a shared machine."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

Times = dict[str, list[float]]


def alternating(ways: Mapping[str, Callable[[], object]], repetitions: int, warm: bool = True) -> Times:
    """Seconds of every way in every round; each round goes through all ways. `warm`: a first round does not count."""
    times: Times = {name: [] for name in ways}
    for number in range(repetitions + warm):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            if number or not warm:
                times[name].append(time.perf_counter() - begun)
    return times


def ratio(times: Times, slow: str, fast: str) -> float:
    """How many times longer one way took than the other: the median over the rounds."""
    return median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def machine() -> str:
    """What was measured on."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {len(os.sched_getaffinity(0))} cores{gpu}, torch {torch.__version__}"
