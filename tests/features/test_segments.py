"""Segments of videos in lists, stores and training: rows of their own, of a file that is looked at as a file."""

import csv
import os
from dataclasses import replace

import numpy as np
import pytest
from reference import randomise
from videos import gradient, write_video

from pseudo3d import FeatureStore, Preprocessing, Pseudo3dError, VideoEncoder, create_model, read_video, save_pretrained
from pseudo3d.data.annotations import read_samples
from pseudo3d.data.augmentation import Augmentation
from pseudo3d.data.dataset import TrainingClips
from pseudo3d.data.sampler import ClipKey
from pseudo3d.features.check import check_store
from pseudo3d.features.extract import extract
from pseudo3d.files import sha256_of
from pseudo3d.video.index import IndexCache

PARTS = ("a.mkv", "a.mkv#t=0.5,1.5", "a.mkv#t=2,2.3", "b.mkv#t=1", "b.mkv#t=7,9")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    model = randomise(create_model("resnet14", num_classes=2)).eval()
    model.preprocessing = model.preprocessing.with_size(32)
    folder = save_pretrained(model, tmp_path_factory.mktemp("weights") / "net")
    return VideoEncoder(weights=folder, clips=3, device="cpu", dtype="float32", workers=0)


@pytest.fixture
def listed(tmp_path):
    """A table of segments of two videos of 3 s, as a person or `p3d train` writes it."""
    for shift, name in enumerate(("a.mkv", "b.mkv")):
        pictures = [np.roll(gradient(32, 48), 9 * shift + t, axis=1) for t in range(30)]
        write_video(tmp_path / name, pictures, fps=10)
    with (tmp_path / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("path", "label"), *((part, part[0]) for part in PARTS)])
    return tmp_path / "list.csv"


def test_a_row_for_each_segment(encoder, listed, tmp_path):
    samples = read_samples(listed)
    report = extract(encoder, samples, tmp_path / "store", per_clip=True)
    assert (report.encoded, list(report.failures)) == (4, ["b.mkv#t=7,9"])
    assert "no frame is shown from 7 s to 9 s" in report.failures["b.mkv#t=7,9"]
    store = FeatureStore(tmp_path / "store")
    assert store.videos == sorted(PARTS[:4])
    assert store.labels == ["a", "a", "a", "b"]
    for video, features in zip(store.videos, store.features(), strict=True):
        assert np.array_equal(features, encoder.encode(tmp_path / video))
    assert len({features.tobytes() for features in store.features()}) == 4
    last = max(0, 30 - encoder.plan_.preprocessing.num_frames)
    assert store.timeline("a.mkv").starts.tolist() == [0, last // 2, last]
    timeline = store.timeline("a.mkv#t=0.5,1.5")  # of frames 5 to 14, numbered as in the file
    room = max(0, 10 - encoder.plan_.preprocessing.num_frames)
    assert timeline.starts.tolist() == [5, 5 + room // 2, 5 + room]
    assert timeline.times.tolist() == pytest.approx([start / 10 for start in timeline.starts])
    assert {source.sha256 for source in store.sources[:3]} == {sha256_of(tmp_path / "a.mkv")}
    assert store.table["num_frames"].to_pylist() == [30] * 4


def test_a_second_run_looks_at_the_files(encoder, listed, tmp_path):
    samples = read_samples(listed)
    extract(encoder, samples, tmp_path / "store")
    assert extract(encoder, samples, tmp_path / "store").encoded == 0
    before = FeatureStore(tmp_path / "store").features()
    os.utime(tmp_path / "a.mkv", ns=(1, 1))  # a copy: the content tells that it has not changed
    assert extract(encoder, samples, tmp_path / "store").encoded == 0
    write_video(tmp_path / "a.mkv", [gradient(32, 48)[::-1]] * 31, fps=10)
    assert extract(encoder, samples, tmp_path / "store").encoded == 3
    after = FeatureStore(tmp_path / "store").features()
    assert [np.array_equal(*rows) for rows in zip(before, after, strict=True)] == [False, False, False, True]
    assert check_store(tmp_path / "store", videos=True) == []
    (tmp_path / "a.mkv").unlink()
    assert [finding.text.split(":")[0] for finding in check_store(tmp_path / "store", videos=True)] == sorted(PARTS[:3])
    extract(encoder, replace(samples, samples=samples.samples[3:]), tmp_path / "store", prune=True)
    assert FeatureStore(tmp_path / "store").videos == ["b.mkv#t=1"]


def test_segments_in_lists(listed, tmp_path):
    assert [sample.path for sample in read_samples(listed).samples] == sorted(PARTS)
    (tmp_path / "list.txt").write_text("a.mkv#t=1,2 left\nc.mkv#t=1,2 left\n")
    with pytest.raises(Pseudo3dError, match=r"1 files that do not exist \(c\.mkv#t=1,2\)"):
        read_samples(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("my a.mkv#t=1,2\n")
    with pytest.raises(Pseudo3dError, match=r"'my a\.mkv#t=1,2' has no label"):
        read_samples(tmp_path / "list.txt")


def test_the_group_of_a_file_is_that_of_its_segments(listed, tmp_path):
    (tmp_path / "groups.txt").write_text("a film1\nb.mkv film2\n")
    groups = [sample.group for sample in read_samples(listed, groups=tmp_path / "groups.txt").samples]
    assert groups == ["film1"] * 3 + ["film2"] * 2


def test_training_clips_come_from_the_segment(listed, tmp_path):
    samples = read_samples(listed)
    net = Preprocessing(num_frames=4, resize=(32, 48), crop=(32, 48))
    clips = TrainingClips(samples, net, Augmentation(), seed=0, index=IndexCache(tmp_path / "index"))
    whole = {name: read_video(tmp_path / name).frames for name in ("a.mkv", "b.mkv")}

    def starts(place, epochs=60):
        name = samples.samples[place].path[:5]
        for epoch in range(epochs):
            frames = clips[ClipKey(epoch, place)].frames
            first = [i for i in range(30) if np.array_equal(whole[name][i], frames[0])]
            assert len(first) == 1
            yield first[0], frames

    places = {sample.path: i for i, sample in enumerate(samples.samples)}
    seen = {first for first, _ in starts(places["a.mkv#t=0.5,1.5"])}
    assert seen == set(range(5, 12))
    for first, frames in starts(places["a.mkv#t=2,2.3"], 3):  # three frames: looped
        assert first == 20
        assert np.array_equal(frames, whole["a.mkv"][[20, 21, 22, 20]])
    assert {first for first, _ in starts(places["b.mkv#t=1"])} <= set(range(10, 27))
    assert str(clips[ClipKey(0, places["b.mkv#t=7,9"])]).startswith(str(tmp_path / "b.mkv#t=7,9"))
