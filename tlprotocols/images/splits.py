"""Which classes are source and which are target, and which images of a class are used: pure functions of labels."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from tlprotocols.config.schema import Config
from tlprotocols.errors import ConfigError
from tlprotocols.randomness import stream, uniform

PUBLISHED = Path(__file__).with_name("yosinski2014_class_splits.csv")


def halves(config: Config, classes: Sequence[str]) -> dict[str, list[int]]:
    """Labels of half A and half B, each in ascending order.

    `random`: decided by `split` alone. `yosinski`: the lists of Yosinski et al. (2014), by synset. `natman`: their
    natural (A) and man-made (B) classes. `groups`: A is `classes.source` and B is `classes.target`. `drawn`: A is the
    source that `classes.source_group` makes of `random_groups`, B is their B. `all`: no halves, every class is in both.
    """
    match config.classes.name:
        case "random":
            return random_halves(len(classes), config.split)
        case "all":
            return {side: list(range(len(classes))) for side in "AB"}
        case "drawn":
            assert config.classes.sizes is not None
            groups = random_groups(len(classes), config.split, config.classes.sizes)
            return {"A": _source(groups, config.classes.source_group), "B": sorted(groups["B"])}
        case "groups":
            source, target = (
                _labels(f"classes.{side}", names or (), classes)
                for side, names in (("source", config.classes.source), ("target", config.classes.target))
            )
            return {"A": source, "B": target}
        case _:
            return _published(config, classes)


@cache
def random_halves(count: int, split: int) -> dict[str, list[int]]:
    """A random half of `count` classes and its complement; of an odd count, B has one more.

    numpy's legacy generator, as Yosinski's script used: its stream is frozen for ever.
    """
    order = np.random.RandomState([split]).permutation(count)
    return {"A": sorted(order[: count // 2].tolist()), "B": sorted(order[count // 2 :].tolist())}


@cache
def random_groups(count: int, split: int, sizes: tuple[int, ...]) -> dict[str, list[int]]:
    """Labels of three disjoint random groups A, B and C of these sizes among `count` classes, in the order of the draw.

    Decided by `split` alone, by the same generator as `random_halves`.

    Raises:
        ConfigError: there are fewer classes.
    """
    if sum(sizes) > count:
        raise ConfigError(
            "classes.sizes", list(sizes), f"must be at most {count} together, the classes of this data set"
        )
    order = np.random.RandomState([split]).permutation(count).tolist()
    a, b, _ = np.cumsum(sizes).tolist()
    return {"A": order[:a], "B": order[a:b], "C": order[b : sum(sizes)]}


def _source(groups: Mapping[str, Sequence[int]], name: str | None) -> list[int]:
    """The source classes: A, or C and the first of A (as many as A), or A and C. Ascending."""
    a, c = groups["A"], groups["C"]
    return sorted({"A": [*a], "diverse": [*c, *a[: len(a) - len(c)]], "more": [*a, *c]}[str(name)])


def probed_classes(config: Config, classes: Sequence[str]) -> list[int]:
    """Labels of the classes on which a run is probed, ascending: those it does not learn; of drawn groups, group A
    whatever the source is, so that all runs of a draw are probed on the same classes."""
    if config.classes.name == "drawn" and config.target == "B":
        config = replace(config, classes=replace(config.classes, source_group="A"))
    return halves(config, classes)["A" if config.target == "B" else "B"]


def target_classes(config: Config, classes: Sequence[str]) -> list[int]:
    """Labels that the run learns, ascending: position in this list is the unit of the last layer."""
    return halves(config, classes)[config.target]


def part_of(config: Config, part: str, counts: Mapping[str, Sequence[int]]) -> str | None:
    """The part of the image source in which a part of the run lies: `test` is the end of the training images of each
    target class (`test_per_class`), or the source's own test images. With `fold`, `val` is among the training images,
    and the source's own validation images are for testing, if it has no others. None if the run has no such part."""
    if part == "test" and config.test_per_class:
        return "train"
    if config.fold is not None and part != "train":
        return "train" if part == "val" else "test" if "test" in counts else "val"
    return part if part in counts else None


