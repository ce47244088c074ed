"""Every benchmark measures, at a tiny size, and says what it should; the GPU script trains the package's network."""

import dataclasses
import itertools
import math
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import torch

from benchmarks import (
    data,
    densenet,
    features,
    gpu,
    growth,
    hybrid,
    load,
    plan,
    step,
    sweep,
    techniques,
    tiny_sweep,
    variants,
)
from benchmarks.__main__ import NAMES
from benchmarks.tables import markdown, shown
from tlprotocols import hardware
from tlprotocols.config.models import ALEXNET

pytestmark = pytest.mark.benchmark
SMALL = "alexnet_small, glyphs 32 px"


def table(tables, title):
    """The rows under a title that begins so, all with the same keys, as every table must be."""
    (rows,) = (rows for name, rows in tables.items() if name.startswith(title))
    assert len({tuple(row) for row in rows}) == 1
    assert markdown(title, rows).count("\n") == len(rows) + 4
    assert shown(title, rows).row_count == len(rows)
    return rows


def test_the_numbers_of_the_readme_are_measured_ones():
    here = Path(__file__).parents[1]
    measured = {word for kind in ("quick", "full") for word in cells(here / "benchmarks" / f"results_{kind}.md")}
    readme = (here / "README.md").read_text().split("## Speed")[1].split("\n## ")[0]
    speed, accuracy = (here / "docs" / "performance.md").read_text().split("## Measured")[1].split("\nAccuracies")
    numbers = {}
    for text, count in ((readme, 4), (speed, 10)):
        rows = [line.strip("| ").split("|")[1:] for line in text.splitlines() if line.startswith("| ")][1:]
        numbers[text] = {tuple(cell.strip().split(" ")[0].rstrip(",") for cell in row) for row in rows}
        assert len(numbers[text]) == len(rows) == count
        assert {number for row in numbers[text] for number in row} <= measured | {""}
    assert numbers[readme] <= numbers[speed]
    percentages = {cell.strip() for cell in accuracy.replace("\n", "|").split("|") if cell.strip()[:1].isdigit()}
    single = {cell.split(" ")[0] for cell in measured if "%" in cell}
    assert {cell for cell in percentages if "%" in cell} <= measured | single


def cells(file):
    """Whatever stands between two bars."""
    return {cell.strip() for line in file.read_text().splitlines() if line.startswith("|") for cell in line.split("|")}


def test_every_benchmark_is_named():
    assert set(NAMES) == {module.__name__.removeprefix("benchmarks.") for module in MODULES}


MODULES = (data, densenet, features, gpu, growth, hybrid, load, plan, step, sweep, techniques, tiny_sweep)


def test_step(monkeypatch):
    def known(ways, repetitions):
        for way in ways.values():
            way()
        return {"ours": [4.0, 2.0, 3.0], "limit": [1.0, 1.0, 1.5]}

    monkeypatch.setattr(step, "alternating", known)
    tables = step.measure(nets=(SMALL,), steps=1)
    for row in table(tables, "step: share of the limit"):
        assert (row["share"], row["limit images/s"]) == (0.5, row["batch"])  # the median round; the median time
        assert row["ours images/s"] == pytest.approx(row["batch"] / 3)
    assert sum(row["share"] for row in table(tables, "step: where the time")) == pytest.approx(1, abs=0.01)


def test_features(monkeypatch):
    monkeypatch.setattr(features, "HEADS", ("null", "[8]"))
    monkeypatch.setattr(features, "BODY", tuple(key.replace("densenet121", "convnet") for key in features.BODY))
    (row,) = table(features.measure(), "features")
    assert row["losses equal"] == "True"
    assert row["ratio"] == pytest.approx(row["not cached"] / row["cached"], rel=0.3)


def test_hybrid():
    tables = hybrid.measure(repetitions=1)
    memory = {row["variant"]: row["fp32"] for row in table(tables, "hybrid: peak memory")}
    assert memory["A"] < memory["Vanilla"]
    assert memory["A+B+C"] < 0.85 * memory["A+B"]
    printed = {row["printed, CIFAR-100"] for row in table(tables, "hybrid: checkpointing")}
    assert printed == {505 / 1164, 806 / 635}  # MB, and minutes
    assert len(table(tables, "hybrid: time")) == 5


