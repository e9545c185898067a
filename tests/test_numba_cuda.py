"""The stand-in for the compiled CUDA kernels: on Numba's simulator, and how it is chosen.

On a machine with a GPU it is one of the backends that all other tests run on.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_dispatch import run

from sa1b_fastdecode import dispatch

pytest.importorskip("numba")

# As where the compiled kernels are missing, but a GPU is there.
NO_COMPILED_CUDA = """
import warnings
from sa1b_fastdecode import dispatch
dispatch._probe_gpu = lambda: None
def missing(entry):
    return entry._replace(probe=lambda: (False, "not built"))
dispatch._TABLE = tuple(missing(e) if e.name == "cuda" else e for e in dispatch._TABLE)
"""


@pytest.mark.timeout(300)
def test_on_the_simulator():
    """In a process of its own: Numba chooses between GPU and simulator when it is imported."""
    file = Path(__file__).with_name("simulated_numba_cuda.py")
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", str(file)]
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


def test_it_comes_after_the_compiled_kernels():
    names = [entry.name for entry in dispatch._TABLE if entry.device == "cuda"]
    assert names == ["cuda", "numba-cuda"]


def test_it_stands_in_and_says_so():
    code = """
import sa1b_fastdecode as fd
with warnings.catch_warnings(record=True) as caught:
    print(fd.active_backend("cuda"))
print(caught[0].category.__name__, caught[0].message)
"""
    lines = run(NO_COMPILED_CUDA + code).stdout.splitlines()
    assert lines[0] == "numba-cuda"
    assert lines[1].startswith("RuntimeWarning")
    assert "'numba-cuda'" in lines[1]
    assert "not built" in lines[1]


def test_forced_and_missing():
    """Without numba.cuda, or without a GPU."""
    code = "import sa1b_fastdecode as fd\nfd.active_backend('cuda')"
    hide = NO_COMPILED_CUDA + "import sys\nsys.modules['numba.cuda'] = None\n"
    done = run(hide + code, SA1B_FASTDECODE_BACKEND="numba-cuda")
    assert "RuntimeError" in done.stderr
    assert "pip install 'numba-cuda" in done.stderr
    if torch.cuda.device_count() == 0:
        done = run(code, SA1B_FASTDECODE_BACKEND="numba-cuda")
        assert "RuntimeError" in done.stderr
        assert "numba-cuda: " in done.stderr.splitlines()[-1]


def test_looking_for_backends_touches_no_gpu():
    """Otherwise processes forked later could not use one. The driver may be loaded, not started."""
    code = """
import torch
import sa1b_fastdecode as fd
fd.backends()
assert not torch.cuda.is_initialized()
import numba.cuda.cudadrv.driver
print(numba.cuda.cudadrv.driver.driver.pid)  # of the process that started it
"""
    done = run(NO_COMPILED_CUDA + code)
    assert done.stdout.strip() == "None", done.stderr
