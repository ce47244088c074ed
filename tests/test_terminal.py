"""What a person sees of a sweep: a table by cell that is never cut, at any width, and the progress of each run."""

import dataclasses
import io

import pytest
from rich.console import Console

from tlprotocols.config.identity import factors, run_id
from tlprotocols.launching import terminal
from tlprotocols.planning.cost import Cost
from tlprotocols.planning.plan import Plan, Run
from tlprotocols.records import files


def planned(configs):
    """A plan of these configurations, all finished, and their rows: accuracy 50%, 52%, 54%, ..."""
    runs = {run_id(c): Run(run_id(c), c, "run", None, 10, 10) for c in configs}
    rows = {}
    for number, (id, run) in enumerate(runs.items()):
        measured = {"val_top1": 0.5 + 0.02 * number, "val_loss": 1.25, "train_loss": 0.75, "base_top1": 0.875}
        rows[id] = {"run_id": id, "role": "run", **factors(run.config), **measured}
    plan = Plan(tuple(run_id(c) for c in configs), runs, rows, {}, {})
    return plan, [rows[id] for id in plan.cells]


def printed(table, width):
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    return file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_accuracy_is_never_cut(plain, width):
    """Four swept factors with long names, of which a run's table has no room for all at 80 columns."""
    swept = [
        f"layers={m} base.n_per_class={n} high_lr_layers={k} weight_decay=0.000{k}"
        for m in (4, 5)
        for n in (10, 20)
        for k in (1, 8)
    ]
    plan, rows = planned([plain(*line.split()) for line in swept])
    shown = printed(terminal.table(plan, rows, width), width)
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    for row in rows:
        assert f"{100 * row['val_top1']:.1f}%" in shown


def test_splits_and_seeds_are_averaged_with_their_deviation(plain):
    plan, rows = planned(
        [plain(f"split={s}", f"seed={i}", f"layers={m}") for m in (4, 5) for s in (0, 1) for i in (0, 1)]
    )
    shown = printed(terminal.table(plan, rows, 80), 80)
    assert "53.0 ± 2.6%" in shown  # of 50, 52, 54, 56
    assert "61.0 ± 2.6%" in shown
    assert not any(row["run_id"] in shown for row in rows)
    lines = terminal.footer(plan, rows)
    assert lines[0].endswith("(split, seed)")
    assert lines[-1].startswith("figures:     python -m analysis --results ")


def test_one_run_per_cell_has_its_id_where_there_is_room(plain):
    plan, rows = planned([plain(f"layers={m}") for m in (4, 5)])
    assert rows[0]["run_id"] in printed(terminal.table(plan, rows, 120), 120)
    assert "±" not in printed(terminal.table(plan, rows, 120), 120)


def test_protocols_are_named_and_what_follows_from_them_is_left_out(composed):
    plan, rows = planned([composed(f"protocol={name}") for name in ("scratch", "fine_tune", "commonly_used")])
    shown = printed(terminal.table(plan, rows, 80), 80)
    assert "commonly_used" in shown
    assert "high_lr_layers" not in shown


@pytest.mark.parametrize(
    ("protocols", "finished"),
    [
        (("scratch", "fine_tune"), [("scratch", 0.005), ("scratch", 0.2)]),
        (("scratch", "fine_tune", "frozen"), [("scratch", 0.005), ("scratch", 0.2), ("fine_tune", 0.2)]),
    ],
)
def test_settings_are_not_averaged_where_part_of_a_sweep_has_no_row(composed, protocols, finished):
    swept = [(protocol, lr) for protocol in protocols for lr in (0.005, 0.2)]
    plan, rows = planned([composed(f"protocol={protocol}", f"lr.high={lr}") for protocol, lr in swept])
    rows = [row if cell in finished else None for cell, row in zip(swept, rows, strict=True)]
    shown = printed(terminal.table(plan, rows, 120), 120)
    assert "±" not in shown
    assert "lr.high" in shown
    for row in filter(None, rows):
        assert f"{100 * row['val_top1']:.1f}%" in shown


@pytest.mark.parametrize("mark", ["collapsed", "underfitted", "diverged"])
def test_a_failed_run_of_a_cell_is_counted(plain, mark):
    plan, rows = planned([plain(f"seed={i}") for i in range(3)])
    rows[1][mark] = True
    assert f"1 {mark}" in printed(terminal.table(plan, rows, 100), 100)


def test_a_loss_that_a_diverged_run_lacks_is_not_averaged_over_the_others(plain):
    plan, rows = planned([plain(f"layers={m}", f"seed={i}") for m in (4, 5) for i in range(3)])
    rows[1] |= {"diverged": True, "train_loss": None}
    made = terminal.table(plan, rows, 120)
    assert {column.header: list(column.cells) for column in made.columns}["train loss"] == ["", "0.750"]


def test_the_progress_of_a_run_is_the_last_line_of_its_log(plain, tmp_path):
    config = dataclasses.replace(plain("epochs=8"), results_dir=str(tmp_path))
    run = Run(run_id(config), config, "run", None, 10, 10)
    assert terminal.progress_of(run) == ""
    files(config).folder.mkdir(parents=True)
    files(config).log.write_text("2026-01-01 10:00:00 epoch 3 train_loss 1.234 val_loss 2 val_top1 0.5\n")
    assert terminal.progress_of(run) == "epoch 3 of 8, loss 1.23"
    files(config).log.write_text("2026-01-01 10:00:00 resumed after epoch 3\n")
    assert terminal.progress_of(run) == ""


def test_the_classes_of_a_base_are_named_by_its_own_half(cfg):
    from tlprotocols.planning.plan import plan

    made = plan([cfg("layers=5", "target=B")])
    shown = terminal.overview(made, Cost({}, False), 120)
    assert list(shown.columns[1].cells) == ["split 0 half A seed 0"]
