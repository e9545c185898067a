"""Kernels are serial; here threads call them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def in_threads(num_threads: int, *phases: Callable[[int], None]) -> None:
    """Call phase(thread) for every thread, one phase after the other.

    Threads live only as long as the call.
    """
    if num_threads == 1:
        for phase in phases:
            phase(0)
        return
    with ThreadPoolExecutor(num_threads) as pool:
        for phase in phases:
            list(pool.map(phase, range(num_threads)))


def useful_threads(wanted: int, items: int, num_bytes: int) -> int:
    return max(1, min(wanted, items, 1 + (num_bytes >> 23)))
