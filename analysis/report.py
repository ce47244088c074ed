"""All figures, tables and claims of a table of results as files, and report.html, one self-contained page."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType

import jinja2
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from analysis import panels, selection
from analysis import verdicts as claims
from analysis.frame import Missing, step, study
from analysis.plested2019 import fig1, fig2, fig3, fig4, fig5, fig6, published, table1, table2
from analysis.provenance import facts
from analysis.yosinski2014 import networks as yosinski

FIGURES: tuple[ModuleType, ...] = (fig1, fig2, fig3, fig4, fig5, fig6)


@dataclass(frozen=True)
class Drawn:
    """One figure of the report; `missing` says why there is none."""

    name: str
    title: str
    figure: Figure | None = None
    caption: str = ""
    beside: tuple[tuple[str, str, str], ...] = ()
    missing: str = ""

    @cached_property
    def svg(self) -> str:
        """The figure as a file."""
        return svg(self.figure) if self.figure else ""

    @property
    def element(self) -> str:
        """The figure as an element of a page, with a name for those who cannot see it; it scales with the page."""
        found = self.svg[self.svg.index("<svg") :]
        found = re.sub(r"<metadata>.*?</metadata>", "", found, flags=re.DOTALL)
        return found.replace("<svg ", f'<svg role="img" aria-label="{self.title}" ', 1)


@dataclass(frozen=True)
class Report:
    """Everything that a table of results comes to."""

    figures: tuple[Drawn, ...]
    tables: dict[str, pd.DataFrame]
    missing: dict[str, str]  # what is not there, and why
    facts: tuple[tuple[str, str], ...]
    step: int
    selection: str


def collect(table: pd.DataFrame, selected: str = "all") -> Report:
    """Make what the table has the rows for; say of the rest what is missing.

    Raises:
        Missing: the table is empty.
    """
    rows = study(table)
    figures = tuple(_drawn(module, rows) for module in FIGURES)
    makers: dict[str, Callable[[], pd.DataFrame]] = {
        "table1": lambda: table1.losses(rows),
        "table1_averages": lambda: table1.averages(rows),
        "table2": lambda: table2.settings(rows, selected),
        "selection": lambda: selection.effect(rows),
        "claims": lambda: claims.verdicts(rows),
        "yosinski2014": yosinski.comparison,
        "yosinski2014_layers": lambda: yosinski.layer_means().reset_index(),
        "yosinski2014_scratch": yosinski.scratch,
        "yosinski2014_claims": lambda: claims.weigh(published.yosinski2014(), yosinski.CLAIMS),
    }
    tables, missing = {}, {drawn.name: drawn.missing for drawn in figures if drawn.missing}
    for name, make in makers.items():
        try:
            tables[name] = make()
        except Missing as reason:
            missing[name] = str(reason)
    return Report(figures, tables, missing, tuple(facts(table)), step(rows), selected)


def _drawn(module: ModuleType, rows: pd.DataFrame) -> Drawn:
    name = module.__name__.rsplit(".", 1)[-1]
    try:
        figure, caption = module.figure(rows), module.caption(rows)
    except Missing as reason:
        return Drawn(name, module.TITLE, missing=str(reason))
    try:
        beside = tuple(module.beside(rows))
    except Missing:
        beside = ()
    return Drawn(name, module.TITLE, figure, caption, beside)


def write(report: Report, out: Path) -> list[Path]:
    """Write figures as SVG and PNG, tables as csv, and report.html; return the files."""
    out.mkdir(parents=True, exist_ok=True)
    written, old = [], _yosinski()
    for drawn in (*report.figures, old):
        if drawn.figure:
            written += save(drawn, out)
    for name, table in report.tables.items():
        written.append(out / f"{name}.csv")
        table.to_csv(written[-1], index=False)
    written.append(out / "report.html")
    written[-1].write_text(html(report, old), encoding="utf-8")
    return written


def _yosinski() -> Drawn:
    caption = (
        "Each mark is a network, lines are means. Measure: mean of the ten best of 450 validation tests, as in 2014. "
        "22 of the 42 fine-tuned networks have no published log, so AnB+ and BnB+ are one or two networks a layer, "
        "mostly of the easiest and of the hardest target half."
    )
    return Drawn("yosinski2014", yosinski.TITLE, yosinski.figure(), caption)


def save(drawn: Drawn, out: Path) -> list[Path]:
    """Write a figure as SVG and PNG; the same figure gives the same bytes."""
    paths = [out / f"{drawn.name}.{kind}" for kind in ("svg", "png")]
    paths[0].write_text(drawn.svg, encoding="utf-8")
    if drawn.figure:
        with rc_context(panels.STYLE):
            drawn.figure.savefig(paths[1], dpi=200)
    return paths


def svg(figure: Figure) -> str:
    """A figure as SVG text."""
    text = io.StringIO()
    with rc_context(panels.STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def html(report: Report, old: Drawn | None = None) -> str:
    """The page; `old` is the figure of 2014, where it has been drawn already."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = number
    environment.filters["p"] = p_value
    template = environment.from_string(Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8"))
    counts = report.tables["claims"]["verdict"].value_counts().to_dict() if "claims" in report.tables else {}
    tables = {
        name: table.astype(object).where(table.notna(), None).to_dict("records")
        for name, table in report.tables.items()
    }
    return template.render(report=report, tables=tables, counts=counts, old=old or _yosinski())


def number(value: object, digits: int = 1, sign: bool = False) -> str:
    """A number as a reader wants it; nothing for none."""
    if value is None or isinstance(value, jinja2.Undefined):
        return ""
    assert isinstance(value, float | int)
    rounded = round(value, digits) + 0.0  # no -0.00
    return f"{rounded:+.{digits}f}" if sign else f"{rounded:.{digits}f}"


def p_value(value: object) -> str:
    """A p value."""
    if not isinstance(value, float):
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"