def test_densenet(monkeypatch):
    cached, frozen = "(e) frozen, features cached, 32", "(e) frozen, not cached, 32"
    chosen = {name: how for name, how in densenet.CONDITIONS.items() if name.endswith("32")}
    monkeypatch.setattr(densenet, "CONDITIONS", chosen)
    monkeypatch.setattr(densenet, "RATIOS", (("(i) all layers learn, 32", frozen, "10"), (frozen, cached, "")))
    monkeypatch.setattr(densenet, "MANY_CACHED", 201)
    tables = densenet.measure()
    memory = {row["condition"]: row["peak memory, MB"] for row in table(tables, "densenet: an epoch")}
    assert memory[cached] == memory[frozen] < memory["(j) last block learns, 32"] < memory["(i) all layers learn, 32"]
    learning, cached = table(tables, "densenet: ratios")
    assert learning["printed"] == "10"
    assert cached["ratio"] > 3


def test_the_limit_has_every_convolution_and_product_of_a_step():
    config, classes = step._config(SMALL, "fp32")
    kernels = step._bare(config, classes)
    assert len(kernels) == 5 * 2 + 3 * 3
    assert len(ALEXNET) == 8
    for kernel in kernels:
        kernel()


@pytest.mark.slow
def test_data():
    tables = data.measure(classes=2, repetitions=1)
    assert len(table(tables, "data: images/s")) == 4
    assert [row["images"] for row in table(tables, "data: decoding")] == [200, 100]
    one, two = table(tables, "data: worker processes")
    assert (one["workers"], two["workers"]) == (1, 2)
    assert two["copies"] == pytest.approx(1, abs=0.1)


def test_plan():
    tables = plan.measure(sizes=(100,))
    (row,) = table(tables, "plan: cells/s")
    assert row["cells/s"] > 0
    assert row["composed/s by Hydra alone"] > 0
    assert table(tables, "plan: second start")[0]["finished runs"] == 100


def test_load():
    (row,) = table(load.measure(sizes=(100,)), "load")
    assert row["rows"] == 100
    assert row["rows/s"] > 0


@pytest.mark.slow
def test_growth():
    rows = table(growth.measure(scale=0.1), "growth")
    assert len(rows) == 4
    assert all(math.isfinite(row["exponent"]) for row in rows)


@pytest.mark.slow
def test_sweep():
    tables = sweep.measure(classes=2, grid=("layers=4", "n_per_class=2"), repetitions=1)
    assert "2 target classes" in next(iter(tables))
    conventional, ours = table(tables, "layers=4")
    assert conventional["faster by"] == 1
    assert ours["faster by"] == pytest.approx(conventional["seconds"] / ours["seconds"], rel=0.01)
    assert ours["from"] <= ours["seconds"] <= ours["to"]
    assert ours["planned"] > 0


@pytest.mark.slow
def test_techniques():
    ways = [name for name, (variant, _) in techniques.WAYS.items() if variant or name == techniques.NOTHING]
    tables = techniques.measure(classes=2, grid=("layers=4", "n_per_class=2"), ways=ways, repetitions=1)
    assert [row["without"] for row in table(tables, "layers=4")] == ways


def test_two_threads_switch_off_one_thread_and_nothing_else(monkeypatch):
    kept: list[bool] = []
    monkeypatch.setattr(hardware, "one_thread", hardware.one_thread)
    monkeypatch.setattr(hardware, "_keep_memory", lambda: kept.append(True))
    variants.two_threads()
    hardware.one_thread()
    assert in_force() == (2, True, False)
    assert kept == [True]


def test_tiny_sweep_needs_tiny_imagenet():
    assert tiny_sweep.measure() == {}


@pytest.mark.slow
def test_gpu_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tables = gpu.measure(pixels=63)
    for title, rows in tables.items():
        assert all("error" not in row for row in rows), title
    assert any("needs CUDA" in row["what"] for row in table(tables, "gpu: skipped"))


def a_bench():
    """Of a size for tests."""
    return gpu.Bench(torch.device("cpu"), time.monotonic() + 60, classes=4, pixels=63, seconds=0.01)


def in_force():
    """What the process computes with."""
    return torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark


@pytest.mark.slow
@pytest.mark.parametrize(("work", "arguments"), [(gpu.real, (8, "fp32", "device", 8)), (gpu.split, (1, 1, 1))])
def test_the_gpu_script_trains_in_the_setting_of_our_workers(monkeypatch, work, arguments):
    seen = []

    def epochs(*arguments):
        seen.append(in_force())
        return iter([(1, 0.0)] * 9)

    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(subprocess, "run", lambda *line, **options: None)
    monkeypatch.setattr(gpu, "fit", epochs)
    gpu.settle("free")
    assert in_force() == (1, False, True)
    work(a_bench(), *arguments)
    assert seen == [(1, True, False)]


