"""All figures, tables and claims of the studies as files, and report.html, one self-contained page."""

import io
import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from matplotlib import figure as mpl
from matplotlib import rc_context

from analysis import panels, sweep, sweep_figures
from analysis.frame import Missing
from analysis.panels import Comparison, LevelFigure
from analysis.provenance import facts
from analysis.study import Figure, Study
from analysis.verdicts import evaluate
from tlprotocols.config.validate import keys

FACTORS = {key.removesuffix(".name") for key, about in keys() if about["factor"]}
INTERVAL_END = re.compile(r"(^|_)(low|high)$")  # columns with the ends of an interval; lr.low is none
WHOLE_UNITS = ("layers", "epochs", "updates", "images")  # effects in these have no decimals


@dataclass(frozen=True)
class RenderedFigure:
    """One figure of the report; `missing` says why there is none."""

    name: str
    title: str
    figure: mpl.Figure | None = None
    caption: str = ""
    comparisons: tuple[Comparison, ...] = ()
    missing: str = ""

    @cached_property
    def svg(self) -> str:
        """The figure as the text of a file."""
        text = io.StringIO()
        if self.figure:
            with rc_context(panels.STYLE):
                self.figure.savefig(text, format="svg", metadata={"Date": None})
        return text.getvalue()

    @property
    def element(self) -> str:
        """The figure as an HTML element that scales with the page, with its title for screen readers."""
        svg = self.svg[self.svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
        return svg.replace("<svg ", f'<svg role="img" aria-label="{self.title}" ', 1)

    def save(self, out: Path, prefix: str = "") -> list[Path]:
        """Write SVG and PNG, return their paths; the same figure gives the same bytes."""
        if not self.figure:
            return []
        svg, png = (out / f"{prefix}{self.name}.{kind}" for kind in ("svg", "png"))
        svg.write_text(self.svg, encoding="utf-8")
        with rc_context(panels.STYLE):
            self.figure.savefig(png, dpi=200)
        return [svg, png]


@dataclass(frozen=True)
class StudyReport:
    """The part of the report about one study."""

    study: Study
    figures: tuple[RenderedFigure, ...]
    tables: dict[str, pd.DataFrame]  # by name; `claims` among them
    missing: dict[str, str]  # names of figures and tables that are not there, and why
    facts: tuple[tuple[str, str], ...] = ()
    used: tuple[Hashable, ...] = ()  # index of its rows in the table of results
    unused: tuple[str, ...] = ()  # descriptions of the other rows

    @property
    def verdict_counts(self) -> dict[str, int]:
        """Claims by verdict."""
        claims = self.tables.get("claims")
        return {} if claims is None else {str(k): int(n) for k, n in claims["verdict"].value_counts().items()}


@dataclass(frozen=True)
class Report:
    """The studies that the rows speak to, and the sweep itself."""

    parts: tuple[StudyReport, ...]
    sweep: StudyReport
    rows: int
    rows_in_no_study: int  # of a paper
    selection: str
    silent: dict[str, str]  # studies that have rows, but too few for a figure or a claim, and why
    without_rows: tuple[str, ...]  # studies that have none

    @property
    def sections(self) -> tuple[StudyReport, ...]:
        """The parts, then the sweep."""
        return (*self.parts, self.sweep)


def collect(
    table: pd.DataFrame, studies: Sequence[Study], selection: str = "all", curves: pd.DataFrame | None = None
) -> Report:
    """Make everything that the table has rows for. Each study takes its rows from the whole table.

    A study of a paper is in the report where the rows speak to it: some figure can be drawn, or some claim tested. A
    study from published logs stands beside those that it names; the sweep itself, whatever it varies, is the last part.

    Raises:
        Missing: the table is empty.
    """
    if table.empty:
        raise Missing("The table has no rows.")
    papers = [_collect(study, table, selection) for study in studies]
    heard = {part.study.name for part in papers if part.study.reads_results and _speaks(part)}
    shown = [part for part in papers if part.study.name in heard or heard & set(part.study.beside)]
    own = _collect(sweep_figures.study(table, pd.DataFrame() if curves is None else curves), table, selection)
    used = {row for part in shown for row in part.used}
    absent = [part for part in papers if part not in shown and part.study.reads_results]
    silent = {
        part.study.name: next(iter(part.missing.values()), "no claim can be tested")
        for part in absent
        if "rows" not in part.missing
    }
    without_rows = tuple(part.study.name for part in absent if "rows" in part.missing)
    left = len(table) - len(used) if shown else 0
    return Report(tuple(shown), own, len(table), left, selection, silent, without_rows)


def _speaks(part: StudyReport) -> bool:
    """Whether the rows have something to say about a paper."""
    tested = part.tables["claims"]["units"].fillna(0).gt(0).any() if "claims" in part.tables else False
    return bool(tested or any(figure.figure for figure in part.figures))


def _collect(study: Study, table: pd.DataFrame, selection: str) -> StudyReport:
    try:
        rows = study.rows(table)
    except Missing as reason:
        return StudyReport(study, (), {}, {"rows": str(reason)})
    figures = tuple(_render(figure, rows) for figure in study.figures)
    missing = {figure.name: figure.missing for figure in figures if figure.missing}
    tables = {}
    for spec in study.tables:
        try:
            tables[spec.name] = spec.make(rows, selection)
        except Missing as reason:
            missing[spec.name] = str(reason)
    if study.claims:
        tables["claims"] = evaluate(study.claims, rows)
    part = StudyReport(study, figures, tables, missing)
    if not study.reads_results:
        return part
    entries = tuple(facts(rows, study.unit, len(table)))
    return replace(part, facts=entries, used=tuple(rows.index), unused=tuple(study.unused(table)))


def _render(figure: Figure | LevelFigure, rows: pd.DataFrame) -> RenderedFigure:
    try:
        drawn, caption = figure.draw(rows), figure.caption(rows)
    except Missing as reason:
        return RenderedFigure(figure.name, figure.title, missing=str(reason))
    try:
        comparisons = tuple(figure.compare_with_paper(rows))
    except Missing:
        comparisons = ()
    return RenderedFigure(figure.name, figure.title, drawn, caption, comparisons)


def write(report: Report, out: Path) -> list[Path]:
    """Write figures as SVG and PNG, tables as csv, and report.html; return the files."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for part in report.sections:
        for figure in part.figures:
            written += figure.save(out, part.study.prefix)
        for name, table in part.tables.items():
            written.append(out / f"{part.study.prefix}{name}.csv")
            table.to_csv(written[-1], index=False)
    written.append(out / "report.html")
    written[-1].write_text(html(report), encoding="utf-8")
    return written


def html(report: Report) -> str:
    """The page."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"effect": effect, "numeric": numeric, "records": records, "shown": shown, "zip": zip}
    environment.filters["p"] = p_value
    template = environment.from_string(Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8"))
    return template.render(report=report)


def records(table: pd.DataFrame) -> list[dict[Any, Any]]:
    """The rows of a table as dictionaries; a missing value is None."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def shown(table: pd.DataFrame, columns: Sequence[str] = ()) -> dict[str, list[str]]:
    """The texts of these columns by heading, intervals merged into the column before; no columns means all. A column
    without a text is left out."""
    names = [name for name in columns or table.columns if name in table and not INTERVAL_END.search(name)]
    texts = {name.replace("_", " "): _texts(table, name) for name in names}
    return {heading: column for heading, column in texts.items() if any(column)}


def numeric(texts: Sequence[str]) -> bool:
    """Whether a column has numbers, with intervals or without, which stand to the right; texts stand to the left."""
    return any(texts) and all(re.match(r"[-+<]?\d|$|full$", text) for text in texts)


def _texts(table: pd.DataFrame, name: str) -> list[str]:
    text = p_value if name in ("p", "p_holm") else sweep.text if name in FACTORS else _text
    texts = [text(value) for value in table[name]]
    place = list(table.columns).index(name)
    low, high = [*table.columns[place + 1 : place + 3], "", ""][:2]
    if not (INTERVAL_END.search(low) and INTERVAL_END.search(high)):
        return texts
    ends = zip(map(_text, table[low]), map(_text, table[high]), strict=True)
    return [f"{text} [{', '.join(pair)}]" if all(pair) else text for text, pair in zip(texts, ends, strict=True)]


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else number(value)
    return "" if value is pd.NA else str(value)


def number(value: float, digits: int = 2, sign: str = "") -> str:
    """A number with so many decimals; `sign="+"` writes the sign of positive numbers too."""
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0: no -0.00


def p_value(p: float | None) -> str:
    """A p value with three decimals."""
    return "" if p is None or math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def effect(claim: dict[str, Any]) -> str:
    """The effect of a claim and its interval; a fact (no units) has neither sign nor interval."""
    digits = 0 if claim["unit"] in WHOLE_UNITS else 2
    if not claim["units"]:
        return f"{number(claim['effect'], digits)} {claim['unit']}"
    center, low, high = (number(claim[end], digits, "+") for end in ("effect", "low", "high"))
    return f"{center} [{low}, {high}] {claim['unit']}"
