import warnings
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.svm import LinearSVC

from pseudo3d import Pseudo3dError
from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.evaluation import svm
from pseudo3d.evaluation.svm import (
    choose_c,
    evaluate_features,
    l2_normalised,
    leave_one_out_scores,
    out_of_fold_scores,
    signed_sqrt,
    svm_scores,
)
from pseudo3d.evaluation.svm_solver import C_GRID


def blobs(labels, dim=6, spread=1.0, seed=0):
    """Features around one unit vector for each class."""
    rng = np.random.default_rng(seed)
    names = sorted(set(labels))
    centres = 4 * np.eye(dim)[: len(names)]
    return np.stack([centres[names.index(label)] for label in labels]) + rng.normal(0, spread, (len(labels), dim))


def unit(x):
    return x / np.sqrt((x**2).sum(axis=1, keepdims=True))


def test_separable_classes_are_told_apart():
    labels = ["c", "a", "b"] * 6
    result = evaluate_features(blobs(labels, spread=0.2), labels, videos=[f"v{i}" for i in range(18)])
    assert result.accuracy == 1.0
    assert result.class_names == ("a", "b", "c")
    assert result.labels.tolist() == [2, 0, 1] * 6
    assert result.videos == tuple(f"v{i}" for i in range(18))
    assert result.confusion().tolist() == [[6, 0, 0], [0, 6, 0], [0, 0, 6]]
    assert result.protocol == "5-fold cross-validation"


def test_classes_stand_in_the_order_that_training_gives_them():
    labels = ["10", "9", "100"] * 4
    result = evaluate_features(blobs(labels, spread=0.2), labels)
    samples = tuple(Sample(f"{i}.mp4", label) for i, label in enumerate(labels))
    assert result.class_names == SampleList(Path(), samples).class_names == ("9", "10", "100")
    assert result.labels.tolist() == [1, 0, 2] * 4
    assert result.accuracy == 1.0
    mixed = evaluate_features(blobs(["10", "9", "x"] * 4), ["10", "9", "x"] * 4)
    assert mixed.class_names == ("10", "9", "x")


def test_noise_is_chance():
    labels = ["a", "b"] * 100
    features = np.random.default_rng(0).normal(size=(200, 4))
    assert abs(evaluate_features(features, labels).accuracy - 0.5) < 0.12


def test_length_of_a_feature_does_not_matter():
    labels = ["a", "b", "c"] * 8
    features = blobs(labels)
    scale = np.random.default_rng(1).uniform(0.01, 100, (len(labels), 1))
    np.testing.assert_allclose(
        evaluate_features(features * scale, labels).scores, evaluate_features(features, labels).scores, atol=1e-6
    )


@pytest.mark.parametrize("classes", ["ab", "abcd"])
@pytest.mark.parametrize(
    ("splits", "train", "test"),
    [
        (("train", "test"), ("train",), "test"),
        (("train", "val"), ("train",), "val"),
        (("train", "val", "test"), ("train", "val"), "test"),
    ],
)
def test_known_splits_equal_scikit_learn_used_directly(classes, splits, train, test):
    rng = np.random.default_rng(0)
    labels = [str(label) for label in rng.permutation(list(classes) * 15)]
    features = blobs(labels, spread=2.0)
    sides = np.array([splits[i % len(splits)] for i in range(len(labels))])
    result = evaluate_features(features, labels, splits=sides.tolist(), c=0.5, seed=3)
    y = np.array([classes.index(label) for label in labels])
    x, on_train, on_test = unit(features), np.isin(sides, train), sides == test
    direct = LinearSVC(C=0.5, random_state=3, max_iter=20_000).fit(x[on_train], y[on_train])
    assert result.predicted.tolist() == direct.predict(x[on_test]).tolist()
    assert result.accuracy == pytest.approx(direct.score(x[on_test], y[on_test]))
    decision = direct.decision_function(x[on_test])
    np.testing.assert_allclose(result.scores if len(classes) > 2 else result.scores[:, 1], decision, atol=1e-3)
    assert result.labels.tolist() == y[on_test].tolist()
    assert result.videos == tuple(str(i) for i in np.flatnonzero(on_test))
    assert result.protocol == "the data's own splits"
    confusion = Counter(zip(y[on_test].tolist(), result.predicted.tolist(), strict=True))
    assert {(i, j): n for (i, j), n in np.ndenumerate(result.confusion()) if n} == dict(confusion)


