"""What a GPU does: `python -m benches.gpu results.json`. Needs one, and 60 GB of its memory."""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from ..compare import describe_commit, write
from .cases import cases
from .clocks import measure, report, summarise
from .peers import has_pycocotools


def describe_gpu() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benches.gpu")
    parser.add_argument("output", type=Path, help="the JSON file to write")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "little"))
    parser.add_argument("--select", default="", help="only cases whose name contains this")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no case after these")
    arguments = parser.parse_args()

    torch.set_float32_matmul_precision("high")
    left_out = {} if has_pycocotools() else {"pycocotools": "it is not installed"}
    done: dict[str, Any] = {}
    results = {
        "seed": arguments.seed,
        "commit": describe_commit(),
        "machine": describe_gpu(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("torch", "numpy")},
        },
        "left_out": left_out,
        "cases": done,
    }
    failed = False
    start = time.monotonic()
    for name, make in cases(arguments.seed).items():
        if arguments.select not in name:
            continue
        if time.monotonic() - start > arguments.seconds:
            left_out[name] = "no time was left"
            continue
        try:
            case = make()
            done[name] = summarise(case, measure(case))
            report(done[name])
        except (AssertionError, RuntimeError) as error:  # the others can still be measured
            failed = True
            left_out[name] = f"{type(error).__name__}: {error}"
            print(f"{name}: {left_out[name]}", flush=True)
        case = None
        gc.collect()
        torch.cuda.empty_cache()
        write(results, arguments.output)
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
