"""The curriculum follows its formulas, and samples say how their masks lie to one another."""

import types

import pytest
import torch

from sa1b_fastdecode import spatial
from sa1b_fastdecode.data import (
    ARRCOCDataLoader,
    ARRCOCDataset,
    SA1BDataset,
    SA1BStream,
    create_sa1b_dataloader,
)

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # few cores
]


def test_the_curriculum(root):
    dataset = SA1BDataset(root, max_masks=2)  # which does not limit it
    config = {
        "base_max_masks": 1,
        "final_max_masks": 8,
        "base_batch_size": 3,
        "min_batch_size": 2,
        "num_workers": 1,
    }
    curriculum = ARRCOCDataLoader(dataset, config)
    workers = set()
    for epoch, (most, size) in {0: (1, 3), 1: (8, 3), 4: (8, 3), 5: (8, 2), 50: (8, 2)}.items():
        while curriculum.epoch < epoch:
            curriculum.step_epoch()
        loader = curriculum.get_dataloader()
        assert loader.epoch == epoch
        batches = list(loader)
        workers |= {worker.pid for worker in loader._iterator._workers}
        assert max(int(batch["mask_counts"].max()) for batch in batches) == most
        sizes = [len(batch["image_ids"]) for batch in batches]
        assert sizes == [size] * (13 // size) + [13 % size]
        assert len(loader) == len(sizes)
    assert len(workers) == 1  # it lives on
    assert curriculum.get_dataloader(0).epoch == 0
    assert max(len(b["areas"][0]) for b in curriculum.get_dataloader(0)) == 1


def test_the_formulas_of_the_curriculum(dataset):
    config = types.SimpleNamespace(
        base_max_masks=50, final_max_masks=95, base_batch_size=8, min_batch_size=2
    )
    curriculum = ARRCOCDataLoader(dataset, config)
    for epoch in range(60):
        assert curriculum.max_masks(epoch) == min(50 + 10 * epoch, 95)
        assert curriculum.batch_size(epoch) == max(8 - epoch // 5, 2)
    config.num_workers, config.shuffle, config.learning_rate = 0, False, 0.1
    batch = next(iter(ARRCOCDataLoader(dataset, config).get_dataloader()))
    assert batch["image_ids"] == [f"sa_{i}" for i in (1, 2, 3, 4, 5, 6, 7, 1)]
    with pytest.raises(ValueError, match="negative"):
        curriculum.get_dataloader(-1)
    with pytest.raises(ValueError, match="min_batch_size"):
        ARRCOCDataLoader(dataset, {"min_batch_size": 0})
    with pytest.raises(TypeError, match="stream"):
        ARRCOCDataLoader(SA1BStream(dataset), {})


@pytest.mark.parametrize("num_workers", [0, 1])
def test_spatial_features(root, dataset, num_workers):
    described = ARRCOCDataset(root, max_masks=5)
    sample = described[2]
    packed = SA1BDataset(root, max_masks=5, mask_format="rle")[2]["masks"]
    for name, expected in spatial.spatial_features(packed).items():
        assert torch.equal(sample["spatial_features"][name], expected)
    for name, expected in spatial.mask_hierarchy(packed).items():
        assert torch.equal(sample["mask_hierarchy"][name], expected)
    assert sample["masks"].shape[0] == 5
    batch = next(iter(create_sa1b_dataloader(described, 3, num_workers, shuffle=False)))
    assert batch["spatial_features"]["iou_matrix"].shape == (3, 5, 5)
    assert torch.equal(
        batch["spatial_features"]["containment"][2], sample["spatial_features"]["containment"]
    )
    assert not batch["spatial_features"]["iou_matrix"][1].any()  # no masks
    for i, image in enumerate(described[j] for j in range(3)):
        for name, expected in image["mask_hierarchy"].items():
            assert torch.equal(batch["mask_hierarchy"][name][i], expected)
    assert described[1]["masks"].shape[0] == 0
