"""Table 2: the best setting per images per class, its runner-up, the paper's greedy search, the paper's own setting."""

import math
from typing import Any

import pandas as pd

from analysis import selection
from analysis.evidence import compare_with_best
from analysis.frame import Missing, Size, cells, pick, sizes
from analysis.plested2019 import experiments, published
from analysis.plested2019.experiments import SETTING, best_level
from analysis.statistics import by_unit, mean_interval, paired
from analysis.study import Table


def settings(rows: pd.DataFrame, choice: str = "all") -> pd.DataFrame:
    """One row per images per class: the best of all settings that were run on every unit, and the runner-up with the
    paired difference.

    The p value of the difference is Bonferroni-adjusted for the number of settings to choose from; `as_good` counts
    the settings that multiple comparisons with the best do not exclude (p > 0.05). Rows with test images are chosen on
    validation images and reported on test images; others with `choice="heldout"` on even and odd validation images.

    Raises:
        Missing: no size has two settings on the same units.
        ValueError: an unknown choice.
    """
    lines = [line for size in sizes(rows) if (line := _line(rows, size, choice))]
    if not lines:
        raise Missing("No images per class at which two or more transfer settings were run on the same splits.")
    return pd.DataFrame(lines)


def _candidates(rows: pd.DataFrame, size: Size, value: str) -> pd.DataFrame:
    return selection.candidates(rows[rows["layers"] > 0], SETTING, size, value)


def _line(rows: pd.DataFrame, size: Size, choice: str) -> dict[str, Any] | None:
    choose, report = selection.columns(choice, rows)
    try:
        chosen_by, reported = _candidates(rows, size, choose), _candidates(rows, size, report)
    except Missing:
        return None
    if chosen_by.shape[1] < 2:
        return None
    ranked = chosen_by.mean().sort_values(ascending=False, kind="stable").index
    best, second = ranked[0], ranked[1]
    accuracy, low, high = mean_interval(reported[best])
    line = {"n_per_class": size, "best": name(best), **dict(zip(SETTING, best, strict=True)), "settings": len(ranked)}
    line |= {"splits": len(reported), "accuracy": accuracy, "low": low, "high": high, "runner_up": name(second)}
    line |= _against_runner_up(reported, best, second)
    line |= {"greedy": name(path) if (path := greedy(rows, size)) else "", **_paper(rows, size)}
    return line


def name(setting: Any) -> str:
    """A setting in the order of the paper's table 2, layers/decay_epochs/freeze, as in `6/10/6`; the number of layers
    at the high learning rate is added where it is not one."""
    layers, high, decay, freeze = (int(value) for value in setting)
    return f"{layers}/{decay}/{freeze}" + ("" if high == 1 else f", {high} high")


def _against_runner_up(reported: pd.DataFrame, best: Any, second: Any) -> dict[str, Any]:
    """The paired difference from the runner-up, and how many settings are as good as the best."""
    difference = reported[best] - reported[second]
    if len(difference) < 2:
        return {"difference": difference.mean(), "p": math.nan, "significant": False, "as_good": reported.shape[1]}
    d = paired(difference)
    p = min(1.0, (reported.shape[1] - 1) * 2 * min(d.p_above, d.p_below))
    line = {"difference": d.mean, "difference_low": d.low, "difference_high": d.high, "p": p}
    as_good = int((compare_with_best(reported) > 0.05).sum())
    return {**line, "significant": bool(p < 0.05 and d.mean > 0), "as_good": as_good}


def greedy(rows: pd.DataFrame, size: Size) -> tuple[int, int, int, int] | None:
    """The result of the paper's search, one factor at a time, with only the last layer at the high learning rate.

    For numbers of images per class, six layers are fixed, as figures 4 and 5 have them; decay_epochs comes from figure
    4 and freeze from figure 5. For the whole set, layers and decay come from figure 3. Settings are chosen by
    validation accuracy, on the units that all settings of a step ran on. None if the rows lack a step.
    """
    try:
        if size == "full":
            decays = experiments.low_and_high_decay(rows)
            charts = [cells(experiments.layers_one_high(rows, d), "layers", "val_accuracy") for d in decays]
            both = pd.concat(dict(zip(decays, (wide[size] for wide in charts), strict=True)), axis=1).dropna()
            if both.empty:
                return None
            best: Any = by_unit(both).mean().idxmax()
            return int(best[1]), 1, int(best[0]), 0
        decay = best_level(cells(experiments.decay_epochs(rows), "decay_epochs", "val_accuracy"), size)
        freeze = best_level(cells(experiments.freeze(rows), "freeze", "val_accuracy"), size)
    except (Missing, KeyError):
        return None
    return 6, 1, decay, freeze


def _paper(rows: pd.DataFrame, size: Size) -> dict[str, Any]:
    """The paper's setting and accuracy, and what that setting reaches here."""
    if size not in published.table2():
        return {}
    paper = published.table2()[size]
    line: dict[str, Any] = {"paper": name((paper.layers, 1, paper.decay, paper.freeze))}
    line["paper_accuracy"] = paper.accuracy
    setting = experiments.optimal_settings(rows).get(size)
    if setting:
        line["paper_here"] = name((setting["layers"], 1, setting["decay_epochs"], setting["freeze"]))
        runs = pick(rows, n_per_class=size, high_lr_layers=1, **setting)
        line["paper_setting_here"] = mean_interval(cells(runs, "freeze").iloc[:, 0])[0]
    return line


TABLE2 = Table(
    "table2",
    "Table 2: optimal settings",
    "A setting is layers transferred / decay_epochs / layers frozen, with only the last layer at the high learning "
    "rate unless another number is given. lr.step is 30 epochs in the paper; “paper here” is its setting at our "
    "lr.step, and “paper setting here” the accuracy of that. Settings are chosen on validation images and reported on "
    "test images, where the rows have some. Without them, selection=all chooses and reports on the same images, as the "
    "paper did, and selection=heldout chooses on the even validation images of each class and reports on the odd ones. "
    "p compares best and runner-up, adjusted for the number of settings; “as good” counts "
    "the settings that cannot be distinguished from the best one.",
    settings,
    (
        *("n_per_class", "best", "accuracy", "runner_up", "difference", "p", "as_good", "settings", "greedy", "paper"),
        *("paper_accuracy", "paper_here", "paper_setting_here"),
    ),
)
SELECTION = Table(
    "selection",
    "Effect of choosing on the reported images",
    "Accuracy of the best setting per size, in percent. “heldout images” chooses on one half of each class’s "
    "validation images and reports on the other; “heldout splits” chooses on all other class splits. “Optimism” is "
    "how much choosing and reporting on the same images overestimates, in points.",
    lambda rows, _: selection.effect(rows[rows["layers"] > 0], SETTING),
)
