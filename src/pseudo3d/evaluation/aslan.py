"""Action similarity labelling: do two videos show the same action? (ASLAN, paper section 5, Table 5).

Twelve similarities of two video representations (Kliper-Gross, Hassner, Wolf, TPAMI 2012, Table 3), each computed on
several layers, make one short vector of a pair; a linear SVM says of it "same" or "not same".
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from pseudo3d.cpus import available_cpus
from pseudo3d.errors import Pseudo3dError
from pseudo3d.evaluation.metrics import mean_and_error, roc_auc
from pseudo3d.evaluation.svm import SVM_C, l2_normalised, svm_scores

ASLAN_LAYERS = ("prob", "pool5", "res5", "res4")  # the paper's prob, pool5, res5c and res4b35
Rows = Float[np.ndarray, "pairs dim"]
PerPair = Float[np.ndarray, "pairs"]

_BETWEEN = " | "  # the two videos of a pair, in its name
_SMALLEST = 1e-10
"""A share below it counts as it in (10), whose logarithm of 0 / y or x / 0 is infinite."""
_NOISE = 1e-4
"""Features below 0 by at most this share of a pair's largest one are rounding, and 0; others are an error."""
_BLOCK = 1 << 15  # numbers of one side of a block: the few arrays that a similarity takes stay in the processor's cache


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """``above / below`` where 0 / 0 is 0: such places tell nothing of a pair. Above is 0 wherever below is."""
    return above / np.where(below > 0, below, 1)


def _shares(x: Rows) -> Rows:
    """Rows that sum to 1; a row of zeros stays one."""
    return _ratio(x, x.sum(axis=1, keepdims=True))


def _unit(x: Rows) -> Rows:
    """Rows of length 1; a row of zeros stays one."""
    return _ratio(x, np.sqrt((x * x).sum(axis=1, keepdims=True)))


def product(x: Rows, y: Rows) -> PerPair:
    """(1) sum xy."""
    return (x * y).sum(axis=1)


def root_product(x: Rows, y: Rows) -> PerPair:
    """(2) sqrt(sum xy)."""
    return np.sqrt(product(x, y))


def bhattacharyya(x: Rows, y: Rows) -> PerPair:
    """(3) sqrt(sum sqrt(x) sqrt(y))."""
    return np.sqrt((np.sqrt(x) * np.sqrt(y)).sum(axis=1))


def harmonic(x: Rows, y: Rows) -> PerPair:
    """(4) sqrt(sum xy / (x + y)); 0 / 0 is 0."""
    return np.sqrt(_ratio(x * y, x + y).sum(axis=1))


def cosine(x: Rows, y: Rows) -> PerPair:
    """(5) sum xy / (sqrt(sum x^2) sqrt(sum y^2)); 0 with a vector of zeros."""
    lengths = np.sqrt((x * x).sum(axis=1)) * np.sqrt((y * y).sum(axis=1))
    return _ratio(product(x, y), lengths)


def chi(x: Rows, y: Rows) -> PerPair:
    """(6) sqrt(sum (x - y)^2 / (x + y)); 0 / 0 is 0."""
    return np.sqrt(_ratio((x - y) ** 2, x + y).sum(axis=1))


def city_block(x: Rows, y: Rows) -> PerPair:
    """(7) sum |x - y|."""
    return np.abs(x - y).sum(axis=1)


def hellinger(x: Rows, y: Rows) -> PerPair:
    """(8) sqrt(sum (sqrt(x) - sqrt(y))^2)."""
    return np.sqrt(((np.sqrt(x) - np.sqrt(y)) ** 2).sum(axis=1))


def euclidean(x: Rows, y: Rows) -> PerPair:
    """(9) sqrt(sum (x - y)^2) of vectors of length 1 (L2)."""
    return np.sqrt(((_unit(x) - _unit(y)) ** 2).sum(axis=1))


def divergence(x: Rows, y: Rows) -> PerPair:
    """(10) 1/2 (sum x log(x/y) + sum y log(y/x)) of vectors that sum to 1, no number taken as less than 1e-10."""
    x, y = np.maximum(_shares(x), _SMALLEST), np.maximum(_shares(y), _SMALLEST)
    return 0.5 * ((x - y) * np.log(x / y)).sum(axis=1)


