"""Configurations that nobody would write by hand: each is planned, or refused in a line. Nothing is a traceback.

`TLPROTOCOLS_EXAMPLES=1000 pytest tests/test_generated.py` tries so many.
"""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tlprotocols.config.schema import DATASETS
from tlprotocols.config.validate import keys
from tlprotocols.errors import ConfigError
from tlprotocols.launching.driver import sweep
from tlprotocols.launching.local import Local

EXAMPLES = int(os.environ.get("TLPROTOCOLS_EXAMPLES", "60"))
DRY = Local(workers=1, gpus=None, per_gpu=1, dry_run=True, retry_failed=False)
GROUPS = {
    "dataset": ("glyphs", "folder", "cifar10", "tiny_imagenet", "imagenet"),
    "model": ("alexnet", "alexnet_small", "convnet", "resnet18", "densenet121"),
    "recipe": ("small", "plested2019", "miniature"),
    "base": ("trained", "self", "none", "weights", "dataset"),
    "base.dataset": DATASETS,
    "classes": ("random", "yosinski", "natman", "groups", "all"),
    "protocol": ("scratch", "commonly_used", "fine_tune", "frozen", "optimal"),
}
ODD = (
    "null",
    "''",
    "x",
    "true",
    "[]",
    "[a,b]",
    "[1,2]",
    "{}",
    "{a: 1}",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "-0.0",
    "${seed}",
)
NUMBERS = (
    "-1",
    "0",
    "1",
    "2",
    "3",
    "7",
    "8",
    "0.5",
    "1.0",
    "1e-9",
    "13",
    "64",
    "1000",
    "1e9",
    "1e30",
    "full",
    "all",
    "all-2",
)
FIXED = {"dataset.download", "base.dataset.download", "dataset.root", "results_dir", "machine.image_cache"}


def overrides():
    """One override: a choice of a group, or a key with a legal, a wrong or an odd value."""
    values = {
        key: (*about["choices"], *NUMBERS, *ODD) if about["choices"] or about["type"] is str else (*NUMBERS, *ODD)
        for key, about in keys()
        if key not in FIXED and not key.endswith(".name")
    }
    values["lr.layers.conv1"] = values["lr.layers.nosuch"] = values.pop("lr.layers")
    choices = [f"{key}={value}" for group in (GROUPS, values) for key, found in group.items() for value in found]
    choices += [f"~{key}" for key in values] + [f"+{key}=1" for key in ("seed", "nosuch", "lr.nosuch")]
    return st.sampled_from(choices)


def refusal(composed, *chosen):
    """Plan a configuration; why it is refused, or an empty text."""
    try:
        assert sweep([composed(*chosen)], DRY) is None
    except ConfigError as error:
        return str(error)
    return ""


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(chosen=st.lists(overrides(), min_size=1, max_size=5, unique_by=lambda text: text.split("=")[0]))
def test_a_configuration_is_planned_or_refused_in_a_line(composed, tiny, tmp_path_factory, chosen):
    results = tmp_path_factory.getbasetemp() / "never"
    line = refusal(composed, *tiny, f"results_dir={results}", *chosen)
    assert "\n" not in line
    assert not results.exists()


@pytest.mark.parametrize("override", sorted({f"{key}={value}" for key, found in GROUPS.items() for value in found}))
def test_every_choice_of_a_group_is_planned_or_refused_in_a_line(composed, tmp_path, override):
    assert "\n" not in refusal(composed, override, f"results_dir={tmp_path}", f"machine.image_cache={tmp_path}")
