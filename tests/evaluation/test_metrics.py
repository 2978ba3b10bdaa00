import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, top_k_accuracy_score
from sklearn.metrics import roc_curve as sk_roc_curve

from pseudo3d import Pseudo3dError
from pseudo3d.evaluation.metrics import (
    average_precision,
    average_precisions,
    classes_without_positives,
    hit_at_k,
    hits_of,
    mean_and_error,
    mean_average_precision,
    roc_auc,
    roc_curve,
)

UNHURRIED = settings(deadline=None, max_examples=60)


@UNHURRIED
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


@UNHURRIED
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


def evaluators_average_precision(scores, truth):
    """ActivityNet's ``eval_classification.py`` in its own steps: one row after the other, then the interpolation."""
    order = sorted(range(len(scores)), key=lambda row: -scores[row])
    tp = np.cumsum([float(truth[row]) for row in order])
    fp = np.cumsum([float(not truth[row]) for row in order])
    recall, precision = tp / truth.sum(), tp / (tp + fp)
    mprec, mrec = np.hstack([[0], precision, [0]]), np.hstack([[0], recall, [1]])
    for i in range(len(mprec) - 1)[::-1]:
        mprec[i] = max(mprec[i], mprec[i + 1])
    steps = np.where(mrec[1:] != mrec[:-1])[0] + 1
    return np.sum((mrec[steps] - mrec[steps - 1]) * mprec[steps])


SCORED = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=12)


def arrays(scored):
    return np.array([score for score, _ in scored], float), np.array([positive for _, positive in scored])


@UNHURRIED
@given(st.lists(st.booleans(), min_size=1, max_size=30).filter(any), st.randoms(use_true_random=False))
def test_interpolated_as_the_published_evaluator(truth, random):
    """Without equal scores, at any order of the rows."""
    scores = list(range(len(truth)))
    random.shuffle(scores)
    scores, truth = np.array(scores, float), np.array(truth)
    expected = evaluators_average_precision(scores, truth)
    assert average_precision(scores, truth) == pytest.approx(expected, abs=1e-12)


@UNHURRIED
@given(SCORED.filter(lambda scored: any(positive for _, positive in scored)), st.randoms(use_true_random=False))
def test_equal_scores_do_not_depend_on_the_order(scored, random):
    """The published evaluator's value then hangs on the order: ours is between its worst and its best."""
    scores, truth = arrays(scored)
    shuffled = list(range(len(scores)))
    random.shuffle(shuffled)
    worst, best = (
        evaluators_average_precision(scores[order], truth[order])
        for order in (np.argsort(truth, kind="stable"), np.argsort(~truth, kind="stable"))
    )
    value = average_precision(scores, truth)
    assert average_precision(scores[shuffled], truth[shuffled]) == value
    assert worst - 1e-12 <= value <= best + 1e-12


@UNHURRIED
@given(SCORED.filter(lambda scored: any(positive for _, positive in scored)))
def test_average_precision_against_scikit_learn(scored):
    scores, truth = arrays(scored)
    plain = average_precision(scores, truth, interpolated=False)
    assert plain == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    precision, recall, _ = precision_recall_curve(truth, scores)  # recall falls
    best = np.maximum.accumulate(precision)
    interpolated = float(np.sum((recall[:-1] - recall[1:]) * best[:-1]))
    assert average_precision(scores, truth) == pytest.approx(interpolated, abs=1e-12)
    assert average_precision(scores, truth) >= plain - 1e-12


def test_constant_scores_have_the_precision_of_chance():
    assert average_precision(np.zeros(10), np.arange(10) < 3) == pytest.approx(0.3)


@UNHURRIED
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**32 - 1), st.booleans())
def test_mean_average_precision_of_several_labels(rows, classes, seed, interpolated):
    """Random scores with ties, rows with several labels and with none, classes without a positive row."""
    rng = np.random.default_rng(seed)
    scores, truth = rng.integers(0, 6, (rows, classes)).astype(float), rng.random((rows, classes)) < 0.3
    each = [
        average_precision(scores[:, k], truth[:, k], interpolated=interpolated)
        for k in range(classes)
        if any(truth[:, k])
    ]
    assert classes_without_positives(truth) == classes - len(each)
    found = average_precisions(scores, truth, interpolated=interpolated)
    assert np.flatnonzero(np.isnan(found)).tolist() == [k for k in range(classes) if not truth[:, k].any()]
    if not each:
        with pytest.raises(Pseudo3dError, match="needs at least one positive video, and no class has one"):
            mean_average_precision(scores, truth, interpolated=interpolated)
        return
    assert mean_average_precision(scores, truth, interpolated=interpolated) == pytest.approx(np.mean(each), abs=1e-12)
    if len(each) == classes and not interpolated:
        expected = average_precision_score(truth, scores, average="macro")
        assert mean_average_precision(scores, truth, interpolated=False) == pytest.approx(expected, abs=1e-12)


@UNHURRIED
@given(SCORED.filter(lambda scored: len({positive for _, positive in scored}) == 2))
def test_roc_against_scikit_learn_and_counting_pairs(scored):
    scores, truth = arrays(scored)
    for ours, theirs in zip(
        roc_curve(scores, truth), sk_roc_curve(truth, scores, drop_intermediate=False), strict=False
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    pairs = [(a > b) + (a == b) / 2 for a in scores[truth] for b in scores[~truth]]
    assert roc_auc(scores, truth) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert roc_auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


@UNHURRIED
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=12))
def test_standard_error_by_hand(values):
    mean = sum(values) / len(values)
    deviation = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    assert mean_and_error(values) == pytest.approx((mean, deviation / len(values) ** 0.5), abs=1e-9)
    assert mean_and_error(np.array(values)) == mean_and_error(values)


def test_wrong_input_of_curves():
    scores, truth = np.array([1.0, 2.0]), np.array([True, False])
    with pytest.raises(Pseudo3dError, match="needs at least one positive video, and there is none"):
        average_precision(scores, ~np.ones(2, bool))
    for same, count in ((np.ones(2, bool), 2), (np.zeros(2, bool), 0)):
        with pytest.raises(Pseudo3dError, match=f"needs positive and negative rows; {count} of 2 are positive"):
            roc_auc(scores, same)
    for measure in (average_precision, roc_auc):
        with pytest.raises(ValueError, match=r"as many scores as truth values, got the shapes \(2,\), \(1,\)"):
            measure(scores, truth[:1])
        with pytest.raises(ValueError, match="at least one score, got none"):
            measure(scores[:0], truth[:0])
        with pytest.raises(ValueError, match="NaN or infinite"):
            measure(np.array([1.0, np.nan]), truth)
        with pytest.raises(ValueError, match="truth must be bool, got int64"):
            measure(scores, truth.astype(np.int64))
    with pytest.raises(ValueError, match=r"scores have the shape \(2, 1\), the truth \(2, 2\)"):
        mean_average_precision(scores[:, None], np.ones((2, 2), bool))
    with pytest.raises(ValueError, match="at least two values, got 1"):
        mean_and_error([1.0])
    with pytest.raises(ValueError, match="NaN or infinite"):
        mean_and_error([1.0, float("inf")])
