"""Networks compared on the same images, by which nothing was chosen: accuracy, paired difference, intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from tlprotocols.records import Files


@dataclass(frozen=True)
class Interval:
    """A mean and its 95% interval."""

    mean: float
    low: float
    high: float

    @staticmethod
    def of(values: np.ndarray) -> "Interval":
        """Of values (replicates, images).

        Its variance is the sum of that between images, each averaged over replicates, and that between the replicates'
        means; the degrees of freedom are Satterthwaite's. It is about other images and other seeds, not about other
        training images.
        """
        replicates, images = values.shape
        parts = [(values.mean(0).var(ddof=1) / images, images - 1)]
        if replicates > 1:
            parts.append((values.mean(1).var(ddof=1) / replicates, replicates - 1))
        variance = float(sum(part for part, _ in parts))
        mean = float(values.mean())
        if variance == 0:
            return Interval(mean, mean, mean)
        freedom = variance**2 / sum(part**2 / free for part, free in parts)
        half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(variance)
        return Interval(mean, mean - half, mean + half)

    @staticmethod
    def of_accuracy(values: np.ndarray) -> "Interval":
        """Of 0 and 1 (replicates, images), or of these times weights of mean 1.

        Two images more that every network is right about and two that every one is wrong about count, as in Agresti &
        Coull (1998): 40 images out of 40 do not show that it is right about all others.
        """
        return Interval._with(values, (1.0, 1.0, 0.0, 0.0), 0.0)

    @staticmethod
    def of_difference(values: np.ndarray) -> "Interval":
        """Of the differences -1, 0, 1 (replicates, images) of two networks on the same images, weighted or not.

        Two images more count, as in Agresti & Min (2005), so that few images on which both agree do not show that they
        are equal.
        """
        return Interval._with(values, (math.sqrt(0.5), -math.sqrt(0.5)), -1.0)

    @staticmethod
    def _with(values: np.ndarray, more: Sequence[float], least: float) -> "Interval":
        """The interval with some images more, none of it below `least` or above 1."""
        wider = Interval.of(np.hstack([values, np.tile(more, (len(values), 1))]))
        return Interval(float(values.mean()), max(least, wider.low), min(1.0, wider.high))

    def text(self, sign: bool = False) -> str:
        """In percent, or signed in points."""
        form = "{:+.1f} [{:+.1f}, {:+.1f}]" if sign else "{:.1f}% [{:.1f}, {:.1f}]"
        return form.format(100 * self.mean, 100 * self.low, 100 * self.high)


def correct(runs: Sequence[Files], balanced: bool = False) -> np.ndarray:
    """Whether each run was right about each held-out image: (runs, images), 0 or 1. With `balanced` an image counts the
    more the fewer its class has, so that the mean is the mean of the classes' accuracies.

    The held-out images are the test part where there is one, or else the validation part: these runs were trained
    without it, and nothing was chosen by it.

    Raises:
        ValueError: the runs were not measured on the same images.
    """
    tables = [pd.read_parquet(run.predictions) for run in runs]
    part = "test" if (tables[0]["part"] == "test").any() else "val"
    tables = [table[table["part"] == part].set_index("image") for table in tables]
    if any(not table.index.equals(tables[0].index) for table in tables):
        raise ValueError("the runs of a comparison were measured on different images")
    right = np.stack([(table["class"] == table["predicted"]).to_numpy(float) for table in tables])
    if not balanced:
        return right
    of_class = tables[0].groupby("class")["class"].transform("size").to_numpy()
    return right * (len(of_class) / tables[0]["class"].nunique() / of_class)


def compared(right: Mapping[str, np.ndarray], name: str) -> dict[str, tuple[Interval, Interval]]:
    """The accuracy of each network, and by how much that of `name` is above it, on the same images and seeds.

    `right` has (replicates, images) for each network.
    """
    return {
        other: (Interval.of_accuracy(values), Interval.of_difference(right[name] - values))
        for other, values in right.items()
    }
