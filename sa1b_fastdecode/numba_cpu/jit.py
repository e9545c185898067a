"""How kernels are compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from sa1b_fastdecode import status

# Without _nrt=False every call that passes an array counts references atomically, which costs four
# times what reading a count does; so kernels allocate nothing.
_options: Any = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}
_njit: Any = numba.njit(**_options)


def _hash_sources() -> str:
    sources = [Path(status.__file__), *sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


_SOURCES = _hash_sources()


def jit(kernel: Callable[..., Any]) -> Any:
    """Compile a function when it is first called, and keep the result on disk.

    Numba compiles a kernel together with those it calls, but compiles it again only when its own
    file changes. What it files it under is this name, which changes with any of the files.
    """
    kernel.__qualname__ += f"-{_SOURCES}"
    return _njit(kernel)