@given(st.data(), st.integers(2, 4), st.integers(2, 7), st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_no_group_is_ever_on_both_sides(data, classes, groups, folds):
    """Whatever the groups: each video is tested once, by an SVM that knows all classes and none of its group."""
    videos = data.draw(
        st.lists(
            st.tuples(st.integers(0, classes - 1), st.one_of(st.none(), st.integers(0, groups - 1))),
            min_size=4,
            max_size=24,
        )
    )
    labels = [f"class {label}" for label, _ in videos]
    named = [None if group is None else f"group {group}" for _, group in videos]
    own = [f"alone {i}" if group is None else group for i, group in enumerate(named)]
    sources = {label: {g for g, other in zip(own, labels, strict=True) if other == label} for label in labels}
    angle = 0.01 * (np.arange(len(videos)) + 1)
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1)  # the second says which video it is
    seen = []

    def decide(x_train, y_train, x_test, num_classes, **more):
        train, test = (np.rint(np.arcsin(x[:, 1]) / 0.01).astype(int) - 1 for x in (x_train, x_test))
        assert more["groups"] == [own[i] if named[i] else f"video {i}" for i in train]
        assert not {own[i] for i in train} & {own[i] for i in test}
        assert {labels[i] for i in train} == set(labels)
        assert len(test)
        seen.extend(test.tolist())
        return np.zeros((len(test), num_classes))

    with mock.patch.object(svm, "svm_scores", decide), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn: the least populated class has fewer members than folds
        if len(sources) < 2:
            with pytest.raises(Pseudo3dError, match="at least two classes"):
                evaluate_features(features, labels, groups=named, folds=folds)
        elif min(map(len, sources.values())) < 2:
            with pytest.raises(Pseudo3dError, match="has videos of one source only"):
                evaluate_features(features, labels, groups=named, folds=folds)
        else:
            result = evaluate_features(features, labels, groups=named, folds=folds)
            assert sorted(seen) == list(range(len(videos)))
            assert len(result.videos) == len(videos)


def test_a_fold_that_would_swallow_a_class():
    """Two-class groups where stratified folds would train without a class; one group at a time never does."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        groups = [f"g{i}" for i in rng.integers(4, size=12)]
        labels = ["ab"[i] for i in rng.integers(2, size=12)]
        if min(len({g for g, other in zip(groups, labels, strict=True) if other == label}) for label in "ab") < 2:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = evaluate_features(blobs(labels), labels, groups=groups)
        if result.protocol == "leave one group out":
            return
    pytest.fail("no such case was drawn")


def test_folds_depend_on_the_seed_alone():
    labels = ["a", "b"] * 20
    features = blobs(labels, spread=4.0)
    first = evaluate_features(features, labels)
    assert np.array_equal(first.scores, evaluate_features(features, labels).scores)
    assert not np.array_equal(first.scores, evaluate_features(features, labels, seed=1).scores)


def test_groups_in_the_protocols_words():
    labels = ["a", "b"] * 6
    result = evaluate_features(blobs(labels), labels, groups=[f"g{i // 2}" for i in range(12)], folds=3)
    assert result.protocol == "3-fold cross-validation, each group in one fold"
    few = evaluate_features(blobs(labels[:6]), labels[:6])
    assert few.protocol == "3-fold cross-validation"  # three sources of each class


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": ["a", None, "b", None]}, r"2 videos have no label \(v1, v3\); extract from a folder per class"),
        ({"labels": ["a"] * 4}, r"need at least two classes to tell apart, got \['a'\]"),
        ({"features": np.array([[1.0], [np.nan], [1], [np.inf]])}, r"2 videos have NaN or infinite .*\(v1, v3\)"),
        ({"groups": ["g", "g", "h", "i"]}, "class a has videos of one source only: at least 2 are needed"),
        ({"splits": ["train", "train", "test", "train"]}, "class b has no training video"),
        ({"splits": ["train"] * 4}, "4 training and 0 test videos; both are needed"),
        ({"splits": ["test"] * 4}, "0 training and 4 test videos"),
        ({"splits": ["train", "test", "train", None]}, r"1 videos have no split while others have \(v3\)"),
        (
            {"splits": ["train", "test", "train", "test"], "groups": ["g", "g", None, None]},
            r"1 groups are on both sides of the split \(g\)",
        ),
    ],
)
def test_errors(change, words):
    arguments = {"features": np.eye(4), "labels": ["a", "a", "b", "b"], "videos": ["v0", "v1", "v2", "v3"], **change}
    if "class b has no" in words:
        arguments["labels"] = ["a", "a", "b", "a"]
    with pytest.raises(Pseudo3dError, match=words):
        evaluate_features(**arguments)


def pool5_like(rows, classes, dim=40, noise=0.6, seed=0):
    """Non-negative features with much in common, as pool5 has, and their classes."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(rows) % classes)
    middles = rng.gamma(1.0, size=dim) + 0.7 * rng.gamma(1.0, size=(classes, dim))
    return l2_normalised(np.maximum(middles[y] + noise * rng.normal(size=(rows, dim)), 0)), y


