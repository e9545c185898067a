"""No kernel and no launcher of a GPU that the emulator, and so every test run, leaves out."""

import importlib
import re
import subprocess
from pathlib import Path

import draws
import pytest
import torch
from conftest import EMULATED, require
from cuda_on_cpu import build_module

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


def instances():
    """Return where in the module each kernel is, with its template's arguments in its name.

    The compiler makes those instances, and only those, that a launcher can launch.
    """
    command = ["nm", "--demangle", "--defined-only", build_module.MODULE]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kernel = re.compile(r"(?:void )?sa1b::cuda::(\w+(?:<.*>)?)\([^()]*\)")
    found = {}
    for line in listed.replace("(anonymous namespace)::", "").splitlines():
        address, kind, name = line.split(maxsplit=2)
        match = kernel.fullmatch(name)
        if kind in "tT" and match and re.match(r"\w+", match[1])[0] in kernels():
            found[match[1]] = int(address, 16)
    return found


def launchers():
    """Return the names of all functions that the headers promise of the GPU."""
    headers = "".join(path.read_text() for path in sorted(CSRC.glob("*.h")))
    declared = re.findall(r"namespace cuda \{(.*?)\}  // namespace cuda", headers, re.DOTALL)
    return set(re.findall(r"^(?:int|int64_t) (\w+)\(", "".join(declared), re.MULTILINE))


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
        batch.area()
        batch.iou(batch)
        batch.intersecting_pairs(batch)
        batch.sample_points(2, "boundary")
        batch.to_label_map()
        fd.matching.nms(batch, torch.arange(len(batch)), 0.5)
        for map_of_planes in ({}, {"crop": (1, 2, 30, 60)}, {"size": (20, 40)}):
            batch.decode_bits(**map_of_planes)
            for dtype in (torch.uint8, torch.float16, torch.float32):
                batch.decode(dtype=dtype, **map_of_planes)
    decoded = fd.pack_rles(rles).decode()
    for dtype in (torch.uint8, torch.float16, torch.float32, torch.float64):
        rows = decoded.to(dtype)
        columns = rows.mT.contiguous().mT
        for elements in (rows, rows[:, :, ::2], columns):
            fd.encode_masks(elements)
    fd.algebra.merge(rles)
    fd.labels.from_label_map(decoded[0])


def test_every_kernel_and_launcher_is_emulated(monkeypatch):
    require(EMULATED)
    take_launched = importlib.import_module("emulated").take_launched
    with dispatch.use(EMULATED):
        operators = dispatch.operators("cpu")
        native = Noting(operators._native)
        monkeypatch.setattr(operators, "_native", native)
        take_launched()
        use_everything()
        launched = take_launched()
    assert [name for name, place in instances().items() if place not in launched] == []
    assert native.called == launchers()


@pytest.mark.parametrize("names", [kernels, launchers])
def test_the_sources_are_read(names):
    """A pattern that finds nothing would find nothing missing."""
    assert {"decode", "decode_kernel"} & names()
    assert {"combine", "order_kernel"} & names()
    assert len(names()) >= 9


def test_every_kernel_has_its_instances():
    require(EMULATED)
    names = instances()
    assert {re.match(r"\w+", name)[0] for name in names} == kernels()
    # Bits and elements of 1, 2 and 4 bytes, whole, cropped and resized.
    assert len([name for name in names if name.startswith("decode_kernel<")]) == 12
