"""The table of results: one row per finished run, read, exported and imported.

from tlprotocols.results import load
load("results")                              # a DataFrame, also while a sweep runs
load(["results", "table.csv"], sweep="pets") # joined and narrowed

python -m tlprotocols.results --help         # list, show, compare, delete, prune, import, export
"""

import csv
import functools
import io
import json
import logging
import os
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlprotocols.config.identity import Factors, identifier, legacy_values
from tlprotocols.config.validate import keys
from tlprotocols.records import Files, Row, add_labels, has_curve, read_row, with_labels, write_row

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)

WORDS = ("full", "bit")  # which these columns of whole numbers may have instead
COUNTS = ("n_per_class", "base.n_per_class", "max_updates", "base.max_updates")
FACTORS = {key.removesuffix(".name") for key, about in keys() if about["factor"]} - {"lr.layers"}
LISTS = ("classes.source", "classes.target")
LABELS = ("protocol", "sweep", "dataset_folder", "classes_digest")  # what a row says beside factors and measurements
MEASURED = (  # columns of a row beside its factors, in its order
    *("run_id", "base_id", "base_weights", "base_top1", "base_collapsed", "base_diverged"),
    *("train_loss", "train_eval_loss", "train_top1", "val_loss", "val_top1", "val_balanced_top1"),
    *(
        "val_top1_even",
        "val_top1_odd",
        "test_top1",
        "test_balanced_top1",
        "test_loss",
        "test_images",
        "val_top1_best",
        "val_top1_mean10",
    ),
    *("epoch_at_least_val_loss", "val_top1_at_least_val_loss", "test_top1_at_least_val_loss"),
    *("epoch_at_best_val_top1", "val_top1_at_best_val_top1", "test_top1_at_best_val_top1"),
    *("epochs_to_near_best", "epochs_to_first_fall", "collapsed", "underfitted", "diverged"),
    *("features_cached", "trainable_parameters", "peak_memory_mb", "probe_top1", "pixel_mean"),
    *(
        "classes_learned",
        "train_images",
        "epochs_trained",
        "updates",
        "images_per_second",
        "weights_digest",
        "curve_digest",
    ),
    *("seconds", "device", "role", "log", *LABELS, "command", "job", "commit"),
    *("tlprotocols", "torch", "python", "host", "date"),
)
ADDED = ("images_per_class",)  # by `load`
TEXTS = (  # columns whose values may look like numbers
    "run_id",
    "base_id",
    "base_weights",
    "weights_digest",
    "curve_digest",
    "dataset.fingerprint",
    "base.dataset.fingerprint",
    "base.digest",
    "classes.source",
    "classes.target",
    "head",
    "lr.milestones",
    "base.lr.milestones",
    "host",
    "sweep",
    "dataset_folder",
    "classes_digest",
    "command",
    "job",
    "commit",
)


def load(
    results: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = "results",
    bases: bool = False,
    sweep: str | None = None,
    protocol: str | None = None,
) -> "pandas.DataFrame":
    """The table: one row per finished run, columns named as overrides, sorted by the swept factors.

    `results` is a results folder, or a table that was exported as .csv or .parquet, or a list of these, of which equal
    runs count once and have the sweeps of all. With `bases`, also the rows of networks that were trained only to be
    copied from. `sweep` and `protocol` keep the rows with this label. Rows older than a factor have its legacy value,
    rows older than the label `protocol` the name that fits their factors. `images_per_class` is `n_per_class` as a
    number, for axes: with `full` the mean over the classes. Before the first row the table is empty and has its
    columns.

    Raises:
        FileNotFoundError: there is no such folder or file.
    """
    import pandas

    places = [results] if isinstance(results, str | os.PathLike) else list(results)
    by_id: dict[str, Row] = {}
    for place in reversed(places):
        for row in read_rows(Path(place).expanduser()):
            later = by_id.get(row["run_id"])
            by_id[row["run_id"]] = with_labels(row, later) if later else row
    rows = [row for row in by_id.values() if bases or (row.get("role") or "run") == "run"]
    completed = [_completed(_present(row)) for row in rows]
    kept = [row for row in completed if _labelled(row, sweep, protocol)]
    found = dict.fromkeys(key for row in (*rows, *completed) for key in row)  # of files first, in their order
    names = list(found) if rows else [*_factor_columns(), *MEASURED, *ADDED]
    columns = sorted(names, key=lambda name: name in ADDED)  # the last ones: no file has them in its order
    table = pandas.DataFrame(kept, columns=columns)
    by = [c for c in ("dataset", "split", "target", "seed", "n_per_class", "layers", "freeze") if c in table]
    return table.sort_values(by, key=_order).reset_index(drop=True) if by else table


def _labelled(row: Row, sweep: str | None, protocol: str | None) -> bool:
    return (sweep is None or sweep in (row.get("sweep") or "").split(",")) and protocol in (None, row.get("protocol"))


def _factor_columns() -> list[str]:
    names = [key.removesuffix(".name") for key, about in keys() if about["factor"]]
    return [name for name in names if name in FACTORS]


