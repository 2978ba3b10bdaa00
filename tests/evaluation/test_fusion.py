from dataclasses import replace

import numpy as np
import pytest

from pseudo3d import Pseudo3dError
from pseudo3d.evaluation.fusion import equal_weights, find_weights, fuse, fusion_footnotes, scale_footnotes
from pseudo3d.evaluation.metrics import hit_at_k
from pseudo3d.evaluation.scores import Scores

NAMES = ("a", "b", "c")


def scores(strength, videos=120, *, seed=0, kind="decision", prefix="v", scale=1.0, shift=0.0):
    """Scores of a source that knows the class the better, the larger ``strength``."""
    truth = np.eye(3, dtype=bool)[np.random.default_rng(99).integers(0, 3, videos)]
    values = strength * truth + np.random.default_rng(seed).normal(size=truth.shape)
    if kind == "probability":
        values = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    return Scores(tuple(f"{prefix}{i}" for i in range(videos)), NAMES, truth, scale * values + shift, kind)


def accuracy(fused):
    return hit_at_k(fused.values, fused.truth)


def test_probabilities_are_averaged_as_they_are():
    rgb, flow = scores(1, seed=1, kind="probability"), scores(1, seed=2, kind="probability")
    fused = fuse([rgb, flow], [3, 1])
    np.testing.assert_allclose(fused.values, 0.75 * rgb.values + 0.25 * flow.values, atol=1e-6)
    np.testing.assert_allclose(fused.values.sum(axis=1), 1, atol=1e-6)
    assert fused.kind == "probability"
    np.testing.assert_allclose(fuse([rgb, flow]).values, (rgb.values + flow.values) / 2, atol=1e-6)


@pytest.mark.parametrize("kind", ["decision", "probability"])
def test_decision_values_are_standardised_by_the_training_side(kind):
    test = [scores(1, seed=1, prefix="t"), scores(1, seed=2, prefix="t", kind=kind)]
    train = [scores(2, 80, seed=3, scale=7, shift=-4), scores(2, 80, seed=4, kind=kind)]
    fused = fuse(test, [0.5, 0.5], train=train)
    parts = [(t.values - u.values.mean()) / u.values.std() for t, u in zip(test, train, strict=True)]
    np.testing.assert_allclose(fused.values, np.mean(parts, axis=0), rtol=1e-4, atol=1e-5)
    assert fused.kind == "decision"
    alone = fuse(test, [1, 0], train=train)
    np.testing.assert_array_equal(alone.values.argmax(axis=1), test[0].values.argmax(axis=1))


def test_the_unit_of_a_source_does_not_matter():
    test, train = [scores(1, seed=i, prefix="t") for i in (1, 2)], [scores(1, seed=i) for i in (3, 4)]
    other = [[one, replace(two, values=1000 * two.values + 5)] for one, two in (test, train)]
    np.testing.assert_allclose(fuse(other[0], train=other[1]).values, fuse(test, train=train).values, atol=1e-3)
    np.testing.assert_array_equal(find_weights(other[1]), find_weights(train))


def brute_force(train, steps):
    """Most hits over a grid of weights, by another loop."""
    parts = [(each.values - each.values.mean()) / each.values.std() for each in train]
    best = 0
    for i in range(steps + 1):
        for j in range(steps + 1 - i):
            weights = np.array([i, j, steps - i - j]) / steps
            best = max(
                best, accuracy(replace(train[0], values=sum(w * p for w, p in zip(weights, parts, strict=True))))
            )
    return best


def test_weights_are_the_best_ones_of_the_training_side():
    train = [scores(strength, seed=i) for i, strength in enumerate((1.5, 1.0, 0.0))]
    weights = find_weights(train)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    assert weights[2] < 0.25 < weights[0]
    fused = fuse(train, weights)
    assert accuracy(fused) >= brute_force(train, 10)
    assert accuracy(fused) > max(map(accuracy, train))
    assert accuracy(fused) > brute_force(train, 20) - 0.02
    np.testing.assert_array_equal(find_weights(train), weights)


@pytest.mark.parametrize("sources", [1, 2, 5, 6])
def test_any_number_of_sources(sources):
    train = [scores(1, seed=i, kind="probability") for i in range(sources)]
    weights = find_weights(train)
    assert weights.shape == (sources,)
    assert weights.sum() == pytest.approx(1)
    assert accuracy(fuse(train, weights)) >= max(*map(accuracy, train), accuracy(fuse(train)))


def test_sources_that_are_equally_good_get_equal_weights():
    same = scores(8, seed=1)
    np.testing.assert_array_equal(find_weights([same, same, same]), equal_weights(3))


