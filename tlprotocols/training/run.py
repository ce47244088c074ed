"""One run, from its configuration to its row: load the images, train the network, measure it."""

import csv
import functools
import hashlib
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from tlprotocols import __version__
from tlprotocols.budget import ends_early, image_passes, images_of_epoch, updates
from tlprotocols.config.identity import DIGEST, base_of, factors, run_id
from tlprotocols.config.schema import Config
from tlprotocols.errors import Stopped
from tlprotocols.hardware import device, device_name
from tlprotocols.images.cache import ImageCache, images_needed
from tlprotocols.images.splits import chosen, part_of, probed_classes, target_classes
from tlprotocols.lr_schedule import falls_on_plateau
from tlprotocols.randomness import stream
from tlprotocols.records import (
    Files,
    Row,
    file_digest,
    files,
    finished_row,
    labelling,
    read_classes,
    read_row,
    remove_temporaries,
    save_config,
    sweeps,
    with_labels,
    write_atomic,
    write_row,
)
from tlprotocols.training import (
    best_epochs,
    checkpoints,
    features,
    linear_probe,
    models,
    optimizers,
    transfer,
    weights_file,
)
from tlprotocols.training.checkpoints import State
from tlprotocols.training.loop import EVALUATED_AT_ONCE, Images, Score, evaluate, fit
from tlprotocols.training.memory import peak_memory_mb
from tlprotocols.training.underfitting import is_underfitted

NEAR = 0.005 + 1e-9  # half a point: an accuracy this much below the best is as good
COLLAPSED = 0.01  # nats: a training loss this near to ln K is that of a network that never learned


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run, and what connects it with the process that executes it."""

    config: Config
    role: str  # "base": its weights are kept; "run" otherwise
    paths: Files
    base: Row  # columns that say what it copies from
    advance: Callable[[int], None]  # receives the images trained on, after every epoch
    stop: Callable[[], bool]  # whether to save the state and leave, called after every epoch

    @property
    def of(self) -> str:
        """What a checkpoint belongs to: the run, and the weights that it copied."""
        return f"{self.paths.id} {self.base['base_weights']}"

    def log(self, line: str) -> None:
        """Append a line with a time to the run's log file."""
        with open(self.paths.log, "a", errors="backslashreplace") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}\n")


@dataclass(frozen=True)
class Data:
    """The images of a run."""

    train: Images
    val: Images
    test: Images | None = None  # nothing is ever chosen by it

    @property
    def parts(self) -> dict[str, Images]:
        """By name, those that there are."""
        return {part: images for part, images in vars(self).items() if images is not None}

    @property
    def classes(self) -> int:
        """How many classes the run learns."""
        return int(self.val.labels.max()) + 1


def execute(
    config: Config,
    role: str = "run",
    advance: Callable[[int], None] = lambda images: None,
    stop: Callable[[], bool] = lambda: False,
) -> Row:
    """Train and measure one configuration, write its row and return it; a finished run only returns its row.

    `config` is resolved (no `auto`, images listed) and its base is finished. `advance` receives numbers of images
    trained on. An interrupted run resumes from its last checkpoint. `stop` is called after every epoch.

    Raises:
        Stopped: `stop` returned true; the state is saved.
    """
    paths = files(config)
    paths.folder.mkdir(parents=True, exist_ok=True)
    paths.row.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(paths.lock):  # another process that has it is waited for, and then there is nothing left to do
        if (row := finished_row(config, role)) is not None:
            return row
        for path in (paths.row, paths.weights, paths.checkpoint):
            remove_temporaries(path)
        before = read_row(paths.row) or {}  # a base whose weights are gone, or a run that becomes a base: it stays both
        config = _with_what_was_kept(config, before, paths)
        save_config(config)
        return _execute(Attempt(config, role, paths, _base_columns(config), advance, stop))


