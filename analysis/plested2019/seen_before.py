"""What no contrast was declared about, above all what the first miniature's rows showed and no text had said, measured
on other rows: secondary, with no adjustment.

python -m analysis.plested2019.seen_before results/tiny_imagenet_2/rows.csv

The README of the first miniature names them: the default protocol against both of the paper's, gaps over high layers
and decay, freezing by size, and the gap beside the accuracy at n = 50. Five and six layers over four, with equal decay,
were added after the second miniature's rows. Units are (split, target half).
"""

import sys
from collections.abc import Iterator

import pandas as pd

from analysis.frame import at, cells, sizes
from analysis.plested2019 import STUDY, experiments
from analysis.plested2019.experiments import COMMON, NONE, OPTIMAL
from analysis.statistics import mean_interval, slopes
from tlprotocols.errors import until_pipe_closes
from tlprotocols.results import load

Line = tuple[str, str, "pd.Series[float]"]  # the statistic, n, its values by unit


def default(rows: pd.DataFrame, value: str = "accuracy") -> pd.DataFrame:
    """Six layers, only the last one at the high rate for five epochs, none frozen: the package's default protocol."""
    return cells(experiments.freeze(rows), "freeze", value)


def statistics(rows: pd.DataFrame) -> Iterator[Line]:
    """Every statistic, at each size where it is about one."""
    numbers = [n for n in sizes(rows, full=False) if int(n) <= 100]
    for value, name in (("accuracy", "accuracy"), ("gap", "gap")):
        protocols, plain = cells(experiments.protocols(rows), "protocol", value), default(rows, value)
        for n in numbers:
            three = at(protocols, n, [OPTIMAL, COMMON, NONE])
            own = at(plain, n, [0])[0].reindex(three.index)
            yield f"{name}: default minus commonly used", str(n), own - three[COMMON]
            yield f"{name}: default minus optimal (Table 2)", str(n), own - three[OPTIMAL]
            yield f"{name}: optimal (Table 2) minus commonly used", str(n), three[OPTIMAL] - three[COMMON]
            yield f"{name}: commonly used minus no transfer", str(n), three[COMMON] - three[NONE]
    frozen = default(rows)
    for n in numbers:
        levels = at(frozen, n, list(range(7)))
        for k in (1, 2, 4, 6):
            yield f"accuracy: {k} frozen minus none", str(n), levels[k] - levels[0]
    trios = {
        "one high, 5 epochs": experiments.layers_one_high(rows, decay=5),
        "one high, 30 epochs": experiments.layers_one_high(rows, decay=30),
        "all high, 30 epochs": experiments.layers_all_high(rows),
    }
    for name, chosen in trios.items():
        wide = cells(chosen, "layers")
        for n in numbers:
            trio = at(wide, n, [4, 5, 6])
            yield f"accuracy: 5 and 6 layers minus 4, {name}", str(n), (trio[5] + trio[6]) / 2 - trio[4]
    gaps = cells(experiments.high_lr_layers(rows), "high_lr_layers", "gap")
    for n in numbers:
        yield "gap: slope over layers at the high rate", str(n), slopes(at(gaps, n, list(range(1, 9))))
    decays = cells(experiments.decay_epochs(rows), "decay_epochs", "gap")
    for n in numbers:
        pair = at(decays, n, [0, 30])
        yield "gap: 30 epochs at the high rate minus none", str(n), pair[30] - pair[0]


def _main() -> None:
    table = pd.DataFrame(
        [
            {"statistic": name, "n": n, **dict(zip(("mean", "low", "high"), mean_interval(values), strict=True))}
            for name, n, values in statistics(STUDY.rows(load(sys.argv[1])))
        ]
    )
    print(table.sort_values("statistic", kind="stable").round(2).to_string(index=False))


if __name__ == "__main__":
    until_pipe_closes(_main)
