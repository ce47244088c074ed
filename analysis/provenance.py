"""Where the rows of a report come from."""

from typing import Any

import pandas as pd

from analysis.frame import left_out, order, sizes, study

RECIPE = (
    *("dataset", "model", "model.width", "dataset.pixels", "classes", "schedule", "epochs", "batch_size", "lr.high"),
    *("lr.low", "lr.step", "lr.gamma", "momentum", "weight_decay", "dropout", "augment", "precision", "subset", "base"),
    *("base.n_per_class", "base.epochs"),
)


def facts(table: pd.DataFrame) -> list[tuple[str, str]]:
    """What was run, on what, with what, and which runs failed to learn: name and value."""
    rows = study(table)
    told = [("runs", f"{len(rows)} of {len(table)} rows of the table")]
    told += [("left out", sentence) for sentence in left_out(table)]
    told.append(("images per class", ", ".join(map(str, sizes(rows)))))
    units = rows[["split", "target"]].drop_duplicates()
    seeds = rows["seed"].nunique()
    told.append(("class splits", f"{len(units)} (split, target half), {seeds} seed{'s' if seeds > 1 else ''} each"))
    told += _base(rows) + _failures(rows)
    told += [(name, _values(rows[name])) for name in RECIPE if name in rows]
    if "seconds" in rows:
        told.append(("training time", f"{rows['seconds'].sum() / 3600:.1f} hours in all"))
    told += [(name, _values(rows[name])) for name in ("device", "tlprotocols", "torch", "python") if name in rows]
    if "date" in rows:
        told.append(("finished", f"{rows['date'].min()[:16]} to {rows['date'].max()[:16]} UTC"))
    return told


def _base(rows: pd.DataFrame) -> list[tuple[str, str]]:
    if "base_top1" not in rows or not rows["base_top1"].notna().any():
        return []
    top1 = 100 * rows.groupby(["split", "target", "seed"])["base_top1"].first()
    return [("base networks", f"top-1 {top1.mean():.1f}% ({top1.min():.1f} to {top1.max():.1f}) on their own classes")]


def _failures(rows: pd.DataFrame) -> list[tuple[str, str]]:
    told = []
    for flag, meaning in (("collapsed", "loss at ln K, never learned"), ("diverged", "loss not a number")):
        if flag not in rows:
            continue
        failed = rows[rows[flag].fillna(False).astype(bool)]
        where: dict[Any, int] = failed.groupby(["layers", "n_per_class"]).size().to_dict()
        places = sorted(where, key=lambda place: (place[0], order(place[1])))
        detail = ", ".join(f"{where[place]} at layers={place[0]} n={place[1]}" for place in places)
        told.append((flag, f"{len(failed)} runs ({meaning})" + (f": {detail}" if detail else "")))
    return told


def _values(column: "pd.Series[Any]") -> str:
    return ", ".join(sorted(map(str, column.dropna().unique()))) or "none"
