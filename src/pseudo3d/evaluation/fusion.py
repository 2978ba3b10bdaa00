"""Late fusion: the scores of several sources as one (paper section 5, Table 3: frames + flow, representation + IDT).

The paper does not say how it weights its sources. Here the fused score is a weighted mean. Probabilities are averaged
as they are. As soon as one source gives decision values, whose unit is its own, every source is first brought to mean
0 and deviation 1 (one mean and one deviation a source, so that no source changes its mind about a video). The weights
and these two numbers come from scores of the training videos that were computed out of fold, never from the test side.
"""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32, Float64

from pseudo3d.errors import Pseudo3dError, first_few
from pseudo3d.evaluation.scores import Kind, Scores, align

_GRID = 10  # steps of the coarse search: weights of 0, 0.1, ... 1
_ON_GRID = 4  # sources up to which it is walked (286 points); more begin at single sources and equal weights
_FINER = (0.1, 0.05, 0.02, 0.01)  # how much weight goes from one source to another, one after the other


def find_weights(train: Sequence[Scores]) -> Float64[np.ndarray, "sources"]:
    """The weights with which most training videos are classified right; among such, those nearest to equal ones.

    The search is deterministic: a grid over all weights up to four sources, then weight is moved from one source to
    another in smaller and smaller steps as long as that helps.

    Args:
        train: scores of the training videos by each source, out of fold: of a video that the source was not trained
            on when it scored it. A video may have several labels; any of them is right.

    Returns:
        Weights of at least 0 with the sum 1.

    Raises:
        Pseudo3dError: no source, other videos, classes or labels in one than in another, videos without a label,
            a source whose scores are all equal beside one of decision values.

    Example:
        >>> videos, names, truth = ("a", "b"), ("x", "y"), np.eye(2, dtype=bool)
        >>> good = Scores(videos, names, truth, np.array([[0.9, 0.1], [0.2, 0.8]]), "probability")
        >>> bad = Scores(videos, names, truth, np.array([[0.0, 1.0], [1.0, 0.0]]), "probability")
        >>> find_weights([good, bad])
        array([0.63, 0.37])
    """
    train = align(train, names=_names("training scores of source", len(train)))
    truth = train[0].truth
    unlabelled = [train[0].videos[i] for i in np.flatnonzero(~truth.any(axis=1))]
    if unlabelled:
        raise Pseudo3dError(f"{len(unlabelled)} training videos have no label ({first_few(unlabelled)})")
    values = _comparable(train, train)
    equal = equal_weights(len(train))

    def merit(weights: np.ndarray) -> tuple[int, float]:
        guesses = np.tensordot(weights.astype(np.float32), values, 1).argmax(axis=1)
        hits = int(truth[np.arange(len(truth)), guesses].sum())
        return hits, -round(float(((weights - equal) ** 2).sum()), 12)

    best = max(_starts(len(train)), key=merit)
    for step in _FINER:
        while merit(moved := max(_moves(best, step), key=merit, default=best)) > merit(best):
            best = moved
    return best


def fuse(
    test: Sequence[Scores], weights: Sequence[float] | np.ndarray | None = None, *, train: Sequence[Scores] = ()
) -> Scores:
    """The weighted mean of several sources' scores.

    Args:
        test: scores of the same videos by each source.
        weights: of the sources, at least 0; they are divided by their sum. None: equal ones.
        train: the training side's scores, in the order of ``test``, which say what is a large and what a small
            decision value of each source. Without them the scores of ``test`` themselves do (their labels are never
            looked at; ``fusion_footnotes`` tells of it). Probabilities alone need neither.

    Returns:
        Probabilities when all sources give them, else decision values; videos and classes in the first one's order.

    Raises:
        Pseudo3dError: no source, other videos, classes or labels in one than in another, weights that do not fit,
            a training side of other sources or classes or with test videos in it, a source whose scores are all equal
            beside one of decision values.

    Example:
        >>> videos, names, truth = ("a",), ("x", "y"), np.array([[True, False]])
        >>> frames = Scores(videos, names, truth, np.array([[0.5, 0.5]]), "probability")
        >>> flow = Scores(videos, names, truth, np.array([[0.75, 0.25]]), "probability")
        >>> fuse([frames, flow]).values, fuse([frames, flow], [0, 1]).values
        (array([[0.625, 0.375]], dtype=float32), array([[0.75, 0.25]], dtype=float32))
    """
    test = align(test, names=_names("source", len(test)))
    shares = _checked_weights(equal_weights(len(test)) if weights is None else np.asarray(weights, float), len(test))
    if train:
        train = align(train, names=_names("training scores of source", len(train)))
        _check_sides(test, train)
    values = np.tensordot(shares.astype(np.float32), _comparable(test, train or test), 1)
    kind: Kind = "decision" if _decisions(test) else "probability"
    return Scores(test[0].videos, test[0].class_names, test[0].truth, values, kind)


