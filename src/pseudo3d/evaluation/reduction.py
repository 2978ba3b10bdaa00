"""Accuracy of a representation squeezed into fewer numbers by principal components (paper section 5, Figure 6)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from pseudo3d.errors import Pseudo3dError
from pseudo3d.evaluation.metrics import hit_at_k
from pseudo3d.evaluation.svm import l2_normalised, svm_scores, take_apart
from pseudo3d.evaluation.svm_solver import SVM_C, Constant

DIMENSIONS = (500, 400, 300, 200, 100, 50, 10)  # "at each dimension from 500 to 10"; the steps between are ours
_BLOCK = 4096  # columns of a wide representation (IDT's Fisher vectors have 100,000) that are in float64 at a time

Side = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Reduction:
    """How a linear SVM does on fewer and fewer numbers of a representation.

    Args:
        dims: how many, largest first.
        accuracies: at each, 0..1.
        full_dim: all of the representation's numbers.
        full_accuracy: with all of them, 0..1.
        left_out: dimensions that were asked for and are impossible: more than the representation has, or than the
            training videos span.
        videos: that were tested.
        protocol: how training and test videos were kept apart, in words.
        chosen: the constants that "cv" chose, side by side: for each of ``dims``, then for all numbers. None unless it
            did.
    """

    dims: tuple[int, ...]
    accuracies: tuple[float, ...]
    full_dim: int
    full_accuracy: float
    left_out: tuple[int, ...]
    videos: int
    protocol: str
    chosen: tuple[tuple[float, ...], ...] = ()


def accuracy_by_dimension(
    features: Float[np.ndarray, "videos dim"],
    labels: list[str | None],
    *,
    dims: Sequence[int] = DIMENSIONS,
    videos: list[str] | None = None,
    splits: list[str | None] | None = None,
    groups: list[str | None] | None = None,
    folds: int = 5,
    c: Constant = SVM_C,
    seed: int = 0,
    jobs: int | None = None,
) -> Reduction:
    """Principal components of the training videos alone, then L2 normalisation and a linear SVM.

    Training and test videos are those of ``evaluate_features``: the data's own splits, else grouped folds, each with
    components of its own. The components of the features as they are; one analysis for the largest dimension, whose
    first components are those of every smaller one.

    Args:
        features: one row a video.
        labels: class names.
        dims: how many components, in any order.
        videos: paths, for messages.
        splits: "train", "val", "test" or None for each video.
        groups: the source of each video, or None for one of its own.
        folds: of the cross-validation.
        c: the SVM's constant, or "cv".
        seed: of the folds.
        jobs: as for ``svm_scores``.

    Raises:
        Pseudo3dError: as for ``evaluate_features``; dimensions that are none, or all of them too large.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = ["left", "right"] * 10
        >>> features = rng.normal(size=(20, 8)) + np.array([[-4], [4]] * 10)
        >>> found = accuracy_by_dimension(features, labels, dims=(4, 1, 50))
        >>> found.dims, found.accuracies, found.left_out
        ((4, 1), (1.0, 1.0), (50,))
    """
    videos = videos if videos is not None else [str(i) for i in range(len(labels))]
    task = take_apart(features, labels, videos, splits, groups, folds, seed)
    names, y = task.class_names, task.labels
    possible, left_out = _possible(dims, task.sides, features.shape[1])
    scores = {dim: np.full((len(y), len(names)), np.nan) for dim in (*possible, 0)}  # 0: all, as they are
    chosen: dict[int, list[float]] = {dim: [] for dim in scores}
    for train, test in task.sides:
        theirs = [task.groups[i] for i in train]
        reduced = principal_components(features, train, possible[0])
        for dim, out in scores.items():
            x = l2_normalised(reduced[:, :dim] if dim else features)
            out[test] = svm_scores(
                x[train], y[train], x[test], len(names), c=c, groups=theirs, seed=seed, jobs=jobs,
                on_constant=chosen[dim].append,
            )  # fmt: skip
    right = {dim: hit_at_k(values[task.tested], y[task.tested]) for dim, values in scores.items()}
    accuracies = tuple(right[dim] for dim in possible)
    constants = tuple(map(tuple, chosen.values())) if c == "cv" else ()
    return Reduction(
        possible, accuracies, features.shape[1], right[0], left_out, len(task.tested), task.protocol, constants
    )


def mean_reduction(reductions: Sequence[Reduction]) -> Reduction:
    """The mean over several splits of one data set; dimensions that are impossible in one of them are left out.

    Args:
        reductions: of one representation in each split, at least one.

    Example:
        >>> one = Reduction((50, 10), (0.75, 0.5), 2048, 0.75, (500,), 30, "the data's own splits")
        >>> two = Reduction((10,), (1.0,), 2048, 1.0, (500, 50), 32, "the data's own splits")
        >>> mean = mean_reduction([one, two])
        >>> mean.dims, mean.accuracies, mean.left_out, mean.full_accuracy, mean.protocol
        ((10,), (0.75,), (500, 50), 0.875, 'mean of 2 splits')
    """
    if len(reductions) == 1:
        return reductions[0]
    dims = tuple(dim for dim in reductions[0].dims if all(dim in each.dims for each in reductions))
    accuracies = tuple(float(np.mean([each.accuracies[each.dims.index(dim)] for each in reductions])) for dim in dims)
    left_out = tuple(sorted({dim for each in reductions for dim in each.left_out}, reverse=True))
    full = float(np.mean([each.full_accuracy for each in reductions]))
    videos = sum(each.videos for each in reductions)
    protocol = f"mean of {len(reductions)} splits"
    by_dim = [dict(zip((*each.dims, 0), each.chosen, strict=True)) for each in reductions if each.chosen]
    chosen = tuple(tuple(c for each in by_dim for c in each[dim]) for dim in (*dims, 0)) if by_dim else ()
    return Reduction(dims, accuracies, reductions[0].full_dim, full, left_out, videos, protocol, chosen)


def principal_components(
    features: Float[np.ndarray, "videos dim"], train: Int64[np.ndarray, "n"], count: int
) -> Float64[np.ndarray, "videos count"]:
    """All videos in the first principal components of the training videos, which alone say what is usual and varies.

    Exact, by the eigenvectors of the smaller of the two products X'X and XX' of the centred training videos.

    Args:
        features: one row a video; may be mapped from a file.
        train: rows of the training videos, more than ``count``.
        count: of components, at most dim.

    Returns:
        float64; the sign of a component is arbitrary.

    Example:
        >>> x = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0], [8.0, 3.0]])
        >>> principal_components(x, np.array([0, 1, 2]), 1).round(6).ravel().tolist() in ([-2, 0, 2, 6], [2, 0, -2, -6])
        True
    """
    from scipy.linalg import eigh

    dim = features.shape[1]
    if dim <= len(train):
        centred = features.astype(np.float64)
        centred -= centred[train].mean(axis=0)
        product = centred[train].T @ centred[train]
        return centred @ eigh(product, subset_by_index=(dim - count, dim - 1))[1][:, ::-1]
    product = np.zeros((len(train), len(train)))
    for columns in _centred(features, train):
        product += columns[train] @ columns[train].T
    lengths, vectors = eigh(product, subset_by_index=(len(train) - count, len(train) - 1))
    vectors = vectors[:, ::-1] / np.sqrt(np.maximum(lengths[::-1], np.finfo(np.float64).tiny))
    vectors[:, lengths[::-1] <= 1e-12 * lengths[-1]] = 0  # nothing varies there
    out = np.zeros((len(features), count))
    for columns in _centred(features, train):
        out += columns @ (columns[train].T @ vectors)
    return out


def _centred(features: np.ndarray, train: np.ndarray) -> Iterator[Float64[np.ndarray, "videos columns"]]:
    for start in range(0, features.shape[1], _BLOCK):
        columns = features[:, start : start + _BLOCK].astype(np.float64)
        yield columns - columns[train].mean(axis=0)


def _possible(dims: Sequence[int], sides: Sequence[Side], full: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The dimensions that every side can have, largest first, and the others.

    Raises:
        Pseudo3dError: there is none, or one is no number of components.
    """
    wanted = sorted(set(dims), reverse=True)
    if not wanted or wanted[-1] < 1:
        raise Pseudo3dError(f"dimensions must be at least 1, got {', '.join(map(str, wanted)) or 'none'}")
    shown = min(len(train) for train, _ in sides)
    most = min(full, shown - 1)  # n centred videos span n - 1 dimensions
    possible = tuple(dim for dim in wanted if dim <= most)
    if not possible:
        why = f"the features have {full} numbers" if full < shown else f"{shown} training videos span {shown - 1}"
        raise Pseudo3dError(f"{wanted[-1]} dimensions are too many: {why}; ask for at most {most}")
    return possible, tuple(dim for dim in wanted if dim > most)
