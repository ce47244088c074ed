"""What a plan will take: hours by hand, and the throughput of finished runs, which the next plan knows."""

import json

import pytest

from tlprotocols.config.identity import factors, run_id
from tlprotocols.hardware import device_name
from tlprotocols.launching.driver import sweep
from tlprotocols.launching.local import Local
from tlprotocols.launching.terminal import duration, summary
from tlprotocols.planning.cost import ROWS_READ, START, Cost, cost, kind_of
from tlprotocols.planning.plan import Plan, Run, plan

OURS, THEIRS = device_name("cpu"), "a processor that is not here"


@pytest.fixture
def config(plain, tmp_path):
    """Nine epochs of the small AlexNet at full width, and a results folder without rows."""
    always = ("epochs=9", "model.width=1", "machine.device=cpu", f"results_dir={tmp_path / 'results'}")
    return lambda *overrides: plain(*always, *overrides)


def run(config, images=400, val_images=200, id="a", base=None):
    return Run(id, config, "run", base, images, images + val_images)


def planned(*runs):
    return Plan(tuple(run.id for run in runs), {run.id: run for run in runs}, {}, {}, {})


def trained(config, *rates, device=OURS, tmp=None):
    """This device has trained such runs, of other seeds, at these rates: rows in the results folder."""
    for number, rate in enumerate(rates):
        row = {**factors(config), "run_id": f"{device[:4]}{number}", "device": device, "images_per_second": rate}
        if config.watched:
            row["val_top1_best"] = 0.5
        path = tmp / "results" / "rows" / f"{row['run_id']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(row))


def test_a_known_throughput_is_the_median_of_those_seen(config, tmp_path):
    trained(config("seed=7"), 80.0, 100.0, 900.0, tmp=tmp_path)
    one = planned(run(config()))
    costs = cost(one, here=True)
    # 9 epochs of 400 images, and 600 evaluated images at a third of the work: 3800 at 100 a second
    assert (costs.seconds, costs.guessed) == ({"a": 38.0}, False)
    assert costs.hours(one.to_run, 1) == (4 + 38) / 3600


def test_an_unknown_throughput_is_guessed_from_the_network(config):
    costs = cost(planned(run(config())), here=True)
    # 50e9 multiply-adds a second, and 3 times 45e6 of them an image; 16 tensors an update, 60 microseconds each
    batch = config().batch_size
    assert costs.seconds["a"] == pytest.approx(3800 * (135e6 / 50e9 + 16 * 60e-6 / batch))
    assert costs.guessed


@pytest.mark.parametrize(
    "other",
    [
        "model.width=0.5",
        "batch_size=7",
        "freeze=3 layers=3",
        "curve=true",
        "shards=2",
        "optimizer=adam",
        "stop_after=3",
    ],
)
def test_runs_of_another_kind_are_still_a_guess(config, other, tmp_path):
    trained(config(), 100.0, tmp=tmp_path)
    costs = cost(planned(run(config()), run(config(*other.split()), id="b")), here=True)
    assert costs.seconds["a"] == 38.0
    assert costs.seconds["b"] != 38.0
    assert costs.guessed
    trained(config(*other.split()), 50.0, tmp=tmp_path)
    assert cost(planned(run(config(*other.split()))), here=True) == Cost({"a": 76.0}, False)


def test_runs_that_differ_in_images_alone_are_of_one_kind(config):
    assert kind_of(config("n_per_class=10", "seed=1", "split=2")) == kind_of(config("n_per_class=50"))


def test_another_machines_throughput_counts_for_a_cluster_only(config, tmp_path):
    trained(config(), 50.0, device=THEIRS, tmp=tmp_path)
    one = planned(run(config()))
    assert cost(one, here=True).guessed
    assert cost(one, here=False) == Cost({"a": 76.0}, False)
    trained(config(), 100.0, tmp=tmp_path)
    assert cost(one, here=True).seconds == {"a": 38.0}
    assert cost(one, here=False).seconds == {"a": 3800 / 75}


def test_the_newest_rows_are_read_and_broken_ones_passed_over(config, tmp_path):
    trained(config(), *[10.0] * 3, tmp=tmp_path)
    (tmp_path / "results" / "rows" / "broken.json").write_text("{")
    assert ROWS_READ >= 100
    assert cost(planned(run(config())), here=True).seconds == {"a": 380.0}


def hours(seconds, slots, bases=()):
    made = [run(None, id=id, base=dict(bases).get(id)) for id in seconds]
    return (Cost(seconds, False).hours(made, slots) * 3600) - START


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        pytest.param(1, 65, id="one after another"),
        pytest.param(2, 35, id="30 + 5 beside 20 + 10"),
        pytest.param(3, 30, id="the longest alone"),
        pytest.param(9, 30, id="more workers than runs"),
    ],
)
def test_the_longest_runs_go_first_to_whoever_is_free(slots, expected):
    assert hours({"a": 30.0, "b": 20.0, "c": 10.0, "d": 5.0}, slots) == pytest.approx(expected)


def test_no_run_begins_before_its_base():
    bases = {"x": "base", "y": "base"}
    assert hours({"base": 100.0, "z": 40.0, "x": 30.0, "y": 10.0}, 2, bases) == pytest.approx(130)
    assert hours({"base": 100.0, "z": 40.0, "x": 30.0, "y": 10.0}, 2) == pytest.approx(100)


def test_nothing_to_run_takes_no_time():
    nothing = planned()
    assert cost(nothing, here=True).hours([], 4) == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40, "40 s"), (89, "89 s"), (720, "12 min"), (12000, "3 h 20 min"), (16453 * 60, "11 days 10 h")],
)
def test_durations_are_read_at_a_glance(seconds, text):
    assert duration(seconds) == text


@pytest.mark.slow
def test_the_next_plan_knows_what_a_sweep_has_shown(cfg, tmp_path):
    folders = [f"results_dir={tmp_path / 'results'}"]
    backend = Local(workers=1, gpus=None, per_gpu=1, dry_run=False, retry_failed=False)
    (row,) = sweep([cfg("layers=0", *folders)], backend)
    assert row["run_id"] == run_id(cfg("layers=0", *folders))
    more = plan([cfg("layers=0", f"seed={seed}", *folders) for seed in (1, 2)])
    costs = cost(more, here=True)
    assert not costs.guessed
    # 4 classes: 2 epochs of 4 images each, then those and 4 to validate on
    assert set(costs.seconds.values()) == {(32 + 32 / 3) / row["images_per_second"]}
    total = START + 2 * (32 + 32 / 3) / row["images_per_second"]
    assert f"hours={total / 3600:.3f}" in summary(more, costs, 1)
