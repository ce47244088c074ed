"""Who a run is, and its row: factors, measurements, provenance. One file a run, written aside and renamed.

from tlprotocols.results import load
load("results")                                      # a DataFrame, also while a sweep runs

python -m tlprotocols.results results --to table.csv     # or .parquet
python -m tlprotocols.results results --take table.csv   # rows made elsewhere, or last year, count as finished
"""

import argparse
import csv
import dataclasses
import functools
import hashlib
import json
import os
import sys
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from tlprotocols.config.schema import Config, Rates

if TYPE_CHECKING:
    import pandas

COUNTS = ("n_per_class", "base.n_per_class")  # columns of whole numbers and `full`
TEXTS = (
    "run_id",
    "base_id",
    "base_weights",
    "weights_digest",
    "dataset.fingerprint",
    "classes.source",
    "classes.target",
    "host",
)
IDENTITY = 1  # version of the rule below; raise it and every id changes
DIGEST = 16  # hexadecimal digits that are kept of a SHA-256: 64 bits
Row = dict[str, Any]


def factors(config: Config) -> Row:
    """Every factor under its override's name, the columns of the table and the content of the id.

    What cannot matter is left out: the base of a run that copies nothing, class names unless they are given, and a
    later factor that still has its legacy value.
    """
    return {key: _text_of(value) if isinstance(value, tuple) else value for key, value in _identity(config).items()}


def _identity(config: Config) -> Row:
    """Every factor that can matter, lists as tuples."""
    if config.layers == 0:
        config = dataclasses.replace(config, base=dataclasses.replace(config.base, name="none"))
    flat = _flat(config, "")
    if config.base.name == "none":
        flat = {key: value for key, value in flat.items() if not key.startswith("base.")}
    idle = {f"lr.layers.{name}" for name, rate in config.lr.layers.items() if _is_default_rate(config, name, rate)}
    return {key: value for key, value in flat.items() if value is not None and key not in idle}


def _is_default_rate(config: Config, layer: str, rate: float) -> bool:
    """Whether an explicit rate of a layer changes nothing: the layer is frozen, or has that rate anyway."""
    place, low = config.model.stages.index(layer), len(config.model.stages) - config.high_lr_layers
    return place < config.freeze or (place < low and rate == config.lr.low)


def _text_of(values: tuple[Any, ...]) -> str:
    """A list in a cell of the table: `a,b`; in JSON where an item has a comma itself."""
    texts = [str(value) for value in values]
    return json.dumps(texts, ensure_ascii=False) if any("," in text for text in texts) else ",".join(texts)


def run_id(config: Config) -> str:
    """Same factors, same id, on whatever machine: 64 bits of SHA-256 of the factors in canonical JSON."""
    return identifier(_identity(config), type(config))


def identifier(named: Row, kind: type = Config) -> str:
    """The id of these factors. A list is hashed as its joined text, unless an item has a comma itself: such lists
    stay lists, since ['a,b', 'c'] and ['a', 'b,c'] would join to one text."""
    legacy = _legacy(kind)
    content = {key: value for key, value in named.items() if key not in legacy or value != legacy[key]}
    hashed = {
        key: _text_of(value) if isinstance(value, tuple) and not any("," in str(item) for item in value) else value
        for key, value in content.items()
    }
    text = json.dumps({"identity": IDENTITY, **hashed}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST]


