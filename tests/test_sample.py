"""The generated sample must look like SA-1B to a decoder, and be laid out like it on disk."""

import itertools
import json
import sys
import tarfile
from typing import Any

import numpy as np
import pytest

from sa1b_fastdecode.sample import generate_annotation, generate_image, write_folder, write_tar

coco_mask = pytest.importorskip("pycocotools.mask")
# pycocotools 2.0 warns with NumPy 2 whenever it decodes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def rles_of(annotation: dict[str, Any]) -> list[dict[str, Any]]:
    return [a["segmentation"] for a in annotation["annotations"]]


def value_lengths(counts: str) -> np.ndarray:
    """Return the number of characters of each value: its last one has bit 5 clear."""
    ends = np.flatnonzero(((np.frombuffer(counts.encode(), np.uint8) - 48) & 32) == 0)
    return np.diff(ends, prepend=-1)


@pytest.fixture(scope="module")
def usual_annotations() -> list[dict[str, Any]]:
    return [generate_annotation(seed, height=1500, width=2000, num_masks=113) for seed in range(6)]


def test_bytes_and_runs_follow_real_files(usual_annotations):
    counts = [rle["counts"] for a in usual_annotations for rle in rles_of(a)]
    num_bytes = np.array([len(c) for c in counts])
    # The real ones: 59, 114, 175, 367, 1280, 3833.
    p5, p25, p50, p75, p95, p99 = np.percentile(num_bytes, [5, 25, 50, 75, 95, 99])
    assert 45 <= p5 <= 80
    assert 90 <= p25 <= 140
    assert 150 <= p50 <= 230
    assert 310 <= p75 <= 480
    assert 950 <= p95 <= 1600
    assert 2200 <= p99 <= 5000
    # The real ones: 157, 1010.
    num_runs = np.array([len(value_lengths(c)) for c in counts])
    assert 130 <= np.median(num_runs) <= 210
    assert 800 <= np.percentile(num_runs, 95) <= 1300


def test_values_are_short_like_in_real_files(usual_annotations):
    lengths = np.concatenate(
        [value_lengths(r["counts"]) for a in usual_annotations for r in rles_of(a)]
    )
    share = np.bincount(lengths, minlength=6)[1:] / len(lengths)
    # The real ones: 91.8, 3.8, 3.9, 0.1, 0.4 %.
    assert 0.87 <= share[0] <= 0.95
    assert 0.02 <= share[1] <= 0.07
    assert 0.02 <= share[2] <= 0.07
    assert share[3:].sum() <= 0.01


