"""A linear SVM on video representations: the paper's way to judge them (section 5)."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from pseudo3d.data.annotations import class_names_of
from pseudo3d.errors import Pseudo3dError
from pseudo3d.evaluation.metrics import hit_at_k

SVM_C = 1.0  # the paper states no constant; this one is ours


@dataclass(frozen=True, eq=False)
class SvmResult:
    """What a linear SVM said of videos that it was not trained on.

    Args:
        videos: their paths.
        class_names: in index order, which is that of ``SampleList.class_names``.
        labels: (videos,), true class indices.
        scores: (videos, classes), decision values.
        protocol: how training and test videos were kept apart, in words.
    """

    videos: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: Int64[np.ndarray, "videos"]
    scores: Float[np.ndarray, "videos classes"]
    protocol: str

    @property
    def predicted(self) -> Int64[np.ndarray, "videos"]:
        """Index of the highest score."""
        return self.scores.argmax(axis=1)

    @property
    def accuracy(self) -> float:
        """Share of the videos classified right, 0..1."""
        return hit_at_k(self.scores, self.labels)

    def confusion(self) -> Int64[np.ndarray, "classes classes"]:
        """Counts by true class (rows) and predicted class (columns)."""
        from sklearn.metrics import confusion_matrix

        return confusion_matrix(self.labels, self.predicted, labels=range(len(self.class_names)))


def evaluate_features(
    features: Float[np.ndarray, "videos dim"],
    labels: list[str | None],
    *,
    videos: list[str] | None = None,
    splits: list[str | None] | None = None,
    groups: list[str | None] | None = None,
    folds: int = 5,
    c: float = SVM_C,
    seed: int = 0,
) -> SvmResult:
    """Train a linear SVM on L2-normalised features and test it on other videos.

    With splits, it is trained on "train" (and "val" when there is a "test") and tested on "test" (else "val").
    Without, every video is tested once by stratified cross-validation that keeps each group in one fold.

    Args:
        features: one row a video.
        labels: class names.
        videos: paths, for messages and the result.
        splits: "train", "val", "test" or None for each video.
        groups: the source of each video, or None for one of its own.
        folds: of the cross-validation.
        c: the SVM's constant.
        seed: of the SVM and the folds.

    Raises:
        Pseudo3dError: missing labels, one class only, a class with too few videos or groups, an empty side, features
            that are not finite, a group on both sides.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = ["left", "right"] * 10
        >>> features = rng.normal(size=(20, 8)) + np.array([[-4], [4]] * 10)
        >>> evaluate_features(features, labels).accuracy
        1.0
    """
    videos = videos if videos is not None else [str(i) for i in range(len(labels))]
    groups = groups if groups is not None else [None] * len(labels)
    _check(features, labels, videos)
    names = class_names_of(labels)
    y = np.array([names.index(str(label)) for label in labels], np.int64)
    if splits is not None and any(splits):
        sides, protocol = [_split_sides(splits, videos, groups)], "the data's own splits"
    else:
        sides, protocol = _folds(y, names, videos, groups, folds, seed)
    scores = np.full((len(y), len(names)), np.nan)
    for train, test in sides:
        _check_classes(names, y[train])
        scores[test] = _decide(features[train], y[train], features[test], len(names), c, seed)
    tested = np.concatenate([test for _, test in sides])
    tested.sort()
    return SvmResult(tuple(videos[i] for i in tested), names, y[tested], scores[tested], protocol)


def _decide(
    x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, num_classes: int, c: float, seed: int
) -> np.ndarray:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer
    from sklearn.svm import LinearSVC

    svm = make_pipeline(Normalizer(), LinearSVC(C=c, random_state=seed, max_iter=20_000))
    decision = svm.fit(x_train, y_train).decision_function(x_test)
    # two classes: scikit-learn gives one column, the score of the second
    return np.stack([-decision, decision], axis=1) if num_classes == 2 else decision


def _check(features: np.ndarray, labels: list[str | None], videos: list[str]) -> None:
    unlabelled = [video for video, label in zip(videos, labels, strict=True) if label is None]
    if unlabelled:
        raise Pseudo3dError(
            f"{len(unlabelled)} videos have no label ({', '.join(unlabelled[:3])}); "
            "extract from a folder per class, a `path label` list or a CSV"
        )
    if len(set(labels)) < 2:
        raise Pseudo3dError(f"need at least two classes to tell apart, got {sorted(set(map(str, labels)))}")
    bad = [videos[i] for i in np.flatnonzero(~np.isfinite(features).all(axis=1))]
    if bad:
        raise Pseudo3dError(
            f"{len(bad)} videos have NaN or infinite features ({', '.join(bad[:3])}); extract them again"
        )


def _check_classes(names: tuple[str, ...], y_train: np.ndarray) -> None:
    lacking = [name for i, name in enumerate(names) if i not in y_train]
    if lacking:
        raise Pseudo3dError(
            f"class {lacking[0]} has no training video ({len(lacking)} such classes): add videos of it from other "
            "sources, or leave the class out"
        )


def _split_sides(
    splits: list[str | None], videos: list[str], groups: list[str | None]
) -> tuple[np.ndarray, np.ndarray]:
    kinds = np.array([split or "" for split in splits])
    has_test = "test" in kinds
    test = np.flatnonzero(kinds == ("test" if has_test else "val"))
    train = np.flatnonzero(np.isin(kinds, ["train", "val"] if has_test else ["train"]))
    if len(train) == 0 or len(test) == 0:
        raise Pseudo3dError(f"the store has {len(train)} training and {len(test)} test videos; both are needed")
    if "" in kinds:
        missing = [videos[i] for i in np.flatnonzero(kinds == "")]
        raise Pseudo3dError(f"{len(missing)} videos have no split while others have ({', '.join(missing[:3])})")
    shared = {str(groups[i]) for i in train if groups[i]} & {str(groups[i]) for i in test if groups[i]}
    if shared:
        raise Pseudo3dError(f"{len(shared)} groups are on both sides of the split ({', '.join(sorted(shared)[:3])})")
    return train, test


def _folds(
    y: np.ndarray, names: tuple[str, ...], videos: list[str], groups: list[str | None], folds: int, seed: int
) -> tuple[list[tuple[np.ndarray, np.ndarray]], str]:
    from sklearn.model_selection import LeaveOneGroupOut, StratifiedGroupKFold

    own = np.array([group or f"video {video}" for group, video in zip(groups, videos, strict=True)])
    sources = Counter(label for label, _ in {(int(label), group) for label, group in zip(y, own, strict=True)})
    scarce, count = min(sources.items(), key=lambda item: item[1])
    if count < 2:
        raise Pseudo3dError(
            f"class {names[scarce]} has videos of one source only: at least 2 are needed, to train on one and test on "
            "the other"
        )
    folds = min(folds, count)
    sides = list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(own, y, own))
    if any(len(test) == 0 or len(np.unique(y[train])) < len(names) for train, test in sides):
        # few groups of several classes each: a fold swallowed all of a class
        return list(LeaveOneGroupOut().split(own, y, own)), "leave one group out"
    grouped = ", each group in one fold" if any(groups) else ""
    return sides, f"{folds}-fold cross-validation{grouped}"
