"""How kernels are compiled: at the first call, by one process for all, and kept on disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba

from sa1b_fastdecode import status

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

# Without _nrt=False every call that passes an array counts references atomically, which costs four
# times what reading a count does; so kernels allocate nothing.
_options: Any = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}
_njit: Any = numba.njit(**_options)


def _hash_sources() -> str:
    sources = [Path(status.__file__), *sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


_SOURCES = _hash_sources()
_compiling = threading.RLock()
_depth = 0  # of kernels that are compiled because another one calls them


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Keep all other processes from compiling.

    Two that compile the same kernel for different types at once may take the same file in Numba's
    cache, and one would then run what the other one compiled. And the workers of a DataLoader,
    which all come at once, need not all do the same work.
    """
    global _depth
    with _compiling, contextlib.ExitStack() as stack:
        if _depth == 0 and fcntl is not None:
            with contextlib.suppress(OSError):  # nowhere to write, then there is no cache either
                lock = stack.enter_context(_lock_path().open("a"))
                fcntl.flock(lock, fcntl.LOCK_EX)
                # Not left to closing: a child that was forked meanwhile has the file open as well.
                stack.callback(fcntl.flock, lock, fcntl.LOCK_UN)
        _depth += 1
        try:
            yield
        finally:
            _depth -= 1


def _lock_path() -> Path:
    return Path(tempfile.gettempdir()) / f"sa1b_fastdecode-{os.getuid()}-{_SOURCES}.lock"


def jit(kernel: Callable[..., Any]) -> Any:
    """Compile a function when it is first called, and keep the result on disk.

    Numba compiles a kernel together with those it calls, but compiles it again only when its own
    file changes. What it files it under is this name, which changes with any of the files.
    """
    kernel.__qualname__ += f"-{_SOURCES}"
    dispatcher = _njit(kernel)
    compile_or_load = dispatcher.compile

    def compile_alone(signature: Any) -> Any:
        with _one_at_a_time():
            return compile_or_load(signature)

    dispatcher.compile = compile_alone
    return dispatcher
