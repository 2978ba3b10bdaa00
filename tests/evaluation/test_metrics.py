import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudo3d.evaluation.metrics import hit_at_k


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


def test_constant_scores_are_chance():
    assert hit_at_k(np.zeros((10, 10)), np.arange(10)) == 0.1
    assert hit_at_k(np.zeros((10, 10)), np.arange(10), k=5) == 0.5


def test_wrong_input():
    with pytest.raises(ValueError, match="as many rows of scores as labels and at least one, got 2, 3"):
        hit_at_k(np.zeros((2, 3)), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="at least one, got 0, 0"):
        hit_at_k(np.zeros((0, 3)), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="NaN or infinite"):
        hit_at_k(np.array([[0, np.nan]]), np.zeros(1, np.int64))