def exact(x, y, test, c=1.0):
    """One class against the rest by scikit-learn's own loop and its dual solver, to the last digits."""
    svm = LinearSVC(C=c, tol=1e-10, max_iter=1_000_000, dual=True, random_state=0).fit(x, y)
    decision = svm.decision_function(test)
    return np.stack([-decision, decision], axis=1) if decision.ndim == 1 else decision


@pytest.mark.parametrize("dim", [20, 90, 400])  # fewer features than rows, more than training rows, many more
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_scores_are_scikit_learns(classes, dim):
    x, y = pool5_like(120, classes, dim)
    got = svm_scores(x[:80], y[:80], x[80:], classes, c=2.0)
    expected = exact(x[:80], y[:80], x[80:], c=2.0)
    assert got.shape == (40, classes)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    assert got.argmax(axis=1).tolist() == expected.argmax(axis=1).tolist()


def test_the_solution_is_a_minimum():
    """The gradient of |w|^2 / 2 + b^2 / 2 + C sum max(0, 1 - s f(x))^2 is zero, b penalised as liblinear's."""
    x, y = pool5_like(30, 3, 60)
    f = svm_scores(x, y, x, 3, c=5.0)
    for k in range(3):
        sign = np.where(y == k, 1, -1)
        alpha = 2 * 5.0 * np.maximum(0, 1 - sign * f[:, k])
        np.testing.assert_allclose(x @ (x.T @ (alpha * sign)) + (alpha * sign).sum(), f[:, k], atol=1e-4)


def test_the_number_of_jobs_changes_no_bit():
    x, y = pool5_like(60, 4, 200)
    assert np.array_equal(svm_scores(x, y, x, 4, jobs=1), svm_scores(x, y, x, 4, jobs=3))
    assert np.array_equal(leave_one_out_scores(x, y, 4, jobs=1), leave_one_out_scores(x, y, 4, jobs=3))
    one, three = (out_of_fold_scores(x, y, 4, c="cv", jobs=jobs) for jobs in (1, 3))
    assert np.array_equal(one, three)


@pytest.mark.parametrize("dim", [10, 50, 200])
@pytest.mark.parametrize("classes", [2, 4])
def test_leave_one_out_is_the_loop_by_hand(classes, dim):
    x, y = pool5_like(50, classes, dim)
    got = leave_one_out_scores(x, y, classes)
    for row in range(50):
        others = np.arange(50) != row
        np.testing.assert_allclose(got[row], exact(x[others], y[others], x[row : row + 1])[0], atol=2e-5)


def test_a_row_may_show_several_classes():
    x, _ = pool5_like(80, 4, 30)
    truth = np.random.default_rng(1).random((80, 3)) < 0.4
    got = svm_scores(x[:50], truth[:50], x[50:], 3)
    for k in range(3):
        np.testing.assert_allclose(got[:, k], exact(x[:50], truth[:50, k], x[50:])[:, 1], atol=2e-5)
    folded = out_of_fold_scores(x[:50], truth[:50], 3, c="cv")
    assert folded.shape == (50, 3)


def test_out_of_fold_scores_are_of_svms_that_did_not_see_the_row():
    x, y = pool5_like(60, 3, 100)
    groups = np.arange(60) // 2
    got = out_of_fold_scores(x, y, 3, groups=groups, folds=4, seed=5)
    folds = StratifiedGroupKFold(4, shuffle=True, random_state=5).split(x, y, groups)
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        np.testing.assert_allclose(got[test], exact(x[train], y[train], x[test]), atol=2e-5)


