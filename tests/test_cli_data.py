"""The commands that work on a user's data: index, verify, bench and view."""

import json
import os
import shutil
import tarfile

import numpy as np
import pytest
from real_data import SA1B_FILE, needs_real_data

from sa1b_fastdecode import cli, sample, visualize
from sa1b_fastdecode.cli.verify import check_annotation
from sa1b_fastdecode.data import TarIndex

image_module = pytest.importorskip("PIL.Image")

SIZES = {"sizes": [(60, 80), (90, 70)], "num_masks": [6, 9]}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two tars and a folder, with three images each."""
    root = tmp_path_factory.mktemp("sa1b")
    for number in range(2):
        sample.write_tar(root / f"sa_00000{number}.tar", 3, number, **SIZES)
    sample.write_folder(root / "sa_000002", 3, 2, **SIZES)
    return root


@pytest.fixture
def root(made, tmp_path):
    return shutil.copytree(made, tmp_path / "data")


@pytest.fixture
def annotation():
    return sample.generate_annotation(0, height=40, width=50, num_masks=5, image_id=7)


def run(capsys, *arguments, status=0):
    """Run a command; return what it printed."""
    assert cli.main([str(a) for a in arguments]) == status
    captured = capsys.readouterr()
    if status == 2:
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
        return captured.err
    return captured.out


def problems_of(annotation, image_id="sa_7"):
    content = annotation if isinstance(annotation, bytes) else json.dumps(annotation).encode()
    return check_annotation(content, image_id).problems


# verify


def test_verify_finds_nothing_wrong(root, tmp_path, capsys):
    report = tmp_path / "report.json"
    output = run(capsys, "verify", root, "--images", "--report", report)
    assert "9 annotation files with 63 masks" in output
    assert "63 as (x, y, w-1, h-1)" in output
    assert "no problems" in output
    written = json.loads(report.read_text())
    assert written["images"] == 9
    assert written["masks"] == 63
    assert written["problems"] == []
    assert sorted(p.name for p in root.iterdir()) == ["sa_000000.tar", "sa_000001.tar", "sa_000002"]


@needs_real_data
def test_verify_a_real_file(capsys):
    output = run(capsys, "verify", SA1B_FILE)
    assert "113 as (x, y, w-1, h-1)" in output
    assert "no problems" in output


def test_exact_boxes_are_right_too(annotation):
    for mask in annotation["annotations"]:
        mask["bbox"] = [*mask["bbox"][:2], mask["bbox"][2] + 1, mask["bbox"][3] + 1]
    checked = check_annotation(json.dumps(annotation).encode(), "sa_7")
    assert checked.problems == []
    assert checked.boxes == {"(x, y, w, h)": 5}


@pytest.mark.parametrize(
    ("key", "value", "kind", "what"),
    [
        ("area", 3, "area", "but its area is 3"),
        ("area", None, "area", "but its area is None"),
        ("bbox", [0, 0, 1, 1], "bbox", "but its bbox is [0, 0, 1, 1]"),
        ("bbox", "0 0 1 1", "bbox", "but its bbox is '0 0 1 1'"),
        ("predicted_iou", float("nan"), "file", "not JSON"),
        ("predicted_iou", None, "values", "predicted_iou is None"),
        ("stability_score", "high", "values", "stability_score is 'high'"),
        ("point_coords", [[50, 3]], "values", "no points of the image"),
        ("point_coords", [3, 4], "values", "no points of the image"),
        ("crop_box", [0, 0, 51, 40], "values", "no part of the image"),
        ("segmentation", {"size": [40, 51], "counts": "hS1"}, "counts", "a mask of 40x51 has 2040"),
        ("segmentation", {"size": [2, 3], "counts": "123"}, "size", "is 2x3, the image 40x50"),
        ("segmentation", [[1, 2, 3]], "counts", "polygon"),
        ("segmentation", None, "counts", "not NoneType"),
    ],
)
def test_wrong_values_are_found(annotation, key, value, kind, what):
    assert problems_of(annotation) == []
    annotation["annotations"][3][key] = value
    if what == "not JSON":
        pytest.importorskip("orjson")  # json itself reads NaN
    found = problems_of(annotation)
    assert any(k == kind and what in text for k, text in found), found
    if kind != "file":
        assert all("mask 3" in text for _, text in found)


def test_all_malformed_masks_are_named(annotation):
    for i in (0, 2, 4):
        annotation["annotations"][i]["segmentation"]["counts"] += "1"
    kinds = [(kind, text.split(":")[0]) for kind, text in problems_of(annotation)]
    assert kinds == [("counts", "mask 0"), ("counts", "mask 2"), ("counts", "mask 4")]


def test_ids_and_names(annotation):
    annotation["annotations"][1]["id"] = annotation["annotations"][0]["id"]
    annotation["image"]["file_name"] = "other.jpg"
    assert problems_of(annotation, "sa_8") == [
        ("file", "its file_name is 'other.jpg', not 'sa_8.jpg'"),
        ("file", "its image_id is 7, not 8"),
        ("values", f"2 masks have the id {annotation['annotations'][0]['id']}"),
    ]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"{", "not JSON"),
        (b"\xff\xd8", "not JSON"),
        (b"[]", "a list"),
        (b"{}", '"image"'),
        (b'{"image": {"height": 4}, "annotations": []}', '"width"'),
        (b'{"image": {"height": 4, "width": 4}, "annotations": [7]}', "mask 0: expected an RLE"),
    ],
)
def test_other_files(content, what):
    assert what in problems_of(content)[-1][1]


def test_verify_reports_damage(root, tmp_path, capsys):
    folder = root / "sa_000002"
    (folder / "sa_1.jpg").unlink()
    (folder / "sa_2.jpg").write_bytes((folder / "sa_2.jpg").read_bytes()[:200])
    shutil.copy(folder / "sa_2.json", folder / "sa_3.json")
    report = tmp_path / "report.json"
    output = run(capsys, "verify", root, "--images", "--show", 2, "--report", report, status=1)
    found = json.loads(report.read_text())["problems"]
    kinds = {problem["kind"] for problem in found}
    assert kinds == {"pair", "file", "image"}
    assert f"... and {len(found) - 2} more" in output
    assert "sa_1.json: has no .jpg" in output
    sizes = [problem for problem in found if "the image is" in problem["what"]]
    assert len(sizes) == 1
    assert "sa_3.json" in sizes[0]["where"]


def test_verify_what_is_not_there(tmp_path, capsys):
    assert "nothing.tar" in run(capsys, "verify", tmp_path / "nothing.tar", status=2)
    assert "nothing.json" in run(capsys, "verify", tmp_path / "nothing.json", status=2)
    assert "has no tars" in run(capsys, "verify", tmp_path, status=2)


# index


def test_index(root, capsys, monkeypatch):
    output = run(capsys, "index", root, "--workers", 0)
    assert [line.split() for line in output.splitlines()[1:]] == [
        [str(root / "sa_000000.tar"), "3", "0"],
        [str(root / "sa_000001.tar"), "3", "0"],
        ["all", "6", "0"],
    ]
    index = TarIndex.load(root / "sa_000001.tar")
    assert index is not None and len(index) == 3
    monkeypatch.setattr(TarIndex, "scan", None)  # what is saved is not scanned again
    assert run(capsys, "index", root / "sa_000000.tar").splitlines()[1].split()[1] == "3"


def test_index_elsewhere_and_damage(root, tmp_path, capsys):
    tar = root / "sa_000000.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    output = run(capsys, "index", tar, "--index-dir", tmp_path / "indexes")
    assert "is cut off" in output
    assert len(list((tmp_path / "indexes").iterdir())) == 1
    assert TarIndex.load(tar) is None


def test_index_that_cannot_be_saved(root, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    arguments = ["index", root / "sa_000000.tar", "--index-dir", tmp_path / "file"]
    assert "could not be saved" in run(capsys, *arguments, status=2)


def test_no_tars_to_index(root, capsys):
    assert "no tars" in run(capsys, "index", root / "sa_000002", status=2)


# view


def test_view_a_file(root, tmp_path, capsys):
    output = tmp_path / "overlay.png"
    file = root / "sa_000002" / "sa_2.json"
    assert "9 masks" in run(capsys, "view", file, "--output", output, "--alpha", 0.7)
    with image_module.open(file.with_suffix(".jpg")) as image:
        expected = visualize.show_masks(image, json.loads(file.read_text()), alpha=0.7)
    with image_module.open(output) as written:
        np.testing.assert_array_equal(np.asarray(written), expected)


@pytest.mark.parametrize("image_id", [None, "sa_3"])
def test_view_an_image_of_a_tar(root, tmp_path, capsys, image_id):
    tar, output = root / "sa_000001.tar", tmp_path / "overlay.png"
    chosen = [] if image_id is None else [image_id]
    run(capsys, "view", tar, *chosen, "--output", output, "--ids", "--no-contours")
    with tarfile.open(tar) as opened:
        stem = image_id or "sa_1"
        annotation = json.load(opened.extractfile(f"./{stem}.json"))
        with image_module.open(opened.extractfile(f"./{stem}.jpg")) as image:
            expected = visualize.show_masks(image, annotation, ids=True, contours=False)
    with image_module.open(output) as written:
        np.testing.assert_array_equal(np.asarray(written), expected)


def test_view_what_is_not_there(root, tmp_path, capsys):
    tar = root / "sa_000001.tar"
    assert "it has sa_1 to sa_3" in run(capsys, "view", tar, "sa_9", status=2)
    assert "nothing.tar" in run(capsys, "view", root / "nothing.tar", status=2)
    unwritable = tmp_path / "nothing" / "overlay.png"
    assert "cannot write" in run(capsys, "view", tar, "--output", unwritable, status=2)
    assert "alpha must be" in run(capsys, "view", tar, "--alpha", 3, status=2)


# bench


def test_bench(root, capsys):
    arguments = ["--workers", "0,1", "--samples", 4, "--batch-size", 2, "--prefetch", "1,2"]
    output = run(capsys, "bench", root, *arguments)
    assert "9 images" in output
    assert "annotations: read, parse, pack" in output
    table = output[output.index("samples/s by num_workers") :].splitlines()
    header, *rows = (line.split() for line in table[:3])
    assert header[-1] == "MB"
    for workers, row in zip("01", rows, strict=True):
        assert row[0] == workers
        assert all(float(cell.rstrip("%")) > 0 for cell in row[1:5])
        assert len(row) == (6 if os.path.exists("/proc/self/smaps_rollup") else 5)  # noqa: PTH110
    assert "prefetch_factor" in output
    assert "pin_memory: needs --device cuda" in output


def test_bench_names_what_is_damaged(root, capsys):
    for file in (root / "sa_000002").glob("*.json"):
        file.write_text("{")
    error = run(capsys, "bench", root / "sa_000002", "--workers", 0, status=2)
    assert "not JSON" in error


def test_bench_of_nothing(tmp_path, capsys):
    assert "has no tars" in run(capsys, "bench", tmp_path, status=2)
    assert "nothing" in run(capsys, "bench", tmp_path / "nothing", status=2)


@pytest.mark.parametrize("command", ["view", "index", "verify", "bench", "sample"])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    assert f"python -m sa1b_fastdecode {command} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers=-1"], "must not be negative"),
        (["--workers", "1,x"], "numbers with commas"),
        (["--prefetch", "0"], "at least 1"),
        (["--samples", "0"], "at least 1"),
    ],
)
def test_wrong_numbers(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench", str(tmp_path), *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_bench_on_a_device_without_a_backend(root, capsys):
    assert "'tpu'" in run(capsys, "bench", root, "--device", "tpu", status=2)
