"""What is in a data set, before anything is trained: classes, counts, sizes, files that cannot be read, duplicates.

python -m tlprotocols.images photos
python -m tlprotocols.images dataset=tiny_imagenet dataset.root=PATH

The first is short for dataset=folder dataset.root=photos. Exit status 1: some file cannot be read, or an image is in
two parts or in two classes.
"""

import hashlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import median

from PIL import Image

from tlprotocols.config.compose import load
from tlprotocols.errors import ConfigError, until_pipe_closes
from tlprotocols.images.digests import READERS
from tlprotocols.images.folders import UNREADABLE, ImageFiles, why_unreadable

LISTED = 10  # pairs of each kind of duplicates
UNEQUAL = 2  # the largest class over the smallest one, from which weights of classes are proposed


@dataclass(frozen=True)
class File:
    """One image file of a data set."""

    part: str
    label: int
    path: str
    digest: str  # of its bytes
    size: tuple[int, int] | None  # width and height; None: it cannot be read
    error: str = ""


def examined(part: str, label: int, path: str) -> File:
    """A file, read and decoded."""
    digest = ""
    try:
        with open(path, "rb") as opened:
            data = opened.read()
        digest = hashlib.sha256(data).hexdigest()
        with Image.open(BytesIO(data)) as picture:
            picture.load()
            return File(part, label, path, digest, picture.size)
    except UNREADABLE as error:
        return File(part, label, path, digest, None, why_unreadable(error))


def report(found: ImageFiles) -> tuple[list[str], bool]:
    """Lines about a data set, and whether it is as it should be."""
    places = [(part, n, path) for part, files in found.files.items() for n, paths in enumerate(files) for path in paths]
    with ThreadPoolExecutor(READERS) as pool:
        files = list(pool.map(lambda place: examined(*place), places))
    broken = [file for file in files if file.size is None]
    twins = list(_twins(files))
    lines = [f"{len(found.classes)} classes, {len(files)} images in {found.root}", *_counts(found), *_sizes(files)]
    lines.append(f"cannot be read (dataset.on_bad_image=skip leaves them out): {len(broken)}")
    lines += [f"  {file.path} ({file.error})" for file in broken]
    for what, key in (("the same image in two parts", "part"), ("the same image in two classes", "label")):
        pairs = [f"{a.path} = {b.path}" for a, b in twins if getattr(a, key) != getattr(b, key)]
        lines += _listed(what, pairs)
    lines += [f"the same image twice elsewhere: {sum((a.part, a.label) == (b.part, b.label) for a, b in twins)}"]
    wrong = any((a.part, a.label) != (b.part, b.label) for a, b in twins)
    return lines, not (broken or wrong)


def _counts(found: ImageFiles) -> list[str]:
    lines = []
    for part, counts in found.counts.items():
        few, many = min(counts), max(counts)
        names = [found.classes[counts.index(count)] for count in (few, many)]
        each = f"{few} a class" if few == many else f"{few} to {many} a class ({names[0]} to {names[1]})"
        lines.append(f"{part:6}{sum(counts)} images, {each}")
    few, many = min(found.counts["train"]), max(found.counts["train"])
    if many >= UNEQUAL * few:
        lines.append(
            f"classes are unequal by {many / few:.1f}: with n_per_class=full try class_weights=balanced, and read the"
            " columns val_balanced_top1 and test_balanced_top1"
        )
    return lines


def _sizes(files: list[File]) -> list[str]:
    sides = sorted(min(file.size) for file in files if file.size)
    if not sides:
        return []
    return [f"shorter sides from {sides[0]} to {sides[-1]} pixels, median {median(sides):g}"]


def _twins(files: list[File]) -> Iterator[tuple[File, File]]:
    """Pairs of files of equal content: each with the first of its kind."""
    first: dict[str, File] = {}
    for file in files:
        if file.digest and first.setdefault(file.digest, file) is not file:
            yield first[file.digest], file


def _listed(what: str, found: list[str]) -> list[str]:
    more = [f"  and {len(found) - LISTED} more"] if len(found) > LISTED else []
    return [f"{what}: {len(found)}", *(f"  {line}" for line in found[:LISTED]), *more]


def main() -> None:
    """Print the report of the data set on the command line."""
    until_pipe_closes(_main)


def _main() -> None:
    given = sys.argv[1:]
    if not given or given[0] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0 if given else 2)
    if "=" not in given[0]:
        given = ["dataset=folder", f"dataset.root={given[0]}", *given[1:]]
    try:
        config = load(*given)
        if config.dataset.name not in ("folder", "imagenet", "tiny_imagenet"):
            raise ConfigError("dataset", config.dataset.name, "must be folder, imagenet or tiny_imagenet: files")
        lines, good = report(ImageFiles(config.dataset, Path(config.machine.image_cache).expanduser()))
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print("\n".join(lines))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    until_pipe_closes(main)
