"""Wrong arguments are refused, and the message says which and why."""

import numpy as np
import pytest
import torch
from good import BATCH, GOOD, counts

import sa1b_fastdecode as fd

# --- Arguments of decode


def test_mixed_sizes_need_padding(backend, device):
    batch = fd.pack_rles([GOOD, GOOD, {"size": [6, 5], "counts": [30]}])
    with pytest.raises(ValueError, match=r"mask 0 is 4x5, mask 2 is 6x5.*pad"):
        batch.decode()
    with pytest.raises(ValueError, match=r"\(5, 5\).*6x5"):
        batch.decode(pad=(5, 5))


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((3, 4, 6), torch.uint8, r"\(3, 4, 6\).*\(3, 4, 5\)"),
        ((2, 4, 5), torch.uint8, r"\(2, 4, 5\)"),
        ((60,), torch.uint8, r"\(60,\)"),
        ((1, 3, 4, 5), torch.uint8, r"\(1, 3, 4, 5\)"),
        ((3, 4, 5), torch.bool, "bool.*uint8"),
        ((3, 4, 5), torch.int64, "int64"),
    ],
)
def test_out_of_another_kind(backend, device, shape, dtype, message):
    batch = BATCH.to(device)
    out = torch.full(shape, 1, dtype=dtype, device=device)
    with pytest.raises(ValueError, match=message):
        batch.decode(out=out)
    assert bool((out == 1).all())


@pytest.mark.parametrize(
    "out",
    [
        torch.zeros(3, 5, 4, dtype=torch.uint8).transpose(1, 2),
        torch.zeros(3, 4, 10, dtype=torch.uint8)[:, :, ::2],
        torch.zeros(3, 4, 6, dtype=torch.uint8)[:, :, :5],
        torch.zeros(1, 4, 5, dtype=torch.uint8).expand(3, 4, 5),
        torch.zeros(60, dtype=torch.uint8).as_strided((3, 4, 5), (1, 5, 1)),
    ],
    ids=["transposed", "every second", "rows with gaps", "expanded", "overlapping"],
)
def test_out_with_strides(backend, out):
    with pytest.raises(ValueError, match="contiguous"):
        BATCH.decode(out=out)
    assert int(out.sum()) == 0


@pytest.mark.parametrize("out", [np.zeros((3, 4, 5), np.uint8), [[0]], "out", 3])
def test_out_is_no_tensor(backend, device, out):
    batch = BATCH.to(device)
    with pytest.raises(TypeError, match=f"out.*{type(out).__name__}"):
        batch.decode(out=out)


def test_out_on_another_device(backend):
    with pytest.raises(ValueError, match=r"meta.*cpu"):
        BATCH.decode(out=torch.zeros(3, 4, 5, dtype=torch.uint8, device="meta"))


def test_out_of_one_plane_may_have_any_stride_where_it_does_not_matter(backend, device):
    batch = BATCH.to(device)
    memory = torch.zeros(1, 4, 5, dtype=torch.uint8, device=device)
    out = memory.as_strided((1, 4, 5), (1, 5, 1))
    assert torch.equal(batch[0].decode(out=out), batch[0].decode())


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.float64, torch.int8, torch.complex64, "uint8", np.uint8, None, int]
)
def test_dtypes_that_do_not_exist(backend, device, dtype):
    batch = BATCH.to(device)
    with pytest.raises((ValueError, TypeError), match=r"dtype.*torch\.uint8.*bfloat16"):
        batch.decode(dtype=dtype)


OUTSIDE = [
    *[(0, 0, 5, 5), (0, 0, 4, 6), (1, 0, 4, 5), (0, 1, 4, 5), (4, 5, 1, 1), (5, 0, 0, 1)],
    *[(0, 6, 1, 0), (-1, 0, 2, 2), (0, -1, 2, 2), (0, 0, -1, 2), (0, 0, 2, -1)],
    *[(2**32, 0, 1, 1), (0, 2**62, 1, 1), (2**63 - 1, 0, 2**63 - 1, 1), (0, 2**63 - 1, 1, 2**62)],
    *[(-(2**63), 0, 2**63 - 1, 1), (2**62, 2**62, 2**63 - 1, 2**63 - 1)],
]


