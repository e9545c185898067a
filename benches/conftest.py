"""Collects `bench_*.py`, and says at the end who was left out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from . import spatial  # noqa: F401 - its cases join the others
from .common import CASES, Case, Measure, Runner, one_torch_thread
from .inputs import INPUTS, load_samples
from .peers import CONTENDERS, Contender


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("python_files", "bench_*.py")
    config.addinivalue_line("filterwarnings", "default")  # a peer's warning is no failure of ours


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    absent = [f"{name}: {why}" for name, who in CONTENDERS.items() if (why := who.missing())]
    absent += [f"{name}: {why}" for name, inputs in INPUTS.items() if (why := inputs.missing)]
    for line in absent:
        terminalreporter.write_line(f"left out of the benchmarks: {line}", yellow=True)


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    with one_torch_thread():
        yield


@pytest.fixture
def measure(benchmark: BenchmarkFixture) -> Measure:
    """Check a contender, then time it, rotating over the case's samples."""

    def run(case: Case, contender: Contender) -> None:
        if reason := INPUTS[case.inputs].missing or contender.missing():
            pytest.skip(reason)
        benchmark.group = case.full_title
        benchmark.name = contender.name
        runner = Runner(case)
        with contender.active():
            rounds = runner.rounds_for(runner.check(contender))
            calls = itertools.cycle([runner.bind(contender, s) for s in runner.samples])
            benchmark.pedantic(lambda: next(calls)(), rounds=rounds, iterations=case.calls)

    return run


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test the cases of its module's OPERATIONS, each with all of its contenders."""
    pairs = [
        pytest.param(case, CONTENDERS[name], id=f"{case.name}-{name}")
        for case in CASES.values()
        if case.operation in metafunc.module.OPERATIONS
        for name in case.contenders
    ]
    metafunc.parametrize(("case", "contender"), pairs)


@pytest.fixture(autouse=True, scope="session")
def _forget_samples() -> Iterator[None]:
    yield
    load_samples.cache_clear()
