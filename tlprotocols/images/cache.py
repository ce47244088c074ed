"""The image cache: every image decoded once into one uint8 file per part, mapped into memory, shared by all processes.

A folder per data set, side and fingerprint holds, for each part, `train.u8`, rows (side, side, 3) class after class in
file order, and `train.crc32`, a checksum per image. `done.json` has all classes with their counts, so that a worker
lists no original images, and which of them are decoded. The files are sparse: classes that no run needs take no room.
"""

import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from tlprotocols.config.schema import Config, Dataset
from tlprotocols.errors import BadImages, ConfigError
from tlprotocols.images import Decoder, Source, source
from tlprotocols.images.splits import probed_classes, target_classes
from tlprotocols.processes import end_with_parent
from tlprotocols.records import read_json, without_waiting, write_atomic

LAYOUT = 2  # raise it when the same fingerprint would be stored in other bytes
KEPT_AFTER = 60.0  # seconds of decoding that a kill or a power cut can cost
Job = tuple[str, int]  # part and label
Image = tuple[str, int, int]  # part, label, and place within the class
Content = tuple[int, bytes]  # checksum and SHA-256 of an image
CHECKSUM = np.dtype("<u4")
FOLDER = re.compile(r"\w+-\d+px(-\w+)?-[0-9a-f]{16}-\d+")  # what `ImageCache.of` calls one, of any layout
FILES = re.compile(r"(train|val|test)\.(u8|crc32)|(done|index)\.json|\.(done|index)\.json\..+|lock")  # and its files