def _with_what_was_kept(config: Config, before: Row, paths: Files) -> Config:
    """The configuration of a run that is trained once more, for a curve or weights: it loses nothing that it had."""
    return replace(
        config,
        curve=config.curve or "epoch_at_best_val_top1" in before,
        probe=config.probe or before.get("probe_top1") is not None,
        keep_weights=config.keep_weights or before.get("weights_digest") is not None,
        predictions=config.predictions or paths.predictions.exists(),
        sweep=sweeps(before, {"sweep": config.sweep}),
    )


def _execute(attempt: Attempt) -> Row:
    config, paths, started = attempt.config, attempt.paths, time.monotonic()
    attempt.log(f"{paths.id} begins: {factors(config)}")
    where = torch.device(device(config.machine))
    data = load_images(config, where, attempt.log)
    net = network(config, data.classes, attempt.base["base_weights"]).to(where).to(memory_format=torch.channels_last)
    prepared = with_mean(config, data.train)
    if config.caches_features:
        data = Data(**features.features(net, prepared, data.parts))
        attempt.log("the features of all images are computed")
    state = train(net, data, replace(attempt, config=prepared))
    row = {"run_id": paths.id, **attempt.base, **factors(config), **measure(net, data, state, prepared)}
    if config.dataset.mean_of == "source":
        row["pixel_mean"] = ",".join(map(str, prepared.dataset.mean))
    if config.probe:
        row["probe_top1"] = linear_probe.probe(net, prepared, *probed(config, where, attempt.log))
    kept = attempt.role == "base" or config.keep_weights
    row["weights_digest"] = checkpoints.save_weights(paths.weights, net) if kept else None
    if config.predictions:
        from tlprotocols.training import predictions  # needs pandas, which other runs do without

        parts = {"val": data.val, "test": data.test}
        predictions.save(paths.predictions, net, prepared, {name: part for name, part in parts.items() if part})
    row["peak_memory_mb"] = round(peak_memory_mb(net, config, data.train), 3)  # the last use of the network
    row |= {"seconds": round(time.monotonic() - started, 3), "device": device_name(where.type)}
    row |= {"role": attempt.role, "log": str(paths.log.relative_to(paths.results)), **labels(attempt)}
    row |= provenance(config.command)
    _write(row, state, attempt)
    attempt.log(f"finished: val_top1 {row['val_top1']:.4f}")
    return row


