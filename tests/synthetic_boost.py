"""Synthetic rows of the boost study, from a function that gives each arm its measures."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from analysis.boost2018.arms import ALL, BASELINE, DIVERSE, EQUAL, FROZEN, MORE, RANDOM, SELF, TRANSFERRED

Truth = Callable[[str], tuple[float, float, float, float]]  # accuracy, training accuracy, training loss, probe of A
FACTORS = {
    BASELINE: ("none", None, None),
    RANDOM: ("none", None, None),
    SELF: ("self", None, 500),
    TRANSFERRED: ("trained", "A", 500),
    DIVERSE: ("trained", "diverse", 500),
    MORE: ("trained", "more", 500),
    EQUAL: ("trained", "more", 333),
}


def table(truth: Truth, noise: float = 0.1, draws: int = 8, seeds: int = 2) -> pd.DataFrame:
    """A row per arm, draw, seed. A draw is some points easier for all arms; `noise` is the sd of a run in points."""
    draw = np.random.default_rng(2)
    rows: list[dict[str, Any]] = []
    for split in range(draws):
        luck = draw.normal(0, 5)
        for seed in range(seeds):
            for arm in ALL:
                base, source, images = FACTORS[arm.removesuffix(FROZEN) if arm != RANDOM else arm]
                accuracy, learned, loss, probe = (value + draw.normal(0, noise) for value in truth(arm))
                layers, freeze = int(base != "none"), 2 if arm == RANDOM else int(arm.endswith(FROZEN))
                row = {"split": split, "seed": seed, "target": "B", "layers": layers, "freeze": freeze, "base": base}
                row |= {"freeze_random": arm == RANDOM, "classes.source_group": source, "base.n_per_class": images}
                row |= {"classes": "drawn", "classes.sizes": "4,4,2", "n_per_class": 500, "dataset": "folder"}
                row |= {"model": "convnet", "model.width": 0.5, "epochs": 15, "lr.step": 5, "seconds": 1.0}
                row |= {"device": "synthetic", "tlprotocols": "0", "torch": "0", "date": "2019-01-01T00:00:00+00:00"}
                row |= {"val_top1": (accuracy + luck) / 100, "train_top1": (learned + luck) / 100, "train_loss": 0.5}
                row |= {"test_top1": (accuracy + luck) / 100, "val_loss": 0.9, "train_eval_loss": loss / 100}
                row |= {"probe_top1": (probe + luck) / 100, "collapsed": False, "diverged": False}
                rows.append(row | {"run_id": f"b{len(rows):015x}"})
    return pd.DataFrame(rows)


def text(arm: str) -> tuple[float, float, float, float]:
    """A world as the text's second hypothesis has it: equal training, and a boost that grows with the source."""
    gain = {BASELINE: 0, SELF: 0, TRANSFERRED: 1.5, DIVERSE: 2.5, MORE: 6, EQUAL: 4}.get(arm.removesuffix(FROZEN), -5)
    return 65 + gain, 85, 40, 70 + 2 * gain


def minima(arm: str) -> tuple[float, float, float, float]:
    """A world as its first hypothesis has it: what is gained is gained in training."""
    accuracy, learned, loss, _ = text(arm)
    return accuracy, learned + 2 * (accuracy - 65), loss - 4 * (accuracy - 65), 70


def mirrored(arm: str) -> tuple[float, float, float, float]:
    """A world in which transfer harms, the more so the more data there are; own classes harm, too."""
    accuracy, _, _, probe = text(arm)
    own = -3 if arm == SELF else 0
    harm = accuracy - 65
    return 65 - 3 * harm + own, 85 - 0.3 * harm, 40 + 5 * harm, 70 - (probe - 70)


def nothing(arm: str) -> tuple[float, float, float, float]:
    """A world in which the source does not matter."""
    return 65.0, 85.0, 40.0, 70.0
