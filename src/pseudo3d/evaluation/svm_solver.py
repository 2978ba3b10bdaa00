"""How the linear SVMs of ``svm`` are solved: many at once, and each in as few coordinates as it has.

One class against the rest, squared hinge, L2 penalty, by scikit-learn's ``LinearSVC`` (liblinear), with its intercept
(a constant feature of 1, which is penalised too). Three things make it fast without changing what it computes:

- fewer coordinates: where there are more features than training videos, rows are first written in an orthonormal basis
  of the span of the training rows. The penalty keeps the solution in that span (a part outside lengthens it and changes
  no score), and there all products are what they were; the intercept is apart and is not turned. 420 videos of 2048
  numbers become 420 triangular rows of 420: a tenth of the numbers.
- one class, one fold or one left-out video is a problem of its own, and they are solved side by side. liblinear's
  Newton solver draws no random numbers (its dual one does, from a generator that all threads share), so that scores
  do not depend on how many there are.
- a tolerance below scikit-learn's, so that scores are those of the optimum and not of the way there: Newton's method
  takes one or two more steps for it.

``benchmarks/svm.py`` measures it beside scikit-learn used directly.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pseudo3d.cpus import available_cpus
from pseudo3d.errors import Pseudo3dError

SVM_C = 1.0  # the paper states no constant; this one is ours
C_GRID = (0.1, 1.0, 10.0, 100.0)  # what c="cv" chooses from; where several do equally well, the smallest
INNER_FOLDS = 3  # that it is chosen by
BY_GROUP = "leave one group out"

Constant = float | Literal["cv"]
Labels = Int64[np.ndarray, "n"] | Bool[np.ndarray, "n classes"]
Groups = Sequence[str] | Int64[np.ndarray, "n"] | None
OnConstant = Callable[[float], None]

_TOLERANCE = 1e-6
_MAX_ITER = 20_000


@dataclass(frozen=True, eq=False)
class Side:
    """Which rows train an SVM, which it scores, and its constant."""

    train: slice | np.ndarray
    test: slice | np.ndarray
    c: float


def solve(
    x: Float64[np.ndarray, "rows d"],
    shown: Bool[np.ndarray, "labelled classes"],
    sides: Sequence[Side],
    jobs: int | None,
) -> list[Float64[np.ndarray, "_ classes"]]:
    """Decision values of the test rows of each side.

    Args:
        x: what ``turned_to_span`` gave.
        shown: the problems (``columns_of``), for the first rows of ``x``; the others cannot train.
        sides: of the rows.
        jobs: problems solved at a time; None for one a core.

    Raises:
        Pseudo3dError: a problem without two sides, fewer than one job.
    """
    if jobs is not None and jobs < 1:
        raise Pseudo3dError(f"jobs must be at least 1, got {jobs}")
    for side in sides:
        _check_trainable(shown[side.train])
    classes = range(shown.shape[1])
    with ThreadPoolExecutor(jobs or available_cpus()) as pool:
        found = pool.map(lambda task: _one_class(x, shown[:, task[1]], task[0]), itertools.product(sides, classes))
        return [np.stack([next(found) for _ in classes], axis=1) for _ in sides]


def _check_trainable(shown: np.ndarray) -> None:
    """Raise unless every class has rows that show it, and rows that do not."""
    both = np.concatenate([~shown, shown], axis=1) if shown.shape[1] == 1 else shown
    for k, count in enumerate(both.sum(axis=0)):
        if count == 0:
            raise Pseudo3dError(
                f"class {k} has no training video where an SVM is to be trained: add videos of it from other sources, "
                "or leave the class out"
            )
        if count == len(both):
            raise Pseudo3dError(f"every training video shows class {k}: an SVM needs some that do not")


def _one_class(x: np.ndarray, shown: np.ndarray, side: Side) -> np.ndarray:
    """Scores of a side's test rows for one class."""
    from sklearn.svm import LinearSVC

    svm = LinearSVC(C=side.c, dual=False, tol=_TOLERANCE, max_iter=_MAX_ITER)
    svm.fit(x[side.train], shown[side.train])
    scores: np.ndarray = x[side.test] @ svm.coef_[0] + svm.intercept_[0]
    return scores


