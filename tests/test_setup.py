"""What setup.py asks of nvcc. Builds are tested by whoever installs the package."""

import runpy
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
