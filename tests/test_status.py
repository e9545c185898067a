"""The constants of Python are those of the compiled kernels."""

from conftest import require

from sa1b_fastdecode import status


def test_python_and_cpp_have_the_same_constants():
    require("cpp")
    from sa1b_fastdecode import _C

    assert _C.constants == {name: value for name, value in vars(status).items() if name.isupper()}
