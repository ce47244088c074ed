"""`python -m analysis`: figures, tables, claims and report.html from a table of results."""

import argparse
import sys
from pathlib import Path

from analysis import report
from analysis.frame import Missing
from analysis.selection import SELECTIONS
from tlprotocols.results import load


def main() -> None:
    """Make everything that the table has the rows for and say what is missing."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    parser.add_argument("--results", default="results", help="folder of the results, or an exported .csv or .parquet")
    parser.add_argument("--out", default="analysis_out", type=Path, help="folder to write to")
    parser.add_argument("--query", help="take only these rows, as in \"dataset == 'cifar10' and `model.width` == 1\"")
    parser.add_argument(
        "--selection", choices=SELECTIONS, default="all", help="table 2: heldout chooses and reports on other images"
    )
    asked = parser.parse_args()
    try:
        table = load(asked.results)
        made = report.collect(table.query(asked.query) if asked.query else table, asked.selection)
    except (FileNotFoundError, Missing) as error:
        sys.exit(str(error))
    written = report.write(made, asked.out)
    for name, reason in made.missing.items():
        print(f"no {name}: {reason}")
    if "claims" in made.tables:
        for verdict, count in made.tables["claims"]["verdict"].value_counts().items():
            print(f"{count} claims {verdict}")
    print(f"{len(written)} files -> {asked.out}, first open {asked.out / 'report.html'}")


if __name__ == "__main__":
    main()
