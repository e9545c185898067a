"""What is said when a CUDA kernel could not be launched."""

from types import SimpleNamespace

import pytest
import torch

from sa1b_fastdecode.cuda import Operators


def fail_with(status):
    """Ask kernels for areas that return this status."""
    native = SimpleNamespace(regions=None, describe=lambda code: f"the driver's text of {code}")
    operators = Operators(SimpleNamespace(cuda=native))
    operators._launch = lambda *arguments: status
    operators.regions(torch.zeros(8, dtype=torch.uint8), 0, None, None, None)


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (2, "free memory of the GPU"),
        (35, "update NVIDIA's driver"),
        (100, "nvidia-smi"),
        (209, "TORCH_CUDA_ARCH_LIST"),
    ],
)
def test_what_to_do(status, advice):
    text = f"CUDA error {status} in sa1b_fastdecode: the driver's text of {status}; .*{advice}"
    with pytest.raises(RuntimeError, match=text):
        fail_with(status)


def test_without_advice():
    with pytest.raises(RuntimeError, match=r"CUDA error 700 .*: the driver's text of 700$"):
        fail_with(700)
