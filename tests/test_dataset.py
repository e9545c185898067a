"""SA1BDataset gives what naive code reads from the same files, from tars as from folders."""

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
import torch
from sa1b_files import members, rewrite, truth_of, write_extracted, write_tars

import sa1b_fastdecode as fd
from sa1b_fastdecode.data import SA1BDataset, SampleError, SkippedSample, annotations, images
from sa1b_fastdecode.data.cache import DiskCache, MemoryCache
from sa1b_fastdecode.data.selection import choose_masks
from sa1b_fastdecode.data.transforms import Compose, HorizontalFlip, RandomCrop, Resize

IDS = [f"sa_{i}" for i in (1, 2, 3, 4, 5, 1, 2, 3, 4)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sa1b")
    write_tars(folder)
    return folder


@pytest.fixture(scope="module")
def contents(root):
    return [members(root / f"sa_{k:06d}.tar") for k in (0, 1)]


@pytest.fixture
def own(tmp_path):
    """One tar that a test may damage."""
    (tar,) = write_tars(tmp_path, [5])
    return tar


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


@pytest.mark.parametrize("source", ["tars", "folders", "both, folders", "both, tars"])
def test_samples(root, contents, tmp_path, source, cpu_backend):
    if source != "tars":
        for k, n in enumerate((5, 4)):
            write_extracted(tmp_path, k, n)
        if source.startswith("both"):
            write_tars(tmp_path)
    place = root if source == "tars" else tmp_path
    dataset = open_dataset(place, use_tar_streaming=source == "both, tars")
    assert len(dataset) == 9
    assert dataset.problems == []
    assert [sample["image_id"] for sample in dataset] == IDS
    is_tar = source in ("tars", "both, tars")
    for i, image_id in enumerate(IDS):
        k = int(i >= 5)
        check_sample(dataset[i], truth_of(contents[k], image_id))
        name = f"sa_{k:06d}" + (".tar" if is_tar else "")
        info = {"tar_index": k, "image_id": image_id, "tar_file": str(place / name)}
        assert dataset.get_image_info(i) == info
        annotation = json.loads(contents[k][f"{image_id}.json"])
        assert dataset.get_annotation(i) == annotation
    assert dataset[-1]["image_id"] == IDS[-1]
    for index in (9, -10):
        with pytest.raises(IndexError):
            dataset[index]


def test_images_without_masks(root):
    sample = open_dataset(root)[1]
    assert sample["masks"].shape == (0, *sample["image"].shape[1:])
    assert sample["bboxes"].shape == (0, 4)
    assert open_dataset(root, mask_size=(7, 8))[1]["masks"].shape == (0, 7, 8)
    packed = open_dataset(root, mask_format="rle", exact_bboxes=True)[1]
    assert len(packed["masks"]) == 0
    assert packed["exact_bboxes"].shape == (0, 4)


def test_without_optional_libraries(root, contents, monkeypatch):
    expected = open_dataset(root)[0]
    monkeypatch.setattr(images, "simplejpeg", None)
    monkeypatch.setattr(annotations, "read_json", json.loads)
    sample = open_dataset(root)[0]
    check_sample(sample, truth_of(contents[0], "sa_1"))
    assert torch.equal(sample["image"], expected["image"])
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="pip install simplejpeg"):
        open_dataset(root)[0]