def test_scores_of_the_test_side_never_change_the_weights():
    train = [scores(1, 80, seed=i) for i in (1, 2)]
    weights = find_weights(train)
    test = [scores(1, seed=i, prefix="t") for i in (3, 4)]
    rng = np.random.default_rng(0)
    for _ in range(3):
        other = [replace(t, values=rng.normal(size=t.values.shape), truth=np.roll(t.truth, 1, axis=1)) for t in test]
        np.testing.assert_array_equal(find_weights(train), weights)
        rows = slice(0, 1)  # a video's fused score depends on no other test video
        kept = [
            replace(o, values=np.concatenate([t.values[rows], o.values[1:]])) for t, o in zip(test, other, strict=True)
        ]
        np.testing.assert_array_equal(
            fuse(kept, weights, train=train).values[rows], fuse(test, weights, train=train).values[rows]
        )


def test_labels_of_the_test_side_change_no_score():
    test = [scores(1, seed=i) for i in (3, 4)]
    blind = [replace(each, truth=np.zeros_like(each.truth)) for each in test]
    np.testing.assert_array_equal(fuse(blind).values, fuse(test).values)


def test_several_labels_count_if_any_is_right():
    truth = np.array([[True, True, False], [False, True, True]])
    one = Scores(("u", "v"), NAMES, truth, np.array([[0.1, 0.6, 0.3], [0.8, 0.1, 0.1]]), "probability")
    two = Scores(("u", "v"), NAMES, truth, np.array([[0.1, 0.1, 0.8], [0.1, 0.1, 0.8]]), "probability")
    assert accuracy(fuse([one, two])) == 0  # u: c alone is wrong for it; v: a and c are equal, and a comes first
    weights = find_weights([one, two])
    np.testing.assert_array_equal(weights, [0.49, 0.51])  # v is right below 0.5, u only above 0.62
    assert accuracy(fuse([one, two], weights)) == 0.5


def test_order_of_videos_and_classes_does_not_matter():
    train = [scores(1, seed=i, kind="probability") for i in (1, 2)]
    order, columns = np.random.default_rng(0).permutation(120), [2, 0, 1]
    shuffled = Scores(
        tuple(train[1].videos[i] for i in order),
        tuple(NAMES[i] for i in columns),
        train[1].truth[np.ix_(order, columns)],
        train[1].values[np.ix_(order, columns)],
        "probability",
    )
    np.testing.assert_array_equal(find_weights([train[0], shuffled]), find_weights(train))
    np.testing.assert_array_equal(fuse([train[0], shuffled]).values, fuse(train).values)


def test_footnotes_say_what_is_missing():
    probabilities, decisions = scores(1, kind="probability"), scores(1)
    assert fusion_footnotes([probabilities] * 2, [probabilities] * 2) == ()
    (equal,) = fusion_footnotes([probabilities] * 2)
    assert "weighted equally" in equal
    assert "not their labels" in fusion_footnotes([probabilities, decisions])[1]
    assert scale_footnotes([probabilities] * 2) == scale_footnotes([decisions] * 2, [decisions] * 2) == ()


def constant(each):
    return replace(each, values=np.full_like(each.values, 0.5))


TEST = [scores(1, seed=i, prefix="t") for i in (1, 2)]
TRAIN = [scores(1, seed=i) for i in (3, 4)]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fuse([]), "no scores to align"),
        (lambda: fuse(TEST, [1.0]), "2 sources need as many weights, got 1"),
        (lambda: fuse(TEST, [1, -1]), "weights must be at least 0 and not all 0, got 1, -1"),
        (lambda: fuse(TEST, [0, 0]), "not all 0, got 0, 0"),
        (lambda: fuse(TEST, [np.nan, 1]), "got nan, 1"),
        (lambda: fuse(TEST, train=TRAIN[:1]), "2 sources, but training scores of 1"),
        (lambda: fuse(TEST, train=TEST), r"120 test videos are in the training scores \(t0, t1, t10, \.\.\.\)"),
        (lambda: fuse([TEST[0], TRAIN[0]]), "120 videos of source 1 are not in source 2"),
        (
            lambda: fuse(TEST, train=[TRAIN[0], scores(1, kind="probability")]),
            "of kind probability in training and dec",
        ),
        (lambda: fuse(TEST, train=[replace(t, class_names=("a", "b", "x")) for t in TRAIN]), r"differ in c, x"),
        (lambda: fuse(TEST, train=[replace(t, class_names=("b", "a", "c")) for t in TRAIN]), "in another order"),
        (lambda: fuse([TEST[0], constant(TEST[1])]), "all scores of source 2 are equal"),
        (lambda: find_weights([TRAIN[0], constant(TRAIN[1])]), "all scores of source 2 are equal"),
        (lambda: find_weights([]), "no scores to align"),
        (
            lambda: find_weights([replace(t, truth=np.zeros_like(t.truth)) for t in TRAIN]),
            r"120 training videos have no label \(v0, v1, v2, \.\.\.\)",
        ),
        (
            lambda: find_weights([TRAIN[0], replace(TRAIN[1], truth=np.roll(TRAIN[1].truth, 1, axis=1))]),
            "120 videos have other labels in training scores of source 2",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(call, words):
    with pytest.raises(Pseudo3dError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
