"""dataset.on_bad_image=skip: which files of an image folder can be decoded.

Every file is decoded once, when the images are listed; what was found is kept beside the digests of the image cache,
and holds while names, sizes and times of the files are unchanged. A folder without its bad files has the same
fingerprint as one that never had them.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tlprotocols.images.digests import READERS, digest_of, look
from tlprotocols.records import read_json, write_atomic

NAMED = 3  # of the files that are left out; python -m tlprotocols.images names all

log = logging.getLogger(__name__)


class Readable:
    """Leaves out the files that cannot be decoded."""

    def __init__(self, root: Path, image_cache: Path, is_bad: Callable[[str], bool]) -> None:
        self.kept = image_cache / "digests" / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.unreadable.json"
        self.is_bad = is_bad
        self.found: dict[str, list[str]] = {}  # names of bad files, by the look of their class
        with suppress(OSError, ValueError, KeyError, TypeError):  # none yet, or damaged: the files are decoded again
            kept = read_json(self.kept)
            self.found = kept["found"] if kept["digest"] == digest_of(kept["found"]) else {}

    def __call__(self, files: Sequence[str]) -> list[str]:
        """The files, without the bad ones, of which a warning names the first."""
        there = [file for file in files if os.path.isfile(file)]  # no link to nowhere
        key = look(there)
        if key not in self.found:
            with ThreadPoolExecutor(READERS) as pool:
                bad = [file for file, is_bad in zip(there, pool.map(self.is_bad, there), strict=True) if is_bad]
            self.found[key] = bad
            with suppress(OSError):  # a folder that is read-only here: the next process decodes the files again
                self.kept.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(self.kept, json.dumps({"digest": digest_of(self.found), "found": self.found}))
        skipped = [*self.found[key], *(file for file in files if file not in set(there))]
        if skipped:
            more = f" and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
            log.warning("dataset.on_bad_image=skip: left out %s%s", ", ".join(skipped[:NAMED]), more)
        return [file for file in files if file not in set(skipped)]
