"""Synthetic tables with known effects: the six experiments of the paper, from a function that gives accuracies, plus
noise."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from analysis.plested2019 import STUDY

SIZES = (10, 25, 50, 100, 250, 500, "full")
DECAYS = (0, 1, 3, 5, 10, 15, 20, 30)
TABLE2 = {
    10: (6, 10, 6),
    25: (6, 5, 5),
    50: (6, 3, 5),
    100: (6, 3, 1),
    250: (6, 3, 1),
    500: (6, 0, 0),
    "full": (5, 30, 0),
}
BASE = {10: 25, 25: 33, 50: 39, 100: 44, 250: 50, 500: 55, "full": 61}
IMAGES = {10: 5000, 25: 12500, 50: 25000, 100: 50000, 250: 125000, 500: 250000, "full": 640000}
Cell = dict[str, Any]
Truth = Callable[[Cell], tuple[float, float]]  # accuracy in percent, validation minus training loss


def cells(sizes: tuple[Any, ...] = SIZES) -> Iterator[Cell]:
    """The cells of figures 1 to 6, each once."""
    seen = set()
    for n in sizes:
        layers, decay, freeze = TABLE2[n]
        grid = [(m, 0, 8, 30) for m in (0, 4, 5, 6, 7)]
        grid += [(6, 0, k, 30) for k in range(1, 9)]
        grid += [(m, 0, 1, d) for m in (4, 5, 6, 7) for d in (5, 30)]
        grid += [(6, 0, 1, d) for d in DECAYS]
        grid += [(6, f, 1, decay if n != "full" else 30) for f in range(7)]
        grid += [(layers, freeze, 1, decay)]
        for cell in grid:
            if (n, cell) not in seen:
                seen.add((n, cell))
                yield dict(
                    zip(("n_per_class", "layers", "freeze", "high_lr_layers", "decay_epochs"), (n, *cell), strict=True)
                )


def table(
    truth: Truth, noise: float = 0.1, splits: int = 4, sizes: tuple[Any, ...] = SIZES, scale: int = 1
) -> pd.DataFrame:
    """A row per cell, split and target half. A split is some percent easier in all its cells; `noise` is the sd of a
    run. `scale` divides every number of epochs, as a scaled study does."""
    draw = np.random.default_rng(1)
    rows: list[dict[str, Any]] = []
    for split in range(splits):
        for target in "AB":
            luck = draw.normal(1, 0.04)
            for cell in cells(sizes):
                accuracy, gap = truth(cell)
                top1 = max(0.2, accuracy * luck + draw.normal(0, noise)) / 100
                row = cell | {"split": split, "target": target, "seed": 0} | _recipe(cell, scale)
                half = draw.normal(0, 0.003)
                row |= {"val_top1": top1, "val_top1_even": top1 + half, "val_top1_odd": top1 - half}
                row |= {"train_loss": 0.8, "val_loss": 0.8 + gap + draw.normal(0, noise / 3)}
                row |= {"collapsed": False, "diverged": False, "run_id": f"{len(rows):016x}", "base_top1": 0.6}
                rows.append(row)
    return pd.DataFrame(rows).drop_duplicates([*rows[0]][:8], ignore_index=True)


def rows(truth: Truth, **options: Any) -> pd.DataFrame:
    """`table` as rows of the study."""
    return STUDY.rows(table(truth, **options))


def _recipe(cell: Cell, scale: int) -> Cell:
    updates = 90 // scale * -(-IMAGES[cell["n_per_class"]] // 256)
    return {
        **{"dataset": "imagenet", "classes": "random", "model": "alexnet", "model.width": 1.0, "schedule": "own_clock"},
        **{"epochs": 90 // scale, "lr.high": 0.01, "lr.low": 0.001, "lr.step": 30 // scale},
        **{"decay_epochs": cell["decay_epochs"] // scale, "base": "none" if cell["layers"] == 0 else "trained"},
        **{"base.epochs": None if cell["layers"] == 0 else 90, "lr.layers.conv1": None, "augment": "crop_flip"},
        **{"updates": updates, "seconds": 60.0, "device": "synthetic", "tlprotocols": "0", "torch": "0"},
        **{"date": "2019-01-01T00:00:00+00:00"},
    }


def paper(cell: Cell) -> tuple[float, float]:
    """A world as the paper's text has it."""
    n, layers, k = cell["n_per_class"], cell["layers"], cell["high_lr_layers"]
    rank = SIZES.index(n)
    if layers == 0:
        return BASE[n] - 22 + 3 * rank - 8, 4 - 0.3 * rank
    gap = 3.0 - 0.2 * rank + 0.06 * (8 - rank) * layers + 0.05 * k
    if k == 8:
        return BASE[n] - 1.4 - (6 - rank) * 0.1 + _all_high(n, layers, rank), gap
    accuracy = BASE[n] + 1.5 + _decay(n, cell["decay_epochs"]) + _few_high(n, layers, cell["decay_epochs"])
    accuracy -= 0.7 * (k - 1) + (1.5 if k == 2 else 0)
    return accuracy + _freeze(n, cell["freeze"], rank), gap - 0.1 * cell["freeze"] - (1.5 - 0.2 * rank)


