"""The backend that was asked for is the one that runs, and what is missing is said."""

import os
import subprocess
import sys
import threading
import types

import pytest
import torch
from conftest import EMULATED

import sa1b_fastdecode as fd
from sa1b_fastdecode import dispatch

RLE = {"size": [2, 3], "counts": [1, 2, 3]}
BOTH = [found.name for found in dispatch.backends() if found.available and found.device == "cpu"]
BOTH = [name for name in BOTH if name != EMULATED]

# Makes every kernel of a module raise, and says that it was asked.
BREAK = """
import importlib
def broken(*arguments):
    raise SystemError("kernels of {module} ran")
module = importlib.import_module("sa1b_fastdecode.{module}")
for name in ("decode", "regions", "validate", "compress", "decompress", "pack"):
    setattr(module, name, broken)
"""

# Makes the import of a module fail, as if it had never been built or installed.
HIDE = """
import sys
sys.modules["{module}"] = None
"""

USE_ALL = """
import sa1b_fastdecode as fd
batch = fd.pack_rles([{"size": [2, 3], "counts": [1, 2, 3]}])
assert batch.decode().tolist() == [[[0, 1, 0], [1, 0, 0]]]
assert batch.area().tolist() == [2]
assert batch.to_coco("list")[0]["counts"] == [1, 2, 3]
print(fd.active_backend("cpu"))
"""


def run(code, **environment):
    """Run code in a new process where nothing is chosen yet; return the finished process."""
    code = f"import sys\nsys.path[:0] = {sys.path!r}\n" + code
    environment = {"PYTHONWARNINGS": "always"} | environment
    inherited = {k: v for k, v in os.environ.items() if k != dispatch.ENVIRONMENT_VARIABLE}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture
def both():
    if BOTH != ["cpp", "numba"]:
        pytest.skip("needs two backends")


MODULES = {"cpp": "_C", "numba": "numba_cpu"}


@pytest.mark.parametrize("forced", MODULES)
def test_the_environment_forces_a_backend(both, forced):
    """With the kernels of the other broken all works; with its own broken nothing does."""
    (other,) = set(MODULES) - {forced}
    done = run(BREAK.format(module=MODULES[other]) + USE_ALL, SA1B_FASTDECODE_BACKEND=forced)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == forced
    assert "RuntimeWarning" not in done.stderr
    done = run(BREAK.format(module=MODULES[forced]) + USE_ALL, SA1B_FASTDECODE_BACKEND=forced)
    assert done.returncode != 0
    assert f"kernels of {MODULES[forced]} ran" in done.stderr


def test_compiled_kernels_come_first(both):
    done = run(BREAK.format(module="numba_cpu") + USE_ALL)
    assert done.stdout.strip() == "cpp", done.stderr
    assert "Warning" not in done.stderr
    assert run(USE_ALL, SA1B_FASTDECODE_BACKEND="").stdout.strip() == "cpp"


@pytest.mark.parametrize("name", ["fortran", "CPP", "cpu", "cpp,numba"])
def test_unknown_backend(name, monkeypatch):
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, name)
    monkeypatch.setattr(dispatch, "_chosen", {})
    with pytest.raises(ValueError, match=f"'{name}'.*cpp, numba"):
        fd.decode_rle_batch(RLE)


HIDDEN = {"cpp": "sa1b_fastdecode._C", "numba": "numba"}


@pytest.mark.parametrize("forced", HIDDEN)
def test_a_forced_backend_that_is_missing_is_not_replaced(forced):
    done = run(HIDE.format(module=HIDDEN[forced]) + USE_ALL, SA1B_FASTDECODE_BACKEND=forced)
    assert done.returncode != 0
    assert "RuntimeError" in done.stderr
    assert forced in done.stderr.splitlines()[-1]
    assert "install" in done.stderr.splitlines()[-1]