def _write(row: Row, state: State, attempt: Attempt) -> None:
    """Write the curve, if there is one, and then the row, which makes the run finished. A row that is there already, of
    a run that is trained once more or is a base, too, gives its labels to the new one."""
    if attempt.config.watched:
        with open(attempt.paths.curve, "w", newline="") as file:
            table = csv.DictWriter(file, list(state.curve[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(state.curve)
        row |= {"curve_digest": file_digest(attempt.paths.curve)}
    numbers = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
    }
    with labelling(attempt.paths.row):
        meanwhile = read_row(attempt.paths.row)  # names of sweeps that were added since the run began
        write_row(attempt.paths.row, with_labels(numbers, meanwhile) if meanwhile else numbers)
    for leftover in (attempt.paths.checkpoint, attempt.paths.failure, attempt.paths.accident):
        leftover.unlink(missing_ok=True)


def load_images(config: Config, where: torch.device, log: Callable[[str], None]) -> Data:
    """The images of a run, decoded if they are not yet, on the device if they fit there."""
    ImageCache.of(config).ensure(images_needed(config), workers=1)
    has_test = part_of(config, "test", ImageCache.of(config).index["counts"]) is not None
    test = selected(config, "test", where, log) if has_test else None
    return Data(selected(config, "train", where, log), selected(config, "val", where, log), test)


def selected(config: Config, part: str, where: torch.device, log: Callable[[str], None] = lambda line: None) -> Images:
    """The images of one part that the run uses: its classes, and of each those that `splits.chosen` says.

    Each has been compared with its checksum; `log` receives which classes had to be decoded again.
    """
    return _images_of(target_classes(config, ImageCache.of(config).classes), config, part, where, log)


def probed(
    config: Config, where: torch.device, log: Callable[[str], None] = lambda line: None
) -> tuple[Images, Images]:
    """Training and validation images of the classes on which a run is probed."""
    labels = probed_classes(config, ImageCache.of(config).classes)
    return _images_of(labels, config, "train", where, log), _images_of(labels, config, "val", where, log)


def _images_of(
    labels: Sequence[int], config: Config, part: str, where: torch.device, log: Callable[[str], None]
) -> Images:
    """As `selected`, of these classes."""
    cache = ImageCache.of(config)
    kept = part_of(config, part, cache.index["counts"])
    assert kept is not None
    offsets = cache.offsets(kept)
    places = [chosen(config, part, label, cache.counts(kept)[label]) for label in labels]
    rows = np.concatenate([offsets[label] + place for label, place in zip(labels, places, strict=True)])
    for name in cache.verify(kept, rows):
        log(f"the image cache was damaged: class {name} was decoded again ({part})")
    units = np.repeat(np.arange(len(labels)), [len(place) for place in places])
    return Images(torch.from_numpy(cache.rows(kept)), rows, torch.from_numpy(units), where).on_device()


def with_mean(config: Config, own: Images) -> Config:
    """The configuration with the mean that the run subtracts: with `dataset.mean_of=source` that of the network that it
    copies from, whose row has it; a network that copies nothing has that of its `own` training images."""
    if config.dataset.mean_of == "constants":
        return config
    base = base_of(config)
    row = read_row(files(base, config.results_dir).row) if base else None
    mean = tuple(map(float, row["pixel_mean"].split(","))) if row else mean_pixel(own)
    return replace(config, dataset=replace(config.dataset, mean=mean, mean_of="constants"))


def mean_pixel(images: Images) -> tuple[float, ...]:
    """Mean of red, green and blue over all pixels of all images, on a scale of 0 to 1; a sum of whole numbers, so no
    bit depends on how it is split."""
    total = torch.zeros(3, dtype=torch.int64)
    for start in range(0, len(images), EVALUATED_AT_ONCE):
        total += images[start : start + EVALUATED_AT_ONCE][0].sum((0, 1, 2), dtype=torch.int64).cpu()
    return tuple((total.double() / (255 * len(images) * images.stored[0, :, :, 0].numel())).tolist())


def network(config: Config, classes: int, digest: str | None = None) -> models.Network:
    """The network before its first update: fresh layers by `seed`, the first `layers` ones copied from the base.

    `digest` is that of the base's weights; without it, the base's row says it. A file of weights has its own.
    """
    torch.manual_seed(stream("initialisation", config.seed))
    net = models.build(config, classes)
    base = base_of(config)
    if base is not None:
        paths = files(base, config.results_dir)
        digest = digest or (read_row(paths.row) or {}).get("weights_digest")
        transfer.copy(checkpoints.load_weights(paths.weights, digest), net, config.layers)
    elif config.layers:  # base=weights
        transfer.copy(weights_file.load(config, net), net, config.layers)
    transfer.freeze(net, config.frozen())
    net.features_as = features_as(config)
    return net


def features_as(config: Config) -> torch.dtype | None:
    """The type of features that are the same in every epoch; None if they are not."""
    if not config.fixed_features:
        return None
    return torch.bfloat16 if config.precision == "bf16" else torch.float32


def train(net: models.Network, data: Data, attempt: Attempt) -> State:
    """Train to the end, from the last checkpoint if there is one. Returns epochs, seconds and curve.

    Raises:
        Stopped: the attempt is to stop; the state is saved.
    """
    config, paths = attempt.config, attempt.paths
    optimizer = optimizers.optimizer(net, config)
    state = _resumed(net, optimizer, attempt, data)
    begun, saved = time.monotonic() - state.seconds, time.monotonic()
    losses = [point["val_loss"] for point in state.curve if "val_loss" in point]
    for done, train_loss in fit(net, optimizer, config, data.train, done=state.done, losses=losses):
        state.done, state.seconds = done, time.monotonic() - begun
        point: dict[str, Any] = {"epoch": done, "train_loss": train_loss}
        if config.watched:
            score = evaluate(net, config, data.val)
            losses.append(score.loss)
            point |= {"val_loss": score.loss, "val_top1": score.top1}
            if config.curve and data.test is not None:
                best = best_epochs.is_best_so_far(point, state.curve)
                point["test_top1"] = evaluate(net, config, data.test).top1 if best else None
        state.curve.append(point)
        attempt.log(" ".join(f"{key} {value:.4g}" for key, value in point.items() if value is not None))
        attempt.advance(images_of_epoch(config, len(data.train), done - 1))
        if ends_early(config, losses[config.all_learn_from :]):
            attempt.log(f"ended after epoch {done}: no lower val_loss in {config.stop_after} epochs")
            break
        if not math.isfinite(train_loss):  # `fit` ends, too: no checkpoint, from which it would go on
            break
        stopping = attempt.stop()
        due = stopping or time.monotonic() - saved >= 60 * config.machine.checkpoint_minutes
        if due and done < config.epochs:
            checkpoints.save_state(paths.checkpoint, net, optimizer, state, attempt.of)
            saved = time.monotonic()
            if stopping:
                attempt.log(f"stopped after epoch {done}, as requested")
                raise Stopped(f"after epoch {done} of {config.epochs}")
    state.seconds = time.monotonic() - begun
    return state


def _resumed(net: models.Network, optimizer: torch.optim.Optimizer, attempt: Attempt, data: Data) -> State:
    """Where an earlier attempt stopped; a fresh state if there is none, or none with the curve that is wanted."""
    path, config, images = attempt.paths.checkpoint, attempt.config, len(data.train)
    needed = {"train_loss"}
    if config.watched:
        needed |= {"val_loss", "val_top1"} | ({"test_top1"} if config.curve and data.test is not None else set())
    state = checkpoints.load_state(path, net, optimizer, attempt.of, needed)
    if state.done:
        attempt.log(f"resumed after epoch {state.done}")
        attempt.advance(image_passes(config, images, state.done))
    return state


def measure(net: models.Network, data: Data, state: State, config: Config) -> Row:
    """The measurements of a trained network, each a column."""
    losses, classes, images = [point["train_loss"] for point in state.curve], data.classes, len(data.train)
    train_loss = losses[-1]
    collapsed = bool(abs(train_loss - math.log(classes)) <= COLLAPSED)
    learned, tested = evaluate(net, config, data.train), evaluate(net, config, data.val)
    return {
        "train_loss": train_loss,
        "train_eval_loss": learned.loss,
        "train_top1": learned.top1,
        "val_loss": tested.loss,
        "val_top1": tested.top1,
        "val_balanced_top1": balanced(tested, data.val.labels.cpu().numpy()),
        **_halves(tested, data.val.labels.cpu().numpy()),
        **_test(net, data.test, config),
        **(_curve(state.curve, config) if config.watched else {}),
        **(best_epochs.columns(state.curve) if config.curve else {}),
        "collapsed": collapsed,
        "underfitted": not collapsed and is_underfitted(losses, learned.loss, classes),
        "diverged": not _finite(net, train_loss, learned.loss, tested.loss),
        "features_cached": config.caches_features,
        "trainable_parameters": sum(value.numel() for value in net.parameters() if value.requires_grad),
        "classes_learned": classes,
        "train_images": images,
        "epochs_trained": state.done,
        "updates": updates(config, images, state.done),
        "images_per_second": round(image_passes(config, images, state.done) / state.seconds, 1),
    }


def _test(net: models.Network, images: Images | None, config: Config) -> Row:
    """Accuracy and loss on images that nothing was chosen by."""
    if images is None:
        return {"test_top1": None, "test_balanced_top1": None, "test_loss": None, "test_images": 0}
    score = evaluate(net, config, images)
    right = {"test_top1": score.top1, "test_balanced_top1": balanced(score, images.labels.cpu().numpy())}
    return {**right, "test_loss": score.loss, "test_images": len(images)}


def balanced(score: Score, labels: np.ndarray) -> float:
    """Balanced accuracy: the mean over classes of the share of right answers."""
    return float((np.bincount(labels, score.right) / np.bincount(labels)).mean())


def _curve(curve: list[dict[str, Any]], config: Config) -> Row:
    """What the epochs of a run say: its best ones, how soon it was as good, and how soon the rates fell."""
    tops, losses = [point["val_top1"] for point in curve], [point["val_loss"] for point in curve]
    best = sorted(tops, reverse=True)
    fell = (done for done in range(1, len(losses)) if falls_on_plateau(losses[:done], config.lr.patience))
    return {
        "val_top1_best": best[0],
        "val_top1_mean10": mean(best[:10]),
        "epochs_to_near_best": next(done for done, top in enumerate(tops, 1) if top >= best[0] - NEAR),
        "epochs_to_first_fall": next(fell, None) if config.schedule == "plateau" else None,
    }


def _finite(net: models.Network, *losses: float) -> bool:
    """Whether all losses and all weights are numbers: weights may overflow in the update after the last loss."""
    return all(map(math.isfinite, losses)) and all(bool(value.isfinite().all()) for value in net.parameters())


def _halves(score: Score, labels: np.ndarray) -> Row:
    """Accuracy on the even and on the odd images of each class: one to choose settings by, one to report."""
    starts = np.searchsorted(labels, labels)  # labels are ascending
    odd = (np.arange(len(labels)) - starts) % 2 == 1
    parts = {"val_top1_even": score.right[~odd], "val_top1_odd": score.right[odd]}
    return {name: float(part.mean()) if len(part) else None for name, part in parts.items()}


def _base_columns(config: Config) -> Row:
    """What the row says of the base network: which it was, its weights, its accuracy, and whether it learned."""
    base, of_file = base_of(config), config.base.digest if config.layers else None
    row = (read_row(files(base, config.results_dir).row) or {}) if base else {}
    return {
        "base_id": run_id(base) if base else None,
        "base_weights": row.get("weights_digest", of_file),
        "base_top1": row.get("val_top1"),
        "base_collapsed": row.get("collapsed"),
        "base_diverged": row.get("diverged"),
    }


def labels(attempt: Attempt) -> Row:
    """What identifies a row for people and is no factor. Writes the names of source and target classes beside it."""
    config, paths = attempt.config, attempt.paths
    names = ImageCache.of(config).classes
    target = [names[label] for label in target_classes(config, names)]
    base = base_of(config)
    source = read_classes(files(base, config.results_dir)).get("target") if base else None
    content = json.dumps({"source": source, "target": target}, ensure_ascii=False, indent=1)
    write_atomic(paths.classes, content)
    return {
        "protocol": config.protocol,
        "sweep": config.sweep,
        "dataset_folder": Path(config.dataset.root).name if config.dataset.root else None,
        "classes_digest": hashlib.sha256("\n".join(sorted(target)).encode()).hexdigest()[:DIGEST],
    }


def provenance(command: str | None = None) -> Row:
    """Where, when and with what a row was made."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return {
        "command": command,
        "job": f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID"),
        "commit": _commit(),
        "tlprotocols": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "host": platform.node(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@functools.cache
def _commit() -> str | None:
    """The commit of the checkout of this file, with `+` where files were edited; None in an installation."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    lines = []
    for line in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            command = ["git", "-C", str(checkout), *line]
            lines.append(subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip())
        except (OSError, subprocess.SubprocessError):  # no git on this machine, or not our repository
            return None
    return lines[0] + "+" * bool(lines[1])
