"""A trained run, used: its network in a notebook, or the classes of some images on the command line.

python -m tlprotocols.predict RUN cat.jpg more/            # RUN: its id, or how that begins

from tlprotocols.predict import load_model
net, config, classes = load_model("3f2a", "results")       # net: images (B, 3, pixels, pixels) to logits (B, classes)

Runs keep their weights with keep_weights=true; base networks always do.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tlprotocols.config.schema import Config
from tlprotocols.errors import BadImages, ConfigError, until_pipe_closes
from tlprotocols.images.folders import SUFFIXES, read_image
from tlprotocols.records import Files, read_classes, read_config, read_row
from tlprotocols.training import checkpoints, models, transfer
from tlprotocols.training.loop import Images
from tlprotocols.training.predictions import probabilities
from tlprotocols.training.run import features_as


def load_model(run: str, results: str | os.PathLike[str] = "results") -> tuple[models.Network, Config, tuple[str, ...]]:
    """The trained network of a run, in inference mode on the CPU; its configuration; the names of its outputs.

    `run` is its id, or how that begins.

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
    net = models.build(config, row["classes_learned"])
    net.features_as = features_as(config)
    transfer.copy(checkpoints.load_weights(paths.weights, row["weights_digest"]), net, len(config.model.stages))
    classes = read_classes(paths).get("target") or [str(number) for number in range(row["classes_learned"])]
    return net.eval(), config, tuple(classes)


def predict(run: str, files: Sequence[str | Path], results: str | os.PathLike[str] = "results") -> np.ndarray:
    """Probabilities (images, classes) of image files, prepared as the validation images of the run were.

    Raises:
        ConfigError: a file is no image.
        ValueError: as `load_model` does.
    """
    net, config, _ = load_model(run, results)
    row = read_row(_files(run, Path(results).expanduser()).row) or {}
    if row.get("pixel_mean"):  # dataset.mean_of=source: the mean that the run subtracted
        mean = tuple(map(float, row["pixel_mean"].split(",")))
        config = replace(config, dataset=replace(config.dataset, mean=mean, mean_of="constants"))
    stored = torch.from_numpy(
        np.stack([read_image(file, config.dataset.side, resize=config.dataset.resize) for file in files])
    )
    rows, labels = np.arange(len(files)), torch.zeros(len(files), dtype=torch.int64)
    return probabilities(net, config, Images(stored, rows, labels, torch.device("cpu")).on_device())


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
            sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        )
        found += inside
    return found


def main() -> None:
    """The command line: a line per image, most probable classes first."""
    until_pipe_closes(_main)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tlprotocols.predict", description="Classes of images by a run.")
    parser.add_argument("run", help="id of the run, or how it begins")
    parser.add_argument("images", nargs="+", help="image files, or folders of them")
    parser.add_argument("--results", default="results", help="results folder")
    parser.add_argument("--top", type=int, default=3, help="how many classes of each image")
    args = parser.parse_args()
    try:
        files = _images(args.images)
        if not files:
            raise ValueError(f"images={' '.join(args.images)}: no image files in there")
        if missing := [str(file) for file in files if not file.exists()]:
            raise ValueError(f"images={missing[0]}: there is no such file")
        classes = load_model(args.run, args.results)[2]
        found = predict(args.run, files, args.results)
    except BadImages as error:
        sys.exit("\n".join(f"images={file}: cannot be read as an image ({why})" for file, why in error.files.items()))
    except (ConfigError, ValueError) as error:
        sys.exit(str(error))
    for file, values in zip(files, found, strict=True):
        best = np.argsort(-values)[: args.top]
        print(f"{file}  {'  '.join(f'{classes[i]} {100 * values[i]:.1f}%' for i in best)}")


if __name__ == "__main__":
    main()