@pytest.mark.parametrize("grouped", [False, True])
def test_the_constant_is_chosen_on_training_rows_by_cross_validation(grouped):
    x, y = pool5_like(90, 3, 60, noise=1.5)
    groups = np.arange(90) // 3 if grouped else None
    right = []
    for c in C_GRID:
        folds = StratifiedGroupKFold(3, shuffle=True, random_state=2).split(x, y, groups if grouped else np.arange(90))
        right.append(sum((exact(x[a], y[a], x[b], c).argmax(axis=1) == y[b]).sum() for a, b in folds))
    best = C_GRID[int(np.argmax(right))]  # the first of equals
    assert len(set(right)) > 1
    assert choose_c(x, y, 3, groups=groups, seed=2) == best
    test = pool5_like(40, 3, 60, seed=1)[0]
    told = []
    chosen = svm_scores(x, y, test, 3, c="cv", groups=groups, seed=2, on_constant=told.append)
    assert told == [best]
    np.testing.assert_allclose(chosen, svm_scores(x, y, test, 3, c=best), atol=1e-9)


def test_each_left_out_row_has_a_constant_of_its_own():
    x, y = pool5_like(24, 2, 30, noise=1.5)
    told = []
    got = leave_one_out_scores(x, y, 2, c="cv", seed=3, on_constant=told.append)
    assert len(set(told)) > 1
    for row in range(24):
        others = np.delete(np.arange(24), row)
        constant = choose_c(x[others], y[others], 2, seed=3)
        assert told[row] == constant
        np.testing.assert_allclose(got[row], exact(x[others], y[others], x[row : row + 1], constant)[0], atol=1e-4)


def test_the_constants_of_folds_are_told():
    x, y = pool5_like(60, 3, 40, noise=1.5)
    told = []
    got = out_of_fold_scores(x, y, 3, c="cv", folds=4, seed=5, on_constant=told.append)
    folds = list(StratifiedGroupKFold(4, shuffle=True, random_state=5).split(x, y, np.arange(60)))
    assert told == [choose_c(x[train], y[train], 3, seed=5) for train, _ in folds]
    for (train, test), constant in zip(folds, told, strict=True):
        np.testing.assert_allclose(got[test], exact(x[train], y[train], x[test], constant), atol=1e-3)


def test_normalisations():
    x = np.array([[3.0, -4.0], [0.0, 0.0], [-9.0, 16.0]])
    assert l2_normalised(x).tolist() == [[0.6, -0.8], [0, 0], [-9 / np.hypot(9, 16), 16 / np.hypot(9, 16)]]
    assert signed_sqrt(x).tolist() == [[np.sqrt(3), -2], [0, 0], [-3, 4]]
    assert l2_normalised(x.astype(np.float32)).dtype == signed_sqrt(x.astype(np.float32)).dtype == np.float64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": np.array([0, 0, 2, 2])}, "class 1 has no training video where an SVM is to be trained"),
        ({"y": np.array([1, 1, 1, 1]), "num_classes": 2}, "class 0 has no training video"),
        ({"y": np.ones((4, 3), bool)}, "every training video shows class 0: an SVM needs some that do not"),
        ({"train": np.array([[1.0], [np.nan], [2.0], [3.0]])}, r"1 videos have NaN or infinite features \(row 1\)"),
        ({"test": np.array([[np.inf]])}, r"1 videos have NaN or infinite features \(row 0\)"),
        ({"c": 0.0}, "constant must be a number above 0, or cv, got 0"),
        ({"c": "cv"}, "class 1 has videos of one source only"),
        ({"jobs": 0}, "jobs must be at least 1, got 0"),
    ],
)
def test_svm_errors(change, words):
    arguments = {
        "train": np.arange(4.0)[:, None], "y": np.array([0, 0, 1, 2]), "test": np.ones((2, 1)), "num_classes": 3,
    }  # fmt: skip
    arguments |= change
    more = {key: arguments.pop(key) for key in ("c", "jobs") if key in arguments}
    with pytest.raises(Pseudo3dError, match=words):
        svm_scores(*arguments.values(), **more)
