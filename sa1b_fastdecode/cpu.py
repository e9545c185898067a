"""The operators on the CPU: outputs are torch's, the kernels get addresses.

The kernels are a module with the functions of ``_C.pyi``, compiled or of Numba.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sa1b_fastdecode import elements
from sa1b_fastdecode.status import NOT_GROUPED, raise_for

# Outputs from this size on get their memory from the kernels' ZeroPages: it reads as zero, so that
# only what lies inside a mask's box is ever written.
_FRESH_BYTES = 4 << 20

# No machine has more; below it sizes do not overflow on their way to the allocator.
_MAX_BYTES = 1 << 56

# From here on memory for the header of a block is no matter of course.
_MANY_MASKS = 1 << 20

# Room for that many pairs, never touched unless they are found: 400 MB of addresses. More than that
# are found twice, the first time to count them.
_MOST_PAIRS = 1 << 24