def _all_high(n: Any, layers: int, rank: int) -> float:
    """All layers high: 5 best, 4 a little behind, 7 worst at small sizes; rising on the whole set."""
    if n == "full":
        return 0.4 * (layers - 6)
    return {4: -0.4, 5: 0.6, 6: 0.0, 7: -2.5 + 0.2 * rank}[layers]


def _few_high(n: Any, layers: int, decay: int) -> float:
    """One layer high: 6 best at a low decay, 5 at a high one; the whole set likes 5 and a high decay."""
    if n == "full":
        return {4: -1.5, 5: 1.0, 6: 0.0, 7: -2.5}[layers]
    if decay < 20:
        return {4: -2.5, 5: -0.8, 6: 0.6, 7: -0.6}[layers]
    return {4: -2.5, 5: 0.6 if n not in (10, 25) else -0.8, 6: -0.2, 7: -1.0}[layers]


def _decay(n: Any, decay: int) -> float:
    """Where the best decay_epochs is, and how much 5 beats 30."""
    best = {10: 10, 25: 5, 50: 3, 100: 3, 250: 3, 500: 0, "full": 30}[n]
    if n == "full":
        return -0.08 * (best - decay)
    away = abs(DECAYS.index(best) - DECAYS.index(decay)) * 0.45
    if n == 500:
        return {0: 1.0, 1: 0.5, 3: 0.5, 5: 0.35, 30: 0.0}.get(decay, 0.2)
    return -away - (1.8 if n == 10 and decay == 30 else 0)


def _freeze(n: Any, freeze: int, rank: int) -> float:
    """Freezing helps at 10 and 25, hardly matters at 50, hurts beyond."""
    if n in (10, 25):
        return 0.5 * freeze
    return -(0.15 if n == 50 else 0.15 * rank) * freeze


def mirrored(cell: Cell) -> tuple[float, float]:
    """The paper's world with every effect reversed, and stronger."""
    accuracy, gap = paper(cell)
    return BASE[cell["n_per_class"]] - 2.5 * (accuracy - BASE[cell["n_per_class"]]), 6 - 5 * gap


def settled(cell: Cell) -> tuple[float, float]:
    """A world where 6 layers are best whatever the rates, and the smaller a set, the more updates it wants."""
    n, layers = cell["n_per_class"], cell["layers"]
    best = 30 if n in (10, 25) else 0
    away = abs(DECAYS.index(best) - DECAYS.index(cell["decay_epochs"]))
    return BASE[n] - 2.0 * abs(layers - 6) - 0.3 * cell["high_lr_layers"] - 0.4 * away, 3.0