def larger_share(x: Rows, y: Rows) -> PerPair:
    """(11) sum sqrt(max(x, y)) / sqrt(x + y) of vectors that sum to 1; 0 / 0 is 0."""
    x, y = _shares(x), _shares(y)
    return np.sqrt(_ratio(np.maximum(x, y), x + y)).sum(axis=1)


def intersection(x: Rows, y: Rows) -> PerPair:
    """(12) sum min(x, y) / (sum x sum y) of vectors that sum to 1; 0 with a vector of zeros."""
    x, y = _shares(x), _shares(y)
    return _ratio(np.minimum(x, y).sum(axis=1), x.sum(axis=1) * y.sum(axis=1))


SIMILARITIES: tuple[Callable[[Rows, Rows], PerPair], ...] = (
    product,
    root_product,
    bhattacharyya,
    harmonic,
    cosine,
    chi,
    city_block,
    hellinger,
    euclidean,
    divergence,
    larger_share,
    intersection,
)
"""The twelve, in the order of their numbers; each takes float64 rows that are not negative.

Where the sources leave something open: vectors of (10), (11) and (12) are divided by their sum ("normalised" names no
norm there; (10) compares distributions, and of long vectors of length 1 the number (12) would be next to nothing), so
that the denominator of (12) is 1.
"""


def pair_similarities(
    features: Mapping[str, Float[np.ndarray, "videos dim"]],
    first: Int64[np.ndarray, "pairs"],
    second: Int64[np.ndarray, "pairs"],
    *,
    jobs: int | None = None,
) -> Float64[np.ndarray, "pairs twelve*layers"]:
    """The twelve similarities of each pair on each layer, as they are; in the order of the layers.

    Pairs are read and computed a few at a time, so that layers as wide as res4 (204,800 numbers a video, in a mapped
    file) take no more memory than others.

    Args:
        features: of the same videos in each layer, at least 0.
        first: places of the pairs' first videos.
        second: places of their second ones.
        jobs: threads; None: one a processor. The numbers have the same bits.

    Raises:
        Pseudo3dError: no layer or no pair, layers of different numbers of videos, a place that no video has, features
            that are not finite or below 0.

    Example:
        >>> x = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
        >>> pair_similarities({"pool5": x}, np.array([0, 0]), np.array([1, 2]))[:, [0, 4, 6]]
        array([[1., 1., 0.],
               [0., 0., 3.]])
    """
    _check_pairs(features, first, second)
    out = np.empty((len(first), len(SIMILARITIES) * len(features)))
    with ThreadPoolExecutor(jobs or available_cpus()) as pool:
        for i, (layer, values) in enumerate(features.items()):
            columns = out[:, i * len(SIMILARITIES) : (i + 1) * len(SIMILARITIES)]

            def compute(rows: slice, layer: str = layer, values: np.ndarray = values, to: np.ndarray = columns) -> None:
                x = _checked(layer, values, first[rows])
                y = _checked(layer, values, second[rows])
                for j, similarity in enumerate(SIMILARITIES):
                    to[rows, j] = similarity(x, y)

            for _ in pool.map(compute, _blocks(len(first), values.shape[1])):
                pass  # an error of a block is raised here
    return out


def pair_vector(
    features: Mapping[str, Float[np.ndarray, "videos dim"]],
    first: Int64[np.ndarray, "pairs"],
    second: Int64[np.ndarray, "pairs"],
    *,
    jobs: int | None = None,
) -> Float64[np.ndarray, "pairs twelve*layers"]:
    """``pair_similarities``, each pair's divided by its length (L2): the paper's 48 numbers of four layers.

    Arguments and errors are the same.
    """
    return l2_normalised(pair_similarities(features, first, second, jobs=jobs))


def pair_name(fold: int, number: int, first: str, second: str) -> str:
    """What scores call a pair of videos; ``videos_of_pair`` tells the two.

    Example:
        >>> name = pair_name(1, 9, "a/0006.avi", "a/0002.avi")
        >>> name, videos_of_pair(name)
        ('fold 1, pair 9: a/0006.avi | a/0002.avi', ('a/0006.avi', 'a/0002.avi'))
    """
    return f"fold {fold}, pair {number}: {first}{_BETWEEN}{second}"


def videos_of_pair(name: str) -> tuple[str, ...]:
    """The paths of both videos of a pair."""
    return tuple(name.partition(": ")[2].split(_BETWEEN))


