import warnings
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import LinearSVC

from pseudo3d import Pseudo3dError
from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.evaluation import svm
from pseudo3d.evaluation.svm import evaluate_features


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
    np.testing.assert_allclose(result.scores if len(classes) > 2 else result.scores[:, 1], decision, rtol=1e-6)
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
    features = np.arange(len(videos), dtype=float)[:, None] + 1  # says which video it is
    seen = []

    def decide(x_train, y_train, x_test, num_classes, c, seed):
        train, test = x_train[:, 0].astype(int) - 1, x_test[:, 0].astype(int) - 1
        assert not {own[i] for i in train} & {own[i] for i in test}
        assert {labels[i] for i in train} == set(labels)
        assert len(test)
        seen.extend(test.tolist())
        return np.zeros((len(test), num_classes))

    with mock.patch.object(svm, "_decide", decide), warnings.catch_warnings():
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
