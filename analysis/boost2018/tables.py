"""The tables of the study: means and paired differences of every arm, and the text beside what was found."""

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.boost2018.arms import (
    ALL,
    DIVERSE,
    MEASURES,
    MORE,
    SELF,
    TRANSFERRED,
    by_arm,
    difference,
    images_per_class,
    measured,
)
from analysis.boost2018.contrasts import PRIMARY
from analysis.contrasts import decide
from analysis.frame import Missing
from analysis.statistics import mean_interval
from analysis.study import Table

POINTS = ("accuracy", "train_accuracy", "overfit", "probe")  # measures whose differences are in points
OF_EXPECTATION = {  # item of published.csv: the contrasts that are about it
    "Expectation 1": ("training_loss",),
    "Expectation 2": ("gap",),
    "Expectation 3": ("diverse",),
    "Expectation 4": ("more_data",),
    "Hypothesis H1 better minima": ("training_loss", "training_accuracy"),
    "Hypothesis H2 regularized init": ("gap_over_baseline", "base_data", "more_classes", "more_images"),
    "Yosinski boost quoted": ("boost_over_baseline", "boost"),
}
OF_A_CLAIM = {  # expectations that say something else than the contrast, whose verdict is not theirs
    "Expectation 1": "training_losses_are_close",
    "Expectation 4": "more_data_is_best",
}
SOURCES = {
    "Network Transferred": TRANSFERRED,
    "Network Non-transferred": SELF,
    "Network Transferred-Diverse": DIVERSE,
    "Network Transferred-More-Data": MORE,
}


def published() -> pd.DataFrame:
    """What the text prints: its design, its expectations, the numbers that it quotes."""
    return pd.read_csv(Path(__file__).with_name("published.csv"), keep_default_na=False)


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Every arm: its runs, and the mean over units of every measure with its 95% interval."""
    found, lines = measured(rows), []
    for arm in (arm for arm in ALL if (found["arm"] == arm).any()):
        line: dict[str, Any] = {"arm": arm, "runs": int((found["arm"] == arm).sum())}
        for value in MEASURES:
            wide = by_arm(rows, value)
            if arm in wide:
                line |= dict(zip((value, f"{value}_low", f"{value}_high"), mean_interval(wide[arm]), strict=True))
        lines.append(line)
    return pd.DataFrame(lines)


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Every arm minus Non-transferred, paired by draw and seed: mean over units and 95% interval, in points.

    Raises:
        Missing: Non-transferred, or every other arm, has no rows.
    """
    lines = []
    for arm in map(str, by_arm(rows).columns.drop(SELF, errors="ignore")):
        line: dict[str, Any] = {"arm": arm}
        for value in POINTS:
            try:
                interval = mean_interval(difference(rows, arm, SELF, value))
            except Missing:
                if value != "probe":
                    raise
                continue
            line |= dict(zip((value, f"{value}_low", f"{value}_high"), interval, strict=True))
        lines.append(line)
    if not lines:
        raise Missing("Only one arm is finished.")
    return pd.DataFrame(lines)


def beside_the_text(rows: pd.DataFrame) -> pd.DataFrame:
    """Each item that the text prints, and what these rows have in its place."""
    decided = {row["contrast"]: row for row in decide(PRIMARY, rows).to_dict("records")}
    printed = published().query("kind == 'printed'")
    lines = [
        {"item": item, "here": here, "text": text if place == 0 else ""}
        for item, text in zip(printed["item"], printed["value"], strict=True)
        for place, here in enumerate(_here(item, rows, decided))
    ]
    return pd.DataFrame(lines)


def _here(item: str, rows: pd.DataFrame, decided: dict[Any, dict[Any, Any]]) -> list[str]:
    """One or more texts: an item can be about several contrasts."""
    if item in OF_EXPECTATION:
        return [_effect(name, decided[name], OF_A_CLAIM.get(item)) for name in OF_EXPECTATION[item]]
    if item in SOURCES:
        arm = measured(rows).query("arm == @SOURCES[@item]")
        counts = [f"{n} images per source class" for n in images_per_class(arm["base.n_per_class"]).unique()]
        return [f"{', '.join(counts)}; {len(arm)} runs" if len(arm) else "not run"]
    first = rows.iloc[0]
    known = {
        "CIFAR-10 groups": f"A,B,C={first.get('classes.sizes')}; {rows['split'].nunique()} random draws",
        "network": f"{first['model']} of width {first['model.width']}",
        "layers transferred": "1, retrained; frozen beside it",
        "retraining length": f"{first['epochs']} epochs",
    }
    return [known.get(item, "")]


def _effect(name: str, row: dict[Any, Any], claim: str | None) -> str:
    if pd.isna(row["effect"]):
        return f"{name}: not run"
    verdict = f"verdict: claim {claim}" if claim else row["verdict"]
    return f"{name}: {row['effect']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}] {row['unit']}, {verdict}"


TABLES = (
    Table(
        "text",
        "What the text prints, and what was found",
        "The text has expectations and no results. Effects are paired differences over class draws with 95% intervals; "
        "names and verdicts are those of the declared contrasts below.",
        lambda rows, _: beside_the_text(rows),
    ),
    Table(
        "contrasts",
        "The declared family of contrasts",
        "Declared before the rows existed, Holm-adjusted within the family; direction -1: the text says below 0. "
        " The claims below are the text’s sentences, expectation 1 as an equivalence test.",
        lambda rows, _: decide(PRIMARY, rows),
        (
            *("contrast", "where", "direction", "effect", "low", "high", "unit", "units", "p_holm", "margin"),
            *("verdict", "more_data"),
        ),
    ),
    Table(
        "differences",
        "Every arm minus Non-transferred, in points",
        "Paired by class draw and seed; mean over draws and 95% interval. Overfit: training minus reported accuracy.",
        lambda rows, _: differences(rows),
    ),
    Table(
        "means",
        "Means of every arm",
        "Accuracies and the linear probe in percent, overfit in points, loss in nats; mean over draws and 95% "
        "interval, which has the spread of the draws in it: compare arms by the differences above.",
        lambda rows, _: means(rows),
    ),
)