def test_numba_stands_in_and_says_so_once(both):
    done = run(HIDE.format(module=HIDDEN["cpp"]) + USE_ALL + USE_ALL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["numba", "numba"]
    assert done.stderr.count("RuntimeWarning") == 1
    assert "compiler" in done.stderr


def test_nothing_left_to_run_on():
    hide = HIDE.format(module=HIDDEN["cpp"]) + HIDE.format(module=HIDDEN["numba"])
    done = run(hide + USE_ALL)
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert "RuntimeError" in last
    assert "cpp: " in last
    assert "numba: " in last


def test_backends_says_what_is_missing():
    hide = HIDE.format(module=HIDDEN["cpp"]) + HIDE.format(module=HIDDEN["numba"])
    code = (
        "import sa1b_fastdecode as fd\nfor b in fd.backends(): print(b.name, b.available, b.detail)"
    )
    lines = run(hide + code).stdout.splitlines()
    assert lines[0].startswith("cpp False ")
    assert "compiler" in lines[0]
    assert "pip install" in lines[0]
    assert lines[1].startswith("numba False ")
    assert "pip install numba" in lines[1]


def test_backends_in_order_of_preference():
    found = fd.backends()
    cpu = [backend.name for backend in found if backend.device == "cpu"]
    assert [name for name in cpu if name != EMULATED] == ["cpp", "numba"]
    assert all(backend.detail for backend in found)
    for backend in found:
        if backend.available and backend.name == "numba":
            import numba

            assert numba.__version__ in backend.detail


def test_active_backend():
    name = fd.active_backend("cpu")
    assert name == fd.active_backend(torch.device("cpu")) == fd.active_backend("cpu:0")
    assert name == fd.active_backend()
    with pytest.raises(RuntimeError, match="'warp'"):
        fd.active_backend("warp")


def test_use_forces_and_restores(both):
    before = fd.active_backend()
    with dispatch.use("numba"):
        assert fd.active_backend() == "numba"
        with dispatch.use("cpp"):
            assert fd.active_backend() == "cpp"
            assert fd.decode_rle_batch(RLE).sum() == 2
        assert fd.active_backend() == "numba"
    assert fd.active_backend() == before


def test_use_restores_after_an_error(both):
    before = fd.active_backend()
    with pytest.raises(KeyError), dispatch.use("numba"):
        raise KeyError
    assert fd.active_backend() == before
    with pytest.raises(ValueError, match="fortran"), dispatch.use("fortran"):
        raise AssertionError("not reached")
    assert fd.active_backend() == before


def test_use_holds_in_other_threads(both):
    names = []
    with dispatch.use("numba"):
        thread = threading.Thread(target=lambda: names.append(fd.active_backend()))
        thread.start()
        thread.join()
    assert names == ["numba"]


def test_importing_the_package_imports_nothing_heavy():
    code = """
before = set(sys.modules)
import sa1b_fastdecode
dir(sa1b_fastdecode)
sa1b_fastdecode.__version__
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    imported = run(code).stdout.split()
    assert "sa1b_fastdecode" in imported
    assert not {"torch", "numpy", "numba", "pycocotools", "PIL"} & set(imported)


def test_names_of_the_package():
    assert set(fd.__all__) <= set(dir(fd))
    assert all(getattr(fd, name) is not None for name in fd.__all__)
    with pytest.raises(AttributeError, match="encode_everything"):
        _ = fd.encode_everything


def test_compiled_kernels_need_no_numba(both):
    code = USE_ALL + "assert 'numba' not in sys.modules"
    done = run(code, SA1B_FASTDECODE_BACKEND="cpp")
    assert done.returncode == 0, done.stderr


def detail_of(name):
    (found,) = (backend for backend in dispatch.backends() if backend.name == name)
    assert not found.available
    return found.detail


def test_compiled_without_cuda(monkeypatch):
    monkeypatch.setitem(sys.modules, "sa1b_fastdecode._C", types.ModuleType("_C"))
    detail = detail_of("cuda")
    assert "built without CUDA; install NVIDIA's toolkit" in detail
    assert "pip install --force-reinstall --no-deps . " in detail


def test_torch_without_cuda(monkeypatch):
    """As one for ROCm is, which calls its GPUs "cuda"."""
    kernels = types.ModuleType("_C")
    kernels.cuda = None
    monkeypatch.setitem(sys.modules, "sa1b_fastdecode._C", kernels)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert "this torch is built without CUDA; install a CUDA build" in detail_of("cuda")
    assert "this torch is built without CUDA" in detail_of("numba-cuda")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "nvidia-smi" in detail_of("cuda")
