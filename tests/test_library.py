"""The operators as torch sees them: schemas, fake kernels, compilation, inference mode."""

import warnings

import draws
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import sa1b_fastdecode as fd
from sa1b_fastdecode.library import ELEMENTS

ops = torch.ops.sa1b_fastdecode

FLAT = fd.pack_rles([draws.to_rle(mask) for mask in draws.every_kind(12, 17)])
MIXED = fd.pack_rles([draws.to_rle(draws.every_kind(h, 9)[0]) for h in (5, 8, 3)])
GROUPED = fd.pack_rles([FLAT[:3], [], FLAT[3:5]])
EMPTY = FLAT[:0]

WINDOWS = torch.tensor([[0, 0, 6, 7], [6, 10, 6, 7], [1, 2, 0, 0]])

DECODE_SAMPLES = {
    "plain": (FLAT.data, 9, None, None, None, False, [9, 12, 17], torch.uint8, 1),
    "planes": (
        FLAT.data, 9, None, torch.tensor([8, -1, 0]), None, False, [3, 12, 17], torch.bool, 2
    ),
    "crops": (MIXED.data, 3, None, None, WINDOWS % 3, False, [3, 8, 9], torch.float16, 1),
    "resize": (MIXED.data, 3, None, None, None, True, [3, 31, 4], torch.bfloat16, 0),
    "all": (FLAT.data, 9, None, torch.arange(3), WINDOWS, True, [3, 2, 5], torch.float32, 2),
    "images": (GROUPED.data, 5, 3, None, None, False, [3, 3, 12, 17], torch.uint8, 1),
    "nothing": (EMPTY.data, 0, None, None, None, False, [0, 0, 0], torch.uint8, 1),
    "one plane": (FLAT[1].data, 1, None, None, None, False, [1, 12, 17], torch.uint8, 1),
}  # fmt: skip


@pytest.mark.parametrize("sample", DECODE_SAMPLES)
def test_opcheck_decode(backend, sample):
    torch.library.opcheck(ops.decode.default, DECODE_SAMPLES[sample])


@pytest.mark.parametrize("sample", DECODE_SAMPLES)
def test_opcheck_decode_bits(backend, sample):
    *what, shape, _, num_threads = DECODE_SAMPLES[sample]
    torch.library.opcheck(ops.decode_bits.default, (*what, shape, num_threads))


@pytest.mark.parametrize("sample", DECODE_SAMPLES)
def test_opcheck_decode_out(backend, sample):
    *what, shape, dtype, num_threads = DECODE_SAMPLES[sample]
    out = torch.zeros(shape, dtype=dtype)
    torch.library.opcheck(ops.decode_out.default, (*what, out, num_threads))


@pytest.mark.parametrize("name", ["area", "bbox", "centroid"])
@pytest.mark.parametrize("batch", [FLAT, MIXED, GROUPED, EMPTY], ids=repr)
def test_opcheck_regions(backend, name, batch):
    # Without empty masks: opcheck compares results, and NaN centroids are not equal to themselves.
    batch = batch[batch.area() > 0]
    torch.library.opcheck(getattr(ops, name).default, (batch.data, batch.num_masks))


ENCODE_SAMPLES = {
    "rows": FLAT.decode(),
    "columns": FLAT.decode().transpose(1, 2).contiguous().transpose(1, 2),
    "one": FLAT.decode()[0],
    "sliced": FLAT.decode(dtype=torch.float32)[::2, 1:, ::3],
    "expanded": FLAT.decode(dtype=torch.bool)[:1].expand(4, 12, 17),
    "nothing": EMPTY.decode(),
    "long": FLAT.decode().long(),
}


@pytest.mark.parametrize("sample", ENCODE_SAMPLES)
@pytest.mark.parametrize("num_threads", [0, 1, 2])
def test_opcheck_encode(backend, sample, num_threads):
    torch.library.opcheck(ops.encode.default, (ENCODE_SAMPLES[sample], num_threads))


