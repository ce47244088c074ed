"""Every random draw is a function of what it is for: nothing has a state that a stop could lose."""

import hashlib

import numpy as np


def stream(*purpose: int | str) -> int:
    """A seed of 63 bits for one purpose, such as `stream("order", seed, epoch)`."""
    digest = hashlib.sha256("/".join(map(str, purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def uniform(key: int, counters: np.ndarray) -> np.ndarray:
    """One number in [0, 1) per counter, by the SplitMix64 finaliser: float64, the shape of `counters`.

    Counter-based: the draw for a counter does not depend on which other counters are drawn, nor in which order.
    """
    with np.errstate(over="ignore"):
        z = counters.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key & (2**64 - 1))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
