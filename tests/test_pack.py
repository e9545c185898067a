"""What an RLEBatch can be made of, what it is turned into, and how it behaves as an object."""

import collections
import copy
import json
import pickle
import types

import draws
import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

import sa1b_fastdecode as fd
from sa1b_fastdecode import RLEBatch

MASKS = draws.every_kind(12, 17)
RLES = [draws.to_rle(mask) for mask in MASKS]
BATCH = fd.pack_rles(RLES)
IMAGES = [RLES[:3], [], [draws.to_rle(mask) for mask in draws.every_kind(5, 40)]]
GROUPED = fd.pack_rles(IMAGES)


def strings_of(batch):
    return [rle["counts"] for rle in batch.to_coco("bytes")]


# --- Input forms

COUNTS_FORMS = {
    "str": bytes.decode,
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "memoryview of part": lambda s: memoryview(b"xx" + s + b"y")[2:-1],
    "np.str_": lambda s: np.str_(s.decode()),
    "np.bytes_": np.bytes_,
    "list": reference.string_to_counts,
    "tuple": lambda s: tuple(reference.string_to_counts(s)),
    "list of np.int64": lambda s: list(np.array(reference.string_to_counts(s))),
    "int32 array": lambda s: np.array(reference.string_to_counts(s), np.int32),
    "uint32 array": lambda s: np.array(reference.string_to_counts(s), np.uint32),
    "uint64 array": lambda s: np.array(reference.string_to_counts(s), np.uint64),
    "object array": lambda s: np.array(reference.string_to_counts(s), object),
    "strided array": lambda s: np.repeat(reference.string_to_counts(s), 2)[::2],
    "reversed array": lambda s: np.array(reference.string_to_counts(s)[::-1])[::-1],
    "tensor": lambda s: torch.tensor(reference.string_to_counts(s)),
    "int32 tensor": lambda s: torch.tensor(reference.string_to_counts(s), dtype=torch.int32),
}

SIZE_FORMS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "int32 array": lambda size: np.array(size, np.int32),
    "tensor": torch.tensor,
    "list of np.int64": lambda size: [np.int64(side) for side in size],
}


@pytest.mark.parametrize("form", COUNTS_FORMS)
def test_forms_of_counts(backend, form):
    rles = [{"size": [12, 17], "counts": COUNTS_FORMS[form](rle["counts"])} for rle in RLES]
    assert fd.pack_rles(rles) == BATCH
    assert torch.equal(fd.decode_rle_batch(rles), torch.from_numpy(np.array(MASKS)))
    assert fd.pack_rles(rles[1]) == BATCH[1]


@pytest.mark.parametrize("form", SIZE_FORMS)
def test_forms_of_size(backend, form):
    rles = [rle | {"size": SIZE_FORMS[form](rle["size"])} for rle in RLES]
    assert fd.pack_rles(rles) == BATCH


def test_forms_can_be_mixed(backend):
    forms = list(COUNTS_FORMS.values())
    rles = [r | {"counts": forms[2 * i](r["counts"])} for i, r in enumerate(RLES)]
    assert fd.pack_rles(rles) == BATCH


@pytest.mark.parametrize(
    "mapping", [types.MappingProxyType, collections.UserDict, collections.OrderedDict]
)
def test_other_mappings(backend, mapping):
    assert fd.pack_rles([mapping(rle) for rle in RLES]) == BATCH
    assert fd.pack_rles(mapping(RLES[0])) == BATCH[0]


@pytest.mark.parametrize(
    "sequence",
    [tuple, collections.deque, lambda rles: np.array(rles, object)],
    ids=["tuple", "deque", "object array"],
)
def test_other_sequences(backend, sequence):
    assert fd.pack_rles(sequence(RLES)) == BATCH


def test_annotations(backend):
    annotations = [{"id": i, "area": 1.0, "segmentation": rle} for i, rle in enumerate(RLES)]
    assert fd.pack_rles(annotations) == BATCH
    assert fd.pack_rles(annotations[3]) == BATCH[3]
    assert fd.pack_rles([annotations[0], RLES[1]]) == BATCH[:2]


def test_annotation_file(backend):
    annotations = [{"id": i, "segmentation": rle} for i, rle in enumerate(RLES)]
    assert fd.pack_rles({"image": {"height": 12}, "annotations": annotations}) == BATCH
    assert len(fd.pack_rles({"annotations": []})) == 0