def base_of(config: Config) -> Config | None:
    """The run whose weights `config` copies; None if it copies none.

    It learns the other half (or, for `base=self`, the same one) by the recipe under `base.*`, from scratch, with the
    same split and seed: hence one base for all runs of a split and seed.
    """
    if config.layers == 0 or config.base.name == "none":
        return None
    base, half = config.base, config.target
    if base.name == "trained":
        half = "A" if half == "B" else "B"
    recipe: Row = {f.name: getattr(base, f.name) for f in dataclasses.fields(base) if f.name not in ("name", "lr")}
    lr = Rates(high=base.lr.high, low=base.lr.high, step=base.lr.step, gamma=base.lr.gamma, layers={})
    whole = {"high_lr_layers": len(config.model.stages), "decay_epochs": base.lr.step, "schedule": "own_clock"}
    scratch = {"layers": 0, "freeze": 0, "freeze_random": False, "subset": "first", "curve": False}
    changes: Row = {
        **recipe,
        **whole,
        **scratch,
        "lr": lr,
        "target": half,
        "base": dataclasses.replace(base, name="none"),
    }
    return dataclasses.replace(config, **changes)


def _flat(values: Any, path: str) -> Row:
    found: Row = {}
    for field in dataclasses.fields(values):
        value, key = getattr(values, field.name), path + field.name
        if not field.metadata["factor"]:
            continue
        if dataclasses.is_dataclass(value):
            found |= _flat(value, key + ".")
        elif isinstance(value, dict):
            found |= {f"{key}.{name}": rate for name, rate in value.items()}
        else:  # a group's name stands for the group: `dataset`, not `dataset.name`
            found[key.removesuffix(".name")] = (
                tuple(sorted(set(value))) if field.metadata["unordered"] and value else value
            )
    return found


@functools.cache
def _legacy(kind: Any) -> Row:
    """Values that later factors had before they existed."""
    from tlprotocols.config.validate import keys

    known = {key: about["legacy"] for key, about in keys(kind)}
    return {key: value for key, value in known.items() if value is not dataclasses.MISSING}


def weights_digest(path: Path) -> str | None:
    """The digest of a file of weights as it is now; None if there is no file."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST]
    except FileNotFoundError:
        return None


def write_aside(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees all of it or none, whenever the writer is killed."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(aside, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


@dataclasses.dataclass(frozen=True)
class Files:
    """Where a run's files lie: its row under rows/, everything else under runs/RUN_ID/."""

    results: Path
    id: str

    @property
    def row(self) -> Path:
        """The result; its existence is what makes a run finished."""
        return self.results / "rows" / f"{self.id}.json"

    @property
    def folder(self) -> Path:
        """Configuration, log, weights, checkpoint, curve."""
        return self.results / "runs" / self.id

    @property
    def config(self) -> Path:
        """The frozen configuration that a worker reads."""
        return self.folder / "config.json"

    @property
    def log(self) -> Path:
        """What the run said."""
        return self.folder / "log.txt"

    @property
    def weights(self) -> Path:
        """Final weights; only bases keep them."""
        return self.folder / "weights.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The state after some epoch, while the run is unfinished."""
        return self.folder / "checkpoint.safetensors"

    @property
    def curve(self) -> Path:
        """Epoch by epoch, if it was asked for."""
        return self.folder / "curve.csv"

    @property
    def lock(self) -> Path:
        """Held by the process that executes the run; the system lets go of it when that process ends."""
        return self.folder / "lock"

    @property
    def failure(self) -> Path:
        """Why the last attempt failed; gone once the run is finished."""
        return self.folder / "failed.txt"


def files(config: Config, results_dir: str | None = None) -> Files:
    """The files of a run."""
    return Files(Path(results_dir or config.results_dir).expanduser(), run_id(config))


def is_running(paths: Files) -> bool:
    """Whether some process executes the run at this moment."""
    if not paths.lock.exists():
        return False
    lock = FileLock(paths.lock)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


def read_config(paths: Files) -> Config:
    """The configuration of a run as it was planned.

    Raises:
        ValueError: the file is gone or damaged: it does not describe this run.
    """
    from tlprotocols.config.validate import build

    try:
        config = build(json.loads(paths.config.read_bytes()))
        found = run_id(config)
    except (OSError, ValueError) as error:
        found = f"unreadable: {error}"
    if found != paths.id:
        raise ValueError(
            f"{paths.config}: does not describe run {paths.id} ({found}); delete it and run the same command again"
        )
    return config


