"""No kernel and no launcher of a GPU that the emulator, and so every test run, leaves out."""

import importlib
import re
from pathlib import Path

import draws
import pytest
from conftest import EMULATED, require

import sa1b_fastdecode as fd
from sa1b_fastdecode import dispatch

CSRC = Path(__file__).parents[1] / "csrc"


def kernels():
    """Return the names of all kernels in the sources."""
    # What stands between: void, launch bounds with their arguments, and the end of a line.
    kernel = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\(")
    sources = [path.read_text() for path in sorted((CSRC / "cuda").glob("*.cu*"))]
    found = [name for source in sources for name in kernel.findall(source)]
    assert len(found) == sum(source.count("__global__") for source in sources)
    return set(found)


def launchers():
    """Return the names of all functions that launch.h promises of the GPU."""
    (declared,) = re.findall(
        r"namespace cuda \{(.*?)\}  // namespace cuda", (CSRC / "launch.h").read_text(), re.DOTALL
    )
    return set(re.findall(r"^(?:int|int64_t) (\w+)\(", declared, re.MULTILINE))


class Noting:
    """A module whose functions note that they were called."""

    def __init__(self, module):
        self._module, self.called = module, set()

    def __getattr__(self, name):
        self.called.add(name)
        return getattr(self._module, name)


def use_everything():
    masks = draws.every_kind(33, 65)
    rles = [draws.to_rle(mask) for mask in masks]
    for batch in (fd.pack_rles(rles), fd.pack_rles([rles[:4], rles[4:]])):
        batch.decode()
        batch.area()
        batch.iou(batch)
        batch.intersecting_pairs(batch)
    fd.encode_masks(fd.pack_rles(rles).decode())


def test_every_kernel_and_launcher_is_emulated(monkeypatch):
    require(EMULATED)
    take_launched = importlib.import_module("emulated").take_launched
    with dispatch.use(EMULATED):
        operators = dispatch.operators("cpu")
        native = Noting(operators._native)
        monkeypatch.setattr(operators, "_native", native)
        take_launched()
        use_everything()
        launched = {re.search(r"\w+", name)[0] for name in take_launched()}
    assert launched == kernels()
    assert native.called == launchers()


@pytest.mark.parametrize("names", [kernels, launchers])
def test_the_sources_are_read(names):
    """A pattern that finds nothing would find nothing missing."""
    assert {"decode", "decode_kernel"} & names()
    assert len(names()) >= 9