@dataclass(frozen=True)
class ImageCache:
    """The decoded images of one data set at one side."""

    dataset: Dataset
    folder: Path

    @staticmethod
    def of(config: Config) -> "ImageCache":
        """The cache that a run reads from; its folder need not exist yet."""
        dataset, folder = config.dataset, Path(config.machine.image_cache).expanduser()
        fingerprint = dataset.fingerprint or source(dataset, folder).fingerprint[:16]
        size = f"{dataset.side}px" + ("" if dataset.resize == "centre" else f"-{dataset.resize}")
        return ImageCache(dataset, folder / f"{dataset.name}-{size}-{fingerprint}-{LAYOUT}")

    @cached_property
    def source(self) -> Source:
        """Classes, counts and undecoded images.

        Raises:
            ConfigError: the images are not those of the configuration's fingerprint any more.
        """
        found = source(self.dataset, self.folder.parent)
        if self.dataset.fingerprint not in ("", found.fingerprint[:16]):
            raise ConfigError(
                "dataset.root",
                self.dataset.root,
                "its images changed after the sweep was planned; run the same command again",
            )
        return found

    @cached_property
    def index(self) -> dict[str, Any]:
        """`classes`, a list, and `counts`, images by part and label: of the folder, or else of the source."""
        return self._read_done()[0] or _index_of(self.source)

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, by label."""
        return self.index["classes"]  # type: ignore[no-any-return]

    def counts(self, part: str) -> Sequence[int]:
        """Images of a part, by label."""
        return self.index["counts"][part]  # type: ignore[no-any-return]

    def offsets(self, part: str) -> np.ndarray:
        """Row at which each class begins, and the total: (classes + 1,)."""
        return np.concatenate([[0], np.cumsum(self.counts(part))])

    def bytes(self, jobs: Iterable[Job]) -> int:
        """What these classes take on the disk."""
        return sum(self.counts(part)[label] for part, label in jobs) * (self._image_bytes + CHECKSUM.itemsize)

    def checksums(self, jobs: Iterable[Job]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Rows (N,) of the images of these classes, by part, and their checksums (N,). All must be decoded."""
        rows = {part: self._rows_of(jobs, part) for part in sorted(self.index["counts"])}
        return {part: (found, np.fromfile(self._checksums(part), CHECKSUM)[found]) for part, found in rows.items()}

    def by_content(self, jobs: Iterable[Job], sums: np.ndarray) -> dict[Content, list[Image]]:
        """The images of these classes that have one of some checksums, by what they show, pixel by pixel."""
        found: dict[Content, list[Image]] = {}
        for part, (rows, own) in self.checksums(jobs).items():
            images, offsets, which = self.rows(part, "r"), self.offsets(part), np.isin(own, sums)
            for row, checksum in zip(rows[which].tolist(), own[which].tolist(), strict=True):
                label = int(np.searchsorted(offsets, row, side="right")) - 1
                content = hashlib.sha256(images[row]).digest()
                found.setdefault((checksum, content), []).append((part, label, row - int(offsets[label])))
        return found

    def _rows_of(self, jobs: Iterable[Job], part: str) -> np.ndarray:
        offsets = self.offsets(part)
        return np.concatenate(
            [np.arange(0), *(np.arange(*offsets[label : label + 2]) for where, label in sorted(jobs) if where == part)]
        )

    def rows(self, part: str, mode: str = "c") -> np.ndarray:
        """All images of a part, uint8 (count, side, side, 3), mapped: nothing is read before it is used."""
        shape = (int(self.offsets(part)[-1]), self.dataset.side, self.dataset.side, 3)
        return np.memmap(self.folder / f"{part}.u8", np.uint8, mode, shape=shape)  # type: ignore[call-overload,no-any-return]

    def verify(self, part: str, rows: np.ndarray) -> list[str]:
        """Compare these images (N,) with their checksums, and decode their classes again where they differ: on a disk
        that was purged, or that failed. Returns the names of the classes that were decoded again.

        Raises:
            OSError: the images cannot be decoded again, or the disk does not give back what is written to it.
        """
        damaged = self._damaged(part, rows)
        names = [self.classes[label] for label in damaged]
        if damaged:
            try:
                self._decode_again({(part, label) for label in damaged})
            except OSError as error:
                text = f"{self.folder}: images of {', '.join(names)} are damaged and cannot be decoded again ({error})"
                raise OSError(text) from error
            if self._damaged(part, rows):
                raise OSError(f"{self.folder / part}.u8: this disk does not give back what was written to it")
        return names

    def _damaged(self, part: str, rows: np.ndarray) -> list[int]:
        """Labels of the classes some of whose images, among these, differ from their checksums."""
        if not len(rows):
            return []
        images, kept = self.rows(part, "r"), np.fromfile(self._checksums(part), CHECKSUM)
        differ = [row for row in rows.tolist() if zlib.crc32(images[row]) != kept[row]]
        labels = np.searchsorted(self.offsets(part), differ, side="right") - 1
        return [int(label) for label in np.unique(labels)]

    def _decode_again(self, jobs: set[Job]) -> None:
        with FileLock(self.folder / "lock"):
            self._keep(self._done() - jobs)
        self.ensure(jobs, workers=1)

    def _checksums(self, part: str) -> Path:
        return self.folder / f"{part}.crc32"

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
            self.__dict__["index"] = _index_of(self.source)
            todo, done = self.missing(jobs), self._done()  # as the files are now: reserving gives a short one its size
            advance(sum(self.counts(part)[label] for part, label in jobs - set(todo)))
            self._reserve()
            kept = time.monotonic()
            try:
                for part, label in self._decoded(todo, workers):
                    done.add((part, label))
                    advance(self.counts(part)[label])
                    if time.monotonic() - kept >= KEPT_AFTER:
                        self._keep(done)
                        kept = time.monotonic()
            finally:
                self._keep(done)

    def _decoded(self, todo: list[Job], workers: int) -> Iterator[Job]:
        """Each class after it is decoded; by this very process if one will do: that of a run may start no other."""
        bad: dict[str, str] = {}
        if workers == 1:
            for job in todo:
                try:
                    decode(*self._task(*job))
                    yield job
                except BadImages as error:  # the other classes, too, are to say which of their files are bad
                    bad |= error.files
            if bad:
                raise BadImages(bad)
            return
        with ProcessPoolExecutor(workers, get_context("spawn"), end_with_parent) as pool:
            waiting = {pool.submit(decode, *self._task(*job)): job for job in todo}
            try:
                for future in as_completed(waiting):
                    try:
                        future.result()
                    except BadImages as error:
                        bad |= error.files
                        continue
                    yield waiting[future]
            finally:
                pool.shutdown(cancel_futures=True)
        if bad:
            raise BadImages(dict(sorted(bad.items())))

    def _done(self) -> set[Job]:
        """Classes that are decoded: none if a file is gone, or shorter than it was."""
        index, done = self._read_done()
        if index != self.index:
            return set()
        try:
            whole = all(file.stat().st_size == size for file, size in self._sizes().items())
        except OSError:
            return set()
        return done if whole else set()

    def _read_done(self) -> tuple[dict[str, Any] | None, set[Job]]:
        """The index and the decoded classes, as done.json has them; (None, empty) if it is absent or damaged."""
        try:
            found = read_json(self.folder / "done.json")
            if found.pop("digest") != _digest(found):
                return None, set()
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            return None, set()
        return found["index"], {(part, label) for part, label in found["done"]}

    def _sizes(self) -> dict[Path, int]:
        """Bytes of every file of images and of checksums."""
        images = {part: int(self.offsets(part)[-1]) for part in self.index["counts"]}
        sizes = {self.folder / f"{part}.u8": count * self._image_bytes for part, count in images.items()}
        return sizes | {self._checksums(part): count * CHECKSUM.itemsize for part, count in images.items()}

    @property
    def _image_bytes(self) -> int:
        return self.dataset.side**2 * 3

    def _task(self, part: str, label: int) -> tuple[Decoder, int, Path, Path, int]:
        place = int(self.offsets(part)[label])
        return (
            self.source.decoder(part, label),
            self.dataset.side,
            self.folder / f"{part}.u8",
            self._checksums(part),
            place,
        )

    def _reserve(self) -> None:
        for file, size in self._sizes().items():
            with open(file, "ab", opener=without_waiting) as opened:
                os.truncate(opened.fileno(), size)

    def _keep(self, done: set[Job]) -> None:
        """Wait until the disk has everything, and then let `done.json` say so."""
        for written in self._sizes():
            with open(written, "r+b") as file:
                os.fsync(file.fileno())
        content = {"index": self.index, "done": sorted(map(list, done))}
        write_atomic(self.folder / "done.json", json.dumps(content | {"digest": _digest(content)}))


