// Adds the functions behind `sa1b_fastdecode.mask` to a Python module.
#pragma once

#include <pybind11/pybind11.h>

void bind_coco(pybind11::module_& m);
