"""Annotation files are read as they are; what is wrong with one is said."""

import json

import pytest
import torch
from real_data import SA1B_FILE, needs_real_data

from sa1b_fastdecode.data import annotations


@pytest.mark.parametrize(
    "content",
    [b"[]", b"{}", b'{"image": 3, "annotations": []}', b"null", b'"text"', b"\xff", b"",
     pytest.param(b"[" * 10**6, id="nested")]
    + [json.dumps({"image": {"height": h, "width": 5}, "annotations": a}).encode()
       for h, a in ((0, []), ("4", []), (4.5, []), (4, {}), (4, [3]), (4, [{}]))],
)  # fmt: skip
@pytest.mark.parametrize("fast", [False, True])
def test_what_is_no_annotation_file(content, fast, monkeypatch):
    if not fast:
        monkeypatch.setattr(annotations, "read_json", annotations._read_json_slowly)
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


@needs_real_data
def test_real_annotations():
    parsed = annotations.parse_annotations(SA1B_FILE.read_bytes())
    assert len(parsed.masks) == 113
    assert torch.equal(parsed.masks.area(), torch.from_numpy(parsed.columns["areas"]))
    boxes = parsed.masks.bbox() - torch.tensor([0.0, 0, 1, 1])
    assert torch.equal(boxes, torch.from_numpy(parsed.columns["bboxes"]))