def caches_in(folder: Path) -> list[Path]:
    """The image caches in a folder, which may be anything that a user names; also those whose decoding was killed
    before there was a done.json. A folder in which something else lies is none of ours, whatever its name."""
    found = [path for path in folder.glob("*px-*") if FOLDER.fullmatch(path.name)]
    return sorted(path for path in found if path.is_dir() and not path.is_symlink() and _has_only_our_files(path))


def _has_only_our_files(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return all(FILES.fullmatch(entry.name) and entry.is_file(follow_symlinks=False) for entry in entries)
    except OSError:  # may not be read
        return False


def _index_of(listed: Source) -> dict[str, Any]:
    return {
        "classes": list(listed.classes),
        "counts": {part: list(counts) for part, counts in listed.counts.items()},
    }


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def decode(read: Decoder, side: int, images: Path, checksums: Path, place: int) -> None:
    """One class, written with its checksums at its place, in images; mostly in a process of its own."""
    decoded = read(side)
    sums = np.fromiter((zlib.crc32(image) for image in decoded), CHECKSUM, len(decoded))
    for path, content in ((images, decoded), (checksums, sums)):
        with open(path, "r+b") as file:
            file.seek(place * content[:1].nbytes)
            content.tofile(file)


def images_needed(config: Config) -> set[Job]:
    """Classes, by part, that must be in the cache before the run starts: those it learns, and is probed on."""
    cache = ImageCache.of(config)
    labels = [*target_classes(config, cache.classes), *(probed_classes(config, cache.classes) if config.probe else ())]
    return {(part, label) for part in cache.index["counts"] for label in labels}


def missing_images(configs: Iterable[Config]) -> dict[ImageCache, list[Job]]:
    """The classes that these runs need and that are not decoded yet, by cache: one for each folder, since runs whose
    data sets differ in what is computed after decoding, as in `dataset.pad`, share a folder."""
    caches: dict[Path, ImageCache] = {}
    needed: dict[Path, set[Job]] = {}
    for config in {(c.dataset, c.classes, c.split, c.target, c.probe): c for c in configs}.values():
        cache = ImageCache.of(config)
        caches.setdefault(cache.folder, cache)
        needed.setdefault(cache.folder, set()).update(images_needed(config))
    return {cache: found for folder, cache in caches.items() if (found := cache.missing(needed[folder]))}