@pytest.mark.parametrize("kind", ["object", "S", "list", "str"])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16])
def test_columns(backend, kind, dtype):
    """What TensorFlow Datasets has: a column of strings and one of sizes."""
    strings = [rle["counts"] for rle in RLES]
    columns = {
        "object": np.array(strings, object),
        "S": np.array(strings),
        "list": strings,
        "str": np.array([string.decode() for string in strings]),
    }
    sizes = np.array([rle["size"] for rle in RLES], dtype)
    assert fd.pack_rles((columns[kind], sizes)) == BATCH


def test_columns_of_images(backend):
    columns = (np.array([r["counts"] for r in RLES[:3]], object), np.full((3, 2), (12, 17)))
    nothing = (np.array([], object), np.zeros((0, 2), int))
    assert fd.pack_rles([columns, nothing]) == fd.pack_rles([RLES[:3], []])
    assert fd.pack_rles((np.array([], object), np.zeros((0, 2), int))) == fd.pack_rles([])


def test_columns_of_two_masks_are_no_images(backend):
    """Two columns and two images are both pairs."""
    sizes = np.array([rle["size"] for rle in RLES[:2]])
    columns = ([rle["counts"] for rle in RLES[:2]], sizes)
    assert fd.pack_rles(columns) == BATCH[:2]
    assert fd.pack_rles((RLES[:2], RLES[2:3])) == fd.pack_rles([RLES[:2], RLES[2:3]])


def test_nested(backend):
    assert GROUPED.num_images == 3
    assert GROUPED.counts_per_image.tolist() == [3, 0, 9]
    assert fd.pack_rles(tuple(tuple(image) for image in IMAGES)) == GROUPED
    assert fd.pack_rles([fd.pack_rles(image) for image in IMAGES]) == GROUPED


def test_nested_with_grouped_batches_forgets_their_grouping(backend):
    nested = fd.pack_rles([GROUPED, BATCH])
    assert nested.counts_per_image.tolist() == [12, 9]
    assert nested.flat() == RLEBatch.cat([GROUPED.flat(), BATCH])


def test_a_batch_is_returned_as_it_is():
    assert fd.pack_rles(BATCH) is BATCH
    assert fd.pack_rles(GROUPED) is GROUPED


def test_no_masks(backend):
    for nothing in ([], (), np.array([], object), {"annotations": []}):
        batch = fd.pack_rles(nothing)
        assert len(batch) == 0
        assert batch.num_images is None
        assert batch.decode().shape == (0, 0, 0)


def test_packing_copies(backend):
    """Changing the input afterwards does not change the batch."""
    string = bytearray(RLES[1]["counts"])
    batch = fd.pack_rles({"size": [12, 17], "counts": string})
    string[:] = b"0" * len(string)
    assert batch == BATCH[1]


# --- Back to COCO


@pytest.mark.parametrize("counts", ["str", "bytes", "list"])
def test_round_trip(backend, counts):
    kinds = {"str": str, "bytes": bytes, "list": list}
    rles = BATCH.to_coco(counts)
    assert all(type(rle["counts"]) is kinds[counts] for rle in rles)
    assert [rle["size"] for rle in rles] == [[12, 17]] * 9
    assert fd.pack_rles(rles) == BATCH
    images = GROUPED.to_coco(counts)
    assert [len(image) for image in images] == [3, 0, 9]
    assert fd.pack_rles(images) == GROUPED


def test_to_coco_gives_what_pycocotools_reads(backend):
    decoded = coco_mask.decode(BATCH.to_coco("bytes")).transpose(2, 0, 1)
    assert np.array_equal(decoded, np.array(MASKS))
    assert BATCH.to_coco("bytes") == [coco_mask.encode(np.asfortranarray(mask)) for mask in MASKS]
    assert [rle["counts"] for rle in BATCH.to_coco("list")] == [
        reference.mask_to_counts(mask) for mask in MASKS
    ]


@pytest.mark.parametrize("counts", ["str", "list"])
def test_to_coco_goes_through_json(backend, counts):
    for batch in (BATCH, GROUPED, BATCH[:0], fd.pack_rles([[], []])):
        back = fd.pack_rles(json.loads(json.dumps(batch.to_coco(counts))))
        assert back == batch


def test_to_coco_is_str_by_default():
    assert BATCH.to_coco() == BATCH.to_coco("str")


def test_to_coco_of_an_unknown_kind():
    with pytest.raises(ValueError, match="'rle'"):
        BATCH.to_coco("rle")


@given(st.lists(draws.sizes_and_counts(), max_size=4))
def test_counts_of_any_kind_survive(backend, drawn):
    """Zero-length runs too, and the strings are those that the reference writes."""
    rles = [{"size": [h, w], "counts": counts} for h, w, counts in drawn]
    batch = fd.pack_rles(rles)
    assert batch.to_coco("list") == rles
    assert strings_of(batch) == [reference.counts_to_string(rle["counts"]) for rle in rles]


