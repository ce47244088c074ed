"""A trained run, used: its network in a notebook, or the classes of some images on the command line.

python -m tlprotocols.predict RUN cat.jpg more/            # RUN: its id, or how that begins

from tlprotocols.predict import load_model, prepared
net, config, classes = load_model("3f2a", "results")
chances = net(prepared(["cat.jpg"], config)).softmax(1)    # (images, classes)

Runs keep their weights with keep_weights=true; base networks always do.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tlprotocols.config.schema import Config
from tlprotocols.errors import BadImages, ConfigError, until_pipe_closes
from tlprotocols.images.augment import centre_draws, crop_and_flip, normalize
from tlprotocols.images.digests import read_file
from tlprotocols.images.folders import SUFFIXES, by_type, is_of_other_type, read_image, read_images
from tlprotocols.records import Files, read_classes, read_config, read_row
from tlprotocols.training import checkpoints, models, transfer
from tlprotocols.training.loop import Images, at_once
from tlprotocols.training.predictions import probabilities
from tlprotocols.training.run import features_as


def load_model(run: str, results: str | os.PathLike[str] = "results") -> tuple[models.Network, Config, tuple[str, ...]]:
    """The trained network of a run, in inference mode on the CPU; its configuration; the names of its outputs.

    `run` is its id, or how that begins. The network takes what `prepared` makes of image files, float32
    (B, 3, pixels, pixels), or upscale instead of pixels where `dataset.upscale` is set: values are no longer from 0 to
    255, nor from 0 to 1, but have the mean and the deviation of the run's images. It gives logits (B, classes), in
    float32, whatever `config.precision` the run has.

    Raises:
        ValueError: there is no such run, or it kept no weights.
    """
    paths = _files(run, Path(results).expanduser())
    row = read_row(paths.row)
    if row is None or not row.get("weights_digest") or not paths.weights.exists():
        raise ValueError(
            f"run={paths.id}: kept no weights; the command of its sweep with keep_weights=true trains it again"
        )
    config = read_config(paths)
    if row.get("pixel_mean"):  # dataset.mean_of=source: the mean that the run subtracted
        mean = tuple(map(float, row["pixel_mean"].split(",")))
        config = replace(config, dataset=replace(config.dataset, mean=mean))
    net = models.build(config, row["classes_learned"])
    if features_as(config) is not None:  # of float32, which the last stage takes in any precision
        net.features_as = torch.float32
    transfer.copy(checkpoints.load_weights(paths.weights, row["weights_digest"]), net, len(config.model.stages))
    classes = read_classes(paths).get("target") or [str(number) for number in range(row["classes_learned"])]
    return net.eval(), config, tuple(classes)


def prepared(files: Sequence[str | Path], config: Config) -> torch.Tensor:
    """Image files as a network takes them: read, cropped, normalized and enlarged as the validation images of its run
    were; float32 (B, 3, pixels, pixels), or upscale instead of pixels.

    Raises:
        BadImages: names the files that cannot be read.
    """
    side, resize = config.dataset.side, config.dataset.resize
    stored = torch.from_numpy(read_images([str(file) for file in files], None, side, resize))
    return normalize(crop_and_flip(stored, centre_draws(config.dataset, len(stored)), config.dataset), config.dataset)


def predict(run: str, files: Sequence[str | Path], results: str | os.PathLike[str] = "results") -> np.ndarray:
    """Probabilities (images, classes) of image files, prepared as the validation images of the run were, and computed
    in the precision of the run.

    Raises:
        BadImages: names the files that cannot be read.
        ValueError: as `load_model` does.
    """
    net, config, classes = load_model(run, results)
    found, bad = [np.empty((0, len(classes)), np.float32)], dict[str, str]()
    for _, values, unread in _batches(net, config, files):
        found.append(values)
        bad |= unread
    if bad:
        raise BadImages(bad)
    return np.concatenate(found)


def _batches(
    net: models.Network, config: Config, files: Sequence[str | Path]
) -> Iterator[tuple[list[str | Path], np.ndarray, dict[str, str]]]:
    """As many files at once as an evaluation takes: those that are images, their probabilities, and the other files,
    each with why it cannot be read."""
    several = at_once(config.dataset)
    for start in range(0, len(files), several):
        good, images, bad = list[str | Path](), list[np.ndarray](), dict[str, str]()
        for file in files[start : start + several]:
            try:
                images.append(read_image(file, config.dataset.side, read_file(file), config.dataset.resize))
                good.append(file)
            except BadImages as error:
                bad |= error.files
        if images:
            rows, labels = np.arange(len(good)), torch.zeros(len(good), dtype=torch.int64)
            batch = Images(torch.from_numpy(np.stack(images)), rows, labels, torch.device("cpu"))
            yield good, probabilities(net, config, batch), bad
        else:
            yield good, np.empty((0, 0), np.float32), bad


def _files(run: str, results: Path) -> Files:
    found = sorted((results / "rows").glob(f"{run}*.json")) if run.isalnum() else []
    if len(found) != 1:
        raise ValueError(
            f"run={run}: {len(found)} runs in {results} have an id that begins so;"
            f" python -m tlprotocols.results list {results} --bases shows all"
        )
    return Files(results, found[0].stem)


def _images(given: Sequence[str]) -> list[Path]:
    """The files, and all images in the folders."""
    found: list[Path] = []
    for path in map(Path, given):
        inside = (
            sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and not file.is_dir())
            if path.is_dir()
            else [path]
        )
        found += inside
    return found


def _unread(given: Sequence[str]) -> dict[str, str]:
    """What is said of folders with images of types that are not read."""
    folders = [path for path in given if Path(path).is_dir()]
    found = {path: [file for file in Path(path).rglob("*") if is_of_other_type(file)] for path in folders}
    return {
        path: f"holds {by_type(files)}, which are not read; convert them to .jpg or .png"
        for path, files in found.items()
        if files
    }


def _wrong(file: Path) -> str | None:
    """Why there is nothing to read; None if there is."""
    if not file.exists():
        return "there is no such file"
    return None if file.is_file() else "it is no regular file"  # reading a pipe would wait for ever


def main() -> None:
    """The command line: a line per image, most probable classes first. Exit status 1: some image cannot be read."""
    until_pipe_closes(_main)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tlprotocols.predict", description="Classes of images by a run.")
    parser.add_argument("run", help="id of the run, or how it begins")
    parser.add_argument("images", nargs="+", help="image files, or folders of them")
    parser.add_argument("--results", default="results", help="results folder")
    parser.add_argument("--top", type=int, default=3, help="how many classes of each image")
    args = parser.parse_args()
    try:
        if args.top < 1:
            raise ConfigError("--top", args.top, "must be a whole number of at least 1")
        given = _images(args.images)
        problems = _unread(args.images)
        if not given:
            raise ValueError(
                f"images={' '.join(args.images)}: {next(iter(problems.values()), 'no image files in there')}"
            )
        problems |= {str(file): why for file in given if (why := _wrong(file))}
        files = [file for file in given if str(file) not in problems]
        net, config, classes = load_model(args.run, args.results)
    except (ConfigError, ValueError) as error:
        sys.exit(str(error))
    for good, found, bad in _batches(net, config, files):
        for file, values in zip(good, found, strict=True):
            best = np.argsort(-values, kind="stable")[: args.top]  # of equal ones the first, as in the run's row
            print(f"{file}  {'  '.join(f'{classes[i]} {100 * values[i]:.1f}%' for i in best)}")
        problems |= {file: f"cannot be read as an image ({why})" for file, why in bad.items()}
    if problems:
        sys.exit("\n".join(str(ConfigError("images", file, why)) for file, why in problems.items()))


if __name__ == "__main__":
    main()
