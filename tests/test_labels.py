"""Between masks and label maps, against the plainest NumPy, on every backend."""

import draws
import numpy as np
import pytest
import torch
from conftest import EMULATED
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import counts_to_string, mask_to_counts

import sa1b_fastdecode as fd
from sa1b_fastdecode import labels as labels_module
from sa1b_fastdecode.labels import from_label_map, ids_to_rgb, rgb_to_ids, to_label_map

ops = torch.ops.sa1b_fastdecode


# --- The truth


def paint(masks, labels, priorities, background, size):
    """Return (H, W): at a pixel the mask of the highest priority, of equals the first."""
    label_map = np.full(size, background, np.int32)
    for i in sorted(range(len(masks)), key=lambda i: (priorities[i], -i)):
        inside = np.zeros(size, bool)
        inside[: masks[i].shape[0], : masks[i].shape[1]] = masks[i]
        label_map[inside] = labels[i]
    return label_map


def split(label_map, background):
    """Return the labels of a map and the canonical strings of their masks."""
    labels = [label for label in np.unique(label_map).tolist() if label != background]
    return labels, [counts_to_string(mask_to_counts(label_map == label)) for label in labels]


def priorities_of(on_top, masks):
    n = len(masks)
    named = {
        "smallest": [-int(mask.sum()) for mask in masks],
        "first": [0] * n,
        "last": list(range(n)),
    }
    return named[on_top] if isinstance(on_top, str) else list(on_top)


SIZES = [(1, 1), (1, 70), (70, 1), (31, 33), (64, 65), (65, 128), (130, 150)]
ON_TOP = ["smallest", "first", "last", [3, 1, 4, 1, 5, 9, 2, 6, 5]]


# --- Masks to a map


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("on_top", ON_TOP, ids=str)
def test_to_label_map(backend, device, size, on_top):
    masks = draws.every_kind(*size, seed=3)[:9]
    order = np.random.default_rng(5).permutation(9)  # the full mask not always behind the empty one
    masks = [masks[i] for i in order]
    batch = fd.pack_rles([draws.to_rle(mask) for mask in masks]).to(device)
    expected = paint(masks, range(1, 10), priorities_of(on_top, masks), 0, size)
    result = to_label_map(batch, on_top=on_top)
    assert result.dtype == torch.int32
    assert result.device == device
    assert np.array_equal(result.cpu(), expected)
    labels = [5, -7, 2**31 - 1, -(2**31), 0, 300, 300, 1, 2]
    expected = paint(masks, labels, priorities_of(on_top, masks), -9, size)
    result = batch.to_label_map(torch.tensor(labels), on_top=on_top, background=-9)
    assert np.array_equal(result.cpu(), expected)


def test_equal_areas_and_priorities_leave_the_first_on_top(backend, device):
    mask = np.ones((2, 2), np.uint8)
    batch = fd.encode_masks(np.stack([mask] * 3)).to(device)
    for on_top in ("smallest", "first", [1, 1, 1], torch.tensor([0.5, 0.5, 0.25])):
        assert to_label_map(batch, on_top=on_top).unique().tolist() == [1]
    assert to_label_map(batch, on_top="last").unique().tolist() == [3]


@pytest.mark.parametrize("on_top", ["smallest", "first", "last"])
def test_grouped_maps(backend, device, on_top):
    """One map an image; labels begin anew in each; background beside what is smaller."""
    sizes = [(20, 30), (33, 7), (5, 5), (64, 64)]
    images = [draws.every_kind(*size, seed=i)[: 3 + i] for i, size in enumerate(sizes[:2])]
    images += [[], draws.every_kind(*sizes[3])]
    rles = [[draws.to_rle(mask) for mask in image] for image in images]
    batch = fd.pack_rles(rles, image_sizes=sizes).to(device)
    result = to_label_map(batch, on_top=on_top, background=-1)
    expected = [
        paint(masks, range(1, len(masks) + 1), priorities_of(on_top, masks), -1, (64, 64))
        for masks in images
    ]
    assert np.array_equal(result.cpu(), np.stack(expected))
    labels = torch.arange(len(batch)) * 1000
    begin = 0
    for k, masks in enumerate(images):
        values = labels[begin : begin + len(masks)].tolist()
        expected[k] = paint(masks, values, priorities_of(on_top, masks), -1, (64, 64))
        begin += len(masks)
    result = to_label_map(batch, labels, on_top=on_top, background=-1)
    assert np.array_equal(result.cpu(), np.stack(expected))