SECOND = fd.pack_rles([draws.to_rle(mask) for mask in draws.every_kind(12, 17, seed=1)[:4]])
SECOND_GROUPED = fd.pack_rles([SECOND[:1], SECOND[1:3], SECOND[3:]])
CROWD = torch.tensor([True, False, False, True])
PAIRS = {
    "flat": (FLAT.data, 9, SECOND.data, 4),
    "itself": (FLAT.data, 9, FLAT.data, 9),
    "images": (GROUPED.data, 5, SECOND_GROUPED.data, 4),
    "no rows": (EMPTY.data, 0, SECOND.data, 4),
    "nothing": (EMPTY.data, 0, EMPTY.data, 0),
}
SHAPES = {"images": [3, 3, 2]}
PAIRWISE = ["intersection", "iou", "containment"]


def pair_arguments(name, sample):
    _, num_masks, _, num_other = PAIRS[sample]
    crowd = [CROWD if num_other == 4 else None] if name == "iou" else []
    return *PAIRS[sample], *crowd, SHAPES.get(sample, [num_masks, num_other])


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("sample", PAIRS)
def test_opcheck_pairwise(backend, name, sample):
    torch.library.opcheck(getattr(ops, name).default, pair_arguments(name, sample))


@pytest.mark.parametrize("sample", PAIRS)
def test_opcheck_intersecting_pairs(backend, sample):
    num_images = 3 if sample == "images" else None
    torch.library.opcheck(ops.intersecting_pairs.default, (*PAIRS[sample], num_images))


# --- Fake tensors


@pytest.mark.parametrize("sample", DECODE_SAMPLES)
@pytest.mark.parametrize("dtype", list(ELEMENTS), ids=str)
def test_fake_decode_has_the_shape_of_the_real_one(sample, dtype):
    *arguments, _, num_threads = DECODE_SAMPLES[sample]
    real = ops.decode(*arguments, dtype, num_threads)
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in arguments]
        fake = ops.decode(*fakes, dtype, num_threads)
    assert (fake.shape, fake.dtype, fake.stride()) == (real.shape, real.dtype, real.stride())
    assert fake.device.type == "cpu"


@pytest.mark.parametrize("name", ["area", "bbox", "centroid"])
def test_meta_regions(name):
    for batch in (FLAT, EMPTY):
        real = getattr(ops, name)(batch.data, batch.num_masks)
        meta = getattr(ops, name)(batch.data.to("meta"), batch.num_masks)
        assert (meta.shape, meta.dtype) == (real.shape, real.dtype)
        assert meta.device.type == "meta"


def test_fake_encode_has_a_size_that_is_not_known():
    masks = FLAT.decode()
    shape_env = ShapeEnv(allow_dynamic_output_shape_ops=True)
    with FakeTensorMode(shape_env=shape_env) as mode:
        fake = ops.encode(mode.from_tensor(masks), 1)
    assert fake.dim() == 1
    assert isinstance(fake.shape[0], torch.SymInt)
    assert (fake.dtype, fake.device.type) == (torch.uint8, "cpu")


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("sample", PAIRS)
def test_meta_pairwise(name, sample):
    arguments = pair_arguments(name, sample)
    real = getattr(ops, name)(*arguments)
    meta = getattr(ops, name)(
        *(a.to("meta") if isinstance(a, torch.Tensor) else a for a in arguments)
    )
    assert (meta.shape, meta.dtype, meta.stride()) == (real.shape, real.dtype, real.stride())
    assert meta.device.type == "meta"


def test_meta_decode():
    meta = ops.decode(
        FLAT.data.to("meta"), 9, None, None, None, False, [9, 12, 17], torch.float16, 1
    )
    assert (meta.shape, meta.dtype, meta.device.type) == ((9, 12, 17), torch.float16, "meta")


# --- torch.compile


OPTIONS = {
    "plain": {},
    "dtype": {"dtype": torch.bfloat16},
    "pad": {"pad": (20, 30)},
    "size": {"size": (7, 33)},
    "crop": {"crop": (1, 2, 5, 6)},
    "crop and size": {"crop": (1, 2, 5, 6), "size": (8, 8), "dtype": torch.float32},
    "select": {"select": [2, 0]},
    "threads": {"num_threads": 1},
}


def compile_whole(function, compiler):
    torch.compiler.reset()
    return torch.compile(function, fullgraph=True, backend=compiler)


@pytest.fixture(params=["eager", "aot_eager"])
def compiler(request):
    yield request.param
    torch.compiler.reset()


