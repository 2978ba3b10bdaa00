import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from pseudo3d import Pseudo3dError
from pseudo3d.evaluation import aslan
from pseudo3d.evaluation.aslan import ASLAN_LAYERS, SIMILARITIES, evaluate_aslan, pair_similarities, pair_vector
from pseudo3d.evaluation.svm import choose_c


def share(x):
    total = sum(x)
    return [a / total if total else 0.0 for a in x]


def unit(x):
    length = math.sqrt(sum(a * a for a in x))
    return [a / length if length else 0.0 for a in x]


def scalar(x, y):
    """The twelve, number by number, as they are written in the benchmark's readme; 0 / 0 is 0."""
    both = list(zip(x, y, strict=True))
    shares = list(zip(share(x), share(y), strict=True))
    units = list(zip(unit(x), unit(y), strict=True))
    floored = [(max(a, 1e-10), max(b, 1e-10)) for a, b in shares]
    lengths = math.sqrt(sum(a * a for a in x)) * math.sqrt(sum(b * b for b in y))
    sums = sum(a for a, _ in shares) * sum(b for _, b in shares)
    return [
        sum(a * b for a, b in both),
        math.sqrt(sum(a * b for a, b in both)),
        math.sqrt(sum(math.sqrt(a) * math.sqrt(b) for a, b in both)),
        math.sqrt(sum(a * b / (a + b) for a, b in both if a + b)),
        sum(a * b for a, b in both) / lengths if lengths else 0.0,
        math.sqrt(sum((a - b) ** 2 / (a + b) for a, b in both if a + b)),
        sum(abs(a - b) for a, b in both),
        math.sqrt(sum((math.sqrt(a) - math.sqrt(b)) ** 2 for a, b in both)),
        math.sqrt(sum((a - b) ** 2 for a, b in units)),
        0.5 * (sum(a * math.log(a / b) for a, b in floored) + sum(b * math.log(b / a) for a, b in floored)),
        sum(math.sqrt(max(a, b)) / math.sqrt(a + b) for a, b in shares if a + b),
        sum(min(a, b) for a, b in shares) / sums if sums else 0.0,
    ]


