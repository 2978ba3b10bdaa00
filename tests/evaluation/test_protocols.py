from dataclasses import astuple

import numpy as np
import pytest
import torch
from reference import randomise
from sklearn.metrics import confusion_matrix, top_k_accuracy_score
from videos import gradient, write_video

from pseudo3d import Pseudo3dError, VideoError, create_model, read_video, sample_clips
from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.evaluation.protocols import ClipScores, count_hits, score_videos
from pseudo3d.inference import ClipRunner


def scored(prob, truth, skipped=()):
    """Scores of videos with the class indices ``truth``, or with several where it is a table of True and False."""
    truth = np.asarray(truth)
    truth = truth if truth.dtype == bool else np.eye(prob.shape[2], dtype=bool)[truth]
    return ClipScores(prob, truth, np.arange(len(prob)), skipped)


def same(one, other):
    """Whether two counts are the same numbers."""
    return repr(one) == repr(other) and np.array_equal(one.confusion, other.confusion)


def test_hits_by_hand():
    prob = np.array(
        [
            [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]],  # class 0: one clip of two; mean 0.40 0.40 0.20, equal: class order
            [[0.1, 0.5, 0.4], [0.1, 0.3, 0.6]],  # class 1: one of two; mean 0.10 0.40 0.50
            [[0.0, 0.1, 0.9], [0.4, 0.3, 0.3]],  # class 2: one of two; mean 0.20 0.20 0.60
        ]
    )
    scores = scored(prob, [0, 1, 2])
    np.testing.assert_allclose(scores.video_prob, [[0.4, 0.4, 0.2], [0.1, 0.4, 0.5], [0.2, 0.2, 0.6]])
    assert scores.hits() == {"clip hit@1": pytest.approx(3 / 6), "video hit@1": pytest.approx(2 / 3)}
    counts = scores.counts()
    assert (counts.videos, counts.clips, counts.clip_hit1, counts.video_hit1, counts.video_hit5) == (3, 6, 3, 2, None)
    assert counts.confusion.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]  # rows: true


def test_hit_at_5_from_six_classes_on():
    prob = np.tile(np.array([0.3, 0.2, 0.2, 0.15, 0.1, 0.05]), (6, 1, 1))
    assert scored(prob, np.arange(6)).hits() == {
        "clip hit@1": pytest.approx(1 / 6),
        "video hit@1": pytest.approx(1 / 6),
        "video hit@5": pytest.approx(5 / 6),
    }
    assert "video hit@5" not in scored(prob[:5, :, :5], np.arange(5)).hits()


def random_scores(videos=60, clips=4, classes=9, seed=0):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(classes), (videos, clips)).astype(np.float32), rng.integers(0, classes, videos)


def test_against_scikit_learn():
    prob, labels = random_scores()
    means = prob.astype(np.float64).mean(axis=1)
    clips = prob.reshape(-1, 9)
    expected = {
        "clip hit@1": top_k_accuracy_score(np.repeat(labels, 4), clips, k=1, labels=range(9)),
        "video hit@1": top_k_accuracy_score(labels, means, k=1, labels=range(9)),
        "video hit@5": top_k_accuracy_score(labels, means, k=5, labels=range(9)),
    }
    counts = scored(prob, labels).counts()
    assert counts.hits() == pytest.approx(expected, abs=1e-12)
    np.testing.assert_array_equal(counts.confusion, confusion_matrix(labels, means.argmax(1), labels=range(9)))


def test_several_labels_against_counting_by_hand():
    prob, _ = random_scores(seed=1)
    truth = np.random.default_rng(2).random((60, 9)) < 0.2
    truth[np.arange(60), np.arange(60) % 9] = True
    assert (truth.sum(axis=1) > 1).any()
    clip1 = video1 = video5 = 0
    for video in range(60):
        own = {c for c in range(9) if truth[video, c]}
        clip1 += sum(int(clip.argmax()) in own for clip in prob[video])
        best = sorted(range(9), key=lambda c: -sum(float(clip[c]) for clip in prob[video]))
        video1, video5 = video1 + (best[0] in own), video5 + bool(own & set(best[:5]))
    counts = scored(prob, truth).counts()
    assert astuple(counts) == (60, 240, clip1, video1, video5, None, ())


