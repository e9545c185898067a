"""SA1BDataset gives what naive code reads from the same files, from tars as from folders."""

import json
import multiprocessing
import sys
import threading

import numpy as np
import pytest
import torch
from loaded import check_sample, open_dataset
from sa1b_files import IDS, IMAGES, truth_of, write_extracted, write_tars

import sa1b_fastdecode as fd
from sa1b_fastdecode.data import annotations, images


@pytest.mark.parametrize("source", ["tars", "folders", "both, folders", "both, tars"])
def test_samples(root, contents, tmp_path, source, cpu_backend):
    if source != "tars":
        for k, n in enumerate(IMAGES):
            write_extracted(tmp_path, k, n)
        if source.startswith("both"):
            write_tars(tmp_path)
    place = root if source == "tars" else tmp_path
    dataset = open_dataset(place, use_tar_streaming=source == "both, tars")
    assert len(dataset) == 13
    assert dataset.problems == []
    assert [sample["image_id"] for sample in dataset] == IDS
    is_tar = source in ("tars", "both, tars")
    for i, image_id in enumerate(IDS):
        k = int(i >= IMAGES[0])
        check_sample(dataset[i], truth_of(contents[k], image_id))
        name = f"sa_{k:06d}" + (".tar" if is_tar else "")
        info = {"tar_index": k, "image_id": image_id, "tar_file": str(place / name)}
        assert dataset.get_image_info(i) == info
        annotation = json.loads(contents[k][f"{image_id}.json"])
        assert dataset.get_annotation(i) == annotation
    assert dataset[-1]["image_id"] == IDS[-1]
    for index in (13, -14):
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
    monkeypatch.setattr(annotations, "read_json", annotations._read_json_slowly)
    sample = open_dataset(root)[0]
    check_sample(sample, truth_of(contents[0], "sa_1"))
    assert torch.equal(sample["image"], expected["image"])
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="pip install simplejpeg"):
        open_dataset(root)[0]


def test_which_tars(root, tmp_path):
    assert len(open_dataset(root, [1])) == 6
    assert len(open_dataset(root, range(2))) == 13
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
    assert len(dataset) == 13
    assert len(list((tmp_path / "indexes").iterdir())) == 2
    with pytest.raises(IndexError):
        open_dataset(root, preload_index=False)[13]


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
        ("mask_weights", "area"),  # which nothing would look at
        ("on_error", "ignore"),
    ],
)
def test_wrong_options(root, option, value):
    with pytest.raises(ValueError, match=option):
        open_dataset(root, **{option: value})
    with pytest.raises(ValueError, match="mask_size"):
        open_dataset(root, mask_format="rle", mask_size=(3, 3))


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
        for i in np.random.default_rng(seed).integers(13, size=30).tolist():
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
