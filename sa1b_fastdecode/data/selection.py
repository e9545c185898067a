"""Which masks of an image are used, chosen before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Key", "choose_masks"]

Columns: TypeAlias = Mapping[str, Any]
# A column ("area", "predicted_iou", "stability_score"), or a function of all columns.
Key: TypeAlias = str | Callable[[Columns], Any]

_COLUMN_OF_KEY = {
    "area": "areas",
    "predicted_iou": "predicted_ious",
    "stability_score": "stability_scores",
}


def check_key(key: Key | None, what: str, also: tuple[str, ...] = ()) -> None:
    """Raise a ValueError for what is no key."""
    if isinstance(key, str) and key not in _COLUMN_OF_KEY and key not in also:
        names = ", ".join(repr(name) for name in (*also, *_COLUMN_OF_KEY))
        raise ValueError(f"{what} must be {names} or a function, not {key!r}")


def choose_masks(
    columns: Columns,
    num_masks: int,
    max_masks: int | None,
    *,
    by: Key = "area",
    weights: Key | None = None,
    rng: np.random.Generator,
) -> npt.NDArray[np.int64] | None:
    """Choose at most ``max_masks`` of the masks of an image.

    Args:
        columns: ``areas (N,)``, ``predicted_ious (N,)``, ``stability_scores (N,)`` and
            ``bboxes (N, 4)``.
        num_masks: N.
        max_masks: None takes all.
        by: take those with the largest ``"area"``, ``"predicted_iou"``, ``"stability_score"`` or
            value of a function, which takes ``columns`` and returns one number a mask (of equals
            the first); or ``"random"`` ones.
        weights: the same, as weights of the random ones, which are drawn without replacement, each
            with a probability proportional to its weight among those left. Masks of weight 0 are
            taken only when no others are left. Default: all alike.
        rng: draws them.

    Returns:
        int64, ascending; None for all.

    Raises:
        ValueError: a function returns another number of values, or weights are negative or no
            numbers; a negative ``max_masks``.
    """
    if max_masks is None or num_masks <= max_masks:
        return None
    if max_masks < 0:
        raise ValueError(f"max_masks must not be negative, but is {max_masks}")
    if by != "random":
        scores = _evaluate(by, columns, num_masks)
        best = np.argsort(-scores, kind="stable")[:max_masks]
        return np.sort(best)
    relevance = np.ones(num_masks) if weights is None else _evaluate(weights, columns, num_masks)
    if not np.isfinite(relevance).all() or relevance.min() < 0:
        raise ValueError("weights of masks must be finite and not negative")
    # An exponential waiting time each; the first ones are a draw without replacement.
    with np.errstate(divide="ignore"):
        waiting = rng.standard_exponential(num_masks) / relevance
    ties = rng.random(num_masks)  # among those of weight 0, which wait for ever
    return np.sort(np.lexsort((ties, waiting))[:max_masks])


def _evaluate(key: Key, columns: Columns, num_masks: int) -> npt.NDArray[np.float64]:
    values = columns[_COLUMN_OF_KEY[key]] if isinstance(key, str) else key(columns)
    array = np.asarray(values, np.float64)
    if array.shape != (num_masks,):
        raise ValueError(f"{num_masks} masks need as many values, not {array.shape}")
    return array
