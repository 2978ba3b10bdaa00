"""Leave one video out, beside scikit-learn's own LeaveOneOut over a pipeline made by hand."""

import numpy as np
import pytest
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer
from sklearn.svm import LinearSVC

from pseudo3d import Pseudo3dError
from pseudo3d.evaluation.scenes import evaluate_scenes
from pseudo3d.evaluation.svm import choose_c, l2_normalised


def scenes(dim, classes=4, each=6, seed=0):
    """Features of few videos of each class, some below zero, and their labels in no order."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(classes), each))
    middles = rng.gamma(1.0, size=dim) + rng.gamma(1.0, size=(classes, dim)) - 0.5
    features = middles[y] + rng.normal(size=(len(y), dim))
    return features.astype(np.float32), [f"scene {k}" for k in y]


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("dim", [12, 80])
@pytest.mark.parametrize("classes", [2, 4])
def test_leave_one_out_of_scikit_learn(plain, dim, classes):
    features, labels = scenes(dim, classes)
    before = [] if plain else [FunctionTransformer(lambda x: np.sqrt(np.abs(x)) * np.sign(x))]
    svm = LinearSVC(C=1.0, tol=1e-9, max_iter=1_000_000, random_state=0)
    pipeline = make_pipeline(*before, Normalizer(), svm)
    expected = cross_val_predict(
        pipeline, features.astype(np.float64), labels, cv=LeaveOneOut(), method="decision_function"
    )
    if classes == 2:
        expected = np.stack([-expected, expected], axis=1)
    got = evaluate_scenes(features, labels, plain=plain)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    indices = np.array([int(label.split()[1]) for label in labels])
    assert np.array_equal(evaluate_scenes(features, indices, plain=plain, jobs=1), got)


def test_the_constant_of_each_left_out_video_is_told():
    features, labels = scenes(12, classes=2)
    told = []
    evaluate_scenes(features, labels, plain=True, c="cv", seed=1, on_constant=told.append)
    x, y = l2_normalised(features), np.array([int(label.split()[1]) for label in labels])
    others = [np.delete(np.arange(len(y)), row) for row in range(len(y))]
    assert told == [choose_c(x[rows], y[rows], 2, seed=1) for rows in others]


def test_the_two_ways_differ():
    features, labels = scenes(30)
    assert not np.allclose(*(evaluate_scenes(features, labels, plain=plain) for plain in (True, False)), atol=0.01)


def test_the_length_of_a_feature_has_no_say():
    features, labels = scenes(30)
    longer = features * np.random.default_rng(1).uniform(0.1, 10, (len(labels), 1)).astype(np.float32)
    for plain in (True, False):
        np.testing.assert_allclose(
            evaluate_scenes(longer, labels, plain=plain), evaluate_scenes(features, labels, plain=plain), atol=1e-5
        )


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["beach"] * 4, "need at least two classes to tell apart, got 1"),
        (["beach", "beach", "beach", "river"], r"class river has 1 videos \(1 such classes\): when one is left out"),
        (np.array([0, 0, 2, 2]), r"class 1 has 0 videos"),
    ],
)
def test_errors(labels, words):
    with pytest.raises(Pseudo3dError, match=words):
        evaluate_scenes(np.eye(4), labels, plain=True)