@pytest.mark.parametrize("window", OUTSIDE, ids=str)
@pytest.mark.parametrize("size", [None, (2, 2)])
def test_crop_outside_its_mask(backend, device, window, size):
    batch = BATCH.to(device)
    with pytest.raises(ValueError, match=r"^mask 0: crop.*4x5"):
        batch.decode(crop=window, size=size)
    windows = torch.tensor([(0, 0, 1, 1), (0, 0, 1, 1), window])
    with pytest.raises(ValueError, match=r"^mask 2: crop.*4x5"):
        batch.decode(crop=windows, size=size)


@pytest.mark.parametrize(
    "crop",
    [(0, 0, 1), (0, 0, 1, 1, 1), [[0, 0, 1, 1]] * 2, [[0, 0, 1, 1]] * 4, [[[0, 0, 1, 1]]], []],
)
def test_crop_of_another_shape(backend, device, crop):
    batch = BATCH.to(device)
    with pytest.raises((ValueError, TypeError), match="crop"):
        batch.decode(crop=crop)


@pytest.mark.parametrize(
    "crop",
    [(0.0, 0.0, 1.0, 1.0), "0011", object(), (None,) * 4, [True] * 4, {0, 1}, (2**64, 0, 1, 1)],
)
def test_crop_of_a_wrong_kind(backend, device, crop):
    batch = BATCH.to(device)
    with pytest.raises((TypeError, ValueError), match="crop"):
        batch.decode(crop=crop)


@pytest.mark.parametrize("index", [[3], [-4], [0, 1, 2**40], -4, torch.tensor([3]), [2**63]])
def test_select_out_of_range(backend, device, index):
    batch = BATCH.to(device)
    with pytest.raises(IndexError, match="3 masks"):
        batch.decode(select=index)
    mixed = fd.pack_rles([GOOD, GOOD, {"size": [6, 5], "counts": [30]}])
    with pytest.raises(IndexError, match="3 masks"):
        mixed.decode(select=index, pad=True)
    with pytest.raises(IndexError, match="0 masks"):
        batch[:0].decode(select=[0])


@pytest.mark.parametrize("select", [[0.5], "0", object(), [None], torch.tensor([0.0]), {0}])
def test_select_of_a_wrong_kind(backend, device, select):
    batch = BATCH.to(device)
    with pytest.raises(TypeError, match="integers"):
        batch.decode(select=select)


@pytest.mark.parametrize("keyword", ["size", "pad"])
@pytest.mark.parametrize(
    "value", [5, "55", (5,), (5, 5, 5), (5.0, 5.0), ("5", "5"), (None, 5), object()]
)
def test_sizes_of_a_wrong_kind(backend, device, keyword, value):
    batch = BATCH.to(device)
    with pytest.raises(TypeError, match=f"{keyword}.*integers"):
        batch.decode(**{keyword: value})


@pytest.mark.parametrize("keyword", ["size", "pad"])
@pytest.mark.parametrize("value", [(0, 5), (5, 0), (-5, 5), (2**32, 5), (5, 2**64)])
def test_sizes_that_do_not_exist(backend, device, keyword, value):
    batch = BATCH.to(device)
    with pytest.raises(ValueError, match=keyword):
        batch.decode(**{keyword: value})


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("keyword", ["size", "pad"])
@pytest.mark.parametrize("num_masks", [1, 2, 3])
def test_results_too_large_for_any_memory(backend, device, keyword, num_masks, dtype):
    batch = BATCH.to(device)
    with pytest.raises((MemoryError, ValueError), match=r"(?i)memory|bytes|large|4294967295"):
        batch[:num_masks].decode(dtype=dtype, **{keyword: (2**32 - 1, 2**32 - 1)})


@pytest.mark.parametrize("num_threads", [0, -1, -(2**40)])
def test_no_threads(backend, device, num_threads):
    batch = BATCH.to(device)
    with pytest.raises(ValueError, match=f"num_threads.*{num_threads}"):
        batch.decode(num_threads=num_threads)


@pytest.mark.parametrize("num_threads", [1.0, "2", [2]])
def test_num_threads_of_a_wrong_kind(backend, device, num_threads):
    batch = BATCH.to(device)
    with pytest.raises(TypeError):
        batch.decode(num_threads=num_threads)


