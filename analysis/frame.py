"""One study out of a table: the rows that differ only in what the paper varies, and the cells of an experiment."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import pandas as pd

from tlprotocols.schema import Config

VARIED = ("layers", "freeze", "n_per_class", "split", "target", "seed", "high_lr_layers", "decay_epochs")
UNIT = ["split", "target", "seed"]
ALL = 8  # high_lr_layers of a network whose every layer starts at lr.high
Size = int | str


class Missing(LookupError):
    """What a figure, table or claim needs and the table does not have, as one sentence."""

    def __str__(self) -> str:
        return str(self.args[0])


def study(table: pd.DataFrame) -> pd.DataFrame:
    """The table's largest study, with `accuracy` in percent and `gap`, validation minus training loss, in nats.

    A study is the rows that agree in everything but the factors of `VARIED` (and, for runs that copy nothing, in
    everything but the base); runs of other datasets, widths, schedules, ... are left out. A study stays as it is.
    """
    if {"accuracy", "gap"} <= set(table.columns):
        return table
    if table.empty:
        raise Missing("The table has no rows.")
    keys = _keys(table.columns)
    own = _alike(table, [key for key in keys if key.split(".")[0] != "base"])
    bases = _alike(table, [key for key in keys if key.split(".")[0] == "base"])
    rows = own == own.mode()[0]
    copying = table["layers"] > 0
    if (rows & copying).any():
        rows &= ~copying | (bases == bases[rows & copying].mode()[0])
    found: pd.DataFrame = table[rows].copy()
    found["accuracy"] = 100 * found["val_top1"]
    found["gap"] = found["val_loss"] - found["train_loss"]
    return found


def _alike(table: pd.DataFrame, keys: list[str]) -> "pd.Series[int]":
    """A number per row, the same for rows that agree in all these columns; a factor that a row lacks is a value too."""
    if not keys:
        return pd.Series(0, table.index)
    return table.groupby(keys, dropna=False, sort=False).ngroup()


def left_out(table: pd.DataFrame) -> list[str]:
    """A sentence for each factor in which the rows that `study` leaves out differ from those that it keeps."""
    kept = study(table)
    others = table.drop(kept.index)
    told = []
    for key in _keys(table.columns):
        only = sorted(set(others[key].dropna().astype(str)) - set(kept[key].dropna().astype(str)))
        if only:
            count = int(others[key].astype(str).isin(only).sum())
            told.append(f"{count} rows of another study: {key}={','.join(only)} ({_said(kept[key])} here)")
    if len(others) and not told:
        told.append(f"{len(others)} rows of another study: other combinations of the same values")
    return told


def _said(column: "pd.Series[Any]") -> str:
    values = column.dropna().astype(str).unique()
    return str(values[0]) if len(values) else "none"


def _keys(columns: Iterable[str]) -> list[str]:
    """The factors, as columns, that must be equal within a study."""
    named = {name.removesuffix(".name") for name in _factors(Config, "")} - set(VARIED)
    return [column for column in columns if column in named or column.startswith("lr.layers.")]


def _factors(schema: Any, path: str) -> Iterable[str]:
    for field in dataclasses.fields(schema):
        if dataclasses.is_dataclass(field.type) and field.metadata["factor"]:
            yield from _factors(field.type, f"{path}{field.name}.")
        elif field.metadata["factor"]:
            yield path + field.name


def step(rows: pd.DataFrame) -> int:
    """Epochs between two falls of a rate: 30 in the paper, fewer in a scaled study."""
    return int(rows["lr.step"].iloc[0])


def pick(rows: pd.DataFrame, **factors: Any) -> pd.DataFrame:
    """The rows with these values; a list means any of its values.

    Raises:
        Missing: there are none.
    """
    found = rows
    for name, value in factors.items():
        found = found[found[name].isin(value) if isinstance(value, list) else found[name] == value]
    if found.empty:
        asked = ", ".join(f"{name}={_list(v) if isinstance(v, list) else v}" for name, v in factors.items())
        raise Missing(f"No finished runs with {asked}.")
    return found


def _list(values: list[Any]) -> str:
    return "|".join(map(str, values))


def order(size: Size) -> int:
    """Sort key of images per class: `full` comes after every number."""
    return 10**9 if size == "full" else int(size)


def sizes(rows: pd.DataFrame, full: bool = True) -> list[Size]:
    """The images per class that occur, ascending; `full=False` leaves the whole set out."""
    found = sorted(set(rows["n_per_class"]), key=order)
    return [size for size in found if full or size != "full"]


def cells(rows: pd.DataFrame, level: str, value: str = "accuracy") -> pd.DataFrame:
    """One row per (split, target, seed), one column per (images per class, level)."""
    wide: Any = rows.groupby([*UNIT, "n_per_class", level], sort=False)[value].mean().unstack(["n_per_class", level])
    found: pd.DataFrame = wide[sorted(wide.columns, key=lambda column: (order(column[0]), _rank(column[1])))]
    return found


def _rank(level: Any) -> float:
    """Numbers ascend, names stay in the order in which they occur."""
    return 0 if isinstance(level, str) else level


def levels(wide: pd.DataFrame, size: Size) -> list[Any]:
    """The levels of one size, ascending."""
    found: Any = wide.columns
    return [level for n, level in found if n == size]


def at(wide: pd.DataFrame, size: Size, wanted: list[Any], least: int = 2) -> pd.DataFrame:
    """The columns of one size, these levels, only units that have all of them.

    Raises:
        Missing: a level is absent, or fewer than `least` units have them all.
    """
    absent = [level for level in wanted if (size, level) not in wide]
    name = wide.columns.names[1]
    if not wanted:
        raise Missing(f"No finished runs with n_per_class={size} in this experiment.")
    if absent:
        raise Missing(f"No finished runs with n_per_class={size}, {name}={_list(absent)} in this experiment.")
    found = wide[[(size, level) for level in wanted]].dropna()
    found.columns = pd.Index(wanted)
    if len(found) < least:
        raise Missing(f"Fewer than {least} splits are finished at n_per_class={size}, {name}={_list(wanted)}.")
    return found
