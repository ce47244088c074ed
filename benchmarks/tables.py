"""Rows to a table: in the terminal and in markdown."""

from typing import Any

from rich.table import Table

Row = dict[str, Any]
Tables = dict[str, list[Row]]  # by title


def shown(title: str, rows: list[Row]) -> Table:
    """For a terminal."""
    table = Table(title=title, title_justify="left")
    for key in rows[0]:
        table.add_column(key, justify="left" if isinstance(rows[0][key], str) else "right")
    for row in rows:
        table.add_row(*map(text, row.values()))
    return table


def markdown(title: str, rows: list[Row]) -> str:
    """For results_quick.md and results_full.md."""
    marks = ["---" if isinstance(value, str) else "---:" for value in rows[0].values()]
    lines = [list(rows[0]), marks, *([text(value) for value in row.values()] for row in rows)]
    return f"### {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def text(value: object) -> str:
    """Three digits are enough for a measurement."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
