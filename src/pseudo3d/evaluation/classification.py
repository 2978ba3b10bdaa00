"""Classification protocols: what a test set's scores are and what is counted of them (paper sections 3.3, 4, 5).

Two ways to a class: the network's own probabilities, averaged over a video's clips, or a linear SVM on a layer's
activations, L2-normalised. Both end in ``Scores``, of which each protocol counts what its table reports.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from pseudo3d.data.annotations import Sample
from pseudo3d.errors import Pseudo3dError, first_few, printable
from pseudo3d.evaluation.honesty import check_class_order
from pseudo3d.evaluation.metrics import classes_without_positives, hit_at_k, hits_of, mean_average_precision
from pseudo3d.evaluation.results import Measurement
from pseudo3d.evaluation.scores import Scores
from pseudo3d.evaluation.svm import l2_normalised, out_of_fold_scores, svm_scores
from pseudo3d.evaluation.svm_solver import Constant, chosen_footnote

Measure = Callable[[Scores], dict[str, float]]


@dataclass(frozen=True, eq=False)
class SplitScores:
    """What was said of one split's videos.

    Args:
        test: scores of the test side.
        train: of the training side, each video's by a classifier that did not see it; None unless asked for.
        values: metric to value, each 0..1.
        chosen: the constant of the SVM, where cross-validation chose it.
        chosen_in_folds: those of the SVMs that scored the training side.
    """

    test: Scores
    values: Mapping[str, float]
    train: Scores | None = None
    chosen: float | None = None
    chosen_in_folds: tuple[float, ...] = ()


def truth_of(samples: Iterable[Sample], class_names: Sequence[str]) -> Bool[np.ndarray, "videos classes"]:
    """Which of the classes each video shows.

    Raises:
        Pseudo3dError: a video without a label, or with one that is no class of the list.

    Example:
        >>> truth_of([Sample("a.mp4", "run"), Sample("b.mp4", "walk", more_labels=("run",))], ("run", "walk")).tolist()
        [[True, False], [True, True]]
    """
    samples, place = list(samples), {name: i for i, name in enumerate(class_names)}
    truth = np.zeros((len(samples), len(class_names)), bool)
    for row, sample in zip(truth, samples, strict=True):
        if not sample.labels:
            raise Pseudo3dError(f"{printable(sample.path)}: has no label; every video that is scored needs one")
        for label in sample.labels:
            if label not in place:
                raise Pseudo3dError(
                    f"{printable(sample.path)}: its label {printable(label)!r} is none of the {len(place)} classes "
                    f"({first_few(class_names)}); correct the list, or the class names of the network"
                )
            row[place[label]] = True
    return truth


def accuracy(scores: Scores) -> dict[str, float]:
    """The share of videos whose highest score is their class (Tables 1 and 3)."""
    return {"accuracy": hit_at_k(scores.values, scores.truth)}


def video_hits(scores: Scores) -> dict[str, float]:
    """Video hit@1, and from six classes on hit@5; a video with several classes needs one of them (Table 2)."""
    values = {"video hit@1": hit_at_k(scores.values, scores.truth)}
    if len(scores.class_names) > 5:
        values["video hit@5"] = hit_at_k(scores.values, scores.truth, k=5)
    return values


def activitynet_values(scores: Scores) -> dict[str, float]:
    """Top-1, top-3 and mean average precision, interpolated as in ActivityNet's evaluator (Table 4).

    Classes without a test video are left out of the mean.
    """
    return {
        "top-1": hit_at_k(scores.values, scores.truth),
        "top-3": hit_at_k(scores.values, scores.truth, k=3),
        "mAP": mean_average_precision(scores.values, scores.truth, interpolated=True),
    }


def clip_hit_at_1(clips: Iterable[tuple[Float[np.ndarray, "clips classes"], Bool[np.ndarray, "classes"]]]) -> float:
    """The share of all clips whose likeliest class is one of their video's.

    Args:
        clips: of each video, its clips' scores and its classes; read once, one video in memory.

    Raises:
        Pseudo3dError: no clip at all.

    Example:
        >>> clip_hit_at_1([(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([True, False]))])
        0.5
    """
    hits = total = 0
    for values, truth in clips:
        hits += int(hits_of(values, np.repeat(truth[None], len(values), axis=0)).sum())
        total += len(values)
    if total == 0:
        raise Pseudo3dError("there is no clip to score")
    return hits / total


def lacking_footnote(run: SplitScores) -> tuple[str, ...]:
    """What a table says of classes that a mean over classes (mAP) leaves out for lack of a test video."""
    lacking = classes_without_positives(run.test.truth) if "mAP" in run.values else 0
    if not lacking:
        return ()
    return (f"{lacking} of {len(run.test.class_names)} classes have no test video and are not in the mAP",)


def constant_footnote(run: SplitScores) -> tuple[str, ...]:
    """What a table says of the SVM's constant, where cross-validation chose it."""
    return chosen_footnote([] if run.chosen is None else [run.chosen], "videos")


