"""Figures, the command, the page in a real browser, the notebook."""

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from analysis import report
from analysis.__main__ import main
from analysis.frame import Missing
from analysis.panels import differences
from analysis.plested2019 import STUDY, experiments
from analysis.plested2019.figures import FIG1, FIG3, FIG6, FIGURES, LAYER_LEVELS
from analysis.studies import STUDIES
from tests import synthetic, synthetic_boost
from tlprotocols.results import load

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
RESULTS = Path(__file__).parents[1] / "results"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
)
MEASURE = """<script>
document.body.dataset.figures = JSON.stringify([...document.querySelectorAll("figure svg")].map(svg => {
  const box = svg.getBoundingClientRect();
  return [svg.getAttribute("aria-label"), ...[box.x, box.y, box.width, box.height].map(Math.round)];
}));
</script></body>"""


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """As in the paper, but training from scratch collapses on few images and one run diverged."""
    result = synthetic.table(synthetic.paper, noise=0.4)
    scratch = (result["layers"] == 0) & result["n_per_class"].isin([10, 25])
    result.loc[scratch, ["val_top1", "val_top1_even", "val_top1_odd"]] = 0.002
    result.loc[scratch, "collapsed"] = True
    lost = result.index[(result["layers"] == 4) & (result["n_per_class"] == 50)][0]
    result.loc[lost, ["val_top1", "train_loss", "diverged"]] = [0.002, float("nan"), True]
    return result


@pytest.fixture(scope="module")
def whole(table: pd.DataFrame) -> pd.DataFrame:
    """With the rows of another study beside it."""
    boost = synthetic_boost.table(synthetic_boost.text, noise=0.6)
    return pd.concat([table, boost], ignore_index=True)


