"""Builds the compiled kernels; everything else about the package is in pyproject.toml.

The kernels need a C++17 compiler and pybind11's headers, and nothing of torch. Where torch can be
imported (an environment that has it, with --no-build-isolation) its cpp_extension drives the build
with ninja; elsewhere, as in pip's isolated build environment, setuptools builds the same extension,
so that no second torch is downloaded. Where there is an nvcc, the CUDA kernels are built too,
whatever torch and whatever GPU the machine has; they are linked with a static runtime, so that the
module loads on machines without a driver. TORCH_CUDA_ARCH_LIST names other architectures than those
below. Without a working compiler the installation succeeds all the same and the package runs on
Numba.
"""

import copy
import hashlib
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

try:
    from torch.utils.cpp_extension import BuildExtension
except ImportError:
    from pybind11.setup_helpers import ParallelCompile

    BuildExtension = build_ext
    ParallelCompile("MAX_JOBS").install()  # setuptools compiles one file after another

CSRC = Path("csrc")

# Compute capabilities; the last is also kept as PTX, from which drivers compile for later GPUs.
# TORCH_CUDA_ARCH_LIST="9.0" builds for one only.
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)

# Compiling takes a minute of one core, so objects are kept from one installation to the next, in a
# folder for each nvcc and its flags.
OBJECTS = Path("build") / "cuda"

# Names the folder of the last build, for scripts/kernel-report.
CURRENT = OBJECTS / "current"


def sources(suffix: str) -> list[str]:
    """Return the paths of the sources of a kind, as the one list of them has it."""
    lines = (CSRC / "sources.txt").read_text().splitlines()
    return [str(CSRC / line) for line in lines if line.endswith(suffix)]


def bindings() -> list[str]:
    """Return the paths of the files that know Python; that of CUDA is added where it is built."""
    return [str(path) for path in sorted(CSRC.glob("bindings*.cpp")) if "cuda" not in path.name]


def pybind11_include() -> str:
    """Return where pybind11's headers are; torch brings them along."""
    try:
        import pybind11

        return pybind11.get_include()
    except ImportError:
        from torch.utils.cpp_extension import include_paths

        return next(path for path in include_paths() if (Path(path) / "pybind11").is_dir())


def compile_args() -> list[str]:
    """Return the compiler's flags; none names a processor, so a wheel runs on any of its kind."""
    if os.name == "nt":
        return ["/O2", "/std:c++17"]
    return ["-O3", "-std=c++17", "-fvisibility=hidden", "-ffp-contract=off", "-g0"]


def find_nvcc() -> str | None:
    """Return nvcc's path, from CUDA_HOME, PATH or where NVIDIA's packages put it; else None."""
    if os.name == "nt":
        return None  # never tried there
    folders = [Path(os.environ.get("CUDA_HOME", "/nonexistent")) / "bin", *os.get_exec_path()]
    return shutil.which("nvcc", path=os.pathsep.join(map(str, [*folders, "/usr/local/cuda/bin"])))


def cuda_libraries(nvcc: str) -> list[str]:
    """Return the linker's flags for the runtime. An nvcc may be a wrapper, so it is asked."""
    # What it would run goes to stderr, with the folders of the toolkit's libraries.
    dry = subprocess.run([nvcc, "--dryrun", "x.cu"], capture_output=True, text=True, check=False)
    folders = re.findall(r'"-L([^"]+)"', dry.stderr)
    return [*(f"-L{folder}" for folder in folders), "-lcudart_static", "-ldl", "-lpthread", "-lrt"]


def cuda_targets(nvcc: str) -> list[str]:
    """Return nvcc's flags for the architectures to build for.

    TORCH_CUDA_ARCH_LIST names them as for torch's own extensions: "8.0;9.0+PTX".
    """
    named = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").split()
    for name in named:
        if not re.fullmatch(r"\d+\.\d[af]?(\+PTX)?", name):
            raise ValueError(f"TORCH_CUDA_ARCH_LIST: expected numbers like 9.0 or 9.0+PTX: {name}")
    if named:
        binary = [name.removesuffix("+PTX").replace(".", "") for name in named]
        ptx = [number for number, name in zip(binary, named, strict=True) if "+" in name]
    else:
        run = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True)
        binary = [str(n) for n in ARCHITECTURES if f"compute_{n}\n" in run.stdout]
        ptx = binary[-1:]
    return [
        *(f"-gencode=arch=compute_{number},code=sm_{number}" for number in binary),
        *(f"-gencode=arch=compute_{number},code=compute_{number}" for number in ptx),
    ]