def test_which_tars(root, tmp_path):
    assert len(open_dataset(root, [1])) == 4
    assert len(open_dataset(root, range(2))) == 9
    with pytest.raises(FileNotFoundError, match="number 7"):
        open_dataset(root, [0, 7])
    with pytest.raises(FileNotFoundError, match="has no tars"):
        open_dataset(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_dataset(tmp_path / "nowhere")


def test_pairs_in_the_folder_itself(tmp_path):
    write_extracted(tmp_path, 20, 3)
    dataset = open_dataset(tmp_path / "sa_000020")
    assert [sample["image_id"] for sample in dataset] == IDS[:3]
    assert dataset.get_image_info(0)["tar_index"] == 20


def test_tars_are_indexed_when_they_are_needed(root, tmp_path):
    dataset = open_dataset(root, preload_index=False, memmap_path=tmp_path / "indexes")
    assert not (tmp_path / "indexes").exists()
    assert dataset[4]["image_id"] == "sa_5"
    assert len(list((tmp_path / "indexes").iterdir())) == 1
    assert len(dataset) == 9
    assert len(list((tmp_path / "indexes").iterdir())) == 2
    with pytest.raises(IndexError):
        open_dataset(root, preload_index=False)[9]


def test_options_of_masks(root, contents):
    _, masks, listed = truth_of(contents[0], "sa_3")
    areas = np.array([a["area"] for a in listed])
    for dtype in (torch.bool, torch.float32):
        sample = open_dataset(root, mask_dtype=dtype)[2]
        check_sample(sample, truth_of(contents[0], "sa_3"), dtype)
    sized = open_dataset(root, mask_size=(20, 30))[2]["masks"]
    rles = [a["segmentation"] for a in listed]
    assert torch.equal(sized, fd.decode_rle_batch(rles, size=(20, 30)))
    packed = open_dataset(root, mask_format="rle", exact_bboxes=True)[2]
    assert packed["masks"] == fd.pack_rles(rles)
    assert torch.equal(packed["exact_bboxes"], fd.mask_bbox(rles))
    off_by_one = packed["exact_bboxes"] - packed["bboxes"]
    assert torch.equal(off_by_one, torch.tensor([0.0, 0, 1, 1]).expand(9, 4))
    none = open_dataset(root, mask_format="none")[2]
    assert sorted(none) == ["image", "image_id"]

    largest = np.sort(np.argsort(-areas, kind="stable")[:4])
    for format_ in ("dense", "rle"):
        sample = open_dataset(root, max_masks=4, mask_format=format_)[2]
        assert np.array_equal(sample["areas"], areas[largest])
        chosen = sample["masks"] if format_ == "dense" else sample["masks"].decode()
        assert np.array_equal(chosen, masks[largest])
    assert len(open_dataset(root, max_masks=0)[2]["masks"]) == 0
    assert len(open_dataset(root, max_masks=None)[2]["masks"]) == 9


def test_only_what_is_chosen_is_decoded(root, monkeypatch):
    decoded = []
    decode = fd.RLEBatch.decode
    monkeypatch.setattr(
        fd.RLEBatch, "decode", lambda self, **k: decoded.append(len(self)) or decode(self, **k)
    )
    open_dataset(root, max_masks=2)[2]
    assert decoded == [2]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("mask_format", "png"),
        ("mask_dtype", torch.int64),
        ("max_masks", -1),
        ("mask_choice", "beauty"),
        ("mask_weights", "beauty"),
        ("on_error", "ignore"),
    ],
)
def test_wrong_options(root, option, value):
    with pytest.raises(ValueError, match=option):
        open_dataset(root, **{option: value})
    with pytest.raises(ValueError, match="mask_size"):
        open_dataset(root, mask_format="rle", mask_size=(3, 3))


# Choosing


def choose(num, limit, columns=None, seed=0, **options):
    columns = columns or {"areas": np.arange(num) % 5, "predicted_ious": np.linspace(1, 0, num)}
    return choose_masks(columns, num, limit, rng=np.random.default_rng(seed), **options)


def test_choosing_by_value():
    assert choose(4, 4) is None
    assert choose(4, None) is None
    assert choose(10, 3).tolist() == [3, 4, 9]  # of equals the first
    assert choose(10, 3, by="predicted_iou").tolist() == [0, 1, 2]
    assert choose(10, 2, by=lambda columns: columns["predicted_ious"] < 0.5).tolist() == [5, 6]
    with pytest.raises(ValueError, match="10 masks"):
        choose(10, 2, by=lambda columns: [1, 2])


def test_choosing_at_random():
    draws = [choose(10, 3, seed=seed, by="random").tolist() for seed in range(200)]
    assert all(draw == sorted(set(draw)) for draw in draws)
    assert set().union(*draws) == set(range(10))
    assert choose(10, 3, seed=4, by="random").tolist() == draws[4]
    with pytest.raises(ValueError, match="negative"):
        choose(10, 2, by="random", weights=lambda columns: np.full(10, -1.0))
    with pytest.raises(ValueError, match="finite"):
        choose(10, 2, by="random", weights=lambda columns: np.full(10, np.nan))


