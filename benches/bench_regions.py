"""Area and bounding box, of masks that were parsed before and of dicts."""

from .common import Case, Measure
from .peers import Contender

OPERATIONS = ("area", "bbox", "area_of_dicts", "bbox_of_dicts")


def test_regions(measure: Measure, case: Case, contender: Contender) -> None:
    measure(case, contender)
