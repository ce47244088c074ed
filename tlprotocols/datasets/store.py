"""The store: every image decoded once into one uint8 file per part, mapped into memory and shared by all processes.

A folder per data set, side and fingerprint holds `train.u8` and `val.u8`, rows (side, side, 3) class after class in
file order, and `done.json`, the classes decoded so far. The files are sparse: classes that no run needs take no room.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from filelock import FileLock

from tlprotocols.datasets import Reader, Source, source
from tlprotocols.results import write_aside
from tlprotocols.schema import Config, Dataset
from tlprotocols.splits import target_classes

LAYOUT = 1  # raise it when the same fingerprint would be stored in other bytes
KEPT_AFTER = 60.0  # seconds of decoding that a kill or a power cut can cost
Job = tuple[str, int]  # part and label


@dataclass(frozen=True)
class Store:
    """The decoded images of one data set at one side."""

    dataset: Dataset
    folder: Path

    @staticmethod
    def of(config: Config) -> "Store":
        """The store a run reads from; its folder need not exist yet."""
        dataset = config.dataset
        name = f"{dataset.name}-{dataset.side}px-{source(dataset).fingerprint[:16]}-{LAYOUT}"
        return Store(dataset, Path(config.machine.store).expanduser() / name)

    @cached_property
    def source(self) -> Source:
        """Classes, counts and undecoded images."""
        return source(self.dataset)

    def offsets(self, part: str) -> np.ndarray:
        """Row at which each class begins, and the total: (classes + 1,)."""
        return np.concatenate([[0], np.cumsum(self.source.counts[part])])

    def rows(self, part: str, mode: str = "c") -> np.ndarray:
        """All images of a part, uint8 (count, side, side, 3), mapped: nothing is read before it is used."""
        shape = (int(self.offsets(part)[-1]), self.dataset.side, self.dataset.side, 3)
        return np.memmap(self.folder / f"{part}.u8", np.uint8, mode, shape=shape)  # type: ignore[call-overload,no-any-return]

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        """Those classes that are not decoded yet."""
        done = self._done()
        return sorted(job for job in set(jobs) if job not in done)

    def ensure(self, jobs: Iterable[Job], workers: int, advance: Callable[[int], None] = lambda images: None) -> None:
        """Decode what is missing, in `workers` processes; a second process that wants the same waits for the first.

        `advance` hears how many images became ready. Raises ConfigError naming an image that cannot be read.
        """
        jobs = set(jobs)
        if not self.missing(jobs):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            todo = self.missing(jobs)
            advance(sum(self.source.counts[part][label] for part, label in jobs - set(todo)))
            self._reserve()
            done, kept = self._done(), time.monotonic()
            try:
                for part, label in self._decoded(todo, workers):
                    done.add((part, label))
                    advance(self.source.counts[part][label])
                    if time.monotonic() - kept >= KEPT_AFTER:
                        self._keep(done)
                        kept = time.monotonic()
            finally:
                self._keep(done)

    def _decoded(self, todo: list[Job], workers: int) -> Iterator[Job]:
        """Each class after it is decoded; by this very process if one will do: that of a run may start no other."""
        if workers == 1:
            for job in todo:
                decode(*self._task(*job))
                yield job
            return
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            waiting = {pool.submit(decode, *self._task(*job)): job for job in todo}
            try:
                for future in as_completed(waiting):
                    future.result()
                    yield waiting[future]
            finally:
                pool.shutdown(cancel_futures=True)

    def _done(self) -> set[Job]:
        file = self.folder / "done.json"
        return {(part, label) for part, label in json.loads(file.read_text())} if file.exists() else set()

    def _task(self, part: str, label: int) -> tuple[Reader, int, Path, int]:
        first, side = int(self.offsets(part)[label]), self.dataset.side
        return self.source.reader(part, label), side, self.folder / f"{part}.u8", first * side**2 * 3

    def _reserve(self) -> None:
        for part in self.source.counts:
            size = int(self.offsets(part)[-1]) * self.dataset.side**2 * 3
            with open(self.folder / f"{part}.u8", "ab") as file:
                os.truncate(file.fileno(), size)

    def _keep(self, done: set[Job]) -> None:
        """Wait until the disk has everything, and then let `done.json` say so."""
        for part in self.source.counts:
            with open(self.folder / f"{part}.u8", "r+b") as file:
                os.fsync(file.fileno())
        write_aside(self.folder / "done.json", json.dumps(sorted(done)))


def decode(read: Reader, side: int, into: Path, place: int) -> None:
    """One class, written at its place in bytes; mostly in a process of its own."""
    images = read(side)
    with open(into, "r+b") as file:
        file.seek(place)
        images.tofile(file)


def images_needed(config: Config) -> set[Job]:
    """Classes, by part, that must be in the store before the run starts: those it learns."""
    labels = target_classes(config, source(config.dataset).classes)
    return {(part, label) for part in ("train", "val") for label in labels}
