"""`sa1b_fastdecode.mask` in the place of `pycocotools.mask`, and what its import costs."""

import subprocess
import sys

import pytest

from sa1b_fastdecode import mask


def run(code, *arguments):
    """Run code in a new process; return what it printed."""
    code = f"import sys\nsys.path[:0] = {sys.path!r}\n" + code
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def installed():
    mask.install()
    yield
    mask.uninstall()


def test_every_form_of_import(installed):
    import importlib

    import pycocotools.mask
    from pycocotools import mask as imported
    from pycocotools.mask import decode

    assert pycocotools.mask is imported is mask is importlib.import_module("pycocotools.mask")
    assert decode is mask.decode


def test_install_and_uninstall_twice():
    import pycocotools.mask

    before = pycocotools.mask
    assert before is not mask
    for _ in range(2):
        mask.install()
        mask.install()
        assert sys.modules["pycocotools.mask"] is pycocotools.mask is mask
        mask.uninstall()
        mask.uninstall()
        assert sys.modules["pycocotools.mask"] is pycocotools.mask is before


def test_before_anything_was_imported():
    code = """
from sa1b_fastdecode import mask
mask.install()
import pycocotools.coco
assert pycocotools.coco.maskUtils is mask
mask.uninstall()
assert "mask" not in vars(sys.modules["pycocotools"])
import pycocotools.mask
assert pycocotools.mask is not mask
"""
    run(code)


def test_where_pycocotools_is_not_installed():
    code = """
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pycocotools":
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Missing())
from sa1b_fastdecode import mask
for _ in range(2):
    mask.install()
    import importlib.util
    import pycocotools.mask
    assert pycocotools.mask is mask
    assert importlib.util.find_spec("pycocotools") is not None
    mask.uninstall()
    assert "pycocotools" not in sys.modules and "pycocotools.mask" not in sys.modules
"""
    run(code)


def test_import_needs_neither_torch_nor_numba():
    code = """
from sa1b_fastdecode import mask
import numpy as np
rle = mask.encode(np.eye(3))
mask.decode([rle]), mask.area(rle), mask.toBbox(rle), mask.merge([rle, rle])
mask.iou([rle], [rle], [0]), mask.nms([rle], [1]), mask.frPyObjects([0, 0, 1, 1], 3, 3)
mask.area({"size": [2, 3], "counts": [1, 5]})
try: mask.area({"size": [2, 3], "counts": "1"})
except ValueError: pass
print(*sorted({"torch", "numba", "pycocotools"} & set(sys.modules)))
"""
    pytest.importorskip("sa1b_fastdecode._C")
    assert run(code).split() == []


SCRIPT = """
import sys
from pycocotools import mask
print(mask.__name__, __name__, *sys.argv[1:])
import beside
sys.exit(3)
"""


def test_run(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "beside.py").write_text("print('beside')")
    command = [sys.executable, "-m", "sa1b_fastdecode", "run"]
    done = subprocess.run(
        [*command, tmp_path / "script.py", "--flag", "1"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout.split() == ["sa1b_fastdecode.mask", "__main__", "--flag", "1", "beside"]
    assert done.returncode == 3
    done = subprocess.run(
        [*command, tmp_path / "missing.py"], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 2
    assert "missing.py" in done.stderr
