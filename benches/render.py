"""Draw the tables of the READMEs from the files in `results/`: `python -m benches.render`.

The README of the project gets one case of each kind, the one beside this file gets all cases and
all targets; those of loading and of GPUs follow. A ratio below one is printed like any other, and
marked.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .compare import RESULTS, describe_target

BEGIN, END = "<!-- benches:begin -->", "<!-- benches:end -->"
HERE = Path(__file__).parent

# What the README of the project shows.
IN_README = (
    "sa1b-100-decode",
    "sa1b-100-decode-then-read",
    "sa1b-100-decode-into",
    "sa1b-100-decode-float32",
    "sa1b-100-decode-resized",
    "sa1b-100-pack",
    "sa1b-100-area",
    "sa1b-100-bbox",
    "sa1b-100-iou",
    "sa1b-100-iou-of-dicts",
    "small-1000-iou",
    "sa1b-100-encode-rows",
    "sa1b-100-encode-columns",
    "sa1b-100-algebra-union",
    "sa1b-100-algebra-merge-by-label",
    "sa1b-100-split-labels-int32",
    "small-1000-nms",
    "sa1b-100-spatial-features",
    "noise-decode",
    "one-64-decode",
    "one-64-mask-decode",
)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)]


def _milliseconds(spread: dict[str, Any] | None) -> str:
    if spread is None:
        return ""
    median = spread["median_ms"]
    return f"{median:.0f}" if median >= 100 else f"{median:.3g}"


def _ratio(ratio: float | None) -> str:
    if ratio is None:
        return ""
    text = f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.2f}x"
    return text if ratio >= 1 else f"**{text}, slower**"


def _fastest(case: dict[str, Any], kind: str) -> str | None:
    contenders = case["contenders"]
    rivals = [name for name, spread in contenders.items() if spread["kind"] == kind]
    return min(rivals, key=lambda name: contenders[name]["median_ms"], default=None)


def summary_rows(cases: Iterable[dict[str, Any]]) -> list[str]:
    """A row for each case: ours, pycocotools, the best other library, and the ratios."""
    header = ["ms", "1 thread", "2 threads", "Numba", "pycocotools", "best other library"]
    header += ["v pycocotools", "v best other", "2 threads v best other"]
    rows = []
    for case in cases:
        contenders, speedups = case["contenders"], case["speedups"]
        ours = "mask" if "mask" in contenders else "cpp"  # the face goes by its module's name
        best = _fastest(case, "peer")
        rows.append(
            [
                case["title"],
                *(
                    _milliseconds(contenders.get(name))
                    for name in (ours, "cpp, 2 threads", "numba", "pycocotools")
                ),
                f"{_milliseconds(contenders[best])} ({best})" if best else "",
                _ratio(speedups.get(ours, {}).get("pycocotools")),
                _ratio(speedups.get(ours, {}).get(best)),
                _ratio(speedups.get("cpp, 2 threads", {}).get(best)),
            ]
        )
    return _table(header, rows)


def target_rows(cases: Iterable[dict[str, Any]]) -> list[str]:
    rows = [
        [f"{case['title']}: {describe_target(verdict)}", "met" if verdict["met"] else "**missed**"]
        for case in cases
        for verdict in case["targets"]
    ]
    return _table(["target", "result"], rows)


def all_rows(cases: Sequence[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for case in cases for name in case["contenders"]))
    rows = [
        [case["title"], *(_milliseconds(case["contenders"].get(name)) for name in names)]
        for case in cases
    ]
    return _table(["ms", *names], rows)


def _microseconds(spread: dict[str, Any] | None) -> str:
    if spread is None:
        return ""
    median = spread["median_ms"] * 1e3
    return f"{median:.0f}" if median >= 100 else f"{median:.3g}"


def _of_floor(case: dict[str, Any]) -> str:
    """The floor's time over the kernels', and what is written in that time."""
    floor, kernels = (case["contenders"].get(name) for name in ("memset", "kernels"))
    if floor is None or kernels is None:
        return ""
    return f"{floor['median_ms'] / kernels['median_ms']:.0%}, {kernels['gb_per_s']:.0f} GB/s"


def _best_peer(case: dict[str, Any]) -> str:
    best = _fastest(case, "peer")
    return f"{_microseconds(case['contenders'][best])} ({best})" if best else ""


# The columns of the GPU's table: where the masks are before the call.
FROM = ("from dicts", "from a pinned batch", "from a batch on the GPU", "kernels", "memset")


def gpu_summary(results: dict[str, Any]) -> list[str]:
    """A row for each case on a GPU, in microseconds."""
    rows = [
        [
            case["title"],
            *(_microseconds(case["contenders"].get(name)) for name in FROM),
            _of_floor(case),
            _best_peer(case),
        ]
        for case in results["cases"].values()
        if "from a batch on the GPU" in case["contenders"]
    ]
    # Encoding begins with dense masks.
    rows += [
        [
            case["title"],
            *("", ""),
            _microseconds(case["contenders"]["from masks on the GPU"]),
            *("", "", ""),
            _best_peer(case),
        ]
        for case in results["cases"].values()
        if "from masks on the GPU" in case["contenders"]
    ]
    header = ["us", *FROM, "of memset's speed", "best other way on a GPU"]
    return ["", *_table(header, rows), "", gpu_provenance(results)]


def gpu_lines(results: dict[str, Any]) -> list[str]:
    """All that was found on a GPU: what ran, the targets, the times."""
    cases = list(results["cases"].values())
    parts = [
        [name, str(part.get("tests", part.get("calls", ""))), "ok" if part["passed"] else "**no**"]
        for name, part in results["parts"].items()
    ]
    return [
        *gpu_summary(results),
        "",
        *_table(["on the GPU", "tests or calls", "passed"], parts),
        "",
        *target_rows([case for case in cases if case["targets"]]),
    ]


def gpu_provenance(results: dict[str, Any]) -> str:
    machine = results["machine"]
    listed = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    left_out = "".join(f" Left out: {n}: {why}." for n, why in results["left_out"].items())
    return (
        f"{machine['gpu']}, driver {machine['driver']}, CUDA {machine['cuda']}, "
        f"{machine['cores']} cores; {results['date']}, commit {results['commit']}; {listed}; "
        f"seed {results['seed']}. Medians in microseconds until the GPU has done all; `kernels` "
        f"and `memset` by the GPU's own clock.{left_out}"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def loading_summary(results: dict[str, Any]) -> list[str]:
    """The targets of loading, met or missed, and the loaders side by side."""
    targets = [
        [
            target["what"],
            f"{_number(target['measured'])}{target['unit']}",
            target["asked"],
            "met" if target["met"] else "**missed**",
        ]
        for target in results["targets"]
    ]
    loaders = [
        [
            name,
            _number(loader["samples_per_second"]),
            _number(loader["processor_ms"]),
            _ratio(loader["packed_against_it"]),
        ]
        for name, loader in results["loaders"].items()
    ]
    header = ["2 workers", "samples/s", "processor's ms a sample", "masks packed v it"]
    return [
        *_table(["loading", "measured", "asked", "result"], targets),
        "",
        *_table(header, loaders),
        "",
        _provenance(results),
    ]


def loading_lines(results: dict[str, Any]) -> list[str]:
    """All that was found about loading: also where the time goes, and the memory."""
    parts = {"one sample, in a worker": "steps_ms", "random access": "access", "soak": "soak"}
    lines = loading_summary(results)
    for title, key in parts.items():
        rows = [[name, _listed(value)] for name, value in results[key].items()]
        lines += ["", *_table([title, "ms" if key == "steps_ms" else ""], rows)]
    return lines


def _listed(value: float | list[float]) -> str:
    return ", ".join(_number(each) for each in (value if isinstance(value, list) else [value]))


def _provenance(results: dict[str, Any]) -> str:
    machine, versions = results["machine"], results["versions"]
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}; "
        f"{results['date']}, commit {results['commit']}; {listed}. "
        "A ratio is the median over rounds of neighbours in time."
    )


def provenance(results: dict[str, Any]) -> str:
    return f"{_provenance(results)} Medians in milliseconds."


def replace_between_markers(path: Path, lines: Sequence[str]) -> None:
    text = path.read_text()
    head, found, rest = text.partition(BEGIN)
    _, closed, tail = rest.partition(END)
    if not (found and closed):
        raise SystemExit(f"{path} has no {BEGIN} ... {END}")
    path.write_text("\n".join([head + BEGIN, "", *lines, "", END + tail]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benches.render")
    parser.add_argument("results", type=Path, nargs="?", help="default: the newest in results/")
    chosen: Path | None = parser.parse_args().results
    others = ("gpu-", "loading-")
    on_cpu = [path for path in RESULTS.glob("*.json") if not path.name.startswith(others)]
    newest = chosen or max(on_cpu, key=lambda path: path.stat().st_mtime)
    results = json.loads(newest.read_text())
    cases = list(results["cases"].values())
    told = provenance(results)
    with_targets = [case for case in cases if case["targets"]]
    tables = [*target_rows(with_targets), "", *summary_rows(cases), "", *all_rows(cases)]
    gpus = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("gpu-*.json"))]
    on_gpus = [line for gpu in gpus for line in gpu_lines(gpu)]
    summaries = [line for gpu in gpus for line in gpu_summary(gpu)]
    loadings = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("loading-*.json"))]
    of_loading = [line for loading in loadings for line in ["", *loading_lines(loading)]]
    loading_summaries = [line for loading in loadings for line in ["", *loading_summary(loading)]]
    replace_between_markers(HERE / "README.md", [told, "", *tables, *on_gpus, *of_loading])
    shown = [results["cases"][name] for name in IN_README if name in results["cases"]]
    verdicts = [verdict for case in with_targets for verdict in case["targets"]]
    met = f"{sum(verdict['met'] for verdict in verdicts)} of {len(verdicts)} targets are met."
    replace_between_markers(
        HERE.parent / "README.md",
        [*summary_rows(shown), "", f"{met} {told}", *summaries, *loading_summaries],
    )


if __name__ == "__main__":
    main()
