"""Images in folders: ImageFolder trees, ILSVRC's train/ and val/, Tiny ImageNet's official layout."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from tlprotocols.config.schema import Dataset
from tlprotocols.errors import BadImages, ConfigError
from tlprotocols.images import Decoder, cut_validation
from tlprotocols.images.digests import Content, Digests, read_file
from tlprotocols.images.readable import Readable

Kept = Callable[[list[str]], list[str]]  # which of some files are used
SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}  # as torchvision reads them
OTHER_TYPES = {  # of images that are not read, as torchvision reads none of them
    *(".gif", ".heic", ".heif", ".avif", ".jfif", ".jpe", ".jp2", ".jxl", ".apng", ".svg", ".psd", ".tga", ".ico"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2"),
}
OTHERS = 100_000  # entries of a class that are no images: more are some other folder, such as a home

LONGEST = (
    1000  # times the shorter side: enlarged until that one has hundreds of pixels, the image would fill the memory
)
OURS = ("val", "test")
PARTS = (*OURS, "valid", "validation")  # of folders, in any case: others call them so

UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)  # what Pillow raises

ANNOTATIONS = "val_annotations.txt"  # of Tiny ImageNet
LAYOUTS = {
    "tiny_imagenet": "must be the unpacked tiny-imagenet folder, with train/WNID/images/*.JPEG, val/images/*.JPEG and"
    " val/val_annotations.txt (tiny-imagenet-200.zip of Stanford's CS231n course)",
    "imagenet": "must hold train/WNID/*.JPEG and val/WNID/*.JPEG, the ILSVRC2012 archives unpacked a folder per class"
    " (image-net.org, registration needed)",
    "folder": "must hold train/CLASS/image files and val/CLASS/image files (or test/, or both), or CLASS/image files"
    " alone",
}


class ImageFiles:
    """The source of the store for images in files, a class per folder, in torchvision's order of names."""

    def __init__(self, dataset: Dataset, image_cache: Path) -> None:
        """List the files; `image_cache` keeps the digests of their content.

        Raises:
            ConfigError: the root is not laid out as the data set needs.
        """
        try:
            self._list(dataset, image_cache)
        except OSError as error:
            legal = f"cannot be read ({error.strerror}); let this user read it, or give another folder"
            raise ConfigError("dataset.root", error.filename or dataset.root, legal) from error

    def _list(self, dataset: Dataset, image_cache: Path) -> None:
        self.root, self.resize = _root(dataset), dataset.resize
        finders = {"tiny_imagenet": _tiny_imagenet, "imagenet": _two_trees, "folder": _any_tree}
        self.files: dict[str, list[list[str]]]
        skipping = dataset.on_bad_image == "skip"
        kept = Readable(self.root, image_cache, is_bad) if skipping else list[str]
        self.classes, self.files = finders[dataset.name](self.root, dataset, kept)
        if dataset.val_from_train:
            self.files = cut_validation(dataset, self.classes, self.files)
        for part, files in self.files.items():
            for name, found in zip(self.classes, files, strict=True):
                if not found:
                    raise ConfigError(
                        "dataset.root", self.root, f"class {name} has no image for {part}; add some or remove it"
                    )
        self.counts = {part: tuple(map(len, files)) for part, files in self.files.items()}
        by_class = {
            f"{part}/{name}": found
            for part, files in sorted(self.files.items())
            for name, found in zip(self.classes, files, strict=True)
        }
        self.digests = Digests(self.root, by_class, image_cache)

    @property
    def unread(self) -> int:
        """Images whose content has not been read yet, or not since they changed."""
        return sum(len(self.digests.files[name]) for name in self.digests.unread)

    def read(self, advance: Callable[[int], None]) -> None:
        """Read the content of all images that is not known yet."""
        self.digests.read(advance)

    @cached_property
    def fingerprint(self) -> str:
        """Of the names of classes and files, and of the content of every file, in their order."""
        lines = (f"{name}\0{digest}\n" for name, digest in self.digests.read().items())
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def decoder(self, part: str, label: int) -> Decoder:
        """What reads one class."""
        digest = self.digests.known.get(f"{part}/{self.classes[label]}")
        return partial(read_images, self.files[part][label], digest, resize=self.resize)


def read_images(files: list[str], digest: str | None, side: int, resize: str = "centre") -> np.ndarray:
    """Some images, uint8 (count, side, side, 3).

    Raises:
        BadImages: some files cannot be decoded: all of them are named.
        ConfigError: the files are not those of the digest any more.
    """
    content, images, bad = Content(), [], dict[str, str]()
    for file in files:
        try:
            data = read_file(file)
            content.add(file, data)
            images.append(read_image(file, side, data, resize))
        except BadImages as error:
            bad |= error.files
    if bad:
        raise BadImages(bad)
    if digest is not None and content.hex() != digest:
        raise ConfigError(
            "dataset.root",
            os.path.dirname(files[0]),
            "these images changed after the sweep was planned; run the same command again",
        )
    return np.stack(images)