@pytest.mark.slow
def test_the_first_calls_of_an_evaluation_are_not_multiplied(monkeypatch):
    durations, now = iter([1.0, 0.25]), [0.0]
    clock = types.SimpleNamespace(perf_counter=lambda: now[0], monotonic=lambda: now[0])
    monkeypatch.setattr(subprocess, "run", lambda *line, **options: None)
    monkeypatch.setattr(gpu, "fit", lambda *arguments: iter([(1, 0.0)] * 9))
    monkeypatch.setattr(gpu, "time", clock)
    monkeypatch.setattr(gpu, "evaluate", lambda *arguments: now.append(now.pop() + next(durations)))
    assert gpu.split(a_bench(), 1, 1, 1)["evaluation"] == 0.25 * 2 * 4 / 4  # (val + n) * classes images, of 4 measured


@pytest.mark.slow
def test_runs_on_one_gpu_train_at_the_same_time():
    row = gpu.together(a_bench(), 2, 8, "fp32", count=8, seconds=4)
    assert row["images/s"] == pytest.approx(sum(row["of each"]), abs=1)
    assert row["time shared"] > 0


def test_runs_that_train_one_after_the_other_share_no_time():
    assert gpu.combined([(800, 0.0, 8.0), (800, 0.0, 8.0)])["time shared"] == 1
    assert gpu.combined([(800, 0.0, 8.0), (800, 2.0, 10.0)])["time shared"] == 0.6
    assert gpu.combined([(800, 0.0, 8.0), (800, 9.0, 17.0)])["time shared"] == 0


def test_every_batch_arithmetic_and_mode_is_measured_or_named_as_skipped():
    bench = dataclasses.replace(a_bench(), device=torch.device("cuda"), deadline=0)
    gpu.run(bench)
    for batch, arithmetic in itertools.product((128, 256, 1024), ("bf16", "tf32", "fp32")):
        size = f"{{'batch': {batch}, 'arithmetic': '{arithmetic}', "
        assert any(what.startswith(f"real {size}'images': 'device'") for what in bench.skipped)
        for mode in ("eager", "graph", "compiled"):
            assert any(what.startswith(f"synthetic {size}'mode': '{mode}'") for what in bench.skipped)


def test_what_real_images_are_compared_with_has_their_setting():
    bench = dataclasses.replace(a_bench(), device=torch.device("cuda"), deadline=0)
    gpu.run(bench)
    for what in (what for what in bench.skipped if what.startswith("real ")):
        like = what.replace("real ", "synthetic ").replace("'images': 'device'", "'mode': 'eager'")
        assert like in bench.skipped or "'host'" in what


def test_the_peak_of_a_cells_memory_is_its_own(monkeypatch):
    done = []

    def work():
        done.append("work")
        return {}

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("empty"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: done.append("reset"))
    bench = dataclasses.replace(a_bench(), device=torch.device("cuda"))
    for table in ("real", "synthetic"):
        bench.cell(table, {}, work)
    assert done == ["empty", "reset", "work"] * 2


def test_a_failing_cell_stops_nothing(capsys):
    bench = gpu.Bench(torch.device("cpu"), time.monotonic() + 60)
    bench.cell("t", {"cell": 1}, lambda: {"images/s": 1 / 0})
    bench.cell("t", {"cell": 2}, lambda: {"images/s": 3})
    bench.cell("t", {"cell": 3}, lambda: {"images/s": 4}, needs=61)
    assert [row.get("error", row.get("images/s")) for row in bench.rows["t"]] == [
        "ZeroDivisionError: division by zero",
        3,
    ]
    assert bench.skipped == ["t {'cell': 3}: no time left"]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_the_gpu_script_trains_the_packages_network(composed):
    ours = gpu.configuration(256)
    config = composed("dataset=imagenet", "layers=0", "precision=bf16", "base.precision=bf16")
    assert dataclasses.replace(ours, machine=config.machine) == config


def test_the_gpu_script_needs_no_hydra():
    script = "import sys, benchmarks.gpu; print(*({'hydra', 'omegaconf', 'safetensors', 'rich'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
