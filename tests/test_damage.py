"""Whatever is damaged, missing, full or killed: it is said where, and all else is served."""

import json
import os
import pickle
import signal
import subprocess

import pytest
import torch
from loaded import open_dataset
from sa1b_files import IDS, rewrite, write_extracted, write_tars

from sa1b_fastdecode.data import (
    SA1BDataset,
    SA1BStream,
    SampleError,
    SkippedSample,
    annotations,
    create_sa1b_dataloader,
    images,
    sa1b_collate_fn,
)

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # few cores
]


# One sample


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


def huge_size(contents):
    image = {"height": 2**32 - 1, "width": 2**32 - 1}
    contents["sa_3.json"] = json.dumps({"image": image, "annotations": []}).encode()


def lose_a_key(contents):
    file = json.loads(contents["sa_3.json"])
    del file["annotations"][2]["stability_score"]
    contents["sa_3.json"] = json.dumps(file).encode()


def cut_jpeg(contents):
    contents["sa_3.jpg"] = contents["sa_3.jpg"][:300]


def garble_jpeg(contents):
    contents["sa_3.jpg"] = b"\xff\xd8" + b"x" * 500


def cut_jpeg_after_its_head(contents):
    contents["sa_3.jpg"] = contents["sa_3.jpg"][:-100]


def huge_jpeg(contents):
    jpeg = bytearray(contents["sa_3.jpg"])
    sides = jpeg.index(b"\xff\xc0") + 5  # in the frame's header
    jpeg[sides : sides + 4] = b"\xff" * 4
    contents["sa_3.jpg"] = bytes(jpeg)


def swap_jpeg(contents):
    contents["sa_3.jpg"] = contents["sa_2.jpg"]


DAMAGES = [
    (damage_json, "sa_3.json: it is not JSON"),
    (damage_counts, "sa_3.json: mask 4: counts"),
    (other_size, "sa_3.json: mask 0 is 40x56, the image 41x56"),
    (lose_a_key, "sa_3.json: mask 2 has no 'stability_score'"),
    (cut_jpeg, "sa_3.jpg: the JPEG cannot be decoded"),
    (cut_jpeg_after_its_head, "sa_3.jpg: the JPEG cannot be decoded"),
    (huge_jpeg, "sa_3.jpg: the JPEG cannot be decoded"),
    (garble_jpeg, "sa_3.jpg: the JPEG cannot be decoded"),
    (swap_jpeg, "sa_3.jpg: it is 64x48, its annotations say 40x56"),
    (huge_size, "sa_3.jpg: it is 40x56, its annotations say 4294967295x4294967295"),
]


@pytest.mark.parametrize("pillow", [False, True])
@pytest.mark.parametrize(("damage", "cause"), DAMAGES)
def test_a_damaged_sample_says_what_and_where(own, damage, cause, pillow, monkeypatch):
    if pillow:
        monkeypatch.setattr(images, "simplejpeg", None)
        monkeypatch.setattr(annotations, "read_json", annotations._read_json_slowly)
    rewrite(own, damage)
    dataset = open_dataset(own.parent)
    with pytest.raises(SampleError) as caught:
        dataset[2]
    assert str(caught.value).startswith(f"{own}: {cause}")
    assert dataset[3]["image_id"] == "sa_4"
    skipping = open_dataset(own.parent, on_error="skip")
    assert skipping[2] == SkippedSample("sa_3", str(caught.value))
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


# Files


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


# Full disks


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


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 16 KB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_cache_on_a_full_disk(own, small_disk):
    check_full_disk(own, small_disk)


def test_workers_with_a_cache_on_a_full_disk(own, small_disk, capfd):
    dataset = open_dataset(own.parent, cache_dir=small_disk, cache_size=0)
    # Spawned, since a forked worker inherits that pytest collects warnings.
    loader = create_sa1b_dataloader(dataset, 1, 1, multiprocessing_context="spawn")
    ids = [image for batch in loader for image in batch["image_ids"]]
    assert sorted(ids) == IDS[:5]
    told = capfd.readouterr().err
    assert "cannot be written any more ([Errno 28] No space left on device)" in told


def test_an_index_on_a_full_disk(own, small_disk):
    (small_disk / "file").write_bytes(bytes(16 << 10))
    with pytest.warns(RuntimeWarning, match="could not be saved.*No space left"):
        dataset = open_dataset(own.parent, memmap_path=small_disk)
    assert [sample["image_id"] for sample in dataset] == IDS[:5]
    assert [path.name for path in small_disk.iterdir()] == ["file"]