def read_image(file: str | Path, side: int, data: bytes | None = None, resize: str = "centre") -> np.ndarray:
    """One image as torchvision's Resize(side) and CenterCrop(side) leave it, or with `squash` its Resize((side, side)),
    which does not keep the aspect ratio: uint8 (side, side, 3).

    `data` is the content of the file, where it has been read already.

    Raises:
        BadImages: names the file if it cannot be decoded.
    """
    picture = read_picture(file, data)
    width, height = picture.size
    if resize == "squash" and (width, height) != (side, side):
        return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
    short, long = min(width, height), int(side * max(width, height) / min(width, height))
    if short != side:
        picture = picture.resize((side, long) if width <= height else (long, side), Image.Resampling.BILINEAR)
    width, height = picture.size
    left, top = round((width - side) / 2), round((height - side) / 2)
    return np.asarray(picture.crop((left, top, left + side, top + side)))


def read_picture(file: str | Path, data: bytes | None = None) -> Image.Image:
    """One image at its own size, in RGB, which grey, palette and CMYK images become. It lies as it is stored: its EXIF
    orientation is not applied, but to TIFF files, where Pillow does it.

    Raises:
        BadImages: names the file if it cannot be decoded, or is not used.
    """
    try:
        with Image.open(file if data is None else BytesIO(data)) as opened:
            if why := _unusable(opened):
                raise BadImages({str(file): why})
            return opened.convert("RGB")
    except BadImages:
        raise
    except UNREADABLE as error:
        raise BadImages({str(file): _why_unreadable(error)}) from error


def _why_unreadable(error: Exception) -> str:
    """Pillow's reason in one line, without the address of the object that it read from."""
    return str(error).partition(" <_io")[0].partition("\n")[0]


def _unusable(opened: Image.Image) -> str | None:
    """Why an image is not used although Pillow would make something of it."""
    if opened.mode[0] in "IF":  # all above 255 would become white
        return f"its grey values have more than 8 bits (mode {opened.mode}): convert it to 8 bits"
    if max(opened.size) > LONGEST * min(opened.size):
        return f"it has {opened.width} x {opened.height} pixels, too long and thin to enlarge"
    return None


def is_of_other_type(file: str | Path) -> bool:
    """Whether a file is an image of a type that is not read, by its name."""
    return os.path.splitext(file)[1].lower() in OTHER_TYPES


def by_type(files: Iterable[str | Path]) -> str:
    """How many files there are of each type, as in `3 .heic, 1 .gif`."""
    counts = Counter(os.path.splitext(file)[1].lower() for file in files)
    return ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common())


def is_bad(file: str) -> bool:
    """Whether a file cannot be decoded."""
    try:
        read_image(file, 8)
    except BadImages:
        return True
    return False


def _root(dataset: Dataset) -> Path:
    root = Path(dataset.root or "").expanduser()
    if dataset.root is None or not root.is_dir():
        what = "is not a folder; it " if dataset.root else "is needed; it "
        raise ConfigError("dataset.root", dataset.root, what + LAYOUTS[dataset.name])
    root = root.resolve()
    if root == Path(root.anchor):
        raise ConfigError("dataset.root", dataset.root, f"is the whole file system; it {LAYOUTS[dataset.name]}")
    return root


def _images_in(folder: Path) -> list[str]:
    """Image files under a folder, in torchvision's order.

    Raises:
        ConfigError: a link in it leads to a folder that holds it, or it holds very many files that are no images.
    """
    walked, others = [], 0
    for where, folders, files in os.walk(folder, followlinks=True, onerror=_stop):
        images = [name for name in sorted(files) if os.path.splitext(name)[1].lower() in SUFFIXES]
        walked.append((where, images))
        others += len(files) - len(images) + len(folders)
        if others > OTHERS:
            raise ConfigError(
                "dataset.root",
                folder,
                f"holds more than {OTHERS:,} entries that are no images: is it a class?",
            )
        for name in folders:
            link = os.path.join(where, name)
            if os.path.islink(link) and _is_above(os.path.realpath(link), where, folder):
                raise ConfigError("dataset.root", link, "is a link to a folder that holds it; remove the link")
    return [os.path.join(where, name) for where, images in sorted(walked) for name in images]


def _stop(error: OSError) -> None:
    """In a walk: a folder that cannot be read would else be empty."""
    raise error


def _is_above(target: str, where: str, folder: Path) -> bool:
    """Whether `target` holds one of the folders by which a walk from `folder` came to `where`: it would not end."""
    way = [path for path in (Path(where), *Path(where).parents) if path.is_relative_to(folder)]
    return any(Path(os.path.realpath(path)).is_relative_to(target) for path in way)


