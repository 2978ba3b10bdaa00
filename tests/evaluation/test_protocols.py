import numpy as np
import pytest
import torch
from reference import randomise
from videos import gradient, write_video

from pseudo3d import VideoError, create_model, read_video, sample_clips
from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.evaluation.protocols import ClipScores, score_videos
from pseudo3d.inference import ClipRunner


def test_hits_by_hand():
    prob = np.array(
        [
            [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]],  # class 0: one clip of two; mean 0.40 0.40 0.20, equal: class order
            [[0.1, 0.5, 0.4], [0.1, 0.3, 0.6]],  # class 1: one of two; mean 0.10 0.40 0.50
            [[0.0, 0.1, 0.9], [0.4, 0.3, 0.3]],  # class 2: one of two; mean 0.20 0.20 0.60
        ]
    )
    scores = ClipScores(prob, np.array([0, 1, 2]))
    np.testing.assert_allclose(scores.video_prob, [[0.4, 0.4, 0.2], [0.1, 0.4, 0.5], [0.2, 0.2, 0.6]])
    assert scores.hits() == {"clip hit@1": pytest.approx(3 / 6), "video hit@1": pytest.approx(2 / 3)}


def test_hit_at_5_from_six_classes_on():
    prob = np.tile(np.array([0.3, 0.2, 0.2, 0.15, 0.1, 0.05]), (6, 1, 1))
    assert ClipScores(prob, np.arange(6)).hits() == {
        "clip hit@1": pytest.approx(1 / 6),
        "video hit@1": pytest.approx(1 / 6),
        "video hit@5": pytest.approx(5 / 6),
    }


@pytest.fixture
def samples(tmp_path):
    for i, name in enumerate("abc"):
        write_video(tmp_path / f"{name}.mkv", [np.roll(gradient(32, 48), 9 * i + t, axis=1) for t in range(20)])
    return SampleList(tmp_path, (Sample("a.mkv", "x"), Sample("b.mkv", "y"), Sample("c.mkv", "x")))


def network(classes=2):
    model = randomise(create_model("p3d_resnet14", num_classes=classes)).eval()
    model.preprocessing = model.preprocessing.with_size(32)
    return model


def test_scores_are_the_networks_probabilities(samples):
    model = network()
    calls = []
    runner = ClipRunner(model, device="cpu", dtype="float32", batch_size=4)
    scores = score_videos(runner, samples, clips=3, on_video=lambda: calls.append(1))
    assert scores.labels.tolist() == [0, 1, 0]
    assert scores.prob.shape == (3, 3, 2)
    assert len(calls) == 3
    for i, sample in enumerate(samples.samples):
        for j, indices in enumerate(sample_clips(20, 3, 16)):
            frames = read_video(samples.root / sample.path, indices=indices, size=(32, 32)).frames[..., ::-1]
            inputs = torch.from_numpy(frames - np.array(model.preprocessing.mean, np.float32)).permute(3, 0, 1, 2)
            with torch.no_grad():
                expected = model(inputs[None])[0].softmax(0).numpy()
            np.testing.assert_allclose(scores.prob[i, j], expected, atol=1e-5)


def test_a_network_for_other_classes(samples):
    with pytest.raises(ValueError, match="the network has 3 classes, the data 2"):
        score_videos(ClipRunner(network(3), device="cpu"), samples, clips=1)
    model = network()
    model.class_names = ("y", "x")
    with pytest.raises(ValueError, match=r"classes are \('y', 'x'\), the data's \('x', 'y'\), in index order"):
        score_videos(ClipRunner(model, device="cpu"), samples, clips=1)


def test_a_test_set_has_no_holes(samples):
    (samples.root / "b.mkv").write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"b\.mkv"):
        score_videos(ClipRunner(network(), device="cpu"), samples, clips=1)
