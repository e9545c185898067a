"""Features between masks equal what plain loops over dense masks find."""

import itertools

import numpy as np
import pytest
import reference
import torch
from draws import blobs, empty, every_kind, full, noise, to_rle
from hypothesis import given
from hypothesis import strategies as st

import sa1b_fastdecode as fd
from sa1b_fastdecode.spatial import containment_tree, mask_hierarchy, spatial_features


def nested(seed, h=40, w=50, count=24):
    """Return masks of which many lie in one another, some are the same and some empty."""
    rng = np.random.default_rng(seed)
    masks = [full(rng, h, w), empty(rng, h, w)]
    for _ in range(count):
        mask = blobs(rng, h, w, discs=1)
        inside = masks[rng.integers(len(masks))]
        masks.append(mask & inside if rng.random() < 0.6 else mask)
        if rng.random() < 0.2:
            masks.append(masks[rng.integers(len(masks))])
    return [masks[i] for i in rng.permutation(len(masks))]


IMAGES = {
    "every kind": every_kind(33, 31),
    "nested": nested(0),
    "nested and noise": [*nested(1), noise(np.random.default_rng(0), 40, 50)],
    "one": [full(None, 3, 4)],
    "empty ones": [empty(None, 3, 4)] * 2,
    "none": [],
}


def features_of(masks):
    """The same features by looking at each pair of dense masks."""
    iou = reference.pairs(reference.iou, masks, masks, np.float32)
    containment = reference.pairs(reference.containment, masks, masks, np.float32)
    np.fill_diagonal(containment, 0)
    centroids = np.array([reference.centroid(m) for m in masks], np.float32).reshape(-1, 2)
    steps = np.float64(centroids[:, None]) - np.float64(centroids[None])
    distances = np.float32(np.sqrt(steps[..., 0] ** 2 + steps[..., 1] ** 2))
    return {
        "iou_matrix": iou,
        "containment": containment,
        "centroids": centroids,
        "distances": distances,
    }


def tree_of(masks, threshold):
    """The rule as it is told: parent and depth of each mask."""
    ranking = sorted(range(len(masks)), key=lambda i: (-reference.area(masks[i]), i))
    parents, depths = [-1] * len(masks), [0] * len(masks)
    for place, inner in enumerate(ranking):
        for outer in ranking[:place]:
            area = reference.area(masks[inner])
            shared = reference.intersection(masks[outer], masks[inner])
            if area and shared / area >= threshold:
                parents[inner], depths[inner] = outer, depths[outer] + 1
    return parents, depths


def children_of(parents):
    return [[c for c, p in enumerate(parents) if p == i] for i in range(len(parents))]


def pack(masks):
    return fd.pack_rles([to_rle(mask) for mask in masks])


def pack_images(images):
    """One batch grouped by image; an image without masks has a size all the same."""
    return fd.pack_rles(
        [[to_rle(mask) for mask in masks] for masks in images],
        image_sizes=[masks[0].shape if masks else (3, 4) for masks in images],
    )


@pytest.mark.parametrize("name", IMAGES)
def test_features(backend, device, name):
    masks = IMAGES[name]
    batch = pack(masks).to(device)
    features = spatial_features(batch)
    assert list(features) == ["iou_matrix", "containment", "centroids", "distances"]
    for key, expected in features_of(masks).items():
        assert features[key].device.type == device.type
        np.testing.assert_array_equal(features[key].cpu().numpy(), expected, err_msg=key)
    # Found from the intersections, but no other numbers than the operators'.
    assert torch.equal(features["iou_matrix"], batch.iou(batch))
    off_diagonal = ~torch.eye(len(batch), dtype=torch.bool, device=device)
    assert torch.equal(features["containment"], batch.containment(batch) * off_diagonal)


def test_features_by_image(backend, device):
    images = list(IMAGES.values())
    features = spatial_features(pack_images(images).to(device))
    most = max(len(masks) for masks in images)
    for i, masks in enumerate(images):
        for key, expected in features_of(masks).items():
            padding = [(0, most - len(masks))] * (1 if key == "centroids" else 2)
            padded = np.pad(expected, padding + [(0, 0)] * (2 - len(padding)))
            np.testing.assert_array_equal(features[key][i].cpu().numpy(), padded, err_msg=key)


def test_dense_and_rles_are_the_same():
    masks = IMAGES["nested"]
    stack = np.stack(masks)
    rles = [to_rle(mask) for mask in masks]
    for other in (
        stack,
        torch.from_numpy(stack).bool(),
        masks,
        [{"segmentation": r} for r in rles],
    ):
        for key, expected in spatial_features(rles).items():
            np.testing.assert_array_equal(spatial_features(other)[key], expected)


