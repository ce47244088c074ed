"""Any sweep, whatever it varies: its swept factors, the accuracy of every cell, and the best cell for each size.

A *cell* is a combination of swept factors. Replicates of a cell differ in split, target half and seed alone.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis import selection
from analysis.evidence import compare_with_best
from analysis.frame import Missing, one_unit, size_order
from analysis.panels import FAILURES
from analysis.statistics import by_unit, mean_interval
from tlprotocols.config.validate import keys

REPLICATES = ("split", "target", "seed", "fold")
KEPT_FIRST = (  # of factors that decide each other, the earlier one names the cells
    *("n_per_class", "dataset", "model", "protocol", "layers", "freeze", "high_lr_layers", "decay_epochs"),
)
TASKS = ("dataset", "dataset.fingerprint", "dataset.val_per_class", "dataset.val_from_train", "test_per_class")
FRACTION = r"\.\d*[1-9]|\de-"  # in the text of a number
LISTED = 6  # cells by name in a table; more are counted
ALPHA = 0.05


def swept(rows: pd.DataFrame) -> list[str]:
    """The factors that tell the cells apart: those of `varying` without the ones that another factor decides, or
    `protocol` and `n_per_class` together, as `high_lr_layers` where `protocol` does. An absent value is a value."""
    kept = varying(rows)
    texts = rows[kept].astype(str)
    cells = texts.drop_duplicates()
    for column in reversed(kept[:]):
        rest = [c for c in kept if c != column]
        pair = [c for c in ("protocol", "n_per_class") if c in rest]
        if any(_decides(other, column, cells) for other in rest) or (len(pair) == 2 and _follows(column, pair, cells)):
            kept.remove(column)
    return kept


def varying(rows: pd.DataFrame) -> list[str]:
    """All factors with more than one value, `KEPT_FIRST` before others."""
    names = {key.removesuffix(".name") for key, about in keys() if about["factor"]}
    if "protocol" in rows and rows["protocol"].notna().all():  # where some run has no name, the factors say more
        names.add("protocol")
    columns = [str(column) for column in rows]
    candidates = [c for c in columns if (c in names or c.startswith("lr.layers.")) and c not in REPLICATES]
    candidates = [c for c in candidates if not _comes_from_updates(c, rows)]
    texts = rows[candidates].astype(str)
    return sorted((c for c in candidates if texts[c].nunique() > 1), key=_rank)


def _comes_from_updates(column: str, rows: pd.DataFrame) -> bool:
    """Whether these epochs differ because `max_updates` comes to so many with so many images."""
    updates = column.removesuffix("epochs") + "max_updates"
    if column not in ("epochs", "base.epochs") or updates not in rows:
        return False
    given = rows[updates].fillna(0) == 0
    return not given.all() and rows.loc[given, column].nunique() <= 1


def _decides(one: str, other: str, cells: pd.DataFrame) -> bool:
    """Whether a factor decides another one.

    A value that occurs in one cell alone goes with one value of every other factor by chance, as sampled rates do. A
    factor with such values decides what is equal to it, and what has as many values, as the epochs and the batch size
    of two recipes, unless one of them is a rate. `KEPT_FIRST` decide whatever follows.
    """
    if not _follows(other, [one], cells):
        return False
    if one in KEPT_FIRST or cells[one].value_counts().min() > 1 or cells[one].equals(cells[other]):
        return True
    rates = any(cells[column].str.contains(FRACTION).any() for column in (one, other))
    return not rates and cells[one].nunique() == cells[other].nunique()


def _follows(column: str, others: Sequence[str], cells: pd.DataFrame) -> bool:
    return bool(cells.groupby(list(others), sort=False)[column].nunique().max() == 1)


def _rank(column: str) -> tuple[int, int]:
    known = KEPT_FIRST.index(column) if column in KEPT_FIRST else len(KEPT_FIRST)
    return known, column.count(".") + 10 * column.startswith("base.")


def ordered(values: "pd.Series[Any]") -> list[Any]:
    """The levels of a factor: numbers ascending, `full` after them, then texts in the order in which they occur; an
    absent value is `none`."""
    levels = [value if value == value and value is not None else "none" for value in values.unique()]
    numbers = sorted((v for v in levels if v == "full" or not isinstance(v, str)), key=size_of)
    return list(dict.fromkeys([*numbers, *(v for v in levels if v not in numbers)]))


def size_of(level: Any) -> float:
    """Where a number, or `full`, stands among others."""
    return size_order("full") if level == "full" else float(level)


def is_numeric(levels: Sequence[Any]) -> bool:
    """Whether levels are numbers, or `full`: they have an order, and lines may join them."""
    return all(v == "full" or (not isinstance(v, str | bool | np.bool_)) for v in levels)


def text(level: Any) -> str:
    """A level as people write it: 5 where a column of numbers with gaps says 5.0."""
    if isinstance(level, float | np.floating):
        return "none" if math.isnan(level) else f"{level:.12g}"
    return "none" if level is None else str(level)


def names(rows: pd.DataFrame, factors: Sequence[str]) -> "pd.Series[str]":
    """The name of each row's cell, as in `layers=5 freeze=0`."""
    named = pd.Series("", rows.index, dtype=object)
    for factor in factors:
        named += " " + factor + "=" + rows[factor].map(text).astype(str)
    return named.str.strip().replace("", "all runs")


