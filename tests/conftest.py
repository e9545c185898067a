"""Every test that takes the fixture ``backend`` runs once on each backend that it is about.

One that takes ``device`` as well puts its tensors there, and so runs on the GPU's backends too, if
there is a GPU. The others are about what happens on the CPU. ``pytest --backend NAME`` runs the
tests of one backend.
"""

import contextlib
import importlib
import os
import warnings
import zlib

import pytest
import torch
from cuda_on_cpu import build_module
from hypothesis import HealthCheck, settings

from sa1b_fastdecode import dispatch

# The assertions there explain themselves as well.
pytest.register_assert_rewrite("cases", "loaded")

EMULATED = "cuda-on-cpu"
if EMULATED not in [entry.name for entry in dispatch._TABLE]:
    # The last of the CPU's, so that nothing takes it that was not told to.
    _emulated = dispatch._Entry(EMULATED, "cpu", "emulated", "emulated", build_module.probe)
    dispatch._TABLE = (*dispatch._TABLE, _emulated)

CPU_BACKENDS = tuple(entry.name for entry in dispatch._TABLE if entry.device == "cpu")
DEVICE_BACKENDS = tuple(entry.name for entry in dispatch._TABLE if entry.device != "cpu")
HAS_GPU = torch.cuda.device_count() > 0 or os.environ.get("FAIL_WITHOUT_CUDA") == "1"

# The emulator is slow, and the CUDA kernels know elements by their size only: one type of each.
EMULATED_DTYPES = (torch.uint8, torch.int16, torch.float16, torch.float32, torch.float64)

BACKEND_FIXTURES = ("backend", "fast_backend", "cpu_backend")

# The same examples in every run; the first call of a Numba kernel compiles, so no deadline.
settings.register_profile(
    "tests",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("tests")


def pytest_addoption(parser):
    parser.addoption("--backend", help="run only what takes the fixture `backend`, on this one")


def pytest_generate_tests(metafunc):
    on_gpu = HAS_GPU and "device" in metafunc.fixturenames
    everywhere = CPU_BACKENDS + (DEVICE_BACKENDS if on_gpu else ())
    names = {
        "backend": everywhere,
        "fast_backend": [name for name in everywhere if name != EMULATED],
        "cpu_backend": [name for name in CPU_BACKENDS if name != EMULATED],
    }
    for fixture in BACKEND_FIXTURES:
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, names[fixture], indirect=True)


def pytest_collection_modifyitems(config, items):
    wanted = config.getoption("--backend")
    parameters = [item.callspec.params if hasattr(item, "callspec") else {} for item in items]
    runs = [
        (wanted is None or any(each.get(name) == wanted for name in BACKEND_FIXTURES))
        and (each.get("backend") != EMULATED or each.get("dtype", torch.uint8) in EMULATED_DTYPES)
        for each in parameters
    ]
    config.hook.pytest_deselected(items=[i for i, run in zip(items, runs, strict=True) if not run])
    items[:] = [item for item, run in zip(items, runs, strict=True) if run]


def pytest_configure(config):
    # pycocotools 2.0 warns with NumPy 2 whenever it decodes.
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation:DeprecationWarning")


def available():
    """Return the names of the CPU's backends that can run here."""
    return [
        found.name
        for found in dispatch.backends()
        if found.available and found.device == "cpu" and found.name != EMULATED
    ]


def require(name):
    """Skip, or fail where the environment promises that this backend is there."""
    found = next(backend for backend in dispatch.backends() if backend.name == name)
    if found.available:
        return found
    promised = {
        "cpp": os.environ.get("SA1B_FASTDECODE_REQUIRE_COMPILED") == "1",
        EMULATED: os.environ.get("SA1B_FASTDECODE_REQUIRE_COMPILED") == "1",
        "cuda": os.environ.get("FAIL_WITHOUT_CUDA") == "1",
    }
    if promised.get(name, False):
        pytest.fail(f"backend {name} must be available: {found.detail}")
    pytest.skip(f"backend {name} is not available: {found.detail}")


@contextlib.contextmanager
def poisoned_memory(request):
    """For the emulator: new tensors are full of 255 or NaN, and each test has its own order."""
    if request.param != EMULATED:
        yield
        return
    importlib.import_module("emulated").set_seed(zlib.crc32(request.node.nodeid.encode()))
    torch.use_deterministic_algorithms(True)  # with fill_uninitialized_memory, which is the default
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def backend(request):
    """The name of the backend that the test runs on."""
    yield from _use(request)


def _use(request):
    require(request.param)
    with warnings.catch_warnings():
        # Choosing one that stands in for a missing one warns; here it is chosen on purpose.
        warnings.simplefilter("ignore", RuntimeWarning)
        with dispatch.use(request.param), poisoned_memory(request):
            yield request.param


@pytest.fixture
def fast_backend(request):
    """As ``backend``, for tests of so much work that emulating it takes minutes."""
    yield from _use(request)


@pytest.fixture
def cpu_backend(request):
    """As ``backend``, for operators that no GPU has."""
    yield from _use(request)


@pytest.fixture
def device(request):
    """The device that the backend of this test serves."""
    names = [name for name in BACKEND_FIXTURES if name in request.fixturenames]
    backend = request.getfixturevalue(names[0])
    entry = next(entry for entry in dispatch._TABLE if entry.name == backend)
    return torch.device(entry.device)


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """A folder of two tars of small images, for all tests: none may change it."""
    from sa1b_files import write_tars  # it needs Pillow, which what runs on GPUs does without

    folder = tmp_path_factory.mktemp("sa1b")
    write_tars(folder)
    return folder


@pytest.fixture(scope="session")
def contents(root):
    """What is in each of those tars, by name."""
    from sa1b_files import members

    return [members(tar) for tar in sorted(root.glob("*.tar"))]


@pytest.fixture
def dataset(root):
    """A dataset of both tars."""
    from sa1b_fastdecode.data import SA1BDataset

    return SA1BDataset(root, progress=False)


@pytest.fixture
def own(tmp_path):
    """One tar of five images that a test may damage."""
    from sa1b_files import write_tars

    (tar,) = write_tars(tmp_path, [5])
    return tar


@pytest.fixture(autouse=True)
def two_threads():
    """More than one thread by default, so that the tests run what users run."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
