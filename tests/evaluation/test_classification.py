from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.svm import LinearSVC

from pseudo3d import Pseudo3dError
from pseudo3d.data.annotations import Sample
from pseudo3d.evaluation.classification import (
    accuracy,
    activitynet_values,
    class_columns,
    clip_hit_at_1,
    constant_footnote,
    lacking_footnote,
    measurements_of,
    svm_split,
    truth_of,
    video_hits,
)
from pseudo3d.evaluation.scores import Scores
from pseudo3d.evaluation.svm import choose_c, l2_normalised
from pseudo3d.evaluation.svm_solver import C_GRID

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("a", "b", "c", "d")


def random_set(rng, per_class=8, *, multi=False):
    """Videos of four classes, half of each to train on; with ``multi`` some have two labels."""
    samples = []
    for place, name in enumerate(NAMES):
        for i in range(per_class):
            more = (NAMES[(place + 1) % 4],) if multi and i % 3 == 0 else ()
            side = ("train", "test")[i % 2]
            samples.append(Sample(f"{name}{i}.mp4", name, side, f"{name}{i // 2 if side == 'train' else -i}", more))
    centres = rng.normal(size=(4, 12))
    features = np.stack([sum(centres[NAMES.index(label)] for label in sample.labels) for sample in samples])
    return samples, (features + 0.7 * rng.normal(size=features.shape)).astype(np.float32)


def by_definition(samples, features, c):
    """One scikit-learn SVM for each class, on rows of length 1."""
    x = features / np.linalg.norm(features, axis=1, keepdims=True)
    train = np.array([sample.split == "train" for sample in samples])
    columns = []
    for name in NAMES:
        y = np.array([name in sample.labels for sample in samples])
        svm = LinearSVC(C=c, tol=1e-8, max_iter=200_000, random_state=0).fit(x[train], y[train])
        columns.append(svm.decision_function(x[~train]))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("c", [1.0, 5.0])
def test_the_svm_is_one_against_the_rest(multi, c):
    samples, features = random_set(np.random.default_rng(1), multi=multi)
    found = svm_split(samples, features, NAMES, c=c, measure=activitynet_values)
    np.testing.assert_allclose(found.test.values, by_definition(samples, features, c), atol=2e-3)
    assert found.test.videos == tuple(sample.path for sample in samples if sample.split == "test")
    assert found.test.kind == "decision"
    assert found.train is None
    assert set(found.values) == {"top-1", "top-3", "mAP"}


def test_a_training_video_is_scored_by_an_svm_that_did_not_see_it():
    """A video whose features are unlike its class's is wrong out of fold, though an SVM that saw it gets it right."""
    samples, features = random_set(np.random.default_rng(2), per_class=24)
    features = features.copy()
    odd = next(i for i, sample in enumerate(samples) if sample.split == "train" and sample.label == "a")
    mate = next(i for i, sample in enumerate(samples) if sample.label == "c")
    samples[odd] = Sample(samples[odd].path, "a", "train", "alone")
    features[odd] = features[mate]
    found = svm_split(samples, features, NAMES, c=1000.0, train_scores=True)
    assert found.train.videos == tuple(sample.path for sample in samples if sample.split == "train")
    row = found.train.videos.index(samples[odd].path)
    assert NAMES[found.train.values[row].argmax()] == "c"


def test_unused_videos_do_not_count():
    rng = np.random.default_rng(3)
    samples, features = random_set(rng)
    more = [Sample("x.mp4", "a"), Sample("y.mp4", "b", "val")]
    extended = np.concatenate([features, rng.normal(size=(2, 12)).astype(np.float32)])
    plain, other = svm_split(samples, features, NAMES), svm_split([*samples, *more], extended, NAMES)
    np.testing.assert_array_equal(plain.test.values, other.test.values)


def test_svm_split_refuses():
    samples, features = random_set(np.random.default_rng(4))
    trained = [sample for sample in samples if sample.split == "train"]
    with pytest.raises(Pseudo3dError, match="no video with features is in the split 'test'"):
        svm_split(trained, features[: len(trained)], NAMES)
    without = [i for i, sample in enumerate(samples) if not (sample.label == "b" and sample.split == "train")]
    with pytest.raises(Pseudo3dError, match=r"1 classes have no training video with features \(b\)"):
        svm_split([samples[i] for i in without], features[without], NAMES)
    with pytest.raises(Pseudo3dError, match="'d' is none of the 3 classes"):
        svm_split(samples, features, NAMES[:3])


@pytest.mark.parametrize(("options", "needed"), [({"c": "cv"}, 2), ({"c": "cv", "train_scores": True}, 3)])
def test_classes_of_too_few_sources_for_folds_are_named(options, needed):
    samples, features = random_set(np.random.default_rng(5))
    one = [replace(each, group="b0") if each.label == "b" else each for each in samples]
    with pytest.raises(Pseudo3dError, match=rf"1 classes have too few sources .*\(b: 1\).*needs {needed} here"):
        svm_split(one, features, NAMES, **options)
    svm_split(one, features, NAMES)


