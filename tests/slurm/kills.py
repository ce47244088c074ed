"""Kill what works on a sweep, again and again, until it is finished all the same: rows, curves and weights must equal
those of a sweep that nobody disturbed.

    python -m tests.slurm.kills --kills 30 [--seed 0]

on a cluster that SLURM_CONF names (`tests/slurm/cluster start`). tests/slurm/test_slurm.py has the short form.
"""

import argparse
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.command_line import SLURM, CommandLine, make_images
from tests.kills import SWEEP, compare

KINDS = ("command", "cancel", "requeue", "job", "worker", "base")


def processes(results: Path) -> Iterator[tuple[int, bool]]:
    """Processes of jobs that work for a results folder, and whether they are workers."""
    folder = os.fsencode(results / "slurm")
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (process / "cmdline").read_bytes().split(b"\0")
            if b"submitit.core._submit" in line and folder in line:
                yield int(process.name), False
                continue
            environment = (process / "environ").read_bytes().split(b"\0")
            if any(b"spawn_main" in word for word in line) and b"SUBMITIT_FOLDER=" + folder in environment:
                yield int(process.name), True


def kill(tlp: CommandLine, kind: str, command: int, chance: random.Random) -> bool:
    """Kill something of this kind; returns whether there was anything."""
    state = () if kind == "cancel" else ("--states=RUNNING",)
    listed = tlp.ask("squeue", "--noheader", "--array", "--format=%i|%k", *state).splitlines()
    jobs = [line.split("|")[0] for line in listed if line.endswith(f" in {tlp.results}")]
    pids = [pid for pid, is_worker in processes(tlp.results) if is_worker == (kind == "worker")]
    weights = list(tlp.results.glob("runs/*/weights.safetensors"))
    if kind == "command":
        os.kill(command, signal.SIGKILL)
    elif kind in ("cancel", "requeue") and jobs:
        tlp.ask(*(["scancel"] if kind == "cancel" else ["scontrol", "requeue"]), chance.choice(jobs))
    elif kind in ("worker", "job") and pids:
        with suppress(ProcessLookupError):
            os.kill(chance.choice(pids), signal.SIGKILL)
    elif kind == "base" and weights:
        chance.choice(weights).unlink(missing_ok=True)
    else:
        return False
    return True


def disturb(tlp: CommandLine, kills: int, seed: int = 0, apart: float = 3.0) -> list[str]:
    """Execute the sweep with so many kills, up to `apart` seconds after one another, and then to its end. Returns what
    was killed.

    Raises:
        AssertionError: it does not end, or a row, a curve or the weights differ from those of the local launcher.
    """
    chance, killed = random.Random(seed), list[str]()
    tlp(*SWEEP, "results_dir=undisturbed")
    while len(killed) < kills:
        process = tlp.start(*SLURM, "hydra.launcher.pack_minutes=0", *SWEEP, "hydra.launcher.retry_failed=true")
        while process.poll() is None and len(killed) < kills:
            time.sleep(chance.uniform(0.2, apart))
            kind = KINDS[len(killed) % len(KINDS)] if kills <= len(KINDS) else chance.choice(KINDS)
            if list(tlp.results.glob("runs/*/job.json")) and kill(tlp, kind, process.pid, chance):
                killed.append(kind)
        with suppress(Exception):
            process.communicate(timeout=1)
        if process.poll() is None and len(killed) >= kills:
            process.kill()
            process.communicate()
        if not (tlp.results / "rows").is_dir() or len(list((tlp.results / "rows").iterdir())) < 5:
            continue
        for row in chance.sample(
            sorted((tlp.results / "rows").iterdir()), 2
        ):  # all done: something is to be done again
            row.unlink()
    tlp.slurm(*SWEEP, "hydra.launcher.retry_failed=true", code=None)  # still sees jobs that the last kill has ended
    printed = tlp.slurm(*SWEEP, "hydra.launcher.retry_failed=true")
    compare(tlp.results, tlp.cwd / "undisturbed", printed)
    return killed


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--apart", type=float, default=20.0, help="most seconds between two kills: runs need some")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = make_images(Path(folder) / "images")
        begun = time.monotonic()
        killed = disturb(CommandLine(Path(folder), images, dict(os.environ)), given.kills, given.seed, given.apart)
        counts = ", ".join(f"{kind} {killed.count(kind)}" for kind in KINDS)
        print(f"{len(killed)} kills ({counts}) in {time.monotonic() - begun:.0f} s: all rows, curves and weights equal")


if __name__ == "__main__":
    main()
