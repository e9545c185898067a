"""Label maps, suppression, matching and random points."""

from .common import Case, Measure
from .module_operations import OPERATIONS as ALL
from .peers import Contender

OPERATIONS = tuple(ALL)


def test_module(measure: Measure, case: Case, contender: Contender) -> None:
    measure(case, contender)
