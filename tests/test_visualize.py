"""The overlay shows what it should, pixel by pixel, and the adapter what supervision expects."""

import sys
import tracemalloc

import numpy as np
import pytest
import torch
from draws import blobs, empty, full, to_rle

import sa1b_fastdecode as fd
from sa1b_fastdecode import sample
from sa1b_fastdecode.visualize import distinct_colors, show_masks, to_detections

image_module = pytest.importorskip("PIL.Image")

H, W = 40, 50
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (H, W, 3), np.uint8)
MASKS = [*(blobs(RNG, H, W, discs=2) for _ in range(9)), empty(RNG, H, W)]
RLES = [to_rle(mask) for mask in MASKS]


def blended(image, masks, alpha, colors):
    """The overlay without contours: the smallest mask at each pixel, blended in whole numbers."""
    overlay = image.astype(int)
    share = round(256 * alpha)
    for i in sorted(range(len(masks)), key=lambda i: (-int(masks[i].sum()), i)):
        inside = masks[i].astype(bool)
        mixed = image[inside].astype(int) * (256 - share) + colors[i].astype(int) * share
        overlay[inside] = (mixed + 128) >> 8
    return overlay


@pytest.mark.parametrize("alpha", [0, 0.3, 0.5, 1])
def test_blending(backend, device, alpha):
    overlay = show_masks(IMAGE, fd.pack_rles(RLES).to(device), alpha=alpha, contours=False)
    assert overlay.shape == IMAGE.shape
    assert overlay.dtype == np.uint8
    expected = blended(IMAGE, MASKS, alpha, distinct_colors(len(MASKS)))
    np.testing.assert_array_equal(overlay, expected)


def test_blending_in_several_bands():
    image = RNG.integers(0, 256, (700, 500, 3), np.uint8)
    masks = [blobs(RNG, 700, 500) for _ in range(3)]
    colors = RNG.integers(0, 256, (3, 3), np.uint8)
    overlay = show_masks(image, np.stack(masks), contours=False, colors=colors)
    np.testing.assert_array_equal(overlay, blended(image, masks, 0.5, colors))


def test_contours():
    masks = [full(None, H, W), np.zeros((H, W), bool)]
    masks[1][10:20, 15:30] = True
    plain, outlined = (show_masks(IMAGE, masks, contours=c) for c in (False, True))
    drawn = (plain != outlined).any(axis=2)
    ring = masks[1].copy()
    ring[11:19, 16:29] = False
    assert (drawn == ring).all()  # one pixel inside the mask on top, and none at the image's border
    assert len(np.unique(outlined[ring], axis=0)) == 1


def test_smaller_masks_stay_on_top():
    square = np.zeros((H, W), bool)
    square[16:24, 16:24] = True
    colors = np.array([[200, 0, 0], [0, 0, 200]])
    for masks in ([square, full(None, H, W)], [full(None, H, W), square]):
        index = int(masks[1] is square)
        overlay = show_masks(IMAGE, masks, alpha=1, contours=False, colors=colors)
        assert (overlay[square] == colors[index]).all()
        assert (overlay[~square] == colors[1 - index]).all()


def test_images_of_all_kinds():
    before = IMAGE.copy()
    expected = show_masks(IMAGE, RLES)
    assert (IMAGE == before).all()
    tensor = torch.from_numpy(IMAGE)
    images = [
        tensor,
        tensor.permute(2, 0, 1),
        tensor.permute(2, 0, 1).float() / 255,
        IMAGE.astype(np.float64) / 255,
        IMAGE[::-1][::-1],
        image_module.fromarray(IMAGE),
        image_module.fromarray(IMAGE).convert("RGBA"),
    ]
    for image in images:
        np.testing.assert_array_equal(show_masks(image, RLES), expected)
    grey = IMAGE[..., 0]
    np.testing.assert_array_equal(
        show_masks(grey, RLES), show_masks(np.repeat(grey[..., None], 3, axis=2), RLES)
    )


def test_no_masks():
    for masks in ([], [RLES[-1]], [[]]):
        np.testing.assert_array_equal(show_masks(IMAGE, masks, ids=True), IMAGE)
    assert show_masks(np.zeros((0, 0, 3), np.uint8), []).shape == (0, 0, 3)


def test_masks_of_all_kinds():
    expected = show_masks(IMAGE, RLES)
    annotations = {"annotations": [{"segmentation": rle} for rle in RLES]}
    for masks in (np.stack(MASKS), fd.pack_rles(RLES), [RLES], annotations):
        np.testing.assert_array_equal(show_masks(IMAGE, masks), expected)


