"""What setup.py asks of nvcc, and what it does when a build fails."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools

SETUP = Path(__file__).parents[1] / "setup.py"


@pytest.fixture
def cuda_targets(monkeypatch, tmp_path):
    """The function of setup.py, for an nvcc that knows some architectures."""
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\nprintf 'compute_75\\ncompute_80\\ncompute_90\\ncompute_110\\n'\n")
    nvcc.chmod(0o755)
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: None)
    monkeypatch.chdir(SETUP.parent)
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    function = runpy.run_path(str(SETUP))["cuda_targets"]
    return lambda: [flag.removeprefix("-gencode=arch=") for flag in function(str(nvcc))]


def test_what_nvcc_knows(cuda_targets, monkeypatch):
    """Of the architectures that are built for; the last also as PTX."""
    expected = [f"compute_{n},code=sm_{n}" for n in (75, 80, 90)]
    expected.append("compute_90,code=compute_90")
    assert cuda_targets() == expected
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", " ")
    assert cuda_targets() == expected


@pytest.mark.parametrize("named", ["8.0;9.0a+PTX", "8.0 9.0a+PTX", " 8.0 ; 9.0a+PTX;"])
def test_architectures_by_name(cuda_targets, monkeypatch, named):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", named)
    assert cuda_targets() == [
        "compute_80,code=sm_80",
        "compute_90a,code=sm_90a",
        "compute_90a,code=compute_90a",
    ]


@pytest.mark.parametrize("named", ["90", "Hopper", "9.0;sm_80", "8.0,9.0", "9.0+ptx"])
def test_what_is_no_architecture(cuda_targets, monkeypatch, named):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", named)
    with pytest.raises(ValueError, match="TORCH_CUDA_ARCH_LIST: expected numbers"):
        cuda_targets()


# --- Builds of a small project, by an nvcc that is none ------------------------------------------

BINDINGS = """
#include <Python.h>
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr};
#ifdef SA1B_WITH_CUDA
int kernel();
constexpr bool kWithCuda = true;
int (*const used)() = kernel;
#else
constexpr bool kWithCuda = false;
#endif
PyMODINIT_FUNC PyInit__C() {
  PyObject* const module = PyModule_Create(&definition);
  PyModule_AddIntConstant(module, "with_cuda", kWithCuda);
  return module;
}
"""

# Compiles kernels as C++, says what an assembler would, and notes what it was asked to compile.
NVCC = """#!/bin/sh
here=$(dirname "$0")
case " $* " in
  *" --version "*) cat "$here/version" ;;
  *" --list-gpu-arch "*) echo compute_90 ;;
  *" --dryrun "*) echo "LIBRARIES= \\"-L$here\\"" >&2 ;;
  *)
    for last; do :; done
    echo "$last" >> "$here/compiled"
    cat >&2 <<EOF
ptxas info    : Compiling entry function '_Z6kernelv' for 'sm_90'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 24 registers, 384 bytes smem
EOF
    if [ -e "$here/broken" ]; then echo no object > "$last"; exit; fi
    echo 'int kernel() { return 1; }' | g++ -x c++ -fPIC -c - -o "$last" ;;
esac
"""


class Project:
    """What setup.py needs of a project, with one kernel."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("csrc/cpu", "csrc/cuda", "sa1b_fastdecode", "scripts", "cuda/bin"):
            (folder / name).mkdir(parents=True)
        shutil.copy(SETUP, folder)
        shutil.copy(SETUP.parent / "scripts" / "kernel-report", folder / "scripts")
        (folder / "csrc" / "sources.txt").write_text("cpu/one.cpp\ncuda/two.cu\n")
        for name in ("cpu/one.cpp", "cuda/two.cu", "launch.h", "bindings_cuda.cpp"):
            (folder / "csrc" / name).touch()
        (folder / "csrc" / "bindings.cpp").write_text(BINDINGS)
        self.toolkit = folder / "cuda" / "bin"
        (self.toolkit / "nvcc").write_text(NVCC)
        (self.toolkit / "nvcc").chmod(0o755)
        (self.toolkit / "version").write_text("release 13.0")
        subprocess.run(["ar", "rc", self.toolkit / "libcudart_static.a"], check=True)

    def run(self, *command, **environment):
        return subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | {"CUDA_HOME": str(self.folder / "cuda")} | environment,
            capture_output=True,
            text=True,
            timeout=100,
        )

    def build(self, **environment):
        environment = {"SA1B_FASTDECODE_REQUIRE_COMPILED": "0"} | environment
        # As in an environment without torch, which takes seconds to import.
        code = "import runpy, sys; sys.modules['torch'] = None; "
        code += "sys.argv = ['setup.py', '-q', 'build_ext', '--inplace']; "
        code += "runpy.run_path('setup.py', run_name='__main__')"
        return self.run(sys.executable, "-c", code, **environment)

    def with_cuda(self):
        code = "from sa1b_fastdecode import _C; print(_C.with_cuda)"
        return self.run(sys.executable, "-c", code).stdout.strip()

    def report(self):
        return self.run(sys.executable, "scripts/kernel-report")

    def compiled(self):
        return (self.toolkit / "compiled").read_text().splitlines()


@pytest.fixture
def project(tmp_path):
    if not (shutil.which("g++") and shutil.which("ar")):
        pytest.skip("needs a compiler")
    return Project(tmp_path)


def test_objects_of_another_nvcc_are_not_taken(project):
    done = project.build()
    assert done.returncode == 0, done.stderr
    assert project.with_cuda() == "1"
    report = project.report()
    assert report.returncode == 0, report.stderr
    assert "| sm_90 | 24 | 384 |" in report.stdout
    project.build()
    assert len(project.compiled()) == 1
    (project.toolkit / "version").write_text("release 13.1")
    project.build()
    project.build(TORCH_CUDA_ARCH_LIST="8.0")
    assert len(set(project.compiled())) == 3
    (project.toolkit / "version").write_text("release 13.0")
    project.build()
    assert len(project.compiled()) == 3
    (object_of_13_0,) = project.compiled()[:1]
    assert Path(object_of_13_0).parent.name == (project.folder / "build/cuda/current").read_text()


def test_without_cuda_if_it_cannot_be_linked(project):
    project.build()
    (project.toolkit / "broken").touch()
    (project.folder / "csrc" / "cuda" / "two.cu").touch()
    done = project.build()
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("sa1b_fastdecode: no CUDA kernels (") == 1
    assert "no compiled kernels" not in done.stderr
    assert project.with_cuda() == "0"
    report = project.report()
    assert report.returncode == 1
    assert "not all built" in report.stderr
    required = project.build(SA1B_FASTDECODE_REQUIRE_COMPILED="1")
    assert required.returncode != 0
    assert "building without" not in required.stderr


def test_without_a_compiler(project):
    done = project.build(CC="false", CXX="false")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("sa1b_fastdecode: no CUDA kernels (") == 1
    assert done.stderr.count("sa1b_fastdecode: no compiled kernels (") == 1
    assert project.with_cuda() == ""
    done = project.build(CC="false", CXX="false", SA1B_FASTDECODE_REQUIRE_COMPILED="1")
    assert done.returncode != 0


def test_a_report_for_every_source(project):
    project.build()
    sources = project.folder / "csrc" / "sources.txt"
    sources.write_text(sources.read_text() + "cuda/three.cu\n")
    report = project.report()
    assert report.returncode == 1
    assert "three_cuda.txt" in report.stderr
