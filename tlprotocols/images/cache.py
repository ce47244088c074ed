"""The image cache: every image decoded once into one uint8 file per part, mapped into memory, shared by all processes.

A folder per data set, side and fingerprint holds, for each part, `train.u8`, rows (side, side, 3) class after class in
file order, and `train.crc32`, a checksum per image. `done.json` has all classes with their counts, so that a worker
lists no original images, and which of them are decoded. The files are sparse: classes that no run needs take no room.
"""

import hashlib
import json
import os
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

from tlprotocols.config.identity import base_of
from tlprotocols.config.schema import Config, Dataset
from tlprotocols.errors import BadImages, ConfigError
from tlprotocols.images import Decoder, Source, source
from tlprotocols.images.splits import chosen, part_of, probed_classes, target_classes
from tlprotocols.processes import end_with_parent
from tlprotocols.records import read_json, without_waiting, write_atomic

LAYOUT = 2  # raise it when the same fingerprint would be stored in other bytes
KEPT_AFTER = 60.0  # seconds of decoding that a kill or a power cut can cost
Job = tuple[str, int]  # part and label
Image = tuple[str, int, int]  # part, label, and place within the class
CHECKSUM = np.dtype("<u4")


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

    def alike(self, jobs: Iterable[Job]) -> list[list[Image]]:
        """Groups of images of these classes that are equal, pixel by pixel. All must be decoded."""
        rows = {part: self._rows_of(jobs, part) for part in sorted(self.index["counts"])}
        sums = {part: np.fromfile(self._checksums(part), CHECKSUM)[found] for part, found in rows.items()}
        values, counts = np.unique(np.concatenate(list(sums.values())), return_counts=True)
        groups: dict[tuple[int, bytes], list[Image]] = {}
        for part, found in rows.items():
            images, offsets = self.rows(part, "r"), self.offsets(part)
            which = np.isin(sums[part], values[counts > 1])
            for row, checksum in zip(found[which].tolist(), sums[part][which].tolist(), strict=True):
                label = int(np.searchsorted(offsets, row, side="right")) - 1
                content = hashlib.sha256(images[row]).digest()
                groups.setdefault((checksum, content), []).append((part, label, row - int(offsets[label])))
        return [group for group in groups.values() if len(group) > 1]

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
    """The classes that these runs need and that are not decoded yet, by cache."""
    return {cache: missing for cache, jobs in _needed(configs).items() if (missing := cache.missing(jobs))}


def repeated_images(configs: Iterable[Config]) -> list[str]:
    """A line for each data set of these runs, whose images are decoded, of which a run measures accuracy on an image
    that is equal to one that it, or its base, is trained on: what a network has learned by heart counts as recognized
    there. Published data sets have some, so that they are not refused."""
    configs = list({_uses(config): config for config in configs}.values())
    lines = []
    for cache, jobs in _needed(configs).items():
        groups, found = cache.alike(jobs), set[Image]()
        for config in (c for c in configs if ImageCache.of(c) == cache):
            found |= _learned_by_base(config, cache)
        among: dict[Job, list[int]] = {}
        for part, label, place in (image for group in groups for image in group):
            among.setdefault((part, label), []).append(place)
        for config in (c for c in configs if among and ImageCache.of(c) == cache):
            trained, measured = _trained_on(config, cache, among), _measured_on(config, cache, among)
            for group in groups:
                if trained.intersection(group):
                    found |= measured.intersection(group)
        if found:
            part, label, place = min(found)
            lines.append(
                f"note: {len(found)} {'images' if len(found) > 1 else 'image'} of {cache.dataset.name} that accuracy is"
                f" measured on {'are equal to images' if len(found) > 1 else 'is equal to one'} that the same run, or"
                f" its base, is trained on, the first being image {place + 1} of class {cache.classes[label]} in {part}"
            )
    return lines


def _uses(config: Config) -> tuple[object, ...]:
    """What decides which images a run is trained and measured on."""
    base = base_of(config)
    classes = (config.dataset, config.classes, config.split, config.target, config.probe)
    images = (config.n_per_class, config.test_per_class, config.fold, config.folds, config.subset)
    return *classes, *images, config.seed if config.subset == "random" else None, base and _uses(base)


def _learned_by_base(config: Config, cache: ImageCache) -> set[Image]:
    """Images that the accuracy of a run is measured on, and that its base is trained on: with test_per_class or a fold,
    both of which are cut from training images, where the base learns classes of the run."""
    base = base_of(config)
    if base is None or ImageCache.of(base).folder != cache.folder:
        return set()
    common = set(target_classes(config, cache.classes)) & set(target_classes(base, cache.classes))
    if not common:
        return set()
    every = {(part, label): None for part in cache.index["counts"] for label in common}
    return _trained_on(base, cache, every) & _measured_on(config, cache, every)


def _trained_on(config: Config, cache: ImageCache, among: Mapping[Job, Sequence[int] | None]) -> set[Image]:
    """Those of some images that the run, its probe, or its base is trained on."""
    found = _used(config, cache, "train", target_classes(config, cache.classes), among)
    if config.probe:
        found |= _used(config, cache, "train", probed_classes(config, cache.classes), among)
    base = base_of(config)
    if base is not None and ImageCache.of(base).folder == cache.folder:
        found |= _trained_on(base, cache, among)
    return found


def _measured_on(config: Config, cache: ImageCache, among: Mapping[Job, Sequence[int] | None]) -> set[Image]:
    """Those of some images that the accuracy of the run, or of its probe, is measured on."""
    labels = target_classes(config, cache.classes)
    found = _used(config, cache, "val", labels, among) | _used(config, cache, "test", labels, among)
    return found | (
        _used(config, cache, "val", probed_classes(config, cache.classes), among) if config.probe else set()
    )


def _used(
    config: Config, cache: ImageCache, part: str, labels: Sequence[int], among: Mapping[Job, Sequence[int] | None]
) -> set[Image]:
    """Those of some images, places by part and class (None: all of a class), that a run uses in one of its parts."""
    kept = str(part_of(config, part, cache.index["counts"]))
    found = set[Image]()
    for label in labels:
        if (places := among.get((kept, label), ())) == ():
            continue
        which = chosen(config, part, label, cache.counts(kept)[label])
        found |= {
            (kept, label, place) for place in (which if places is None else which[np.isin(which, places)]).tolist()
        }
    return found


def _needed(configs: Iterable[Config]) -> dict[ImageCache, set[Job]]:
    needed: dict[ImageCache, set[Job]] = {}
    for config in {(c.dataset, c.classes, c.split, c.target, c.probe): c for c in configs}.values():
        needed.setdefault(ImageCache.of(config), set()).update(images_needed(config))
    return needed