def test_choosing_by_weight():
    weights = np.array([0, 1, 2, 3, 4.0])
    columns = {"areas": weights}
    times = np.zeros(5)
    for seed in range(4000):
        times[choose(5, 1, columns, seed, by="random", weights="area")] += 1
    assert times[0] == 0
    assert np.abs(times / 4000 - weights / 10).max() < 0.03
    # When those with a weight are gone, the others are taken.
    taken = {tuple(choose(5, 4, {"areas": [0, 0, 1, 0, 1]}, s, by="random", weights="area"))
             for s in range(50)}  # fmt: skip
    assert all({2, 4} <= set(some) for some in taken)
    assert len(taken) == 3


def test_random_masks_differ_by_epoch_and_repeat(root):
    dataset = open_dataset(root, max_masks=3, mask_choice="random", seed=5)
    first = dataset[2]["areas"]
    assert torch.equal(dataset[2]["areas"], first)
    assert torch.equal(
        open_dataset(root, max_masks=3, mask_choice="random", seed=5)[2]["areas"], first
    )
    later = []
    for epoch in range(1, 6):
        dataset.set_epoch(epoch)
        later.append(dataset[2]["areas"])
    assert any(not torch.equal(areas, first) for areas in later)


# Transforms


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
        return {**sample, "image": sample["image"].mT, "masks": sample["masks"].mT}

    plain = open_dataset(root)
    for index in (0, 1):
        sample = open_dataset(root, transforms=turn)[index]
        assert torch.equal(sample["masks"], plain[index]["masks"].mT)
        packed = open_dataset(root, transforms=turn, mask_format="rle")[index]
        assert packed["masks"] == fd.encode_masks(plain[index]["masks"].mT)


def test_torchvision_gets_its_types(root, monkeypatch):
    """With stand-ins: what is checked is that types arrive and are taken off again."""
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


# Damage


def damage_json(contents):
    contents["sa_3.json"] = contents["sa_3.json"][:-30]


def damage_counts(contents):
    file = json.loads(contents["sa_3.json"])
    file["annotations"][4]["segmentation"]["counts"] += "1"
    contents["sa_3.json"] = json.dumps(file).encode()


def other_size(contents):
    file = json.loads(contents["sa_3.json"])
    file["image"]["height"] = 41
    contents["sa_3.json"] = json.dumps(file).encode()


def lose_a_key(contents):
    file = json.loads(contents["sa_3.json"])
    del file["annotations"][2]["stability_score"]
    contents["sa_3.json"] = json.dumps(file).encode()


def cut_jpeg(contents):
    contents["sa_3.jpg"] = contents["sa_3.jpg"][:300]


def garble_jpeg(contents):
    contents["sa_3.jpg"] = b"\xff\xd8" + b"x" * 500


def swap_jpeg(contents):
    contents["sa_3.jpg"] = contents["sa_2.jpg"]


DAMAGES = [
    (damage_json, "sa_3.json: it is not JSON"),
    (damage_counts, "sa_3.json: mask 4: counts"),
    (other_size, "sa_3.json: mask 0 is 40x56, the image 41x56"),
    (lose_a_key, "sa_3.json: mask 2 has no 'stability_score'"),
    (cut_jpeg, "sa_3.jpg: the JPEG cannot be decoded"),
    (garble_jpeg, "sa_3.jpg: the JPEG cannot be decoded"),
    (swap_jpeg, "sa_3.jpg: the JPEG cannot be decoded: it is 64x48, not 40x56"),
]


@pytest.mark.parametrize("pillow", [False, True])
@pytest.mark.parametrize(("damage", "cause"), DAMAGES)
def test_a_damaged_sample_says_what_and_where(own, damage, cause, pillow, monkeypatch):
    if pillow:
        monkeypatch.setattr(images, "simplejpeg", None)
        monkeypatch.setattr(annotations, "read_json", json.loads)
    rewrite(own, damage)
    dataset = open_dataset(own.parent)
    with pytest.raises(SampleError) as caught:
        dataset[2]
    assert str(caught.value).startswith(f"{own}: {cause}")
    assert dataset[3]["image_id"] == "sa_4"
    skipping = open_dataset(own.parent, on_error="skip")
    assert skipping[2] == SkippedSample("sa_3", str(caught.value))
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