def test_longest_counts(backend):
    """Seven characters hold every count below 2**32 and every difference."""
    most = 2**32 - 1
    for counts in ([most], [0, most], [0, 0, 0, most], [0, 0, most, 0, 0], [most - 5, 5, 0, 0, 0]):
        rle = {"size": [1, most], "counts": counts}
        batch = fd.pack_rles(rle)
        assert batch.to_coco("list") == [rle]
        assert strings_of(batch) == [reference.counts_to_string(counts)]
        assert fd.pack_rles(batch.to_coco("str")) == batch


def test_long_winded_strings_are_read(backend):
    """The same count with characters that only repeat its sign."""
    for first in (b"3", b"S0", b"SP0", b"SPPPPP0"):
        batch = fd.pack_rles({"size": [2, 4], "counts": first + b"5"})
        assert batch.to_coco("list") == [{"size": [2, 4], "counts": [3, 5]}]
        assert batch.area().tolist() == [5]


# --- Parts and unions


def test_indexing(backend):
    assert len(BATCH) == BATCH.num_masks == 9
    for i in range(-9, 9):
        assert BATCH[i].to_coco() == [BATCH.to_coco()[i]]
    assert BATCH[np.int64(2)] == BATCH[2] == BATCH[torch.tensor(2)]


@pytest.mark.parametrize("index", [slice(2, 5), slice(None), slice(None, None, -1), slice(8, 2, -3),
                                   slice(3, 3), slice(-100, 100), slice(1, None, 4)])  # fmt: skip
def test_slices(backend, index):
    part = BATCH[index]
    assert part.to_coco() == BATCH.to_coco()[index]
    assert part.num_images is None
    assert torch.equal(part.area(), torch.tensor(BATCH.area().tolist()[index], dtype=torch.int64))


@pytest.mark.parametrize(
    ("index", "places"),
    [
        ([3, 1], [3, 1]),
        ([-1, -1], [8, 8]),
        ([], []),
        (np.array([0, 8]), [0, 8]),
        (np.arange(9)[::-2], [8, 6, 4, 2, 0]),
        (np.broadcast_to(np.array(4), (2,)), [4, 4]),  # not writable
        (torch.tensor([5, -4], dtype=torch.int32), [5, 5]),
        (torch.tensor([], dtype=torch.int64), []),
        (torch.arange(9) == 6, [6]),
        ([False, True] * 4 + [True], [1, 3, 5, 7, 8]),
        (np.arange(9) < 2, [0, 1]),
        (np.uint8(7), [7]),
    ],
)
def test_indices(backend, index, places):
    part = BATCH[index]
    assert part.to_coco() == [BATCH.to_coco()[i] for i in places]
    assert part.area().tolist() == [int(MASKS[i].sum()) for i in places]


@pytest.mark.parametrize(
    "index", [9, -10, [0, 9], torch.tensor([-10]), 2**31, 2**63, 2**70, [2**63]]
)
def test_index_out_of_range(index):
    with pytest.raises(IndexError, match="9 masks"):
        BATCH[index]


@pytest.mark.parametrize(
    "index", [torch.ones(8, dtype=torch.bool), [True], np.ones(10, bool), True]
)
def test_wrong_number_of_bools(index):
    with pytest.raises(IndexError, match="9 masks"):
        BATCH[index]


@pytest.mark.parametrize("index", ["1", None, 1.0, [0.5], torch.tensor([1.0]), {1}, object()])
def test_index_of_a_wrong_kind(index):
    with pytest.raises(TypeError, match="integers"):
        BATCH[index]


def test_iteration(backend):
    assert [part.to_coco()[0] for part in BATCH] == BATCH.to_coco()
    assert all(isinstance(part, RLEBatch) and len(part) == 1 for part in GROUPED)
    assert len(list(GROUPED)) == 12
    assert RLEBatch.cat(list(BATCH)) == BATCH


def test_parts_of_mixed_sizes_know_their_own(backend):
    part = GROUPED[3:]
    assert (part.height, part.width, part.uniform) == (5, 40, True)
    assert (GROUPED.height, GROUPED.width, GROUPED.uniform) == (12, 40, False)


def test_cat(backend):
    assert RLEBatch.cat([BATCH[:4], BATCH[4:4], BATCH[4:]]) == BATCH
    assert RLEBatch.cat(iter([BATCH])) == BATCH
    assert len(RLEBatch.cat([])) == 0
    both = RLEBatch.cat([GROUPED, GROUPED])
    assert both.counts_per_image.tolist() == [3, 0, 9] * 2
    assert both == fd.pack_rles(IMAGES * 2)


