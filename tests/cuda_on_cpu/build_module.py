"""Builds the CUDA kernels to run on the CPU: `python tests/cuda_on_cpu/build_module.py`.

Every object is kept in build/cuda_on_cpu until something that it may depend on has changed. Of
undefined behaviour the module aborts the process. With SA1B_SANITIZE=address in the environment
another one is built, and loaded, that AddressSanitizer watches: see scripts/sanitize.
"""

import os
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"
SANITIZER = os.environ.get("SA1B_SANITIZE")  # "address", or none but UBSan
FOLDER = ROOT / "build" / (f"cuda_on_cpu-{SANITIZER}" if SANITIZER else "cuda_on_cpu")
MODULE = FOLDER / f"_cuda_on_cpu{sysconfig.get_config_var('EXT_SUFFIX')}"

# A grid of a few blocks at most, so that blocks take several pieces of work each.
FLAGS = ["-O2", "-g1", "-std=c++17", "-fPIC", "-ffp-contract=off", "-DSA1B_MAX_GRID=7"]
# nvcc's compilers know no strict aliasing, and g++ no unrolling by that name.
FLAGS += ["-Wall", "-fno-strict-aliasing", "-Wno-unknown-pragmas"]
SANITIZE = ["-fsanitize=undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
SANITIZE += [f"-fsanitize={SANITIZER}"] if SANITIZER else []


def sources():
    lines = (CSRC / "sources.txt").read_text().splitlines()
    kernels = [CSRC / line for line in lines if line.endswith(".cu")]
    emulator = sorted((CSRC / "cuda_on_cpu").glob("*.cpp"))
    return [*kernels, *emulator, CSRC / "bindings_cuda.cpp", Path(__file__).with_name("module.cpp")]


def build():
    compiler = os.environ.get("CXX", "g++")
    FOLDER.mkdir(parents=True, exist_ok=True)
    includes = [CSRC, pybind11.get_include(), sysconfig.get_path("include")]
    flags = [*FLAGS, *SANITIZE, *(f"-I{path}" for path in includes)]
    newest = max(path.stat().st_mtime for path in [*CSRC.rglob("*.*h"), Path(__file__)])

    def compile_one(source):
        to = FOLDER / f"{source.stem}{source.suffix}.o"
        if not to.exists() or to.stat().st_mtime < max(newest, source.stat().st_mtime):
            command = [compiler, *flags, "-x", "c++", "-c", str(source), "-o", str(to)]
            subprocess.run(command, check=True)
        return to

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as pool:
        objects = list(pool.map(compile_one, sources()))
    if not MODULE.exists() or MODULE.stat().st_mtime < max(o.stat().st_mtime for o in objects):
        made = MODULE.with_suffix(".new")
        command = [compiler, *SANITIZE, "-shared", *map(str, objects), "-o", str(made)]
        subprocess.run(command, check=True)
        made.replace(MODULE)


def probe():
    """Return whether it is built, and what to do."""
    return MODULE.exists(), f"build it with: python {Path(__file__).relative_to(ROOT)}"


if __name__ == "__main__":
    sys.exit(build())
