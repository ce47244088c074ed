"""The 2014 study that the paper builds on, from its published training logs: its figure, its comparison redone.

AnB: first n layers copied from the other half of the classes and frozen. BnB: from the same half. A plus: fine-tuned.
The 2014 paper subtracts means over different target halves; here each network is compared with the base network of its
own half.
"""

from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import panels
from analysis.claim import claim
from analysis.evidence import Evidence, above, near
from analysis.plested2019.published import yosinski2014
from analysis.statistics import paired as paired_statistics
from analysis.statistics import slopes

TITLE = "Yosinski et al. (2014), from the published logs"
LOOK = {
    "BnB": ("#0072b2", "s", "BnB frozen, same half"),
    "BnB+": ("#56b4e9", "s", "BnB+ tuned, same half"),
    "AnB": ("#d55e00", "o", "AnB frozen, other half"),
    "AnB+": ("#e69f00", "o", "AnB+ tuned, other half"),
}
RANGES = ((1, 7), (3, 7), (5, 7))
PRINTED = {(1, 7): (1.6, 1.4), (3, 7): (1.8, 1.4), (5, 7): (2.1, 1.7)}  # Table 1: AnB+ over base, AnB+ over BnB+
CHANCE = 6.9077  # nats, ln 1000


def networks(published: pd.DataFrame | None = None) -> pd.DataFrame:
    """Transferred networks with a log: `top1` (mean of the ten best tests, the paper's measure) in percent, `gain`
    over the base network of the same target half."""
    found = yosinski2014() if published is None else published
    found = found[found["mean10best_top1"].notna()].copy()
    found["top1"] = 100 * found["mean10best_top1"]
    base = found[found["treatment"] == "baseB"].set_index("target")["top1"]
    found = found[found["treatment"].isin(LOOK)].copy()
    found["gain"] = found["top1"] - found["target"].map(base)
    return found


def base(published: pd.DataFrame | None = None) -> float:
    """Mean accuracy of the eight base networks, percent."""
    found = yosinski2014() if published is None else published
    return float(100 * found.loc[found["treatment"] == "baseB", "mean10best_top1"].mean())


def layer_means(published: pd.DataFrame | None = None) -> pd.DataFrame:
    """Mean accuracy by treatment and layer, percent."""
    return networks(published).pivot_table("top1", "n_layers", "treatment", aggfunc="mean")[list(LOOK)]


def comparison(published: pd.DataFrame | None = None) -> pd.DataFrame:
    """The 2014 Table 1 three ways, in points: as printed, as means over different halves, and paired by half.

    A mean is over layers, of the means of their networks. Intervals take layers as independent; but only two halves
    have fine-tuned networks, and those of one half share a base network, so the true ones are wider.
    """
    found, mean, told = networks(published), base(published), []
    for first, last in RANGES:
        part = found[found["n_layers"].between(first, last)]
        means = part.groupby(["treatment", "n_layers"])[["top1", "gain"]].mean()
        a, b = means.loc["AnB+"], means.loc["BnB+"]
        one, two = paired_statistics(list(a["gain"])), paired_statistics(list(b["gain"]))
        row: dict[str, Any] = {"layers": f"{first}-{last}"}
        row |= {"printed_over_base": PRINTED[first, last][0], "unpaired_over_base": a["top1"].mean() - mean}
        row |= {"AnB+_paired": one.mean, "AnB+_low": one.low, "AnB+_high": one.high}
        row |= {"BnB+_paired": two.mean, "BnB+_low": two.low, "BnB+_high": two.high}
        row |= {"printed_over_selffer": PRINTED[first, last][1]}
        row |= {
            "unpaired_over_selffer": a["top1"].mean() - b["top1"].mean(),
            "paired_over_selffer": one.mean - two.mean,
        }
        told.append(row)
    return pd.DataFrame(told)


def draw(published: pd.DataFrame | None = None, ax: Axes | None = None) -> Axes:
    """Accuracy by layer: every network a mark, means joined, the base network a line."""
    return _by_layer(networks(published), "top1", base(published), "validation top-1 (%)", panels.axes(ax))


def gains(published: pd.DataFrame | None = None, ax: Axes | None = None) -> Axes:
    """The same over the base network of the same target half."""
    ax = _by_layer(networks(published), "gain", 0.0, "points over own base", panels.axes(ax))
    ax.set_ylim(-3.4, 1.9)  # where the fine-tuned ones are
    ax.text(3.9, -3.3, "AnB goes on to -8.3 at 7", fontsize=7, color=LOOK["AnB"][0], ha="right")
    return ax


