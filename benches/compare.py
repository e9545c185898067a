"""Measure all contenders of each case in turn, round by round: `python -m benches.compare`.

On a machine that others use too, two benchmarks that ran one after the other cannot be compared.
Here every round times each contender once on the same sample, so a ratio is the median of ratios
of neighbours in time. What a contender returns is released outside the timed region.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sa1b_fastdecode as fd

from . import spatial  # noqa: F401 - its cases join the others
from .common import (
    BEST_PEER,
    BEST_TOUCH,
    CASES,
    THEIR_PAGES,
    Case,
    Runner,
    Target,
    one_torch_thread,
)
from .inputs import INPUTS
from .peers import CONTENDERS

RESULTS = Path(__file__).parent / "results"

Times = dict[str, dict[int, float]]  # contender -> round -> milliseconds a call


def measure(case: Case) -> Times:
    """Check every contender that is there, then time them in turn."""
    runner = Runner(case)
    rounds: dict[str, set[int]] = {}
    for name in case.contenders:
        contender = CONTENDERS[name]
        if contender.missing():
            continue
        with contender.active():
            number = runner.rounds_for(runner.check(contender))
        rounds[name] = {step * case.rounds // number for step in range(number)}
    times: Times = {name: {} for name in rounds}
    names = list(rounds)
    for current in range(case.rounds):
        sample = runner.samples[current % len(runner.samples)]
        turn = current % len(names)  # nobody always follows the same neighbour
        for name in names[turn:] + names[:turn]:
            if current in rounds[name]:
                contender = CONTENDERS[name]
                with contender.active():
                    call = runner.bind(contender, sample)
                    if case.calls > 1:
                        call()  # a call of microseconds would feel the caches that others emptied
                    times[name][current] = _milliseconds(call, case.calls)
    return times


def _milliseconds(call: Callable[[], Any], calls: int) -> float:
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(calls - 1):
            call()
        result = call()
        elapsed = time.perf_counter() - start
    finally:
        gc.enable()
    del result
    return elapsed / calls * 1e3


def speedup(times: Times, who: str, against: str) -> float:
    """How many times faster `who` is: the median over the rounds that both took part in."""
    common = times[who].keys() & times[against].keys()
    return statistics.median(times[against][r] / times[who][r] for r in common)


def opponent(times: Times, against: str) -> str | None:
    """The contender that a target's `against` stands for, where it took part."""
    if against == BEST_PEER:
        rivals = [name for name in times if CONTENDERS[name].kind in ("peer", "pycocotools")]
    elif against == BEST_TOUCH:
        rivals = [name for name in THEIR_PAGES if name in times]
    else:
        rivals = [against] if against in times else []
    return min(rivals, key=lambda name: statistics.median(times[name].values()), default=None)


def judge(target: Target, times: Times) -> dict[str, Any] | None:
    """What was asked and what was measured; None where one of the two did not take part."""
    if target.who not in times:
        return None
    if target.against is None:
        measured = statistics.median(times[target.who].values())
        return {
            "who": target.who,
            "limit_ms": target.limit_ms,
            "measured_ms": measured,
            "met": measured <= (target.limit_ms or 0),
        }
    rival = opponent(times, target.against)
    if rival is None or target.factor is None:
        return None
    measured = speedup(times, target.who, rival)
    return {
        "who": target.who,
        "against": rival,
        "speedup_asked": target.factor,
        "speedup": measured,
        "met": measured >= target.factor,
    }


def summarise(case: Case, times: Times) -> dict[str, Any]:
    ours = [name for name in times if CONTENDERS[name].kind == "ours"]
    return {
        "title": case.full_title,
        "operation": case.operation,
        "contenders": {
            name: {"kind": CONTENDERS[name].kind, **_spread(list(values.values()))}
            for name, values in times.items()
        },
        "speedups": {
            who: {other: speedup(times, who, other) for other in times if other not in ours}
            for who in ours
        },
        "targets": [verdict for target in case.targets if (verdict := judge(target, times))],
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {
        "median_ms": median,
        "quartile_1_ms": low,
        "quartile_3_ms": high,
        "min_ms": min(values),
        "max_ms": max(values),
        "rounds": len(values),
    }


def describe_machine() -> dict[str, Any]:
    huge_pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "transparent_hugepage": huge_pages.read_text().strip() if huge_pages.exists() else None,
    }


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1] if model else platform.processor() or "unknown"


