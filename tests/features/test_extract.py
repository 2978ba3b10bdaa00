from dataclasses import replace

import numpy as np
import pytest
from reference import randomise
from videos import gradient, write_video

from pseudo3d import FeatureStore, Pseudo3dError, VideoEncoder, create_model, save_pretrained
from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.features.extract import extract


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    model = randomise(create_model("resnet14", num_classes=2)).eval()
    model.preprocessing = model.preprocessing.with_size(32)
    folder = save_pretrained(model, tmp_path_factory.mktemp("weights") / "net")
    return VideoEncoder(weights=folder, clips=3, device="cpu", dtype="float32")


@pytest.fixture
def samples(tmp_path):
    for i, name in enumerate(("b.mkv", "a.mkv", "c.mkv")):
        write_video(tmp_path / name, [np.roll(gradient(32, 48), 9 * i + t, axis=1) for t in range(6)])
    (tmp_path / "broken.mkv").write_bytes(b"no video")
    return SampleList(
        tmp_path,
        (
            Sample("b.mkv", "left", "train", "day 1"),
            Sample("a.mkv", "right", "test", "day 2"),
            Sample("broken.mkv", "left", "train"),
            Sample("c.mkv"),
        ),
    )


def test_rows_carry_labels_splits_groups_and_features(encoder, samples, tmp_path):
    calls = []
    report = extract(encoder, samples, tmp_path / "s", layers=("pool5", "prob"), on_video=calls.append)
    assert (report.encoded, report.already_done) == (3, 0)
    store = FeatureStore(tmp_path / "s")
    assert store.videos == ["a.mkv", "b.mkv", "c.mkv"]
    assert store.labels == ["right", "left", None]
    assert store.splits == ["test", "train", None]
    assert store.groups == ["day 2", "day 1", None]
    for video, features in zip(store.videos, store.features(), strict=True):
        assert np.array_equal(features, encoder.encode(tmp_path / video))
    assert store.features("prob").shape == (3, 2)
    assert store.info["layers"] == ["pool5", "prob"]
    assert list(report.failures) == ["broken.mkv"]
    assert store.failures == report.failures
    assert report.failures["broken.mkv"].startswith(str(tmp_path / "broken.mkv"))
    assert len(calls) == 4
    assert [call for call in calls if call] == list(report.failures.values())


def test_the_second_call_does_nothing_but_retry_failures(encoder, samples, tmp_path, monkeypatch):
    extract(encoder, samples, tmp_path / "s")
    part = tmp_path / "s/part-00000.parquet"
    before = part.read_bytes()
    read = []
    inner = VideoEncoder.encode_many

    def spy(self, paths, **more):
        paths = list(paths)
        read.extend(path.name for path in paths)
        return inner(self, paths, **more)

    monkeypatch.setattr(VideoEncoder, "encode_many", spy)
    report = extract(encoder, samples, tmp_path / "s")
    assert read == ["broken.mkv"]
    assert (report.encoded, report.already_done, list(report.failures)) == (0, 3, ["broken.mkv"])
    assert part.read_bytes() == before
    write_video(tmp_path / "broken.mkv", [gradient(32, 48)] * 4)  # repaired
    report = extract(encoder, samples, tmp_path / "s")
    assert (report.encoded, report.already_done, report.failures) == (1, 3, {})
    assert FeatureStore(tmp_path / "s").videos == ["a.mkv", "b.mkv", "broken.mkv", "c.mkv"]
    assert FeatureStore(tmp_path / "s").failures == {}


def test_a_run_that_was_cut_ends_with_the_same_numbers(encoder, samples, tmp_path):
    extract(encoder, samples, tmp_path / "whole")

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(encoder, samples, tmp_path / "cut", on_video=stop)
    assert FeatureStore(tmp_path / "cut").videos == ["b.mkv"]
    report = extract(encoder, samples, tmp_path / "cut")
    assert (report.encoded, report.already_done) == (2, 1)
    whole, cut = FeatureStore(tmp_path / "whole"), FeatureStore(tmp_path / "cut")
    assert cut.videos == whole.videos
    assert np.array_equal(cut.features(), whole.features())


def test_videos_that_left_the_list_stay_in_the_store(encoder, samples, tmp_path):
    extract(encoder, samples, tmp_path / "s")
    report = extract(encoder, replace(samples, samples=samples.samples[1:2]), tmp_path / "s")
    assert (report.encoded, report.already_done, report.failures) == (0, 1, {})  # no word of what was not asked for
    store = FeatureStore(tmp_path / "s")
    assert store.videos == ["a.mkv", "b.mkv", "c.mkv"]
    assert list(store.failures) == ["broken.mkv"]


def test_a_wrong_layer_makes_no_store(encoder, samples, tmp_path):
    for layers, words in ((("pool6",), "no layer 'pool6'"), ((), "layers is empty")):
        with pytest.raises(Pseudo3dError, match=words):
            extract(encoder, samples, tmp_path / "s", layers=layers)
        assert not (tmp_path / "s").exists()


def test_other_layers_are_another_store(encoder, samples, tmp_path):
    extract(encoder, samples, tmp_path / "s")
    with pytest.raises(Pseudo3dError, match=r"made with another layers \(\['pool5'\], now \['prob'\]\)"):
        extract(encoder, samples, tmp_path / "s", layers=("prob",))


def test_labels_that_changed_are_not_passed_over(encoder, samples, tmp_path):
    extract(encoder, samples, tmp_path / "s")
    changed = replace(samples, samples=tuple(replace(sample, group="day 3") for sample in samples.samples))
    with pytest.raises(Pseudo3dError, match=r"3 videos have another label, split or group than when .*\(b.mkv, a.mkv,"):
        extract(encoder, changed, tmp_path / "s")
    assert FeatureStore(tmp_path / "s").groups == ["day 2", "day 1", None]


def test_another_folder_with_the_same_names_is_not_the_same_videos(encoder, samples, tmp_path):
    extract(encoder, samples, tmp_path / "s")
    (tmp_path / "other").mkdir()
    for name in ("a.mkv", "b.mkv", "c.mkv"):
        write_video(tmp_path / "other" / name, [gradient(32, 48)] * 4)
    with pytest.raises(Pseudo3dError, match=r"made with another root .*; give a new folder for --out"):
        extract(encoder, replace(samples, root=tmp_path / "other"), tmp_path / "s")
