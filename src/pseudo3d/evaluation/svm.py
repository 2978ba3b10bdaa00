"""A linear SVM on video representations: the paper's way to judge them (section 5)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from pseudo3d.data.annotations import class_names_of
from pseudo3d.errors import Pseudo3dError
from pseudo3d.evaluation.metrics import hit_at_k
from pseudo3d.evaluation.svm_solver import (
    BY_GROUP,
    SVM_C,
    Constant,
    Groups,
    Labels,
    OnConstant,
    Side,
    checked,
    columns_of,
    constant_for,
    solve,
    stratified_folds,
    turned_to_span,
    widened,
)


def l2_normalised(x: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """Each row divided by its length; a row of zeros stays one.

    Example:
        >>> l2_normalised(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    wide = x.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(length == 0, 1, length)


def signed_sqrt(x: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """The square root of each number's magnitude, with its sign.

    Example:
        >>> signed_sqrt(np.array([[4.0, -9.0, 0.0]])).tolist()
        [[2.0, -3.0, 0.0]]
    """
    wide = x.astype(np.float64)
    return np.sign(wide) * np.sqrt(np.abs(wide))


def svm_scores(
    train: Float[np.ndarray, "n d"],
    y: Labels,
    test: Float[np.ndarray, "m d"],
    num_classes: int,
    *,
    c: Constant = SVM_C,
    groups: Groups = None,
    seed: int = 0,
    jobs: int | None = None,
    on_constant: OnConstant = lambda c: None,
) -> Float64[np.ndarray, "m classes"]:
    """Decision values of test rows by an SVM trained on others. Nothing is normalised here.

    Args:
        train: features.
        y: class indices; or which classes each row shows, where it may show several.
        test: features.
        num_classes: columns of the result. With class indices and two classes there is one problem, and the first
            column is the second with its sign turned.
        c: the SVM's constant; "cv": ``choose_c`` chooses it on the training rows.
        groups: of the training rows, for "cv": what comes from one source stays together.
        seed: of the folds of "cv"; the SVM itself has no use for chance.
        jobs: problems solved at a time; None for one a core. The result does not depend on it. Each takes 16 bytes
            for each feature of a training row.
        on_constant: told the SVM's constant, which "cv" chose.

    Raises:
        Pseudo3dError: a class without a training row or in all of them, features that are not finite, a constant that
            is not above 0.

    Example:
        >>> x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> svm_scores(x, np.array([0, 0, 1, 1]), np.array([[1.0, 0.2]]), 2).round(3)
        array([[ 0.673, -0.673]])
    """
    x, other = turned_to_span(checked(train), checked(test))
    shown = columns_of(y, num_classes)
    count = len(train)
    constant = constant_for(c, x, shown, np.arange(count), groups, seed, jobs)
    on_constant(constant)
    side = Side(slice(0, count), slice(count, None), constant)
    (scores,) = solve(np.concatenate([x, other]), shown, [side], jobs)
    return widened(scores, num_classes)


def out_of_fold_scores(
    x: Float[np.ndarray, "n d"],
    y: Labels,
    num_classes: int,
    *,
    c: Constant = SVM_C,
    groups: Groups = None,
    folds: int = 5,
    seed: int = 0,
    jobs: int | None = None,
    on_constant: OnConstant = lambda c: None,
) -> Float64[np.ndarray, "n classes"]:
    """Decision values of each row by an SVM trained without the fold that it is in (stratified, groups together).

    With c="cv" the constant of each fold is chosen on the rows outside it.

    Args:
        x: features; nothing is normalised here.
        y: as for ``svm_scores``.
        num_classes: as for ``svm_scores``.
        c: as for ``svm_scores``.
        groups: of the rows.
        folds: at most; fewer where a class has fewer groups.
        seed: of the folds.
        jobs: as for ``svm_scores``.
        on_constant: told that of each fold.

    Raises:
        Pseudo3dError: as ``svm_scores``, or a class has rows of one group only.

    Example:
        >>> x = np.array([[1.0, 0.0], [0.0, 1.0]] * 6)
        >>> out_of_fold_scores(x, np.array([0, 1] * 6), 2).argmax(axis=1).tolist()
        [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    """
    (turned,), shown = turned_to_span(checked(x)), columns_of(y, num_classes)
    sides = []
    for train, test in stratified_folds(shown, groups, folds, seed)[0]:
        sides.append(Side(train, test, constant_for(c, turned, shown, train, groups, seed, jobs)))
        on_constant(sides[-1].c)
    scores = np.empty(shown.shape)
    for side, values in zip(sides, solve(turned, shown, sides, jobs), strict=True):
        scores[side.test] = values
    return widened(scores, num_classes)


def leave_one_out_scores(
    x: Float[np.ndarray, "n d"],
    y: Labels,
    num_classes: int,
    *,
    c: Constant = SVM_C,
    seed: int = 0,
    jobs: int | None = None,
    on_constant: OnConstant = lambda c: None,
) -> Float64[np.ndarray, "n classes"]:
    """Decision values of each row by an SVM trained on all others (YUPENN and Dynamic Scene, paper section 5).

    With c="cv" the constant of each of the n models is chosen on its own n - 1 rows: 13 SVMs instead of one.

    Args:
        x: features; nothing is normalised here.
        y: as for ``svm_scores``.
        num_classes: as for ``svm_scores``.
        c: as for ``svm_scores``.
        seed: of the folds of "cv".
        jobs: as for ``svm_scores``.
        on_constant: told that of each row.

    Raises:
        Pseudo3dError: as ``svm_scores``; a class with one row has none to be trained on when that is left out.

    Example:
        >>> x = np.array([[1.0, 0.0], [0.0, 1.0]] * 3)
        >>> leave_one_out_scores(x, np.array([0, 1] * 3), 2).argmax(axis=1).tolist()
        [0, 1, 0, 1, 0, 1]
    """
    (turned,), shown = turned_to_span(checked(x)), columns_of(y, num_classes)
    rows, sides = np.arange(len(x)), []
    for row in rows:
        train = np.delete(rows, row)
        sides.append(Side(train, slice(row, row + 1), constant_for(c, turned, shown, train, None, seed, jobs)))
        on_constant(sides[-1].c)
    return widened(np.concatenate(solve(turned, shown, sides, jobs)), num_classes)


def choose_c(
    x: Float[np.ndarray, "n d"],
    y: Labels,
    num_classes: int,
    *,
    groups: Groups = None,
    seed: int = 0,
    jobs: int | None = None,
) -> float:
    """The constant of ``C_GRID`` with the most rows classified right in a 3-fold cross-validation.

    Args:
        x: features of training rows alone.
        y: as for ``svm_scores``.
        num_classes: as for ``svm_scores``.
        groups: of the rows; each stays in one fold.
        seed: of the folds.
        jobs: as for ``svm_scores``.

    Raises:
        Pseudo3dError: as ``out_of_fold_scores``.

    Example:
        >>> choose_c(np.array([[1.0, 0.0], [0.0, 1.0]] * 6), np.array([0, 1] * 6), 2)
        0.1
    """
    (turned,), shown = turned_to_span(checked(x)), columns_of(y, num_classes)
    return constant_for("cv", turned, shown, np.arange(len(x)), groups, seed, jobs)


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
    c: Constant = SVM_C,
    seed: int = 0,
    jobs: int | None = None,
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
        c: the SVM's constant; "cv": chosen on the training videos of each side (``choose_c``).
        seed: of the folds.
        jobs: as for ``svm_scores``.

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
    task = take_apart(features, labels, videos, splits, groups, folds, seed)
    names, y = task.class_names, task.labels
    x = l2_normalised(features)
    scores = np.full((len(y), len(names)), np.nan)
    for train, test in task.sides:
        theirs = [task.groups[i] for i in train]
        scores[test] = svm_scores(x[train], y[train], x[test], len(names), c=c, groups=theirs, seed=seed, jobs=jobs)
    return SvmResult(tuple(videos[i] for i in task.tested), names, y[task.tested], scores[task.tested], task.protocol)


@dataclass(frozen=True, eq=False)
class Task:
    """Labelled videos, and which of them are trained on and tested on.

    Args:
        class_names: in index order.
        labels: (videos,), class indices.
        groups: of each video; one of its own where it has none.
        sides: rows of the training and of the test videos, of each SVM.
        protocol: how they were kept apart, in words.
    """

    class_names: tuple[str, ...]
    labels: Int64[np.ndarray, "videos"]
    groups: tuple[str, ...]
    sides: tuple[tuple[np.ndarray, np.ndarray], ...]
    protocol: str

    @property
    def tested(self) -> np.ndarray:
        """Rows of all tested videos, in order."""
        return np.sort(np.concatenate([test for _, test in self.sides]))


def take_apart(
    features: Float[np.ndarray, "videos dim"],
    labels: list[str | None],
    videos: list[str],
    splits: list[str | None] | None,
    groups: list[str | None] | None,
    folds: int,
    seed: int,
) -> Task:
    """Training and test videos by the data's own splits, else by folds; arguments and errors of ``evaluate_features``.

    Example:
        >>> task = take_apart(np.eye(4), ["a", "a", "b", "b"], list("wxyz"), ["train", "test"] * 2, None, 5, 0)
        >>> task.protocol, [(train.tolist(), test.tolist()) for train, test in task.sides]
        ("the data's own splits", [([0, 2], [1, 3])])
    """
    groups = groups if groups is not None else [None] * len(labels)
    own = tuple(group or f"video {video}" for group, video in zip(groups, videos, strict=True))
    _check(features, labels, videos)
    names = class_names_of(labels)
    y = np.array([names.index(str(label)) for label in labels], np.int64)
    if splits is not None and any(splits):
        sides, protocol = [_split_sides(splits, videos, groups)], "the data's own splits"
    else:
        sides, protocol = stratified_folds(y[:, None] == np.arange(len(names)), own, folds, seed, names)
        protocol += ", each group in one fold" if any(groups) and protocol != BY_GROUP else ""
    for train, _ in sides:
        _check_classes(names, y[train])
    return Task(names, y, own, tuple(sides), protocol)


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