def test_constants_that_cross_validation_chose_are_kept():
    samples, features = random_set(np.random.default_rng(7))
    run = svm_split(samples, features, NAMES, c="cv", train_scores=True)
    train = [i for i, sample in enumerate(samples) if sample.split == "train"]
    groups = [samples[i].group for i in train]
    y = np.array([NAMES.index(samples[i].label) for i in train])
    c = choose_c(l2_normalised(features)[train], y, len(NAMES), groups=groups)
    assert run.chosen == c
    assert set(run.chosen_in_folds) <= set(C_GRID)
    assert len(run.chosen_in_folds) > 1
    assert constant_footnote(run) == (f"C = {c:g}, chosen by cross-validation on the training videos",)
    fixed = svm_split(samples, features, NAMES, c=c, train_scores=True)
    np.testing.assert_array_equal(fixed.test.values, run.test.values)
    assert (fixed.chosen, fixed.chosen_in_folds, constant_footnote(fixed)) == (None, (), ())


def test_classes_without_a_test_video_are_told():
    samples, features = random_set(np.random.default_rng(6))
    keep = [i for i, sample in enumerate(samples) if not (sample.label == "c" and sample.split == "test")]
    run = svm_split([samples[i] for i in keep], features[keep], NAMES, measure=activitynet_values)
    assert lacking_footnote(run) == ("1 of 4 classes have no test video and are not in the mAP",)
    assert lacking_footnote(svm_split([samples[i] for i in keep], features[keep], NAMES)) == ()
    assert lacking_footnote(svm_split(samples, features, NAMES, measure=activitynet_values)) == ()


def test_truth():
    with pytest.raises(Pseudo3dError, match="has no label"):
        truth_of([Sample("a.mp4")], NAMES)
    assert truth_of([], NAMES).shape == (0, 4)


def random_scores(rng, classes=7, videos=50, *, ties=False):
    values = rng.normal(size=(videos, classes))
    values = np.round(values) if ties else values
    truth = np.zeros((videos, classes), bool)
    truth[np.arange(videos), rng.integers(0, classes - 1, videos)] = True  # the last class has no video
    truth[::7, 0] = True
    names = tuple(f"class {i}" for i in range(classes))
    return Scores(tuple(f"{i}.mp4" for i in range(videos)), names, truth, values.astype(np.float32), "decision")


@pytest.mark.parametrize("ties", [False, True])
def test_values_are_those_of_plain_loops(ties):
    scores = random_scores(np.random.default_rng(5), ties=ties)

    def hit(k):
        hits = 0
        for values, truth in zip(scores.values, scores.truth, strict=True):
            best = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
            hits += any(truth[i] for i in best)
        return hits / len(scores.videos)

    assert accuracy(scores) == {"accuracy": pytest.approx(hit(1))}
    assert video_hits(scores) == {"video hit@1": pytest.approx(hit(1)), "video hit@5": pytest.approx(hit(5))}
    found = activitynet_values(scores)
    assert (found["top-1"], found["top-3"]) == (pytest.approx(hit(1)), pytest.approx(hit(3)))
    if not ties:  # interpolated precision is at least the plain one, class by class
        known = [i for i in range(7) if scores.truth[:, i].any()]
        plain = [average_precision_score(scores.truth[:, i], scores.values[:, i]) for i in known]
        assert np.mean(plain) <= found["mAP"] <= 1


def test_up_to_five_classes_have_no_hit_at_5():
    assert set(video_hits(random_scores(np.random.default_rng(6), classes=5))) == {"video hit@1"}


def test_clip_hits_count_clips_not_videos():
    one, other = np.array([True, False]), np.array([False, True])
    right, wrong = np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]])
    clips = [
        (np.repeat(right, 3, axis=0), one),
        (right, other),
        (np.concatenate([wrong, right]), np.array([True, True])),
    ]
    assert clip_hit_at_1(clips) == 5 / 6
    with pytest.raises(Pseudo3dError, match="no clip"):
        clip_hit_at_1([])


def test_the_mean_is_over_splits_that_all_have_the_value():
    found = measurements_of({"1": {"accuracy": 0.5, "clip hit@1": 0.25}, "3": {"accuracy": 1.0}})
    assert [(each.metric, each.split, each.value) for each in found] == [
        ("accuracy", "1", 0.5), ("clip hit@1", "1", 0.25), ("accuracy", "3", 1.0), ("accuracy", "mean", 0.75),
    ]  # fmt: skip
    assert [(each.split, each.value) for each in measurements_of({"": {"mAP": 0.5}})] == [("", 0.5)]


def test_class_columns():
    columns, notes = class_columns(("b", "c", "a"), ("a", "b", "c"), 3)
    assert columns == [2, 0, 1]
    assert "another order" in notes[0]
    assert class_columns(("a", "b"), ("a", "b"), 2) == ([0, 1], ())
    assert len(class_columns((), ("a", "b"), 2)[1]) == 1
    with pytest.raises(Pseudo3dError, match="has 4 classes, the data 2"):
        class_columns(("a", "b", "c", "d"), ("a", "b"), 4)
    with pytest.raises(Pseudo3dError, match="other classes"):
        class_columns(("a", "x"), ("a", "b"), 2)
