"""Scores of predictions, under the names the paper uses."""

import numpy as np
from jaxtyping import Float, Int64


def hit_at_k(scores: Float[np.ndarray, "N classes"], labels: Int64[np.ndarray, "N"], k: int = 1) -> float:
    """Share of rows whose label is among the k highest scores (hit@k), 0..1.

    Equal scores rank in class order, so that constant scores are not always right.

    Example:
        >>> hit_at_k(np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4]]), np.array([0, 2]))
        0.5
        >>> hit_at_k(np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4]]), np.array([0, 2]), k=2)
        1.0
    """
    if len(scores) != len(labels) or len(labels) == 0:
        raise ValueError(f"need as many rows of scores as labels and at least one, got {len(scores)}, {len(labels)}")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinite values")
    top = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((top == labels[:, None]).any(axis=1).mean())
