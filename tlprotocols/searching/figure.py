"""The figure of a recommendation: accuracy on held-out images, and the settings that the search tried."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tlprotocols.searching.comparison import Interval
from tlprotocols.searching.search import Search


def draw(search: Search, compared: Mapping[str, tuple[Interval, Interval]], images: int, path: Path) -> None:
    """Left, the networks on held-out images with 95% intervals; right, every setting in the order it was tried."""
    what = "balanced accuracy" if search.balanced else "accuracy"
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[2, 3])
    names = list(compared)
    means = 100 * np.array([compared[name][0].mean for name in names])
    bounds = 100 * np.array([[compared[name][0].low, compared[name][0].high] for name in names])
    left.barh(names, means, color=["#1b7837", *["#9e9e9e"] * (len(names) - 1)])
    left.errorbar(means, names, xerr=np.abs(bounds.T - means), fmt="none", ecolor="black", capsize=3)
    left.invert_yaxis()
    left.set_xlabel(f"{what} on {images:,} held-out images, %")
    left.set_title("compared")
    values = np.array([100 * search.accuracy(one) for one in search.tried])
    counts = np.array([len(one.folds) for one in search.tried])
    order = np.arange(1, len(values) + 1)
    dots = right.scatter(order, values, c=counts, cmap="viridis", vmin=1, vmax=search.config.folds, zorder=2)
    best = search.tried.index(search.best)
    right.scatter(order[best], values[best], s=160, facecolors="none", edgecolors="#1b7837", linewidths=2, zorder=3)
    for place, one in enumerate(search.tried):
        if one.name:  # slanted, for these are neighbours
            at, by = (order[place], values[place]), (2, 4)
            right.annotate(one.name, at, fontsize=7, xytext=by, textcoords="offset points", rotation=40)
    right.margins(x=0.1, y=0.3)  # for the names
    right.xaxis.get_major_locator().set_params(integer=True)
    figure.colorbar(dots, ax=right, label="folds", ticks=range(1, search.config.folds + 1))
    right.set_xlabel("settings in the order in which they were tried")
    right.set_ylabel(f"cross-validated {what}, %")
    right.set_title("searched (ring: recommended)")
    figure.savefig(path, dpi=150)