def test_no_masks(backend, device):
    assert to_label_map([]).shape == (0, 0)
    empty = fd.pack_rles([[], []], image_sizes=[(3, 4), (2, 5)]).to(device)
    assert torch.equal(to_label_map(empty, background=6).cpu(), torch.full((2, 3, 5), 6).int())
    none = fd.pack_rles({"size": [0, 4], "counts": [0]}).to(device)
    assert to_label_map(none).shape == (0, 4)


def test_columns_higher_than_the_buffer(backend, device):
    """A column of more pixels than are painted at once, and more rows than 16 bits count."""
    h, w = 300_001, 3
    rng = np.random.default_rng(0)
    masks = [draws.across_columns(rng, h, w) for _ in range(4)]
    batch = fd.encode_masks(np.stack(masks)).to(device)
    expected = paint(masks, range(1, 5), [0, 0, 0, 0], 0, (h, w))
    assert np.array_equal(to_label_map(batch, on_top="first").cpu(), expected)


def test_more_masks_than_are_looked_at_at_once(backend, device):
    """Stripes that lie over one another, and one below all that shows between them."""
    h, w, n = 40, 50, 100
    masks = [np.zeros((h, w), np.uint8) for _ in range(n)]
    for i, mask in enumerate(masks):
        mask[i % h, i // 2 % w :] = 1
    masks[n // 3][:, 5:45] = 1
    batch = fd.pack_rles([draws.to_rle(mask) for mask in masks]).to(device)
    for on_top in ("smallest", "first", "last"):
        expected = paint(masks, range(1, n + 1), priorities_of(on_top, masks), 0, (h, w))
        assert np.array_equal(to_label_map(batch, on_top=on_top).cpu(), expected)


def test_parts_of_a_large_plane(backend, device):
    """Threads that begin in the middle of strings."""
    h, w = 700, 3100
    masks = [draws.blobs(np.random.default_rng(i), h, w, 2) for i in range(5)]
    batch = fd.encode_masks(np.stack(masks)).to(device)
    torch.set_num_threads(4)
    expected = paint(masks, range(1, 6), priorities_of("smallest", masks), 0, (h, w))
    assert np.array_equal(to_label_map(batch).cpu(), expected)


# --- A map to masks


def check_split(label_map, background=0):
    """Compare with the truth, and with what painting makes of the result."""
    masks, labels = from_label_map(label_map, background=background)
    if isinstance(label_map, torch.Tensor):
        assert masks.device == labels.device == label_map.device
        label_map = label_map.cpu()
    array = np.asarray(label_map)
    maps = array if array.ndim == 3 else array[None]
    expected = [split(each, background) for each in maps]
    assert labels.dtype == torch.int64
    assert labels.tolist() == [label for found, _ in expected for label in found]
    flat = [rle["counts"] for rle in masks.flat().to_coco("bytes")]
    assert flat == [string for _, strings in expected for string in strings]
    if array.ndim == 3:
        assert masks.counts_per_image.tolist() == [len(found) for found, _ in expected]
        assert masks.image_sizes.tolist() == [list(array.shape[1:])] * len(maps)
    if len(labels) > 0:
        assert masks.sizes.unique(dim=0).tolist() == [list(array.shape[-2:])]
        fd.pack_rles(masks.to_coco())  # valid


DTYPES = list(labels_module._INTEGERS)
ARRANGED = {
    "rows": lambda t: t,
    "columns": lambda t: t.transpose(-1, -2).contiguous().transpose(-1, -2),
    "transposed": lambda t: t.transpose(-1, -2),
    "every second": lambda t: t[..., ::2, 1::2],
    "wide steps": lambda t: torch.stack([t, t], -1)[..., 0],
    "expanded": lambda t: t[..., :1, :].expand(t.shape),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("arrange", ARRANGED.values(), ids=ARRANGED)
def test_from_label_map(backend, device, dtype, arrange):
    rng = np.random.default_rng(1)
    label_map = rng.integers(0, 3, (3, 70, 75)).repeat(2, axis=1)[:, 3:, :]
    label_map[1] *= 50
    label_map = torch.from_numpy(label_map).to(dtype).to(device)
    arranged = arrange(label_map)
    for each in (arranged, arranged[1]):
        check_split(each)
    check_split(arranged[1], background=None)
    check_split(arranged[1], background=50)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("step", [1, -1])
def test_from_label_map_sizes(cpu_backend, size, step):
    """NumPy arrays, also read backwards."""
    h, w = size
    label_map = (np.add.outer(np.arange(h) // 5, np.arange(w) // 3) % 7 - 2).astype(np.int16)
    label_map[h // 2, w // 3 :] = 9
    check_split(label_map[::step, ::step], background=-2)
    check_split(np.asfortranarray(label_map)[::step], background=None)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_from_label_map_tensors(backend, device, size):
    h, w = size
    label_map = torch.arange(h, device=device)[:, None] // 5 + torch.arange(w, device=device) // 3
    label_map = label_map % 7 - 2
    label_map[h // 2, w // 3 :] = 9
    check_split(label_map, background=-2)
    check_split(label_map.mT.contiguous().mT, background=None)
    check_split(torch.zeros(size, dtype=torch.uint8, device=device))
    check_split(torch.ones((3, *size), dtype=torch.uint8, device=device))


def test_many_labels(fast_backend, device):
    """More than 8 or 16 bits hold, each pixel another one."""
    label_map = torch.arange(300 * 260, dtype=torch.int32, device=device).reshape(300, 260) - 5
    masks, labels = from_label_map(label_map, background=None)
    assert labels.tolist() == list(range(-5, 300 * 260 - 5))
    assert torch.equal(to_label_map(masks.cpu(), labels.cpu()), label_map.cpu())


def test_extreme_labels(backend, device):
    values = [-(2**63), -(2**31) - 1, -1, 0, 2**32, 2**63 - 1]
    label_map = torch.tensor([values, values[::-1]], device=device)
    check_split(label_map)
    check_split(label_map, background=2**63 - 1)
    for array, background in (
        (np.array([[2**32 - 1, 0, 2**31]], np.uint32), 0),
        (np.array([[2**63 - 1, 0, 2**33]], np.uint64), 0),
        (np.array([[200, 0, 3]], np.uint8), -1),  # no uint8 is that
        (np.array([[1, 2, 1]], np.int8), 300),
    ):
        check_split(torch.from_numpy(array).to(device), background)
        check_split(array[:, ::-1], background)
    check_split(np.array([[1, 258]], ">u2"))  # of the other byte order


def test_long_strings(backend, device):
    """Long strings that grow side by side, and the first of each map behind them."""
    rng = np.random.default_rng(2)
    check_split(torch.from_numpy(rng.integers(0, 4, (2, 90, 110), np.uint8)).to(device))


def test_large_label_map(fast_backend, device):
    rng = np.random.default_rng(3)
    label_map = rng.integers(0, 5, (300, 450), np.uint8).repeat(3, 0).repeat(3, 1)
    check_split(torch.from_numpy(label_map).to(device))


def test_strips(cpu_backend):
    """Maps whose bitmap of changes is made in strips, and those too high for one."""
    h = 600_000
    label_map = np.zeros((h, 130), np.uint8)
    label_map[5:599_000, 60:129] = 1
    label_map[400_000:, 63:66] = 2
    label_map[h - 1, 127:] = 3
    for columns in (label_map, np.ascontiguousarray(label_map[:, 62:66]).repeat(2, 0)):
        masks, labels = from_label_map(columns)
        ours = masks.decode().numpy()
        assert labels.tolist() == [1, 2, 3][: len(labels)]
        for label, mask in zip(labels.tolist(), ours, strict=True):
            assert np.array_equal(mask, columns == label)


@pytest.mark.parametrize("background", [None, 0])
def test_from_label_map_without_pixels(backend, device, background):
    for shape in ((0, 0), (0, 5), (5, 0)):
        masks, labels = from_label_map(
            torch.zeros(shape, dtype=int, device=device), background=background
        )
        assert len(masks) == len(labels) == 0
    for shape in ((0, 4, 4), (3, 0, 4), (2, 4, 4)):
        label_map = torch.zeros(shape, dtype=int, device=device)
        masks, labels = from_label_map(label_map[..., :0], background=background)
        assert (len(masks), len(labels), masks.num_images) == (0, 0, shape[0])
        masks, labels = from_label_map(label_map)
        assert (len(masks), len(labels), masks.num_images) == (0, 0, shape[0])
        assert masks.image_sizes.tolist() == [list(shape[1:])] * shape[0]


@st.composite
def label_maps(draw):
    h, w = draw(draws.sides), draw(draws.sides)
    values = draw(st.lists(st.integers(-3, 3), min_size=1, max_size=4))
    runs = draw(draws.counts_of(h, w))
    picks = draw(st.lists(st.sampled_from(values), min_size=len(runs), max_size=len(runs)))
    flat = np.repeat(np.array(picks, np.int32), runs)
    return flat.reshape(h, w) if draw(st.booleans()) else flat.reshape(w, h).T


@given(label_map=label_maps(), background=st.sampled_from([None, 0, 1]))
@settings(max_examples=150)
def test_label_map_property(cpu_backend, label_map, background):
    check_split(label_map, background)
    masks, labels = from_label_map(label_map, background=background)
    if len(masks) > 0:
        for on_top in ("smallest", "first", "last"):
            again = to_label_map(masks, labels, on_top=on_top, background=background or 0)
            assert np.array_equal(again, label_map)


# --- Panoptic colours


def test_panoptic_ids():
    rgb = torch.tensor([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [1, 2, 3]]], dtype=torch.uint8)
    ids = rgb_to_ids(rgb)
    assert ids.tolist() == [[255, 255 << 8, 255 << 16, 1 + 2 * 256 + 3 * 65536]]
    for dtype in (torch.int32, torch.int64, torch.uint32):
        assert torch.equal(ids_to_rgb(ids.to(dtype)), rgb)
    masks, labels = from_label_map(ids)
    assert labels.tolist() == sorted(ids.flatten().tolist())
    assert masks.area().tolist() == [1] * 4
    assert rgb_to_ids(torch.zeros((2, 0, 3), dtype=torch.uint8)).shape == (2, 0)


# --- What is refused


def test_malformed_to_label_map(backend, device):
    batch = fd.pack_rles([{"size": [2, 3], "counts": [1, 2, 3]}] * 2).to(device)
    mixed = fd.pack_rles([{"size": [2, 3], "counts": [6]}, {"size": [3, 2], "counts": [6]}])
    mixed = mixed.to(device)
    with pytest.raises(ValueError, match="mask 0 is 2x3, mask 1 is 3x2"):
        to_label_map(mixed)
    one, *_, other = [*batch.to_coco(), *mixed.to_coco()]
    grouped = fd.pack_rles([[one], [one, other]]).to(device)
    with pytest.raises(ValueError, match="mask 1 is 2x3, mask 2 is 3x2"):
        to_label_map(grouped)
    with pytest.raises(ValueError, match=r"labels must have shape \(2,\), not \(3,\)"):
        to_label_map(batch, [1, 2, 3])
    with pytest.raises(ValueError, match="mask 1: label 2147483648 does not fit"):
        to_label_map(batch, [1, 2**31])
    with pytest.raises(TypeError, match="labels must be integers"):
        to_label_map(batch, [1.5, 2])
    with pytest.raises(ValueError, match="on_top must be 'smallest', 'first', 'last'"):
        to_label_map(batch, on_top="largest")
    with pytest.raises(ValueError, match=r"on_top must have shape \(2,\)"):
        to_label_map(batch, on_top=[1, 2, 3])
    with pytest.raises(ValueError, match="mask 1: its priority is NaN"):
        to_label_map(batch, on_top=torch.tensor([1, float("nan")], device=device))
    with pytest.raises(ValueError, match="background must fit into int32"):
        to_label_map(batch, background=2**31)
    with pytest.raises(TypeError, match="int"):
        to_label_map(5)


def test_malformed_maps_on_the_device(backend, device):
    with pytest.raises(TypeError, match=r"integers, not torch.float32"):
        from_label_map(torch.zeros(2, 2, device=device))
    for shape in ((4,), (1, 2, 3, 4)):
        with pytest.raises(ValueError, match=r"\(H, W\) or \(B, H, W\)"):
            from_label_map(torch.zeros(shape, dtype=torch.int32, device=device))
    with pytest.raises(ValueError, match=r"below 2\*\*63"):
        from_label_map(torch.from_numpy(np.array([[1, 2**63]], np.uint64)).to(device))
    with pytest.raises(ValueError, match=r"fewer than 2\*\*32 pixels"):
        from_label_map(torch.zeros((1, 1), dtype=torch.uint8, device=device).expand(2**16, 2**16))


def test_malformed_from_label_map(cpu_backend):
    with pytest.raises(TypeError, match="integers, not float64"):
        from_label_map(np.zeros((2, 2)))
    with pytest.raises(TypeError, match="a tensor or an array, not list"):
        from_label_map([[1, 2]])
    with pytest.raises(TypeError, match="dense"):
        from_label_map(torch.zeros(2, 2, dtype=torch.int32).to_sparse())
    for shape in ((4,), (1, 2, 3, 4)):
        with pytest.raises(ValueError, match=r"\(H, W\) or \(B, H, W\)"):
            from_label_map(np.zeros(shape, np.int32))
    with pytest.raises(ValueError, match=r"below 2\*\*63"):
        from_label_map(np.array([[1, 2**63]], np.uint64))
    with pytest.raises(ValueError, match=r"fewer than 2\*\*32 pixels"):
        from_label_map(np.broadcast_to(np.uint8(1), (2**16, 2**16)))
    with pytest.raises(ValueError, match="background must fit into int64"):
        from_label_map(torch.zeros((1, 1), dtype=torch.int8), background=2**63)


def test_malformed_colours():
    with pytest.raises(TypeError, match="uint8"):
        rgb_to_ids(torch.zeros((2, 3), dtype=torch.int32))
    with pytest.raises(ValueError, match=r"\(\.\.\., 3\)"):
        rgb_to_ids(torch.zeros((3, 2), dtype=torch.uint8))
    with pytest.raises(TypeError, match="integers"):
        ids_to_rgb(torch.zeros(3))
    for wrong in (-1, 2**24):
        with pytest.raises(ValueError, match=r"2\*\*24"):
            ids_to_rgb(torch.tensor([0, wrong]))


def test_hostile_operators(backend, device):
    """Whatever is passed to the operators, they stay inside their buffers."""
    data = fd.pack_rles([{"size": [2, 3], "counts": [1, 2, 3]}] * 2).data.to(device)
    order, values = torch.arange(2), torch.arange(2, dtype=torch.int32)
    paint_labels = ops.paint_labels.default
    with pytest.raises(ValueError, match="order must be 2 contiguous values"):
        paint_labels(data, 2, torch.arange(3), values, 0, [2, 3])
    with pytest.raises(ValueError, match="labels must be 2 contiguous values"):
        paint_labels(data, 2, order, order, 0, [2, 3])
    with pytest.raises(ValueError, match="not meta"):
        paint_labels(data, 2, order.to("meta"), values, 0, [2, 3])
    with pytest.raises(ValueError, match="sizes and offsets"):
        paint_labels(data, 3, torch.arange(3), torch.zeros(3).int(), 0, [2, 3])
    with pytest.raises(ValueError, match="sizes and offsets"):
        paint_labels(data, 2, order, values, 0, [7, 2, 3])


def test_tables_that_lie(backend, device):
    """A GPU paints what it can of them, since it finds out too late."""
    data = fd.pack_rles([{"size": [2, 3], "counts": [1, 2, 3]}] * 2).data.to(device)
    values = torch.tensor([8, 9], dtype=torch.int32)
    whole, cut = [[0, 8, 0], [8, 0, 0]], [[0, 8]]
    orders = ([0, 2], [-1, 0], [0, 2**63 - 1], [-(2**63), 0])
    calls = [(torch.tensor(order), [2, 3], whole, IndexError) for order in orders]
    calls.append((torch.tensor([1, 0]), [1, 2], cut, ValueError))
    for order, shape, expected, error in calls:
        call = (data, 2, order, values, 0, shape)
        if backend in (EMULATED, "cuda"):
            assert ops.paint_labels(*call).tolist() == expected
        else:
            with pytest.raises(error):
                ops.paint_labels(*call)


@given(string=draws.hostile_strings)
@settings(max_examples=60)
def test_hostile_strings(fast_backend, device, string):
    """Unvalidated bytes give some map, of nothing but the labels and the background."""
    rles = [{"size": [5, 7], "counts": string}, {"size": [5, 7], "counts": [3, 9, 23]}]
    batch = fd.pack_rles(rles, validate=False).to(device)
    label_map = to_label_map(batch)
    assert set(label_map.unique().tolist()) <= {0, 1, 2}
    assert torch.equal(label_map, to_label_map(batch))


# --- As torch sees them

FLAT = fd.pack_rles([draws.to_rle(mask) for mask in draws.every_kind(12, 17)])
GROUPED = fd.pack_rles([FLAT[:3], [], FLAT[3:5]])


def test_opcheck_paint_labels(backend, device):
    order, labels = torch.arange(9, device=device), torch.arange(9, dtype=torch.int32)
    flat = (FLAT.data.to(device), 9, order, labels, 0, [12, 17])
    torch.library.opcheck(ops.paint_labels.default, flat)
    grouped = (GROUPED.data.to(device), 5, order[:5], labels[:5], -1, [3, 14, 20])
    torch.library.opcheck(ops.paint_labels.default, grouped)


def test_opcheck_split_labels(backend, device):
    label_map = (torch.arange(12)[:, None] // 5 + torch.arange(17) // 3).int().to(device)
    for each in (label_map, label_map.T, label_map.expand(2, 12, 17).to(torch.int64)):
        for background in (0, None):
            torch.library.opcheck(ops.split_labels.default, (each, background))


def test_compiled():
    torch.compiler.reset()
    compiled = torch.compile(lambda b: b.to_label_map() + 1, fullgraph=True, backend="eager")
    for batch in (FLAT, GROUPED):
        assert torch.equal(compiled(batch), batch.to_label_map() + 1)
    torch.compiler.reset()


def test_default_device_changes_nothing():
    expected = FLAT.to_label_map()
    with torch.device("meta"):
        assert torch.equal(FLAT.to_label_map(), expected)
        masks, labels = from_label_map(expected)
        assert labels.device.type == "cpu"
        again = to_label_map(masks, labels)
    assert torch.equal(again, expected)