def test_parts_add_up_to_the_whole():
    prob, labels = random_scores(seed=3)
    whole = scored(prob, labels, ("b.mp4: bad", "d.mp4: bad")).counts()
    reasons = {1: ("d.mp4: bad",), 3: ("b.mp4: bad",)}
    parts = [scored(prob[r::7], labels[r::7], reasons.get(r, ())).counts() for r in range(7)]
    nothing = scored(prob[:0], labels[:0]).counts()
    assert same(sum(parts[1:], parts[0]), whole)
    assert same(nothing + whole, whole)
    one_by_one = [scored(prob[i : i + 1], labels[i : i + 1]).counts() for i in range(len(prob))]
    assert same(sum(one_by_one, nothing), scored(prob, labels).counts())
    assert whole.hits() == scored(prob, labels).hits()


def test_a_part_with_several_labels_leaves_no_confusion_matrix():
    prob, labels = random_scores(2)
    several = scored(prob[:1], np.ones((1, 9), bool)).counts()
    assert several.confusion is None
    assert (several + scored(prob[1:], labels[1:]).counts()).confusion is None


def test_counts_of_other_classes_do_not_add_up():
    few, many = (scored(*random_scores(2, 1, classes)).counts() for classes in (5, 6))
    with pytest.raises(ValueError, match="counts of 5 and of 6 classes cannot be added"):
        few + many


def test_no_video_has_no_score():
    prob, labels = random_scores(0)
    with pytest.raises(Pseudo3dError, match=r"no video was scored \(the list is empty\); a score needs at least one"):
        scored(prob, labels).hits()
    with pytest.raises(Pseudo3dError, match=r"no video was scored \(all 2 were left out, the first: a: bad\)"):
        scored(prob, labels, ("a: bad", "b: bad")).hits()


@pytest.fixture
def samples(tmp_path):
    for i, name in enumerate("abc"):
        write_video(tmp_path / f"{name}.mkv", [np.roll(gradient(32, 48), 9 * i + t, axis=1) for t in range(20)])
    return SampleList(tmp_path, (Sample("a.mkv", "x"), Sample("b.mkv", "y"), Sample("c.mkv", "x")))


def network(classes=2):
    model = randomise(create_model("p3d_resnet14", num_classes=classes)).eval()
    model.preprocessing = model.preprocessing.with_size(32)
    return model


@pytest.fixture(scope="module")
def runner():
    return ClipRunner(network(), device="cpu", dtype="float32", batch_size=4)


def test_scores_are_the_networks_probabilities(samples):
    model = network()
    calls = []
    runner = ClipRunner(model, device="cpu", dtype="float32", batch_size=4)
    scores = score_videos(runner, samples, clips=3, on_video=lambda: calls.append(1))
    assert scores.truth.tolist() == [[True, False], [False, True], [True, False]]
    assert scores.videos.tolist() == [0, 1, 2]
    assert scores.prob.shape == (3, 3, 2)
    assert len(calls) == 3
    for i, sample in enumerate(samples.samples):
        for j, indices in enumerate(sample_clips(20, 3, 16)):
            frames = read_video(samples.root / sample.path, indices=indices, size=(32, 32)).frames[..., ::-1]
            inputs = torch.from_numpy(frames - np.array(model.preprocessing.mean, np.float32)).permute(3, 0, 1, 2)
            with torch.no_grad():
                expected = model(inputs[None])[0].softmax(0).numpy()
            np.testing.assert_allclose(scores.prob[i, j], expected, atol=1e-5)


def test_counted_in_parts(samples, runner):
    """Five processes for three videos: two have nothing to do, and the sum is what one process counts."""
    scores = score_videos(runner, samples, clips=3)
    whole = scores.counts()
    assert same(count_hits(runner, samples, clips=3), whole)
    parts = [count_hits(runner, samples, clips=3, part=(r, 5)) for r in range(5)]
    assert [part.videos for part in parts] == [1, 1, 1, 0, 0]
    assert same(sum(parts[1:], parts[0]), whole)
    part = score_videos(runner, samples, clips=3, part=(1, 2))
    assert part.videos.tolist() == [1]
    np.testing.assert_array_equal(part.prob, scores.prob[1:2])
    assert score_videos(runner, samples, clips=3, part=(3, 4)).prob.shape == (0, 3, 2)