@dataclass(frozen=True, eq=False)
class AslanResult:
    """What the SVMs said of pairs that they were not trained on.

    Args:
        accuracies: of each test fold, 0..1; one in View-1.
        accuracy: their mean.
        error: the standard error of the mean, sd / sqrt(folds) with sd of folds - 1; None in View-1.
        auc: area under the ROC curve of all tested pairs together, 0..1.
        decisions: (tested,), decision values; above 0 is "same".
        same: (tested,), the truth.
        tested: (tested,), the places of the tested pairs among those given; all of them in View-2.
        constants: of each test fold's SVM.
    """

    accuracies: Float64[np.ndarray, "folds"]
    accuracy: float
    error: float | None
    auc: float
    decisions: Float64[np.ndarray, "tested"]
    same: Bool[np.ndarray, "tested"]
    tested: Int64[np.ndarray, "tested"]
    constants: tuple[float, ...]


def evaluate_aslan(
    features: Mapping[str, Float[np.ndarray, "videos dim"]],
    first: Int64[np.ndarray, "pairs"],
    second: Int64[np.ndarray, "pairs"],
    same: Bool[np.ndarray, "pairs"],
    fold: Int64[np.ndarray, "pairs"],
    *,
    c: float | Literal["cv"] = SVM_C,
    seed: int = 0,
    view: Literal[1, 2] = 2,
    standardise: bool = False,
    jobs: int | None = None,
) -> AslanResult:
    """ASLAN's protocol: train on all folds but one, test on that one, for each (View-2); or once (View-1).

    The arithmetic is that of the benchmark's authors: a fold's accuracy is the share of pairs on the right side of
    its SVM, and one ROC curve is drawn of the decision values of all pairs of all test folds together.

    Args:
        features: by layer, (videos, dim), at least 0; ``ASLAN_LAYERS`` in the paper.
        first: places of the pairs' first videos.
        second: places of their second ones.
        same: whether both show the same action.
        fold: of each pair, 0, 1, ...; View-1: 0 training, 1 test.
        c: the SVM's constant (the paper states none; 1 is ours), or "cv": chosen on training folds, each kept whole.
        seed: of the parts that "cv" makes of a single training fold (View-1).
        view: 2 to report, 1 to develop.
        standardise: bring each number to mean 0 and deviation 1 over the training pairs before the L2 normalisation.
            The paper does not say that it does, and the numbers differ by orders of magnitude without.
        jobs: threads; None: as many as processors.

    Raises:
        Pseudo3dError: as for ``pair_similarities``; lists of different lengths, an empty fold, training pairs of one
            kind only.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = np.repeat(np.eye(4), 6, axis=0) + rng.uniform(0, 0.1, (24, 4))  # four actions, six videos each
        >>> first, second = rng.integers(0, 24, (2, 200))
        >>> result = evaluate_aslan({"pool5": x}, first, second, first // 6 == second // 6, np.arange(200) % 10)
        >>> result.accuracy, result.error, result.auc
        (1.0, 0.0, 1.0)
    """
    if not len(first) == len(second) == len(same) == len(fold):
        lengths = f"{len(first)} first and {len(second)} second videos, {len(same)} labels, {len(fold)} folds"
        raise Pseudo3dError(f"each pair needs two videos, a label and a fold, got {lengths}")
    sides = _sides(same, fold, view)
    raw = pair_similarities(features, first, second, jobs=jobs)
    decisions, constants = np.full(len(fold), np.nan), list[float]()
    for train, test in sides:
        x, y = l2_normalised(_standardised(raw, train) if standardise else raw), same[train].astype(np.int64)
        groups = fold[train] if np.ptp(fold[train]) else None  # one training fold has to be parted itself
        options: dict[str, Any] = {"c": c, "groups": groups, "seed": seed, "jobs": jobs}
        decisions[test] = svm_scores(x[train], y, x[test], 2, **options, on_constant=constants.append)[:, 1]
    accuracies = np.array([((decisions[test] > 0) == same[test]).mean() for _, test in sides])
    mean, error = mean_and_error(accuracies) if len(accuracies) > 1 else (float(accuracies[0]), None)
    tested = np.sort(np.concatenate([test for _, test in sides]))
    auc = roc_auc(decisions[tested], same[tested])
    return AslanResult(accuracies, mean, error, auc, decisions[tested], same[tested], tested, tuple(constants))