def load_curves(results: str | os.PathLike[str] = "results") -> "pandas.DataFrame":
    """The curves of all runs that have one (`curve=true`): `run_id`, `epoch`, `train_loss`, `val_loss`, `val_top1`.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    import pandas

    folder = Path(results).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no results here; give the results_dir of a sweep")
    columns, parts = ["run_id", "epoch", "train_loss", "val_loss", "val_top1"], []
    for file in sorted(folder.glob("runs/*/curve.csv")):
        paths = Files(folder, file.parent.name)
        try:
            table = pandas.read_csv(file).assign(run_id=paths.id)
            whole = has_curve(paths, read_row(paths.row) or {}) and set(columns) <= set(table)
        except (OSError, ValueError):
            whole = False
        if whole:
            parts.append(table)
        else:
            log.warning("%s: damaged, and left out; the command that had curve=true makes it anew", file)
    return pandas.concat(parts, ignore_index=True)[columns] if parts else pandas.DataFrame(columns=columns)


def selected(table: "pandas.DataFrame", query: str | None) -> "pandas.DataFrame":
    """The rows of a pandas query, as in `layers == 5 and dataset == 'folder'`; without a query, all.

    Raises:
        ValueError: it is no query, or names no column.
    """
    if not query:
        return table
    try:
        absent = [name for name in (*MEASURED, *ADDED) if name not in table]
        mask: Any = table.assign(**dict.fromkeys(absent)).eval(query)
        if str(getattr(mask, "dtype", "")) not in ("bool", "boolean"):
            raise TypeError("it does not say yes or no to each row")
        return typing.cast("pandas.DataFrame", table[mask])
    except Exception as error:  # pandas lets through whatever its parser and its operators raise
        columns = ", ".join(key for key in table if key in FACTORS and "." not in key)
        why = " ".join(str(error).split())
        number = " images_per_class is n_per_class as a number;" if "n_per_class" in query else ""
        raise ValueError(
            f"query={query}: is no query of this table ({why});{number} columns are {columns}, ...;"
            " one with a dot needs backticks, as in `lr.high` == 0.01"
        ) from error


def import_rows(table: str | os.PathLike[str], results: str | os.PathLike[str]) -> int:
    """Put the rows of an exported table into a results folder, where their runs then count as finished.

    Rows that are there already stay, and get the imported names of sweeps; damaged ones are replaced. Returns how many
    were new.

    Raises:
        ValueError: the id of a row is not that of its factors.
    """
    folder = Path(results).expanduser() / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    rows, new = read_rows(Path(table)), 0
    for row in rows:
        if identifier(identity_of_row(row)) != row["run_id"]:
            raise ValueError(f"{table}: run {row['run_id']} has other factors than its id says; nothing was imported")
    for row in rows:
        path, there = folder / f"{row['run_id']}.json", _present(row)
        if read_row(path) is not None:
            add_labels(path, row)
        else:  # none, or a damaged one, which counts as none
            write_row(path, {key: there.get(key) for key in row if key not in ADDED})
            new += 1
    return new


def read_rows(path: Path) -> list[Row]:
    """Rows as they were written: of a results folder, or of an exported table.

    Raises:
        FileNotFoundError: there is no such folder or file.
    """
    if path.suffix in (".parquet", ".csv") and path.is_file():
        try:
            rows = _parquet(path) if path.suffix == ".parquet" else _csv(path)
        except (OSError, ValueError, csv.Error) as error:
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{path}: is damaged, or no exported table ({why}); export it again") from error
        return [whole_numbers(row) for row in rows]
    if path.is_dir():
        files = sorted((path / "rows").glob("[!.]*.json"))
        if not files and (tables := sorted({*path.glob("rows*.csv"), *path.glob("*/rows*.csv")})):
            named = ", ".join(map(str, tables[:3])) + (", ..." if len(tables) > 3 else "")
            log.warning("%s: no rows of a sweep here, but exported tables, to be given by name: %s", path, named)
        return [row for file in files if (row := read_row(file)) is not None]
    raise FileNotFoundError(f"{path}: no results here; give the results_dir of a sweep, or an exported table")


def _parquet(path: Path) -> list[Row]:
    import pandas

    table = pandas.read_parquet(path)
    if "run_id" not in table:
        raise ValueError("it has no run_id")
    rows = table.to_dict("records")
    return [{str(key): None if value != value else value for key, value in row.items()} for row in rows]


def _csv(path: Path) -> list[Row]:
    rows, text = [], path.read_bytes().decode()
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    if "run_id" not in (reader.fieldnames or ()):
        raise ValueError("it has no run_id")
    if not text.endswith("\n"):
        raise ValueError("its last line is cut")
    for number, row in enumerate(reader, 1):
        if None in row or None in row.values():
            raise ValueError(f"row {number} has another number of cells than the first line")
        rows.append({key: _cell(key, cell) for key, cell in row.items()})
    return rows


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
    return there | {key: there[key] if there[key] in WORDS else int(there[key]) for key in COUNTS if key in there}


def _completed(row: Row) -> Row:
    """A row that may be older than some factor, with the value that the factor had then, and with what `load` adds."""
    from tlprotocols.config.protocols import protocol_of

    legacy = {key: value for key, value in legacy_values().items() if value is not None}
    if row.get("base", "none") in ("none", "weights"):  # no base was trained
        legacy = {key: value for key, value in legacy.items() if not key.startswith("base.")}
    row = row | {key: value for key, value in legacy.items() if value is not None and row.get(key) is None}
    n, total, classes = row.get("n_per_class"), row.get("train_images"), row.get("classes_learned")
    mean = total / classes if n == "full" and total and classes else None
    added = {"protocol": row.get("protocol") or protocol_of(row), "images_per_class": mean if n == "full" else n}
    return row | {key: value for key, value in added.items() if value is not None or key in row}


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
        raise ValueError(f"{to}: must end in .csv or .parquet")
    return len(table)