# Batches and workers


@pytest.fixture
def damaged(tmp_path):
    """Seven images of which one has no JSON to speak of, and the JPEG of another lacks its end."""
    (tar,) = write_tars(tmp_path, (7,))

    def damage(contents):
        contents["sa_3.json"] = contents["sa_3.json"][:50]
        contents["sa_5.jpg"] = contents["sa_5.jpg"][:-100]

    rewrite(tar, damage)
    return tar


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("out_size", [None, (8, 8)])
def test_damaged_samples(damaged, num_workers, stream, out_size):
    def load(**options):
        dataset = SA1BDataset(damaged.parent, **options)
        source = SA1BStream(dataset) if stream else dataset
        loader = create_sa1b_dataloader(source, 2, num_workers, out_size=out_size)
        return loader, list(loader)

    with pytest.raises(SampleError, match=r"sa_000000\.tar: sa_[35]\.js?pn?g?|sa_3\.json"):
        load()
    with pytest.warns(RuntimeWarning, match=r"2 samples were skipped, the first one is sa_[35] "):
        loader, batches = load(on_error="skip")
    ids = [image for batch in batches for image in batch["image_ids"]]
    assert sorted(ids) == ["sa_1", "sa_2", "sa_4", "sa_6", "sa_7"]
    skipped = {s.image_id: s.reason for batch in batches for s in batch["skipped"]}
    assert sorted(skipped) == ["sa_3", "sa_5"]
    assert list(loader.skipped) == [s for batch in batches for s in batch["skipped"]]
    assert str(damaged) in skipped["sa_3"]
    assert "sa_5.jpg: the JPEG cannot be decoded" in skipped["sa_5"]
    for batch in batches:
        assert len(batch["masks"].counts_per_image) == len(batch["image_ids"])


def test_a_batch_of_which_nothing_is_left():
    batch = sa1b_collate_fn([SkippedSample("sa_1", "lost")])
    assert batch["images"].shape == (0, 3, 0, 0)
    assert batch["masks"].decode().shape == (0, 0, 0, 0)
    assert batch["bboxes"].shape == (0, 0, 4)
    assert batch["areas"].shape == (0, 0)
    assert batch["areas"].dtype == torch.int64
    assert batch["mask_counts"].shape == (0,)
    assert batch["skipped"] == [SkippedSample("sa_1", "lost")]


class Killer:
    """A transform that ends its worker once, as the system does when memory runs out."""

    def __init__(self, done):
        self.done = done

    def __call__(self, image):
        if torch.utils.data.get_worker_info().id == 1 and not self.done.exists():
            self.done.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return image


@pytest.mark.parametrize("stream", [False, True])
def test_a_worker_that_is_killed_is_told(root, tmp_path, stream):
    """And the same loader goes on with new ones; nothing is lost, and nothing comes twice."""
    dataset = SA1BDataset(root, transform=Killer(tmp_path / "done"))
    source = SA1BStream(dataset) if stream else dataset
    loader = create_sa1b_dataloader(source, 1, 2)
    batches = []
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid"):
        for batch in loader:
            batches.append(batch)
    loader.load_state_dict(loader.state_dict())
    batches += loader
    whole = create_sa1b_dataloader(SA1BStream(dataset) if stream else dataset, 1, 2)
    expected = [batch["areas"] for batch in whole]
    assert len(batches) == len(expected) == 13
    assert all(
        torch.equal(batch["areas"], areas) for batch, areas in zip(batches, expected, strict=True)
    )


@pytest.mark.parametrize("stream", [False, True])
def test_a_tar_that_is_gone(own, stream):
    def load(**options):
        dataset = SA1BDataset(own.parent, progress=False, **options)
        own.unlink()
        loader = create_sa1b_dataloader(SA1BStream(dataset) if stream else dataset, 2, 0)
        return loader, list(loader)

    content = own.read_bytes()
    with pytest.raises(SampleError, match=r"sa_000000\.tar: sa_\d\.json: .*No such file"):
        load()
    own.write_bytes(content)
    with pytest.warns(RuntimeWarning, match="5 samples were skipped"):
        loader, _ = load(on_error="skip")
    assert sorted(sample.image_id for sample in loader.skipped) == IDS[:5]