@pytest.mark.parametrize(
    "content",
    [b"[]", b"{}", b'{"image": 3, "annotations": []}', b"null", b'"text"', b"\xff", b""]
    + [json.dumps({"image": {"height": h, "width": 5}, "annotations": a}).encode()
       for h, a in ((0, []), ("4", []), (4.5, []), (4, {}), (4, [3]), (4, [{}]))],
)  # fmt: skip
def test_what_is_no_annotation_file(content):
    with pytest.raises(ValueError):
        annotations.parse_annotations(content)


@pytest.mark.parametrize(
    ("key", "value"),
    [("bbox", [1, 2, 3]), ("bbox", "abcd"), ("area", None), ("area", 2**70), ("bbox", [[1]] * 4)],
)
def test_wrong_values_name_the_mask(contents, key, value):
    file = json.loads(contents[0]["sa_1.json"])
    file["annotations"][3][key] = value
    with pytest.raises(ValueError, match=f"mask 3 has the {key}"):
        annotations.parse_annotations(json.dumps(file).encode())


def test_incomplete_pairs_and_cut_tars_are_told_and_left_out(own):
    rewrite(own, lambda contents: contents.pop("sa_2.jpg"))
    with pytest.warns(RuntimeWarning, match=r"1 problems in the data.*sa_2\.json: has no \.jpg"):
        dataset = open_dataset(own.parent, cache_size=0)
    assert [sample["image_id"] for sample in dataset] == ["sa_1", "sa_3", "sa_4", "sa_5"]
    assert dataset.problems == [f"{own}: sa_2.json: has no .jpg"]
    os.truncate(own, own.stat().st_size // 2)
    with pytest.raises(SampleError, match=r"sa_1\.json.*has changed since it was indexed"):
        dataset[0]
    with pytest.warns(RuntimeWarning, match="cut off"):
        shorter = open_dataset(own.parent)
    assert 0 < len(list(shorter)) < 4


def test_a_lost_file_of_a_folder(tmp_path):
    write_extracted(tmp_path, 0, 3)
    dataset = open_dataset(tmp_path)
    (tmp_path / "sa_000000" / "sa_2.jpg").unlink()
    with pytest.raises(SampleError, match=r"sa_000000: sa_2\.jpg: .*No such file"):
        dataset[1]
    cached = open_dataset(tmp_path, preload_index=False, cache_dir=tmp_path / "cache")
    with pytest.warns(RuntimeWarning, match=r"sa_2\.json: has no \.jpg"):
        assert cached[torch.tensor(1)]["image_id"] == "sa_3"
    (tmp_path / "sa_000000" / "sa_3.jpg").unlink()
    (tmp_path / "sa_000000" / "sa_1.json").unlink()
    with pytest.raises(SampleError, match=r"sa_000000: sa_1\.json: .*No such file"):
        cached[0]
    write_extracted(tmp_path, 0, 3)
    (tmp_path / "sa_000000" / "sa_2.jpg").unlink()
    with pytest.warns(RuntimeWarning, match=r"sa_2\.json: has no \.jpg"):
        assert len(open_dataset(tmp_path)) == 2


# Caches


def test_the_memory_cache_forgets_what_was_not_used_longest(root):
    dataset = open_dataset(root)
    samples = [dataset.read(0, i) for i in range(5)]
    cache = MemoryCache(3, 10**9)
    for i in range(3):
        cache.put(i, samples[i])
    cache.get(0)
    cache.put(3, samples[3])
    assert [cache.get(i) is not None for i in range(4)] == [True, False, True, True]
    assert cache.num_bytes == sum(samples[i].num_bytes for i in (0, 2, 3))
    small = MemoryCache(100, samples[0].num_bytes + samples[1].num_bytes)
    for i in (0, 1, 0, 2, 3, 4):
        small.put(i, samples[i])
        assert small.num_bytes <= small.max_bytes
    nothing = MemoryCache(0, 10**9)
    nothing.put(0, samples[0])
    assert len(nothing) == 0


def test_a_cached_sample_is_read_once_and_stays_as_it_was(own):
    dataset = open_dataset(own.parent)
    expected = dataset[2]["areas"].clone()
    dataset[2]["areas"].fill_(0)
    dataset[2]["masks"].fill_(0)
    os.truncate(own, 100)
    assert torch.equal(dataset[2]["areas"], expected)
    with pytest.raises(SampleError):
        dataset[3]
    with pytest.raises(SampleError):
        pickle.loads(pickle.dumps(dataset))[2]  # the cache does not travel


def test_the_disk_cache(own, tmp_path, contents):
    options = {"cache_dir": tmp_path / "cache", "cache_size": 0}
    list(open_dataset(own.parent, max_masks=2, **options))
    files = sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert len(files) == 5
    dataset = open_dataset(own.parent, **options)
    own.unlink()
    for i, image_id in enumerate(IDS[:5]):  # all masks, though fewer were asked for then
        check_sample(dataset[i], truth_of(contents[0], image_id))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "version"])
