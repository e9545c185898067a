"""Every test that takes the fixture ``backend`` runs once on each backend of the library."""

import contextlib
import os
import warnings

import pytest
import torch
from hypothesis import HealthCheck, settings

from sa1b_fastdecode import dispatch

pytest.register_assert_rewrite("cases")  # the assertions there explain themselves as well

CPU_BACKENDS = tuple(entry.name for entry in dispatch._TABLE if entry.device == "cpu")
DEVICE_BACKENDS = tuple(entry.name for entry in dispatch._TABLE if entry.device != "cpu")

# The same examples in every run; the first call of a Numba kernel compiles, so no deadline.
settings.register_profile(
    "tests",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("tests")


def pytest_configure(config):
    # pycocotools 2.0 warns with NumPy 2 whenever it decodes.
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation:DeprecationWarning")


def available():
    """Return the names of the backends that can run here."""
    return [found.name for found in dispatch.backends() if found.available]


def require(name):
    """Skip, or fail where the environment promises that this backend is there."""
    found = next(backend for backend in dispatch.backends() if backend.name == name)
    if found.available:
        return found
    promised = {
        "cpp": os.environ.get("SA1B_FASTDECODE_REQUIRE_COMPILED") == "1",
        "cuda": os.environ.get("FAIL_WITHOUT_CUDA") == "1",
    }
    if promised.get(name if found.device == "cpu" else "cuda", False):
        pytest.fail(f"backend {name} must be available: {found.detail}")
    pytest.skip(f"backend {name} is not available: {found.detail}")


@contextlib.contextmanager
def running_on(name):
    """Choose a backend, or skip where it is missing."""
    require(name)
    with warnings.catch_warnings():
        # Choosing one that stands in for a missing one warns; here it is chosen on purpose.
        warnings.simplefilter("ignore", RuntimeWarning)
        with dispatch.use(name):
            yield name


@pytest.fixture(params=CPU_BACKENDS + DEVICE_BACKENDS)
def backend(request):
    """The name of the backend that the test runs on."""
    with running_on(request.param) as name:
        yield name


@pytest.fixture(params=CPU_BACKENDS)
def cpu_backend(request):
    """The same for what runs on the CPU alone."""
    with running_on(request.param) as name:
        yield name


@pytest.fixture
def device(backend):
    """The device that the backend of this test serves."""
    entry = next(entry for entry in dispatch._TABLE if entry.name == backend)
    return torch.device(entry.device)


@pytest.fixture(autouse=True)
def two_threads():
    """More than one thread by default, so that the tests run what users run."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
