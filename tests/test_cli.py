"""The commands do what they say, and say what is wrong in one line."""

import functools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from real_data import SA1B_FILE, needs_real_data

from sa1b_fastdecode import cli, sample

pytest.importorskip("pycocotools.mask")
image_module = pytest.importorskip("PIL.Image")
# pycocotools 2.0 warns with NumPy 2 whenever it decodes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def annotation_file(tmp_path):
    return sample.write_folder(tmp_path / "sa", 1, 0, sizes=((120, 160),), num_masks=(8,))[0]


def read_image(path):
    with image_module.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def masks_of(annotation):
    from pycocotools import mask as coco_mask

    rles = [a["segmentation"] for a in annotation["annotations"]]
    return coco_mask.decode(rles).transpose(2, 0, 1).astype(bool)


def fail(capsys, *arguments, status=2):
    """Run a command that must fail with ``status``; return its one line on stderr."""
    assert cli.main([str(a) for a in arguments]) == status
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_info_names_every_backend(capsys):
    import sa1b_fastdecode as fd

    assert cli.main(["info"]) == 0
    output = capsys.readouterr().out
    for backend in fd.backends():
        assert backend.name in output
        assert backend.detail in output
    assert f"active on cpu: {fd.active_backend('cpu')}" in output


def test_forced_backend_that_does_not_exist():
    done = subprocess.run(
        [sys.executable, "-m", "sa1b_fastdecode", "info"],
        capture_output=True,
        text=True,
        env={**os.environ, "SA1B_FASTDECODE_BACKEND": "abacus"},
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "abacus" in done.stderr


def test_demo_draws_the_masks(annotation_file, tmp_path, capsys):
    overlay_file = tmp_path / "overlay.png"
    assert cli.main(["demo", str(annotation_file), "--output", str(overlay_file)]) == 0
    output = capsys.readouterr().out
    assert "all 8 masks" in output
    assert "memset" in output
    # The .jpg beside the annotation was found; outside of all masks it is untouched.
    image = read_image(annotation_file.with_suffix(".jpg"))
    overlay = read_image(overlay_file)
    annotation = json.loads(annotation_file.read_text())
    masks = masks_of(annotation)
    assert (overlay[~masks.any(0)] == image[~masks.any(0)]).all()
    for mask in masks:
        assert (overlay[mask] != image[mask]).any(axis=1).mean() > 0.9


def test_demo_takes_an_image_of_any_name(annotation_file, tmp_path):
    image_file = tmp_path / "plain.png"
    image_module.new("RGB", (160, 120), (10, 200, 30)).save(image_file)
    overlay_file = tmp_path / "overlay.png"
    arguments = ["demo", str(annotation_file), str(image_file), "--output", str(overlay_file)]
    assert cli.main(arguments) == 0
    outside = ~masks_of(json.loads(annotation_file.read_text())).any(0)
    assert (read_image(overlay_file)[outside] == [10, 200, 30]).all()


def test_demo_without_an_image_or_masks(tmp_path):
    annotation = sample.generate_annotation(0, height=50, width=60, num_masks=0)
    (tmp_path / "sa_1.json").write_text(json.dumps(annotation))
    overlay_file = tmp_path / "overlay.png"
    assert cli.main(["demo", str(tmp_path / "sa_1.json"), "--output", str(overlay_file)]) == 0
    assert len(np.unique(read_image(overlay_file))) == 1


def test_demo_without_arguments_shows_a_sample(tmp_path, monkeypatch, capsys):
    small = functools.partial(sample.generate_annotation, height=120, width=180, num_masks=9)
    monkeypatch.setattr(sample, "generate_annotation", small)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo"]) == 0
    assert "9 masks of 120 x 180" in capsys.readouterr().out
    assert read_image(tmp_path / "overlay.png").shape == (120, 180, 3)


@needs_real_data
def test_demo_on_a_real_file(tmp_path, capsys):
    annotation = json.loads(SA1B_FILE.read_text())
    annotation["annotations"] = annotation["annotations"][::16]
    (tmp_path / "sa_226381.json").write_text(json.dumps(annotation))
    overlay_file = tmp_path / "overlay.png"
    arguments = ["demo", str(tmp_path / "sa_226381.json"), "--output", str(overlay_file)]
    assert cli.main(arguments) == 0
    assert "all 8 masks" in capsys.readouterr().out
    overlay = read_image(overlay_file)
    masks = masks_of(annotation)
    background = overlay[~masks.any(0)]
    assert (background == background[0]).all()
    assert (overlay[masks.any(0)] != background[0]).any(axis=1).all()


def test_wrong_result_is_reported(annotation_file, tmp_path, monkeypatch, capsys):
    from pycocotools import mask as coco_mask

    decode = coco_mask.decode
    monkeypatch.setattr(coco_mask, "decode", lambda rles: 1 - decode(rles))
    overlay_file = tmp_path / "overlay.png"
    message = fail(capsys, "demo", annotation_file, "--output", overlay_file, status=1)
    assert "8 of 8 masks differ" in message
    assert not overlay_file.exists()


def test_reused_tensor_that_is_not_written_is_reported(annotation_file, monkeypatch, capsys):
    import sa1b_fastdecode as fd

    decode = fd.decode_rle_batch

    def decode_but_ignore_out(rles, device=None, *, out=None):
        return decode(rles, device) if out is None else out

    monkeypatch.setattr(fd, "decode_rle_batch", decode_but_ignore_out)
    message = fail(capsys, "demo", annotation_file, status=1)
    assert "a reused tensor, 8 of 8 masks differ" in message


def test_missing_files(tmp_path, annotation_file, capsys):
    assert "nothing.json" in fail(capsys, "demo", tmp_path / "nothing.json")
    assert "nothing.jpg" in fail(capsys, "demo", annotation_file, tmp_path / "nothing.jpg")
    unwritable = tmp_path / "nothing" / "overlay.png"
    assert "cannot write" in fail(capsys, "demo", annotation_file, "--output", unwritable)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xd8\xff", "is not JSON"),
        (b"[1, 2]", "list"),
        (b"{}", '"image"'),
        (b'{"image": {"height": 4}, "annotations": []}', '"width"'),
        (b'{"image": {"height": 4, "width": 0}, "annotations": []}', '"width"'),
        (b'{"image": {"height": 4, "width": 4}, "annotations": [7]}', "mask 0"),
        (
            b'{"image": {"height": 4, "width": 4}, "annotations":'
            b' [{"segmentation": {"size": [4, 4], "counts": "`0"}},'
            b' {"segmentation": {"size": [4, 5], "counts": "d0"}}]}',
            "mask 1",
        ),
        (
            b'{"image": {"height": 4, "width": 4}, "annotations":'
            b' [{"segmentation": {"size": [4, 4], "counts": "1"}}]}',
            "mask 0",
        ),
    ],
)
def test_bad_annotations(content, complaint, tmp_path, capsys):
    path = tmp_path / "sa_1.json"
    path.write_bytes(content)
    message = fail(capsys, "demo", path)
    assert "sa_1.json" in message
    assert complaint in message