def test_cat_of_flat_and_grouped():
    with pytest.raises(ValueError, match="flat"):
        RLEBatch.cat([BATCH, GROUPED])
    with pytest.raises(TypeError, match="list"):
        RLEBatch.cat([BATCH, []])


def test_flat(backend):
    flat = GROUPED.flat()
    assert flat.num_images is flat.counts_per_image is flat.image_sizes is None
    assert flat == fd.pack_rles([rle for image in IMAGES for rle in image])
    assert BATCH.flat() is BATCH
    assert len(fd.pack_rles([[], []]).flat()) == 0


# --- Properties


def test_sizes(backend):
    assert torch.equal(BATCH.sizes, torch.tensor([[12, 17]] * 9))
    assert torch.equal(GROUPED.sizes, torch.tensor([[12, 17]] * 3 + [[5, 40]] * 9))
    assert GROUPED.image_sizes.tolist() == [[12, 17], [0, 0], [5, 40]]
    assert GROUPED.image_sizes.dtype == GROUPED.counts_per_image.dtype == torch.int64
    assert fd.pack_rles([]).sizes.shape == (0, 2)


def test_image_sizes(backend):
    table = [(12, 17), (600, 800), (5, 40)]
    for sizes in (table, np.array(table, np.int32), torch.tensor(table)):
        batch = fd.pack_rles(IMAGES, image_sizes=sizes)
        assert batch.image_sizes.tolist() == [list(size) for size in table]
        assert (batch.height, batch.width) == (600, 800)
        assert batch != GROUPED
    assert fd.pack_rles([RLES], image_sizes=[(12, 17)]) == fd.pack_rles([RLES])


def test_repr():
    assert repr(BATCH) == f"RLEBatch(9 masks, 12x17, {BATCH.data.numel()} bytes, cpu)"
    assert "3 images, 12 masks, up to 12x40" in repr(GROUPED)
    assert "0 masks" in repr(BATCH[:0])


def test_equality():
    assert fd.pack_rles(RLES) == BATCH
    assert BATCH[:8] != BATCH
    assert BATCH[[1, 0]] != BATCH[[0, 1]]
    assert GROUPED.flat() != GROUPED
    assert fd.pack_rles([RLES[:2], RLES[2:]]) != fd.pack_rles([RLES[:3], RLES[3:]])
    assert BATCH != RLES
    assert (BATCH == None) is False  # noqa: E711
    # The same pixels in another size, the same string: another mask.
    assert fd.pack_rles({"size": [3, 4], "counts": [12]}) != fd.pack_rles(
        {"size": [4, 3], "counts": [12]}
    )


def test_a_batch_cannot_be_hashed():
    with pytest.raises(TypeError, match="unhashable"):
        hash(BATCH)


def test_device():
    assert BATCH.device == torch.device("cpu")
    assert BATCH.to("cpu") is BATCH
    assert BATCH.cpu() is BATCH
    assert BATCH.is_pinned() is False


# --- Pickling, copying, pinning


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(protocol):
    for batch in (BATCH, GROUPED, BATCH[:0], BATCH[2], fd.pack_rles([[]])):
        back = pickle.loads(pickle.dumps(batch, protocol))
        assert back == batch
        assert vars(back).keys() == vars(batch).keys()
        assert (back.height, back.width, back.uniform) == (batch.height, batch.width, batch.uniform)
        assert torch.equal(back.decode(pad=True), batch.decode(pad=True))


def test_a_slice_pickles_to_its_own_bytes():
    masks = [draws.noise(np.random.default_rng(i), 90, 70) for i in range(100)]
    batch = fd.pack_rles([coco_mask.encode(np.asfortranarray(mask)) for mask in masks])
    for part in (batch[40:43], batch[[99, 0, 7]], batch[::40]):
        num_bytes = sum(len(string) for string in strings_of(part))
        assert num_bytes < len(pickle.dumps(part)) < num_bytes + 400
        assert pickle.loads(pickle.dumps(part)) == part
    grouped = fd.pack_rles([batch[:50], batch[50:]])
    assert len(pickle.dumps(grouped)) < batch.data.numel() + 400
    assert pickle.loads(pickle.dumps(grouped)) == grouped


def test_copies_are_independent():
    for batch in (BATCH, GROUPED):
        twin = copy.deepcopy(batch)
        assert twin == batch
        assert twin.data.data_ptr() != batch.data.data_ptr()
        assert copy.copy(batch) == batch


