"""Label maps, matching and sampling take no more memory than their results and 16 MB either."""

from test_memory import pytestmark, run

__all__ = ["pytestmark"]  # the same conditions and time limit


LABELS = """
batch = fd.pack_rles([box(1001, 1503, i) for i in range(200)])  # dense: 300 MB
check("paint", lambda: fd.labels.to_label_map(batch))
label_map = fd.labels.to_label_map(batch)
check("split", lambda: fd.labels.from_label_map(label_map)[0].data)
check("split columns", lambda: fd.labels.from_label_map(label_map.T)[0].data)
"""

SAMPLING = """
batch = fd.pack_rles([noise(1201, 1503)] + [box(1201, 1503, i) for i in range(20)])
for region in ("foreground", "background", "boundary"):
    check(region, lambda: fd.sampling.sample_points(batch, 1000, region))
check("boxes", lambda: fd.sampling.sample_boxes(batch))
check("interior", lambda: fd.sampling.interior_points(batch)[0])
"""

# 6,000 masks of which few meet: (N, N) would take 36 MB as bytes, 144 MB as float32.
MATCHING = """
rles = [{"size": [480, 640], "counts": [i * 51, 60, 480 * 640 - i * 51 - 60]} for i in range(6000)]
batch = fd.pack_rles(rles)
scores = torch.arange(6000) % 100
check("nms", lambda: fd.matching.nms(batch, scores, 0.05))
check("pairs", lambda: fd.matching.iou_pairs(batch, batch, 0.05)[0])
check("match", lambda: fd.matching.match_greedy(batch, batch, scores))
assert len(fd.matching.nms(batch, scores, 0.05)) == 3000
everything = fd.pack_rles([{"size": [480, 640], "counts": [0, 480 * 640]}] * 6000)
check("all of them meet", lambda: fd.matching.nms(everything, scores, 0.5))
"""


def test_modules(cpu_backend):
    run(cpu_backend, LABELS + SAMPLING + MATCHING)
