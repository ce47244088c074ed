"""Can the best settings be predicted for a number of images per class that was not measured?

python -m analysis.unseen_n results/tiny_imagenet/rows.csv

Plested & Gedeon (2019, sec. 3.4) say that "it is not possible to use optimal settings for transfer learning with very
large target datasets to perform transfer learning with smaller target datasets or predict the latter from the former".
Each size is left out in turn; a setting
is chosen for it from the rows of the other sizes, and its regret is how far its accuracy is below that of the best
measured setting, in points: of the fitted regression (tlprotocols/searching/prediction.py), of the best setting of the
nearest size, of the paper's Table 2, and of the commonly used protocol.
"""

import argparse
from typing import Any

import pandas as pd

from analysis.statistics import mean_interval
from tlprotocols.config.protocols import named_setting
from tlprotocols.errors import until_pipe_closes
from tlprotocols.results import load
from tlprotocols.searching.prediction import FACTORS, Prediction, alike, best_at, measured, nearest

WAYS = ("regression", "nearest size", "Table 2", "commonly used")


def choices(table: pd.DataFrame, n: int) -> dict[str, dict[str, Any]]:
    """What each way chooses for `n`, out of the settings that were measured there, from the rows of other sizes."""
    others, here = table[table["n"] != n], table[table["n"] == n]
    shared = others.merge(here[list(FACTORS)])
    found = {} if shared.empty else {"nearest size": best_at(shared, nearest(sorted(set(shared["n"])), n))}
    if fitted := Prediction.fit(others):
        found["regression"] = fitted.best(here, n)
    if of_paper := named_setting("optimal", "alexnet", n):
        found["Table 2"] = of_paper
    depth = int(table["layers"].max())
    found["commonly used"] = {"layers": depth, "freeze": 0, "high_lr_layers": depth + 1, "decay_epochs": 30}
    return {way: found[way] for way in WAYS if way in found}


def regrets(rows: pd.DataFrame, value: str = "val_top1") -> pd.DataFrame:
    """One row per size, way and unit: `regret` in points, and the setting. What was not measured is left out."""
    rows = alike(rows)
    table, found = measured(rows, value), []
    for n in sorted(set(table["n"])):
        at = rows[rows["n_per_class"].astype(str) == str(n)]
        top = _accuracies(at, best_at(table, n), value)
        for way, setting in choices(table, n).items():
            lost = 100 * (top - _accuracies(at, setting, value)).dropna()
            chosen = " ".join(f"{key}={number}" for key, number in setting.items())
            found += [
                {"n": n, "way": way, "setting": chosen, "unit": unit, "regret": lost[unit]} for unit in lost.index
            ]
    return pd.DataFrame(found)


def _accuracies(rows: pd.DataFrame, setting: dict[str, Any], value: str) -> "pd.Series[float]":
    """Accuracy of a setting by unit."""
    kept = rows[(rows[list(FACTORS)] == [setting[key] for key in FACTORS]).all(axis=1)]
    found: pd.Series[float] = kept.groupby(kept["split"].astype(str) + kept["target"])[value].mean()
    return found


def main() -> None:
    """Print the regrets."""
    until_pipe_closes(_main)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m analysis.unseen_n", description=__doc__.splitlines()[0])
    parser.add_argument("table", help="a results folder or an exported table")
    args = parser.parse_args()
    rows = load(args.table)
    rows = rows[(rows["base"] == "trained") & (rows["layers"] > 0)]
    value = "test_top1" if "test_top1" in rows and rows["test_top1"].notna().all() else "val_top1"
    found = regrets(rows, value)
    print(f"regret in points of {value}, mean over units; the last column: over the n at which every way has chosen")
    wide = found.pivot_table("regret", "way", "n")
    print(wide.assign(mean=wide.dropna(axis=1).mean(axis=1)).reindex(WAYS).round(2).to_string())
    each = found.pivot_table("regret", ["unit", "n"], "way")
    for way in WAYS[1:]:
        if {"regression", way} <= set(each):  # at the same n
            ahead = (each[way] - each["regression"]).dropna().groupby("unit").mean()
            middle, low, high = mean_interval(ahead)
            print(f"regression is better than {way} by {middle:+.2f} [{low:+.2f}, {high:+.2f}], {len(ahead)} units")
    for row in found.drop_duplicates(["n", "way"]).itertuples():
        print(f"n={row.n}: {row.way}: {row.setting}")


if __name__ == "__main__":
    main()