def intervals(wide: pd.DataFrame) -> pd.DataFrame:
    """Mean and ends of the 95% interval of each column, for a comparison of columns within units.

    `wide` has a row per unit, or per (unit, seed), and a column per cell. Units differ, as some classes are easier; how
    far a unit is above others, in the mean over the cells that all units with most cells have, is subtracted first
    (Cousineau 2005), and the widths are corrected for that (Morey 2008). A unit with one of these cells alone, as a
    split that has just begun, tells nothing of it. With a single unit there is no interval.
    """
    values = by_unit(wide).copy()
    counts = values.notna().sum(axis=1)
    common = values[counts == counts.max()].dropna(axis=1)
    factor, shift = 1.0, pd.Series(0.0, values.index)
    if common.shape[1] > 1:
        cells = common.columns
        factor = math.sqrt(len(cells) / (len(cells) - 1))
        of_one = values[cells].notna().sum(axis=1) == 1  # it would equal the mean that it is compared with
        values.loc[of_one, cells] = math.nan
        shift = values[cells].sub(common.mean()).mean(axis=1).fillna(0.0)
    shifted = values.sub(shift, axis=0)
    count, mean, sd = shifted.count(), shifted.mean(), shifted.std(ddof=1)
    half = factor * sd / np.sqrt(count.clip(lower=1)) * stats.t.ppf(0.975, (count - 1).clip(lower=1))
    half = half.where(count > 1)
    return pd.DataFrame({"mean": mean, "low": mean - half, "high": mean + half})


def means(rows: pd.DataFrame, factors: Sequence[str]) -> pd.DataFrame:
    """A line per cell: runs, units, mean and standard deviation over units, gap, failures, seconds.

    The seeds of a unit are averaged. One unit has no deviation.
    """
    grouped = rows.assign(cell=names(rows, factors)).groupby("cell", sort=False)
    lines = []
    for cell, group in grouped:
        first: dict[str, Any] = {factor: group[factor].iloc[0] for factor in factors} or {"cell": cell}
        indexed = group.groupby(["unit", "seed"])[["accuracy", "gap"]].mean()  # over folds
        accuracy, gap = by_unit(indexed["accuracy"].dropna()), by_unit(indexed["gap"].dropna())
        line = first | {"runs": len(group), "units": len(accuracy)}
        line |= {"accuracy": accuracy.mean(), "sd": accuracy.std(ddof=1), "gap": gap.mean(), "gap_sd": gap.std(ddof=1)}
        line |= {f: int(group[f].fillna(False).astype(bool).sum()) for f in FAILURES if f in group}
        lines.append(line | ({"seconds": group["seconds"].mean()} if "seconds" in group else {}))
    table = pd.DataFrame(lines)
    return table.sort_values(list(factors), key=_order, ignore_index=True) if factors else table


def _order(column: "pd.Series[Any]") -> "pd.Series[Any]":
    places = {text(level): place for place, level in enumerate(ordered(column))}
    return column.map(lambda value: places[text(value)])


def best(rows: pd.DataFrame, factors: Sequence[str], chosen_by: str = "all") -> pd.DataFrame:
    """A line per number of images per class, and data set or classes where these differ, too: its best cell, and the
    cells that a paired test cannot tell from it.

    Multiple comparisons with the best (`compare_with_best`), over the units that the compared cells share. `chosen_by`
    is the selection of `analysis.selection`. A single unit tests nothing, and then the columns are empty.

    Raises:
        Missing: no size has two cells.
    """
    tasks = [factor for factor in factors if factor.split(".")[0] == "classes" or factor in TASKS]
    rest = [factor for factor in factors if factor != "n_per_class" and factor not in tasks]
    named = rows.assign(cell=names(rows, rest), task=names(rows, tasks))
    choose, report = selection.columns(chosen_by, rows)
    lines = []
    for size, task in itertools.product(ordered(rows["n_per_class"]), named["task"].unique()):
        part = named[(named["n_per_class"] == size) & (named["task"] == task)]
        total = part["cell"].nunique()
        if total < 2:
            continue
        by, reported = (selection.candidates(part, ["cell"], size, column) for column in (choose, report))
        reported = reported[[cell for cell in by if cell in reported]]
        first: Any = by[list(reported)].mean().idxmax()
        mean, low, high = mean_interval(reported[first])
        line = {"n_per_class": size, **({"of": task} if tasks else {}), "best": first, "accuracy": mean}
        line |= {"low": low, "high": high, "units": len(reported)}
        lines.append(line | {"cells": total, "compared": reported.shape[1], **_equals(reported, first)})
    if not lines:
        raise Missing("No number of images per class has two cells to choose from.")
    return pd.DataFrame(lines)


def _equals(reported: pd.DataFrame, first: Any) -> dict[str, Any]:
    """Which cells a paired test cannot distinguish from the best one."""
    if len(reported) < 2 or reported.shape[1] < 2:
        return {"as_good": None, "not_told_apart": "one unit: nothing can be tested" if len(reported) < 2 else ""}
    p = compare_with_best(reported)
    order = reported.mean().sort_values(ascending=False).index
    equals = [cell for cell in order if p[cell] > ALPHA and cell != first]
    more = f"; {len(equals) - LISTED} more" if len(equals) > LISTED else ""
    return {"as_good": len(equals), "not_told_apart": "; ".join(equals[:LISTED]) + more}


def replicates(rows: pd.DataFrame) -> str:
    """What the units are, as a sentence for captions."""
    units, seeds = rows["unit"].nunique(), rows["seed"].nunique()
    if one_unit(rows):
        return f"Means over {seeds} seeds of one class split, which say nothing about other classes"
    if units > 1:
        averaged = f", the mean over {seeds} seeds each" if seeds > 1 else ""
        return f"Means over {units} units (class split and target half{averaged})"
    return (
        "One class split and one seed: points without intervals, since nothing says how much they vary. "
        "The same command with split=0,1,2,3 or seed=0,1,2 adds replicates"
    )
