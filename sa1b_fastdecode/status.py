"""The constants that Python and the kernels share; C++ has them in launch.h and rle_format.h."""

OK = -1
BAD_HEADER = -2  # sizes or offsets that do not fit the block
BAD_PLANE = -3  # a plane that shows no mask of the batch
BAD_WINDOW = -4  # a crop outside its mask, or a plane smaller than its mask
BAD_SHAPE = -5  # sizes that no mask has
MIXED_SIZES = -6  # masks of different sizes, which cannot be compared
BAD_LABEL = -7  # an unsigned label of 2**63 or more

NOT_GROUPED = -1  # in place of a number of images: all pairs are compared

# What `pairwise` computes.
INTERSECTION, IOU, CONTAINMENT = range(3)

MAX_CHARS_PER_COUNT = 7  # 35 bits: any count below 2**32 and its sign
MAX_PIXELS = 2**32 - 1  # of one mask


class MixedSizesError(ValueError):
    """Masks of different sizes; whoever knows which they are says so."""


def raise_for(status: int) -> None:
    """Raise what a kernel's status stands for, if it is not that all went well."""
    if status == OK:
        return
    if status == BAD_PLANE:
        raise IndexError("an index is out of range for the masks of the batch")
    if status == BAD_WINDOW:
        raise ValueError("a crop does not lie inside its mask, or a mask does not fit the output")
    if status == MIXED_SIZES:
        raise MixedSizesError("masks of different sizes cannot be compared")
    if status == BAD_LABEL:
        raise ValueError("labels must be below 2**63")
    raise ValueError("data does not hold the sizes and offsets of that many masks")
