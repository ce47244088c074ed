"""A study: what a paper varied, and the figures, tables and claims to make from the rows of that study.

Each study is a package that exports one `STUDY`; `analysis.studies` lists them.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib import figure

from analysis.claim import Claim
from analysis.frame import Missing, factors
from analysis.panels import Comparison, LevelFigure
from analysis.selection import has_test
from tlprotocols.config.identity import legacy_values

Rows = pd.DataFrame  # of one study, as `Study.rows` returns them
IMAGES_OF = ["n_per_class", "dataset", "classes", "split", "target"]  # what decides the number of a run's test images


@dataclass(frozen=True)
class Figure:
    """A figure of any kind; `analysis.panels.LevelFigure` has the same interface. The functions take the study's rows
    and raise `Missing` where these lack what the figure shows."""

    name: str  # stem of the files, after the study's prefix
    title: str
    draw: Callable[[Rows], figure.Figure]
    caption: Callable[[Rows], str]
    compare_with_paper: Callable[[Rows], list[Comparison]] = lambda rows: []


@dataclass(frozen=True)
class Table:
    """A table of a study.

    `make` takes the study's rows and the selection ("all" or "heldout", see `analysis.selection`), and raises `Missing`
    where the rows do not suffice. Columns whose names end in `low` and `high` are the interval of the column before.
    """

    name: str  # stem of the csv file, after the study's prefix
    title: str
    note: str
    make: Callable[[Rows, str], pd.DataFrame]
    shown: tuple[str, ...] = ()  # columns in the report; (): all. The csv file always has all


@dataclass(frozen=True)
class Study:
    """Everything that a report shows of one paper."""

    name: str  # of the package, and of the report's section
    title: str
    description: str
    varied: tuple[str, ...]  # factors that differ within the study; its rows agree in all others
    unit: tuple[str, ...]  # columns that identify an independent unit; seeds are replicates within it
    figures: tuple[Figure | LevelFigure, ...]
    tables: tuple[Table, ...]
    claims: tuple[Claim, ...]
    published: Callable[[], pd.DataFrame]  # the numbers that the paper or its logs contain
    claims_note: str = ""
    prefix: str = ""  # of the names of its files
    query: str = ""  # rows of the table that the study can use, as a pandas query; "": all
    beside: tuple[str, ...] = ()  # its rows are the published ones, and it stands beside these studies of the report
    mixed: bool = False  # rows measured on unlike images stay, in cells of their own, and on validation images

    @property
    def reads_results(self) -> bool:
        """Whether its rows are ours."""
        return not self.beside

    def rows(self, table: pd.DataFrame) -> Rows:
        """The rows of this study, with five more columns, and an empty one for each varied factor that no row has.

        `accuracy` is in percent; `gap` is validation minus training loss in nats; `unit` numbers the units from 0. If
        there is one unit only, it numbers its seeds, and `unit_is_seed` is true.
        Rows of one study agree in every factor but the varied ones (runs that copy nothing: whatever their base);
        where several groups of rows do, the largest is used. They are measured on like images: on test images if at
        least half of them have some, and then only these are used, of one size those with the most frequent images; or
        else all on validation images.

        Raises:
            Missing: there are none.
        """
        if not self.reads_results:
            return self.published()
        rows = self._on_like_images(self._agreeing(table))[0]
        rows["accuracy"] = 100 * (rows["test_top1"] if has_test(rows) else rows["val_top1"])
        rows["val_accuracy"] = 100 * rows["val_top1"]  # what settings are chosen by
        rows["gap"] = rows["val_loss"] - rows["train_loss"]
        units = rows.groupby(list(self.unit)).ngroup()
        rows["unit_is_seed"] = units.nunique() == 1 < rows["seed"].nunique()
        rows["unit"] = rows.groupby("seed").ngroup() if rows["unit_is_seed"].any() else units
        return rows

    def _agreeing(self, table: pd.DataFrame) -> Rows:
        """The largest group of rows that agree in all factors but the varied ones."""
        if table.empty:
            raise Missing("The table has no rows.")
        try:
            candidates = table.query(self.query) if self.query else table
        except pd.errors.UndefinedVariableError:  # a table that is older than a factor, or has a part of the columns
            candidates = table.head(0)
        if candidates.empty:
            raise Missing(f"The table has no rows with {self.query}.")
        old = {key: value for key, value in legacy_values().items() if key in candidates and value is not None}
        group = _largest_group(candidates.fillna(old), self._fixed(table.columns))  # left out where it cannot matter
        absent = [name for name in self.varied if name not in table]  # of a table older than the factor, or without it
        return candidates.loc[group.index].assign(**dict.fromkeys(absent, None))

    def _on_like_images(self, rows: Rows) -> tuple[Rows, list[str]]:
        """Those of the rows that are measured on like images, and a sentence for each reason why others are not."""
        if "test_top1" not in rows:
            return rows, []
        without = rows["test_top1"].isna()
        if without.mean() > 0.5 or (self.mixed and without.any()):
            return rows.assign(test_top1=math.nan), []
        sentences = [f"{without.sum()} rows without test images (this study: accuracy on test images)"]
        rows, found = rows[~without].copy(), sentences if without.any() else []
        if self.mixed:
            return rows, found
        for column, within in (("test_per_class", ["n_per_class"]), ("test_images", IMAGES_OF)):
            rows, more = _most_frequent(rows, column, [key for key in within if key in rows])
            found += more
        return rows, found

    def unused(self, table: pd.DataFrame) -> list[str]:
        """For each factor in which rows outside the study differ from its rows: how many, and their values; then those
        that are measured on other images.

        A row counts once, under the first such factor.
        """
        if not self.reads_results:
            return []
        rows = self._agreeing(table)
        left = table.drop(rows.index)
        sentences = []
        for key in self._fixed(table.columns):
            values = sorted(set(left[key].dropna().astype(str)) - set(rows[key].dropna().astype(str)))
            if values:
                differ = left[key].astype(str).isin(values)
                own = next(iter(rows[key].dropna().astype(str)), "none")
                sentences.append(f"{int(differ.sum())} rows with {key}={','.join(values)} (this study: {own})")
                left = left[~differ]
        if len(left):
            sentences.append(f"{len(left)} rows with other combinations of the same values")
        return sentences + self._on_like_images(rows)[1]

    def _fixed(self, columns: Iterable[str]) -> list[str]:
        """The factors, as columns, in which the rows of the study agree."""
        return [name for name in factors(columns) if name not in self.varied]


def _most_frequent(rows: Rows, column: str, within: list[str]) -> tuple[Rows, list[str]]:
    """The rows with the most frequent value of a column, in each group of rows that agree `within`; and sentences that
    name the others."""
    if column not in rows or rows[column].isna().all():
        return rows, []
    usual = rows.groupby(within, sort=False, dropna=False)[column].transform(lambda one: one.mode().max())
    others = rows.assign(usual=usual)[(rows[column] != usual) & rows[column].notna()]
    counts: Any = others.groupby(["n_per_class", column, "usual"], sort=False).size()
    sentences = [
        f"{count} rows of n_per_class={n} with {column}={value:g} (this study: {usual:g})"
        for (n, value, usual), count in counts.items()
    ]
    return rows.drop(others.index), sentences


def _largest_group(table: pd.DataFrame, fixed: list[str]) -> pd.DataFrame:
    """The largest group of rows that agree in all these columns; base.* counts only for runs that copy layers."""
    own = _group_numbers(table, [key for key in fixed if key.split(".")[0] != "base"])
    bases = _group_numbers(table, [key for key in fixed if key.split(".")[0] == "base"])
    chosen = own == own.mode()[0]
    copying = table["layers"] > 0
    if (chosen & copying).any():
        chosen &= ~copying | (bases == bases[chosen & copying].mode()[0])
    return table[chosen]


def _group_numbers(table: pd.DataFrame, keys: list[str]) -> "pd.Series[int]":
    """A number per row, the same for rows that agree in all these columns; an absent value is a value too."""
    if not keys:
        return pd.Series(0, table.index)
    return table.groupby(keys, dropna=False, sort=False).ngroup()
