"""What a run leaves on disk: its row, its saved configuration, its lock; and whether that is all that is needed."""

import dataclasses
import hashlib
import json
import logging
import os
import platform
import typing
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tlprotocols.config.identity import DIGEST, factors, legacy_values, run_id
from tlprotocols.config.schema import Config
from tlprotocols.config.validate import build
from tlprotocols.errors import Damaged

Row = dict[str, Any]
MEASURED = ("train_loss", "train_eval_loss", "train_top1", "val_loss", "val_top1", "base_top1", "images_per_second")
NUMBERS = {*MEASURED, "split", "seed", "layers", "freeze"}  # columns that are computed with, or sorted by
ROW_DIGEST = "row_digest"  # of the other values; in the file alone
log = logging.getLogger(__name__)


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
        """The configuration, saved when the run was planned, and again when it begins: another sweep may want a curve
        of the same run, or not."""
        return self.folder / "config.json"

    @property
    def job(self) -> Path:
        """The SLURM job that has the run, or had it."""
        return self.folder / "job.json"

    @property
    def lock(self) -> Path:
        """Held by the process that executes the run."""
        return self.folder / "lock"

    @property
    def log(self) -> Path:
        """Lines of the run, with times."""
        return self.folder / "log.txt"

    @property
    def weights(self) -> Path:
        """Of a base, and of a run with keep_weights=true."""
        return self.folder / "weights.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Where an interrupted run resumes; gone once it is finished."""
        return self.folder / "checkpoint.safetensors"

    @property
    def curve(self) -> Path:
        """One line per epoch, if a curve was requested."""
        return self.folder / "curve.csv"

    @property
    def classes(self) -> Path:
        """Names of the source and the target classes."""
        return self.folder / "classes.json"

    @property
    def predictions(self) -> Path:
        """Probabilities of every evaluated image, if they were requested."""
        return self.folder / "predictions.parquet"

    @property
    def failure(self) -> Path:
        """Why the run fails by an error of its own: tried again only on request; gone once the run is finished."""
        return self.folder / "failed.txt"

    @property
    def accident(self) -> Path:
        """What ended the last attempt that was no error of the run: the same command tries it again."""
        return self.folder / "interrupted.txt"


def files(config: Config, results_dir: str | None = None) -> Files:
    """The files of a run."""
    return Files(Path(results_dir or config.results_dir).expanduser(), run_id(config))


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that whoever reads it sees all of it or none, whenever the writer is killed."""
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = str(path)  # a full disk says no name
        temporary.unlink(missing_ok=True)
        raise


def remove_temporaries(path: Path) -> None:
    """Remove what writers left that were killed while they wrote this file; nobody else may write it now."""
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """The content of a file of JSON.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, or cannot be read: it is damaged, a folder, a pipe, not ours.
    """
    try:
        with open(path, "rb", opener=without_waiting) as file:
            return json.loads(file.read())
    except FileNotFoundError:
        raise
    except (OSError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def without_waiting(path: str, flags: int) -> int:
    """In place of `os.open`: a pipe in a file's place is empty, where reading it would wait for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def reason(path: Path) -> str:
    """The last line of a file that says why a run has no row."""
    try:
        with open(path, errors="replace", opener=without_waiting) as file:
            return (file.read().strip().splitlines() or ["no reason was kept"])[-1]
    except OSError as error:
        return f"the reason cannot be read ({error})"


def file_digest(path: Path) -> str | None:
    """The digest of a file as it is now; None if there is no file."""
    try:
        with open(path, "rb", opener=without_waiting) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST]
    except OSError:
        if path.is_file():
            raise
        return None


def is_running(paths: Files) -> bool:
    """Whether some process executes the run at this moment."""
    if not paths.lock.exists() or _is_free(paths.lock):
        return False
    lock = FileLock(paths.lock)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:  # no lock: a folder that cannot be written to, or in the lock's place; executing will name it
        return False
    lock.release()
    return False


def _is_free(lock: Path) -> bool:
    """Whether a lock can be shared for a moment: whoever executes has it alone, others who look share it, too. False
    also where there are no such locks."""
    try:
        import fcntl

        with open(lock, "rb", opener=without_waiting) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (ImportError, OSError):  # not Unix; held, or no lock
        return False
    return True


def save_config(config: Config) -> None:
    """Save what a run will be: later edits of YAML files change nothing of it."""
    paths = files(config)
    paths.folder.mkdir(parents=True, exist_ok=True)
    config = dataclasses.replace(config, results_dir=str(paths.results))
    write_atomic(paths.config, json.dumps(dataclasses.asdict(config), indent=1))


def save_if_no_job_reads(config: Config) -> None:
    """Save what a run will be, before it begins: a full disk is seen at once. A run that a job of a cluster may have
    keeps what was submitted, such as the device and the curve, until another process begins it."""
    if not files(config).job.exists():
        save_config(config)


def read_config(paths: Files) -> Config:
    """The configuration of a run as it was planned.

    Raises:
        Damaged: the file is gone or damaged: it does not describe this run.
    """
    try:
        config = build(read_json(paths.config))
        found = run_id(config)
    except (FileNotFoundError, ValueError) as error:
        found = f"unreadable: {error}"
    if found != paths.id:
        raise Damaged(f"{paths.config}: does not describe run {paths.id} ({found}); the same command writes it anew")
    return config


def write_row(path: Path, row: Row) -> None:
    """Write a row with a digest of its content, which `read_row` compares."""
    write_atomic(path, json.dumps({**row, ROW_DIGEST: _digest(row)}, indent=1))


