"""Which classes are source and which are target, and which images of a class are used: pure functions of labels."""

import csv
from collections.abc import Sequence
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
    natural (A) and man-made (B) classes. `groups`: A is `classes.source` and B is `classes.target`.
    """
    match config.classes.name:
        case "random":
            return random_halves(len(classes), config.split)
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


def target_classes(config: Config, classes: Sequence[str]) -> list[int]:
    """Labels that the run learns, ascending: position in this list is the unit of the last layer."""
    return halves(config, classes)[config.target]


def chosen(config: Config, label: int, count: int) -> np.ndarray:
    """Positions within one class of the images a run trains on, in ascending order.

    Nested in `n_per_class` either way: the first n in file order (paper sec. 2), or the first n of a random order
    that `seed` decides.
    """
    n = count if config.n_per_class == "full" else int(config.n_per_class)
    if config.subset == "first":
        return np.arange(n)
    order = np.argsort(uniform(stream("subset", config.seed, label), np.arange(count)), kind="stable")
    return np.sort(order[:n])


def check_counts(config: Config, classes: Sequence[str], counts: Sequence[int], key: str = "n_per_class") -> None:
    """Refuse more images per class than some class has."""
    if config.n_per_class == "full":
        return
    for label in target_classes(config, classes):
        if counts[label] < int(config.n_per_class):
            raise ConfigError(
                key,
                config.n_per_class,
                f"class {classes[label]} has only {counts[label]} training images; give at most that, or full",
            )


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
