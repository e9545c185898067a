"""Intersection over union and containment of pairs of masks."""

from .common import Case, Measure
from .peers import Contender

OPERATIONS = ("iou", "iou_with_another", "iou_of_dicts", "containment")


def test_pairs(measure: Measure, case: Case, contender: Contender) -> None:
    measure(case, contender)
