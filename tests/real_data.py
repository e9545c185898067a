"""Real annotations for tests and benchmarks: beside the project, on machines that have them."""

from pathlib import Path

import pytest

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SA1B_FILE = REAL_DATA / "sa1b" / "sa_226381.json"  # an image of SA-1B, 113 masks

needs_real_data = pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"{REAL_DATA} is not there")
