"""Masks made of masks take ten times their compressed size and a megabyte at most.

Of masks of 7072 x 7072 that are 50 MB each when dense, and of noise; what counts are the strings
that go in and those that come out.
"""

from test_memory import pytestmark, run  # noqa: F401

CODE = """
def noise(h, w):
    mask = np.random.default_rng(0).integers(0, 2, (h, w), np.uint8)
    return fd.encode_masks(mask)


def discs(seed, n=40):
    rng, side = np.random.default_rng(seed), 7072
    return fd.algebra.merge([disc(side, *rng.integers(500, side - 500, 2), 400) for _ in range(n)])


def disc(side, y, x, r):
    half = np.sqrt(r * r - np.arange(-r + 1, r) ** 2.0).astype(int)
    starts = np.arange(x - r + 1, x + r) * side + y - half
    bounds = np.stack([starts, starts + 2 * half + 1], 1).reshape(-1)
    counts = np.diff(np.concatenate([[0], bounds, [side * side]]))
    return {"size": [side, side], "counts": counts}


calls = {
    "union": lambda a, b: a | b,
    "intersection": lambda a, b: a & b,
    "difference": lambda a, b: a - b,
    "xor": lambda a, b: a ^ b,
    "complement": lambda a, b: ~a,
    "merge": lambda a, b: a.merge(),
    "merge, xor": lambda a, b: a.merge(how="xor"),
    "merge, intersection": lambda a, b: a.merge(how="intersection"),
    "crop": lambda a, b: a.crop((a.height // 3, 5, a.height // 2, a.width - 9)),
    "pad": lambda a, b: a.pad((a.height + 9, a.width + 7)),
    "translate": lambda a, b: a.translate((100, -33)),
    "resize": lambda a, b: a.resize((a.height // 2, a.width * 2)),
    "horizontal": lambda a, b: a.flip("horizontal"),
    "vertical": lambda a, b: a.flip("vertical"),
    "rot90": lambda a, b: a.rot90(),
    "rot180": lambda a, b: a.rot90(2),
    "rot270": lambda a, b: a.rot90(3),
}
small = fd.pack_rles([disc(200, 100, 100, 50)] * 3)
full = {"size": [7072, 7072], "counts": [0, 7072**2]}
masks = {
    "discs": (discs(1), discs(2)),
    "many": (fd.RLEBatch.cat([discs(i, 5) for i in range(6)]), discs(7)),
    "full": (fd.pack_rles([full] * 3), discs(1)),
    "noise": (noise(1000, 1000), noise(1000, 1000)),
}
for (of, (batch, other)), (name, call) in itertools.product(masks.items(), calls.items()):
    call(small, small)
    gc.collect()
    peak, result = peak_of(lambda: call(batch, other))
    strings = batch.data.numel() + result.data.numel()
    if name in ("union", "intersection", "difference", "xor"):
        strings += other.data.numel()
    limit = 10 * strings + 1e6
    assert peak <= limit, f"{name} of {of}: {peak / 1e6:.2f} MB for {strings / 1e6:.2f}"
"""


def test_peak_memory(cpu_backend):
    run(cpu_backend, CODE)
