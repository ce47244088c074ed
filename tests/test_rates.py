"""The learning rate of every layer at every epoch, against tables written by hand for 90 epochs of .01 and .001."""

import dataclasses
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlprotocols.config.identity import base_of
from tlprotocols.config.schema import SCHEDULES
from tlprotocols.lr_schedule import falls_on_plateau, rate, table

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
LOW = [(30, 0.001), (60, 0.0001), (90, 0.00001)]  # (first epoch after it, rate)
HIGH = {  # by decay_epochs
    0: [(30, 0.001), (60, 0.0001), (90, 0.00001)],
    3: [(3, 0.01), (33, 0.001), (63, 0.0001), (90, 0.00001)],
    5: [(5, 0.01), (35, 0.001), (65, 0.0001), (90, 0.00001)],
    10: [(10, 0.01), (40, 0.001), (70, 0.0001), (90, 0.00001)],
    30: [(30, 0.01), (60, 0.001), (90, 0.0001)],
}


def every_epoch(segments):
    rates, start = [], 0
    for end, value in segments:
        rates += [pytest.approx(value, rel=1e-12)] * (end - start)
        start = end
    assert len(rates) == 90
    return rates


@pytest.mark.parametrize("high_layers", [("fc8",), ("fc7", "fc8"), LAYERS], ids=["k=1", "k=2", "k=8"])
@pytest.mark.parametrize("decay", HIGH, ids=lambda decay: f"D={decay}")
def test_only_the_high_rate_knows_of_decay_epochs(composed, decay, high_layers):
    config = composed("dataset=imagenet", f"decay_epochs={decay}", f"high_lr_layers={len(high_layers)}")
    rates = table(config)
    assert tuple(rates) == LAYERS
    for layer in LAYERS:
        assert rates[layer] == every_epoch(HIGH[decay] if layer in high_layers else LOW), layer


@pytest.mark.parametrize(
    ("schedule", "decay", "high", "low"),
    [
        pytest.param(
            "join_low",
            5,
            [(5, 0.01), (30, 0.002), (60, 0.0002), (90, 0.00002)],
            [(30, 0.002), (60, 0.0002), (90, 0.00002)],
            id="join_low: from D on fc8 has the rate of the rest",
        ),
        pytest.param(
            "join_low",
            40,
            [(30, 0.01), (40, 0.001), (60, 0.0002), (90, 0.00002)],
            [(30, 0.002), (60, 0.0002), (90, 0.00002)],
            id="join_low after a fall",
        ),
        pytest.param(
            "extra_step",
            5,
            [(5, 0.01), (30, 0.001), (60, 0.0001), (90, 0.00001)],
            [(30, 0.002), (60, 0.0002), (90, 0.00002)],
            id="extra_step: 30 and 60 for all, and once more at D for fc8",
        ),
        pytest.param(
            "step_all",
            20,
            [(20, 0.01), (40, 0.001), (60, 0.0001), (80, 0.00001), (90, 0.000001)],
            [(20, 0.002), (40, 0.0002), (60, 0.00002), (80, 0.000002), (90, 0.0000002)],
            id="step_all: everything every D",
        ),
        pytest.param(
            "both",
            5,
            [(5, 0.01), (35, 0.001), (65, 0.0001), (90, 0.00001)],
            [(5, 0.002), (35, 0.0002), (65, 0.00002), (90, 0.000002)],
            id="both: the low rate falls at D too",
        ),
        pytest.param(
            "own_clock",
            5,
            [(5, 0.01), (35, 0.001), (65, 0.0001), (90, 0.00001)],
            [(30, 0.002), (60, 0.0002), (90, 0.00002)],
            id="own_clock",
        ),
    ],
)
def test_the_five_readings_of_decay_epochs(composed, schedule, decay, high, low):
    rates = table(composed("dataset=imagenet", "lr.low=0.002", f"schedule={schedule}", f"decay_epochs={decay}"))
    assert rates["fc8"] == every_epoch(high)
    assert all(rates[layer] == every_epoch(low) for layer in LAYERS[:7])


def test_multistep_lowers_every_layer_at_the_milestones(composed):
    """DenseNet's 50% and 75% of 90 epochs; decay_epochs and lr.step mean nothing here."""
    overrides = ("schedule=multistep", "lr.milestones=[45,67]", "lr.layers.conv2=0.5", "decay_epochs=3", "lr.step=2")
    rates = table(composed("dataset=imagenet", *overrides))
    assert rates["fc8"] == every_epoch([(45, 0.01), (67, 0.001), (90, 0.0001)])
    assert rates["conv1"] == every_epoch([(45, 0.001), (67, 0.0001), (90, 0.00001)])
    assert rates["conv2"] == every_epoch([(45, 0.5), (67, 0.05), (90, 0.005)])


