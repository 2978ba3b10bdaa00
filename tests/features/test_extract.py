import hashlib
import os
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import randomise
from tiny import mistake, p3d
from videos import gradient, write_video

from pseudo3d import FeatureStore, Pseudo3dError, VideoEncoder, create_model, save_pretrained
from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.features import writer as writer_module
from pseudo3d.features.extract import Progress, estimate, extract
from pseudo3d.features.store import SourceFile


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    model = randomise(create_model("resnet14", num_classes=2)).eval()
    model.preprocessing = model.preprocessing.with_size(32)
    folder = save_pretrained(model, tmp_path_factory.mktemp("weights") / "net")
    return VideoEncoder(weights=folder, clips=3, device="cpu", dtype="float32", workers=0)


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
    assert [call.clips for call in calls if call.error is None] == [3, 3, 3]
    assert [call for call in calls if call.error] == [Progress(report.failures["broken.mkv"], 0)]
    assert report.clips == 9
    assert [store.sources[i] for i in range(3)] == [
        SourceFile(path.stat().st_size, path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in (tmp_path / "a.mkv", tmp_path / "b.mkv", tmp_path / "c.mkv")
    ]


@pytest.fixture
def read(monkeypatch):
    """The names of the videos that are handed out to be decoded, as they are."""
    names = []
    inner = VideoEncoder.encode_unordered

    def spy(self, paths, **more):
        def noted():
            for index, path in paths:
                names.append(path.name)
                yield index, path

        return inner(self, noted(), **more)

    monkeypatch.setattr(VideoEncoder, "encode_unordered", spy)
    return names


def test_the_second_call_does_nothing(encoder, samples, tmp_path, read):
    extract(encoder, samples, tmp_path / "s")
    part = tmp_path / "s/part-00000.parquet"
    before = part.read_bytes()
    read.clear()
    todo = []
    report = extract(encoder, samples, tmp_path / "s", on_start=todo.append)
    assert read == []
    assert (report.encoded, report.already_done, list(report.failures)) == (0, 3, ["broken.mkv"])
    assert (len(todo[0].videos), todo[0].done, todo[0].failed) == (0, 3, 1)
    assert part.read_bytes() == before


def test_failed_videos_are_tried_again_when_asked_or_changed(encoder, samples, tmp_path, read):
    extract(encoder, samples, tmp_path / "s")
    read.clear()
    report = extract(encoder, samples, tmp_path / "s", retry_failed=True)
    assert read == ["broken.mkv"]
    assert (report.encoded, list(report.failures)) == (0, ["broken.mkv"])
    read.clear()
    write_video(tmp_path / "broken.mkv", [gradient(32, 48)] * 4)  # repaired
    report = extract(encoder, samples, tmp_path / "s")
    assert read == ["broken.mkv"]
    assert (report.encoded, report.already_done, report.failures) == (1, 3, {})
    assert FeatureStore(tmp_path / "s").videos == ["a.mkv", "b.mkv", "broken.mkv", "c.mkv"]
    assert FeatureStore(tmp_path / "s").failures == {}


def test_a_replaced_video_is_done_again(encoder, samples, tmp_path, read):
    extract(encoder, samples, tmp_path / "s")
    old = FeatureStore(tmp_path / "s").features()
    os.utime(tmp_path / "a.mkv", ns=(1, 1))  # touched, or copied: the content is what it was
    write_video(tmp_path / "c.mkv", [np.roll(gradient(32, 48), 40, axis=0)] * 9)
    read.clear()
    todo = []
    report = extract(encoder, samples, tmp_path / "s", on_start=todo.append)
    assert read == ["c.mkv"]
    assert todo[0].changed == {"c.mkv"}
    assert (report.encoded, report.already_done) == (1, 2)
    store = FeatureStore(tmp_path / "s")
    assert store.videos == ["a.mkv", "b.mkv", "c.mkv"]
    assert np.array_equal(store.features()[:2], old[:2])
    assert np.array_equal(store.features()[2], encoder.encode(tmp_path / "c.mkv"))


def test_a_replaced_video_that_fails_leaves_no_old_row(encoder, samples, tmp_path):
    extract(encoder, samples, tmp_path / "s")
    (tmp_path / "c.mkv").write_bytes(b"no video any more")
    report = extract(encoder, samples, tmp_path / "s")
    assert sorted(report.failures) == ["broken.mkv", "c.mkv"]
    assert FeatureStore(tmp_path / "s").videos == ["a.mkv", "b.mkv"]


def test_a_video_that_changes_while_it_is_read_fails(encoder, samples, tmp_path, monkeypatch):
    inner = VideoEncoder.encode_unordered

    def spy(self, paths, **more):
        for index, result in inner(self, paths, **more):
            if result.path.name == "a.mkv":
                with result.path.open("ab") as file:
                    file.write(b"more")
            yield index, result

    monkeypatch.setattr(VideoEncoder, "encode_unordered", spy)
    report = extract(encoder, samples, tmp_path / "s")
    assert re.search(r"a\.mkv: changed while it was read; run the same command again", report.failures["a.mkv"])
    monkeypatch.undo()
    assert list(extract(encoder, samples, tmp_path / "s").failures) == ["broken.mkv"]  # it has changed: tried again


def test_a_run_that_goes_on_runs_as_the_first_one(encoder, samples, tmp_path):
    weights = encoder.weights
    first = VideoEncoder(
        weights=weights, clips=3, device="cpu", dtype="float32", batch_size=3, engine="eager", workers=0
    )
    extract(first, replace(samples, samples=samples.samples[:1]), tmp_path / "s")
    later = VideoEncoder(weights=weights, clips=3, workers=0)
    extract(later, samples, tmp_path / "s")
    assert {**later.runner_.describe()} == {
        "engine": "eager", "device": "cpu", "dtype": "float32", "batch_size": 3, "threads": torch.get_num_threads(),
    }  # fmt: skip
    assert (later.engine, later.batch_size) == ("auto", None)  # the arguments stay what they were
    assert later.runner_.engine.reason == "as in the run before"
    extract(first, samples, tmp_path / "whole")
    assert np.array_equal(FeatureStore(tmp_path / "s").features(), FeatureStore(tmp_path / "whole").features())
    other = VideoEncoder(weights=weights, clips=3, batch_size=2, workers=0)
    with pytest.raises(Pseudo3dError, match=r"made with another batch_size \(3, now 2\); give a new folder for --out"):
        extract(other, samples, tmp_path / "s")


def test_threads_are_those_of_the_first_run(encoder, samples, tmp_path, one_thread):
    extract(encoder, replace(samples, samples=samples.samples[:1]), tmp_path / "s")
    torch.set_num_threads(2)
    extract(VideoEncoder(weights=encoder.weights, clips=3, workers=0), samples, tmp_path / "s")
    assert torch.get_num_threads() == 1


def test_other_versions_go_on_with_a_word(encoder, samples, tmp_path, caplog):
    extract(encoder, samples, tmp_path / "s")
    path = tmp_path / "s/store.json"
    told = path.read_text()
    assert f'"torch": "{torch.__version__}"' in told
    path.write_text(told.replace(f'"torch": "{torch.__version__}"', '"torch": "2.11.0"'))
    report = extract(encoder, samples, tmp_path / "s", retry_failed=True)
    assert report.already_done == 3
    assert "made with other software (torch 2.11.0 then, " in caplog.text
    assert FeatureStore(tmp_path / "s").info["made_with"]["torch"] == "2.11.0"


def test_clips_of_their_own(encoder, samples, tmp_path):
    long = write_video(tmp_path / "long.mkv", [np.roll(gradient(32, 48), 5 * t, axis=1) for t in range(50)], fps=10)
    dense = VideoEncoder(
        weights=encoder.weights, sampler="sliding", stride=10, device="cpu", dtype="float32", workers=0
    )
    frames = dense.load().plan_.preprocessing.num_frames
    extract(dense, SampleList(tmp_path, (Sample("long.mkv"),)), tmp_path / "s", per_clip=True)
    store = FeatureStore(tmp_path / "s")
    starts, times = store.timeline("long.mkv")
    expected = [*range(0, 50 - frames + 1, 10)]
    expected += [50 - frames] if expected[-1] != 50 - frames else []
    assert starts.tolist() == expected
    assert np.allclose(times, starts / 10)
    clips = store.clip_features("long.mkv")
    assert clips.shape == (len(starts), 2048)
    assert np.allclose(clips.mean(axis=0), store.features()[0], rtol=1e-6, atol=1e-7)
    assert np.allclose(store.features()[0], dense.encode(long), rtol=1e-6, atol=1e-7)  # added up as the clips come


def test_rows_do_not_wait_for_a_long_video(encoder, samples, tmp_path, monkeypatch):
    """Ten seconds after a video is done its row is durable, though the next one is not done yet."""
    now = [0.0]
    monkeypatch.setattr(writer_module.time, "monotonic", lambda: now[0])
    inner, durable = type(encoder.load().runner_).compute, []

    def compute(self, batch, layers):
        durable.append(len(FeatureStore(tmp_path / "s")))
        return inner(self, batch, layers)

    def on_video(_):
        now[0] += 11  # while the next one is decoded

    monkeypatch.setattr(type(encoder.runner_), "compute", compute)
    extract(encoder, samples, tmp_path / "s", on_video=on_video)
    assert durable == [0, 1, 2]


def test_ctrl_c_finishes_the_batch_in_hand(encoder, samples, tmp_path, monkeypatch):
    inner = type(encoder.load().runner_).compute
    computed = []

    def compute(self, batch, layers):
        if not computed:
            signal.raise_signal(signal.SIGINT)
        result = inner(self, batch, layers)
        computed.append(len(batch))
        return result

    monkeypatch.setattr(type(encoder.runner_), "compute", compute)
    with pytest.raises(KeyboardInterrupt):
        extract(encoder, samples, tmp_path / "s")
    assert len(computed) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert len(FeatureStore(tmp_path / "s")) < 3
    extract(encoder, samples, tmp_path / "s")
    assert FeatureStore(tmp_path / "s").videos == ["a.mkv", "b.mkv", "c.mkv"]


def test_an_estimate(encoder, samples, tmp_path):
    paths = [tmp_path / name for name in ("a.mkv", "broken.mkv", "c.mkv")]
    about = estimate(encoder, paths * 10, ("pool5",))
    assert (about.clips, about.tried) == (3.0, 3)
    assert about.seconds == pytest.approx(30 * (about.network_s + about.decode_s / torch.get_num_threads()))
    assert estimate(encoder, [tmp_path / "broken.mkv"], ("pool5",)) is None
    assert estimate(encoder, [], ("pool5",)) is None


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


def test_mirrored_and_resized_stores_are_of_their_own_kind(encoder, samples, tmp_path, monkeypatch):
    options = {**encoder.get_params(), "resize": (32, 48), "mirror": True}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    extract(VideoEncoder(**options), samples, whole, per_clip=True)
    extract(VideoEncoder(**options), SampleList(tmp_path, samples.samples[:2]), cut, per_clip=True)
    report = extract(VideoEncoder(**options), samples, cut, per_clip=True)  # goes on where it stopped
    assert (report.encoded, report.already_done) == (1, 2)
    one, other = FeatureStore(whole), FeatureStore(cut)
    assert one.info["mirror"] is True
    assert one.info["preprocessing"]["resize"] == [32, 48]
    assert np.array_equal(one.features(), other.features())
    for change, words in (
        ({"mirror": False}, r"made with another mirror \(True, now none\)"),
        ({"resize": None}, r"made with another preprocessing\.resize \(\[32, 48\], now \[32, 32\]\)"),
    ):
        with pytest.raises(Pseudo3dError, match=words):
            extract(VideoEncoder(**{**options, **change}), samples, cut, per_clip=True)
    extract(encoder, samples, tmp_path / "plain")
    assert "mirror" not in FeatureStore(tmp_path / "plain").info  # as in stores of before
    with pytest.raises(Pseudo3dError, match=r"made with another mirror \(none, now True\)"):
        extract(VideoEncoder(**{**encoder.get_params(), "mirror": True}), samples, tmp_path / "plain")


def test_the_command_takes_a_size_a_mirror_and_a_seed(encoder, samples, tmp_path, capsys):
    started = ("extract", tmp_path, "--weights", encoder.weights, "--device", "cpu", "--workers", "0", "--clips", "2")
    for size, resize in (("40", 40), ("32,48", [32, 48])):
        out = tmp_path.parent / f"{tmp_path.name} store {size}"
        code, _, _ = p3d(
            capsys, *started, "--out", out, "--resize", size, "--mirror", "--sampler", "random", "--seed", "3"
        )
        assert code == 1  # one of the videos is broken
        info = FeatureStore(out).info
        found = info["preprocessing"]["resize"], info["mirror"], info["sampler"], info["seed"], info["clips"]
        assert found == (resize, True, "random", 3, 2)
    for size in ("40x", "1,2,3", "-4"):
        line = mistake(capsys, *started, "--out", out, f"--resize={size}")
        assert f"--resize takes PIXELS or None, got '{size}'" in line
    assert "does not fit into frames resized to 31" in mistake(capsys, *started, "--out", out, "--resize", "31")


def test_random_clips_are_the_same_when_a_run_goes_on(encoder, samples, tmp_path):
    drawn = VideoEncoder(**{**encoder.get_params(), "sampler": "random", "seed": 7})
    for i, name in enumerate(("a.mkv", "b.mkv", "c.mkv")):
        write_video(tmp_path / name, [np.roll(gradient(32, 48), 5 * i + t, axis=1) for t in range(60)])
    extract(drawn, samples, tmp_path / "whole")
    extract(drawn, SampleList(tmp_path, samples.samples[1:]), tmp_path / "cut")
    extract(drawn, samples, tmp_path / "cut")
    one, other = FeatureStore(tmp_path / "whole"), FeatureStore(tmp_path / "cut")
    assert np.array_equal(one.features(), other.features())
    assert (one.info["sampler"], one.info["seed"]) == ("random", 7)
    with pytest.raises(Pseudo3dError, match=r"made with another seed \(7, now 8\)"):
        extract(drawn.set_params(seed=8), samples, tmp_path / "cut")


def test_a_wrong_layer_makes_no_store(encoder, samples, tmp_path):
    for layers, words in ((("pool6",), "no layer 'pool6'"), ((), "layers is empty")):
        with pytest.raises(Pseudo3dError, match=words):
            extract(encoder, samples, tmp_path / "s", layers=layers)
        assert not (tmp_path / "s").exists()


def test_other_layers_are_another_store(encoder, samples, tmp_path):
    extract(encoder, samples, tmp_path / "s")
    with pytest.raises(Pseudo3dError, match=r"made with another layers \(\['pool5'\], now \['prob'\]\)"):
        extract(encoder, samples, tmp_path / "s", layers=("prob",))


def test_labels_change_without_extracting_again(encoder, samples, tmp_path, read):
    extract(encoder, samples, tmp_path / "s")
    before = FeatureStore(tmp_path / "s").features()
    read.clear()
    anew = SampleList(samples.root, (Sample("a.mkv", "up", "val"), Sample("c.mkv", "down", group="day 3")))
    told = []
    report = extract(encoder, anew, tmp_path / "s", on_start=told.append)
    assert (report.encoded, report.already_done, read) == (0, 2, [])
    assert list(told[0].redescribed) == ["a.mkv", "c.mkv"]
    store = FeatureStore(tmp_path / "s")
    assert store.labels == ["up", "left", "down"]
    assert store.splits == ["val", "train", None]
    assert store.groups == ["day 2", "day 1", "day 3"]  # what the new list does not say stays
    assert np.array_equal(store.features(), before)
    extract(encoder, replace(samples, samples=tuple(Sample(each.path) for each in samples.samples)), tmp_path / "s")
    assert FeatureStore(tmp_path / "s").labels == store.labels


def test_prune_removes_what_is_gone_and_nothing_else(encoder, samples, tmp_path):
    extract(encoder, samples, tmp_path / "s")
    (samples.root / "b.mkv").unlink()
    (samples.root / "broken.mkv").unlink()
    part = replace(samples, samples=samples.samples[3:])  # a.mkv is there still, though not asked for
    extract(encoder, part, tmp_path / "s")
    assert FeatureStore(tmp_path / "s").videos == ["a.mkv", "b.mkv", "c.mkv"]
    told = []
    extract(encoder, part, tmp_path / "s", prune=True, on_start=told.append)
    assert sorted(told[0].vanished) == ["b.mkv", "broken.mkv"]
    store = FeatureStore(tmp_path / "s")
    assert (store.videos, store.failures) == (["a.mkv", "c.mkv"], {})


def test_another_folder_with_the_same_names_is_not_the_same_videos(encoder, samples, tmp_path):
    extract(encoder, samples, tmp_path / "s")
    (tmp_path / "other").mkdir()
    for name in ("a.mkv", "b.mkv", "c.mkv"):
        write_video(tmp_path / "other" / name, [gradient(32, 48)] * 4)
    with pytest.raises(Pseudo3dError, match=r"made with another root .*; give a new folder for --out"):
        extract(encoder, replace(samples, root=tmp_path / "other"), tmp_path / "s")
