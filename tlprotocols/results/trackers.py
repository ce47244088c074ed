"""Rows and learning curves in MLflow, Weights & Biases or TensorBoard, written by their own libraries.

`tracker=NAME` writes each run when it is finished; `python -m tlprotocols.results track NAME RESULTS` all that are.
What lies in the results folder is the truth, and these are copies that nothing reads. A run is written once.
"""

import csv
import importlib.util
import os
import shutil
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from tlprotocols.errors import ConfigError, Damaged
from tlprotocols.records import Files, Row, has_curve, read_row
from tlprotocols.results import FACTORS

PROJECT = "tlprotocols"  # name of the experiment, or project, that all runs belong to
MOST_METRICS, MOST_PARAMS = 1000, 100  # that MLflow takes at a time
MOST_FAILURES = 3  # one after the other; a server that does not answer may take minutes each time
WRITTEN = "written"  # W&B: a file beside a run that was written to its end
Point = tuple[int, dict[str, float]]  # an epoch, and what was measured after it


@dataclass(frozen=True)
class Tracked:
    """A finished run as trackers see it."""

    row: Row
    points: list[Point]  # epochs of the curve, if it has one; the last one has all measured numbers

    @property
    def factors(self) -> Row:
        """Its factors that apply."""
        return {key: value for key, value in self.row.items() if _is_factor(key) and value is not None}

    @property
    def texts(self) -> dict[str, str]:
        """Labels and where it was made."""
        return {key: value for key, value in self.row.items() if isinstance(value, str) and not _is_factor(key)}

    @property
    def name(self) -> str:
        """The run as a person knows it; the id tells it from runs that differ in something else."""
        base = self.row.get("role") == "base"
        shown = ("split", "target", "seed") if base else ("protocol", "layers", "n_per_class", "split", "seed")
        words = [f"{key}={self.row[key]}" for key in shown if self.row.get(key) is not None]
        return " ".join([*(["base"] if base else []), *words, self.row["run_id"][:8]])


class Tracker(Protocol):
    """A place that runs are written to."""

    known: set[str]  # ids of the runs that it has

    def write(self, run: Tracked) -> None:
        """Write a run that it does not have."""


class Mlflow:
    """A run per row in the experiment `tlprotocols`: factors are parameters, curve and measurements metrics."""

    def __init__(self, place: Path) -> None:
        """The store is that of MLFLOW_TRACKING_URI, or else an SQLite file below `place`."""
        from mlflow import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            place.mkdir(parents=True, exist_ok=True)
        artifacts = {} if uri else {"artifact_location": (place / "artifacts").as_uri()}
        self.client = MlflowClient(tracking_uri=uri or f"sqlite:///{place / 'mlflow.db'}")
        found = self.client.get_experiment_by_name(PROJECT)
        self.experiment = found.experiment_id if found else self.client.create_experiment(PROJECT, **artifacts)
        self.known = {run.data.tags.get("run_id", "") for run in self._runs() if run.info.status == "FINISHED"}

    def _runs(self) -> Iterator[Any]:
        token: str | None = ""
        while token is not None:
            page = self.client.search_runs([self.experiment], max_results=1000, page_token=token or None)
            yield from page
            token = page.token or None

    def write(self, run: Tracked) -> None:
        """Its times are those of the row."""
        from mlflow.entities import Metric, Param

        ended = int(1000 * datetime.fromisoformat(run.row["date"]).timestamp())
        begun = ended - int(1000 * (run.row.get("seconds") or 0))
        tags = {**run.texts, "run_id": run.row["run_id"]}
        made = self.client.create_run(self.experiment, start_time=begun, tags=tags, run_name=run.name).info.run_id
        metrics = [Metric(key, value, ended, epoch) for epoch, values in run.points for key, value in values.items()]
        params = [Param(key, str(value)) for key, value in run.factors.items()]
        for start in range(0, len(metrics), MOST_METRICS):
            self.client.log_batch(made, metrics=metrics[start : start + MOST_METRICS])
        for start in range(0, len(params), MOST_PARAMS):
            self.client.log_batch(made, params=params[start : start + MOST_PARAMS])
        self.client.set_terminated(made, end_time=ended)