@pytest.mark.parametrize("part", [(2, 2), (-1, 2), (0, 0)])
def test_a_part_that_does_not_exist(samples, runner, part):
    with pytest.raises(ValueError, match=r"part must be \(r, n\) with r from 0 to n - 1, got"):
        count_hits(runner, samples, clips=1, part=part)


def test_a_video_of_several_classes_is_right_with_either(samples, runner):
    several = tuple(Sample(sample.path, "x", more_labels=("y",)) for sample in samples.samples)
    counts = count_hits(runner, SampleList(samples.root, several), clips=2)
    assert astuple(counts) == (3, 6, 6, 3, None, None, ())


def test_a_network_for_other_classes(samples):
    with pytest.raises(ValueError, match="the network has 3 classes, the data 2"):
        score_videos(ClipRunner(network(3), device="cpu"), samples, clips=1)
    model = network()
    model.class_names = ("y", "x")
    with pytest.raises(ValueError, match=r"classes are \('y', 'x'\), the data's \('x', 'y'\), in index order"):
        count_hits(ClipRunner(model, device="cpu"), samples, clips=1)


def test_a_test_set_has_no_holes(samples, runner):
    (samples.root / "b.mkv").write_bytes(b"no video")
    for score in (score_videos, count_hits):
        with pytest.raises(VideoError, match=r"b\.mkv"):
            score(runner, samples, clips=1)


def test_bad_videos_are_left_out_and_named(samples, runner):
    sound = score_videos(runner, samples, clips=2)
    (samples.root / "b.mkv").write_bytes(b"no video")
    calls = []
    scores = score_videos(runner, samples, clips=2, skip_bad=True, on_video=lambda: calls.append(1))
    assert len(calls) == 3
    assert scores.videos.tolist() == [0, 2]
    np.testing.assert_array_equal(scores.prob, sound.prob[[0, 2]])
    np.testing.assert_array_equal(scores.truth, sound.truth[[0, 2]])
    (reason,) = scores.skipped
    assert reason.startswith(f"{samples.root / 'b.mkv'}: ")
    assert same(count_hits(runner, samples, clips=2, skip_bad=True), scores.counts())
    alone = count_hits(runner, samples, clips=2, skip_bad=True, part=(1, 3))
    assert (alone.videos, alone.skipped) == (0, (reason,))
    with pytest.raises(Pseudo3dError, match=r"no video was scored \(all 1 were left out, the first: .*b\.mkv: "):
        alone.hits()


def test_scores_that_are_not_finite(samples, runner, monkeypatch):
    compute = runner.compute
    monkeypatch.setattr(runner, "compute", lambda *args: {"prob": compute(*args)["prob"] * np.float32("nan")})
    with pytest.raises(Pseudo3dError, match=r"a\.mkv: the network's scores are not finite; lower its learning rate"):
        count_hits(runner, samples, clips=1)


@pytest.fixture
def uneven(samples):
    """Also a video whose clips are all one, since it is looped, and a file that is none."""
    write_video(samples.root / "d.mkv", [gradient(32, 48)] * 5)
    (samples.root / "e.mkv").write_bytes(b"no video")
    return SampleList(samples.root, (*samples.samples, Sample("d.mkv", "y"), Sample("e.mkv", "y")))


def test_processes_decode_the_same_bits(uneven, runner):
    here = score_videos(runner, uneven, clips=3, skip_bad=True)
    there = score_videos(runner, uneven, clips=3, skip_bad=True, workers=2)
    assert here.videos.tolist() == there.videos.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(there.prob, here.prob)
    assert there.skipped == here.skipped


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, None])
def test_processes_count_the_same(uneven, runner, workers):
    here = count_hits(runner, uneven, clips=3, skip_bad=True)
    parts = [count_hits(runner, uneven, clips=3, skip_bad=True, workers=workers, part=(r, 2)) for r in range(2)]
    assert same(parts[0] + parts[1], here)
    with pytest.raises(VideoError, match=r"e\.mkv"):
        count_hits(runner, uneven, clips=3, workers=workers)