def chosen(config: Config, part: str, label: int, count: int) -> np.ndarray:
    """Positions within one class, of `count` images, of those that a run uses in one part, in ascending order.

    All for validation and testing, but the last `test_per_class` training images are for testing alone. For training,
    nested in `n_per_class` either way: the first n in file order (paper sec. 2), or the first n of a random order that
    `seed` decides. With `fold`, every `folds`-th of these n validates, and the others are learned.
    """
    if part == "test" or (part == "val" and config.fold is None):
        return np.arange(count - config.test_per_class if part == "test" and config.test_per_class else 0, count)
    left = count - config.test_per_class
    n = left if config.n_per_class == "full" else int(config.n_per_class)
    found = np.arange(n)
    if config.subset == "random":
        order = np.argsort(uniform(stream("subset", config.seed, label), np.arange(left)), kind="stable")
        found = np.sort(order[:n])
    if config.fold is None:
        return found
    validates = np.arange(n) % config.folds == config.fold
    which: np.ndarray = found[validates if part == "val" else ~validates]
    return which


def held_out(config: Config, n: int) -> int:
    """How many of n training images of a class its `fold` keeps for validation."""
    return 0 if config.fold is None else len(range(config.fold, n, config.folds))


def check_counts(
    config: Config,
    classes: Sequence[str],
    counts: Mapping[str, Sequence[int]],
    key: str = "n_per_class",
) -> None:
    """Refuse more images per class than some class has, more folds, and two sets of test images."""
    held = config.test_per_class
    if held and "test" in counts:
        raise ConfigError("test_per_class", held, "must be 0: this data set has its own test images")
    least = int(config.n_per_class) if config.n_per_class != "full" else 1 if config.fold is None else config.folds
    for label in [*target_classes(config, classes), *(probed_classes(config, classes) if config.probe else ())]:
        count, left = counts["train"][label], counts["train"][label] - held
        if left >= least:
            continue
        few = f"class {classes[label]} has only {count} training image{'s' if count > 1 else ''}"
        if left < 1:
            raise ConfigError("test_per_class", held, f"{few}; give at most {count - 1}, to leave some for training")
        kept = f", and test_per_class keeps {held}" if held else ""
        if config.fold is not None and left < config.folds:
            fewer = f"give folds={left}{' or less' if left > 2 else ''}, add images" if left > 1 else "add images"
            raise ConfigError("folds", config.folds, f"{few}{kept}; {fewer}, or leave the class out")
        raise ConfigError(key, config.n_per_class, f"{few}{kept}; give at most {left}, or full")


def _labels(key: str, names: Sequence[str], classes: Sequence[str]) -> list[int]:
    for name in names:
        if name not in classes:
            raise ConfigError(key, name, f"is not a class of this data set, whose classes are {_some(classes)}")
    return sorted(classes.index(name) for name in set(names))


def _published(config: Config, classes: Sequence[str]) -> dict[str, list[int]]:
    column = "natman" if config.classes.name == "natman" else f"split{config.split}"
    with PUBLISHED.open(newline="") as file:
        half = {row["synset"]: row.get(column) for row in csv.DictReader(file)}
    if any(value is None for value in half.values()):
        raise ConfigError("split", config.split, "must be 0, 1, 2 or 3 with classes=yosinski")
    strange = [name for name in classes if name not in half]
    if strange or len(classes) != len(half):
        raise ConfigError(
            "classes",
            config.classes.name,
            f"is for the 1000 synsets of ILSVRC2012; this data set has {len(classes)} classes, {_some(classes)}",
        )
    return {side: [i for i, name in enumerate(classes) if str(half[name])[0] == side] for side in "AB"}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