@pytest.fixture(scope="module")
def made(whole: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the command writes."""
    out = tmp_path_factory.mktemp("out")
    report.write(report.collect(whole, STUDIES), out)
    return out


def test_files(made: Path):
    names = {file.name for file in made.iterdir()}
    figures = {f"fig{i}.{kind}" for i in range(1, 7) for kind in ("svg", "png")}
    old = ("yosinski2014_comparison", "yosinski2014_claims")
    tables = {f"{name}.csv" for name in ("table1", "table2", "selection", "claims", *old)}
    boost = {f"boost2018_{name}.png" for name in ("arms", "training", "probe")}
    boost |= {f"boost2018_{name}.csv" for name in ("text", "contrasts", "differences", "means", "claims")}
    assert figures | tables | boost | {"report.html"} <= names


def test_no_interval_is_cut_where_no_run_failed():
    rows = synthetic.table(synthetic.paper, noise=2, splits=2, sizes=(10, 25))
    rows.loc[(rows["decay_epochs"] == 5) & (rows["layers"] == 4) & (rows["split"] == 0), "val_top1"] += 0.1
    for figure in FIGURES:
        for ax in figure.draw(STUDY.rows(rows)).axes:
            low, high = ax.get_ylim()
            ends = [y for line in ax.lines for y in np.asarray(line.get_ydata())]
            assert ends
            assert low <= np.nanmin(ends) <= np.nanmax(ends) <= high, figure.name


def test_same_table_same_bytes(made: Path, table: pd.DataFrame, tmp_path: Path):
    report.RenderedFigure("fig1", FIG1.title, FIG1.draw(STUDY.rows(table))).save(tmp_path)
    assert (tmp_path / "fig1.svg").read_bytes() == (made / "fig1.svg").read_bytes()


def test_bars_are_means_and_failures_are_marked(table: pd.DataFrame):
    ax = FIG1.accuracy(STUDY.rows(table))
    tall = table.query("n_per_class == 10 and layers == 4 and high_lr_layers == 8")["val_top1"].mean()
    bar = ax.patches[0]
    assert isinstance(bar, Rectangle)
    assert bar.get_height() == pytest.approx(100 * tall)
    assert any("diverged" in text.get_text() for text in ax.texts)
    marks = [line for line in FIG6.accuracy(STUDY.rows(table)).lines if line.get_fillstyle() == "none"]
    assert len(np.asarray(marks[0].get_xdata())) == 16  # 8 halves at two sizes
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["10", "25", "50", "100", "250", "500", "full"]


def test_the_best_is_named(table: pd.DataFrame):
    rows = experiments.layers_one_high(STUDY.rows(table), decay=5)
    named = [text.get_text() for text in differences(rows, LAYER_LEVELS).texts]
    assert named == ["6", "6", "6", "6", "6", "6", "5"]


def test_a_scaled_study_on_one_split_has_its_figures():
    small = synthetic.table(synthetic.paper, noise=0.2, splits=1, sizes=(10, 25), scale=3).query("target == 'B'")
    result = report.collect(small, STUDIES)
    assert not result.parts[0].missing.keys() & {f"fig{i}" for i in range(1, 7)}
    assert "lr.step" in report.html(result)


def test_partial_table(table: pd.DataFrame, tmp_path: Path):
    """Fig. 1 alone: page and terminal say in a sentence what the other figures lack."""
    part = table.query("high_lr_layers == 8 and layers in [5, 7] and n_per_class in [10, 50]")
    part.to_csv(tmp_path / "table.csv", index=False)
    command = [sys.executable, "-W", "error", "-m", "analysis", "--results", str(tmp_path / "table.csv")]
    ended = subprocess.run([*command, "--out", str(tmp_path / "out")], capture_output=True, text=True, check=True)
    assert "no fig2: No finished runs with" in ended.stdout
    assert (tmp_path / "out" / "fig1.svg").exists()
    assert not (tmp_path / "out" / "fig2.svg").exists()
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("Not available: ") >= 4
    with pytest.raises(Missing, match="high_lr_layers"):
        FIG3.draw(STUDY.rows(part))


COMMITTED = {
    "tiny_imagenet": "plested2019",
    "tiny_imagenet_2": "plested2019",
    "tiny_imagenet_to_cifar10": "",
    "tiny_yosinski2014": "yosinski2014",
    "tiny_boost2018": "boost2018",
    "tiny_densenet_transfer": "densenet_transfer",
    "tiny_hybrid_densenet": "hybrid_densenet",
    "tiny_protocols": "protocols_compared",
}


@pytest.mark.parametrize("folder", sorted(file.parent.name for file in RESULTS.glob("*/rows.csv")))
def test_committed_rows_have_the_report_of_their_study(folder: str):
    found = report.collect(load(RESULTS / folder / "rows.csv"), STUDIES)
    assert COMMITTED[folder] in {part.study.name for part in found.parts} | {""}
    for part in found.parts:
        names = {f"{part.study.prefix}{name}.csv": made for name, made in part.tables.items()}
        if part.study.name == COMMITTED[folder]:  # some folders leave the prefix out
            names |= {f"{name}.csv": made for name, made in part.tables.items()}
        for file in (RESULTS / folder / name for name in names):
            if file.exists():
                written = io.StringIO(names[file.name].to_csv(index=False))
                pd.testing.assert_frame_equal(pd.read_csv(written), pd.read_csv(file), obj=file.name)


@pytest.mark.parametrize("claims", sorted(RESULTS.glob("*/claims_*.csv")), ids=lambda file: file.stem)
def test_committed_rows_that_stand_apart_have_their_own_claims(claims: Path):
    table = load(claims.with_name(claims.name.replace("claims_", "rows_")))
    parts = report.collect(table, STUDIES).parts
    (part,) = (part for part in parts if part.study.name == COMMITTED[claims.parent.name])
    written = io.StringIO(part.tables["claims"].to_csv(index=False))
    pd.testing.assert_frame_equal(pd.read_csv(written), pd.read_csv(claims))


@pytest.mark.parametrize(("folder", "name"), [pair for pair in COMMITTED.items() if pair[1]])
def test_a_factor_that_no_row_has_is_an_empty_column(folder: str, name: str):
    (study,) = (study for study in STUDIES if study.name == name)
    table = load(RESULTS / folder / "rows.csv")
    for factor in set(study.varied) - {"layers", *study.unit, *re.findall(r"[a-z_.]+", study.query)}:
        rows = study.rows(table.drop(columns=factor, errors="ignore"))
        assert rows[factor].isna().all(), factor


def test_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synthetic.table(synthetic.paper, splits=1, sizes=(10,)).to_csv(tmp_path / "table.csv", index=False)
    arguments = ["analysis", "--results", str(tmp_path / "table.csv"), "--query", "n_per_class == 7"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match=r"query=n_per_class == 7: leaves none of \d+ rows"):
        main()


def test_no_training_code_is_imported():
    script = "import analysis.__main__, sys; print('torch' in sys.modules, 'hydra' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout == "False False\n"


def test_page_needs_no_network(made: Path):
    page = (made / "report.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"'](https?:)?//", page)
    assert "@import" not in page
    assert "47.88%" in page
    assert "20.9%" in page


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine: apt-get install chromium")
def test_page_in_a_browser(table: pd.DataFrame, tmp_path: Path):
    """Opened from disk: nothing in the console, all figures of the papers and of the sweep painted."""
    page = tmp_path / "report.html"
    collected = report.collect(table, STUDIES)
    page.write_text(report.html(collected).replace("</body>", MEASURE))
    dom, log = _browse(page, tmp_path / "a", "--dump-dom")
    figures = json.loads(re.search(r'data-figures="(.*?)"', dom)[1].replace("&quot;", '"'))
    assert "CONSOLE" not in log, log
    drawn = [f for part in collected.sections for f in part.figures if f.figure]
    assert len(figures) == len(drawn) > 7
    picture = tmp_path / "page.png"
    _browse(page, tmp_path / "b", f"--screenshot={picture}")
    pixels = np.asarray(Image.open(picture).convert("L"))
    for name, x, y, width, height in figures:
        assert width > 300, name
        assert height > 200, name
        seen = pixels[y : y + height, x : x + width]
        assert 0.02 < (seen < 200).mean() < 0.6, name


def _browse(page: Path, profile: Path, what: str) -> tuple[str, str]:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "--window-size=1200,24000", what, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, done.stderr


def test_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It runs as it is, from another folder, and says what its committed outputs say; these name no place."""
    monkeypatch.setenv("PYTHONPATH", str(Path(report.__file__).parents[1]))  # the kernel starts in another folder
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    path = Path(report.__file__).with_name("transfer_protocols.ipynb")
    notebook = nbformat.read(path, as_version=4)
    assert path.stat().st_size < 200_000
    shipped = json.dumps([cell.get("outputs") for cell in notebook.cells])
    assert not re.search(r"/(tmp|home|root|Users|work)/|site-packages", shipped)
    committed = _said(notebook)
    nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert _said(notebook) == committed
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert len(pictures) == 2


def _said(notebook: Any) -> list[str]:
    """The words of every output, whatever the spaces between them."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [word for o in outputs for word in (o.get("text") or o["data"]["text/plain"]).split()]
