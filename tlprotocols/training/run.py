"""One run, from its configuration to its row."""

import csv
import json
import math
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import mean
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from tlprotocols import __version__
from tlprotocols.config.schema import Config
from tlprotocols.errors import Stopped
from tlprotocols.hardware import device, device_name
from tlprotocols.images.cache import Store, images_needed
from tlprotocols.images.splits import chosen, target_classes
from tlprotocols.planning.plan import finished_row
from tlprotocols.randomness import stream
from tlprotocols.results import Files, Row, base_of, factors, files, read_row, run_id, write_aside
from tlprotocols.training import checkpoints, models, transfer
from tlprotocols.training.loop import Images, evaluate, fit

COLLAPSED = 0.01  # nats: a training loss this near to ln K is that of a network that never learned


def execute(
    config: Config,
    role: str = "run",
    advance: Callable[[int], None] = lambda images: None,
    stop: Callable[[], bool] = lambda: False,
) -> Row:
    """Train and measure one configuration, write its row and return it; a finished run only returns its row.

    `config` is resolved (no `auto`, images listed) and its base is finished. `advance` hears of images trained on.
    An interrupted run goes on from its last checkpoint. `stop` is asked after every epoch.

    Raises:
        Stopped: `stop` said so; the state is saved.
    """
    paths = files(config)
    paths.folder.mkdir(parents=True, exist_ok=True)
    paths.row.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(paths.lock):  # another process that has it is waited for, and then there is nothing left to do
        return finished_row(config, role) or _execute(config, role, paths, advance, stop)


def _execute(config: Config, role: str, paths: Files, advance: Callable[[int], None], stop: Callable[[], bool]) -> Row:
    log = Log(paths)
    log(f"{paths.id} begins: {factors(config)}")
    measured = measure(config, role, paths, log, advance, stop)
    row = {"run_id": paths.id, **_base_columns(config), **factors(config), **measured}
    row |= {"role": role, "log": str(paths.log.relative_to(paths.results)), **provenance()}
    numbers = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
    }
    write_aside(paths.row, json.dumps(numbers, indent=1))
    for leftover in (paths.checkpoint, paths.failure):
        leftover.unlink(missing_ok=True)
    log(f"finished: val_top1 {row['val_top1']:.4f}")
    return row


class Log:
    """Lines with a time, appended to the run's log file."""

    def __init__(self, paths: Files) -> None:
        self.path = paths.log

    def __call__(self, line: str) -> None:
        with open(self.path, "a") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}\n")


def selected(config: Config, part: str, where: torch.device, log: Callable[[str], None] = lambda line: None) -> Images:
    """The images of one part that the run uses: its classes, its first n of each for training, all for validation.

    Each has been compared with its checksum; `log` receives which classes had to be decoded again.
    """
    store = Store.of(config)
    labels, offsets = target_classes(config, store.classes), store.offsets(part)
    counts = [store.counts(part)[label] for label in labels]
    places = [
        chosen(config, label, n) if part == "train" else np.arange(n) for label, n in zip(labels, counts, strict=True)
    ]
    rows = np.concatenate([offsets[label] + place for label, place in zip(labels, places, strict=True)])
    for name in store.verify(part, rows):
        log(f"the image cache was damaged: class {name} was decoded again ({part})")
    units = np.repeat(np.arange(len(labels)), [len(place) for place in places])
    return Images(torch.from_numpy(store.rows(part)), rows, torch.from_numpy(units), where).moved()


def network(config: Config, classes: int) -> models.Network:
    """The network before its first update: fresh layers by `seed`, the first `layers` ones copied from the base."""
    torch.manual_seed(stream("initialisation", config.seed))
    net = models.build(config, classes)
    base = base_of(config)
    if base is not None:
        paths = files(base, config.results_dir)
        digest = (read_row(paths.row) or {}).get("weights_digest")
        transfer.copy(checkpoints.load_weights(paths.weights, digest), net, config.layers)
    transfer.freeze(net, config.freeze)
    return net