def build_cuda(nvcc: str, folder: Path) -> list[str]:
    """Compile the CUDA kernels and return the objects; those that are up to date are kept."""
    # Contracted multiply-adds would make results differ from the CPU's.
    flags = ["-O3", "-std=c++17", "--fmad=false", "-Werror=all-warnings", "-Xptxas=-v"]
    flags += ["-Xcompiler=-fPIC,-fvisibility=hidden,-Wall", *cuda_targets(nvcc)]
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True)
    key = hashlib.sha256("\n".join([version.stdout, *flags]).encode()).hexdigest()[:8]
    (folder / key).mkdir(parents=True, exist_ok=True)
    headers = [*CSRC.glob("*.h"), *CSRC.glob("cuda/*.*h")]
    newest = max(path.stat().st_mtime for path in headers)

    def compile_one(source: str) -> str:
        to = folder / key / f"{Path(source).stem}_cuda.o"
        report = to.with_suffix(".txt")  # what the assembler says of each kernel
        missing = not (to.exists() and report.exists())
        if missing or to.stat().st_mtime < max(newest, Path(source).stat().st_mtime):
            report.unlink(missing_ok=True)  # it is written when the object is whole
            command = [nvcc, *flags, f"-I{CSRC}", "-c", source, "-o", str(to)]
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode != 0:
                print(done.stderr, file=sys.stderr)
                done.check_returncode()
            report.write_text(done.stderr)
        return str(to)

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as pool:
        objects = list(pool.map(compile_one, sources(".cu")))
    # Only when it changes: the module is linked again if it is older than this.
    if not CURRENT.exists() or CURRENT.read_text() != key:
        CURRENT.write_text(key)
    return objects


def with_cuda(extension: Extension, nvcc: str) -> Extension:
    """Return the extension with the CUDA kernels, which are compiled here."""
    objects = build_cuda(nvcc, OBJECTS)
    extension = copy.deepcopy(extension)
    extension.sources.append(str(CSRC / "bindings_cuda.cpp"))
    extension.define_macros.append(("SA1B_WITH_CUDA", "1"))
    extension.extra_objects += objects
    extension.depends += [*objects, str(CURRENT)]
    extension.extra_link_args += cuda_libraries(nvcc)
    return extension


class OptionalBuild(BuildExtension):  # type: ignore[misc, valid-type]
    """Builds with CUDA, or without, or not at all: then the package runs on Numba."""

    def run(self) -> None:
        required = os.environ.get("SA1B_FASTDECODE_REQUIRE_COMPILED") == "1"
        # Before setuptools builds: it forgets for that time that a build is in place.
        outputs = [Path(self.get_ext_fullpath(each.name)) for each in self.extensions]
        before = dict(vars(self))
        nvcc = find_nvcc()
        try:
            if nvcc is not None:
                self.extensions = [with_cuda(each, nvcc) for each in self.extensions]
                super().run()
                return
        except (Exception, SystemExit) as error:
            CURRENT.unlink(missing_ok=True)
            if required:
                raise
            print(
                f"sa1b_fastdecode: no CUDA kernels ({error}); building without them.",
                file=sys.stderr,
            )
            vars(self).update(before, force=True)  # an earlier module may have those kernels
        try:
            super().run()
        except (Exception, SystemExit) as error:
            if required:
                raise
            # What an earlier build left would not fit the Python of this one.
            outputs += [Path(self.get_ext_fullpath(each.name)) for each in self.extensions]
            for path in outputs:
                path.unlink(missing_ok=True)
            self.extensions = []
            print(
                f"sa1b_fastdecode: no compiled kernels ({error}); installing without them, "
                "the package will run on Numba.",
                file=sys.stderr,
            )


setup(
    ext_modules=[
        Extension(
            "sa1b_fastdecode._C",
            [*bindings(), *sources(".cpp")],
            include_dirs=[pybind11_include()],
            depends=[str(path) for path in CSRC.rglob("*.*h")],
            extra_compile_args=compile_args(),
            language="c++",
        )
    ],
    cmdclass={"build_ext": OptionalBuild},
)
