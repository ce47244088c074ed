"""The one sentence about all protocols at once; the rest are declared contrasts."""

import pandas as pd

from analysis.claim import claim, over_sizes
from analysis.evidence import Evidence, best_in
from analysis.frame import at, levels, sizes
from analysis.protocols_compared.conditions import OPTIMAL, wide


@claim("Plested 2019, sec. 3.6", "optimal transfer learning protocols [are those of table 2]")
def the_optimum_is_the_best(rows: pd.DataFrame) -> Evidence:
    """The best of all protocols is the optimal one, at every n; multiple comparisons with the best."""
    table = wide(rows)
    return over_sizes(sizes(rows, full=False), lambda n: best_in(at(table, n, levels(table, n)), {OPTIMAL}, f"n={n}"))