@pytest.fixture
def pinning(monkeypatch):
    """Pin by copying, as there may be no CUDA here; return the tensors that were pinned."""
    pinned = []

    def pin_memory(tensor, device=None):
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(
        torch.Tensor, "is_pinned", lambda tensor, device=None: any(tensor is p for p in pinned)
    )
    return pinned


def test_pin_memory(pinning):
    for batch in (BATCH, GROUPED):
        copied = batch.pin_memory()
        assert copied is not batch
        assert copied == batch
        assert copied.data is pinning[-1]
        assert copied.is_pinned()
        assert not batch.is_pinned()
        assert torch.equal(copied.decode(pad=True), batch.decode(pad=True))
        assert torch.equal(copied.sizes, batch.sizes)


def test_data_loader_pins_batches_in_any_nest(pinning):
    """What the pinning thread of a DataLoader calls on each item that workers return."""
    from torch.utils.data._utils.pin_memory import pin_memory

    items = {"masks": BATCH, "pair": (GROUPED, torch.zeros(2)), "name": "x"}
    result = pin_memory(items)
    assert result["masks"].is_pinned()
    assert result["pair"][0].is_pinned()
    assert result["masks"] == BATCH
    assert result["pair"][0] == GROUPED
    assert len(pinning) == 3


class PackingDataset(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, i):
        return RLES[: i + 1]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_data_loader_workers_return_batches(num_workers):
    loader = torch.utils.data.DataLoader(
        PackingDataset(), batch_size=2, num_workers=num_workers, collate_fn=fd.pack_rles
    )
    batches = list(loader)
    assert [batch.counts_per_image.tolist() for batch in batches] == [[1, 2], [3, 4], [5, 6]]
    for i, batch in enumerate(batches):
        assert batch == fd.pack_rles([RLES[: 2 * i + 1], RLES[: 2 * i + 2]])
        assert batch.decode().shape == (2, 2 * i + 2, 12, 17)


def test_annotation_files_one_an_image():
    rle = {"size": [2, 3], "counts": [1, 2, 3]}
    files = [{"annotations": [{"segmentation": rle}] * 2}, {"annotations": []}]
    batch = fd.pack_rles(files)
    assert batch.counts_per_image.tolist() == [2, 0]
    assert batch == fd.pack_rles([[rle, rle], []])


def test_no_images_and_no_masks():
    batch = fd.pack_rles([], image_sizes=np.zeros((0, 2), np.int64))
    assert batch.num_images == 0
    assert batch.decode().shape == (0, 0, 0, 0)
    assert len(fd.pack_rles(([], np.zeros((0, 2), np.int64)))) == 0


def test_what_it_tells_cannot_change_it():
    batch = fd.pack_rles([[{"size": [2, 3], "counts": [1, 2, 3]}]])
    for told in (batch.sizes, batch.counts_per_image, batch.image_sizes):
        told += 1
    assert batch.sizes.tolist() == batch.image_sizes.tolist() == [[2, 3]]
    assert batch.counts_per_image.tolist() == [1]


# --- Overwriting


def test_copy_into_a_batch():
    """What has room for another batch becomes it, also where bytes are left over."""
    rles = [draws.to_rle(mask) for mask in draws.every_kind(30, 40)]
    large, small = fd.pack_rles(rles[:2]), fd.pack_rles(rles[2:4])
    assert small.data.numel() < large.data.numel()
    batch = RLEBatch(large.data.clone(), 2)
    address = batch.data.data_ptr()
    assert batch.copy_(small) is batch
    assert batch.data.data_ptr() == address
    assert batch == small
    assert batch != large
    assert batch.to_coco() == small.to_coco()
    assert torch.equal(batch.decode(), small.decode())
    assert torch.equal(batch.area(), small.area())
    assert pickle.loads(pickle.dumps(batch)) == small
    assert RLEBatch.cat([batch, large]) == RLEBatch.cat([small, large])
    assert batch[1] == small[1]
    assert batch.copy_(large) == large


def test_copy_of_what_does_not_fit():
    rles = [draws.to_rle(mask) for mask in draws.every_kind(30, 40)]
    large, small = fd.pack_rles(rles[:2]), fd.pack_rles(rles[2:4])
    with pytest.raises(ValueError, match=r"takes \d+ bytes, this one has"):
        RLEBatch(small.data.clone(), 2).copy_(large)
    for other, what in [
        (fd.pack_rles(rles[:3]), "num_masks is 2 here and 3"),
        (fd.pack_rles([rles[:2]]), "num_images is None here and 1"),
        (fd.pack_rles([draws.to_rle(mask) for mask in draws.every_kind(30, 41)[:2]]), "width"),
    ]:
        with pytest.raises(ValueError, match=what):
            large.copy_(other)
