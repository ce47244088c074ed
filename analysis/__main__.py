"""`python -m analysis`: figures, tables, claims and report.html from a table of results."""

import argparse
import sys
from pathlib import Path

from analysis import report
from analysis.frame import Missing
from analysis.selection import SELECTIONS
from analysis.studies import STUDIES
from tlprotocols.errors import until_pipe_closes
from tlprotocols.results import load, load_curves, selected


def main() -> None:
    """Write everything that the table has rows for, and print what is missing and which rows are not used."""
    until_pipe_closes(_main)


def _main() -> None:
    args = _arguments()
    try:
        rows = load(args.results)
        table = selected(rows, args.query)
        if len(rows) > len(table) == 0:
            raise Missing(f"query={args.query}: leaves none of {len(rows)} rows")
        curves = load_curves(args.results) if Path(args.results).expanduser().is_dir() else None
        collected = report.collect(table, STUDIES, args.selection, curves)
    except (FileNotFoundError, Missing, ValueError) as error:
        sys.exit(str(error))
    written = report.write(collected, args.out)
    for part in collected.sections:
        for name, reason in part.missing.items():
            print(f"no {part.study.prefix}{name}: {reason}")
        for sentence in part.unused:
            print(f"{part.study.name} does not use {sentence}")
        for verdict, count in part.verdict_counts.items():
            print(f"{part.study.name}: {count} claims {verdict}")
    for name, reason in collected.silent.items():
        print(f"no section on {name}: {reason}")
    if collected.without_rows:
        print(f"no runs of the studies {', '.join(collected.without_rows)}")
    print(f"{len(written)} files -> {args.out}, first open {args.out / 'report.html'}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    parser.add_argument("--results", default="results", help="results folder, or an exported .csv or .parquet")
    parser.add_argument("--out", default="analysis_out", type=Path, help="output folder")
    parser.add_argument("--query", help="use only these rows, as in \"dataset == 'cifar10' and `model.width` == 1\"")
    parser.add_argument(
        "--selection",
        choices=SELECTIONS,
        default="all",
        help="heldout: choose the best settings on half of the validation images and report them on the other half",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