def read_row(path: Path) -> Row | None:
    """A row, or None if the run is not finished. A file that is no row of this run, or that changed after it was
    written, is named and ignored; rows older than the digest have none to compare."""
    try:
        row = read_json(path)
        flaw = _flaw(row, path.stem)
        if not flaw and row.pop(ROW_DIGEST, None) not in (None, _digest(row)):
            flaw = "it is not what was written: its digest differs"
    except FileNotFoundError:
        return None
    except ValueError as error:
        flaw = str(error)
    if flaw:
        log.warning("%s: no result (%s); the run counts as unfinished", path, flaw)
        return None
    return typing.cast(Row, row)


def _digest(row: Row) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:DIGEST]


def _flaw(row: Any, id: str) -> str | None:
    """Why some JSON is not the row of the run `id`; None if it is."""
    if not isinstance(row, dict) or "run_id" not in row:
        return "it has no run_id"
    if row["run_id"] != id:
        return f"it is the row of run {row['run_id']}"
    for key, value in row.items():
        no_number = isinstance(value, str) and (key in NUMBERS or (key == "n_per_class" and value != "full"))
        if no_number or not isinstance(value, str | int | float | None):
            return f"{key} is {value!r}"
    return None


def finished_row(config: Config, role: str, verify: bool = True) -> Row | None:
    """The row of a run that has left all that is needed of it: None if it must still run.

    A curve, a probe and predictions if it should have them, and the weights of a base, or with `keep_weights`. `verify`
    compares these with the digest in the row: a run whose weights are damaged, or have no digest, is trained again.
    """
    paths = files(config)
    row = read_row(paths.row)
    if row is None or _is_of_another(row, config, paths):
        return None
    if config.curve and not ("epoch_at_best_val_top1" in row and has_curve(paths, row)):
        return None
    if config.probe and row.get("probe_top1") is None:
        return None
    if config.predictions and not paths.predictions.exists():
        return None
    if role != "base" and not config.keep_weights:
        return row
    digest = row.get("weights_digest")
    whole = file_digest(paths.weights) == digest if verify else paths.weights.exists()
    return row if digest and whole else None


def has_curve(paths: Files, row: Row) -> bool:
    """Whether a run's curve is there as it was written; rows that are older than its digest do not know."""
    return paths.curve.is_file() and row.get("curve_digest") in (None, file_digest(paths.curve))


def _is_of_another(row: Row, config: Config, paths: Files) -> bool:
    """Whether a row has other factors than its run, or no result: somebody edited it, or two runs have one id."""
    known, legacy = factors(config), legacy_values()
    found = {key: legacy.get(key) if row.get(key) is None else row[key] for key in known}  # older than some factor
    differ = [key for key, value in known.items() if found[key] != value]
    if not differ and row.get("val_top1") is None:
        log.warning("%s: no result (it has no val_top1); the run counts as unfinished", paths.row)
        return True
    if differ:
        log.warning(
            "%s: no result (%s is not %s); the run counts as unfinished", paths.row, differ[0], known[differ[0]]
        )
    return bool(differ)


def show_base_as_run(config: Config) -> None:
    """Let the row of a base that a sweep also requests as a run appear in the table."""
    add_labels(files(config).row, {"role": "run"})


def add_sweep(config: Config) -> None:
    """Let the row of a run that an earlier sweep finished belong to the sweep of this configuration, too."""
    if config.sweep:
        add_labels(files(config).row, {"sweep": config.sweep, "role": "base"})  # whatever role it has stays


def add_labels(path: Path, other: Row) -> None:
    """Let a finished run's row belong to the sweeps of another row of this run, too."""
    row = read_row(path)
    if row is None or with_labels(row, other) == row:
        return
    with labelling(path):  # another sweep adds its name to the row that it reads
        if (row := read_row(path)) is not None:
            write_row(path, with_labels(row, other))


def labelling(path: Path) -> FileLock:
    """The lock of all rows of a results folder, for the moment in which one is read, changed and written."""
    return FileLock(path.parents[1] / "labels.lock")


def with_labels(row: Row, other: Row) -> Row:
    """A row with the sweeps of another row of its run, after its own; the row of a run if the other one is."""
    names = sweeps(row, other)
    labels = {"sweep": names} if names else {}
    if row.get("role") == "base" and other.get("role") in (None, "run"):  # older rows have none
        labels["role"] = "run"
    return row | labels


def sweeps(*rows: Row) -> str | None:
    """The names of the sweeps of all these rows of a run, in their order, joined by commas."""
    return ",".join(dict.fromkeys(name for row in rows for name in (row.get("sweep") or "").split(",") if name)) or None


def read_classes(paths: Files) -> dict[str, Any]:
    """Names of the classes of a run: `target`, those that it learned, and `source`, those of its base; empty if the run
    is older than this file."""
    try:
        return dict(json.loads(paths.classes.read_bytes()))
    except (OSError, ValueError):
        return {}


def recent_rows(results: Path, count: int) -> list[Row]:
    """The newest rows of a results folder, `count` at the most."""
    folder = results / "rows"
    entries = [entry for entry in os.scandir(folder) if entry.name.endswith(".json")] if folder.is_dir() else []
    newest = sorted(entries, key=lambda entry: entry.stat(follow_symlinks=False).st_mtime, reverse=True)[:count]
    return [row for entry in newest if (row := read_row(Path(entry.path))) is not None]
