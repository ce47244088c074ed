"""Helpers on the rows of a study: select rows, and arrange them as a row per unit and a column per condition.

A *level* is a value of the factor that an experiment varies. A *wide* table has the index (unit, seed) and the columns
(images per class, level).
"""

from typing import Any

import pandas as pd

Size = int | str  # images per class: a number, or "full"


class Missing(LookupError):
    """What a figure, table or claim needs and the rows do not have, as one sentence."""

    def __str__(self) -> str:
        return str(self.args[0])


def step(rows: pd.DataFrame) -> int:
    """Epochs between two decays of a learning rate: 30 in Plested & Gedeon (2019), fewer in a scaled study.

    Raises:
        Missing: the rates of these rows fall in another way.
    """
    if "lr.step" not in rows or rows["lr.step"].isna().all():
        raise Missing("No finished runs whose learning rates decay every lr.step epochs.")
    return int(rows["lr.step"].iloc[0])


def pick(rows: pd.DataFrame, **factors: Any) -> pd.DataFrame:
    """The rows with these values; a list means any of its values.

    Raises:
        Missing: there are none.
    """
    picked = rows
    for name, value in factors.items():
        picked = picked[picked[name].isin(value) if isinstance(value, list) else picked[name] == value]
    if picked.empty:
        values = {name: v if isinstance(v, list) else [v] for name, v in factors.items()}
        absent = {name: v for name, v in values.items() if not rows[name].isin(v).any()}  # what the table never has
        wanted = ", ".join(f"{name}={_join(v)}" for name, v in (absent or values).items())
        raise Missing(f"No finished runs with {wanted}.")
    return picked


def _join(values: list[Any]) -> str:
    return "|".join(map(str, values))


def size_order(size: Size) -> int:
    """Sort key of images per class: `full` comes after every number."""
    return 10**9 if size == "full" else int(size)


def sizes(rows: pd.DataFrame, full: bool = True) -> list[Size]:
    """The images per class that occur, ascending; `full=False` leaves the whole set out."""
    occurring = sorted(set(rows["n_per_class"]), key=size_order)
    return [size for size in occurring if full or size != "full"]


def smallest(rows: pd.DataFrame) -> Size:
    """The smallest number of images per class.

    Raises:
        Missing: the rows have only the whole set.
    """
    for size in sizes(rows, full=False):
        return size
    raise Missing("No finished runs with a number of images per class, only with n_per_class=full.")


def cells(rows: pd.DataFrame, level: str, value: str = "accuracy") -> pd.DataFrame:
    """A wide table of `value`; `level` names the column of the levels. Repeated runs are averaged."""
    keys = ["unit", "seed", "n_per_class", level]
    wide: Any = rows.groupby(keys, sort=False)[value].mean().unstack(["n_per_class", level])
    columns = sorted(wide.columns, key=lambda column: (size_order(column[0]), _level_order(column[1])))
    ordered: pd.DataFrame = wide[columns]
    return ordered


def _level_order(level: Any) -> float:
    """Numbers ascend, names keep the order in which they occur."""
    return 0 if isinstance(level, str) else level


def levels(wide: pd.DataFrame, size: Size) -> list[Any]:
    """The levels of one size, ascending."""
    columns: Any = wide.columns
    return [level for n, level in columns if n == size]


def at(wide: pd.DataFrame, size: Size, wanted: list[Any], min_units: int = 2) -> pd.DataFrame:
    """The columns of one size and these levels, only for units that have all of them.

    Raises:
        Missing: a level is absent, or fewer than `min_units` units have them all.
    """
    absent = [level for level in wanted if (size, level) not in wide]
    name = wide.columns.names[1]
    if not wanted:
        raise Missing(f"No finished runs with n_per_class={size} in this experiment.")
    if absent:
        raise Missing(f"No finished runs with n_per_class={size}, {name}={_join(absent)} in this experiment.")
    complete = wide[[(size, level) for level in wanted]].dropna()
    complete.columns = pd.Index(wanted)
    if len(complete) < min_units:
        raise Missing(f"Fewer than {min_units} splits are finished at n_per_class={size}, {name}={_join(wanted)}.")
    return complete


def difference(wide: pd.DataFrame, size: Size, level: Any, reference: Any) -> "pd.Series[Any]":
    """Per unit, one level minus another at one size; raises `Missing` as `at` does."""
    pair = at(wide, size, [level, reference])
    return pd.Series(pair[level] - pair[reference])