def test_ids_stand_on_their_masks():
    annotation = sample.generate_annotation(0, height=300, width=400, num_masks=12)
    image = np.full((300, 400), 90, np.uint8)
    plain, written = (show_masks(image, annotation, ids=ids) for ids in (False, True))
    written_on = (plain != written).any(axis=2)
    dense = fd.decode_rle_batch(annotation).numpy()
    assert written_on.any()
    assert not (written_on & (dense.sum(axis=0) == 0)).sum() > 0.2 * written_on.sum()
    hidden = show_masks(image, [dense[0], dense[0]], ids=True)  # the first of them is not seen
    alone = show_masks(image, [dense[0]], ids=True, colors=distinct_colors(2)[1:])
    assert (hidden != alone).any()  # "1", not "0"


def test_file(tmp_path):
    path = tmp_path / "overlay.png"
    overlay = show_masks(IMAGE, RLES, path=path)
    with image_module.open(path) as written:
        assert written.format == "PNG"
        np.testing.assert_array_equal(np.asarray(written), overlay)


def test_matplotlib():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    ax = figure.add_subplot()
    overlay = show_masks(IMAGE, RLES, ax=ax)
    np.testing.assert_array_equal(ax.images[0].get_array(), overlay)
    assert not ax.axison


def test_memory_does_not_grow_with_the_masks():
    annotation = sample.generate_annotation(1, height=600, width=800, num_masks=150)
    image = np.zeros((600, 800, 3), np.uint8)
    show_masks(image, [])
    tracemalloc.start()
    show_masks(image, annotation)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 600 * 800 + (4 << 20)


def test_colors():
    colors = distinct_colors(300)
    assert colors.shape == (300, 3)
    assert len(np.unique(colors[:256], axis=0)) == 256
    np.testing.assert_array_equal(colors[256:], colors[:44])
    np.testing.assert_array_equal(distinct_colors(7), colors[:7])
    assert distinct_colors(0).shape == (0, 3)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"alpha": 1.5}, ValueError, "alpha must be from 0 to 1, not 1.5"),
        ({"colors": [[0, 0, 0]]}, ValueError, r"colors must have shape \(10, 3\), not \(1, 3\)"),
        ({"colors": np.full((10, 3), 300)}, ValueError, "0..255"),
        ({"masks": [RLES, RLES]}, ValueError, "one image, not of 2"),
        ({"masks": [RLES[0], to_rle(full(None, 3, 4))]}, ValueError, "mask 1 is 3x4.* 40x50"),
        ({"image": np.zeros((H, W, 5), np.uint8)}, ValueError, r"not \(40, 50, 5\)"),
        ({"image": np.zeros((H, W, 3), np.int64)}, TypeError, "not int64"),
    ],
)
def test_wrong_arguments(keywords, error, message):
    arguments = {"image": IMAGE, "masks": RLES, **keywords}
    with pytest.raises(error, match=message):
        show_masks(arguments.pop("image"), arguments.pop("masks"), **arguments)


@pytest.mark.parametrize("keywords", [{"ids": True}, {"path": "overlay.png"}])
def test_pillow_is_named_where_it_is_missing(keywords, monkeypatch):
    for name in ("PIL", "PIL.Image", "PIL.ImageDraw", "PIL.ImageFont"):
        monkeypatch.setitem(sys.modules, name, None)
    show_masks(IMAGE, RLES)
    with pytest.raises(ImportError, match="need Pillow: pip install pillow"):
        show_masks(IMAGE, RLES, **keywords)


def test_supervision_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        to_detections(RLES)


@pytest.mark.filterwarnings("ignore")  # its own, about what it would rather have installed
@pytest.mark.parametrize("compact", [False, True])
def test_detections(backend, compact):
    sv = pytest.importorskip("supervision")
    scores = np.linspace(0, 1, len(RLES))
    found = to_detections(RLES, confidence=scores, class_id=[3] * len(RLES), compact=compact)
    stack = np.stack(MASKS).astype(bool)
    np.testing.assert_array_equal(np.asarray(found.mask), stack)
    assert isinstance(found.mask, sv.CompactMask if compact else np.ndarray)
    np.testing.assert_array_equal(found.xyxy[:-1], sv.mask_to_xyxy(stack)[:-1])
    assert found.xyxy[-1].tolist() == [0, 0, 0, 0]  # an empty mask
    assert found.data["area"].tolist() == stack.sum(axis=(1, 2)).tolist()
    assert found.confidence.tolist() == pytest.approx(scores.tolist())
    assert found.class_id.tolist() == [3] * len(RLES)
    smaller = found[found.data["area"] > 0]
    assert len(smaller) == len(RLES) - 1
    annotated = sv.MaskAnnotator(color_lookup=sv.ColorLookup.INDEX).annotate(IMAGE.copy(), smaller)
    assert (annotated[stack.any(0)] != IMAGE[stack.any(0)]).any()
    with pytest.raises(ValueError, match="masks differ in size"):
        to_detections([RLES[0], to_rle(full(None, 3, 4))], compact=compact)