@pytest.mark.parametrize("count", range(8))
def test_hierarchy(backend, device, count):
    widths = np.random.default_rng(count).integers(0, 4, count)  # ties
    masks = [np.arange(5)[None] < width for width in widths]
    thirds = mask_hierarchy(pack(masks).to(device))
    order = sorted(range(count), key=lambda i: -widths[i])
    assert [index for third in thirds.values() for index in third.tolist()] == order
    assert list(thirds) == ["large", "medium", "small"]
    assert len(thirds["large"]) == count // 3
    assert len(thirds["large"]) + len(thirds["medium"]) == 2 * count // 3


def test_hierarchy_by_image():
    images = list(IMAGES.values())
    for found, masks in zip(mask_hierarchy(pack_images(images)), images, strict=True):
        alone = mask_hierarchy(pack(masks))
        assert all(torch.equal(found[third], alone[third]) for third in alone)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("threshold", [1, 0.9, 0.3])
def test_tree(backend, device, name, threshold):
    masks = IMAGES[name]
    tree = containment_tree(pack(masks).to(device), threshold)
    parents, depths = tree_of(masks, threshold)
    assert tree.parent.tolist() == parents
    assert tree.depth.tolist() == depths
    assert tree.children == children_of(parents)
    assert tree.parent.dtype == tree.depth.dtype == torch.int64
    assert tree.parent.device.type == device.type


def test_tree_by_image(backend, device):
    images = list(IMAGES.values())
    tree = containment_tree(pack_images(images).to(device), 0.8)
    for i, masks in enumerate(images):
        alone = containment_tree(pack(masks), 0.8)
        n = len(masks)
        for found, expected in ((tree.parent, alone.parent), (tree.depth, alone.depth)):
            assert torch.equal(found[i, :n].cpu(), expected)
            assert (found[i, n:] == -1).all()
        assert tree.children[i] == alone.children


def test_equal_masks_are_a_chain():
    tree = containment_tree(pack([full(None, 4, 4)] * 70))
    assert tree.parent.tolist() == list(range(-1, 69))
    assert tree.depth.tolist() == list(range(70))


def test_the_threshold_is_met_exactly():
    row = np.arange(20)[None]
    # 9 of 10 pixels; in float32 their share would be a little less than 0.9.
    shifted = pack([row < 10, (row >= 1) & (row < 11)])
    assert containment_tree(shifted, 0.9).parent.tolist() == [-1, 0]
    assert containment_tree(shifted, np.nextafter(0.9, 1)).parent.tolist() == [-1, -1]


@given(st.lists(st.sets(st.integers(0, 7)), max_size=8), st.floats(0.01, 1))
def test_tree_of_any_sets(sets, threshold):
    masks = [np.isin(np.arange(8), list(chosen))[None] for chosen in sets]
    tree = containment_tree(pack(masks), threshold)
    parents, depths = tree_of(masks, threshold)
    assert tree.parent.tolist() == parents
    assert tree.depth.tolist() == depths
    for mask, parent in enumerate(parents):  # no cycles, whatever the masks are
        above = itertools.takewhile(lambda m: m >= 0, _ancestors(parents, mask))
        assert len(list(above)) == depths[mask], parent


def _ancestors(parents, mask):
    while True:
        mask = parents[mask] if mask >= 0 else -1
        yield mask


def test_many_masks_need_no_matrix():
    """Masks side by side, whose matrix of pairs would take 3.2 GB."""
    n, side = 20_000, 160
    counts = [[i, 1, side * side - i - 1] for i in range(n)]
    tree = containment_tree([{"size": [side, side], "counts": c} for c in counts])
    assert (tree.parent == -1).all()


@pytest.mark.parametrize("function", [spatial_features, containment_tree])
def test_mixed_sizes(function):
    masks = [to_rle(full(None, 3, 4)), to_rle(full(None, 4, 4))]
    with pytest.raises(ValueError, match=r"mask 0 is 3x4.* 4x4"):
        function(masks)
    function([masks[:1], masks[1:]])  # images may differ


@pytest.mark.parametrize("function", [spatial_features, mask_hierarchy, containment_tree])
def test_wrong_masks(function):
    with pytest.raises(ValueError, match="mask 1: counts add up to 3"):
        function([to_rle(full(None, 3, 4)), {"size": [3, 4], "counts": [1, 2]}])
    with pytest.raises(TypeError, match="not int"):
        function(7)
    with pytest.raises(TypeError, match="complex"):
        function(np.zeros((2, 3, 4), complex))


@pytest.mark.parametrize("threshold", [0, -1, 1.1, float("nan")])
def test_wrong_threshold(threshold):
    with pytest.raises(ValueError, match="threshold must be"):
        containment_tree([to_rle(full(None, 3, 4))], threshold)


def test_modules_load_on_first_use():
    assert fd.spatial.spatial_features is spatial_features
    assert {"spatial", "evaluation", "visualize"} <= set(dir(fd))