@pytest.mark.parametrize("num_threads", [1000, 2**31, 2**40])
def test_more_threads_than_any_machine_has(backend, device, num_threads):
    batch = BATCH.to(device)
    assert torch.equal(batch.decode(num_threads=num_threads), batch.decode())


@pytest.mark.parametrize(
    ("image_sizes", "kind", "message"),
    [
        ([(4, 5)], ValueError, r"\(2, 2\)"),
        ([(4, 5)] * 3, ValueError, r"\(2, 2\)"),
        ([4, 5], ValueError, r"\(2, 2\)"),
        ([(4, 5), (4, 6)], ValueError, "image 1, mask 0: .*4x5.*4x6"),
        ([(4.0, 5.0)] * 2, TypeError, "integers"),
        ([(-1, 5), (4, 5)], ValueError, "image 0"),
        ([(2**32, 5), (4, 5)], ValueError, "image 0"),
    ],
)
def test_image_sizes(backend, image_sizes, kind, message):
    with pytest.raises(kind, match=message):
        fd.pack_rles([[], [GOOD]], image_sizes=image_sizes)


def test_image_sizes_of_a_flat_batch(backend):
    with pytest.raises(ValueError, match="image"):
        fd.pack_rles([GOOD], image_sizes=[(4, 5)])


# --- encode_masks


@pytest.mark.parametrize(
    ("masks", "kind", "message"),
    [
        (None, TypeError, "tensor or an array, not NoneType"),
        ([[0, 1], [1, 0]], TypeError, "tensor or an array, not list"),
        (b"0101", TypeError, "tensor or an array, not bytes"),
        ("0101", TypeError, "tensor or an array, not str"),
        (BATCH, TypeError, "tensor or an array, not RLEBatch"),
        (GOOD, TypeError, "tensor or an array, not dict"),
        (torch.zeros(3, 3, dtype=torch.complex64), TypeError, "not torch.complex64"),
        (np.zeros((3, 3), np.complex128), TypeError, "not complex128"),
        (np.zeros((3, 3), object), TypeError, "not object"),
        (np.zeros((3, 3), "U1"), TypeError, "not <U1"),
        (np.zeros((3, 3), "M8[s]"), TypeError, "not datetime64"),
        (np.zeros((3, 3), np.longdouble), TypeError, "not float128"),
        (np.zeros((3, 3), "V1"), TypeError, "not "),
        (np.zeros((3, 3), [("a", "u1")]), TypeError, "not "),
        (torch.zeros(3, 3).to_sparse(), TypeError, "torch.sparse_coo"),
        (torch.zeros(3, 3, dtype=torch.float8_e5m2), TypeError, "not torch.float8_e5m2"),
        (torch.zeros(9), ValueError, r"\(N, H, W\) or \(H, W\), not \(9,\)"),
        (torch.zeros(()), ValueError, r"not \(\)"),
        (torch.zeros(1, 2, 3, 4), ValueError, r"not \(1, 2, 3, 4\)"),
        (np.zeros(9), ValueError, r"not \(9,\)"),
        (np.float32(1), ValueError, r"not \(\)"),
        (np.zeros((1, 2, 3, 4)), ValueError, r"not \(1, 2, 3, 4\)"),
        (torch.zeros(1, 1).expand(2**16, 2**16), ValueError, "65536x65536.*fewer than 2"),
        (torch.zeros(1, 1, 1).expand(0, 2**16, 2**16), ValueError, "65536x65536"),
        (np.broadcast_to(np.uint8(0), (1, 2**31, 3)), ValueError, "2147483648x3"),
        (torch.zeros(0, 2**40), ValueError, "0x1099511627776"),
        (np.zeros((2**40, 0), np.uint8), ValueError, "1099511627776x0"),
    ],
)
def test_not_masks(backend, masks, kind, message):
    with pytest.raises(kind, match=message):
        fd.encode_masks(masks)


@pytest.mark.parametrize("num_threads", [0, -1])
def test_no_threads_to_encode(backend, num_threads):
    with pytest.raises(ValueError, match="at least 1"):
        fd.encode_masks(np.ones((3, 3)), num_threads=num_threads)


def test_more_masks_than_any_memory_holds(backend, device):
    with pytest.raises(MemoryError):
        fd.encode_masks(torch.zeros(1, 0, 5, device=device).expand(2**50, 0, 5))


