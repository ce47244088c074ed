"""Kill the workers and the launcher of a sweep on this machine at random moments, and give the same command again until
it ends by itself; execute one sweep by many commands at once. Rows, curves and weights must equal those of a sweep that
nobody disturbed.

    python -m tests.kills --kills 100 --launchers 20 [--seed 0]

tests/test_kills.py has the short form; tests/slurm/kills.py does the same on a cluster.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tests.command_line import CommandLine, make_images
from tlprotocols.results import load

ABOUT_THE_MACHINE = [
    "seconds",
    "images_per_second",
    "peak_memory_mb",
    "date",
    "host",
    "log",
    "command",
    "job",
    "commit",
]
SWEEP = ("layers=4,5", "n_per_class=5,10", "epochs=30", "base.epochs=30", "curve=true", "machine.checkpoint_minutes=0")
LIMIT = 600  # seconds in which a command must end that nobody disturbs, on a machine with other work


def children(launcher: int) -> list[int]:
    """The processes that a command has started: workers, and those that decode images."""
    found = []
    for listed in Path(f"/proc/{launcher}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in listed.read_text().split()]
    return [child for child in found if b"spawn_main" in _line(child)]


def _line(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


def undisturbed(tlp: CommandLine, *sweep: str) -> Path:
    """The results folder of the sweep, executed once."""
    tlp(*sweep, "results_dir=undisturbed")
    return tlp.cwd / "undisturbed"


def disturb(
    tlp: CommandLine, sweep: tuple[str, ...], expected: Path, kills: int, chance: random.Random
) -> tuple[Counter, int]:
    """Execute sweeps, nothing decoded before, while so many processes are killed. Returns how many of each kind,
    and how many sweeps that took.

    Raises:
        AssertionError: a command that nobody disturbed has no success, or what a sweep leaves differs from `expected`.
    """
    killed, sweeps = Counter[str](), 0
    while killed.total() < kills:
        for folder in (tlp.results, tlp.image_cache):
            shutil.rmtree(folder, ignore_errors=True)
        printed, sweeps = None, sweeps + 1
        while printed is None:
            printed = command(tlp, sweep, kills, killed, chance)
        compare(tlp.results, expected, printed)
    return killed, sweeps


def command(tlp: CommandLine, sweep: tuple[str, ...], kills: int, killed: Counter, chance: random.Random) -> str | None:
    """One command, some of whose processes are killed. Returns what it printed if it ended well."""
    before = killed.total()
    process = tlp.start(*sweep)
    while killed.total() < kills and process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.2, 8))
            break
        workers = children(process.pid)
        kind = chance.choice(["launcher", "worker"]) if workers else "launcher"
        with suppress(ProcessLookupError):
            os.kill(chance.choice(workers) if kind == "worker" else process.pid, signal.SIGKILL)
            killed[kind] += 1
    printed = str(process.communicate(timeout=LIMIT)[0])
    assert process.returncode == 0 or killed.total() > before, printed
    assert process.returncode in (0, 1, -signal.SIGKILL), printed
    return printed if process.returncode == 0 else None


def together(tlp: CommandLine, sweep: tuple[str, ...], expected: Path, launchers: int, chance: random.Random) -> None:
    """Execute a sweep by so many commands at once, in one results folder.

    Raises:
        AssertionError: a command fails, a run was trained twice, or what they leave differs from `expected`.
    """
    processes = []
    try:
        for _ in range(launchers):
            processes.append(tlp.start(*sweep, "hydra.launcher.workers=1", "results_dir=together"))
            time.sleep(chance.uniform(0, 0.5))  # some plan while others work
        printed = [process.communicate(timeout=LIMIT * launchers)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    failed = [text for text, process in zip(printed, processes, strict=True) if process.returncode]
    assert not failed, f"{len(failed)} commands fail: {failed[0]}"
    compare(tlp.cwd / "together", expected, printed[0])
    begun = {log: log.read_text().count(" begins: ") for log in (tlp.cwd / "together").glob("runs/*/log.txt")}
    assert set(begun.values()) == {1}, begun


def compare(found: Path, expected: Path, printed: str) -> None:
    """Rows, curves and weights of two results folders are equal bit for bit."""
    ours, theirs = load(found, bases=True), load(expected, bases=True)
    differ = [c for c in theirs if c not in ABOUT_THE_MACHINE and not (c in ours and ours[c].equals(theirs[c]))]
    assert not differ, f"{differ} differ: {printed}"
    for pattern in ("runs/*/curve.csv", "runs/*/weights.safetensors"):
        files = sorted(path.relative_to(expected) for path in expected.glob(pattern))
        assert files
        for file in files:
            assert (found / file).read_bytes() == (expected / file).read_bytes(), file


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--launchers", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance, begun = random.Random(given.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tlp = CommandLine(Path(folder), make_images(Path(folder) / "images"), dict(os.environ))
        expected = undisturbed(tlp, *SWEEP)
        killed, sweeps = disturb(tlp, SWEEP, expected, given.kills, chance)
        counts = ", ".join(f"{kind} {count}" for kind, count in sorted(killed.items()))
        took = f"{sweeps} sweeps, {time.monotonic() - begun:.0f} s"
        print(f"{killed.total()} kills ({counts}) in {took}: all rows, curves and weights equal", flush=True)
        together(tlp, SWEEP, expected, given.launchers, chance)
        print(f"{given.launchers} commands at once: each ended well, no run was trained twice, all equal")


if __name__ == "__main__":
    main()
