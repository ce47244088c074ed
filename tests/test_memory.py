"""The column peak_memory_mb: what torch's allocator counts, less with checkpointing; measuring it changes no result."""

import json

import numpy as np
import pytest
import torch

from tlprotocols.config.schema import Config
from tlprotocols.hardware import processor_has_bf16
from tlprotocols.training import checkpoints, memory, models, optimizers
from tlprotocols.training.loop import Images, evaluate
from tlprotocols.training.memory import MB, Peak, peak_memory_mb
from tlprotocols.training.models import Network
from tlprotocols.training.run import execute, load_images, network, selected
from tlprotocols.training.shards import Gradient

HAS_BF16 = pytest.mark.skipif(
    not processor_has_bf16(),
    reason="without AVX512-BF16 or AMX torch computes bf16 by other kernels, whose scratch differs",
)

CPU = torch.device("cpu")
A, B, C = "model.drop_channel=before_bn", "model.se=true", "model.checkpoint=true"
VARIANTS = {"Vanilla": (), "A": (A,), "B": (B,), "A+B": (A, B), "A+B+C": (A, B, C)}


def images(count, side=32):
    labels = torch.arange(count) % 4
    return Images(torch.zeros(count, side, side, 3, dtype=torch.uint8), np.arange(count), labels, CPU)


def peak(plain, *overrides):
    """Of an update of a shallow DenseNet-BC with eight images."""
    net, config = densenet(plain, *overrides)
    return peak_memory_mb(net, config, images(8))


def densenet(plain, *overrides) -> tuple[Network, Config]:
    small = "dataset.pad=0", "model.depth=22", "batch_size=8", "dropout=0.2", "layers=0", *overrides
    config = plain("model=densenet_bc", *small)
    return models.build(config, 4).to(memory_format=torch.channels_last), config


def bytes_of(values):
    return sum(value.nbytes for value in values)


def test_a_tensor_counts_from_its_operation_until_it_is_freed():
    weight = torch.ones(1000)
    with Peak() as peak:
        doubled = weight * 2
        shifted = doubled.add_(1).view(10, 100)  # in place, and a view: nothing new
        assert peak.bytes == peak.most == 4000
        del doubled
        assert peak.bytes == 4000
        del shifted
        assert (peak.bytes, peak.most) == (0, 4000)
        torch.zeros(500).sum()
    assert peak.most == 4000


def test_tensors_that_are_kept_for_the_backward_pass_count():
    weight = torch.ones(1000, requires_grad=True)
    with Peak() as peak:
        loss = weight.exp().sin().sum()
        assert peak.bytes == 4000 + 4  # the result of exp, which sin keeps too, and the sum; that of sin is freed
        assert peak.most == 2 * 4000 + 4
        loss.backward()
        assert peak.most == 3 * 4000 + 2 * 4  # exp's result, its gradient, and the product of the two


@pytest.mark.filterwarnings("ignore")  # of the profiler
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=HAS_BF16)])
@pytest.mark.parametrize("variant", ["Vanilla", "A+B+C"])
def test_it_is_what_the_allocator_counts(plain, variant, precision, tmp_path):
    """torch's profiler sees every allocation of a processor, also scratch memory inside of an operation."""
    net, config = densenet(plain, *VARIANTS[variant])
    config = config if precision == "fp32" else densenet(plain, f"precision={precision}", *VARIANTS[variant])[1]
    ours = (
        peak_memory_mb(net, config, images(8)) - bytes_of((*net.parameters(), *net.buffers(), *net.parameters())) / MB
    )
    crops, labels = images(8)[slice(None)]
    sgd = optimizers.optimizer(net, config)
    with Gradient(net, config, CPU) as learn:
        learn.begin(0)
        learn(crops, labels)
        sgd.step()
        sgd.zero_grad()
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profile:
            learn(crops, labels)
            sgd.step()
    profile.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    found = sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"])
    assert ours == pytest.approx(np.cumsum([e["args"]["Bytes"] for e in found]).max() / MB, rel=0.02)


def test_checkpointing_needs_less_and_the_other_options_do_not_change_that(plain):
    peaks = {name: peak(plain, *chosen) for name, chosen in VARIANTS.items()}
    assert peaks["A+B+C"] < 0.85 * peaks["A+B"]
    assert peaks["A"] < peaks["Vanilla"] < peaks["B"]  # masks of units are as large as what they are for
    assert peak(plain, A, B, C) == peaks["A+B+C"]


def test_activations_grow_with_the_batch_and_weights_do_not(plain):
    one, two, four = (peak(plain, f"batch_size={n}") for n in (2, 4, 8))
    assert four - two == pytest.approx(2 * (two - one), rel=0.02)


def test_shards_are_counted_as_a_whole_batch(plain):
    config = plain("layers=0", "batch_size=8", "dropout=0", "dataset.pad=0", "shards=2")
    peaks = [
        peak_memory_mb(models.build(c, 4), c, images(8))
        for c in (config, plain("layers=0", "batch_size=8", "dropout=0", "dataset.pad=0", "shards=1"))
    ]
    assert peaks[0] == peaks[1]


def test_a_base_keeps_the_weights_that_were_measured(cfg, tmp_path):
    """The update that is measured comes after everything else."""
    config = cfg("layers=0", f"results_dir={tmp_path}")
    row = execute(config, role="base")
    assert row["peak_memory_mb"] > 0
    net, data = network(config, 4), load_images(config, CPU, print)
    path = tmp_path / "runs" / row["run_id"] / "weights.safetensors"
    for name, value in checkpoints.load_weights(path, row["weights_digest"]).items():
        stage, _, key = name.partition(".")
        net.stages[stage].load_state_dict({key: value}, strict=False)
    assert evaluate(net, config, data.val).loss == row["val_loss"]


def test_a_run_that_learns_nothing_any_more_is_measured(cfg, tmp_path):
    config = cfg("layers=0", "freeze=all", "freeze_random=true", f"results_dir={tmp_path}", "n_per_class=1")
    assert execute(config)["peak_memory_mb"] > 0
    assert len(selected(config, "train", CPU)) < config.batch_size
    assert memory.MB == 2**20