def svm_split(
    samples: Sequence[Sample],
    features: Float[np.ndarray, "videos dim"],
    class_names: Sequence[str],
    *,
    measure: Measure = accuracy,
    tested: str = "test",
    c: Constant = 1.0,
    train_scores: bool = False,
    seed: int = 0,
) -> SplitScores:
    """A linear SVM on L2-normalised features, trained on one side and tested on the other.

    One class against the rest, so that a video with several labels is a positive example of each of them.

    Args:
        samples: the videos, each with a label; those of the split "train" train, those of ``tested`` are tested, others
            are not looked at.
        features: a row for each, as they come from the network.
        class_names: in the order that the scores get.
        measure: what is counted of the test side.
        tested: "test" or "val".
        c: the SVM's constant, or "cv": chosen on the training videos alone, groups kept together.
        train_scores: score each training video, too, by an SVM trained without its fold: for fusion weights.
        seed: of the folds of "cv" and of the training scores.

    Raises:
        Pseudo3dError: an empty side, a class without a training video, a label that is no class.

    Example:
        >>> kinds = [("left", "train"), ("right", "train"), ("left", "test"), ("right", "test")] * 3
        >>> samples = [Sample(f"{i}.mp4", label, split) for i, (label, split) in enumerate(kinds)]
        >>> features = np.array([[3.0, 1.0] if label == "left" else [1.0, 3.0] for label, _ in kinds])
        >>> svm_split(samples, features, ("left", "right")).values
        {'accuracy': 1.0}
    """
    train, test = _sides(samples, tested)
    truth = truth_of(samples, class_names)
    lacking = [class_names[int(i)] for i in np.flatnonzero(truth[train].sum(axis=0) == 0)]
    if lacking:
        raise Pseudo3dError(
            f"{len(lacking)} classes have no training video with features ({first_few(lacking)}); an SVM needs some of "
            "every class"
        )
    _check_sources(samples, train, truth, class_names, (c == "cv") + train_scores)
    x, groups, y = l2_normalised(features), _groups(samples, train), truth[train]
    if (y.sum(axis=1) == 1).all():
        y = y.argmax(axis=1)
    n = len(class_names)
    used, used_in_folds = list[float](), list[float]()
    values = svm_scores(x[train], y, x[test], n, c=c, groups=groups, seed=seed, on_constant=used.append)
    scores = _scores(samples, test, class_names, truth, values)
    run = SplitScores(scores, measure(scores), chosen=used[0] if c == "cv" else None)
    if not train_scores:
        return run
    values = out_of_fold_scores(x[train], y, n, c=c, groups=groups, seed=seed, on_constant=used_in_folds.append)
    held_out = _scores(samples, train, class_names, truth, values)
    return replace(run, train=held_out, chosen_in_folds=tuple(used_in_folds) if c == "cv" else ())


