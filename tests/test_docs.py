"""The examples in the docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

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
