"""Tables 1 and 2 of the text: accuracy, peak memory and training time by variant, the printed numbers beside ours."""

from typing import Any

import pandas as pd

from analysis.hybrid_densenet.variants import ORDER, PRINTED, TIME, VANILLA, named, printed, wide
from analysis.statistics import mean_interval
from analysis.study import Table

COLUMNS = {"test accuracy": "accuracy", "peak memory": "memory_mb", TIME: "minutes"}


def variants(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per variant. Ratios of memory and time are to Vanilla; `images_per_second` is of runs as they ran."""
    runs = named(rows).groupby("variant")
    tables = {value: wide(rows, value) for value in ("at_least_loss", "at_best_accuracy", "overfitting")}
    memory, speed = runs["peak_memory_mb"].mean(), runs["images_per_second"].median()
    lines = []
    for name in (name for name in ORDER if name in runs.groups):
        line: dict[str, Any] = {"variant": name, "runs": len(runs.get_group(name))}
        for value, table in tables.items():
            line |= dict(zip((value, f"{value}_low", f"{value}_high"), mean_interval(table[name]), strict=True))
        line |= {f"epoch_{k}": runs[f"epoch_at_{k}"].mean()[name] for k in ("least_val_loss", "best_val_top1")}
        line |= {"train_mode_gap": runs["gap"].mean()[name], "memory_mb": memory[name]}
        line |= {"memory_ratio": memory[name] / memory.get(VANILLA), "images_per_second": speed[name]}
        line |= {"time_ratio": speed.get(VANILLA) / speed[name]}
        for dataset, short in PRINTED.items():
            for metric, column in COLUMNS.items():
                values = printed(metric, dataset)
                line[f"printed_{short}_{column}"] = values.get(name)
                if metric != "test accuracy":
                    line[f"printed_{short}_{column}_ratio"] = values.get(name, float("nan")) / values[VANILLA]
        lines.append(line)
    return pd.DataFrame(lines)


VARIANTS = Table(
    "variants",
    "Tables 1 and 2: accuracy, memory and time by variant",
    "Test accuracy in percent at the epoch of least validation loss (the text's choice) and of best validation "
    "accuracy: means over seeds with 95% intervals; overfitting: validation minus training loss in evaluation mode, in "
    "nats. Memory: peak of one update in MB; time: of the runs as they ran, beside whatever else the machine did. "
    "Ratios are to Vanilla.",
    lambda rows, _: variants(rows),
)
