"""What this computer can do: decided once, before a run gets its id, so that no row says `auto`."""

import ctypes
import math
import os
import platform
from functools import cache
from pathlib import Path

from tlprotocols.config.schema import Machine
from tlprotocols.errors import ConfigError

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of malloc.h
DRIVER = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg")  # one is there if a driver is: in a container, in WSL2
SHARED_BY = "TLPROTOCOLS_GPU_SHARED_BY"  # in a worker's environment: how many workers are pinned to its GPU


@cache
def processor_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX); without it bf16 is slower than fp32."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0].split()
    except (OSError, IndexError):  # not Linux, or not x86
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


@cache
def gpus() -> int:
    """CUDA devices that torch can use."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or not any(Path(file).exists() for file in DRIVER):
        return 0  # saves importing torch where no driver is
    import torch

    return torch.cuda.device_count()


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> float:
    """What the processes of this machine, or of this container, may use at most; infinite where nobody says."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        limit = "max"
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf
    return min(int(limit) if limit.isdigit() else math.inf, there)


def slots(device: str, workers: int | None = None, gpus: int | None = None, per_gpu: int = 1) -> list[str | None]:
    """One entry per worker process: the GPU it is pinned to, or None. `workers` and `gpus` are limits.

    Raises:
        ConfigError: GPUs are needed and none is here.
    """
    if device == "cpu":
        return [None] * (workers or cores())
    names = visible_gpus()[:gpus] * per_gpu
    if not names:
        raise ConfigError("machine.device", "cuda", "needs a GPU, and none is here; say machine.device=cpu or auto")
    return [names[worker % len(names)] for worker in range(workers or len(names))]


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES of a worker may be, one for each GPU: we may have been given 2 and 3 alone."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(gpus())) if visible is None else map(str.strip, visible.split(","))
    return list(names)[: gpus()]  # CUDA stops at an entry that names no GPU


def device(machine: Machine) -> str:
    """`cuda` or `cpu`."""
    return machine.device if machine.device != "auto" else "cuda" if gpus() else "cpu"


@cache
def device_name(device: str) -> str:
    """The name of what this process computes on, as in the column `device`: the GPU's or the processor's."""
    if device == "cuda":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name()
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def precision(requested: str, machine: Machine) -> str:
    """The arithmetic that `auto` stands for here; anything else as it is."""
    if requested != "auto":
        return requested
    return "bf16" if device(machine) == "cuda" or processor_has_bf16() else "fp32"


def one_thread() -> None:
    """Make this process compute with one thread, and denormals as zero; call it before any other torch work.

    One thread per process and one process per core beat one process with all cores, and make results independent of
    the number of cores (OpenMP splits sums by threads).
    """
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs, decides nothing
    _keep_memory()


def _keep_memory() -> None:
    """Let glibc keep what is freed for the next step: else the system maps and clears the same pages at every step,
    which takes more than half of the time of an AlexNet with its 61 M weights."""
    _mallopt(M_MMAP_MAX, 0)
    _mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def one_arena() -> None:
    """Let threads that begin from now on take their memory where the first one does.

    In arenas of their own small pieces are had faster, but large ones go back to the system as soon as they are freed.
    """
    _mallopt(M_ARENA_MAX, 1)


def _mallopt(what: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(what, value)