def machine_name() -> str:
    """Return what files of results are called after."""
    return re.sub(r"\W+", "-", f"{_cpu_model()} {os.cpu_count()} cores".lower())


def describe_versions() -> dict[str, str]:
    names = {who.package for who in CONTENDERS.values() if who.package and not who.missing()}
    names |= {"numpy", "torch", "numba"}
    versions = {"python": platform.python_version(), "sa1b-fastdecode": fd.__version__}
    return versions | {name: importlib.metadata.version(name) for name in sorted(names)}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(RESULTS.parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # there is no git
        return ""


def describe_commit() -> str:
    if "COMMIT" in os.environ:  # of sources that were copied without their history
        return os.environ["COMMIT"]
    commit = _git("rev-parse", "--verify", "HEAD") or "none"
    # But for results, which another benchmark may have written just now.
    changes = _git("status", "--porcelain", "--", ":/", f":(exclude){RESULTS}")
    return f"{commit} with changes" if changes else commit


def report(summary: dict[str, Any]) -> None:
    print(f"\n{summary['title']}")
    ours = list(summary["speedups"])
    header = f"  {'':28}{'median ms':>10}{'min ms':>10}"
    print(header + "".join(f"{'v ' + who:>20}" for who in ours))
    for name, spread in summary["contenders"].items():
        ratios = [summary["speedups"][who].get(name) for who in ours]
        cells = "".join(f"{f'{ratio:.2f}x':>20}" if ratio else " " * 20 for ratio in ratios)
        print(f"  {name:28}{spread['median_ms']:10.4g}{spread['min_ms']:10.4g}{cells}")
    for verdict in summary["targets"]:
        print(f"  {'met ' if verdict['met'] else 'MISS'} {describe_target(verdict)}")


def describe_target(verdict: dict[str, Any]) -> str:
    """One line: who against whom, what was measured and what was asked."""
    if "limit_ms" in verdict:
        measured, limit = (f"{verdict[key]:.3g} ms" for key in ("measured_ms", "limit_ms"))
        return f"{verdict['who']}: {measured}, at most {limit}"
    pair, asked, measured = (
        f"{verdict['who']} against {verdict['against']}",
        verdict["speedup_asked"],
        verdict["speedup"],
    )
    if asked < 1:
        return f"{pair}: {1 / measured:.2f}x its time, at most {1 / asked:.2g}x"
    return f"{pair}: {measured:.2f}x faster, at least {asked:.2g}x"


def write(results: dict[str, Any], path: Path) -> None:
    """Replace the file in one step; after each case, so that a stopped run keeps what it has."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1) + "\n")
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benches.compare")
    parser.add_argument("--name", help="of the file in benches/results; default: the machine's")
    parser.add_argument("--select", default="", help="regular expression on the names of cases")
    arguments = parser.parse_args()

    path = RESULTS / f"{arguments.name or machine_name()}.json"
    missing = {name: reason for name, who in CONTENDERS.items() if (reason := who.missing())}
    for name, reason in missing.items():
        print(f"left out: {name}: {reason}")
    machine = describe_machine()
    if machine["load_before"] > 0.5:
        print(f"the machine is busy (load {machine['load_before']:.1f}): do not publish this run")
    cases: dict[str, Any] = {}
    results = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "commit": describe_commit(),
        "machine": machine,
        "versions": describe_versions(),
        "left_out": missing,
        "cases": cases,
    }
    with one_torch_thread():
        for case in CASES.values():
            if not re.search(arguments.select, case.name):
                continue
            if reason := INPUTS[case.inputs].missing:
                print(f"left out: {case.name}: {reason}")
                continue
            cases[case.name] = summarise(case, measure(case))
            report(cases[case.name])
            write(results, path)
    if cases:
        print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
