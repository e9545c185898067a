"""`sa1b_fastdecode.mask` beside pycocotools and its other replacements."""

from . import face
from .common import Case, Measure
from .peers import Contender

OPERATIONS = (
    "union",
    "intersections",
    "polygons",
    "evaluation",
    "evaluation_ious",
    *(f"call_{call}" for call in face.CALLS),
)


def test_mask(measure: Measure, case: Case, contender: Contender) -> None:
    measure(case, contender)
