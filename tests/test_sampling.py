"""Random points and boxes, against dense masks, on every backend."""

import draws
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import sa1b_fastdecode as fd
from sa1b_fastdecode.sampling import _REGIONS, interior_points, sample_boxes, sample_points

ops = torch.ops.sa1b_fastdecode


def region_of(mask, region):
    """Return the bool mask of a region."""
    mask = np.asarray(mask, bool)
    if region == "foreground":
        return mask
    if region == "background":
        return ~mask
    around = np.pad(mask, 1)  # what is outside the image is outside the mask
    surrounded = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return mask & ~surrounded


def pixels_of(region):
    """Return (pixels, 2): x and y, column by column."""
    return np.argwhere(region.T)


def check_ranks(masks, rles, device, ranks=None):
    """Every rank of every region, unless some are given, in an order that is not theirs."""
    batch = fd.pack_rles(rles).to(device)
    regions = {name: [region_of(mask, name) for mask in masks] for name in _REGIONS}
    areas = ops.boundary_area(batch.data, len(batch))
    assert areas.tolist() == [int(region.sum()) for region in regions["boundary"]]
    for name, number in _REGIONS.items():
        wanted = ranks
        if wanted is None:
            most = max(int(region.sum()) for region in regions[name])
            wanted = np.random.default_rng(0).permutation(most + 3) - 1
        table = torch.from_numpy(np.broadcast_to(wanted, (len(masks), len(wanted))).copy())
        points = ops.pixels_at_ranks(batch.data, len(batch), table.to(device), number)
        assert points.dtype == torch.int64
        for region, found in zip(regions[name], points.cpu().numpy(), strict=True):
            pixels = pixels_of(region)
            inside = (wanted >= 0) & (wanted < len(pixels))
            expected = np.full((len(wanted), 2), -1)
            expected[inside] = pixels[wanted[inside]]
            assert np.array_equal(found, expected), name


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 40), (40, 1), (2, 3), (31, 33), (64, 65), (90, 70)], ids=str
)
def test_pixels_at_ranks(backend, device, size):
    masks = draws.every_kind(*size, seed=4)
    masks += [1 - mask for mask in masks[:2]]
    check_ranks(masks, [draws.to_rle(mask) for mask in masks], device)


@given(drawn=draws.sizes_and_counts())
@settings(max_examples=150)
def test_pixels_at_ranks_property(fast_backend, device, drawn):
    h, w, counts = drawn
    rles = [{"size": [h, w], "counts": counts}]
    check_ranks(fd.decode_rle_batch(rles).numpy(), rles, device)