def test_bad_images(annotation_file, tmp_path, capsys):
    assert "is not an image" in fail(capsys, "demo", annotation_file, annotation_file)
    image_module.new("RGB", (7, 5)).save(tmp_path / "small.png")
    assert "5 x 7" in fail(capsys, "demo", annotation_file, tmp_path / "small.png")


@pytest.mark.parametrize("module", ["PIL", "pycocotools"])
def test_missing_extras(module, annotation_file, monkeypatch, capsys):
    for name in list(sys.modules):
        if name.split(".")[0] == module:
            monkeypatch.setitem(sys.modules, name, None)
    message = fail(capsys, "demo", annotation_file)
    assert module in message
    assert "pip install '.[demo]'" in message


@pytest.mark.parametrize("tar", [False, True])
def test_sample_writes_what_the_library_does(tar, tmp_path, monkeypatch):
    name = "write_tar" if tar else "write_folder"
    monkeypatch.setattr(
        sample, name, functools.partial(getattr(sample, name), sizes=((30, 40),), num_masks=(2,))
    )
    target = tmp_path / "out"
    arguments = ["sample", str(target), "--images", "2", "--seed", "3"]
    assert cli.main([*arguments, "--tar"] if tar else arguments) == 0
    expected = getattr(sample, name)(tmp_path / "expected", 2, 3)
    if tar:
        assert target.read_bytes() == expected.read_bytes()
    else:
        assert [f.read_bytes() for f in sorted(target.glob("*.json"))] == [
            f.read_bytes() for f in expected
        ]


def test_sample_over_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "cannot write" in fail(capsys, "sample", tmp_path / "file", "--images", "0")


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["sample", "x", "--images", "-1"]])
def test_wrong_usage(arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2


def test_module_shows_help():
    done = subprocess.run(
        [sys.executable, "-m", "sa1b_fastdecode", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "examples:" in done.stdout
