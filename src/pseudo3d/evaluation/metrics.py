"""Scores of predictions, under the names the paper uses."""

import numpy as np
from jaxtyping import Bool, Float, Int64

Truth = Int64[np.ndarray, "N"] | Bool[np.ndarray, "N classes"]


def hit_at_k(scores: Float[np.ndarray, "N classes"], truth: Truth, k: int = 1) -> float:
    """Share of rows that have a true class among the k highest scores (hit@k), 0..1.

    Equal scores rank in class order, so that constant scores are not always right.

    Args:
        scores: the higher, the likelier.
        truth: the index of each row's class, or, where a row may have several (Sports-1M), which classes are its.
        k: how many guesses a row has.

    Raises:
        ValueError: no rows, another number of rows or classes in ``truth``, a row without a true class, scores that
            are not finite.

    Example:
        >>> hit_at_k(np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4]]), np.array([0, 2]))
        0.5
        >>> hit_at_k(np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4]]), np.array([0, 2]), k=2)
        1.0
        >>> hit_at_k(np.array([[0.1, 0.5, 0.4]]), np.array([[True, True, False]]))
        1.0
    """
    if len(scores) == 0:
        raise ValueError(f"need as many rows of scores as labels and at least one, got 0, {len(truth)}")
    return float(hits_of(scores, truth, k).mean())


def hits_of(scores: Float[np.ndarray, "N classes"], truth: Truth, k: int = 1) -> Bool[np.ndarray, "N"]:
    """Which rows have a true class among the k highest scores; as ``hit_at_k``, and no rows are none."""
    if len(scores) != len(truth):
        raise ValueError(f"need as many rows of scores as labels and at least one, got {len(scores)}, {len(truth)}")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinite values")
    top = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    if truth.ndim == 1:
        return np.any(top == truth[:, None], axis=1)
    if truth.shape != scores.shape:
        raise ValueError(f"scores are of {scores.shape[1]} classes, the truth of {truth.shape[1]}")
    without = np.flatnonzero(~truth.any(axis=1))
    if len(without):
        raise ValueError(f"row {without[0]} has no true class")
    return np.any(np.take_along_axis(truth, top, axis=1), axis=1)
