"""The tests of the operators must have a cell for everything that the library offers.

What there is, is read from the library itself; what is tested, from the parameters of the tests. A
new operator, keyword, dtype or backend fails here until the suite exercises it.
"""

import inspect

import conftest
import pytest
import test_algebra
import test_decode
import test_encode
import test_labels
import test_matching
import test_pairwise
import test_regions
import test_sampling
import torch
from hypothesis import given

import sa1b_fastdecode as fd
from sa1b_fastdecode import RLEBatch, dispatch
from sa1b_fastdecode.library import ELEMENTS, VALUES

# Which test runs each operator; it must take the fixtures `backend` and `device`.
TEST_OF_OPERATOR = {
    "decode": test_decode.test_decode,
    "decode_bits": test_decode.test_decode_bits,
    "decode_out": test_decode.test_decode_out,
    "area": test_regions.test_regions,
    "bbox": test_regions.test_regions,
    "centroid": test_regions.test_regions,
    "encode": test_encode.test_encode,
    "intersection": test_pairwise.test_pairwise,
    "iou": test_pairwise.test_pairwise,
    "containment": test_pairwise.test_pairwise,
    "intersecting_pairs": test_pairwise.test_intersecting_pairs,
    "combine": test_algebra.test_mask_by_mask,
    "place": test_algebra.test_every_operator_that_moves_pixels,
    "turn": test_algebra.test_every_operator_that_moves_pixels,
    "paint_labels": test_labels.test_to_label_map,
    "split_labels": test_labels.test_from_label_map,
    "suppress": test_matching.test_nms,
    "match": test_matching.test_match_greedy_is_cocos,
    "boundary_area": test_sampling.test_pixels_at_ranks,
    "pixels_at_ranks": test_sampling.test_pixels_at_ranks,
    "interior_points": test_sampling.test_interior_points,
}

# The operators of fd.algebra. Its functions: each in a case of one of the two tests above.
ALGEBRA = {"combine", "place", "turn"}
ALGEBRA_FUNCTIONS = {
    *test_algebra.PAIRED,
    *("complement", "crop", "flip", "merge", "pad", "resize", "rot90", "translate"),
}

# Where the arguments of the operators come from: from the batch, or from keywords of `decode`.
KEYWORDS_OF_ARGUMENT = {
    "data": (),
    "num_masks": (),
    "num_images": (),
    "planes": ("select",),
    "crops": ("crop",),
    "resize": ("size",),
    "shape": ("pad", "size", "crop", "select"),
    "dtype": ("dtype",),
    "out": ("out",),
    "num_threads": ("num_threads",),
    "masks": (),
}

# The same for the operators of pairs, whose methods take another batch.
KEYWORDS_OF_PAIR_ARGUMENT = {
    "data": (),
    "num_masks": (),
    "other": ("other",),
    "num_other": ("other",),
    "num_images": (),
    "iscrowd": ("iscrowd",),
    "shape": (),
}

# The operators whose functions are in modules of their own.
OPERATORS_OF_MODULE = {
    "labels": ("paint_labels", "split_labels"),
    "matching": ("suppress", "match"),
    "sampling": ("boundary_area", "pixels_at_ranks", "interior_points"),
}
MODULE_OPERATORS = {name for names in OPERATORS_OF_MODULE.values() for name in names}
PAIR_OPERATORS = ("intersection", "iou", "containment", "intersecting_pairs")

# Functions of the package that compute something, and the operators behind them.
OPERATORS_OF_FUNCTION = {
    "decode_rle_batch": ("decode", "decode_out"),
    "mask_area": ("area",),
    "mask_bbox": ("bbox",),
    "mask_centroid": ("centroid",),
    "encode_masks": ("encode",),
    "mask_intersection": ("intersection",),
    "mask_iou": ("iou",),
    "mask_containment": ("containment",),
    "mask_intersecting_pairs": ("intersecting_pairs",),
}
METHODS_ONLY = {"decode_bits"}
NOT_OPERATORS = {"RLEBatch", "__version__", "active_backend", "backends", "pack_rles"}


def operators():
    """Return the schemas of all registered operators by name."""
    prefix = "sa1b_fastdecode::"
    return {
        schema.name.removeprefix(prefix): schema
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith(prefix)
    }


def keywords(function, leaving_out=("self", "rles", "device", "validate")):
    return set(inspect.signature(function).parameters) - set(leaving_out)


def parameters(test, name):
    """Return the values that a test is parametrised with."""
    for mark in test.pytestmark:
        if mark.name == "parametrize" and mark.args[0] == name:
            return list(mark.args[1])
    raise AssertionError(f"{test.__name__} is not parametrised over {name}")


def test_every_operator_has_a_test():
    assert set(operators()) == set(TEST_OF_OPERATOR)


@pytest.mark.parametrize("name", TEST_OF_OPERATOR)
def test_every_operator_runs_on_every_backend(name):
    fixtures = set(inspect.signature(TEST_OF_OPERATOR[name]).parameters)
    on_gpus = {"backend", "device"} <= fixtures
    assert on_gpus or (name in ALGEBRA | MODULE_OPERATORS and fixtures & {"backend", "cpu_backend"})
    backends = [*conftest.CPU_BACKENDS, *conftest.DEVICE_BACKENDS]
    assert sorted(entry.name for entry in dispatch._TABLE) == sorted(backends)