def test_masks_on_devices_without_kernels(backend):
    with pytest.raises(RuntimeError, match=r"meta.*device='cpu'"):
        fd.encode_masks(torch.zeros(3, 3, device="meta"))


def test_operator_of_encode_called_directly(backend, device):
    encode = torch.ops.sa1b_fastdecode.encode
    with pytest.raises(TypeError, match="complex"):
        encode(torch.zeros(3, 3, dtype=torch.complex64, device=device), 1)
    with pytest.raises(ValueError, match="shape"):
        encode(torch.zeros(3, device=device), 1)


# --- Pairs

PAIRWISE = ["intersection", "iou", "containment", "intersecting_pairs"]
HIGHER = {"size": [6, 5], "counts": [30]}


def compare(operator, a, b):
    """Call an operator on two batches, and its function, if it has one, on what makes them."""
    function = getattr(fd, f"mask_{operator}", None)
    if function is not None:
        function(a, b)
    return getattr(fd.pack_rles(a), operator)(fd.pack_rles(b))


@pytest.mark.parametrize("operator", PAIRWISE)
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([GOOD, GOOD], [GOOD, HIGHER], "^masks .*: mask 0 is 4x5, mask 1 of other is 6x5"),
        ([GOOD, HIGHER], [GOOD], "^masks .*: mask 0 is 4x5, mask 1 is 6x5"),
        ([HIGHER], [GOOD], "mask 0 is 6x5, mask 0 of other is 4x5"),
        ([GOOD], [{"size": [5, 4], "counts": [20]}], "mask 0 is 4x5, mask 0 of other is 5x4"),
        (
            [[GOOD], [HIGHER, GOOD]],
            [[], [HIGHER]],
            "^image 1: masks .*: mask 0 is 6x5, mask 1 is 4x5",
        ),
        (
            [[GOOD, HIGHER], [], [GOOD]],
            [[], [GOOD, HIGHER], [GOOD, HIGHER]],
            "^image 2: .*mask 0 is 4x5, mask 1 of other is 6x5",
        ),
        ([GOOD], [[GOOD]], "flat"),
        ([[GOOD]], [GOOD], "flat"),
        ([[GOOD], []], [[GOOD]], "2 and 1"),
        ([[GOOD]], [[GOOD], [GOOD], []], "1 and 3"),
    ],
)
def test_masks_that_cannot_be_compared(backend, operator, a, b, message):
    with pytest.raises(ValueError, match=message):
        compare(operator, a, b)


@pytest.mark.parametrize("operator", PAIRWISE)
def test_sizes_do_not_matter_where_nothing_is_compared(backend, operator):
    for a, b, shape in [
        ([GOOD, HIGHER], [], (2, 0)),
        ([], [GOOD, HIGHER], (0, 2)),
        ([[GOOD, HIGHER], []], [[], [HIGHER, GOOD]], (2, 2, 2)),
    ]:
        result = compare(operator, a, b)
        if operator == "intersecting_pairs":
            assert [part.shape for part in result] == [(0, 2), (0,)]
        else:
            assert result.shape == shape
            assert not result.any()


@pytest.mark.parametrize("operator", PAIRWISE)
@pytest.mark.parametrize(
    "other", [None, GOOD, [GOOD], torch.zeros(3), np.zeros((3, 4, 5)), "12", 3]
)
def test_other_is_no_batch(backend, device, operator, other):
    batch = BATCH.to(device)
    with pytest.raises(TypeError, match=f"RLEBatch, not {type(other).__name__}"):
        getattr(batch, operator)(other)


def kind_of(value):
    """Name a parameter alike in every process, as an address in its repr would not."""
    return type(value).__name__


@pytest.mark.parametrize("operator", PAIRWISE[:3])
@pytest.mark.parametrize("wrong", [None, 3, "37:", object(), [None], [GOOD, 3]], ids=kind_of)
def test_pairs_of_what_is_no_rle(backend, operator, wrong):
    function = getattr(fd, f"mask_{operator}")
    for name, arguments in (("a", (wrong, [GOOD])), ("b", ([GOOD], wrong))):
        with pytest.raises(TypeError, match=f"^in {name}, "):
            function(*arguments)