@pytest.mark.parametrize("batch", [FLAT, GROUPED], ids=["flat", "grouped"])
@pytest.mark.parametrize("options", OPTIONS)
def test_compiled_decode(compiler, batch, options):
    arguments = OPTIONS[options]
    # Arithmetic after it, so that the result has to be a tensor that the compiler understands.
    compiled = compile_whole(lambda batch: batch.decode(**arguments).sum(-1) * 2, compiler)
    expected = batch.decode(**arguments).sum(-1) * 2
    assert torch.equal(compiled(batch), expected)


@pytest.mark.parametrize("batch", [FLAT, GROUPED], ids=["flat", "grouped"])
def test_compiled_decode_out(compiler, batch):
    def decode(batch, out):
        batch.decode(out=out)
        return out + 1

    expected = batch.decode()
    out = torch.full_like(expected, 9)
    result = compile_whole(decode, compiler)(batch, out)
    assert torch.equal(out, expected)
    assert torch.equal(result, expected + 1)


@pytest.mark.parametrize("batch", [FLAT, GROUPED, MIXED], ids=["flat", "grouped", "mixed"])
def test_compiled_regions(compiler, batch):
    def regions(batch):
        return batch.area() + 1, batch.bbox() * 2, batch.centroid().nan_to_num(-1)

    for result, expected in zip(
        compile_whole(regions, compiler)(batch), regions(batch), strict=True
    ):
        assert torch.equal(result, expected)


@pytest.mark.parametrize(
    "pair",
    [(FLAT, SECOND), (FLAT, FLAT), (GROUPED, SECOND_GROUPED), (GROUPED, GROUPED), (EMPTY, SECOND)],
    ids=["flat", "itself", "grouped", "grouped with itself", "empty"],
)
def test_compiled_pairwise(compiler, pair):
    def compare(a, b):
        crowd = a.iou(b, iscrowd=[i % 2 for i in range(b.num_masks)])
        return a.intersection(b) + 1, a.iou(b) * 2, a.containment(b) - 1, crowd

    compiled = compile_whole(compare, compiler)
    for result, expected in zip(compiled(*pair), compare(*pair), strict=True):
        assert torch.equal(result, expected)


def test_compiled_pairs_of_mixed_sizes_still_raise(compiler):
    compiled = compile_whole(lambda a, b: a.iou(b), compiler)
    with pytest.raises(ValueError, match="masks of different sizes"):
        compiled(FLAT, MIXED)


def test_compiled_intersecting_pairs(compiler):
    """How many there are, a graph can know only if it is told that it may."""
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = compile_whole(lambda a, b: a.intersecting_pairs(b)[1] + 1, compiler)
        assert torch.equal(compiled(FLAT, SECOND), FLAT.intersecting_pairs(SECOND)[1] + 1)


def test_compiled_mixed_sizes(compiler):
    compiled = compile_whole(lambda batch: batch.decode(pad=True) + 1, compiler)
    assert torch.equal(compiled(MIXED), MIXED.decode(pad=True) + 1)


def test_compiled_once_serves_other_batches(compiler):
    """Another batch of another size may recompile, but never gives the first one's result."""
    compiled = compile_whole(lambda batch: batch.decode(pad=True).float(), compiler)
    for batch in (FLAT, FLAT[:4], MIXED, GROUPED, FLAT[2:3], FLAT):
        assert torch.equal(compiled(batch), batch.decode(pad=True).float())


def test_compiled_index_out_of_range_still_raises(compiler):
    """A graph cannot look into tensors; then it is the kernel that refuses."""
    select = torch.tensor([0, 9])
    compiled = compile_whole(lambda batch, select: batch.decode(select=select), compiler)
    with pytest.raises(IndexError, match="out of range"):
        compiled(FLAT, select)


def test_compiled_crop_outside_still_raises(compiler):
    window = torch.tensor([[0, 0, 13, 17]] * 9)
    compiled = compile_whole(lambda batch, w: batch.decode(crop=w, size=(4, 4)), compiler)
    with pytest.raises(ValueError, match="crop"):
        compiled(FLAT, window)


def test_compiled_encode(compiler):
    """The size of the block is read from the result, so the compiler must be allowed that."""
    masks = ENCODE_SAMPLES["sliced"]
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = compile_whole(lambda masks: ops.encode(masks, 1) + 1, compiler)
        assert torch.equal(compiled(masks), ops.encode(masks, 1) + 1)


