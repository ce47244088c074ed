"""The short form of tests/kills.py: processes of a sweep are killed, and several commands execute one sweep at once."""

import os
import random

import pytest

from tests.command_line import CommandLine, make_images
from tests.kills import disturb, together
from tlprotocols.config.identity import base_of
from tlprotocols.planning.plan import resolved
from tlprotocols.training.run import execute

LAYERS = (4, 5)
SHORT = ("epochs=8", "base.epochs=8", "curve=true", "machine.checkpoint_minutes=0", "hydra.launcher.workers=1")


@pytest.mark.slow
def test_killed_sweeps_and_simultaneous_ones_leave_what_plain_executions_leave(composed, tmp_path):
    tlp, chance = CommandLine(tmp_path, make_images(tmp_path / "images", train=20), dict(os.environ)), random.Random(0)
    for layers in LAYERS:
        config = resolved(composed(*tlp.always[1:], *SHORT[:-1], f"layers={layers}", f"results_dir={tmp_path}/plain"))
        execute(base_of(config), "base")
        execute(config)
    sweep = (*SHORT, f"layers={','.join(map(str, LAYERS))}")
    killed, _ = disturb(tlp, sweep, tmp_path / "plain", 2, chance)
    assert killed.total() == 2
    together(tlp, sweep, tmp_path / "plain", 2, chance)
