"""Checks the contenders of a case, then times them in turn, round by round.

Two clocks:

* whole call: the host's clock from before the call until the GPU has done all of it;
* kernels: the GPU's clock around the call, which was queued while the GPU was kept busy, so that
  no time of the host is in it.

The floor of decoding is ``cudaMemsetAsync`` of the same bytes, called by its name in the driver.
"""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from ..common import Target
from ..compare import _spread, describe_target

DEVICE = "cuda"
ROUNDS = 25
SLOW = 0.05  # seconds a call, from which few rounds are enough
SLOW_ROUNDS = 3
BUSY = 2_000_000  # clock cycles, a millisecond: longer than the host takes to queue any call

Call = Callable[[], Any]


@dataclass
class Contender:
    """A way to do what a case is about: one call for each input."""

    calls: list[Call]
    kind: str = "ours"  # or "peer", "floor"
    clock: str = "whole call"  # or "kernels"
    checked: bool = True  # whether its results are compared


@dataclass
class Case:
    """What is done to which inputs, and what must come out of it."""

    title: str
    contenders: dict[str, Contender]
    check: Callable[[int, Any], None]  # of the result for input i
    targets: Sequence[Target] = ()
    num_bytes: int = 0  # of the result


def synchronize() -> None:
    torch.cuda.synchronize()


def whole_call(call: Call) -> float:
    """Return the seconds until the GPU has done what a call asks for."""
    synchronize()
    start = time.perf_counter()
    result = call()
    synchronize()
    elapsed = time.perf_counter() - start
    del result
    return elapsed


def kernels(call: Call) -> float:
    """Return the seconds that the GPU works for a call."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    synchronize()
    torch.cuda._sleep(BUSY)
    begin.record()
    result = call()
    end.record()
    synchronize()
    del result
    return begin.elapsed_time(end) / 1e3


@cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def memset(tensor: torch.Tensor) -> None:
    """Fill a tensor with zeros. ``Tensor.zero_`` may use a kernel of torch's own."""
    status = _driver().cuMemsetD8Async(
        ctypes.c_uint64(tensor.data_ptr()),
        ctypes.c_ubyte(0),
        ctypes.c_size_t(tensor.numel() * tensor.element_size()),
        ctypes.c_void_p(torch.cuda.current_stream().cuda_stream),
    )
    if status != 0:
        raise RuntimeError(f"cuMemsetD8Async gives {status}")


CLOCKS = {"whole call": whole_call, "kernels": kernels}


def check(case: Case, contender: Contender) -> str | None:
    """Say what is wrong with the results of a contender."""
    for index, call in enumerate(contender.calls):
        result = call()
        synchronize()
        if not contender.checked:
            continue
        try:
            case.check(index, result)
        except AssertionError as error:
            return f"input {index}: {error}"
    return None


def measure(case: Case) -> dict[str, list[float]]:
    """Check every contender, then time them in turn; milliseconds of each round."""
    rounds = {}
    for name, contender in case.contenders.items():
        wrong = check(case, contender)
        if wrong and contender.kind == "ours":
            raise AssertionError(f"{name} is wrong: {wrong}")
        if wrong:
            print(f"left out: {name} of {case.title}: {wrong}")
            continue
        slow = CLOCKS[contender.clock](contender.calls[0]) > SLOW
        rounds[name] = SLOW_ROUNDS if slow else ROUNDS
    times: dict[str, list[float]] = {name: [] for name in rounds}
    names = list(rounds)
    gc.collect()
    gc.disable()
    try:
        for current in range(ROUNDS):
            turn = current % len(names)  # nobody always follows the same neighbour
            for name in names[turn:] + names[:turn]:
                if current < rounds[name]:
                    contender = case.contenders[name]
                    call = contender.calls[current % len(contender.calls)]
                    times[name].append(CLOCKS[contender.clock](call) * 1e3)
    finally:
        gc.enable()
    return times


def judge(target: Target, times: dict[str, list[float]]) -> dict[str, Any]:
    """What was asked and what was measured."""
    median = statistics.median(times[target.who])
    if target.against is None:
        limit = target.limit_ms or 0
        return {
            "who": target.who,
            "limit_ms": limit,
            "measured_ms": median,
            "met": median <= limit,
        }
    speedup = statistics.median(times[target.against]) / median
    return {
        "who": target.who,
        "against": target.against,
        "speedup_asked": target.factor,
        "speedup": speedup,
        "met": speedup >= (target.factor or 0),
    }


def summarise(case: Case, times: dict[str, list[float]]) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "title": case.title,
        "bytes": case.num_bytes,
        "contenders": {
            name: {"kind": case.contenders[name].kind, "clock": case.contenders[name].clock}
            | _spread(values)
            for name, values in times.items()
        },
        "targets": [judge(target, times) for target in case.targets],
    }
    for spread in summary["contenders"].values():
        if case.num_bytes:
            spread["gb_per_s"] = case.num_bytes / spread["median_ms"] / 1e6
    return summary


def report(summary: dict[str, Any]) -> None:
    print(f"\n{summary['title']}", flush=True)
    for name, spread in summary["contenders"].items():
        rate = f"{spread['gb_per_s']:9.0f} GB/s" if "gb_per_s" in spread else ""
        print(f"  {name:44}{spread['median_ms']:10.4f} ms{rate}")
    for verdict in summary["targets"]:
        print(f"  {'met ' if verdict['met'] else 'MISS'} {describe_target(verdict)}", flush=True)