def test_ranks_of_high_and_wide_masks(backend, device):
    for h, w in ((2**32 - 1, 1), (1, 2**32 - 1), (65535, 65537)):
        batch = fd.pack_rles([{"size": [h, w], "counts": [5, h * w - 8, 3]}]).to(device)
        ranks = torch.tensor([[0, h * w - 9, h * w - 8]])  # of tables, on the CPU
        points = ops.pixels_at_ranks(batch.data, 1, ranks, 0)[0].tolist()
        assert points == [[5 // h, 5 % h], [(h * w - 4) // h, (h * w - 4) % h], [-1, -1]]
        gaps = ops.pixels_at_ranks(batch.data, 1, torch.tensor([[4, 5, 7, 8]]), 1)[0].tolist()
        last = h * w - 1
        assert gaps == [[4 // h, 4 % h], *[[p // h, p % h] for p in (last - 2, last)], [-1, -1]]


# --- Points


@pytest.mark.parametrize("region", _REGIONS)
def test_sample_points(backend, device, region):
    masks = draws.every_kind(33, 47)
    batch = fd.pack_rles([draws.to_rle(mask) for mask in masks]).to(device)
    generator = torch.Generator(device).manual_seed(3)
    points = sample_points(batch, 50, region, generator=generator)
    assert points.shape == (len(masks), 50, 2)
    assert points.dtype == torch.float32
    assert points.device == device
    for mask, found in zip(masks, points.cpu().numpy(), strict=True):
        where = region_of(mask, region)
        if not where.any():
            assert np.isnan(found).all()
            continue
        x, y = found.T.astype(int)
        assert np.array_equal(found, np.stack([x, y], 1))
        assert where[y, x].all()
    again = batch.sample_points(50, region, generator=generator.manual_seed(3))
    assert torch.equal(again.nan_to_num(-1), points.nan_to_num(-1))
    assert sample_points(batch, 0, region).shape == (len(masks), 0, 2)
    assert sample_points(batch[:0], 4, region).shape == (0, 4, 2)


def test_the_same_points_on_every_backend(backend, device):
    """Fixed by the seed alone; torch's generator on the CPU is the same everywhere."""
    on_host = fd.pack_rles([{"size": [100, 100], "counts": [1234, 3000, 100, 999, 4667]}])
    batch = on_host.to(device)
    found = {
        region: sample_points(batch, 2, region, generator=torch.Generator().manual_seed(1)).tolist()
        for region in _REGIONS
    }
    draws_of_torch = torch.randint(2**62, (1, 2), generator=torch.Generator().manual_seed(1))
    for region in _REGIONS:
        pixels = pixels_of(region_of(on_host.decode()[0], region))
        expected = pixels[(draws_of_torch[0] % len(pixels)).numpy()]
        assert found[region] == [expected.tolist()]


@pytest.mark.parametrize("region", _REGIONS)
def test_points_are_uniform(region):
    """Chi-squared over the pixels of a mask, from one seed."""
    mask = draws.blobs(np.random.default_rng(9), 12, 9)
    where = region_of(mask, region)
    n = 400 * int(where.sum())
    points = sample_points(
        fd.encode_masks(mask), n, region, generator=torch.Generator().manual_seed(0)
    )
    x, y = points[0].long().T
    counts = np.bincount(y * 9 + x, minlength=108).reshape(12, 9)
    assert (counts[~where] == 0).all()
    statistic = ((counts[where] - 400) ** 2 / 400).sum()
    freedom = int(where.sum()) - 1
    assert abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5


def test_points_of_a_grouped_batch(backend, device):
    rles = [draws.to_rle(mask) for mask in draws.every_kind(9, 9)]
    grouped = fd.pack_rles([rles[:2], [], rles[2:]]).to(device)
    seeds = [torch.Generator().manual_seed(5) for _ in range(2)]
    found = grouped.sample_points(3, generator=seeds[0])
    assert torch.equal(
        found.nan_to_num(-1), grouped.flat().sample_points(3, generator=seeds[1]).nan_to_num(-1)
    )


# --- The most interior pixel


def interior_of(mask):
    """Return x, y and distance: how often the mask can lose all pixels beside others."""
    distance = np.zeros(mask.shape, int)
    left = np.asarray(mask, bool)
    while left.any():
        distance += left
        padded = np.pad(left, 1)
        shifted = [
            padded[y : y + mask.shape[0], x : x + mask.shape[1]] for y, x in np.ndindex(3, 3)
        ]
        left = np.logical_and.reduce(shifted)
    if not mask.any():
        return [-1, -1, 0]
    x, y = np.argwhere(distance.T == distance.max())[0]
    return [x, y, distance.max()]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (31, 33), (64, 65), (90, 70)], ids=str)
def test_interior_points(cpu_backend, device, size):
    masks = draws.every_kind(*size, seed=6)
    masks += [1 - mask for mask in masks]
    batch = fd.pack_rles([draws.to_rle(mask) for mask in masks]).to(device)
    points, distance = interior_points(batch)
    assert (points.dtype, distance.dtype) == (torch.float32, torch.int64)
    expected = [interior_of(mask) for mask in masks]
    found = torch.cat([points.nan_to_num(-1), distance[:, None]], 1)
    assert found.tolist() == expected


@given(drawn=draws.sizes_and_counts(), other=draws.sizes_and_counts())
@settings(max_examples=150)
def test_interior_points_property(cpu_backend, drawn, other):
    """Two masks one after the other, so that nothing of the first may be left."""
    rles = [{"size": [h, w], "counts": counts} for h, w, counts in (drawn, other)]
    found = ops.interior_points(fd.pack_rles(rles).data, 2)
    assert found.tolist() == [interior_of(fd.decode_rle_batch(rle).numpy()[0]) for rle in rles]


def test_interior_points_of_wide_and_high_masks(cpu_backend):
    points, distance = interior_points({"size": [3, 2**20], "counts": [0, 3 * 2**20]})
    assert (points.tolist(), distance.tolist()) == ([[1, 1]], [2])
    high = {"size": [2**24 + 1, 1], "counts": [2**24 + 1]}
    with pytest.raises(ValueError, match=r"mask 1 has more than 2\*\*24 rows"):
        interior_points([{"size": [2, 2], "counts": [4]}, high])


# --- Boxes


def test_sample_boxes(backend, device):
    masks = [mask for mask in draws.every_kind(200, 300) if mask.any()]
    batch = fd.pack_rles([draws.to_rle(mask) for mask in masks]).to(device)
    x, y, w, h = batch.bbox().unbind(1)
    exact = torch.stack([x, y, x + w, y + h], 1)
    assert torch.equal(sample_boxes(batch, scale=0), exact)
    assert torch.equal(sample_boxes(batch, limit=0), exact)
    generator = torch.Generator(device).manual_seed(0)
    boxes = sample_boxes(batch, 0.3, 15, generator=generator)
    assert torch.equal(boxes, sample_boxes(batch, 0.3, 15, generator=generator.manual_seed(0)))
    assert (boxes != exact).any()
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([300, 200, 300, 200], device=device)).all()
    assert (boxes[:, :2] <= boxes[:, 2:]).all()
    large = (w > 100) & (h > 100)
    assert ((boxes - exact).abs()[large] <= 15).all()


def test_noise_of_boxes():
    """As wide as was asked for, in proportion to the box."""
    mask = np.zeros((1000, 1000), np.uint8)
    mask[300:700, 400:600] = 1
    batch = fd.RLEBatch.cat([fd.encode_masks(mask)] * 4000)
    boxes = sample_boxes(batch, 0.05, 1000, generator=torch.Generator().manual_seed(0))
    noise = boxes - torch.tensor([400.0, 300.0, 600.0, 700.0])
    assert noise.mean(0).abs().max() < 1
    assert (noise.std(0) - torch.tensor([10.0, 20.0, 10.0, 20.0])).abs().max() < 1
    limited = sample_boxes(batch, 0.05, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(limited, batch_corners(batch) + noise.clamp(-5, 5))


def batch_corners(batch):
    x, y, w, h = batch.bbox().unbind(1)
    return torch.stack([x, y, x + w, y + h], 1)


def test_boxes_of_empty_masks(backend, device):
    rles = [{"size": [4, 5], "counts": c} for c in ([20], [0, 20])]
    boxes = sample_boxes(fd.pack_rles(rles).to(device), scale=0)
    assert boxes[0].isnan().all()
    assert boxes[1].tolist() == [0, 0, 5, 4]
    assert sample_boxes([]).shape == (0, 4)


# --- What is refused, and as torch sees it


def test_malformed(backend):
    batch = fd.pack_rles([{"size": [2, 3], "counts": [1, 2, 3]}])
    with pytest.raises(ValueError, match="foreground, background, boundary, not 'edge'"):
        sample_points(batch, 3, "edge")
    with pytest.raises(ValueError, match="negative"):
        sample_points(batch, -1)
    with pytest.raises(TypeError):
        sample_points(batch, 1.5)
    for scale, limit in ((-1, 20), (0.1, -1), (float("nan"), 1)):
        with pytest.raises(ValueError, match="scale and limit"):
            sample_boxes(batch, scale, limit)
    with pytest.raises(ValueError, match="mask 0"):
        sample_points({"size": [2, 3], "counts": [1, 2]}, 1)
    pixels_at_ranks = ops.pixels_at_ranks.default
    for ranks in (torch.zeros(1).long(), torch.zeros((2, 1)).long()):
        with pytest.raises(ValueError, match=r"shape \(1, n\)"):
            pixels_at_ranks(batch.data, 1, ranks, 0)
    with pytest.raises(ValueError, match=r"ranks must be 2 .*int64"):
        pixels_at_ranks(batch.data, 1, torch.zeros((1, 2)), 0)
    with pytest.raises(ValueError, match="not meta"):
        pixels_at_ranks(batch.data, 1, torch.zeros((1, 2), device="meta").long(), 0)
    with pytest.raises(ValueError, match="no region 3"):
        pixels_at_ranks(batch.data, 1, torch.zeros((1, 2)).long(), 3)
    for call in (
        lambda n: ops.boundary_area(batch.data, n),
        lambda n: ops.interior_points(batch.data, n),
        lambda n: pixels_at_ranks(batch.data, n, torch.zeros((n, 2)).long(), 0),
    ):
        with pytest.raises(ValueError, match="sizes and offsets"):
            call(2)


@given(string=draws.hostile_strings)
@settings(max_examples=60)
def test_hostile_strings(fast_backend, device, string):
    """Unvalidated bytes give some pixels, all inside the image; a GPU may count some twice."""
    batch = fd.pack_rles({"size": [5, 7], "counts": string}, validate=False).to(device)
    ranks = torch.tensor([[-(2**63), -1, 0, 1, 5, 34, 35, 2**63 - 1]], device=device)
    for region in _REGIONS.values():
        x, y = ops.pixels_at_ranks(batch.data, 1, ranks, region)[0].T
        assert ((x >= -1) & (x < 7) & (y >= -1) & (y < 5)).all()
    area = int(ops.boundary_area(batch.data, 1))
    assert area >= 0
    if device.type == "cpu":
        assert area <= 35
        assert int(ops.interior_points(batch.data, 1)[0, 2]) <= 3


FLAT = fd.pack_rles([draws.to_rle(mask) for mask in draws.every_kind(12, 17)])


@pytest.mark.parametrize("batch", [FLAT, FLAT[:0]], ids=repr)
def test_opcheck(backend, device, batch):
    n, data = len(batch), batch.data.to(device)
    torch.library.opcheck(ops.boundary_area.default, (data, n))
    ranks = torch.arange(4, device=device).expand(n, 4)
    for region in _REGIONS.values():
        torch.library.opcheck(ops.pixels_at_ranks.default, (data, n, ranks, region))


@pytest.mark.parametrize("batch", [FLAT, FLAT[:0]], ids=repr)
def test_opcheck_interior_points(cpu_backend, batch):
    torch.library.opcheck(ops.interior_points.default, (batch.data, len(batch)))


def test_default_device_and_dtype_change_nothing():
    def draw():
        generators = [torch.Generator().manual_seed(1) for _ in range(2)]
        boxes = sample_boxes(FLAT, generator=generators[0])
        return boxes.nan_to_num(-1), FLAT.sample_points(3, generator=generators[1]).nan_to_num(-1)

    expected = draw()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            results = draw()
    finally:
        torch.set_default_dtype(torch.float32)
    for result, wanted in zip(results, expected, strict=True):
        assert result.dtype == wanted.dtype
        assert torch.equal(result, wanted)


def test_compiled():
    torch.compiler.reset()
    compiled = torch.compile(lambda b: b.sample_points(4) + 1, fullgraph=True, backend="eager")
    torch.manual_seed(0)
    expected = FLAT.sample_points(4) + 1
    torch.manual_seed(0)
    assert torch.equal(compiled(FLAT).nan_to_num(-1), expected.nan_to_num(-1))
    torch.compiler.reset()
