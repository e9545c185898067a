"""The truth in the plainest Python and NumPy: slow, and short enough to be checked by eye.

A run-length encoded mask is a list of counts: lengths of runs, background first, in column-major
order. Nothing here shares code or ideas with the library.
"""

import numpy as np

# The integer that all element types can hold; tests convert to the type they ask for.
Mask = np.ndarray


def string_to_counts(string):
    """Return the counts of a compressed string (str or bytes)."""
    characters = string.encode() if isinstance(string, str) else bytes(string)
    counts = []
    value, place = 0, 0
    for character in characters:
        bits = character - 48
        value += (bits % 32) * 32**place
        place += 1
        if bits >= 32:  # more characters follow
            continue
        if bits >= 16:  # the last character's highest payload bit is the sign
            value -= 32**place
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value, place = 0, 0
    return counts


def counts_to_string(counts):
    """Return the shortest compressed string (bytes) of some counts."""
    characters = []
    for i, count in enumerate(counts):
        value = int(count) - (int(counts[i - 2]) if i > 2 else 0)
        while True:
            low, value = value % 32, value // 32
            if value == (-1 if low >= 16 else 0):  # all the rest is the sign
                break
            characters.append(48 + 32 + low)
        characters.append(48 + low)
    return bytes(characters)


def mask_to_counts(mask):
    """Return the canonical counts of a mask (h, w): no zero run but perhaps the first."""
    counts, current = [0], 0
    for pixel in np.asarray(mask, bool).T.ravel():
        if pixel != current:
            counts.append(0)
            current = pixel
        counts[-1] += 1
    return counts


def decode(counts, h, w):
    """Return the uint8 mask (h, w) of some counts."""
    pixels = []
    for i, count in enumerate(counts):
        pixels.extend([i % 2] * count)
    return np.array(pixels, np.uint8).reshape(w, h).T


def area(mask):
    return int(mask.sum())


def bbox(mask):
    """Return x, y, w, h of the smallest box around the mask; zeros if it is empty."""
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        return (0, 0, 0, 0)
    x, y = columns.min(), rows.min()
    return (x, y, columns.max() + 1 - x, rows.max() + 1 - y)


def centroid(mask):
    """Return the mean y and x of the mask's pixels, NaN if there are none."""
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        return (np.nan, np.nan)
    # Exact integer sums, one division in float64, one rounding to float32.
    n = len(rows)
    return tuple(np.float32(int(at.sum()) / n) for at in (rows, columns))


def intersection(a, b):
    return int((a & b).sum())


def iou(a, b, crowd=False):
    """Return intersection over union, 0 for a union of 0; a crowd's union is the area of ``a``."""
    shared = intersection(a, b)
    union = area(a) if crowd else area(a) + area(b) - shared
    return np.float32(shared / union) if union else np.float32(0)


def containment(a, b):
    """Return how much of ``b`` lies in ``a``, 0 if ``b`` is empty."""
    return np.float32(intersection(a, b) / area(b)) if area(b) else np.float32(0)


def pairs(function, a, b, dtype):
    """Return (N, M) of a function of each mask of ``a`` and each of ``b``."""
    values = [[function(x, y) for y in b] for x in a]
    return np.array(values, dtype).reshape(len(a), len(b))


def pairs_of_images(function, a, b, dtype):
    """Return (B, max N, max M) of lists of masks, one an image, padded with zeros."""
    most = [max((len(image) for image in images), default=0) for images in (a, b)]
    batch = np.zeros((len(a), *most), dtype)
    for k, (rows, columns) in enumerate(zip(a, b, strict=True)):
        batch[k, : len(rows), : len(columns)] = pairs(function, rows, columns, dtype)
    return batch


def nearest_indices(length, out_length):
    """Return the source index that nearest resizing shows at each output index."""
    scale = np.float32(length) / np.float32(out_length)
    at = (np.arange(out_length, dtype=np.float32) + np.float32(0.5)) * scale
    return np.minimum(np.floor(at), length - 1).astype(np.int64)


def resize(mask, size):
    if 0 in mask.shape:  # a window of nothing shows nothing
        return np.zeros(size, np.uint8)
    rows, columns = (nearest_indices(*pair) for pair in zip(mask.shape, size, strict=True))
    return mask[np.ix_(rows, columns)]


def crop(mask, window):
    y, x, h, w = window
    return mask[y : y + h, x : x + w]


def pad(mask, size):
    """Return the mask with zeros below and on the right."""
    padded = np.zeros(size, mask.dtype)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    return padded


def stack(masks, size):
    """Return (N, H, W) of masks of different sizes, padded to ``size``."""
    return np.array([pad(mask, size) for mask in masks], np.uint8).reshape(len(masks), *size)


def stack_images(images, size):
    """Return (B, max N, H, W) of lists of masks, one an image, padded with zeros."""
    most = max((len(image) for image in images), default=0)
    batch = np.zeros((len(images), most, *size), np.uint8)
    for i, image in enumerate(images):
        batch[i, : len(image)] = stack(image, size)
    return batch
