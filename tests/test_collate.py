"""Batches hold what the samples hold, whose masks may be dense or compressed."""

import copy
import pickle

import numpy as np
import pytest
import torch
from loaded import COLUMNS, check_batch

import sa1b_fastdecode as fd
from sa1b_fastdecode.data import SA1BBatch, SA1BDataset, sa1b_collate_fn, sampling_collate_fn


@pytest.mark.parametrize("dense", [False, True])
def test_collating_what_datasets_give(root, dataset, dense):
    packed = SA1BDataset(root, mask_format="rle")
    samples = [dataset[i] for i in range(4)]
    before = copy.deepcopy(samples)
    check_batch(sa1b_collate_fn(samples, dense=dense), before)
    check_batch(sa1b_collate_fn([packed[i] for i in range(4)], dense=dense), before)
    for sample, kept in zip(samples, before, strict=True):  # nothing was changed
        assert sample.keys() == kept.keys()
        assert all(torch.equal(sample[k], kept[k]) for k in sample if k != "image_id")
    check_batch(sa1b_collate_fn(samples[1:2]), before[1:2])  # one without masks


@pytest.mark.parametrize("dense", [False, True])
def test_ragged_batches(root, dataset, dense):
    packed = SA1BDataset(root, mask_format="rle")
    samples = [dataset[i] for i in range(4)]
    batch = sa1b_collate_fn([packed[i] for i in range(4)], ragged=True, dense=dense)
    for i, sample in enumerate(samples):
        assert torch.equal(batch["images"][i], sample["image"])
        if dense:
            assert torch.equal(batch["masks"][i], sample["masks"])
    for name in COLUMNS:
        assert torch.equal(batch[name], torch.cat([s[name] for s in samples]))
    assert batch["mask_counts"].tolist() == [6, 0, 9, 6]
    if not dense:
        assert batch["masks"] == fd.pack_rles(
            [packed[i]["masks"] for i in range(4)], image_sizes=batch["image_sizes"]
        )


def test_sizes_of_batches(root, dataset):
    packed = SA1BDataset(root, mask_format="rle")
    items = [packed[i] for i in range(3)]
    batch = sa1b_collate_fn(items, out_size=(20, 30), dense=True, mask_dtype=torch.float32)
    assert batch["images"].shape == (3, 3, 20, 30)
    assert batch["image_sizes"].tolist() == [[20, 30]] * 3
    sized = [item["masks"].decode(size=(20, 30), dtype=torch.float32) for item in items[::2]]
    assert batch["masks"].dtype == torch.float32
    assert torch.equal(batch["masks"][0, :6], sized[0])
    assert torch.equal(batch["masks"][2], sized[1])
    assert torch.equal(batch["areas"][0, :6], dataset[0]["areas"])  # of the original
    several = {
        tuple(sa1b_collate_fn(items, out_size=[(20, 30), (10, 12)])["images"].shape[2:])
        for _ in range(30)
    }
    assert several == {(20, 30), (10, 12)}


@pytest.mark.parametrize("ragged", [False, True])
def test_dense_masks_are_resized_with_their_images(root, dataset, ragged):
    items = [dataset[i] for i in range(3)]
    batch = sa1b_collate_fn(items, out_size=(21, 30), ragged=ragged)
    packed = SA1BDataset(root, mask_format="rle")
    expected = sa1b_collate_fn(
        [packed[i] for i in range(3)], out_size=(21, 30), ragged=ragged, dense=True
    )
    for name in ("images", "masks"):
        assert len(batch[name]) == 3
        assert all(torch.equal(a, b) for a, b in zip(batch[name], expected[name], strict=True))
    halves = [{**item, "masks": item["masks"] / 2} for item in items]
    batch = sa1b_collate_fn(halves, out_size=(21, 30))
    assert torch.equal(batch["masks"], sa1b_collate_fn(items, out_size=(21, 30))["masks"] / 2)


