"""Which kernels run: one ordered table, one choice per device.

The first available backend of a device is used. The environment variable
``SA1B_FASTDECODE_BACKEND``, read when a device is first used, forces one by name; a forced one that
is unavailable raises. Later, and in one place only, ``use`` does the same.

A backend has kernels, a module of functions that take addresses and sizes and return a status, and
operators, which take tensors; ``cpu.py`` and ``cuda.py`` have the same ones.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

ENVIRONMENT_VARIABLE = "SA1B_FASTDECODE_BACKEND"

_REINSTALL = "pip install --force-reinstall --no-deps . (in a clone of the repository)"


class Backend(NamedTuple):
    """What is known of one backend: where it runs, whether it can, and if not, what it needs."""

    name: str
    device: str
    available: bool
    detail: str


class _Entry(NamedTuple):
    name: str
    device: str
    kernels: str  # a module; its functions are those of _C.pyi
    operators: str  # a module whose class Operators takes the kernels
    probe: Callable[[], tuple[bool, str]]


def _probe_cpp() -> tuple[bool, str]:
    try:
        importlib.import_module("sa1b_fastdecode._C")
    except ImportError as error:
        return False, (
            f"the compiled kernels are missing ({error}); install a C++17 compiler such as g++ "
            f"and reinstall with: {_REINSTALL}"
        )
    return True, "compiled kernels"


def _probe_numba() -> tuple[bool, str]:
    try:
        numba = importlib.import_module("numba")
    except ImportError as error:
        return False, f"numba cannot be imported ({error}); pip install numba"
    return True, f"numba {numba.__version__}; compiles on first use, then cached on disk"


def _probe_gpu() -> str | None:
    """Return what keeps torch from using a GPU. Touches no GPU: that would break later forks."""
    import torch

    if torch.version.cuda is None:  # of a build for ROCm, too
        return "this torch is built without CUDA; install a CUDA build from https://pytorch.org"
    if torch.cuda.device_count() == 0:
        return "torch finds no GPU; see whether nvidia-smi does"
    return None


def _probe_cuda() -> tuple[bool, str]:
    available, detail = _probe_cpp()
    if not available:
        return False, detail
    kernels = importlib.import_module("sa1b_fastdecode._C")
    if not hasattr(kernels, "cuda"):
        return False, (
            "the compiled kernels were built without CUDA; install NVIDIA's toolkit, so that nvcc "
            f"is found, and reinstall with: {_REINSTALL}"
        )
    missing = _probe_gpu()
    return missing is None, missing or "compiled kernels"


def _probe_numba_cuda() -> tuple[bool, str]:
    missing = _probe_gpu()
    if missing is not None:
        return False, missing
    try:
        numba = importlib.import_module("numba")
        importlib.import_module("numba.cuda")  # loads the driver, but does not start it
    except ImportError as error:
        return False, f"numba.cuda cannot be imported ({error}); pip install 'numba-cuda[cu13]'"
    return True, f"numba {numba.__version__}; compiles on first use"


_TABLE = (
    _Entry("cpp", "cpu", "sa1b_fastdecode._C", "sa1b_fastdecode.cpu", _probe_cpp),
    _Entry("numba", "cpu", "sa1b_fastdecode.numba_cpu", "sa1b_fastdecode.cpu", _probe_numba),
    _Entry("cuda", "cuda", "sa1b_fastdecode._C", "sa1b_fastdecode.cuda", _probe_cuda),
    _Entry(
        "numba-cuda",
        "cuda",
        "sa1b_fastdecode.numba_cuda",
        "sa1b_fastdecode.numba_cuda",
        _probe_numba_cuda,
    ),
)


class _Chosen:
    def __init__(self, name: str, kernels: ModuleType, operators_module: str) -> None:
        self.name, self.kernels, self.operators_module = name, kernels, operators_module

    @functools.cached_property
    def operators(self) -> Any:
        """Loaded when first asked for: the operators need torch, the kernels do not."""
        return importlib.import_module(self.operators_module).Operators(self.kernels)


_used: str | None = None  # what `use` forces at present
_chosen: dict[str, _Chosen] = {}


def backends() -> list[Backend]:
    """List every backend in order of preference, available or not, with what is missing."""
    return [Backend(entry.name, entry.device, *entry.probe()) for entry in _TABLE]


def active_backend(device: Any = "cpu") -> str:
    """Return the name of the backend that serves a device (a string or ``torch.device``).

    Raises:
        RuntimeError: no backend of that device is available, or the forced one is not.
        ValueError: ``SA1B_FASTDECODE_BACKEND`` names no backend.
    """
    device_type = _device_type(device)
    return (_chosen.get(device_type) or _choose(device_type)).name


def kernels(device_type: str) -> Any:
    """Return the kernels that serve a device type such as "cpu"."""
    return (_chosen.get(device_type) or _choose(device_type)).kernels


def operators(device_type: str) -> Any:
    """Return the operators that serve a device type such as "cpu"."""
    return (_chosen.get(device_type) or _choose(device_type)).operators


@contextlib.contextmanager
def use(name: str) -> Iterator[None]:
    """Force a backend for as long as the context lasts, in all threads of this process."""
    global _used
    before = _used
    _used = name
    _chosen.clear()
    try:
        device = next((entry.device for entry in _TABLE if entry.name == name), "cpu")
        _choose(device)
        yield
    finally:
        _used = before
        _chosen.clear()


def _device_type(device: Any) -> str:
    return str(getattr(device, "type", device)).partition(":")[0]


def _choose(device_type: str) -> _Chosen:
    names = [entry.name for entry in _TABLE]
    forced_name = _used or os.environ.get(ENVIRONMENT_VARIABLE)
    if forced_name and forced_name not in names:
        raise ValueError(
            f"{ENVIRONMENT_VARIABLE}={forced_name!r} names no backend; there are {', '.join(names)}"
        )
    candidates = [entry for entry in _TABLE if entry.device == device_type]
    forced = [entry for entry in candidates if entry.name == forced_name]
    reasons: list[str] = []
    for entry in forced or candidates:
        available, detail = entry.probe()
        if available:
            if reasons:
                warnings.warn(
                    f"sa1b_fastdecode runs on the {entry.name!r} backend: {'; '.join(reasons)}",
                    RuntimeWarning,
                    stacklevel=2,
                )
            found = importlib.import_module(entry.kernels)
            _chosen[device_type] = _Chosen(entry.name, found, entry.operators)
            return _chosen[device_type]
        reasons.append(f"{entry.name}: {detail}")
    if not candidates:
        devices = ", ".join(sorted({repr(entry.device) for entry in _TABLE}))
        raise RuntimeError(
            f"device {device_type!r} has no backend in this build; devices with one: {devices}. "
            "Use device='cpu' and move the result."
        )
    why = "forced backend is unavailable" if forced else "no backend is available"
    advice = "" if device_type == "cpu" else ". Use device='cpu', or make this one work"
    raise RuntimeError(f"{why} for device {device_type!r}: {'; '.join(reasons)}{advice}")