def test_compiled_encode_masks(compiler):
    """In one graph if the compiler may have sizes that depend on data, else beside the graphs."""
    for masks in (ENCODE_SAMPLES["rows"], ENCODE_SAMPLES["sliced"], ENCODE_SAMPLES["one"]):
        expected = fd.encode_masks(masks).area() * 2
        with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
            compiled = compile_whole(lambda masks: fd.encode_masks(masks).area() * 2, compiler)
            assert torch.equal(compiled(masks), expected)
        torch.compiler.reset()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler says that it does not know our kernels
            compiled = torch.compile(lambda m: fd.encode_masks(m).area() * 2, backend=compiler)
            assert torch.equal(compiled(masks), expected)


@pytest.mark.timeout(110)
@pytest.mark.filterwarnings("default::DeprecationWarning")  # what torch itself still uses
def test_inductor():
    torch.compiler.reset()
    compiled = torch.compile(lambda batch: batch.decode(dtype=torch.float32) * 2, fullgraph=True)
    assert torch.equal(compiled(FLAT), FLAT.decode(dtype=torch.float32) * 2)
    torch.compiler.reset()


# --- Modes


def test_inference_mode(backend):
    expected = FLAT.decode()
    with torch.inference_mode():
        result = FLAT.decode()
        out = torch.zeros_like(expected)
        FLAT.decode(out=out)
        batch = fd.pack_rles(FLAT.to_coco())
        parts = [batch[2:4], batch[[0]], fd.RLEBatch.cat([batch])]
        areas = [part.area().tolist() for part in parts]
        encoded = fd.encode_masks(result)
    assert encoded == FLAT
    assert torch.equal(result, expected)
    assert torch.equal(out, expected)
    assert areas == [part.area().tolist() for part in (FLAT[2:4], FLAT[[0]], FLAT)]


def test_results_need_no_gradient(backend):
    assert not FLAT.decode(dtype=torch.float32).requires_grad
    assert not FLAT.centroid().requires_grad
    masks = FLAT.decode(dtype=torch.float32).requires_grad_()
    for some in (masks, masks * 2, torch.nn.Parameter(masks)):
        batch = fd.encode_masks(some)
        assert batch == FLAT
        assert not batch.data.requires_grad


@pytest.mark.parametrize("batch", [FLAT, GROUPED], ids=["flat", "grouped"])
def test_default_device_changes_nothing(backend, batch):
    """People set it to "cuda"; meta stands in for it here."""
    rles = batch.to_coco()
    expected = batch.decode(), batch.area(), batch[[1]].decode(), batch.decode(crop=(1, 1, 2, 2))
    with torch.device("meta"):
        packed = fd.pack_rles(rles)
        results = (
            packed.decode(),
            packed.area(),
            packed[[1]].decode(),
            packed.decode(crop=[1, 1, 2, 2]),
        )
        selected = packed.decode(select=[0])
        encoded = fd.encode_masks(results[0]) if results[0].dim() == 3 else packed.flat()
        encoded_array = fd.encode_masks(results[0].flatten(0, -3).numpy())
    assert encoded == batch.flat()
    assert encoded_array.area().sum() == batch.area().sum()
    for result, wanted in zip(results, expected, strict=True):
        assert result.device.type == "cpu"
        assert torch.equal(result, wanted)
    assert torch.equal(selected, batch.decode(select=[0]))


def test_default_dtype_changes_nothing(backend):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert FLAT.centroid().dtype == FLAT.bbox().dtype == torch.float32
        assert FLAT.decode().dtype == torch.uint8
    finally:
        torch.set_default_dtype(before)


def test_deterministic_mode_changes_nothing(backend):
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.equal(FLAT.decode().sum((1, 2)), FLAT.area())
    finally:
        torch.use_deterministic_algorithms(False)


def test_decoding_into_what_autograd_saved():
    """As with torch's own operators, backward refuses rather than use what was overwritten."""
    batch = fd.pack_rles([{"size": [2, 3], "counts": [1, 2, 3]}])
    out, weight = torch.full((1, 2, 3), 5.0), torch.ones((1, 2, 3), requires_grad=True)
    loss = (weight * out).sum()
    batch.decode(dtype=torch.float32, out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    with torch.inference_mode():
        batch.decode(dtype=torch.float32, out=torch.empty((1, 2, 3)))
