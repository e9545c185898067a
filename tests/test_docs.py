"""The examples in the docstrings are true, and the README's way to load SA-1B."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest
import torch

import sa1b_fastdecode

# Importing these runs a program or needs what only some machines have.
LEFT_OUT = {"sa1b_fastdecode.__main__", "sa1b_fastdecode._C"}
MODULES = ["sa1b_fastdecode"] + [
    module.name
    for module in pkgutil.walk_packages(sa1b_fastdecode.__path__, "sa1b_fastdecode.")
    if module.name not in LEFT_OUT
]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0


def test_the_public_functions_have_examples():
    functions = ("decode_rle_batch", "pack_rles", "mask_area", "mask_bbox", "mask_centroid")
    for name in (*functions, "encode_masks"):
        assert ">>> " in getattr(sa1b_fastdecode, name).__doc__, name


def test_the_examples_are_found():
    finder = doctest.DocTestFinder()
    modules = [importlib.import_module(name) for name in MODULES]
    assert sum(len(test.examples) for m in modules for test in finder.find(m)) >= 8


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_the_readme_loads_sa1b(root):
    from sa1b_files import IDS  # not on top: it needs Pillow

    readme = (Path(__file__).parents[1] / "README.md").read_text()
    code = readme.split("## Load SA-1B")[1].split("```python\n")[1].split("```")[0]
    assert code.count("\n") <= 10
    for told, here in (
        ('"/data/sa1b"', repr(str(root))),
        ('"cuda"', '"cpu"'),
        ("num_workers=8", "num_workers=1"),
        ("range(10)", "range(2)"),
    ):
        assert told in code
        code = code.replace(told, here)
    shapes = []

    def train(images, masks, counts):
        shapes.append((len(images), *masks.shape, masks.dtype, int(counts.max())))

    exec(code, {"fd": sa1b_fastdecode, "torch": torch, "train": train})
    assert sum(size for size, *_ in shapes) == 2 * len(IDS)
    for size, *shape, dtype, most in shapes:
        assert (shape, dtype) == ([size, most, 256, 256], torch.float32)
