"""Paired differences between the key cells of one number of images per class: secondary, with no adjustment.

python -m analysis.plested2019.large_n results/tiny_imagenet_2/rows_250.csv results/tiny_imagenet_2/rows_500.csv

A setting is layers transferred, last layers at the high rate, epochs before the decay, layers frozen. Units are (split,
target half); those count that have all settings of a difference. A difference without two such units is left out.
"""

import sys
from collections.abc import Iterator

import pandas as pd

from analysis.frame import arranged, pick, sizes, step
from analysis.plested2019 import STUDY, experiments
from analysis.plested2019.experiments import ALL, LAYERS, SETTING
from analysis.statistics import by_unit, mean_interval
from tlprotocols.errors import until_pipe_closes
from tlprotocols.results import load

Setting = tuple[int, int, int, int]
Difference = tuple[str, list[Setting], list[Setting]]  # its name; the mean of some settings minus that of others


def differences(late: int, best: Setting) -> list[Difference]:
    """The differences, where `late` epochs at the high rate are the commonly used ones and Table 2 says `best`."""
    common, scratch = (7, ALL, late, 0), (0, ALL, late, 0)
    early, long = ([(layers, 1, decay, 0) for layers in LAYERS] for decay in (5, late))
    return [
        ("optimal (Table 2) minus commonly used", [best], [common]),
        ("commonly used minus no transfer", [common], [scratch]),
        ("6 layers, 5 epochs: none frozen minus four", [(6, 1, 5, 0)], [(6, 1, 5, 4)]),
        (f"6 layers, {late} epochs: one layer high minus eight", [(6, 1, late, 0)], [(6, ALL, late, 0)]),
        (f"6 layers, one high: 5 minus {late} epochs", [(6, 1, 5, 0)], [(6, 1, late, 0)]),
        (f"mean over 4 to 7 layers, one high: 5 minus {late} epochs", early, long),
        ("one high, 5 epochs: 5 and 6 layers minus 4", early[1:3], early[:1]),
        (f"one high, {late} epochs: 5 and 6 layers minus 4", long[1:3], long[:1]),
        (f"all high, {late} epochs: 5 layers minus 7", [(5, ALL, late, 0)], [(7, ALL, late, 0)]),
    ]


def measured(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    """A line per size and difference: mean and 95% interval in points, and how many units have it."""
    for n in sizes(rows, full=False):
        wide = by_unit(arranged(pick(rows, n_per_class=n), SETTING))
        here = experiments.optimal_settings(rows)[n]
        best = (here["layers"], 1, here["decay_epochs"], here["freeze"])
        for name, some, others in differences(step(rows), best):
            if not {*some, *others} <= set(wide):
                continue
            values = (wide[some].mean(axis=1, skipna=False) - wide[others].mean(axis=1, skipna=False)).dropna()
            if len(values) > 1:
                mean, low, high = mean_interval(values)
                yield {"n": n, "difference": name, "mean": mean, "low": low, "high": high, "units": len(values)}


def _main() -> None:
    for path in sys.argv[1:]:
        print(pd.DataFrame(measured(STUDY.rows(load(path)))).round(2).to_string(index=False), end="\n\n")


if __name__ == "__main__":
    until_pipe_closes(_main)