def test_columns_hold_about_one_run(usual_annotations):
    num_foreground_runs, num_columns = 0, 0.0
    for annotation in usual_annotations:
        rles = rles_of(annotation)
        num_foreground_runs += sum(len(value_lengths(r["counts"])) // 2 for r in rles)
        num_columns += coco_mask.toBbox(rles)[:, 2].sum()
    assert 1.02 <= num_foreground_runs / num_columns <= 1.1  # the real one: 1.04


@pytest.mark.parametrize(("height", "width"), [(1500, 2000), (2250, 1500), (480, 640)])
def test_areas_and_nesting_follow_real_files(height, width):
    medians, means, nested, meeting = [], [], [], []
    for seed in range(4):
        annotation = generate_annotation(seed, height=height, width=width, num_masks=100)
        rles = rles_of(annotation)
        fraction = np.array([a["area"] for a in annotation["annotations"]]) / (height * width)
        medians.append(np.median(fraction))
        means.append(fraction.mean())
        # With iscrowd the IoU of i and j is the share of i that lies in j.
        inside = coco_mask.iou(rles, rles, [1] * len(rles))
        np.fill_diagonal(inside, 0)
        nested.append((inside.max(axis=1) > 0.9).mean())
        meeting.append((inside > 0).mean())
    assert 0.0011 <= np.mean(medians) <= 0.0018
    assert 0.007 <= np.mean(means) <= 0.012
    assert 0.4 <= np.mean(nested) <= 0.6
    assert np.mean(meeting) <= 0.05


@pytest.mark.parametrize(
    ("height", "width", "num_masks"),
    [(1500, 2250, 100), (480, 640, 250), (64, 64, 3), (7, 5, 4), (1, 1, 2), (1, 300, 5)],
)
def test_fields_agree_with_the_masks(height, width, num_masks):
    annotation = generate_annotation(3, height=height, width=width, num_masks=num_masks, image_id=9)
    assert annotation["image"] == {
        "image_id": 9,
        "width": width,
        "height": height,
        "file_name": "sa_9.jpg",
    }
    masks = annotation["annotations"]
    assert len(masks) == num_masks
    assert len({m["id"] for m in masks}) == num_masks
    rles = rles_of(annotation)
    # One at a time: pycocotools' area overflows for 256 masks and more.
    assert [m["area"] for m in masks] == [int(coco_mask.area(rle)) for rle in rles]
    assert min(m["area"] for m in masks) > 0
    exact_boxes = coco_mask.toBbox(rles)
    file_boxes = np.array([m["bbox"] for m in masks])
    np.testing.assert_array_equal(file_boxes, exact_boxes - [0, 0, 1, 1])
    for mask, (x, y, w, h) in zip(masks, exact_boxes, strict=True):
        assert mask["segmentation"]["size"] == [height, width]
        assert 0.8 < mask["predicted_iou"] < 1.1
        assert 0.9 < mask["stability_score"] <= 1
        left, top, crop_w, crop_h = mask["crop_box"]
        assert 0 <= left <= x and x + w <= left + crop_w <= width
        assert 0 <= top <= y and y + h <= top + crop_h <= height
    json.dumps(annotation)  # nothing but JSON's own types


def test_point_lies_in_its_mask():
    annotation = generate_annotation(0, height=300, width=400, num_masks=30)
    planes = coco_mask.decode(rles_of(annotation))
    for index, mask in enumerate(annotation["annotations"]):
        [[x, y]] = mask["point_coords"]
        assert planes[int(y), int(x), index] == 1


def test_counts_are_canonical():
    # Encoding what was decoded gives the same string: exact sums and no zero run inside.
    rles = rles_of(generate_annotation(1, height=200, width=300, num_masks=40))
    encoded = coco_mask.encode(np.asfortranarray(coco_mask.decode(rles)))
    assert [e["counts"].decode() for e in encoded] == [r["counts"] for r in rles]


def test_annotation_depends_on_its_seed_alone():
    first = generate_annotation(5, height=240, width=320, num_masks=20)
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    assert generate_annotation(5, height=240, width=320, num_masks=20) == first
    assert generate_annotation(6, height=240, width=320, num_masks=20) != first


def test_no_masks():
    annotation = generate_annotation(0, height=40, width=50, num_masks=0)
    assert annotation["annotations"] == []
    assert generate_image(annotation, 0).shape == (40, 50, 3)


@pytest.mark.parametrize("arguments", [{"height": 0}, {"width": -1}, {"num_masks": -1}])
def test_impossible_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        generate_annotation(0, **arguments)


def test_image_shows_the_masks():
    annotation = generate_annotation(2, height=300, width=450, num_masks=12)
    image = generate_image(annotation, 2)
    assert image.shape == (300, 450, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, generate_image(annotation, 2))
    assert (image != generate_image(annotation, 3)).any()
    # A mask that nothing lies on is of one material: calmer than the picture as a whole.
    planes = coco_mask.decode(rles_of(annotation)).astype(bool)
    smallest = planes[:, :, int(np.argmin([m["area"] for m in annotation["annotations"]]))]
    assert image[smallest].std(axis=0).mean() < image.reshape(-1, 3).std(axis=0).mean()


SMALL = {"sizes": ((60, 80), (90, 70)), "num_masks": (5, 0, 3)}


def test_folder_holds_pairs(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    annotation_files = write_folder(tmp_path / "new" / "folder", 4, 7, **SMALL)
    assert [f.name for f in annotation_files] == [f"sa_{i}.json" for i in range(1, 5)]
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 8
    for index, file in enumerate(annotation_files):
        annotation = json.loads(file.read_text())
        assert len(annotation["annotations"]) == (5, 0, 3)[index % 3]
        with image_module.open(file.with_name(annotation["image"]["file_name"])) as image:
            assert image.format == "JPEG"
            assert (image.height, image.width) == SMALL["sizes"][index % 2]


def test_tar_is_laid_out_like_metas(tmp_path):
    pytest.importorskip("PIL")
    path = write_tar(tmp_path / "new" / "sa_000000.tar", 6, 7, **SMALL)
    with tarfile.open(path) as tar:
        names = tar.getnames()
        contents = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}
    stems = [name.rsplit(".", 1)[0] for name in names]
    assert sorted(names) == sorted(
        f"./sa_{i}.{kind}" for i in range(1, 7) for kind in ("jpg", "json")
    )
    assert names != sorted(names)
    assert all(stem != following for stem, following in itertools.pairwise(stems))
    # The same files as in the folder, and the same bytes each time.
    for file in write_folder(tmp_path / "folder", 6, 7, **SMALL):
        assert contents[f"./{file.name}"] == file.read_bytes()
    again = write_tar(tmp_path / "again.tar", 6, 7, **SMALL)
    assert again.read_bytes() == path.read_bytes()
    assert write_tar(tmp_path / "other.tar", 6, 8, **SMALL).read_bytes() != path.read_bytes()


def test_tar_of_one_image_and_of_none(tmp_path):
    pytest.importorskip("PIL")
    with tarfile.open(write_tar(tmp_path / "one.tar", 1, 0, **SMALL)) as tar:
        assert sorted(tar.getnames()) == ["./sa_1.jpg", "./sa_1.json"]
    with tarfile.open(write_tar(tmp_path / "none.tar", 0, 0, **SMALL)) as tar:
        assert tar.getnames() == []


def test_images_of_a_set_differ(tmp_path):
    pytest.importorskip("PIL")
    first, second = write_folder(tmp_path, 2, 0, sizes=((60, 80),), num_masks=(5,))
    assert (
        json.loads(first.read_text())["annotations"]
        != json.loads(second.read_text())["annotations"]
    )


def test_missing_pillow_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="pip install pillow"):
        write_folder(tmp_path, 1, 0, **SMALL)
