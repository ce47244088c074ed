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

    def text(self, sign: bool = False) -> str:
        """In percent, or signed in points."""
        form = "{:+.1f} [{:+.1f}, {:+.1f}]" if sign else "{:.1f}% [{:.1f}, {:.1f}]"
        return form.format(100 * self.mean, 100 * self.low, 100 * self.high)


def correct(runs: Sequence[Files]) -> np.ndarray:
    """Whether each run was right about each held-out image: (runs, images), 0 or 1.

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
    return np.stack([(table["class"] == table["predicted"]).to_numpy(float) for table in tables])


def compared(right: Mapping[str, np.ndarray], name: str) -> dict[str, tuple[Interval, Interval]]:
    """The accuracy of each network, and by how much that of `name` is above it, on the same images and seeds.

    `right` has (replicates, images) for each network.
    """
    return {other: (Interval.of(values), Interval.of(right[name] - values)) for other, values in right.items()}
