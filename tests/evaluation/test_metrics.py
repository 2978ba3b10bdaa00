import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score

from pseudo3d.evaluation.metrics import hit_at_k, hits_of


@given(st.data(), st.integers(1, 8), st.integers(1, 7), st.integers(1, 9))
def test_against_counting_by_hand(data, rows, classes, k):
    """Few different values, so that equal scores are common."""
    scores = [[data.draw(st.integers(-2, 2)) for _ in range(classes)] for _ in range(rows)]
    labels = [data.draw(st.integers(0, classes - 1)) for _ in range(rows)]
    hits = 0
    for row, label in zip(scores, labels, strict=True):
        ahead = sum(s > row[label] or (s == row[label] and c < label) for c, s in enumerate(row))
        hits += ahead < k
    assert hit_at_k(np.array(scores, float), np.array(labels), k) == pytest.approx(hits / rows)
    truth = np.eye(classes, dtype=bool)[labels]
    assert hit_at_k(np.array(scores, float), truth, k) == pytest.approx(hits / rows)


@given(st.data(), st.integers(1, 8), st.integers(1, 7), st.integers(1, 9))
def test_several_true_classes_against_counting_by_hand(data, rows, classes, k):
    scores = [[data.draw(st.integers(-2, 2)) for _ in range(classes)] for _ in range(rows)]
    labels = [data.draw(st.sets(st.integers(0, classes - 1), min_size=1)) for _ in range(rows)]
    hits = []
    for row, own in zip(scores, labels, strict=True):
        best = sorted(range(classes), key=lambda c: (-row[c], c))[:k]
        hits.append(bool(own & set(best)))
    truth = np.array([[c in own for c in range(classes)] for own in labels])
    assert hits_of(np.array(scores, float), truth, k).tolist() == hits
    assert hit_at_k(np.array(scores, float), truth, k) == pytest.approx(sum(hits) / rows)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_against_scikit_learn(k):
    rng = np.random.default_rng(k)
    scores, labels = rng.normal(size=(200, 11)), rng.integers(0, 11, 200)
    expected = top_k_accuracy_score(labels, scores, k=k, labels=range(11))
    assert hit_at_k(scores, labels, k) == pytest.approx(expected, abs=1e-12)
    assert hit_at_k(scores, np.eye(11, dtype=bool)[labels], k) == pytest.approx(expected, abs=1e-12)


def test_constant_scores_are_chance():
    assert hit_at_k(np.zeros((10, 10)), np.arange(10)) == 0.1
    assert hit_at_k(np.zeros((10, 10)), np.arange(10), k=5) == 0.5


def test_no_rows_are_no_hits():
    assert hits_of(np.zeros((0, 3)), np.zeros((0, 3), bool)).tolist() == []


def test_wrong_input():
    with pytest.raises(ValueError, match="as many rows of scores as labels and at least one, got 2, 3"):
        hit_at_k(np.zeros((2, 3)), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="at least one, got 0, 0"):
        hit_at_k(np.zeros((0, 3)), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="NaN or infinite"):
        hit_at_k(np.array([[0, np.nan]]), np.zeros(1, np.int64))
    with pytest.raises(ValueError, match="scores are of 3 classes, the truth of 2"):
        hit_at_k(np.zeros((1, 3)), np.ones((1, 2), bool))
    with pytest.raises(ValueError, match="row 1 has no true class"):
        hit_at_k(np.zeros((2, 3)), np.array([[True, False, True], [False, False, False]]))