def measure(
    config: Config,
    role: str,
    paths: Files,
    log: Callable[[str], None],
    advance: Callable[[int], None],
    stop: Callable[[], bool],
) -> Row:
    """Train the network and return its measurements, each a column."""
    where, started = torch.device(device(config.machine)), time.monotonic()
    Store.of(config).ensure(images_needed(config), workers=1)
    train, val = (selected(config, part, where, log) for part in ("train", "val"))
    classes = int(val.labels.max()) + 1
    net = network(config, classes).to(where).to(memory_format=torch.channels_last)
    sgd = transfer.optimizer(net, config)
    state = checkpoints.load_state(paths.checkpoint, net, sgd)
    if config.curve and any("val_top1" not in point for point in state.curve):
        paths.checkpoint.unlink()  # of a run that was begun without a curve
        return measure(config, role, paths, log, advance, stop)
    if state.done:
        log(f"resumed after epoch {state.done}")
        advance(state.done * len(train))
    begun, saved, train_loss = time.monotonic() - state.seconds, time.monotonic(), math.nan
    for done, train_loss in fit(net, sgd, config, train, done=state.done):
        state.done, state.seconds = done, time.monotonic() - begun
        point: dict[str, Any] = {"epoch": done, "train_loss": train_loss}
        if config.curve:
            score = evaluate(net, config, val)
            point |= {"val_loss": score.loss, "val_top1": score.top1}
        state.curve.append(point)
        log(" ".join(f"{key} {value:.4g}" for key, value in point.items()))
        advance(len(train))
        stopping = stop()
        due = stopping or time.monotonic() - saved >= 60 * config.machine.checkpoint_minutes
        if due and done < config.epochs:
            checkpoints.save_state(paths.checkpoint, net, sgd, state)
            saved = time.monotonic()
            if stopping:
                log(f"stopped after epoch {done}, as asked")
                raise Stopped(f"after epoch {done} of {config.epochs}")
    train_loss = state.curve[-1]["train_loss"]
    training_seconds = time.monotonic() - begun
    learned, tested = evaluate(net, config, train), evaluate(net, config, val)
    digest = checkpoints.save_weights(paths.weights, net) if role == "base" else None
    updates = state.done * math.ceil(len(train) / config.batch_size)
    return {
        "train_loss": train_loss,
        "train_eval_loss": learned.loss,
        "train_top1": learned.top1,
        "val_loss": tested.loss,
        "val_top1": tested.top1,
        **_halves(tested.right, val.labels.cpu().numpy()),
        **_best(config, state, paths),
        "collapsed": bool(abs(train_loss - math.log(classes)) <= COLLAPSED),
        "diverged": not _finite(net, train_loss, learned.loss, tested.loss),
        "weights_digest": digest,
        "classes_learned": classes,
        "train_images": len(train),
        "updates": updates,
        "seconds": round(time.monotonic() - started, 3),
        "images_per_second": round(state.done * len(train) / training_seconds, 1),
        "device": device_name(where.type),
    }


def _finite(net: models.Network, *losses: float) -> bool:
    """Whether all losses and all weights are numbers: weights may overflow in the update after the last loss."""
    return all(map(math.isfinite, losses)) and all(bool(value.isfinite().all()) for value in net.parameters())


def _halves(right: np.ndarray, labels: np.ndarray) -> Row:
    """Accuracy on the even and on the odd images of each class: one to choose settings by, one to report."""
    starts = np.searchsorted(labels, labels)  # labels are ascending
    odd = (np.arange(len(labels)) - starts) % 2 == 1
    parts = {"val_top1_even": right[~odd], "val_top1_odd": right[odd]}
    return {name: float(part.mean()) if len(part) else None for name, part in parts.items()}


def _best(config: Config, state: checkpoints.State, paths: Files) -> Row:
    """Best and mean-of-ten-best accuracy, where there is a curve, which is kept as curve.csv."""
    if not config.curve:
        return {}
    with open(paths.curve, "w", newline="") as file:
        table = csv.DictWriter(file, list(state.curve[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(state.curve)
    tops = sorted((point["val_top1"] for point in state.curve), reverse=True)
    return {"val_top1_best": tops[0], "val_top1_mean10": mean(tops[:10])}


def _base_columns(config: Config) -> Row:
    """What the row says of the base network: which it was, its weights, its accuracy, and whether it learned."""
    base = base_of(config)
    row = (read_row(files(base, config.results_dir).row) or {}) if base else {}
    return {
        "base_id": run_id(base) if base else None,
        "base_weights": row.get("weights_digest"),
        "base_top1": row.get("val_top1"),
        "base_collapsed": row.get("collapsed"),
        "base_diverged": row.get("diverged"),
    }


def provenance() -> Row:
    """Where, when and with what a row was made."""
    return {
        "tlprotocols": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "host": platform.node(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
