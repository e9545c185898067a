"""Masks to test with: plain draws, and hypothesis strategies that shrink to small ones."""

import numpy as np
from hypothesis import strategies as st
from reference import counts_to_string, mask_to_counts

# Sides around the widths of words, and the smallest ones.
EDGE_SIDES = (1, 2, 31, 32, 33, 63, 64, 65)


def blobs(rng, h, w, discs=3):
    """A union of discs, some across the border."""
    rows, columns = np.mgrid[:h, :w]
    mask = np.zeros((h, w), bool)
    for _ in range(discs):
        y, x, r = rng.uniform(0, h), rng.uniform(0, w), rng.uniform(0, max(h, w) / 3)
        mask |= (rows - y) ** 2 + (columns - x) ** 2 <= r * r
    return mask.astype(np.uint8)


def noise(rng, h, w):
    return rng.integers(0, 2, (h, w), np.uint8)


def empty(rng, h, w):
    return np.zeros((h, w), np.uint8)


def full(rng, h, w):
    return np.ones((h, w), np.uint8)


def one_pixel(rng, h, w):
    mask = np.zeros((h, w), np.uint8)
    mask[rng.integers(h), rng.integers(w)] = 1
    return mask


def last_pixel(rng, h, w):
    mask = np.zeros((h, w), np.uint8)
    mask[-1, -1] = 1
    return mask


def rows_on_and_off(rng, h, w):
    return np.broadcast_to((np.arange(h) % 2)[:, None], (h, w)).astype(np.uint8)


def columns_on_and_off(rng, h, w):
    """Starts with foreground, so the first count is 0; each run crosses into the next column."""
    return np.broadcast_to(1 - np.arange(w) % 2, (h, w)).astype(np.uint8)


def across_columns(rng, h, w):
    """Few long runs that begin and end in the middle of columns."""
    flat = np.zeros(h * w, np.uint8)
    for _ in range(3):
        begin, end = sorted(rng.integers(0, h * w + 1, 2))
        flat[begin:end] ^= 1
    return flat.reshape(w, h).T


KINDS = (
    blobs,
    noise,
    empty,
    full,
    one_pixel,
    last_pixel,
    rows_on_and_off,
    columns_on_and_off,
    across_columns,
)


def to_rle(mask, counts="bytes"):
    """Return the COCO RLE dict of a mask (h, w)."""
    values = mask_to_counts(mask)
    string = values if counts == "list" else counts_to_string(values)
    return {"size": list(mask.shape), "counts": string.decode() if counts == "str" else string}


def every_kind(h, w, seed=0):
    """Return one mask (h, w) of every kind."""
    rng = np.random.default_rng(seed)
    return [kind(rng, h, w) for kind in KINDS]


sides = st.one_of(st.integers(1, 12), st.sampled_from(EDGE_SIDES))


@st.composite
def counts_of(draw, h, w):
    """Draw counts that add up to h*w, zero-length runs anywhere."""
    cuts = draw(st.lists(st.integers(0, h * w), max_size=24).map(sorted))
    return [b - a for a, b in zip([0, *cuts], [*cuts, h * w], strict=True)]


@st.composite
def sizes_and_counts(draw, side=sides):
    """Draw (h, w) and counts of a mask of that size."""
    h, w = draw(side), draw(side)
    return h, w, draw(counts_of(h, w))


# Bytes that look like counts most of the time, so that decoding goes on past the first character.
hostile_strings = st.one_of(
    st.binary(max_size=40),
    st.lists(st.integers(48, 111), max_size=40).map(bytes),
    st.lists(st.integers(44, 116), max_size=40).map(bytes),
)