def read_row(path: Path) -> Row | None:
    """A row, or None if the run is not finished."""
    try:
        row: Row = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return row


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


def take(table: str | os.PathLike[str], results: str | os.PathLike[str]) -> int:
    """Put the rows of an exported table into a results folder, where their runs then count as finished.

    Rows that are there already stay. Returns how many were new.
    """
    folder = Path(results).expanduser() / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    new = [row for row in read_rows(Path(table)) if not (folder / f"{row['run_id']}.json").exists()]
    for row in new:
        there = _present(row)
        write_aside(folder / f"{row['run_id']}.json", json.dumps({key: there.get(key) for key in row}, indent=1))
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
        found = sorted(file for file in os.listdir(path / "rows") if file[0] != ".") if (path / "rows").is_dir() else []
        return [json.loads((path / "rows" / name).read_bytes()) for name in found]
    raise FileNotFoundError(f"{path}: no results here; give the results_dir of a sweep, or an exported table")


def _cell(key: str, text: str) -> Any:
    """What `to_csv` wrote: texts that look like numbers stay texts, numbers keep their last bit."""
    if key in TEXTS or text in ("", "True", "False"):
        return {"": None, "True": True, "False": False}.get(text, text)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def whole_numbers(row: Row) -> Row:
    """Whole numbers as such: in a column with missing values pandas makes them fractions."""
    return row | {
        key: int(row[key])
        for key in _whole_factors() & row.keys()
        if isinstance(row[key], float) and row[key] == row[key]
    }


@functools.cache
def _whole_factors() -> frozenset[str]:
    from tlprotocols.config.validate import keys

    return frozenset(key for key, about in keys() if int in (about["type"], *typing.get_args(about["type"])))


def _present(row: Row) -> Row:
    """A row without its missing values, in whatever kind of file it was kept."""
    there = {key: value for key, value in row.items() if value is not None and value == value}
    return there | {key: there[key] if there[key] == "full" else int(there[key]) for key in COUNTS if key in there}


def _completed(row: Row) -> Row:
    """A row that may be older than some factor, with the value that the factor had then."""
    legacy = _legacy(Config)
    if row.get("base", "none") == "none":
        legacy = {key: value for key, value in legacy.items() if not key.startswith("base.")}
    return row | {key: value for key, value in legacy.items() if key not in row or row[key] is None}


def _order(column: "pandas.Series[Any]") -> "pandas.Series[Any]":
    """`full` comes after every number."""
    return column.map(lambda v: 10**9 if v == "full" else v) if column.name == "n_per_class" else column


def main() -> None:
    """`python -m tlprotocols.results DIR --to FILE`: export the table; `--take FILE`: the way back."""
    parser = argparse.ArgumentParser(prog="python -m tlprotocols.results", description="Export the table of results.")
    parser.add_argument("results", nargs="?", default="results", help="folder of the results (results_dir)")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--to", help="file to write: .csv or .parquet")
    way.add_argument("--take", help="exported file whose rows to put into the folder: their runs count as finished")
    parser.add_argument("--bases", action="store_true", help="with --to, also the rows of base networks")
    asked = parser.parse_args()
    try:
        if asked.take:
            print(f"{take(asked.take, asked.results)} new rows in {asked.results}")
            return
        table = load(asked.results, bases=asked.bases)
    except FileNotFoundError as error:
        sys.exit(str(error))
    if asked.to.endswith(".parquet"):
        for key in set(COUNTS) & set(table):  # a parquet column holds numbers or texts
            table[key] = [None if n != n else str(n).removesuffix(".0") for n in table[key]]
        table.to_parquet(asked.to)
    elif asked.to.endswith(".csv"):
        table.to_csv(asked.to, index=False)
    else:
        sys.exit(f"--to {asked.to}: must end in .csv or .parquet")
    print(f"{len(table)} rows -> {asked.to}")


if __name__ == "__main__":
    main()
