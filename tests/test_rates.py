"""The learning rate of every layer at every epoch, against tables written by hand for 90 epochs of .01 and .001."""

import pytest

from tlprotocols.lr_schedule import table

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
    for end, rate in segments:
        rates += [pytest.approx(rate, rel=1e-12)] * (end - start)
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
    asked = ("dataset=imagenet", "layers=6", "freeze=6", "high_lr_layers=1", "decay_epochs=5")
    assert command(*asked, module="tlprotocols.lr_schedule").stdout.split("\n") == [
        "epochs         fc7      fc8",
        "0-4          0.001     0.01",
        "5-29         0.001    0.001",
        "30-34       0.0001    0.001",
        "35-59       0.0001   0.0001",
        "60-64        1e-05   0.0001",
        "65-89        1e-05    1e-05",
        "",
    ]


def test_a_wrong_value_prints_no_table(command):
    ended = command("layers=9", module="tlprotocols.lr_schedule")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("layers=9: must be from 0 to 7")
