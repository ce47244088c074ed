"""Helpers on the rows of a study: select rows, and arrange them as a row per unit and a column per condition.

A *level* is a value of the factor that an experiment varies. A *wide* table has the index (unit, seed) and the columns
(images per class, level).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from tlprotocols.config.validate import keys

Size = int | str  # images per class: a number, or "full"


class Missing(LookupError):
    """What a figure, table or claim needs and the rows do not have, as one sentence."""

    def __str__(self) -> str:
        return str(self.args[0])


def factors(columns: Iterable[Any]) -> list[str]:
    """Those of these columns that are factors of a run."""
    names = {key.removesuffix(".name") for key, about in keys() if about["factor"]}
    return [str(column) for column in columns if column in names or str(column).startswith("lr.layers.")]


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


def _join(values: list[Any], between: str = "|") -> str:
    return between.join(map(str, values))


def one_unit(rows: pd.DataFrame) -> bool:
    """Whether all rows belong to one unit, whose seeds take the place of units."""
    return "unit_is_seed" in rows and bool(rows["unit_is_seed"].any())


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
    """A wide table of `value`; `level` names the column of the levels. Raises `Missing` as `arranged` does."""
    return arranged(rows, ["n_per_class", level], value)


def arranged(rows: pd.DataFrame, levels: Sequence[str], value: str = "accuracy") -> pd.DataFrame:
    """`value` with a row per (unit, seed) and a column per level, or combination of levels, ascending.

    Raises:
        Missing: several runs are in one cell, so that its mean would be that of unlike runs.
    """
    cell = ["unit", "seed", *levels]
    _one_run_each(rows, cell)
    wide: Any = rows.groupby(cell, sort=False)[value].mean().unstack(list(levels))
    columns = sorted(wide.columns, key=lambda column: [_place(level) for level in _as_tuple(column)])
    ordered: pd.DataFrame = wide[columns].sort_index()
    return ordered


def _place(level: Any) -> float:
    """Numbers ascend, `full` comes after them, names keep the order in which they occur."""
    return size_order("full") if level == "full" else 0 if isinstance(level, str) else level


def _as_tuple(column: Any) -> tuple[Any, ...]:
    return column if isinstance(column, tuple) else (column,)


def _one_run_each(rows: pd.DataFrame, cell: list[str]) -> None:
    """Raises `Missing` where a cell has several runs. The same run twice is one; a table without ids has one run for
    each combination of factors."""
    run = ["run_id"] if "run_id" in rows else factors(rows)
    several = rows.dropna(subset=cell).drop_duplicates([*cell, *run])
    several = several[several.duplicated(cell, keep=False)]
    if several.empty:
        return
    first = several[(several[cell] == several[cell].iloc[0]).all(axis=1)]
    where = [*cell[2:], *(name for name in ("split", "target", "seed") if name in rows and first[name].nunique() == 1)]
    place = ", ".join(f"{name}={first[name].iloc[0]}" for name in dict.fromkeys(where))
    values = {name: _values(first[name]) for name in factors(rows) if name not in where}
    differ = {name: found for name, found in values.items() if len(found) > 1}
    if not differ:
        raise Missing(f"{len(first)} runs have {place}, and the table does not say in what they differ.")
    texts = ", ".join(f"{name} ({_join(found, ', ')})" for name, found in differ.items())
    raise Missing(
        f"{len(first)} runs have {place}: they differ in {texts}. "
        f"Leave all but one kind out, as with --query {_without(rows, several, next(iter(differ)))}"
    )


def _values(column: "pd.Series[Any]") -> list[Any]:
    absent = ["none"] if column.isna().any() else []
    return [*sorted(column.dropna().unique().tolist(), key=str), *absent]


def _without(rows: pd.DataFrame, several: pd.DataFrame, factor: str) -> str:
    """A query that leaves out the value of a factor that the fewest rows have, of those that meet others in a cell."""
    value = rows.loc[rows[factor].isin(several[factor]), factor].value_counts().index.tolist()[-1]
    return f'"{f"`{factor}`" if "." in factor else factor} != {value!r}"'


def levels(wide: pd.DataFrame, size: Size) -> list[Any]:
    """The levels of one size, ascending."""
    columns: Any = wide.columns
    return [level for n, level in columns if n == size]


def at(wide: pd.DataFrame, size: Size, wanted: list[Any], min_units: int = 2) -> pd.DataFrame:
    """The columns of one size and these levels, only for units and seeds that have all of them.

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
    if complete.index.unique("unit").size < min_units:
        raise Missing(f"Fewer than {min_units} splits are finished at n_per_class={size}, {name}={_join(wanted)}.")
    return complete


def difference(wide: pd.DataFrame, size: Size, level: Any, reference: Any) -> "pd.Series[Any]":
    """Per unit, one level minus another at one size; raises `Missing` as `at` does."""
    pair = at(wide, size, [level, reference])
    return pd.Series(pair[level] - pair[reference])
