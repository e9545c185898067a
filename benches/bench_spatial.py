"""Features between the masks of an image, the tree of what is part of what, and overlays."""

from .common import Case, Measure
from .peers import Contender

OPERATIONS = ("spatial_features", "containment_tree", "overlay")


def test_spatial(measure: Measure, case: Case, contender: Contender) -> None:
    measure(case, contender)