def test_a_damaged_cache_file_is_written_again(own, tmp_path, damage):
    options = {"cache_dir": tmp_path / "cache", "cache_size": 0}
    expected = open_dataset(own.parent, **options)[2]
    (file,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    damages = {"cut": content[:-1], "flipped": bytes(flipped), "empty": b""}
    file.write_bytes(damages.get(damage, content[:8] + b"\x09" + content[9:]))
    sample = open_dataset(own.parent, **options)[2]
    assert torch.equal(sample["masks"], expected["masks"])
    assert torch.equal(sample["image"], expected["image"])
    assert file.read_bytes() == content


def test_the_disk_cache_follows_changes(own, tmp_path):
    options = {"cache_dir": tmp_path / "cache", "cache_size": 0}
    before = open_dataset(own.parent, **options)[0]["image"]

    def change(contents):
        contents["sa_1.jpg"], contents["sa_3.jpg"] = contents["sa_3.jpg"], contents["sa_1.jpg"]

    rewrite(own, change)
    assert not torch.equal(open_dataset(own.parent, **options)[0]["image"], before)


def check_full_disk(own, folder):
    dataset = open_dataset(own.parent, cache_dir=folder, cache_size=0)
    with pytest.warns(RuntimeWarning, match="cannot be written any more") as caught:
        assert [sample["image_id"] for sample in dataset] == IDS[:5]
    assert len(caught) == 1  # said once, not for each sample
    assert not list(folder.rglob("*.tmp"))
    assert [sample["image_id"] for sample in dataset] == IDS[:5]


def test_a_cache_that_cannot_be_written(own, tmp_path, monkeypatch):
    def fail(self, target):
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(type(own), "replace", fail)
    own.with_name(f"{own.name}.index").unlink(missing_ok=True)
    with pytest.warns(RuntimeWarning, match="could not be saved"):
        open_dataset(own.parent)
    monkeypatch.undo()
    open_dataset(own.parent)
    monkeypatch.setattr(type(own), "replace", fail)
    check_full_disk(own, tmp_path / "cache")


def test_a_cache_on_a_full_disk(own, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        check_full_disk(own, folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_cache_files_of_strange_names(tmp_path, root):
    cache = DiskCache(tmp_path)
    sample = open_dataset(root).read(0, 0)
    cache.put("a\udcff|b", sample)
    found = cache.get("a\udcff|b")
    assert found.jpeg == sample.jpeg
    assert found.annotations.masks == sample.annotations.masks
    assert cache.get("b") is None


# Processes and threads


def _sum_of_areas(dataset, answers):
    answers.put([int(sample["areas"].sum()) for sample in dataset])


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_other_processes(root, method):
    dataset = open_dataset(root, preload_index=False)
    expected = [int(sample["areas"].sum()) for sample in dataset]
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    child = context.Process(target=_sum_of_areas, args=(dataset, answers))
    child.start()
    assert answers.get(timeout=50) == expected
    child.join()


def test_many_threads(root):
    expected = [int(sample["areas"].sum()) for sample in open_dataset(root)]
    dataset = open_dataset(root, preload_index=False, cache_size=2)
    failures = []

    def work(seed):
        for i in np.random.default_rng(seed).integers(9, size=30).tolist():
            try:
                assert int(dataset[i]["areas"].sum()) == expected[i]
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_real_annotations():
    """The file of a real image is read as it is."""
    from pathlib import Path

    path = Path(__file__).parents[2] / "shared" / "data" / "sa1b" / "sa_226381.json"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    parsed = annotations.parse_annotations(path.read_bytes())
    assert len(parsed.masks) == 113
    assert torch.equal(parsed.masks.area(), torch.from_numpy(parsed.columns["areas"]))
    boxes = parsed.masks.bbox() - torch.tensor([0.0, 0, 1, 1])
    assert torch.equal(boxes, torch.from_numpy(parsed.columns["bboxes"]))
