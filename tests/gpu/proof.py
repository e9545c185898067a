"""Proves on a GPU what only a GPU can prove: `scripts/gpu-proof [folder]`.

Builds the kernels for the GPU that is there, runs the tests that take ``device`` and those of
`test_gpu.py`, lets compute-sanitizer watch `sanitize.py`, and measures. Needs torch, nvcc, pytest
with its plugins, hypothesis and pycocotools; installs nothing. A part that fails does not stop the
others. One JSON file says all of it, a log has the output; the exit status is 0 if nothing failed.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "gpu-proof"

# Seconds, at most.
ALL, BUILD, CONFORMANCE, GPU_TESTS, SANITIZER, BENCHES, STAND_IN = 470, 120, 170, 120, 60, 130, 90

# What is asked of the kernels that stand in for the compiled ones.
STAND_IN_TESTS = ["tests/test_decode.py", "tests/test_regions.py", "tests/test_pairwise.py"]
STAND_IN_TESTS += ["--backend", "numba-cuda", "-k", "rle_batch or test_regions or test_pairwise"]

# What is needed, and for what: the module, and the part that does without it.
NEEDED = {
    "torch": "everything",
    "pybind11": "the build",
    "pytest": "the tests",
    "pytest_timeout": "the tests",
    "hypothesis": "the tests",
    "pycocotools": "the conformance suite and the benchmarks, as an oracle",
}

SUMMARIES = {
    "memcheck": r"ERROR SUMMARY: 0 errors",
    "initcheck": r"ERROR SUMMARY: 0 errors",
    "racecheck": r"RACECHECK SUMMARY: 0 hazards displayed",
}


# Among them are two tests of what is said where there is no GPU.
ONLY_ON_A_GPU = ["tests/test_gpu.py", "tests/test_prefetch.py", "tests/test_gpu_access.py"]
ONLY_ON_A_GPU += ["-k", "not without_a_gpu and not told_what_is_missing"]


class Proof:
    """Runs the parts and keeps what came of each."""

    def __init__(self, folder: Path) -> None:
        WORK.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log = (folder / "gpu-proof.log").open("w")
        self.parts: dict[str, dict[str, Any]] = {}
        self.environment = os.environ | {
            "FAIL_WITHOUT_CUDA": "1",
            "SA1B_FASTDECODE_REQUIRE_COMPILED": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self.environment["PATH"] += f"{os.pathsep}/usr/local/cuda/bin"
        self.environment.pop("SA1B_FASTDECODE_BACKEND", None)
        self.deadline = time.monotonic() + ALL

    def run(self, command: list[str], seconds: float, **environment: str) -> tuple[bool, str]:
        """Run a command; return whether it succeeded, and its output."""
        self.log.write(f"\n$ {' '.join(command)}\n")
        self.log.flush()
        output = WORK / "output"
        status: int | str
        seconds = max(1.0, min(seconds, self.deadline - time.monotonic()))
        with output.open("w") as to:
            try:
                process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=self.environment | environment,
                    stdout=to,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,  # so that what it has started ends with it
                )
                status = process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                status = f"stopped after {seconds:.0f} s"
            except OSError as error:
                status = str(error)
        text = output.read_text(errors="replace")
        if status != 0:
            text += f"\nstatus: {status}\n"
        self.log.write(text)
        self.log.flush()
        return status == 0, text

    def part(self, name: str, passed: bool, started: float, **found: Any) -> None:
        seconds = round(time.monotonic() - started, 1)
        self.parts[name] = {"passed": passed, "seconds": seconds} | found
        print(
            f"{'ok  ' if passed else 'FAIL'} {name:24}{seconds:7.1f} s  {brief(found)}", flush=True
        )

    # --- The parts

    def look(self) -> None:
        """See what is there and what is missing."""
        started = time.monotonic()
        missing = {
            name: what for name, what in NEEDED.items() if importlib.util.find_spec(name) is None
        }
        code = (
            "import json, torch; p = torch.cuda.get_device_properties(0); "
            "print(json.dumps({'gpu': p.name, 'capability': f'{p.major}.{p.minor}', "
            "'memory': p.total_memory, 'multiprocessors': p.multi_processor_count, "
            "'cuda': torch.version.cuda}))"
        )
        found, text = self.run([sys.executable, "-c", code], 60)
        self.gpu: dict[str, Any] = json.loads(text.splitlines()[-1]) if found else {}
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        has_driver, driver = self.run(query, 30)
        self.gpu["driver"] = driver.split("\n")[0].strip() if has_driver else "unknown"
        compiler, text = self.run(["nvcc", "--version"], 30)
        self.gpu["nvcc"] = (re.findall(r"V(\d[\d.]*)", text) or ["unknown"])[0]
        self.part("packages and GPU", found and compiler and not missing, started, missing=missing)
        for name, what in missing.items():
            print(f"     {name} is missing, which is needed for {what}; put it on PYTHONPATH")

    def build(self) -> None:
        started = time.monotonic()
        command = [sys.executable, "setup.py", "build_ext", "--inplace"]
        architecture = self.gpu.get("capability", "")
        passed, _ = self.run(command, BUILD, TORCH_CUDA_ARCH_LIST=architecture)
        code = (
            "import sa1b_fastdecode as fd; "
            "b = [b for b in fd.backends() if b.name == 'cuda'][0]; print(b.detail); "
            "raise SystemExit(not b.available)"
        )
        usable, text = self.run([sys.executable, "-c", code], 60)
        self.part("build", passed and usable, started, detail=text.strip().splitlines()[-1:])

    def tests(self, name: str, seconds: float, arguments: list[str], *, spread: bool) -> None:
        """Run pytest; what counts is in its report, not in its exit status alone."""
        started = time.monotonic()
        report = WORK / f"{name}.xml"
        report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
        command += ["-p", "no:benchmark"]  # with xdist it warns
        # One failure fails the part; after many more there is nothing to learn, only time to lose.
        command += [f"--junitxml={report}", "--maxfail=40", *arguments]
        if spread and importlib.util.find_spec("xdist"):
            command += ["-n", str(min(os.cpu_count() or 1, 8)), "--dist", "worksteal"]
        passed, _ = self.run(command, seconds)
        counts = read_report(report)
        passed = passed and counts["tests"] > 0 and not counts["failed"] and not counts["skipped"]
        self.part(name, passed, started, **counts)

    def sanitizer(self, tool: str) -> None:
        started = time.monotonic()
        command = ["compute-sanitizer", "--tool", tool, "--require-cuda-init=no"]
        command += ["--error-exitcode", "9"]
        if tool == "memcheck":  # torch asks the driver for functions that it may not have
            command += ["--report-api-errors", "no"]
        command += [sys.executable, "tests/gpu/sanitize.py"]
        passed, text = self.run(command, SANITIZER, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        calls = re.findall(r"sanitized (\d+) calls", text)
        summary = re.findall(r"=+ ((?:ERROR|RACECHECK) SUMMARY: .*)", text)
        clean = any(re.search(SUMMARIES[tool], line) for line in summary)
        self.part(
            tool,
            passed and clean and bool(calls),
            started,
            calls=int(calls[-1]) if calls else 0,
            summary=summary[-1] if summary else "no summary",
        )

    def benches(self) -> dict[str, Any]:
        started = time.monotonic()
        output = WORK / "benches.json"
        output.unlink(missing_ok=True)
        command = [sys.executable, "-m", "benches.gpu", str(output)]
        passed, text = self.run([*command, f"--seconds={BENCHES - 30}"], BENCHES)
        results: dict[str, Any] = json.loads(output.read_text()) if output.exists() else {}
        targets = [t for case in results.get("cases", {}).values() for t in case["targets"]]
        met = sum(target["met"] for target in targets)
        # A target that was missed is a result, not a failure.
        found = {"cases": len(results.get("cases", {})), "targets met": f"{met} of {len(targets)}"}
        self.part("benches", passed, started, **found)
        print(text[text.find("\n") :].rstrip())
        return results

    def all(self) -> bool:
        self.look()
        self.build()
        self.tests("conformance", CONFORMANCE, ["tests", "--backend", "cuda"], spread=True)
        self.tests("test_gpu", GPU_TESTS, ONLY_ON_A_GPU, spread=False)
        for tool in SUMMARIES:
            self.sanitizer(tool)
        measured = self.benches()
        self.tests("numba-cuda", STAND_IN, STAND_IN_TESTS, spread=True)
        passed = all(part["passed"] for part in self.parts.values())
        self.write(measured, passed)
        return passed

    def write(self, measured: dict[str, Any], passed: bool) -> None:
        versions = {"python": platform.python_version()}
        for name in ("torch", "numpy", "pytest", "hypothesis", "pycocotools"):
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                versions[name] = "missing"
        name = re.sub(r"\W+", "-", self.gpu.get("gpu", "none").lower()).strip("-")
        path = self.folder / f"gpu-{name}.json"
        results = {
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "commit": measured.get("commit", "unknown"),
            "machine": self.gpu | {"cores": os.cpu_count()},
            "versions": versions,
            "passed": passed,
            "parts": self.parts,
            "seed": measured.get("seed"),
            "left_out": measured.get("left_out", {}),
            "cases": measured.get("cases", {}),
        }
        path.write_text(json.dumps(results, indent=1) + "\n")
        print(f"written to {path}")


def brief(found: dict[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in found.items() if key != "failures")


def read_report(path: Path) -> dict[str, Any]:
    """Return how many tests ran, failed and were skipped, and the names of those that failed."""
    counts: dict[str, Any] = {"tests": 0, "failed": 0, "skipped": 0, "failures": []}
    if not path.exists():
        return counts
    for test in ElementTree.parse(path).iter("testcase"):
        counts["tests"] += 1
        skipped, broken = test.find("skipped"), test.find("failure")
        broken = test.find("error") if broken is None else broken
        if skipped is not None:
            counts["skipped"] += 1
        if broken is not None:
            counts["failed"] += 1
        if skipped is not None or broken is not None:
            reason = skipped if broken is None else broken
            message = (reason.get("message") or "")[:300] if reason is not None else ""
            counts["failures"].append(f"{test.get('classname')}.{test.get('name')}: {message}")
    counts["failures"] = counts["failures"][:60]
    return counts


def main() -> None:
    folder = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "benches" / "results"
    proof = Proof(folder)
    started = time.monotonic()
    passed = proof.all()
    print()
    for name, part in proof.parts.items():
        print(f"{'ok  ' if part['passed'] else 'FAIL'} {name}: {brief(part)}")
        for failure in part.get("failures", [])[:8]:
            print(f"     {failure[:200]}")
    print(f"{'passed' if passed else 'FAILED'} in {time.monotonic() - started:.0f} s")
    raise SystemExit(not passed)


if __name__ == "__main__":
    main()