@pytest.mark.parametrize("name", ["decode", "decode_out"])
def test_every_dtype_and_keyword_is_decoded(name):
    test = TEST_OF_OPERATOR[name]
    assert set(parameters(test, "dtype")) == set(ELEMENTS)
    exercised = {keyword for case in parameters(test, "case") for keyword in case.keywords}
    # The two that are no part of a case: the one is a parameter of the tests, the other a test.
    assert keywords(RLEBatch.decode) == exercised | {"dtype", "out"}


def test_the_property_test_draws_every_keyword():
    drawn = set()

    @given(test_decode.decodings())
    def draw(decoding):
        drawn.update(decoding.arguments)

    draw()
    assert drawn == keywords(RLEBatch.decode) - {"dtype", "out"}


def test_every_argument_of_the_operators_is_known():
    for name, schema in operators().items():
        if name in ALGEBRA | MODULE_OPERATORS:
            continue
        known = KEYWORDS_OF_PAIR_ARGUMENT if name in PAIR_OPERATORS else KEYWORDS_OF_ARGUMENT
        for argument in schema.arguments:
            assert argument.name in known, f"{name} has a new {argument.name}"
    known = {keyword for group in KEYWORDS_OF_ARGUMENT.values() for keyword in group}
    assert known == keywords(RLEBatch.decode)


@pytest.mark.parametrize("operator", test_regions.REGIONS)
def test_regions_are_parametrised(operator):
    assert operator in parameters(test_regions.test_regions, "operator")
    assert callable(getattr(RLEBatch, operator))


def test_every_dtype_and_layout_is_encoded():
    assert set(parameters(test_encode.test_encode, "dtype")) == set(VALUES)
    assert set(ELEMENTS) <= set(VALUES)
    layouts = list(test_encode.LAYOUTS.values())
    for test in (test_encode.test_encode, test_encode.test_encode_sizes):
        assert parameters(test, "arrange") == layouts
    assert {1} < set(parameters(test_encode.test_encode_split_masks, "num_threads"))
    assert keywords(fd.encode_masks) == {"masks", "num_threads"}


@pytest.mark.parametrize("operator", PAIR_OPERATORS)
def test_pairs_are_parametrised(operator):
    method = getattr(RLEBatch, operator)
    exercised = {"other"}
    test = TEST_OF_OPERATOR[operator]
    if test is test_pairwise.test_pairwise:
        assert operator in parameters(test, "operator")
    assert keywords(method, ("self", "other")) == keywords(
        getattr(fd, f"mask_{operator}"), ("a", "b")
    )
    assert parameters(test, "name") == list(test_pairwise.PAIRS)
    if operator == "iou":
        assert set(parameters(test_pairwise.test_iou_with_crowds, "name")) <= set(
            test_pairwise.PAIRS
        )
        exercised.add("iscrowd")
    assert keywords(method) == exercised
    known = {
        keyword
        for argument in operators()[operator].arguments
        for keyword in KEYWORDS_OF_PAIR_ARGUMENT[argument.name]
    }
    assert known == exercised


def test_methods_and_function_have_the_same_keywords():
    of_method = inspect.signature(RLEBatch.decode).parameters
    of_function = inspect.signature(fd.decode_rle_batch).parameters
    assert keywords(RLEBatch.decode) == keywords(fd.decode_rle_batch)
    for keyword in keywords(RLEBatch.decode):
        assert of_method[keyword].default == of_function[keyword].default
        assert of_method[keyword].kind == of_function[keyword].kind == inspect._KEYWORD_ONLY


def test_every_public_function_is_known():
    assert set(fd.__all__) == set(OPERATORS_OF_FUNCTION) | NOT_OPERATORS
    covered = {name for names in OPERATORS_OF_FUNCTION.values() for name in names}
    assert covered | METHODS_ONLY | ALGEBRA | MODULE_OPERATORS == set(TEST_OF_OPERATOR)


def test_every_function_of_algebra_is_known():
    assert set(fd.algebra.__all__) == ALGEBRA_FUNCTIONS
    for name in ALGEBRA_FUNCTIONS - set(test_algebra.PAIRED) - {"complement"}:
        of_method = inspect.signature(getattr(RLEBatch, name)).parameters
        of_function = inspect.signature(getattr(fd.algebra, name)).parameters
        assert [*of_method][1:] == [*of_function][1:]
        for keyword in [*of_method][1:]:
            assert of_method[keyword].default == of_function[keyword].default
    for name in ALGEBRA_FUNCTIONS:
        assert ">>> " in getattr(fd.algebra, name).__doc__, name


@pytest.mark.parametrize(
    ("function", "method"),
    [
        (fd.labels.to_label_map, RLEBatch.to_label_map),
        (fd.sampling.sample_points, RLEBatch.sample_points),
    ],
)
def test_methods_have_the_keywords_of_their_functions(function, method):
    of_function, of_method = (
        list(inspect.signature(f).parameters.values()) for f in (function, method)
    )
    assert [(p.name, p.kind, p.default) for p in of_function[1:]] == [
        (p.name, p.kind, p.default) for p in of_method[1:]
    ]


def test_every_choice_of_the_modules_is_exercised():
    assert set(parameters(test_labels.test_from_label_map, "dtype")) == set(fd.labels._INTEGERS)
    assert {"smallest", "first", "last"} < {
        choice if isinstance(choice, str) else "numbers"
        for choice in parameters(test_labels.test_to_label_map, "on_top")
    }
    assert set(parameters(test_sampling.test_sample_points, "region")) == set(fd.sampling._REGIONS)
    assert set(parameters(test_matching.test_nms, "metric")) == set(fd.matching._METRICS)
