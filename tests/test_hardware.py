"""What a computer can do, and which of its GPUs are ours."""

import sys
from pathlib import Path

import pytest
import torch

from tlprotocols import hardware
from tlprotocols.errors import ConfigError
from tlprotocols.launching.slurm import job


@pytest.fixture
def gpus(monkeypatch):
    """As many GPUs as torch would see."""
    return lambda count: monkeypatch.setattr(hardware, "gpus", lambda: count)


@pytest.mark.parametrize(
    ("visible", "seen", "ours"),
    [
        (None, 2, ["0", "1"]),
        ("2,3", 2, ["2", "3"]),
        ("2, 3", 2, ["2", "3"]),
        ("GPU-8f1b,MIG-77aa", 2, ["GPU-8f1b", "MIG-77aa"]),
        ("1,-1,0", 1, ["1"]),  # CUDA reads the list up to the first entry that names nothing
    ],
)
def test_workers_share_out_the_gpus_that_we_were_given(gpus, monkeypatch, visible, seen, ours):
    gpus(seen)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert hardware.slots("cuda") == job._slots(1) == ours
    assert sorted(hardware.slots("cuda", per_gpu=2)) == sorted(job._slots(2)) == sorted(2 * ours)
    assert hardware.slots("cuda", gpus=1) == ours[:1]


def test_no_visible_gpu_is_none(composed, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(hardware, "gpus", hardware.gpus.__wrapped__)  # without what it remembers
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    assert hardware.slots(hardware.device(composed("machine.device=auto").machine), 2) == [None, None]
    assert job._slots(2) == [None, None, None]
    with pytest.raises(ConfigError, match=r"machine\.device=cuda: needs a GPU, and none is here"):
        hardware.slots("cuda")


@pytest.mark.parametrize(
    ("file", "count"),
    [
        pytest.param("/proc/driver/nvidia", 2, id="Linux"),
        pytest.param("/dev/nvidiactl", 2, id="a container"),
        pytest.param("/dev/dxg", 2, id="WSL2"),
        pytest.param("/proc/driver", 0, id="no driver"),
    ],
)
def test_torch_is_asked_for_gpus_wherever_a_driver_may_be_and_nowhere_else(monkeypatch, file, count):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == file)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if not count:
        monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
    assert hardware.gpus.__wrapped__() == count