class Wandb:
    """A run per row in the project `tlprotocols`. Offline, unless WANDB_MODE says otherwise; `wandb sync` uploads."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.known = {file.parent.name.rpartition("-")[2] for file in place.glob(f"wandb/*run-*/{WRITTEN}")}

    def write(self, run: Tracked) -> None:
        """What a writer left that was killed is removed."""
        import wandb

        self.place.mkdir(parents=True, exist_ok=True)
        for left in self.place.glob(f"wandb/*run-*-{run.row['run_id']}"):
            shutil.rmtree(left)
        made = wandb.init(
            project=PROJECT,
            id=run.row["run_id"],
            name=run.name,
            dir=str(self.place),
            config=run.factors,
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True),
        )
        for epoch, values in run.points:
            made.log(values, step=epoch)
        made.summary.update(run.texts)
        folder = Path(made.dir).parent
        made.finish()
        (folder / WRITTEN).touch()


class TensorBoard:
    """A folder per row: scalars by epoch, and factors as hyperparameters."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.known = {folder.name for folder in place.glob("*") if folder.is_dir()}

    def write(self, run: Tracked) -> None:
        """It appears under its name when it is whole."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self.place / run.row["run_id"]
        part = folder.with_name(f".{folder.name}")
        shutil.rmtree(part, ignore_errors=True)
        with SummaryWriter(str(part)) as writer:
            for epoch, values in run.points:
                for key, value in values.items():
                    writer.add_scalar(key, value, epoch)
            for key, text in run.texts.items():
                writer.add_text(key, text)
            last = {
                f"hparam/{key}": value for key, value in run.points[-1][1].items() if key.startswith(("val", "test"))
            }
            writer.add_hparams(run.factors, last, run_name=".")
        part.rename(folder)


TRACKERS: dict[str, Callable[[Path], Tracker]] = {"mlflow": Mlflow, "wandb": Wandb, "tensorboard": TensorBoard}


def check(name: str) -> None:
    """Refuse a tracker whose library is not here.

    Raises:
        ConfigError: it says what to install.
    """
    if importlib.util.find_spec(name) is None:
        raise ConfigError("tracker", name, f"needs its library: pip install 'tlprotocols[{name}]'")


def place_of(name: str, results: Path) -> Path:
    """Where a tracker's files are, unless another place is given: beside the rows."""
    return results / name


class NotWritten(RuntimeError):
    """Some runs could not be written to a tracker: says how many were, and why the first was not."""


def track(tracker: Tracker, results: Path, ids: Collection[str]) -> int:
    """Write those of the finished runs that the tracker does not have. Returns how many.

    Raises:
        NotWritten: some were not; all others are, unless the tracker failed on several runs one after the other.
    """
    rows = (read_row(Files(results, id).row) for id in ids if id not in tracker.known)
    rest, written, failed, in_a_row = deque(row for row in rows if row is not None), 0, list[str](), 0
    while rest:
        is_last_try = in_a_row == MOST_FAILURES  # is it these runs, or the tracker? The last one tells
        row = rest.pop() if is_last_try else rest.popleft()
        try:
            tracker.write(Tracked(row, _points(row, Files(results, row["run_id"]))))
        except Exception as error:  # of whatever the library does, on this run alone or on every one
            failed.append(f"run {row['run_id']}: {_in_one_line(error)}")
            if isinstance(error, Damaged):
                continue
            if is_last_try:
                break
            in_a_row += 1
        else:
            tracker.known.add(row["run_id"])
            written, in_a_row = written + 1, 0
    if failed:
        more = f"; and {len(failed) - 1} more" if failed[1:] else ""
        left = f", after which {len(rest)} were not tried" if rest else ""
        raise NotWritten(f"{written} of {written + len(failed)} runs written; {failed[0]}{more}{left}")
    return written


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, Damaged) else f"{type(error).__name__}: {text}"


def _is_factor(key: str) -> bool:
    return key in FACTORS or key.startswith("lr.layers.")


def _points(row: Row, paths: Files) -> list[Point]:
    """The curve, if there is one, and in its last epoch the measured numbers of the row.

    Raises:
        Damaged: the curve is not what was written; it is named.
    """
    points = _curve(row, paths) if paths.curve.exists() else {}
    last = int(row.get("epochs_trained") or row.get("epochs") or 0)
    numbers = {key: float(v) for key, v in row.items() if isinstance(v, int | float) and not _is_factor(key)}
    points[last] = points.get(last, {}) | numbers
    return sorted(points.items())


def _curve(row: Row, paths: Files) -> dict[int, dict[str, float]]:
    points = {}
    with suppress(OSError, ValueError, KeyError, TypeError, csv.Error):
        if has_curve(paths, row):
            with paths.curve.open(newline="") as file:
                for line in csv.DictReader(file):
                    epoch = int(line.pop("epoch"))
                    points[epoch] = {key: float(text) for key, text in line.items() if text}
            if points:
                return points
    raise Damaged(f"{paths.curve}: damaged; the command that had curve=true makes it anew")
