"""Tables of our runs of the 2014 study, each beside the numbers of its published networks."""

from typing import Any

import pandas as pd

from analysis.frame import Missing, arranged, pick, size_order
from analysis.statistics import mean_interval
from analysis.yosinski2014 import networks
from analysis.yosinski2014.runs import TREATMENTS, accuracy, base, mean_over

SETS = {"random": 0, "natural": 1, "man-made": 2}  # of the table `dissimilar`, in its order
PUBLISHED_TARGETS = {"halfnatmanA": "natural", "halfnatmanB": "man-made"}


def by_layers(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by treatment and layers copied, and the difference from baseB of the same unit, with 95% intervals."""
    own, lines = base(rows), []
    logs = networks.transferred(networks.published()).groupby(["treatment", "n_layers"])[["top1", "gain"]].mean()
    paper = logs.to_dict("index")
    for treatment in TREATMENTS:
        try:
            wide = accuracy(rows, treatment)
        except Missing:
            continue
        for n in wide:
            gain = (wide[n] - own).dropna()
            line: dict[str, Any] = {"treatment": treatment, "layers": n, "top1": float(wide[n].mean())}
            line |= dict(zip(("gain", "gain_low", "gain_high"), mean_interval(gain), strict=True))
            line |= {"units": gain.index.get_level_values("unit").nunique()}
            lines.append(line | {f"paper_{key}": value for key, value in paper.get((treatment, n), {}).items()})
    if not lines:
        raise Missing("No finished runs that copy layers.")
    return pd.DataFrame(lines)


def table1(rows: pd.DataFrame) -> pd.DataFrame:
    """Table 1 of 2014: AnB+ over baseB and over BnB+, paired by unit; printed, and from the published logs.

    Raises:
        Missing: no range of the paper's has all of its numbers of layers.
    """
    own, lines, missing = base(rows), [], Missing()
    logs = networks.comparison(networks.published()).set_index("layers")
    for first, last in networks.RANGES:
        layers = [*range(first, last + 1)]
        try:
            transfer, selffer = (mean_over(rows, treatment, layers) for treatment in ("AnB+", "BnB+"))
        except Missing as reason:
            missing = reason
            continue
        name = f"{first}-{last}"
        line: dict[str, Any] = {"layers": name}
        for key, difference in (
            ("AnB+_over_base", transfer - own),
            ("BnB+_over_base", selffer - own),
            ("AnB+_over_BnB+", transfer - selffer),
        ):
            line |= dict(zip((key, f"{key}_low", f"{key}_high"), mean_interval(difference), strict=True))
        line |= {"printed_over_base": logs["printed_over_base"][name]}
        line |= {"printed_over_BnB+": logs["printed_over_selffer"][name]}
        line |= {"logs_AnB+_paired": logs["AnB+_paired"][name], "logs_BnB+_paired": logs["BnB+_paired"][name]}
        lines.append(line)
    if not lines:
        raise missing
    return pd.DataFrame(lines)


def dissimilar(rows: pd.DataFrame) -> pd.DataFrame:
    """Frozen layers between natural and man-made classes by target, and frozen at random weights on all classes:
    accuracy and its difference from the network with none frozen."""
    ours = pd.concat([_natman(rows), _random(rows)])
    if ours.empty:
        raise Missing("No finished runs with classes=natman or freeze_random=true.")
    paper = _published_dissimilar().set_index(["features", "layers"])["paper_top1"]
    ours["paper_top1"] = [
        paper.get((features, n)) for features, n in zip(ours["features"], ours["layers"], strict=True)
    ]
    ours["change"] = ours["top1"] - _first(ours, "top1")
    ours["paper_change"] = ours["paper_top1"] - _first(ours, "paper_top1")
    return ours.sort_values(["features", "layers"], key=_order).reset_index(drop=True)


def _first(lines: pd.DataFrame, column: str) -> "pd.Series[Any]":
    return lines["features"].map(lines[lines["layers"] == 0].set_index("features")[column])


def _order(column: "pd.Series[Any]") -> "pd.Series[Any]":
    return column.map(SETS) if column.name == "features" else column


def _natman(rows: pd.DataFrame) -> pd.DataFrame:
    part = rows[(rows["classes"] == "natman") & (rows["freeze"] == rows["layers"])]
    names = part["target"].map({"A": "natural", "B": "man-made"})
    return _means(part.assign(features=names), "layers")


def _random(rows: pd.DataFrame) -> pd.DataFrame:
    """Those of the table's common solver, which the runs on fewer images do not have."""
    part = rows[(rows["classes"] == "all") & (rows["layers"] == 0)]
    frozen = part[part["freeze"] > 0]
    same = part["max_updates"].isin(set(frozen["max_updates"])) & part["lr.high"].isin(set(frozen["lr.high"]))
    return _means(part[same].assign(features="random"), "freeze")


def _means(part: pd.DataFrame, level: str) -> pd.DataFrame:
    if part.empty:
        return pd.DataFrame(columns=["features", "layers", "top1"])
    means = arranged(part, ["features", level]).mean().rename("top1").reset_index()
    return means.rename(columns={level: "layers"})


def _published_dissimilar() -> pd.DataFrame:
    """The published networks of the same kind; of natural and man-made targets, and with random weights on 1000."""
    logs = networks.published()
    logs = logs[logs["mean10best_top1"].notna()]
    natman = logs[logs["treatment"].str.contains("natman")]
    random = logs[logs["treatment"].isin(["nolearn (random frozen)", "base (1000-class)"])]
    parts = [natman.assign(features=natman["target"].map(PUBLISHED_TARGETS)), random.assign(features="random")]
    found = pd.concat(parts)
    return pd.DataFrame(
        {
            "features": found["features"],
            "layers": found["n_layers"].astype(int),
            "paper_top1": 100 * found["mean10best_top1"],
        }
    )


def reduced(rows: pd.DataFrame) -> pd.DataFrame:
    """Training from scratch on fewer images of all classes; a collapsed network has the training loss of chance."""
    part = pick(rows, classes="all", layers=0, freeze=0)
    several = part.groupby(["max_updates", "lr.high"])["n_per_class"].transform("nunique")
    part = part[several == several.max()]
    paper = networks.scratch(networks.published()).set_index("n_per_class")
    lines, top1 = [], arranged(part, ["n_per_class"])
    for n, group in part.groupby("n_per_class"):
        size = 1300 if n == "full" else int(n)
        line = {"n_per_class": n, "top1": top1[n].mean(), "train_loss": group["train_loss"].mean()}
        line |= {"collapsed": bool(group["collapsed"].all())}
        if size in paper.index:
            line |= {"paper_top1": paper["top1"][size], "paper_collapsed": bool(paper["collapsed"][size])}
        lines.append(line)
    found = pd.DataFrame(lines)
    return found.sort_values("n_per_class", key=lambda column: column.map(size_order)).reset_index(drop=True)
