"""Transforms of the image, of the masks, and of both, on runs and by others."""

import sys
import types

import pytest
import torch
from loaded import open_dataset

import sa1b_fastdecode as fd
from sa1b_fastdecode.data import pipeline
from sa1b_fastdecode.data.transforms import Compose, HorizontalFlip, RandomCrop, Resize


def test_transforms_of_one_part(root):
    dataset = open_dataset(
        root, transform=lambda image: image.float() / 255, mask_transform=lambda m: m[:, ::2]
    )
    plain = open_dataset(root)
    assert torch.equal(dataset[0]["image"], plain[0]["image"].float() / 255)
    assert torch.equal(dataset[0]["masks"], plain[0]["masks"][:, ::2])
    packed = open_dataset(root, mask_transform=len, mask_format="rle")
    assert packed[0]["masks"] == 6


@pytest.mark.parametrize("mask_format", ["dense", "rle"])
def test_joint_transforms(root, mask_format):
    plain = open_dataset(root)[2]

    def apply(transforms):
        sample = open_dataset(root, transforms=transforms, mask_format=mask_format)[2]
        if mask_format == "rle":
            sample["masks"] = sample["masks"].decode()
        boxes = fd.mask_bbox(fd.encode_masks(sample["masks"])) - torch.tensor([0.0, 0, 1, 1])
        assert torch.equal(sample["bboxes"], boxes)
        assert torch.equal(sample["areas"], sample["masks"].flatten(1).sum(1))
        return sample

    flipped = apply(HorizontalFlip(p=1))
    assert torch.equal(flipped["image"], plain["image"].flip(-1))
    assert torch.equal(flipped["masks"], plain["masks"].flip(-1))
    assert torch.equal(flipped["predicted_ious"], plain["predicted_ious"])
    assert torch.equal(apply(HorizontalFlip(p=0))["masks"], plain["masks"])

    torch.manual_seed(3)
    crop = apply(RandomCrop((24, 1000)))
    torch.manual_seed(3)
    y = int(torch.randint(40 - 24 + 1, ()))
    window = plain["masks"][:, y : y + 24]
    kept = window.flatten(1).bool().any(1)
    assert 0 < kept.sum() < 9
    assert torch.equal(crop["image"], plain["image"][:, y : y + 24])
    assert torch.equal(crop["masks"], window[kept])
    assert torch.equal(crop["stability_scores"], plain["stability_scores"][kept])

    both = apply(Compose([Resize((20, 28)), HorizontalFlip(p=1)]))
    assert both["image"].shape == (3, 20, 28)
    smaller = fd.encode_masks(plain["masks"]).decode(size=(20, 28))
    assert torch.equal(both["masks"], smaller[smaller.flatten(1).bool().any(1)].flip(-1))


def test_joint_transforms_of_images_without_masks(root):
    transforms = Compose([Resize((20, 28)), HorizontalFlip(p=1)])
    assert open_dataset(root, transforms=transforms)[1]["masks"].shape == (0, 20, 28)
    sample = open_dataset(root, transforms=transforms, mask_format="none")[0]
    assert sample["image"].shape == (3, 20, 28)


def test_transforms_that_know_nothing_of_runs(root):
    def turn(sample):
        assert sample["masks"].dtype == torch.uint8
        image, masks = sample["image"].mT[:, 9:], sample["masks"].mT[:, 9:]
        return {**sample, "image": image, "masks": masks}

    plain = open_dataset(root)
    for index in (0, 1):
        sample = open_dataset(root, transforms=turn)[index]
        assert torch.equal(sample["masks"], plain[index]["masks"].mT[:, 9:])
        assert torch.equal(sample["areas"], sample["masks"].flatten(1).sum(1))
        packed = open_dataset(root, transforms=turn, mask_format="rle")[index]
        assert packed["masks"] == fd.encode_masks(sample["masks"])


def test_torchvision_gets_its_types(root, monkeypatch, request):
    """With stand-ins: what is checked is that types arrive and are taken off again."""
    pipeline._find_tv_tensors.cache_clear()
    request.addfinalizer(pipeline._find_tv_tensors.cache_clear)
    made = []

    def typed(name):
        class Typed(torch.Tensor):
            def __new__(cls, data, **options):
                made.append((name, options))
                return data.as_subclass(cls)

        Typed.__name__ = name
        return Typed

    names = ("Image", "Mask", "BoundingBoxes")
    tv_tensors = types.SimpleNamespace(**{name: typed(name) for name in names})
    package = types.ModuleType("torchvision")
    package.tv_tensors = tv_tensors
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.tv_tensors", tv_tensors)
    seen = []

    def look(sample):
        seen.append({key: type(value).__name__ for key, value in sample.items()})
        return sample

    sample = open_dataset(root, transforms=look)[0]
    assert seen[0]["image"] == "Image"
    assert seen[0]["masks"] == "Mask"
    assert seen[0]["bboxes"] == "BoundingBoxes"
    assert ("BoundingBoxes", {"format": "XYWH", "canvas_size": (40, 56)}) in made
    assert {type(value) for key, value in sample.items() if key != "image_id"} == {torch.Tensor}


def test_a_torchvision_that_cannot_be_imported(root, monkeypatch, request):
    """As where it was built for another torch: once is enough to find out."""
    pipeline._find_tv_tensors.cache_clear()
    request.addfinalizer(pipeline._find_tv_tensors.cache_clear)
    tried = []

    def fail(name):
        tried.append(name)
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(pipeline.importlib, "import_module", fail)
    dataset = open_dataset(root, transforms=lambda sample: sample)
    assert [type(dataset[i]["masks"]) for i in (0, 2)] == [torch.Tensor] * 2
    assert tried == ["torchvision.tv_tensors"]
