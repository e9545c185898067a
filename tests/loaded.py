"""What datasets and loaders gave, compared with what they should."""

import numpy as np
import torch

import sa1b_fastdecode as fd
from sa1b_fastdecode.data import SA1BBatch, SA1BDataset

COLUMNS = ("bboxes", "areas", "predicted_ious", "stability_scores")


def open_dataset(root, *args, **options):
    return SA1BDataset(root, *args, progress=False, **options)


def check_sample(sample, truth, dtype=torch.uint8):
    image, masks, listed = truth
    assert sample["image"].dtype == torch.uint8
    assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), image)
    assert sample["masks"].dtype == dtype
    assert sample["masks"].is_contiguous()
    assert sample["masks"].shape == masks.shape
    assert np.array_equal(sample["masks"].numpy(), masks)
    for name, key, dtype in (
        ("bboxes", "bbox", torch.float32),
        ("areas", "area", torch.int64),
        ("predicted_ious", "predicted_iou", torch.float32),
        ("stability_scores", "stability_score", torch.float32),
    ):
        assert sample[name].dtype == dtype
        expected = torch.tensor([a[key] for a in listed], dtype=dtype)
        assert torch.equal(sample[name], expected.reshape(sample[name].shape))


def key(sample):
    """What tells the images of all tars apart."""
    return tuple(sample["image"][:, ::7, ::5].flatten().tolist()[:40])


def keys_of(batch):
    pairs = zip(batch["images"], batch["image_sizes"].tolist(), strict=True)
    return [key({"image": image[:, :h, :w]}) for image, (h, w) in pairs]


def all_keys(dataset):
    return [key(sample) for sample in dataset]


def check_batch(batch, samples):
    """A padded, compressed batch of these samples."""
    assert isinstance(batch, SA1BBatch)
    assert batch["image_ids"] == [s["image_id"] for s in samples]
    sizes = [tuple(s["image"].shape[1:]) for s in samples]
    assert batch["image_sizes"].tolist() == [list(size) for size in sizes]
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    most = max(len(s["areas"]) for s in samples)
    assert batch["images"].shape == (len(samples), 3, height, width)
    assert batch["mask_counts"].tolist() == [len(s["areas"]) for s in samples]
    masks = batch["masks"]
    if isinstance(masks, fd.RLEBatch):
        assert masks.counts_per_image.tolist() == batch["mask_counts"].tolist()
        masks = masks.decode()
    assert masks.shape == (len(samples), most, height, width)
    for i, (sample, (h, w)) in enumerate(zip(samples, sizes, strict=True)):
        n = len(sample["areas"])
        assert torch.equal(batch["images"][i, :, :h, :w], sample["image"])
        assert batch["images"][i, :, h:].sum() == batch["images"][i, :, :, w:].sum() == 0
        assert torch.equal(masks[i, :n, :h, :w], sample["masks"])
        assert masks[i].sum() == sample["masks"].sum()
        for name in COLUMNS:
            assert torch.equal(batch[name][i, :n], sample[name])
            assert not batch[name][i, n:].any()
