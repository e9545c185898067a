"""Builds the compiled kernels; everything else about the package is in pyproject.toml.

The kernels need a C++17 compiler and pybind11's headers, and nothing of torch. Where torch can be
imported (an environment that has it, with --no-build-isolation) its cpp_extension drives the build
with ninja; elsewhere, as in pip's isolated build environment, setuptools builds the same extension,
so that no second torch is downloaded. Without a working compiler the installation succeeds all the
same and the package runs on Numba.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

try:
    from torch.utils.cpp_extension import BuildExtension
except ImportError:
    BuildExtension = build_ext

CSRC = Path("csrc")


def sources() -> list[str]:
    """Return the paths of all sources, as the one list of them has it."""
    lines = (CSRC / "sources.txt").read_text().splitlines()
    kernels = [CSRC / line for line in lines if line and not line.startswith("#")]
    bindings = [CSRC / "bindings.cpp", CSRC / "bindings_coco.cpp"]
    return [str(path) for path in [*bindings, *kernels]]


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


class OptionalBuild(BuildExtension):  # type: ignore[misc, valid-type]
    """Turns a failed build into one message: the package then runs on Numba."""

    def run(self) -> None:
        # Before setuptools builds: it forgets for that time that a build is in place.
        outputs = [Path(self.get_ext_fullpath(each.name)) for each in self.extensions]
        try:
            super().run()
        except (Exception, SystemExit) as error:
            if os.environ.get("SA1B_FASTDECODE_REQUIRE_COMPILED") == "1":
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
            sources(),
            include_dirs=[pybind11_include()],
            depends=[str(path) for path in CSRC.rglob("*.h")],
            extra_compile_args=compile_args(),
            language="c++",
        )
    ],
    cmdclass={"build_ext": OptionalBuild},
)
