"""Table 2: the best setting per images per class, its runner-up, the paper's greedy search, the paper's own setting."""

import math
from typing import Any

import pandas as pd

from analysis.evidence import excluded
from analysis.frame import Missing, Size, cells, pick, sizes, study
from analysis.plested2019 import fig3, fig4, fig5, fig6, published
from analysis.selection import SETTING, candidates, columns
from analysis.statistics import mean_interval, paired

TITLE = "Table 2  Optimal transfer learning settings"


def settings(table: pd.DataFrame, selection: str = "all") -> pd.DataFrame:
    """One row per images per class.

    Best of all settings that were run on every split, and the runner-up with the paired difference. Its p value is
    Bonferroni-adjusted for the number of settings that the best one was chosen from; `as_good` counts the settings
    that cannot be told from the best one (p > 0.05). `selection="heldout"` chooses on the even validation images and
    reports on the odd ones.
    """
    table = study(table)
    told = [row for size in sizes(table) if (row := _row(table, size, selection))]
    if not told:
        raise Missing("No images per class at which two or more transfer settings were run on the same splits.")
    return pd.DataFrame(told)


def _row(table: pd.DataFrame, size: Size, selection: str) -> dict[str, Any] | None:
    choose, report = columns(selection)
    try:
        chosen_by, reported = candidates(table, size, choose), candidates(table, size, report)
    except Missing:
        return None
    if chosen_by.shape[1] < 2:
        return None
    ranked = chosen_by.mean().sort_values(ascending=False, kind="stable").index
    best, second = ranked[0], ranked[1]
    accuracy, low, high = mean_interval(reported[best])
    row = {"n_per_class": size, "best": say(best), **dict(zip(SETTING, best, strict=True)), "settings": len(ranked)}
    row |= {"splits": len(reported), "accuracy": accuracy, "low": low, "high": high, "runner_up": say(second)}
    row |= _against(reported, best, second)
    row |= {"greedy": say(path) if (path := greedy(table, size)) else "", **_paper(table, size)}
    return row


def say(setting: Any) -> str:
    """A setting in the order of the paper's Table 2, layers/decay_epochs/freeze, as in `6/10/6`; how many layers start
    at the high rate is said where it is not one."""
    layers, high, decay, freeze = (int(value) for value in setting)
    return f"{layers}/{decay}/{freeze}" + ("" if high == 1 else f", {high} high")


def _against(reported: pd.DataFrame, best: Any, second: Any) -> dict[str, Any]:
    """The paired difference from the runner-up, and how many settings are as good as the best."""
    difference = reported[best] - reported[second]
    if len(difference) < 2:
        return {"difference": difference.mean(), "p": math.nan, "significant": False, "as_good": reported.shape[1]}
    d = paired(difference)
    p = min(1.0, (reported.shape[1] - 1) * 2 * min(d.p_above, d.p_below))
    row = {"difference": d.mean, "difference_low": d.low, "difference_high": d.high, "p": p}
    return {**row, "significant": bool(p < 0.05 and d.mean > 0), "as_good": int((excluded(reported) > 0.05).sum())}


def greedy(table: pd.DataFrame, size: Size) -> tuple[int, int, int, int] | None:
    """What the paper's search finds, one factor at a time, with only the last layer at the high rate, which it takes
    from Fig. 2 for all sizes: layers and low or high decay (Fig. 3), decay at 6 layers (Fig. 4), freeze (Fig. 5). A
    step that the table lacks keeps the value before it."""
    try:
        low_high = {d: cells(fig3.rows(table, d), "layers")[size].mean() for d in fig3.decays(table)}
        best: Any = pd.DataFrame(low_high).stack().idxmax()
        layers, decay = best
    except (Missing, KeyError):
        return None
    if layers == 6:
        decay = _best(lambda: cells(fig4.rows(table), "decay_epochs"), size, decay)
        freeze = _best(lambda: cells(fig5.rows(table), "freeze"), size, 0)
    else:
        freeze = 0
    return int(layers), 1, int(decay), int(freeze)


def _best(wide: Any, size: Size, otherwise: int) -> int:
    try:
        return int(wide()[size].mean().idxmax())
    except (Missing, KeyError):
        return otherwise


def _paper(table: pd.DataFrame, size: Size) -> dict[str, Any]:
    """The paper's setting and accuracy, and what that setting reaches here."""
    if size not in published.table2():
        return {}
    paper = published.table2()[size]
    row: dict[str, Any] = {
        "paper": say((paper.layers, 1, paper.decay, paper.freeze)),
        "paper_accuracy": paper.accuracy,
    }
    setting = fig6.settings(table).get(size)
    if setting:
        row["paper_here"] = say((setting["layers"], 1, setting["decay_epochs"], setting["freeze"]))
        rows = pick(study(table), n_per_class=size, high_lr_layers=1, **setting)
        row["paper_setting_here"] = mean_interval(cells(rows, "freeze").iloc[:, 0])[0]
    return row
