"""A report of several studies: each takes its rows from the whole table, and no row is dropped silently."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis import report
from analysis.__main__ import main
from analysis.claim import claim
from analysis.evidence import Evidence, greater
from analysis.frame import cells, difference
from analysis.panels import LevelFigure, Levels
from analysis.plested2019 import STUDY as PLESTED
from analysis.studies import STUDIES
from analysis.study import Study, Table
from tests import synthetic, synthetic_boost


@claim("sec. 1", "wide networks are better")
def wide_is_better(rows: pd.DataFrame) -> Evidence:
    """Width 1 minus width 0.25 at n=10."""
    return greater(difference(cells(rows, "model.width"), 10, 1.0, 0.25), "n=10, width 1 minus 0.25")


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.groupby("model.width")["accuracy"].mean().reset_index()


WIDTH_STUDY = Study(
    name="width",
    title="A study of width",
    description="One figure, one table, one claim.",
    varied=("model.width", "split", "target", "seed"),
    unit=("split", "target"),
    figures=(
        LevelFigure(
            "widths",
            "Accuracy by width",
            lambda rows: {"": rows},
            lambda rows: Levels("model.width", "width", 1.0, "width 1"),
            lambda rows: "Means over splits.",
        ),
    ),
    tables=(Table("means", "Means", "By width.", lambda rows, _: _means(rows)),),
    claims=(wide_is_better,),
    published=pd.DataFrame,
    prefix="width_",
    query="dataset == 'cifar10'",
)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Rows of the paper's experiments, of the study of width, and three of neither."""
    paper = synthetic.table(synthetic.paper, sizes=(10, 25))
    wide = paper.query("n_per_class == 10 and layers == 4 and high_lr_layers == 8").assign(dataset="cifar10")
    top1 = wide["val_top1"] - 0.1 - 0.001 * wide["split"]
    narrow = wide.assign(**{"model.width": 0.25}, val_top1=top1)
    joined = pd.concat([paper, wide, narrow, paper.head(3).assign(dataset="glyphs")], ignore_index=True)
    return joined.assign(run_id=[f"{number:016x}" for number in range(len(joined))])


def test_each_study_takes_its_own_rows(table: pd.DataFrame):
    collected = report.collect(table, (PLESTED, WIDTH_STUDY))
    paper, width = collected.parts
    assert paper.verdict_counts == report.collect(table.query("dataset == 'imagenet'"), STUDIES).parts[0].verdict_counts
    assert dict(width.facts)["units"] == "8 (split, target), 1 seed each"
    assert list(width.tables["means"]["accuracy"].diff())[1] == pytest.approx(10.15)
    assert not width.missing
    assert width.verdict_counts == {"supported": 1}


def test_no_row_is_dropped_silently(table: pd.DataFrame):
    collected = report.collect(table, (PLESTED, WIDTH_STUDY))
    assert collected.rows_in_no_study == 3
    paper = collected.parts[0]
    assert paper.unused == ("19 rows with dataset=cifar10,glyphs (this study: imagenet)",)  # of which 8 are narrower
    assert len(paper.used) + 19 == collected.rows
    assert "3 of the runs belong to no study here" in report.html(collected)


def test_the_terminal_names_unused_rows(table: pd.DataFrame, tmp_path: Path, monkeypatch, capsys):
    table.to_csv(tmp_path / "table.csv", index=False)
    arguments = ["analysis", "--results", str(tmp_path / "table.csv"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    printed = capsys.readouterr().out
    assert "plested2019 does not use 19 rows with dataset=cifar10,glyphs (this study: imagenet)" in printed


def test_every_study_has_published_numbers():
    assert all(len(study.published()) for study in STUDIES)


def test_files_of_studies_do_not_collide(table: pd.DataFrame, tmp_path: Path):
    written = report.write(report.collect(table, (*STUDIES, WIDTH_STUDY)), tmp_path)
    assert len(written) == len(set(written))
    assert {"width_widths.svg", "width_means.csv", "width_claims.csv", "claims.csv"} <= {f.name for f in written}


def test_a_study_without_rows_says_so(table: pd.DataFrame):
    collected = report.collect(table.query("dataset == 'imagenet'"), (WIDTH_STUDY,))
    assert (collected.silent, collected.without_rows) == ({}, (WIDTH_STUDY.name,))
    assert [part.study.name for part in collected.sections] == ["sweep"]


def test_general_modules_name_no_study():
    folder = Path(report.__file__).parent
    names = [study.name for study in STUDIES]
    for file in folder.glob("*.py"):
        if file.name != "studies.py":
            assert not [name for name in names if name in file.read_text()], file.name


def test_published_logs_stand_beside_the_studies_that_they_bear_on(table: pd.DataFrame):
    collected = report.collect(table, STUDIES)
    assert [part.study.name for part in collected.parts] == ["plested2019", "yosinski2014_logs"]
    boost = synthetic_boost.table(synthetic_boost.text, noise=0.6)
    assert [part.study.name for part in report.collect(boost, STUDIES).parts] == ["boost2018"]
