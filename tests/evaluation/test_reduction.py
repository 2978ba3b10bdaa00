import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.svm import LinearSVC

from pseudo3d import Pseudo3dError
from pseudo3d.evaluation import reduction
from pseudo3d.evaluation.reduction import accuracy_by_dimension, mean_reduction, principal_components
from pseudo3d.evaluation.svm import evaluate_features, l2_normalised, svm_scores

LABELS = ["a", "b", "c"] * 40
SPLITS = (["train"] * 3 + ["test"] * 3) * 20


def blobs(dim=30, spread=4.0, seed=0):
    """Classes that differ in a few of the larger directions."""
    rng = np.random.default_rng(seed)
    scale = np.linspace(3, 0.2, dim)
    centres = rng.normal(size=(3, dim)) * scale
    return (centres[np.arange(120) % 3] + spread * scale * rng.normal(size=(120, dim)) + 1).astype(np.float32)


@pytest.mark.parametrize("dim", [30, 400])  # fewer and more numbers than training videos
def test_components_are_those_of_scikit_learn(dim, monkeypatch):
    monkeypatch.setattr(reduction, "_BLOCK", 64)
    x, train = blobs(dim), np.arange(0, 120, 2)
    want = PCA(12, svd_solver="full").fit(x[train].astype(np.float64)).transform(x)
    got = principal_components(x, train, 12)
    np.testing.assert_allclose(np.abs(got), np.abs(want), rtol=1e-5, atol=1e-5)
    for component in range(12):
        assert abs(np.corrcoef(got[:, component], want[:, component])[0, 1]) > 1 - 1e-6


def test_components_where_nothing_varies_are_zero():
    x = np.zeros((12, 50), np.float32)
    x[:, 3] = np.arange(12)
    got = principal_components(x, np.arange(8), 5)
    np.testing.assert_allclose(np.abs(got[:, 0]), np.abs(np.arange(12) - 3.5), atol=1e-6)
    np.testing.assert_allclose(got[:, 1:], 0, atol=1e-6)


@pytest.mark.parametrize("dim", [30, 200])
def test_accuracies_equal_scikit_learn_by_hand(dim):
    x = blobs(dim)
    found = accuracy_by_dimension(x, LABELS, dims=(2, 20, 5, 500), splits=SPLITS, jobs=1)
    train, test = np.array(SPLITS) == "train", np.array(SPLITS) == "test"
    y = np.array(LABELS)
    for size, accuracy in zip(found.dims, found.accuracies, strict=True):
        steps = PCA(size, svd_solver="full"), Normalizer(), LinearSVC(C=1.0, dual=False, tol=1e-8)
        by_hand = make_pipeline(*steps).fit(x[train].astype(np.float64), y[train])
        assert accuracy == pytest.approx(by_hand.score(x[test].astype(np.float64), y[test]))
    assert found.dims == (20, 5, 2)
    assert found.left_out == (500,)
    assert (found.videos, found.protocol) == (60, "the data's own splits")
    assert found.full_dim == dim
    assert found.full_accuracy == evaluate_features(x, LABELS, splits=SPLITS, jobs=1).accuracy
    assert len(set(found.accuracies)) > 1
    assert max(found.accuracies) < 1


def test_test_videos_never_change_the_components():
    x = blobs()
    other = x.copy()
    train, test = np.array(SPLITS) == "train", np.array(SPLITS) == "test"
    other[test] += 100 * np.random.default_rng(1).normal(size=(60, 30))
    first = principal_components(x, np.flatnonzero(train), 5)
    second = principal_components(other, np.flatnonzero(train), 5)
    np.testing.assert_array_equal(first[train], second[train])


def test_without_splits_components_are_fitted_again_in_each_fold(monkeypatch):
    x, groups = blobs(), [f"g{i // 6}" for i in range(120)]
    seen = []

    def watched(features, train, count):
        seen.append(train)
        return principal_components(features, train, count)

    monkeypatch.setattr(reduction, "principal_components", watched)
    found = accuracy_by_dimension(x, LABELS, dims=(5, 10), groups=groups, folds=4, jobs=1)
    assert found.protocol == "4-fold cross-validation, each group in one fold"
    assert found.videos == 120
    assert len(seen) == 4
    for train in seen:
        assert {groups[i] for i in train}.isdisjoint({groups[i] for i in set(range(120)) - set(train.tolist())})
    full = evaluate_features(x, LABELS, groups=groups, folds=4, jobs=1)
    assert found.full_accuracy == full.accuracy
    assert found.protocol == full.protocol


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dims": (0, 5)}, "dimensions must be at least 1, got 5, 0"),
        ({"dims": ()}, "got none"),
        ({"dims": (500, 31)}, "31 dimensions are too many: the features have 30 numbers; ask for at most 30"),
        ({"labels": [None, *LABELS[1:]]}, "1 videos have no label"),
        ({"splits": ["train"] * 120}, "0 test videos"),
        ({"groups": ["same"] * 120}, "1 groups are on both sides"),
    ],
)
def test_mistakes_are_told_in_one_line(change, words):
    given = {"labels": LABELS, "splits": SPLITS, "dims": (5,)} | change
    with pytest.raises(Pseudo3dError, match=words):
        accuracy_by_dimension(blobs(), **given)


def test_more_dimensions_than_training_videos_span():
    with pytest.raises(Pseudo3dError, match="60 dimensions are too many: 60 training videos span 59; ask for at most"):
        accuracy_by_dimension(blobs(200), LABELS, splits=SPLITS, dims=(60,))


def test_the_constants_that_were_chosen_are_told():
    """Those that scikit-learn's grid would say of each side's training rows: here, of ``svm_scores`` itself."""
    x = blobs(dim=20, spread=6.0)
    found = accuracy_by_dimension(x, LABELS, dims=(10, 3), splits=SPLITS, c="cv", jobs=1)
    train, test = (np.flatnonzero(np.array(SPLITS) == side) for side in ("train", "test"))
    y = np.array([ord(label) - ord("a") for label in LABELS])
    for dim, told in zip((10, 3, 0), found.chosen, strict=True):
        values = l2_normalised(principal_components(x, train, 10)[:, :dim] if dim else x)
        used = []
        svm_scores(values[train], y[train], values[test], 3, c="cv", groups=[f"{i}" for i in train], jobs=1,
                   on_constant=used.append)  # fmt: skip
        assert list(told) == used
    assert accuracy_by_dimension(x, LABELS, dims=(3,), splits=SPLITS, jobs=1).chosen == ()
    folds = accuracy_by_dimension(x, LABELS, dims=(3,), folds=4, c="cv", jobs=1)
    assert [len(each) for each in folds.chosen] == [4, 4]
    small = accuracy_by_dimension(x, LABELS, dims=(3,), splits=SPLITS, c="cv", jobs=1)
    mean = mean_reduction([found, small])
    assert (mean.dims, mean.chosen) == ((3,), (found.chosen[1] + small.chosen[0], found.chosen[2] + small.chosen[1]))
