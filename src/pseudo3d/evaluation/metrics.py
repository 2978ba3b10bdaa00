"""Scores of predictions, under the names the paper uses."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from pseudo3d.errors import Pseudo3dError

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


def average_precision(
    scores: Float[np.ndarray, "N"], truth: Bool[np.ndarray, "N"], *, interpolated: bool = True
) -> float:
    """Area under the curve of precision over recall, 0..1.

    Interpolated, a precision is the highest at that recall or a higher one: the arithmetic of VOC since 2010 and of
    ActivityNet's evaluator. Not interpolated, it is scikit-learn's ``average_precision_score``.

    Equal scores are one step of the curve: they are taken together, so that the value does not depend on the order of
    the rows. (ActivityNet's evaluator takes them one by one in the order that NumPy's ``argsort()[::-1]`` gives;
    without equal scores it gives the same value.)

    Args:
        scores: the higher, the likelier.
        truth: which rows are positive.
        interpolated: with VOC's interpolation at all points.

    Raises:
        Pseudo3dError: no positive row.
        ValueError: lengths that differ, scores that are not finite.

    Example:
        >>> truth = np.array([False, True, True])
        >>> round(average_precision(np.array([0.9, 0.8, 0.7]), truth), 3)  # precision 2/3 at both recalls
        0.667
        >>> round(average_precision(np.array([0.9, 0.8, 0.7]), truth, interpolated=False), 3)  # 1/2, then 2/3
        0.583
    """
    hits, misses = _counts_by_threshold(scores, truth)
    if hits[-1] == 0:
        raise Pseudo3dError("average precision needs at least one positive video, and there is none")
    precision, recall = hits / (hits + misses), hits / hits[-1]
    if interpolated:
        precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def average_precisions(
    scores: Float[np.ndarray, "N classes"], truth: Bool[np.ndarray, "N classes"], *, interpolated: bool = True
) -> Float64[np.ndarray, "classes"]:
    """``average_precision`` of each class; NaN for a class without a positive row.

    Raises:
        ValueError: shapes that differ, scores that are not finite.
    """
    if scores.shape != truth.shape:
        raise ValueError(f"scores have the shape {scores.shape}, the truth {truth.shape}")
    found = np.full(scores.shape[1], np.nan)
    for number in np.flatnonzero(truth.any(axis=0)):
        found[number] = average_precision(scores[:, number], truth[:, number], interpolated=interpolated)
    return found


def mean_average_precision(
    scores: Float[np.ndarray, "N classes"], truth: Bool[np.ndarray, "N classes"], *, interpolated: bool = True
) -> float:
    """Mean of ``average_precision`` over the classes that have a positive row (mAP), 0..1.

    Args:
        scores: the higher, the likelier.
        truth: which classes are a row's: one, several or none.
        interpolated: as for ``average_precision``; ActivityNet's mAP is interpolated (paper, Table 4).

    Raises:
        Pseudo3dError: no class has a positive row.
        ValueError: shapes that differ, scores that are not finite.

    Example:
        >>> scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
        >>> truth = np.array([[True, False, False], [False, True, False]])
        >>> mean_average_precision(scores, truth), classes_without_positives(truth)
        (1.0, 1)
    """
    each = average_precisions(scores, truth, interpolated=interpolated)
    if np.isnan(each).all():
        raise Pseudo3dError("mean average precision needs at least one positive video, and no class has one")
    return float(np.nanmean(each))


def classes_without_positives(truth: Bool[np.ndarray, "N classes"]) -> int:
    """How many classes ``mean_average_precision`` leaves out: what a footnote tells."""
    return int((~truth.any(axis=0)).sum())


def roc_curve(
    scores: Float[np.ndarray, "N"], truth: Bool[np.ndarray, "N"]
) -> tuple[Float64[np.ndarray, "points"], Float64[np.ndarray, "points"]]:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1); scikit-learn's without its thinning.

    Args:
        scores: the higher, the likelier. Equal scores are one point.
        truth: which rows are positive.

    Returns:
        False positive rates and true positive rates, 0..1, both rising.

    Raises:
        Pseudo3dError: all rows are positive, or none is.
        ValueError: lengths that differ, scores that are not finite.

    Example:
        >>> rates = roc_curve(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]))
        >>> [each.tolist() for each in rates]
        [[0.0, 0.0, 1.0, 1.0], [0.0, 0.5, 0.5, 1.0]]
    """
    hits, misses = _counts_by_threshold(scores, truth)
    if hits[-1] == 0 or misses[-1] == 0:
        raise Pseudo3dError(f"a ROC curve needs positive and negative rows; {hits[-1]} of {len(truth)} are positive")
    return np.append(0.0, misses / misses[-1]), np.append(0.0, hits / hits[-1])


def roc_auc(scores: Float[np.ndarray, "N"], truth: Bool[np.ndarray, "N"]) -> float:
    """Area under ``roc_curve``, 0..1: how often a positive row is above a negative one, equal scores counting half.

    Raises:
        Pseudo3dError: all rows are positive, or none is.
        ValueError: lengths that differ, scores that are not finite.

    Example:
        >>> roc_auc(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]))
        0.5
    """
    false_rate, true_rate = roc_curve(scores, truth)
    return float(np.sum(np.diff(false_rate) * (true_rate[1:] + true_rate[:-1]) / 2))


def mean_and_error(values: Sequence[float] | Float[np.ndarray, "N"]) -> tuple[float, float]:
    """Mean and its standard error: the deviation (with n - 1) over the root of n, as ASLAN's tables give it.

    Raises:
        ValueError: fewer than two values, or some that are not finite.

    Example:
        >>> mean_and_error([0.5, 0.75, 1.0])[0], round(mean_and_error([0.5, 0.75, 1.0])[1], 4)
        (0.75, 0.1443)
    """
    numbers = np.asarray(values, np.float64)
    if numbers.size < 2:
        raise ValueError(f"a standard error needs at least two values, got {numbers.size}")
    if not np.isfinite(numbers).all():
        raise ValueError("values hold NaN or infinite ones")
    return float(numbers.mean()), float(numbers.std(ddof=1) / np.sqrt(numbers.size))


def _counts_by_threshold(
    scores: np.ndarray, truth: np.ndarray
) -> tuple[Int64[np.ndarray, "thresholds"], Int64[np.ndarray, "thresholds"]]:
    """Positive and other rows with at least each score that occurs, from the highest score down."""
    if scores.ndim != 1 or scores.shape != truth.shape:
        raise ValueError(f"need as many scores as truth values, got the shapes {scores.shape}, {truth.shape}")
    if len(scores) == 0:
        raise ValueError("need at least one score, got none")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinite values")
    if truth.dtype != bool:
        raise ValueError(f"truth must be bool, got {truth.dtype}")
    order = np.argsort(-scores, kind="stable")
    ordered, positive = scores[order], truth[order]
    last = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)  # of the rows with equal scores
    hits = np.cumsum(positive, dtype=np.int64)[last]
    return hits, last + 1 - hits