@pytest.mark.parametrize("out_size", [20, [], (20,), (20, 30, 40), (0, 4), [(20, 30), 7], "ab"])
def test_wrong_sizes(dataset, out_size):
    with pytest.raises((TypeError, ValueError), match="out_size must be two"):
        sa1b_collate_fn([dataset[0]], out_size=out_size)


def test_samples_that_do_not_fit_together(root, dataset):
    packed, none = (SA1BDataset(root, mask_format=kind) for kind in ("rle", "none"))
    for pair in ((dataset[0], none[1]), (none[0], dataset[1])):
        with pytest.raises(ValueError, match=r"sa_1 and sa_2 cannot be joined: .* areas, bboxes"):
            sa1b_collate_fn(pair)
    for pair in ((dataset[0], packed[1]), (packed[0], dataset[1])):
        with pytest.raises(ValueError, match="only the masks of one of them are dense"):
            sa1b_collate_fn(pair)


def test_transformed_images_and_wrong_ones(dataset):
    samples = [dataset[i] for i in (0, 1)]
    floats = [{**s, "image": s["image"].float() / 255} for s in samples]
    batch = sa1b_collate_fn(floats)
    assert batch["images"].dtype == torch.float32
    assert torch.equal(batch["images"][0, :, :40, :56], floats[0]["image"])
    gray = [{**s, "image": s["image"][:1]} for s in samples]
    assert sa1b_collate_fn(gray)["images"].shape == (2, 1, 64, 56)
    with pytest.raises(ValueError, match="cannot be joined"):
        sa1b_collate_fn([samples[0], gray[1]])
    with pytest.raises(TypeError, match="not str"):
        sa1b_collate_fn([{**samples[0], "image": "pixels"}])


def test_sampling(root, dataset):
    packed = SA1BDataset(root, mask_format="rle")
    for source in (dataset, packed):
        samples = [source[i] for i in range(4)]
        before = [sample["areas"].clone() for sample in samples]
        draw = [
            sampling_collate_fn(samples, 4, generator=torch.Generator().manual_seed(seed))
            for seed in (0, 0, 1)
        ]
        assert draw[0]["mask_counts"].tolist() == [4, 0, 4, 4]
        assert torch.equal(draw[0]["areas"], draw[1]["areas"])
        assert not torch.equal(draw[0]["areas"], draw[2]["areas"])
        masks = draw[0]["masks"]
        areas = masks.decode() if isinstance(masks, fd.RLEBatch) else masks
        assert torch.equal(areas.flatten(2).sum(2), draw[0]["areas"])
        for sample, areas in zip(samples, before, strict=True):
            assert torch.equal(sample["areas"], areas)
            assert len(sample["masks"]) == len(areas)
    only_large = lambda columns: columns["areas"] >= np.sort(columns["areas"])[-2]  # noqa: E731
    batch = sampling_collate_fn([dataset[2]], 2, weights=only_large)
    assert sorted(batch["areas"][0].tolist()) == sorted(dataset[2]["areas"].tolist())[-2:]
    with pytest.raises(ValueError, match="weights must be 'area'"):
        sampling_collate_fn([dataset[2]], 2, weights="beauty")
    with pytest.raises(ValueError, match="max_masks must not be negative"):
        sampling_collate_fn([dataset[2]], -1)
    none = SA1BDataset(root, mask_format="none")
    assert "masks" not in sampling_collate_fn([none[0], none[2]])


def test_batches_move_and_are_pinned_as_one(dataset, monkeypatch):
    batch = sa1b_collate_fn([dataset[0], dataset[2]])
    batch["spatial_features"] = {"iou": torch.ones(2, 2)}
    moved = batch.to("cpu")
    assert isinstance(moved, SA1BBatch)
    assert moved.keys() == batch.keys()
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    monkeypatch.setattr(fd.RLEBatch, "pin_memory", lambda self: pinned.append(self) or self)
    assert isinstance(batch.pin_memory(), SA1BBatch)
    assert len(pinned) == 9
    again = pickle.loads(pickle.dumps(batch))
    assert isinstance(again, SA1BBatch)
    assert torch.equal(again["images"], batch["images"])