def _by_layer(found: pd.DataFrame, value: str, line: float, name: str, ax: Axes) -> Axes:
    with rc_context(panels.STYLE):
        ax.axhline(line, color=panels.GREY, linewidth=0.8)
        ax.text(7.9, line, "base", color="0.3", va="bottom", ha="right", fontsize=7)
        for i, (treatment, (colour, marker, _)) in enumerate(LOOK.items()):
            part = found[found["treatment"] == treatment]
            x = part["n_layers"] + 0.07 * (i - 1.5)
            ax.plot(x, part[value], marker, color=colour, markersize=2.8, alpha=0.55, markeredgewidth=0)
            mean = part.groupby("n_layers")[value].mean()
            ax.plot(mean.index, mean, color=colour, linewidth=1.4)
        ax.set_xlim(0.7, 7.9)
        ax.set_xlabel("layers copied")
        ax.set_ylabel(name)
        return ax


def reduced(published: pd.DataFrame | None = None, ax: Axes | None = None) -> Axes:
    """Training from scratch on few images of each of 1000 classes: a collapsed network is hollow."""
    found = scratch(published)
    with rc_context(panels.STYLE):
        ax = panels.axes(ax)
        places = range(len(found))
        ax.plot(places, found["top1"], color="0.75", linewidth=0.8, zorder=1)
        for x, (top1, collapsed) in enumerate(zip(found["top1"], found["collapsed"], strict=True)):
            ax.plot(x, top1, "o", color="black", markersize=5, fillstyle="none" if collapsed else "full", clip_on=False)
        ax.set_xticks(list(places), [str(n) for n in found["n_per_class"]])
        ax.set_ylim(bottom=0)
        ax.set_xlabel("training images per class")
        ax.set_ylabel("validation top-1 (%)")
        ax.text(
            0.02,
            0.95,
            "hollow: never learned (loss at ln 1000)\nn = 1, 2: learned by heart",
            transform=ax.transAxes,
            va="top",
            fontsize=7.5,
        )
        return ax


def scratch(published: pd.DataFrame | None = None) -> pd.DataFrame:
    """The networks trained from scratch on reduced sets, and whether each collapsed."""
    found = yosinski2014() if published is None else published
    found = found[found["treatment"] == "reduced-n"].sort_values("n_per_class")
    return pd.DataFrame(
        {
            "n_per_class": found["n_per_class"].astype(int),
            "top1": 100 * found["mean10best_top1"],
            "train_loss": found["mean_train_loss_last1000it"],
            "collapsed": (found["mean_train_loss_last1000it"] - CHANCE).abs() < 0.01,
        }
    ).reset_index(drop=True)


def figure(published: pd.DataFrame | None = None) -> Figure:
    """Accuracy, gains over the own base, and training from scratch."""
    with rc_context(panels.STYLE):
        figure = Figure(figsize=(panels.WIDTH, 6.2), layout="constrained")
        top, middle, bottom = figure.subplots(3, 1, height_ratios=(1.2, 1.2, 0.9))
        draw(published, top)
        gains(published, middle)
        reduced(published, bottom)
        for i, (colour, _, name) in enumerate(LOOK.values()):
            top.text(0.02, 0.44 - 0.11 * i, name, color=colour, transform=top.transAxes, va="top", weight="bold")
        top.set_title("As plotted in 2014: targets of all halves")
        middle.set_title("The same networks, each over the base of its own target half")
        bottom.set_title("From scratch on fewer images")
        return figure


def _gain(table: pd.DataFrame, treatment: str, first: int = 1) -> "pd.Series[Any]":
    found = networks(table).query("treatment == @treatment and n_layers >= @first")
    return found["gain"].reset_index(drop=True)


@claim(
    "2014, abstract",
    "initializing a network with transferred features [...] can produce a boost to generalization",
    "networks",
)
def tuned_transfer_beats_base(table: pd.DataFrame) -> Evidence:
    """AnB+ over the base network of its own half, all networks."""
    return above(_gain(table, "AnB+"), "AnB+ over own base")


@claim("2014, sec. 4.1 item 5", "[BnB+] do not exhibit this same performance improvement", "networks")
def tuned_selffer_does_not(table: pd.DataFrame) -> Evidence:
    """BnB+ over the base network of its own half: within 0.3 points of 0."""
    return near(_gain(table, "BnB+"), "BnB+ over own base", 0.0, 0.3)


@claim("2014, Table 1", "[AnB+ over BnB+:] 1.4 [to] 1.7 [points]", "means of two networks")
def transfer_beats_selffer(table: pd.DataFrame) -> Evidence:
    """AnB+ minus BnB+, both over their own bases, paired by layer."""
    found = networks(table).pivot_table("gain", "n_layers", "treatment", aggfunc="mean")
    return above(found["AnB+"] - found["BnB+"], "AnB+ minus BnB+, by layer")


@claim("2014, abstract", "specialization of higher layer neurons to their original task", "target halves")
def frozen_transfer_falls_with_depth(table: pd.DataFrame) -> Evidence:
    """Slope of AnB over layers 1 to 7, one per target half."""
    found = networks(table).query("treatment == 'AnB'").pivot(index="target", columns="n_layers", values="gain")
    return above(-slopes(found), "AnB, fall a layer")


CLAIMS = (
    tuned_transfer_beats_base,
    tuned_selffer_does_not,
    transfer_beats_selffer,
    frozen_transfer_falls_with_depth,
)