def _sides(same: np.ndarray, fold: np.ndarray, view: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and test pairs of each SVM.

    Raises:
        Pseudo3dError: folds that are none, or without both answers.
    """
    tests = _test_folds(fold, view)
    sides = [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in tests]
    _check_sides(same, sides, tests)
    return sides


def _standardised(x: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and deviation 1 over the training pairs; a column that is constant there becomes 0."""
    mean, deviation = x[train].mean(axis=0), x[train].std(axis=0)
    varies = deviation > 1e-12 * np.abs(mean)
    return np.where(varies, (x - mean) / np.where(varies, deviation, 1), 0)


def _test_folds(fold: np.ndarray, view: int) -> Sequence[int]:
    """The folds to test on.

    Raises:
        Pseudo3dError: numbers that are no folds, or an empty fold.
    """
    if len(fold) == 0:
        raise Pseudo3dError("there are no pairs; read those of the official list")
    if fold.min() < 0 or (view == 1 and fold.max() > 1):
        wanted = "0 (training) or 1 (test)" if view == 1 else "0, 1, ..."
        raise Pseudo3dError(f"the fold of a pair must be {wanted} in View-{view}, got {fold.min()} to {fold.max()}")
    counts = np.bincount(fold, minlength=2)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        raise Pseudo3dError(f"fold {empty[0]} (of 0 to {len(counts) - 1}) has no pair; each needs pairs to test on")
    return [1] if view == 1 else range(len(counts))


def _check_sides(same: np.ndarray, sides: Sequence[tuple[np.ndarray, np.ndarray]], tests: Sequence[int]) -> None:
    """Both answers must be there to learn, and to draw a curve of.

    Raises:
        Pseudo3dError: they are not.
    """
    for number, (train, _) in zip(tests, sides, strict=True):
        if same[train].all() or not same[train].any():
            kind = '"same"' if same[train].all() else '"not same"'
            raise Pseudo3dError(
                f"all {len(train)} training pairs for fold {number} are {kind}; both are needed to learn from"
            )
    tested = same[np.concatenate([test for _, test in sides])]
    if tested.all() or not tested.any():
        raise Pseudo3dError(f"all {len(tested)} test pairs are of one kind; both are needed for a ROC curve")


def _check_pairs(features: Mapping[str, np.ndarray], first: np.ndarray, second: np.ndarray) -> None:
    if not features or len(first) == 0 or len(first) != len(second):
        raise Pseudo3dError(f"need layers and pairs of videos, got {len(features)}, {len(first)} and {len(second)}")
    counts = {layer: len(values) for layer, values in features.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{layer} of {count}" for layer, count in counts.items())
        raise Pseudo3dError(f"the layers are of different numbers of videos ({told}); take them from one store")
    videos = next(iter(counts.values()))
    for name, places in (("first", first), ("second", second)):
        wrong = np.flatnonzero((places < 0) | (places >= videos))
        if len(wrong):
            raise Pseudo3dError(
                f"pair {wrong[0]}: its {name} video is number {places[wrong[0]]}, and there are 0 to {videos - 1}"
            )


def _blocks(pairs: int, dim: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, dim))
    return (slice(start, start + step) for start in range(0, pairs, step))


def _checked(layer: str, values: np.ndarray, places: np.ndarray) -> Rows:
    """Rows in float64.

    Raises:
        Pseudo3dError: they are not finite, or below 0 by more than rounding.
    """
    x = values[places].astype(np.float64)
    low, high = x.min(axis=1), x.max(axis=1)
    bad = np.flatnonzero(~np.isfinite(low) | ~np.isfinite(high))
    if len(bad):
        raise Pseudo3dError(f"{layer}: NaN or infinite features of video {places[bad[0]]}; extract it again")
    bad = np.flatnonzero(low < -_NOISE * np.maximum(high, 0))
    if len(bad):
        raise Pseudo3dError(
            f"{layer}: features below 0 (video {places[bad[0]]}: {low[bad[0]]:.3g}); the similarities take roots and "
            "logarithms of them: use layers that are not negative, such as prob, pool5, res5 and res4"
        )
    return np.maximum(x, 0, out=x)
