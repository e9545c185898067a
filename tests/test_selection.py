"""Which masks of an image are chosen."""

import numpy as np
import pytest

from sa1b_fastdecode.data.selection import choose_masks


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