@pytest.mark.parametrize("number", range(1, 13))
def test_each_similarity_is_its_formula(number):
    rng = np.random.default_rng(number)
    x, y = rng.gamma(0.5, 3.0, (2, 20, 30)) * (rng.uniform(size=(2, 20, 30)) > 0.3)
    x[0], y[1], x[2], y[2], y[3] = 0, 0, 0, 0, x[3]
    want = [scalar(a, b)[number - 1] for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    np.testing.assert_allclose(SIMILARITIES[number - 1](x, y), want, rtol=1e-12, atol=1e-14)


NUMBERS = arrays(np.float64, (2, 3, 5), elements=st.floats(0, 1e4).map(lambda x: round(x, 3)))


@settings(max_examples=60, deadline=None)
@given(NUMBERS)
def test_any_numbers_are_finite_symmetric_and_as_written(numbers):
    x, y = numbers
    got = pair_similarities({"a": np.concatenate([x, y])}, np.arange(3), np.arange(3, 6), jobs=1)
    assert np.isfinite(got).all()
    want = [scalar(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
    turned = np.stack([similarity(y, x) for similarity in SIMILARITIES], axis=1)
    np.testing.assert_allclose(got, turned, rtol=1e-9, atol=1e-9)


def test_a_video_and_itself():
    x = np.random.default_rng(0).uniform(0.1, 1, (4, 9))
    got = pair_similarities({"a": x}, np.arange(4), np.arange(4))
    np.testing.assert_allclose(got[:, 4], 1)  # cosine
    np.testing.assert_allclose(got[:, [5, 6, 7, 8, 9]], 0, atol=1e-12)
    np.testing.assert_allclose(got[:, 11], 1)


def layers(videos=30, seed=0):
    """Features of four layers, in blocks of more than one pair, one pair, and many."""
    rng = np.random.default_rng(seed)
    dims = dict(zip(ASLAN_LAYERS, (4, 20, 300, 700), strict=True))
    return {layer: rng.gamma(0.3, 2.0, (videos, dim)).astype(np.float32) for layer, dim in dims.items()}


def test_forty_eight_numbers_of_length_one_in_the_order_of_the_layers(monkeypatch):
    monkeypatch.setattr(aslan, "_BLOCK", 650)  # so that every kind of block is met
    features, rng = layers(), np.random.default_rng(1)
    first, second = rng.integers(0, 30, (2, 40))
    raw = pair_similarities(features, first, second, jobs=2)
    assert raw.shape == (40, 48)
    assert raw.dtype == np.float64
    for i, values in enumerate(features.values()):
        want = [scalar(values[a].tolist(), values[b].tolist()) for a, b in zip(first, second, strict=True)]
        np.testing.assert_allclose(raw[:, 12 * i : 12 * i + 12], want, rtol=1e-6)
    vectors = pair_vector(features, first, second)
    np.testing.assert_allclose(vectors, normalize(raw))
    np.testing.assert_array_equal(pair_vector(features, first, second, jobs=1), vectors)


def test_wide_layers_take_a_few_pairs_at_a_time():
    dim, pairs = 60_000, 80
    features = {"res4": np.full((2, dim), 0.5, np.float32)}
    places = np.zeros(pairs, np.int64)
    tracemalloc.start()
    pair_similarities(features, places, places + 1, jobs=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * pairs * dim  # one float64 array of all pairs


def test_rounding_below_zero_is_zero_and_more_is_an_error():
    x = np.array([[1.0, -1e-5], [1.0, 0.0]])
    clean = np.maximum(x, 0)
    pair = np.array([0]), np.array([1])
    np.testing.assert_array_equal(pair_similarities({"a": x}, *pair), pair_similarities({"a": clean}, *pair))
    with pytest.raises(Pseudo3dError, match=r"idt: features below 0 \(video 1: -0\.5\)"):
        pair_similarities({"idt": np.array([[1.0, 0.0], [1.0, -0.5]])}, *pair)
    with pytest.raises(Pseudo3dError, match="pool5: NaN or infinite features of video 1"):
        pair_similarities({"pool5": np.array([[1.0, 0.0], [1.0, np.nan]])}, *pair)


def benchmark(pairs_a_fold=24, folds=10, seed=0, spread=1.0):
    """Videos of 40 actions; pairs of each fold are of actions of its own, half of them the same."""
    rng = np.random.default_rng(seed)
    action = np.repeat(np.arange(4 * folds), 5)
    centres = rng.gamma(0.5, 2.0, (4 * folds, 12))
    features = {
        layer: np.abs(centres[action] + rng.normal(0, spread, (len(action), 12))).astype(np.float32)
        for layer in ("prob", "pool5")
    }
    first, second, fold = [], [], []
    for number in range(folds):
        for i in range(pairs_a_fold):
            one, other = rng.choice(4, 2, replace=False) + 4 * number
            other = one if i % 2 else other
            first.append(5 * one + rng.integers(0, 2))
            second.append(5 * other + 2 + rng.integers(0, 3))
            fold.append(number)
    first, second = np.array(first), np.array(second)
    return features, first, second, action[first] == action[second], np.array(fold)


@pytest.mark.parametrize("c", [1.0, 100.0])
def test_ten_folds_equal_a_loop_by_hand(c):
    features, first, second, same, fold = benchmark()
    result = evaluate_aslan(features, first, second, same, fold, c=c, jobs=1)
    x = pair_vector(features, first, second)
    right, values = [], np.zeros(len(fold))
    for number in range(10):
        train, test = fold != number, fold == number
        svm = LinearSVC(C=c, random_state=0, max_iter=100_000, tol=1e-6).fit(x[train], same[train])
        values[test] = svm.decision_function(x[test])
        right.append(svm.score(x[test], same[test]))
    np.testing.assert_allclose(result.decisions, values, atol=2e-2 * np.abs(values).max())
    np.testing.assert_allclose(result.accuracies, right, atol=1.01 / 24)  # a pair near 0 may fall on either side
    assert result.accuracy == pytest.approx(np.mean(result.accuracies))
    assert result.error == pytest.approx(np.std(result.accuracies, ddof=1) / math.sqrt(10))
    assert result.auc == pytest.approx(roc_auc_score(same, result.decisions))
    np.testing.assert_array_equal(result.tested, np.arange(len(fold)))
    np.testing.assert_array_equal(result.same, same)
    assert result.accuracy > 0.7


def test_standardised_numbers_equal_a_loop_by_hand():
    features, first, second, same, fold = benchmark(spread=2.0)
    result = evaluate_aslan(features, first, second, same, fold, standardise=True, jobs=1)
    raw, values = pair_similarities(features, first, second), np.zeros(len(fold))
    for number in range(10):
        train, test = fold != number, fold == number
        x = normalize((raw - raw[train].mean(axis=0)) / raw[train].std(axis=0))
        svm = LinearSVC(C=1.0, random_state=0, max_iter=100_000, tol=1e-6).fit(x[train], same[train])
        values[test] = svm.decision_function(x[test])
    np.testing.assert_allclose(result.decisions, values, atol=2e-2 * np.abs(values).max())


def test_view_1_trains_once():
    features, first, second, same, fold = benchmark(folds=2)
    result = evaluate_aslan(features, first, second, same, fold, view=1, jobs=1)
    x, test = pair_vector(features, first, second), fold == 1
    svm = LinearSVC(C=1.0, random_state=0).fit(x[~test], same[~test])
    assert result.accuracies.shape == (1,)
    assert result.accuracy == pytest.approx(svm.score(x[test], same[test]), abs=1.01 / 24)
    assert result.error is None
    np.testing.assert_array_equal(result.tested, np.flatnonzero(test))
    np.testing.assert_array_equal(result.same, same[test])


def test_view_1_chooses_the_constant_within_its_training_part():
    features, first, second, same, fold = benchmark(folds=2)
    result = evaluate_aslan(features, first, second, same, fold, view=1, c="cv", jobs=1)
    x, test = pair_vector(features, first, second), fold == 1
    c = choose_c(x[~test], same[~test].astype(np.int64), 2, jobs=1)
    plain = evaluate_aslan(features, first, second, same, fold, view=1, c=c, jobs=1)
    np.testing.assert_allclose(result.decisions, plain.decisions)
    assert result.constants == plain.constants == (c,)


def test_the_answer_of_a_test_fold_never_reaches_its_svm():
    features, first, second, same, fold = benchmark(folds=3)
    before = evaluate_aslan(features, first, second, same, fold, jobs=1)
    changed = np.where(fold == 1, ~same, same)
    after = evaluate_aslan(features, first, second, changed, fold, jobs=1)
    np.testing.assert_array_equal(after.decisions[fold == 1], before.decisions[fold == 1])


def test_the_constant_is_chosen_with_official_folds_kept_whole(monkeypatch):
    features, first, second, same, fold = benchmark(folds=3)
    seen = []

    def fake(x_train, y, x_test, num_classes, *, c, groups, seed, jobs, on_constant):
        on_constant(float(len(seen)))
        seen.append((c, sorted(set(groups.tolist())), seed))
        return np.stack([-x_test[:, 0], x_test[:, 0]], axis=1)

    monkeypatch.setattr(aslan, "svm_scores", fake)
    result = evaluate_aslan(features, first, second, same, fold, c="cv", seed=7)
    assert result.constants == (0.0, 1.0, 2.0)  # fold by fold
    assert seen == [("cv", [1, 2], 7), ("cv", [0, 2], 7), ("cv", [0, 1], 7)]


def mistaken(**changes):
    features, first, second, same, fold = benchmark(folds=3)
    given = {"features": features, "first": first, "second": second, "same": same, "fold": fold, "view": 2}
    given |= {name: change(given[name]) for name, change in changes.items()}
    evaluate_aslan(**given, jobs=1)


def with_last(value):
    return lambda array: np.append(array[:-1], value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fold": lambda fold: np.where(fold == 1, 3, fold)}, r"fold 1 \(of 0 to 3\) has no pair"),
        ({"fold": np.zeros_like}, r"fold 1 \(of 0 to 1\) has no pair"),
        ({"fold": with_last(-1)}, r"fold of a pair must be 0, 1, \.\.\. in View-2, got -1 to 2"),
        ({"view": lambda _: 1}, r"must be 0 \(training\) or 1 \(test\) in View-1, got 0 to 2"),
        ({"first": with_last(60)}, "pair 71: its first video is number 60, and there are 0 to 59"),
        ({"second": with_last(-1)}, "pair 71: its second video is number -1, and there are 0 to 59"),
        ({"same": lambda same: same[:-1]}, "71 labels, 72 folds"),
        ({"same": np.ones_like}, 'all 48 training pairs for fold 0 are "same"; both are needed'),
        ({"same": np.zeros_like}, 'all 48 training pairs for fold 0 are "not same"'),
        ({"features": lambda _: {}}, "need layers and pairs of videos, got 0, 72 and 72"),
        ({"features": lambda by: {**by, "res4": by["prob"][1:]}}, "prob of 60, pool5 of 60, res4 of 59"),
        (dict.fromkeys(("first", "second", "same", "fold"), lambda array: array[:0]), "there are no pairs"),
    ],
)
def test_mistakes_are_told_in_one_line(changes, words):
    with pytest.raises(Pseudo3dError, match=words) as error:
        mistaken(**changes)
    assert "\n" not in str(error.value)


def test_view_1_needs_both_answers_in_its_test():
    features, first, second, same, fold = benchmark(folds=2)
    with pytest.raises(Pseudo3dError, match="all 24 test pairs are of one kind"):
        evaluate_aslan(features, first, second, same | (fold == 1), fold, view=1)
