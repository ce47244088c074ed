"""The table of results: one row per finished run, read, exported and imported.

from tlprotocols.results import load
load("results")                                          # a DataFrame, also while a sweep runs

python -m tlprotocols.results results --export table.csv     # or .parquet
python -m tlprotocols.results results --import table.csv     # rows made elsewhere, or last year, count as finished
"""

import argparse
import csv
import functools
import json
import os
import sys
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlprotocols.config.identity import Factors, identifier, legacy_values
from tlprotocols.config.validate import keys
from tlprotocols.records import Row, read_row, write_atomic

if TYPE_CHECKING:
    import pandas

COUNTS = ("n_per_class", "base.n_per_class")  # columns of whole numbers and `full`
FACTORS = {key.removesuffix(".name") for key, about in keys() if about["factor"]} - {"lr.layers"}
LISTS = ("classes.source", "classes.target")
TEXTS = (  # columns whose values may look like numbers
    "run_id",
    "base_id",
    "base_weights",
    "weights_digest",
    "dataset.fingerprint",
    "base.dataset.fingerprint",
    "base.digest",
    "classes.source",
    "classes.target",
    "lr.milestones",
    "base.lr.milestones",
    "host",
)


def load(results: str | os.PathLike[str] = "results", bases: bool = False) -> "pandas.DataFrame":
    """The table: one row per finished run, columns named as overrides, sorted by the swept factors.

    `results` is a results folder, or a table that was exported as .csv or .parquet. With `bases`, also the rows of
    networks that were trained only to be copied from.

    Raises:
        FileNotFoundError: there is no such folder or file.
    """
    import pandas

    rows = [row for row in read_rows(Path(results).expanduser()) if bases or row.get("role", "run") == "run"]
    columns = list(dict.fromkeys(key for row in map(_completed, rows) for key in row))
    table = pandas.DataFrame([_completed(_present(row)) for row in rows], columns=columns or None)
    by = [c for c in ("dataset", "split", "target", "seed", "n_per_class", "layers", "freeze") if c in table]
    return table.sort_values(by, key=_order).reset_index(drop=True) if by else table


def import_rows(table: str | os.PathLike[str], results: str | os.PathLike[str]) -> int:
    """Put the rows of an exported table into a results folder, where their runs then count as finished.

    Rows that are there already stay. Returns how many were new.

    Raises:
        ValueError: the id of a row is not that of its factors.
    """
    folder = Path(results).expanduser() / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    new = [row for row in read_rows(Path(table)) if not (folder / f"{row['run_id']}.json").exists()]
    for row in new:
        if identifier(identity_of_row(row)) != row["run_id"]:
            raise ValueError(f"{table}: run {row['run_id']} has other factors than its id says; nothing was imported")
    for row in new:
        there = _present(row)
        write_atomic(folder / f"{row['run_id']}.json", json.dumps({key: there.get(key) for key in row}, indent=1))
    return len(new)


def read_rows(path: Path) -> list[Row]:
    """Rows as they were written: of a results folder, or of an exported table.

    Raises:
        FileNotFoundError: there is no such folder or file.
    """
    if path.suffix == ".parquet":
        import pandas

        return [
            whole_numbers({str(key): value for key, value in row.items()})
            for row in pandas.read_parquet(path).to_dict("records")
        ]
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [whole_numbers({key: _cell(key, text) for key, text in row.items()}) for row in csv.DictReader(file)]
    if path.is_dir():
        files = sorted((path / "rows").glob("[!.]*.json"))
        return [row for file in files if (row := read_row(file)) is not None]
    raise FileNotFoundError(f"{path}: no results here; give the results_dir of a sweep, or an exported table")


def _cell(key: str, text: str) -> Any:
    """What `to_csv` wrote: texts that look like numbers stay texts, numbers keep their last bit."""
    if key in TEXTS or text in ("", "True", "False"):
        return text or None if key in TEXTS else {"": None, "True": True, "False": False}[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def identity_of_row(row: Row) -> Factors:
    """The factors of a row as they enter its id: lists whose items have commas as tuples."""
    found: Factors = {}
    for key, value in _present(whole_numbers(row)).items():
        if key in FACTORS or key.startswith("lr.layers."):
            found[key] = _list(value) if key in LISTS else value
    return found


def _list(text: str) -> Any:
    """A list that was written as JSON, since its items have commas; any other text as it is."""
    try:
        items = json.loads(text)
    except ValueError:
        return text
    is_list = isinstance(items, list) and any("," in str(item) for item in items)
    return tuple(items) if is_list else text


def whole_numbers(row: Row) -> Row:
    """Whole numbers as such: in a column with missing values pandas makes them fractions."""
    return row | {
        key: int(row[key])
        for key in _whole_factors() & row.keys()
        if isinstance(row[key], float) and row[key] == row[key]
    }


@functools.cache
def _whole_factors() -> frozenset[str]:
    return frozenset(key for key, about in keys() if int in (about["type"], *typing.get_args(about["type"])))


def _present(row: Row) -> Row:
    """A row without its missing values, in whatever kind of file it was kept."""
    there = {key: value for key, value in row.items() if value is not None and value == value}
    return there | {key: there[key] if there[key] == "full" else int(there[key]) for key in COUNTS if key in there}


def _completed(row: Row) -> Row:
    """A row that may be older than some factor, with the value that the factor had then."""
    legacy = {key: value for key, value in legacy_values().items() if value is not None}
    if row.get("base", "none") == "none":
        legacy = {key: value for key, value in legacy.items() if not key.startswith("base.")}
    return row | {key: value for key, value in legacy.items() if value is not None and row.get(key) is None}


def _order(column: "pandas.Series[Any]") -> "pandas.Series[Any]":
    """`full` comes after every number."""
    return column.map(lambda v: 10**9 if v == "full" else v) if column.name == "n_per_class" else column


def export(results: str | os.PathLike[str], to: Path, bases: bool = False) -> int:
    """Write the table of a results folder to a .csv or .parquet file. Returns the number of rows.

    Raises:
        ValueError: the file has another suffix.
    """
    table = load(results, bases=bases)
    if to.suffix == ".parquet":
        for key in set(COUNTS) & set(table):  # a parquet column holds numbers or texts
            table[key] = [None if n != n else str(n).removesuffix(".0") for n in table[key]]
        table.to_parquet(to)
    elif to.suffix == ".csv":
        table.to_csv(to, index=False)
    else:
        raise ValueError(f"--export {to}: must end in .csv or .parquet")
    return len(table)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tlprotocols.results", description="Export or import the table.")
    parser.add_argument("results", nargs="?", default="results", help="folder of the results (results_dir)")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--export", type=Path, help="file to write: .csv or .parquet")
    way.add_argument("--import", dest="table", help="exported file whose rows then count as finished in the folder")
    parser.add_argument("--bases", action="store_true", help="with --export, also the rows of base networks")
    args = parser.parse_args()
    try:
        if args.table:
            print(f"{import_rows(args.table, args.results)} new rows in {args.results}")
        else:
            print(f"{export(args.results, args.export, args.bases)} rows -> {args.export}")
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
