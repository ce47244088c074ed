"""What is in a data set, before anything is trained: classes, counts, sizes, files that cannot be read, duplicates.

python -m tlprotocols.images photos
python -m tlprotocols.images dataset=tiny_imagenet dataset.root=PATH

The first is short for dataset=folder dataset.root=photos. Exit status 1: some file cannot be read, or an image is in
two parts or in two classes.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from PIL import Image
from PIL.ExifTags import Base

from tlprotocols.config.compose import load
from tlprotocols.config.schema import Config
from tlprotocols.errors import BadImages, ConfigError, until_pipe_closes
from tlprotocols.images.digests import READERS, read_file
from tlprotocols.images.folders import SUFFIXES, UNREADABLE, ImageFiles, by_type, is_of_other_type, read_picture

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
    rotated: bool = False  # an EXIF orientation says that it is to be shown otherwise than it is stored


def examined(part: str, label: int, path: str) -> File:
    """A file, read and decoded as a sweep does it."""
    digest = ""
    try:
        data = read_file(path)
        digest = hashlib.sha256(data).hexdigest()
        picture = read_picture(path, data)
    except BadImages as error:
        return File(part, label, path, digest, None, error.files[path])
    return File(part, label, path, digest, picture.size, rotated=_is_rotated(picture))


def _is_rotated(picture: Image.Image) -> bool:
    try:
        return picture.getexif().get(Base.Orientation, 1) in range(2, 9)
    except UNREADABLE:  # damaged EXIF, of a picture that is whole
        return False


def report(found: ImageFiles) -> tuple[list[str], bool]:
    """Lines about a data set, and whether it is as it should be."""
    places = [(part, n, path) for part, files in found.files.items() for n, paths in enumerate(files) for path in paths]
    with ThreadPoolExecutor(READERS) as pool:
        files = list(pool.map(lambda place: examined(*place), places))
    broken = [file for file in files if file.size is None]
    twins = list(_twins(files))
    lines = [f"{len(found.classes)} classes, {len(files)} images in {found.root}", *_counts(found), *_sizes(files)]
    lines += [*_rotated(files), *_left_out(found)]
    lines.append(f"cannot be read (dataset.on_bad_image=skip leaves them out): {len(broken)}")
    lines += [f"  {file.path} ({file.error})" for file in broken]
    for what, key in (("the same image in two parts", "part"), ("the same image in two classes", "label")):
        lines += _listed(what, [pair for pair in twins if getattr(pair[0], key) != getattr(pair[1], key)])
    inside = [(a, b) for a, b in twins if (a.part, a.label) == (b.part, b.label)]
    for part in found.files:
        what = f"the same image twice in one class of {part}"
        if part == "train":
            what += " (with fold=, test_per_class or recommend one may be trained on and the other measured on)"
        lines += _listed(what, [pair for pair in inside if pair[0].part == part])
    return lines, not (broken or len(inside) < len(twins))


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


def _listed(what: str, pairs: list[tuple[File, File]]) -> list[str]:
    more = [f"  and {len(pairs) - LISTED} more"] if len(pairs) > LISTED else []
    return [f"{what}: {len(pairs)}", *(f"  {a.path} = {b.path}" for a, b in pairs[:LISTED]), *more]


def _rotated(files: list[File]) -> list[str]:
    rotated = [file.path for file in files if file.rotated]
    if not rotated:
        return []
    return [
        f"stored rotated (EXIF orientation), and trained on as stored: {len(rotated)}, the first being {rotated[0]};"
        " ImageMagick's mogrify -auto-orient turns them"
    ]


def _left_out(found: ImageFiles) -> list[str]:
    """A line on the images under the root that are in no class, or of types that are not read, if there are any."""
    folders = {os.path.realpath(os.path.dirname(path)) for part in found.files.values() for n in part for path in n}
    walked, unread, astray = set[str](), list[str](), list[str]()
    for where, below, names in os.walk(found.root, followlinks=True):
        real = os.path.realpath(where)
        if real in walked:  # by way of a link, which may lead round in a circle
            below.clear()
            continue
        walked.add(real)
        types = [os.path.splitext(name)[1].lower() for name in names]
        unread += [name for name in names if is_of_other_type(name)]
        if real not in folders:
            astray += [
                os.path.join(where, name) for name, suffix in zip(names, types, strict=True) if suffix in SUFFIXES
            ]
    parts = []
    if unread:
        parts.append(f"{by_type(unread)} (convert them to .jpg or .png)")
    if astray:
        parts.append(f"{len(astray)} in no folder of a class, the first being {min(astray)}")
    return [f"left out: {'; '.join(parts)}"] if parts else []


def main() -> None:
    """Print the report of the data set on the command line."""
    until_pipe_closes(_main)


def _main() -> None:
    given = sys.argv[1:]
    if not given or given[0] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0 if given else 2)
    path = given.pop(0) if "=" not in given[0] or os.path.exists(given[0]) else None
    try:
        config = load(*given) if path is None else _of_folder(path, given)
        if config.dataset.name not in ("folder", "imagenet", "tiny_imagenet"):
            raise ConfigError("dataset", config.dataset.name, "must be folder, imagenet or tiny_imagenet: files")
        lines, good = report(ImageFiles(config.dataset, Path(config.machine.image_cache).expanduser()))
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print("\n".join(lines))
    sys.exit(0 if good else 1)


def _of_folder(path: str, overrides: list[str]) -> Config:
    """The configuration with a path, which need not be quoted as in an override: names hold brackets and commas."""
    config = load("dataset=folder", *overrides)
    root = os.path.abspath(path) if os.path.exists(path) else path
    return replace(config, dataset=replace(config.dataset, root=root))


if __name__ == "__main__":
    until_pipe_closes(main)
