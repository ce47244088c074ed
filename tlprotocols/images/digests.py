"""A digest of the content of every class of an image folder: what tells changed images apart.

Reading the content of a million files takes minutes, so digests are kept in the folder of the image cache. There a
class is known by the names, sizes and times of its files; a class of which any of these changed is read again.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tlprotocols.errors import BadImages, ConfigError
from tlprotocols.records import read_json, write_atomic

READERS = 8  # threads: reading waits for the disk, hashing lets other threads run
KEPT_AFTER = 1000  # classes of which a kill can cost the reading


class Digests:
    """The digests of all classes under one root, by part and class name."""

    def __init__(self, root: Path, files: Mapping[str, Sequence[str]], folder: Path) -> None:
        """`files` are the files of each class, in their order; `folder` is where digests are kept."""
        self.files = files
        self.kept = folder / "digests" / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.json"
        self.looks = {name: look(found) for name, found in files.items()}
        kept = _read(self.kept)
        self.known = {
            name: kept[name][1] for name, look in self.looks.items() if name in kept and kept[name][0] == look
        }

    @property
    def unread(self) -> list[str]:
        """Classes that were never read, or that changed since."""
        return [name for name in self.files if name not in self.known]

    def read(self, advance: Callable[[int], None] = lambda images: None) -> dict[str, str]:
        """The digest of every class. `advance` receives the number of images of each class that had to be read."""
        unread = self.unread
        with ThreadPoolExecutor(READERS) as pool:
            for number, (name, digest) in enumerate(
                zip(unread, pool.map(lambda name: content(self.files[name]), unread), strict=True), 1
            ):
                self.known[name] = digest
                advance(len(self.files[name]))
                if number % KEPT_AFTER == 0 or number == len(unread):
                    self._keep()
        return {name: self.known[name] for name in self.files}

    def _keep(self) -> None:
        with suppress(OSError):  # a folder that is read-only here: the next process reads the images again
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            classes = {name: [self.looks[name], digest] for name, digest in self.known.items()}
            write_atomic(self.kept, json.dumps({"digest": digest_of(classes), "classes": classes}))


def content(files: Sequence[str]) -> str:
    """The digest of some files: of their names, sizes and bytes, in this order."""
    digest = Content()
    for file in files:
        digest.add(file, read_file(file))
    return digest.hex()


def read_file(file: str | Path) -> bytes:
    """The bytes of an image file. Raises ConfigError naming it if it cannot be read."""
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except OSError as error:
        raise _unreadable(file, error.strerror) from error


def _unreadable(file: str | Path, why: str | None) -> ConfigError:
    return BadImages({str(file): str(why)})


class Content:
    """The digest of a class while its files are read one by one: a decoder computes it from the bytes it decodes."""

    def __init__(self) -> None:
        self.sha = hashlib.sha256()

    def add(self, file: str, data: bytes) -> None:
        """Add a file and its bytes."""
        self.sha.update(f"{os.path.basename(file)}\0{len(data)}\0".encode("utf-8", "surrogateescape"))
        self.sha.update(data)

    def hex(self) -> str:
        """The digest of all files added so far."""
        return self.sha.hexdigest()


def look(files: Sequence[str]) -> str:
    """What can be known of some files without reading them. The change time is the file system's own: no program that
    unpacks an archive sets it."""
    sha = hashlib.sha256()
    for file in files:
        try:
            about = os.stat(file)
        except OSError as error:  # a link to nowhere
            raise _unreadable(file, error.strerror) from error
        if not stat.S_ISREG(about.st_mode):  # reading a pipe would wait for ever
            raise _unreadable(file, "it is no regular file")
        sha.update(
            f"{file}\0{about.st_ino}\0{about.st_size}\0{about.st_mtime_ns}\0{about.st_ctime_ns}\n".encode(
                "utf-8", "surrogateescape"
            )
        )
    return sha.hexdigest()


def _read(kept: Path) -> dict[str, list[str]]:
    try:
        found = read_json(kept)
        classes: dict[str, list[str]] = found["classes"]
        whole = found["digest"] == digest_of(classes)
    except (OSError, ValueError, KeyError, TypeError):  # none, or damaged: the images are read again
        return {}
    return classes if whole else {}


def digest_of(classes: Mapping[str, Sequence[str]]) -> str:
    """Of what is kept in a file, to know it again."""
    return hashlib.sha256(json.dumps(classes, sort_keys=True).encode()).hexdigest()