def _subfolders(folder: Path) -> list[str]:
    """Names of the classes under a folder.

    Raises:
        ConfigError: one is a link that leads nowhere: a class would be missing.
    """
    names = []
    for found in folder.iterdir():
        if found.is_dir() and not found.name.startswith("."):
            names.append(found.name)
        elif found.is_symlink() and not found.exists():
            raise ConfigError("dataset.root", found, "is a link to what is not there; fix or remove it")
    return sorted(names)


def _two_trees(root: Path, dataset: Dataset, kept: Kept) -> tuple[tuple[str, ...], dict[str, list[list[str]]]]:
    """train/ and val/; where there is a test/, too, it is the part to report on, and without a val/ it is that."""
    there = [name for name in OURS if (root / name).is_dir()]
    if dataset.name == "imagenet":  # its test images have no classes
        there = there[:1]
    if not (root / "train").is_dir() or not there:
        raise ConfigError("dataset.root", dataset.root, LAYOUTS[dataset.name])
    if (root / "val" / ANNOTATIONS).is_file():
        raise ConfigError("dataset", dataset.name, f"{root} is laid out as Tiny ImageNet: say dataset=tiny_imagenet")
    classes = _subfolders(root / "train")
    for name in there:
        if odd := sorted(set(classes) ^ set(_subfolders(root / name))):
            legal = f"train/ and {name}/ have different classes: {odd[:5]}; each needs a folder in both"
            raise ConfigError("dataset.root", dataset.root, legal)
    if len(classes) < 2:
        legal = f"train/ has one class only, {classes}: a class is a folder right below train/"
        raise ConfigError("dataset.root", dataset.root, legal if classes else LAYOUTS[dataset.name])
    trees = dict(zip(("train", "val", "test"), ("train", *there), strict=False))
    return tuple(classes), {
        part: [kept(_images_in(root / tree / name)) for name in classes] for part, tree in trees.items()
    }


def _any_tree(root: Path, dataset: Dataset, kept: Kept) -> tuple[tuple[str, ...], dict[str, list[list[str]]]]:
    if (root / "train").is_dir() and any((root / name).is_dir() for name in OURS):
        _check_names(root)
        return _two_trees(root, dataset, kept)
    tree = root / "train" if (root / "train").is_dir() else root
    classes = _subfolders(tree)
    if len(classes) < 2:
        raise ConfigError("dataset.root", dataset.root, LAYOUTS[dataset.name])
    _check_parts(root, tree, classes)
    found, held = [kept(_images_in(tree / name)) for name in classes], dataset.val_per_class
    few, name = min((len(files), name) for name, files in zip(classes, found, strict=True))
    if few <= held:
        raise ConfigError(
            "dataset.val_per_class",
            held,
            f"class {name} has {few} images: give {few - 1} or less, more images, or a folder val/"
            if few > 1
            else f"class {name} has {few} images: add some, or remove its folder",
        )
    return tuple(classes), {"train": [f[:-held] for f in found], "val": [f[-held:] for f in found]}


def _check_parts(root: Path, tree: Path, classes: list[str]) -> None:
    """Refuse what would be taken for a class, or left out: a part of another name than ours, or a level lower."""
    _check_names(root)
    if tree == root:
        for name in classes:
            if (root / name / "train").is_dir() and any((root / name / part).is_dir() for part in PARTS):
                legal = f"{name}/ is no class but holds train/ itself; give dataset.root={root / name}"
                raise ConfigError("dataset.root", root, legal)


def _check_names(root: Path) -> None:
    """Refuse a part of another name than ours: its images would be left out, or test images would choose."""
    folders = _subfolders(root)
    train = next((name for name in folders if name.lower() in ("train", "training")), None)
    others = [name for name in folders if name.lower() in PARTS]
    if train and others and (train != "train" or not set(others) <= set(OURS)):
        other = next((name for name in others if name not in OURS), others[0])
        legal = f"holds {train}/ and {other}/: call them train/ and val/ (or test/), or give one as dataset.root"
        raise ConfigError("dataset.root", root, legal)


def _tiny_imagenet(root: Path, dataset: Dataset, kept: Kept) -> tuple[tuple[str, ...], dict[str, list[list[str]]]]:
    notes = root / "val" / ANNOTATIONS
    if not (root / "train").is_dir() or not notes.is_file():
        raise ConfigError("dataset.root", dataset.root, LAYOUTS[dataset.name])
    classes = _subfolders(root / "train")
    val: dict[str, list[str]] = {name: [] for name in classes}
    for number, line in enumerate(notes.read_text(errors="surrogateescape").splitlines(), 1):
        if "\t" not in line:
            raise ConfigError("dataset.root", notes, f"line {number} is no file, tab and class; get the archive again")
        file, name = line.split("\t")[:2]
        if name in val:
            val[name].append(str(root / "val" / "images" / file))
    train = [kept(_images_in(root / "train" / name)) for name in classes]
    return tuple(classes), {"train": train, "val": [kept(sorted(val[name])) for name in classes]}