def _sides(samples: Sequence[Sample], tested: str) -> tuple[np.ndarray, np.ndarray]:
    """Places of the training and of the tested videos; a Pseudo3dError where there are none."""
    sides = np.array([sample.split or "" for sample in samples])
    train, test = np.flatnonzero(sides == "train"), np.flatnonzero(sides == tested)
    for name, side in (("train", train), (tested, test)):
        if len(side) == 0:
            raise Pseudo3dError(f"no video with features is in the split {name!r}; both sides are needed")
    return train, test


def _check_sources(
    samples: Sequence[Sample], train: np.ndarray, truth: np.ndarray, class_names: Sequence[str], folds: int
) -> None:
    """Raise where a class has too few training sources for ``folds`` cross-validations, one within another."""
    groups = _groups(samples, train) or list(map(str, train))
    first = truth[train].argmax(axis=1)  # folds are stratified by it
    sources = {k: {groups[row] for row in np.flatnonzero(first == k)} for k in sorted(set(first.tolist()))}
    few = [f"{printable(class_names[k])}: {len(found)}" for k, found in sources.items() if len(found) <= folds]
    if few:
        raise Pseudo3dError(
            f"{len(few)} classes have too few sources of training videos ({first_few(few)}) for the cross-validation "
            f"of --c cv or --train-scores, which needs {folds + 1} here; add videos, or leave the option out"
        )


def _groups(samples: Sequence[Sample], places: np.ndarray) -> list[str] | None:
    """What must stay together in folds; None when no video has a group."""
    if not any(samples[i].group for i in places):
        return None
    return [samples[i].group or f"video {samples[i].path}" for i in places]


def _scores(
    samples: Sequence[Sample],
    places: np.ndarray,
    class_names: Sequence[str],
    truth: Bool[np.ndarray, "videos classes"],
    values: Float[np.ndarray, "places classes"],
) -> Scores:
    videos = tuple(samples[i].path for i in places)
    return Scores(videos, tuple(class_names), truth[places], values.astype(np.float32), "decision")


def measurements_of(splits: Mapping[str, Mapping[str, float]]) -> tuple[Measurement, ...]:
    """The values of each split, and where there are several their mean.

    Args:
        splits: name of the split ("1") to metric to value; one split alone has no name in the result.

    Example:
        >>> found = measurements_of({"1": {"accuracy": 0.75}, "2": {"accuracy": 0.5}})
        >>> [(each.split, each.value) for each in found]
        [('1', 0.75), ('2', 0.5), ('mean', 0.625)]
    """
    if len(splits) == 1:
        ((name, values),) = splits.items()
        return tuple(Measurement(metric, value, name) for metric, value in values.items())
    found = [Measurement(metric, value, name) for name, values in splits.items() for metric, value in values.items()]
    for metric in next(iter(splits.values())):
        of_all = [each[metric] for each in splits.values() if metric in each]
        if len(of_all) == len(splits):
            found.append(Measurement(metric, sum(of_all) / len(of_all), "mean"))
    return tuple(found)


def class_columns(network: Sequence[str], data: Sequence[str], outputs: int) -> tuple[list[int], tuple[str, ...]]:
    """Which of a network's outputs is each class of the data, by name; and what is to be said of it.

    Args:
        network: the network's class names in order; empty when its weights carry none.
        data: those of the data, in the official order.
        outputs: how many the network has.

    Raises:
        Pseudo3dError: other classes, or another number of them.

    Example:
        >>> class_columns(("run", "jump"), ("jump", "run"), 2)[0], class_columns((), ("jump", "run"), 2)[0]
        ([1, 0], [0, 1])
    """
    if outputs != len(data):
        raise Pseudo3dError(f"the network has {outputs} classes, the data {len(data)}: it was trained on other data")
    if not network or set(network) != set(data):
        return list(range(outputs)), check_class_order(network, data)
    if tuple(network) == tuple(data):
        return list(range(outputs)), ()
    place = {name: i for i, name in enumerate(network)}
    return [place[name] for name in data], (
        "the network has the classes in another order than the official one; they were matched by name",
    )