def turned_to_span(x: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
    """The same rows in an orthonormal basis of the span of ``x``, where that has fewer coordinates."""
    if len(x) >= x.shape[1]:
        return (x, *more)
    basis, coordinates = np.linalg.qr(x.T)
    return (np.ascontiguousarray(coordinates.T), *(other @ basis for other in more))


def checked(x: np.ndarray) -> Float64[np.ndarray, "n d"]:
    """The features in the solver's precision; a Pseudo3dError when some are not finite."""
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        raise Pseudo3dError(f"{len(bad)} videos have NaN or infinite features (row {bad[0]}); extract them again")
    return np.ascontiguousarray(x, np.float64)


def columns_of(y: np.ndarray, num_classes: int) -> Bool[np.ndarray, "n classes"]:
    """The problems to be solved: which rows are on the positive side of each."""
    if y.ndim == 2:
        return y
    classes = np.arange(1, 2) if num_classes == 2 else np.arange(num_classes)
    return y[:, None] == classes


def widened(scores: np.ndarray, num_classes: int) -> Float64[np.ndarray, "n classes"]:
    """One column a class, also where one problem decides between two."""
    return np.concatenate([-scores, scores], axis=1) if scores.shape[1] < num_classes else scores


def constant_for(
    c: Constant, x: np.ndarray, shown: np.ndarray, rows: np.ndarray, groups: Groups, seed: int, jobs: int | None
) -> float:
    """The constant for an SVM that is trained on ``rows``."""
    if c != "cv":
        if not 0 < c < np.inf:
            raise Pseudo3dError(f"the SVM's constant must be a number above 0, or cv, got {c}")
        return float(c)
    theirs = None if groups is None else [groups[i] for i in rows]
    folds = [(rows[train], rows[test]) for train, test in stratified_folds(shown[rows], theirs, INNER_FOLDS, seed)[0]]
    sides = [Side(train, test, each) for each in C_GRID for train, test in folds]
    right = dict.fromkeys(C_GRID, 0)
    for side, scores in zip(sides, solve(x, shown, sides, jobs), strict=True):
        if shown.shape[1] == 1:
            right[side.c] += int(((scores > 0) == shown[side.test]).sum())
        else:
            right[side.c] += int(np.take_along_axis(shown[side.test], scores.argmax(axis=1)[:, None], axis=1).sum())
    return max(C_GRID, key=lambda each: right[each])  # of equals the first


def given_footnote(c: Constant) -> tuple[str, ...]:
    """What a table says of a constant that a person chose; nothing of ours, or of one that "cv" chooses.

    Example:
        >>> given_footnote(100.0), given_footnote(1.0), given_footnote("cv")
        (('C = 100 was given (--c); the paper states none, and ours is 1',), (), ())
    """
    if c in (SVM_C, "cv"):
        return ()
    return (f"C = {c:g} was given (--c); the paper states none, and ours is {SVM_C:g}",)


def chosen_footnote(constants: Sequence[float], rows: str) -> tuple[str, ...]:
    """What a table says of constants that "cv" chose; nothing where it chose none.

    Args:
        constants: of each SVM.
        rows: what they were trained on: "videos", "pairs".

    Example:
        >>> chosen_footnote([10.0], "videos")
        ('C = 10, chosen by cross-validation on the training videos',)
        >>> chosen_footnote([10.0, 1.0, 10.0], "pairs")
        ('C = 1 in 1 and 10 in 2 of 3 SVMs, chosen by cross-validation on the training pairs of each',)
    """
    counts = sorted(Counter(constants).items())
    if not counts:
        return ()
    told = f"C = {counts[0][0]:g}" + (f" in all {len(constants)} SVMs" if len(constants) > 1 else "")
    if len(counts) > 1:
        *first, last = [f"{c:g} in {count}" for c, count in counts]
        told = f"C = {', '.join(first)} and {last} of {len(constants)} SVMs"
    of_each = " of each" if len(constants) > 1 else ""
    return (f"{told}, chosen by cross-validation on the training {rows}{of_each}",)


def stratified_folds(
    shown: Bool[np.ndarray, "n classes"], groups: Groups, folds: int, seed: int, names: Sequence[str] = ()
) -> tuple[list[tuple[np.ndarray, np.ndarray]], str]:
    """Training and test rows of a stratified cross-validation, each group in one fold; and what it is called."""
    from sklearn.model_selection import LeaveOneGroupOut, StratifiedGroupKFold

    # by the first class that a row shows; a single column tells its class from the other one
    labels = shown[:, 0].astype(np.int64) if shown.shape[1] == 1 else shown.argmax(axis=1)
    own = np.arange(len(labels)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    sources = Counter(label for label, _ in set(zip(labels.tolist(), own.tolist(), strict=True)))
    scarce, count = min(sources.items(), key=lambda item: item[1])
    if count < 2:
        raise Pseudo3dError(
            f"class {names[scarce] if names else scarce} has videos of one source only: at least 2 are needed, to "
            "train on one and test on the other"
        )
    folds = min(folds, count)
    sides = list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(own, labels, own))
    if any(len(test) == 0 or len(np.unique(labels[train])) < len(sources) for train, test in sides):
        # few groups of several classes each: a fold swallowed all of a class
        return list(LeaveOneGroupOut().split(own, labels, own)), BY_GROUP
    return sides, f"{folds}-fold cross-validation"
