"""Figures, tables and claim verdicts from a table of results.

General modules are here; each study of a paper is a package that exports one `STUDY` (see `analysis.study`) and is
listed in `analysis.studies`. Nothing here trains: functions take the table of `tlprotocols.results.load`, or the rows
that `Study.rows` takes from it.
"""

from pathlib import Path

_PLACES = (Path(__file__).parent / "tiny_imagenet", Path(__file__).parents[1] / "results" / "tiny_imagenet")
EXAMPLE = _PLACES[not _PLACES[0].exists()] / "rows.csv"  # 512 runs to try things on: of a wheel, or of a checkout
