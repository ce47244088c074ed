"""What a recommendation is worth: draws of 25 images a class of CIFAR-10, its 10,000 test images held out.

python -m benchmarks.recommend CIFAR TINY OUT [--draws 5] [--budget 10m] [--n 25]

CIFAR is a folder of train/CLASS/*.jpg and test/CLASS/*.jpg, TINY is Tiny ImageNet, on whose classes the base network is
trained. For each draw of training images `python -m tlprotocols.recommend` runs twice with the same budget: as it is,
and with sampler=random. Each has a results folder of its own in OUT, in which nothing but the base network is shared.
The same command again goes on where it ended.
"""

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import mean

import numpy as np
import pandas as pd

from tlprotocols.predict import load_model, predict
from tlprotocols.results import load
from tlprotocols.searching.comparison import Interval

SAMPLERS = ("tpe", "random")
BASE = [
    *("dataset=folder", "model.width=0.5", "base=dataset", "base.dataset=tiny_imagenet", "base.dataset.side=32"),
    *("base.dataset.pixels=32", "base.epochs=15", "base.lr.step=6"),
]


def draw(cifar: Path, number: int, n: int, folder: Path) -> Path:
    """A data set of n random training images of each class, and all test images (a link)."""
    if folder.exists():
        return folder
    chance, partial = random.Random(number), folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for of in sorted(path for path in (cifar / "train").iterdir() if path.is_dir()):
        (partial / "train" / of.name).mkdir(parents=True)
        for file in chance.sample(sorted(of.iterdir()), n):
            shutil.copy(file, partial / "train" / of.name)
    (partial / "test").symlink_to((cifar / "test").absolute())
    partial.rename(folder)
    return folder


def recommended(images: Path, tiny: Path, results: Path, budget: str, sampler: str, cache: Path) -> dict[str, object]:
    """Run the command; what it wrote."""
    line = [sys.executable, "-m", "tlprotocols.recommend", *BASE, f"dataset.root={images}", f"base.dataset.root={tiny}"]
    line += [f"results_dir={results}", f"budget={budget}", f"sampler={sampler}", f"machine.image_cache={cache}"]
    subprocess.run(line, check=True, stdout=sys.stderr)
    (kept,) = results.glob("recommend/*/recommendation.json")
    found: dict[str, object] = json.loads(kept.read_text())
    return found


def predicted(run: str, images: Path, results: Path) -> tuple[float, float]:
    """Accuracy of a run on image files CLASS/*.jpg, by its kept weights, and as its row has it."""
    classes = load_model(run, results)[2]
    files = sorted(images.glob("*/*.jpg"))
    found = predict(run, files, results).argmax(1)
    right = [classes[place] == file.parent.name for place, file in zip(found, files, strict=True)]
    (row,) = load(results).query("run_id == @run").to_dict("records")
    return mean(right), float(row["val_top1"])


def regret(setting: dict[str, object], results: Path) -> float:
    """How far the best of the settings with all folds is above the recommended one, by the test images that each fold's
    network was measured on: what a search loses that compares settings by few validation images."""
    rows = load(results).query("fold == fold")
    measured = rows.groupby(list(setting))["test_top1"].agg(["mean", "count"]).reset_index()
    complete = measured[measured["count"] == measured["count"].max()]
    chosen = (complete[list(setting)] == pd.Series(setting)).all(axis=1)
    (own,) = complete.loc[chosen, "mean"]
    return float(100 * (complete["mean"].max() - own))


def share_base(of: Path, with_: Path) -> None:
    """Copy the base network of one results folder into another."""
    for row in load(of, bases=True).query("role == 'base'")["run_id"]:
        for part in (Path("rows") / f"{row}.json", Path("runs") / row):
            if not (with_ / part).exists():
                (with_ / part).parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if (of / part).is_dir() else shutil.copy)(of / part, with_ / part)


def measure(cifar: Path, tiny: Path, out: Path, draws: int, budget: str, n: int) -> list[dict[str, object]]:
    """A line per draw, sampler and protocol: accuracy on the test images, in percent, mean over three seeds."""
    lines: list[dict[str, object]] = []
    first = out / "draw0-tpe"
    for number in range(draws):
        images = draw(cifar, number, n, out / f"images{number}")
        for sampler in SAMPLERS:
            results = out / f"draw{number}-{sampler}"
            if results != first:
                share_base(first, results)
            found = recommended(images, tiny, results, budget, sampler, out / "cache")
            chosen = " ".join(f"{key}={value}" for key, value in dict(found["setting"]).items())  # type: ignore[call-overload]
            by_predict, by_row = predicted(str(found["run"]), images / "test", results)
            if by_predict != by_row:
                raise ValueError(f"draw {number}, {sampler}: predict {by_predict:.4f}, but the row {by_row:.4f}")
            lost = regret(dict(found["setting"]), results)  # type: ignore[call-overload]
            for protocol, about in dict(found["compared"]).items():  # type: ignore[call-overload]
                line = {"draw": number, "sampler": sampler, "protocol": protocol}
                line |= {"test_top1": round(100 * about["accuracy"]["mean"], 3), "settings": found["tried"]}
                line |= {"seconds": round(float(str(found["seconds"]))), "regret": round(lost, 3), "setting": chosen}
                lines.append(line)
    return lines


def main() -> None:
    """Run all, write OUT/recommend.csv and print the paired intervals over draws."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recommend", description=__doc__)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("tiny", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--n", type=int, default=25)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    cifar, tiny, out = (path.absolute() for path in (args.cifar, args.tiny, args.out))
    lines = measure(cifar, tiny, out, args.draws, args.budget, args.n)
    with open(args.out / "recommend.csv", "w", newline="") as file:
        table = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(lines)
    by = {(line["sampler"], line["protocol"], line["draw"]): float(str(line["test_top1"])) for line in lines}
    mine = [by["tpe", "recommended", number] for number in range(args.draws)]
    print(f"recommended: {mean(mine):.1f}%, {args.draws} draws of {args.n} images a class, {args.budget} each")
    print(f"predict gives the accuracy of the row: {2 * args.draws} of {2 * args.draws} networks")
    lost = [
        float(str(line["regret"])) for line in lines if (line["sampler"], line["protocol"]) == ("tpe", "recommended")
    ]
    print(
        f"the best of the settings with all folds is {mean(lost):.2f} points above the recommended one, by test images"
    )
    others = [("tpe", name) for name in ("commonly_used", "linear_probe", "scratch")] + [("random", "recommended")]
    for sampler, protocol in others:
        theirs = [by[sampler, protocol, number] for number in range(args.draws)]
        gain = Interval.of(np.array([mine]) - np.array([theirs]))
        name = "random search" if sampler == "random" else protocol
        print(f"above {name} ({mean(theirs):.1f}%) by {gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}] points")


if __name__ == "__main__":
    main()