def test_cosine_goes_from_each_layers_rate_to_nothing(composed):
    """Of six epochs; the shares are (1 + cos(k * 30 degrees)) / 2."""
    rates = table(composed("dataset=imagenet", "schedule=cosine", "epochs=6", "lr.layers.conv2=0.5", "decay_epochs=1"))
    shares = [1, (2 + 3**0.5) / 4, 0.75, 0.5, 0.25, (2 - 3**0.5) / 4]
    assert rates["fc8"] == pytest.approx([0.01 * share for share in shares], rel=1e-12)
    assert rates["conv1"] == pytest.approx([0.001 * share for share in shares], rel=1e-12)
    assert rates["conv2"] == pytest.approx([0.5 * share for share in shares], rel=1e-12)
    assert table(composed("schedule=cosine", "epochs=1"))["fc8"] == [0.02]


NAN = float("nan")


@pytest.mark.parametrize(
    ("losses", "patience", "expected"),
    [
        pytest.param([5, 4, 3, 2], 1, [0, 0, 0, 0], id="always lower"),
        pytest.param([5, 5, 5, 5], 1, [0, 1, 2, 3], id="equal is not lower"),
        pytest.param([5, 5, 5, 5, 5, 5, 5], 3, [0, 0, 0, 1, 1, 1, 2], id="each fall needs its own three epochs"),
        pytest.param([5, 6, 4, 5, 6, 3], 2, [0, 0, 0, 0, 1, 1], id="a lower loss begins the count again"),
        pytest.param([5, 3, 4, 3.5, 3.2], 2, [0, 0, 0, 1, 1], id="lower than the last is not lower than all"),
        pytest.param([NAN, 5, NAN, 4], 1, [1, 1, 2, 2], id="what is no number is not lower, and forgotten"),
    ],
)
def test_a_rate_falls_where_the_loss_does_not(composed, losses, patience, expected):
    assert [falls_on_plateau(losses[: epoch + 1], patience) for epoch in range(len(losses))] == expected
    config = composed("dataset=imagenet", "schedule=plateau", f"lr.patience={patience}", "lr.layers.conv2=0.5")
    falls = [0, *expected]  # an epoch knows the losses before it
    for layer, initial in (("fc8", 0.01), ("conv1", 0.001), ("conv2", 0.5)):
        rates = [rate(config, layer, epoch, [*losses, 0.0]) for epoch in range(len(losses) + 1)]
        assert rates == pytest.approx([initial * 0.1**count for count in falls])


@given(losses=st.lists(st.floats(0, 5)), patience=st.integers(1, 6))
def test_falls_are_a_function_of_the_order_of_the_losses_so_far(losses, patience):
    falls = [falls_on_plateau(losses[:epoch], patience) for epoch in range(len(losses) + 1)]
    assert falls == sorted(falls)
    assert all(later - before <= 1 for before, later in itertools.pairwise(falls))
    assert falls[-1] <= len(losses) // patience
    assert falls[-1] == falls_on_plateau([2 * loss for loss in losses], patience)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("", [0.5, 0.5, 0.05, 0.05, 0.005]),
        ("base.schedule=multistep base.lr.milestones=[1,4]", [0.5, 0.05, 0.05, 0.05, 0.005]),
        ("base.schedule=cosine", [0.5 * (1 + math.cos(math.pi * epoch / 5)) / 2 for epoch in range(5)]),
    ],
)
def test_a_base_has_a_schedule_of_its_own_and_one_rate(composed, overrides, expected):
    always = ("base.epochs=5", "base.lr.high=0.5", "base.lr.step=2", "schedule=both", "decay_epochs=1")
    rates = table(base_of(composed(*always, *overrides.split())))
    assert tuple(rates) == LAYERS
    assert all(rates[layer] == pytest.approx(expected) for layer in LAYERS)


@settings(max_examples=200)
@given(
    schedule=st.sampled_from(SCHEDULES),
    epochs=st.integers(1, 120),
    decay=st.integers(1, 40),
    step=st.integers(1, 40),
    gamma=st.floats(0, 1),
    milestones=st.sets(st.integers(1, 130), min_size=1).map(sorted),
    high=st.floats(1e-6, 10),
    low=st.floats(1e-6, 10),
    layers=st.integers(0, 8),
)
def test_rates_never_rise_and_begin_at_the_initial_one(
    composed, schedule, epochs, decay, step, gamma, milestones, high, low, layers
):
    """Except where decay_epochs lets the high group join a low rate that is higher."""
    config = composed("layers=0")
    lr = dataclasses.replace(config.lr, high=high, low=low, step=step, gamma=gamma, milestones=tuple(milestones))
    config = dataclasses.replace(
        config, lr=lr, schedule=schedule, epochs=epochs, decay_epochs=decay, high_lr_layers=layers
    )
    for layer, rates in table(config).items():
        is_high = LAYERS.index(layer) >= 8 - layers
        assert rates[0] == (high if is_high else low)
        assert all(0 <= value < math.inf for value in rates)
        if schedule != "join_low":
            assert rates == sorted(rates, reverse=True)
        assert rates == [rate(config, layer, epoch) for epoch in reversed(range(epochs))][::-1]