@pytest.mark.parametrize("operator", PAIRWISE[:3])
def test_pairs_with_a_malformed_mask(backend, operator):
    """The message says in which of both it is."""
    function = getattr(fd, f"mask_{operator}")
    good, bad = [GOOD, GOOD], [GOOD, counts(b"379")]
    for name, arguments in (("a", (bad, good)), ("b", (good, bad)), ("a", (bad, bad))):
        with pytest.raises(ValueError, match=f"^in {name}, mask 1: .*add up to 19"):
            function(*arguments)
    with pytest.raises(ValueError, match=r"^in b, image 1, mask 1: .*add up to 19"):
        function([[], good], [[GOOD], bad])


@pytest.mark.parametrize(
    ("iscrowd", "kind", "message"),
    [
        ([0, 1], ValueError, r"\(3,\).*\(2,\)"),
        ([0] * 4, ValueError, r"\(3,\).*\(4,\)"),
        ([], ValueError, r"\(3,\).*\(0,\)"),
        (1, ValueError, r"\(3,\).*\(\)"),
        (True, ValueError, "iscrowd"),
        ([[0, 1, 0]], ValueError, r"\(3,\).*\(1, 3\)"),
        (np.zeros((3, 1), bool), ValueError, r"\(3, 1\)"),
        ([0.0, 1.0, 0.0], TypeError, "iscrowd must be integers"),
        (torch.zeros(3), TypeError, "iscrowd must be integers"),
        (["0", "1", "0"], TypeError, "iscrowd must be integers"),
        ("010", TypeError, "iscrowd must be integers"),
        ([None] * 3, TypeError, "iscrowd must be integers"),
        ({0, 1}, TypeError, "iscrowd must be integers"),
        ([0, 1j, 0], TypeError, "iscrowd must be integers"),
        ([2**64] * 3, ValueError, "iscrowd"),
    ],
)
def test_iscrowd_of_a_wrong_kind(backend, device, iscrowd, kind, message):
    batch = BATCH.to(device)
    with pytest.raises(kind, match=message):
        batch.iou(batch, iscrowd)
    with pytest.raises(kind, match=message):
        fd.pack_rles([[GOOD], [GOOD, GOOD]]).iou(fd.pack_rles([[GOOD, GOOD], [GOOD]]), iscrowd)
    with pytest.raises(kind, match=message):
        fd.mask_iou([GOOD], [GOOD] * 3, iscrowd)


def test_any_integer_but_zero_is_a_crowd(backend, device):
    batch = BATCH.to(device)
    expected = batch.iou(batch, [True, False, True])
    assert torch.equal(batch.iou(batch, [-1, 0, 256]), expected)
    assert torch.equal(batch.iou(batch, np.array([2**40, 0, 1])[::-1][::-1]), expected)


# --- Devices


@pytest.mark.skipif(torch.cuda.device_count() > 0, reason="this machine has a CUDA device")
@pytest.mark.parametrize("place", ["cuda", "cuda:1", torch.device("cuda")])
def test_cuda_without_cuda(backend, place):
    with pytest.raises(RuntimeError, match=r"cuda.*device='cpu'"):
        fd.decode_rle_batch([GOOD], place)
    with pytest.raises(RuntimeError, match="cuda"):
        BATCH.to(place)
    with pytest.raises(RuntimeError, match="cuda"):
        BATCH.cuda()


@pytest.mark.parametrize("place", ["meta", "xpu"])
def test_devices_without_kernels(backend, place):
    with pytest.raises(RuntimeError, match=place):
        BATCH.to(place)


def test_out_that_requires_a_gradient():
    out = torch.zeros((1, 2, 3), requires_grad=True)
    with pytest.raises(ValueError, match="must not require a gradient"):
        fd.decode_rle_batch({"size": [2, 3], "counts": [6]}, dtype=torch.float32, out=out)


def test_unsigned_indices_do_not_wrap():
    batch = fd.pack_rles([{"size": [2, 3], "counts": [6]}] * 3)
    index = np.array([2**64 - 1], np.uint64)
    for call in (lambda: batch[index], lambda: batch.decode(select=index)):
        with pytest.raises(IndexError, match="out of range"):
            call()
    with pytest.raises(ValueError, match=r"below 2\*\*63"):
        batch.decode(crop=np.array([0, 0, 2**64 - 1, 1], np.uint64))
