"""Where the rows of a study come from."""

from typing import Any

import pandas as pd

from analysis.frame import one_unit, size_order, sizes

RECIPE = (
    *("dataset", "model", "model.width", "dataset.pixels", "classes", "schedule", "epochs", "batch_size", "lr.high"),
    *("lr.low", "lr.step", "lr.gamma", "momentum", "weight_decay", "dropout", "augment", "precision", "subset", "base"),
    *("base.n_per_class", "base.epochs"),
)
FAILURES = {
    "collapsed": "loss at ln K, nothing learned",
    "underfitted": "training loss near ln K, or still falling fast",
    "diverged": "loss not finite",
}


def facts(rows: pd.DataFrame, unit: tuple[str, ...], total: int) -> list[tuple[str, str]]:
    """Names and values: how many rows, sizes and units, which runs failed, the recipe, machines and versions.

    `total` is the number of rows of the whole table, `unit` the columns that identify a unit.
    """
    units, seeds = rows["unit"].nunique(), rows["seed"].nunique()
    replicates = f"{units} ({', '.join(unit)}), {seeds} seed{'s' if seeds > 1 else ''} each"
    if one_unit(rows):
        replicates = f"1 ({', '.join(unit)}), whose {seeds} seeds stand for units"
    entries = [
        ("runs", f"{len(rows)} of {total} rows of the table"),
        ("images per class", ", ".join(map(str, sizes(rows)))),
        ("units", replicates),
    ]
    entries += _base(rows) + _failures(rows)
    entries += [(name, _values(rows[name])) for name in RECIPE if name in rows]
    if "seconds" in rows:
        entries.append(("training time", f"{rows['seconds'].sum() / 3600:.1f} hours in total"))
    entries += [(name, _values(rows[name])) for name in ("device", "tlprotocols", "torch", "python") if name in rows]
    if "date" in rows:
        entries.append(("finished", f"{rows['date'].min()[:16]} to {rows['date'].max()[:16]} UTC"))
    return entries


def _base(rows: pd.DataFrame) -> list[tuple[str, str]]:
    if "base_top1" not in rows or not rows["base_top1"].notna().any():
        return []
    one = ["base_id"] if "base_id" in rows else ["unit", "seed"]
    top1 = 100 * rows.groupby(one)["base_top1"].first()
    return [("base networks", f"top-1 {top1.mean():.1f}% ({top1.min():.1f} to {top1.max():.1f}) on their own classes")]


def _failures(rows: pd.DataFrame) -> list[tuple[str, str]]:
    entries = []
    for flag, meaning in FAILURES.items():
        if flag not in rows:
            continue
        failed = rows[rows[flag].fillna(False).astype(bool)]
        counts: dict[Any, int] = failed.groupby(["layers", "n_per_class"]).size().to_dict()
        places = sorted(counts, key=lambda place: (place[0], size_order(place[1])))
        detail = ", ".join(f"{counts[place]} at layers={place[0]} n={place[1]}" for place in places)
        entries.append((flag, f"{len(failed)} runs ({meaning})" + (f": {detail}" if detail else "")))
    return entries


def _values(column: "pd.Series[Any]") -> str:
    return ", ".join(sorted(map(str, column.dropna().unique()))) or "none"
