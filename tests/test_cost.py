"""What a plan will take: hours by hand, and rates that the next plan knows."""

import json
import signal
import subprocess
import sys
import time

import pytest

from tlprotocols.hardware import device_name
from tlprotocols.launching.driver import summary, sweep
from tlprotocols.planning.cost import REMEMBERED, START, Cost, cost, kind, rates_file, remember
from tlprotocols.planning.plan import Run, plan

OURS, THEIRS = device_name("cpu"), "a processor that is not here"


@pytest.fixture
def config(plain, tmp_path):
    """Nine epochs of the small AlexNet at full width, on a machine that remembers nothing."""
    always = ("epochs=9", "model.width=1", "machine.device=cpu", f"machine.store={tmp_path / 'store'}")
    return lambda *overrides: plain(*always, *overrides)


def run(config, images=400, val_images=200, id="a", base=None):
    return Run(id, config, "run", base, images, val_images)


def rows(*rates, device=OURS):
    return [{"run_id": f"{device} {n}", "device": device, "images_per_second": rate} for n, rate in enumerate(rates)]


def shown(config, *rates, device=OURS):
    """This device has trained such runs at these rates."""
    remember([(config, row) for row in rows(*rates, device=device)])


def test_a_known_rate_is_the_median_of_those_seen(config):
    shown(config(), 80.0, 100.0, 900.0)
    costs = cost([run(config())], here=True)
    # 9 epochs of 400 images, and 600 evaluated images at a third of the work: 3800 at 100 a second
    assert (costs.seconds, costs.guessed) == ({"a": 38.0}, False)
    assert costs.hours([run(config())], slots=1) == (4 + 38) / 3600


def test_an_unknown_rate_is_guessed_from_the_network(config):
    costs = cost([run(config())], here=True)
    # 50e9 multiply-adds a second, and 3 times 45e6 of them an image
    assert costs.seconds["a"] == pytest.approx(3800 * 135e6 / 50e9)
    assert costs.guessed


@pytest.mark.parametrize("other", ["model.width=0.5", "batch_size=7", "freeze=3 layers=3", "curve=true"])
def test_runs_of_another_kind_are_still_a_guess(config, other):
    shown(config(), 100.0)
    known, unknown = run(config()), run(config(*other.split()), id="b")
    costs = cost([known, unknown], here=True)
    assert costs.seconds["a"] == 38.0
    assert costs.seconds["b"] != 38.0
    assert costs.guessed


def test_runs_that_differ_in_images_alone_are_of_one_kind(config):
    assert kind(config("n_per_class=10", "seed=1", "split=2")) == kind(config("n_per_class=50"))


def test_another_machines_rate_counts_for_a_cluster_only(config):
    shown(config(), 50.0, device=THEIRS)
    assert cost([run(config())], here=True).guessed
    assert cost([run(config())], here=False) == Cost({"a": 76.0}, False)
    shown(config(), 100.0)
    assert cost([run(config())], here=True).seconds == {"a": 38.0}
    assert cost([run(config())], here=False).seconds == {"a": 3800 / 75}


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
    assert cost([], here=True).hours([], 4) == 0


@pytest.mark.parametrize("count", [2, REMEMBERED, REMEMBERED + 10])
def test_a_run_counts_once_however_often_it_is_looked_at_and_the_last_ones_are_kept(config, count):
    rates = [float(rate) for rate in range(1, count + 1)]
    for _ in range(3):
        shown(config(), *rates)
    (kept,) = json.loads(rates_file(config()).read_text())[kind(config())].values()
    assert list(kept.values()) == rates[-REMEMBERED:]


def test_a_store_that_only_the_nodes_can_write_to_leaves_a_guess(config, tmp_path):
    (tmp_path / "store").write_text("in the way")
    shown(config(), 100.0)
    assert cost([run(config())], here=False).guessed


@pytest.mark.slow
def test_processes_that_remember_at_once_lose_nothing(config, tmp_path):
    script = (
        "import sys\n"
        "from tlprotocols.config.compose import load\n"
        "from tlprotocols.planning.cost import remember\n"
        "config, me = load(*sys.argv[2:]), sys.argv[1]\n"
        "for n in range(50):\n"
        "    remember([(config, {'run_id': me, 'device': f'{me} {n}', 'images_per_second': 1.0})])\n"
    )
    given = ["machine.device=cpu", f"machine.store={tmp_path / 'store'}"]
    processes = [subprocess.Popen([sys.executable, "-c", script, me, *given]) for me in "ab"]
    assert [process.wait(60) for process in processes] == [0, 0]
    (by_device,) = json.loads((tmp_path / "store" / "rates.json").read_text()).values()
    assert len(by_device) == 100


@pytest.mark.slow
def test_the_next_plan_knows_what_a_sweep_has_shown(cfg, tmp_path):
    folders = [f"machine.store={tmp_path / 'store'}", f"results_dir={tmp_path / 'results'}"]
    (row,) = sweep([cfg("layers=0", *folders)], [None])
    more = plan([cfg("layers=0", f"seed={seed}", *folders) for seed in (1, 2)])
    costs = cost(more.to_run, here=True)
    assert not costs.guessed
    # 4 classes: 2 epochs of 4 images each, then those and 4 to validate on
    assert set(costs.seconds.values()) == {(32 + 32 / 3) / row["images_per_second"]}
    total = START + 2 * (32 + 32 / 3) / row["images_per_second"]
    assert f"hours={total / 3600:.3f}" in summary(more, costs, 1)


@pytest.mark.slow
def test_ctrl_c_keeps_the_rates_of_what_is_finished(tiny, tmp_path):
    given = [*tiny, f"machine.store={tmp_path / 'store'}", f"results_dir={tmp_path}", "hydra.launcher.workers=2"]
    line = [sys.executable, "-m", "tlprotocols", "-m", *given, "layers=0", "epochs=2,100000"]
    process = subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    rates, end = tmp_path / "store" / "rates.json", time.monotonic() + 60
    while not rates.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 130, printed
    (by_device,) = json.loads(rates.read_text()).values()
    (row,) = (json.loads(file.read_text()) for file in (tmp_path / "rows").glob("*.json"))
    assert by_device == {row["device"]: {row["run_id"]: row["images_per_second"]}}