def fusion_footnotes(test: Sequence[Scores], train: Sequence[Scores] = ()) -> tuple[str, ...]:
    """What a table must say below a fused row: nothing when weights and scales come from the training side.

    Example:
        >>> one = Scores(("a",), ("x", "y"), np.array([[True, False]]), np.array([[0.75, 0.25]]), "probability")
        >>> fusion_footnotes([one, one])
        ('sources are weighted equally: there are no scores of the training videos to find weights on',)
    """
    if train:
        return ()
    told = "sources are weighted equally: there are no scores of the training videos to find weights on"
    return (told, *scale_footnotes(test, train))


def scale_footnotes(test: Sequence[Scores], train: Sequence[Scores] = ()) -> tuple[str, ...]:
    """What a table must say when ``fuse`` had only the test side to say what is a large decision value.

    Example:
        >>> svm = Scores(("a",), ("x", "y"), np.array([[True, False]]), np.array([[3, -1]]), "decision")
        >>> scale_footnotes([svm])[0][:15], scale_footnotes([svm], [svm])
        ('decision values', ())
    """
    if train or not _decisions(test):
        return ()
    return (
        "decision values are brought to mean 0 and deviation 1 by the test videos' scores (not their labels), for "
        "lack of training scores",
    )


def equal_weights(sources: int) -> Float64[np.ndarray, "sources"]:
    """1 / sources for each."""
    return np.full(sources, 1 / sources)


def _names(what: str, count: int) -> list[str]:
    return [f"{what} {number}" for number in range(1, count + 1)]


def _decisions(scores: Sequence[Scores]) -> bool:
    return any(each.kind == "decision" for each in scores)


def _comparable(scores: Sequence[Scores], reference: Sequence[Scores]) -> Float32[np.ndarray, "sources videos classes"]:
    """Scores that may be averaged; the reference says what is usual for each source."""
    if not _decisions(scores):
        return np.stack([each.values for each in scores])
    pieces = []
    for number, (each, usual) in enumerate(zip(scores, reference, strict=True), start=1):
        mean, deviation = usual.values.mean(dtype=np.float64), usual.values.std(dtype=np.float64)
        if deviation <= 1e-7 * abs(mean):
            raise Pseudo3dError(f"all scores of source {number} are equal: it tells nothing; leave it out")
        pieces.append(((each.values - mean) / deviation).astype(np.float32))
    return np.stack(pieces)


def _checked_weights(weights: np.ndarray, sources: int) -> Float64[np.ndarray, "sources"]:
    if weights.shape != (sources,):
        raise Pseudo3dError(f"{sources} sources need as many weights, got {weights.size}")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise Pseudo3dError(f"weights must be at least 0 and not all 0, got {', '.join(f'{w:g}' for w in weights)}")
    return weights / weights.sum()


def _check_sides(test: Sequence[Scores], train: Sequence[Scores]) -> None:
    """The training side must be of the same sources and of other videos."""
    if len(train) != len(test):
        raise Pseudo3dError(f"{len(test)} sources, but training scores of {len(train)}; give those of each, or none")
    if train[0].class_names != test[0].class_names:
        other = sorted(set(train[0].class_names) ^ set(test[0].class_names))
        told = f"differ in {first_few(other)}" if other else "have them in another order"
        raise Pseudo3dError(f"training and test scores are not of the same classes: they {told}")
    for number, (each, usual) in enumerate(zip(test, train, strict=True), start=1):
        if each.kind != usual.kind:
            kinds = f"{usual.kind} in training and {each.kind} in the test"
            raise Pseudo3dError(f"the scores of source {number} are of kind {kinds}; give both of one kind")
    both = sorted(set(test[0].videos) & set(train[0].videos))
    if both:
        raise Pseudo3dError(
            f"{len(both)} test videos are in the training scores ({first_few(both)}); weights must not be found on them"
        )


def _starts(sources: int) -> Iterable[Float64[np.ndarray, "sources"]]:
    """Where the search begins."""
    yield equal_weights(sources)
    if sources > _ON_GRID:
        yield from np.eye(sources)
        return
    for bars in itertools.combinations(range(_GRID + sources - 1), sources - 1):
        edges = np.array([-1, *bars, _GRID + sources - 1])
        yield (np.diff(edges) - 1) / _GRID


def _moves(weights: np.ndarray, step: float) -> Iterable[Float64[np.ndarray, "sources"]]:
    """The same weights with a step of one source's given to another, or what is left of it."""
    for giver, taker in itertools.permutations(range(len(weights)), 2):
        given = min(step, weights[giver])
        if given > 0:
            moved = weights.copy()
            moved[giver] -= given
            moved[taker] += given
            yield moved.round(12)