@settings(max_examples=50)
@given(epochs=st.integers(1, 500), data=st.data())
def test_half_of_a_cosine_is_symmetric_about_its_middle(composed, epochs, data):
    config = dataclasses.replace(composed("schedule=cosine"), epochs=epochs)
    epoch = data.draw(st.integers(0, epochs - 1))
    both = rate(config, "fc8", epoch) + rate(config, "fc8", epochs - epoch)
    assert both == pytest.approx(config.lr.high, rel=1e-9)
    assert rate(config, "fc8", epoch) > 0


def test_commonly_used_is_one_rate_for_all(composed):
    rates = table(composed("dataset=imagenet", "protocol=commonly_used"))
    assert list(rates.values()) == [every_epoch([(30, 0.01), (60, 0.001), (90, 0.0001)])] * 8


@pytest.mark.parametrize("k", [1, 8])
def test_a_layers_own_rate_replaces_its_groups(composed, k):
    rates = table(composed("dataset=imagenet", f"high_lr_layers={k}", "lr.layers.conv1=0.0005", "decay_epochs=3"))
    assert rates["conv1"] == every_epoch([(30, 0.0005), (60, 0.00005), (90, 0.000005)])
    assert rates["fc8"] == every_epoch(HIGH[3])


def test_frozen_layers_have_no_rate(composed):
    assert tuple(table(composed("layers=5", "freeze=3"))) == LAYERS[3:]


def test_the_printed_table_is_the_one_written_by_hand(command):
    overrides = ("dataset=imagenet", "layers=6", "freeze=6", "high_lr_layers=1", "decay_epochs=5")
    assert command(*overrides, module="tlprotocols.lr_schedule").stdout.split("\n") == [
        "epochs         fc7      fc8",
        "0-4          0.001     0.01",
        "5-29         0.001    0.001",
        "30-34       0.0001    0.001",
        "35-59       0.0001   0.0001",
        "60-64        1e-05   0.0001",
        "65-89        1e-05    1e-05",
        "",
    ]


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        (("schedule=multistep", "lr.milestones=[2]"), ["0-1          0.001     0.01", "2-2         0.0001    0.001"]),
        (
            ("schedule=cosine",),
            ["0-0          0.001     0.01", "1-1        0.00075   0.0075", "2-2        0.00025   0.0025"],
        ),
        (
            ("schedule=plateau", "lr.patience=4"),
            ["0-2          0.001     0.01", "times 0.1 whenever 4 epochs brought no lower val_loss"],
        ),
    ],
    ids=["multistep", "cosine", "plateau"],
)
def test_printed_tables_of_the_other_schedules(command, overrides, lines):
    ended = command(
        "dataset=imagenet", "layers=6", "freeze=6", "epochs=3", *overrides, module="tlprotocols.lr_schedule"
    )
    assert ended.stdout.splitlines() == ["epochs         fc7      fc8", *lines]


def test_epochs_that_only_the_images_decide_are_not_guessed(command):
    ended = command("schedule=cosine", "max_updates=500", module="tlprotocols.lr_schedule")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("max_updates=500: the images decide how many epochs that is; say epochs=K")


def test_epochs_that_are_given_are_those_of_the_printed_table(command):
    """Of `bit`: falls after 30, 60 and 90% of ten epochs."""
    printed = command("protocol=bit", "epochs=10", module="tlprotocols.lr_schedule").stdout.splitlines()
    assert [line.split()[0] for line in printed] == ["epochs", "0-2", "3-5", "6-8", "9-9"]


def test_a_head_that_learns_for_half_of_the_epochs_is_in_the_table(composed):
    rates = table(composed("protocol=lp_ft", "epochs=6"))
    assert [rate > 0 for rate in rates["conv1"]] == [False] * 3 + [True] * 3
    assert all(rates["fc8"])


def test_a_wrong_value_prints_no_table(command):
    ended = command("layers=9", module="tlprotocols.lr_schedule")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("layers=9: must be from 0 to 7")
