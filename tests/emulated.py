"""A backend for the tests: the CUDA kernels on the CPU, behind the operators that a GPU has.

It has a kernel module's functions, those of the host from the compiled kernels.
"""

import importlib.util

from cuda_on_cpu import build_module

from sa1b_fastdecode import _C, cpu
from sa1b_fastdecode._C import *  # noqa: F403
from sa1b_fastdecode.cuda import Operators as CudaOperators


def _load():
    spec = importlib.util.spec_from_file_location("_cuda_on_cpu", build_module.MODULE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_module = _load()
set_seed = _module.set_seed
take_launched = _module.take_launched


class Operators(CudaOperators):
    """Those of a GPU; what only the CPU has, reading arrays of NumPy, from there."""

    def __init__(self, kernels):
        super().__init__(_module)
        on_cpu = cpu.Operators(_C)
        self.encode_memory, self.split_memory = on_cpu.encode_memory, on_cpu.split_memory

    def _launch(self, launcher, data, *arguments):
        return launcher(0, 0, *arguments)
