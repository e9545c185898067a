"""Benchmarks; `common.py` says what is measured and `peers.py` against whom."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # where real_data is
