"""``p3d evaluate``: what a number must not hide, and options that would be ignored."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from evaluation_stores import official_store, write_store
from official_more_sets import write_activitynet, write_aslan, write_yupenn
from official_sets import write_ucf101
from test_evaluate_commands import write_pairs_store
from tiny import mistake, names, p3d

from pseudo3d.commands.protocol_classify import _by_split
from pseudo3d.data.annotations import Sample, SampleList, label_text
from pseudo3d.data.official import read_official
from pseudo3d.data.official.activitynet import read_activitynet
from pseudo3d.data.official.aslan import read_aslan
from pseudo3d.evaluation.results import read_result
from pseudo3d.evaluation.scores import read_scores, save_scores
from pseudo3d.features.store import FeatureStore, SourceFile, StoreWriter, VideoFeatures
from pseudo3d.files import sha256_of

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = ("a", "b", "c")


def labelled(*splits, count=6, **more):
    """Videos of three classes whose splits take turns."""
    return [
        Sample(f"{name}/{i}.mp4", name, splits[i % len(splits)] if splits else None, **more)
        for name in CLASSES
        for i in range(count)
    ]


def store_of(folder, listed, **more):
    return write_store(folder, SampleList(folder.parent, tuple(listed), CLASSES), CLASSES, **more)


def footnotes(out):
    return " / ".join(read_result(out).footnotes)


def test_videos_that_are_not_there_are_never_dropped_in_silence(tmp_path, capsys):
    """A part of the videos on the disk beside a store of all: however small the part is."""
    data = write_ucf101(tmp_path / "ucf", videos=False)
    samples = read_official("ucf101", data).samples
    store = write_store(tmp_path / "store", samples, samples.class_names)
    for sample in [each for each in samples.samples if each.path.endswith("_c01.avi")]:  # half of them
        (data / sample.path).parent.mkdir(parents=True, exist_ok=True)
        (data / sample.path).touch()
    command = ("evaluate", "ucf101", "--data", data, "--features", store, "--splits", "1", "--out", tmp_path / "out")
    told = mistake(capsys, *command)
    assert "12 videos of the official lists are not there" in told
    assert "give the lists alone as --data" in told
    assert p3d(capsys, *command, "--allow-missing")[0] == 0
    assert read_result(tmp_path / "out").facts["tested videos"] == {"1": 3}
    assert "12 videos of the official lists are not there and are left out" in footnotes(tmp_path / "out")
    alone = ("--data", data / "ucfTrainTestlist", "--features", store, "--splits", "1", "--out", tmp_path / "all")
    assert p3d(capsys, "evaluate", "ucf101", *alone)[0] == 0
    assert read_result(tmp_path / "all").facts["tested videos"] == {"1": 6}


def test_videos_that_failed_are_counted(tmp_path, capsys):
    store = store_of(tmp_path / "store", labelled())
    with StoreWriter(store, FeatureStore(store).info) as writer:
        writer.add_failure("a/bad.mp4", f"{tmp_path}/a/bad.mp4: no video stream")
    assert p3d(capsys, "evaluate", "hits", "--features", store, "--out", tmp_path / "out")[0] == 0
    assert "1 video was left out (a/bad.mp4: no video stream)" in footnotes(tmp_path / "out")


def test_options_of_an_extraction_beside_a_store(tmp_path, capsys):
    store = store_of(tmp_path / "store", labelled())
    command = ("evaluate", "hits", "--features", store, "--out", tmp_path / "out")
    told = mistake(capsys, *command, "--clips", "7", "--class-names", tmp_path / "none")
    assert "--class-names, --clips: of an extraction (--weights)" in told
    assert "--name is empty" in mistake(capsys, *command, "--name", " ")
    told = mistake(capsys, *command, "--groups", tmp_path / "none.txt")
    assert "none.txt" in told
    assert not (tmp_path / "out").exists()


def test_hits_on_the_videos_that_are_not_trained_on(tmp_path, capsys):
    store = store_of(tmp_path / "store", labelled("train", "train", "val"))
    assert p3d(capsys, "evaluate", "hits", "--features", store, "--out", tmp_path / "out")[0] == 0
    result = read_result(tmp_path / "out")
    assert result.facts["tested videos"] == {"all": 6}
    assert result.facts["sets"][0].endswith("val split")
    groups = tmp_path / "groups.txt"
    groups.write_text("".join(f"{name}/{i}.mp4 film\n" for name in CLASSES for i in range(6)))
    command = ("evaluate", "hits", "--features", store, "--groups", groups, "--out", tmp_path / "no")
    assert "1 groups are both in train and in test (film)" in mistake(capsys, *command)


def test_clips_taken_otherwise_are_told(tmp_path, capsys):
    data = write_ucf101(tmp_path / "ucf", videos=False)
    info = {"clips": 4, "sampler": "authors", "mirror": True, "weights": "random"}
    store = official_store(tmp_path / "store", "ucf101", data, info=info)
    command = ("evaluate", "ucf101", "--data", data, "--features", store, "--layer", "prob", "--out", tmp_path / "out")
    assert p3d(capsys, *command)[0] == 0
    told = footnotes(tmp_path / "out")
    for words in (
        "the sampler authors; this protocol's is uniform", "4 clips of each video", "the mirror image", "untrained",
        "the SVM is on the layer prob; the paper's representation is pool5",
    ):  # fmt: skip
        assert words in told
    paper = official_store(tmp_path / "paper", "ucf101", data, info={"clips": 20})
    command = ("evaluate", "ucf101", "--data", data, "--features", paper, "--out", tmp_path / "plain")
    assert p3d(capsys, *command)[0] == 0
    notes = read_result(tmp_path / "plain").footnotes
    assert all("excerpt" in note for note in notes)
    assert "--layer names no layer" in mistake(capsys, *command[:-1], tmp_path / "no", "--layer", "")


def test_segments_are_told(tmp_path, capsys):
    data = tmp_path / "anet"
    data.mkdir()
    write_activitynet(data)
    samples = read_activitynet(data, trimmed=True).samples
    store = write_store(tmp_path / "store", samples, samples.class_names)
    command = ("evaluate", "activitynet", "--data", data, "--features", store, "--trimmed", "--out", tmp_path / "out")
    assert p3d(capsys, *command)[0] == 0
    assert "every annotated segment was classified by itself" in footnotes(tmp_path / "out")


def test_aslan_on_other_layers_and_in_view_1(tmp_path, capsys):
    data = tmp_path / "aslan"
    write_aslan(data)
    store = write_pairs_store(tmp_path / "store", read_aslan(data).samples.samples)
    command = ("evaluate", "aslan", "--data", data, "--features", store, "--view", "1", "--c", "cv")
    assert p3d(capsys, *command, "--layers", "pool5", "--out", tmp_path / "out")[0] == 0
    told = footnotes(tmp_path / "out")
    assert "similarities on pool5; the paper's layers are prob, pool5, res5, res4" in told
    assert "View-1" in told
    (chosen,) = read_result(tmp_path / "out").facts["svm C chosen"]
    assert f"C = {chosen:g}, chosen by cross-validation on the training pairs" in told


def test_what_is_said_of_several_splits_is_said_once():
    said = {"1": ("a", "b"), "2": ("b", "c", "a"), "3": ("a",)}
    assert list(_by_split(said)) == ["every split: a", "splits 1 and 2: b", "split 2: c"]
    assert list(_by_split({"1": ("a", "b")})) == ["a", "b"]


def test_footnotes_of_aslan_say_what_is_odd_and_no_more(tmp_path, capsys):
    data = tmp_path / "aslan"
    write_aslan(data)
    store = write_pairs_store(tmp_path / "store", read_aslan(data).samples.samples)
    command = ("evaluate", "aslan", "--data", data, "--features", store, "--layers", "pool5")
    code, printed, _ = p3d(capsys, *command, "--out", tmp_path / "out")
    assert code == 0
    notes = read_result(tmp_path / "out").footnotes
    assert not any("View" in note for note in notes)
    pairs = read_aslan(data)
    assert f"an excerpt: 10 folds of {len(pairs.fold) // 10} pairs; ASLAN has 10 folds of 600" in notes
    (heads,) = [line.split() for line in printed.splitlines() if line.startswith("measured here")]
    assert heads == ["measured", "here", "value"]


def test_the_constant_of_each_split_is_recorded(tmp_path, capsys):
    data = write_ucf101(tmp_path / "ucf101")
    store = official_store(tmp_path / "store", "ucf101", data)
    command = ("evaluate", "ucf101", "--data", data, "--features", store, "--c", "cv", "--train-scores")
    assert p3d(capsys, *command, "--out", tmp_path / "out")[0] == 0
    facts = read_result(tmp_path / "out").facts
    assert facts["svm C chosen"].keys() == facts["svm C chosen for training scores"].keys() == {"1", "2", "3"}
    for split, c in facts["svm C chosen"].items():
        told = [note.partition(": ") for note in read_result(tmp_path / "out").footnotes]
        (where,) = [
            where for where, _, note in told if note == f"C = {c:g}, chosen by cross-validation on the training videos"
        ]
        assert where == "every split" or split in where.split()
    assert p3d(capsys, *command[:6], "--out", tmp_path / "fixed")[0] == 0
    assert "svm C chosen" not in read_result(tmp_path / "fixed").facts


@pytest.mark.parametrize("protocol", ["ucf101", "yupenn", "aslan"])
def test_a_constant_that_was_given_is_told(tmp_path, capsys, protocol):
    data = tmp_path / protocol
    if protocol == "aslan":
        write_aslan(data)
        store = write_pairs_store(tmp_path / "store", read_aslan(data).samples.samples)
    else:
        (write_ucf101 if protocol == "ucf101" else write_yupenn)(data)
        store = official_store(tmp_path / "store", protocol, data)
    command = ("evaluate", protocol, "--data", data, "--features", store)
    for c, told in (("100", True), ("1", False)):
        assert p3d(capsys, *command, "--c", c, "--out", tmp_path / c)[0] == 0
        assert ("C = 100 was given (--c); the paper states none, and ours is 1" in footnotes(tmp_path / c)) == told


def copied_store(folder, samples, contents, **info):
    """A store whose videos have these contents."""
    with StoreWriter(folder, {"sampler": "uniform", **info}) as writer:
        for number, (sample, content) in enumerate(zip(samples, contents, strict=True)):
            row = np.full(4, 0.1, np.float32)
            row[CLASSES.index(sample.label) if sample.label in CLASSES else number % 3] = 1.0
            writer.add(
                VideoFeatures(
                    sample.path, {"pool5": row}, (0,), 24, label=label_text(sample),
                    split=sample.split, group=sample.group, source=SourceFile(9, 0, content),
                )
            )  # fmt: skip
    return str(folder)


def test_a_scene_without_videos_and_one_that_is_there_twice(tmp_path, capsys):
    data = write_yupenn(tmp_path / "scenes")
    samples = read_official("yupenn", data).samples
    last = [sample.path for sample in samples.samples if sample.label == samples.class_names[-1]]
    few = write_store(tmp_path / "few", samples, samples.class_names, failed=last)
    command = ("evaluate", "yupenn", "--data", data, "--allow-missing", "--out", tmp_path / "out", "--features")
    told = mistake(capsys, *command, few)
    assert f"1 classes have fewer than two videos with features ({samples.class_names[-1]}: 0)" in told
    contents = ["same", "same", *map(str, range(len(samples.samples) - 2))]
    assert p3d(capsys, *command, copied_store(tmp_path / "twice", samples.samples, contents))[0] == 0
    assert "1 videos have the content of another one" in footnotes(tmp_path / "out")


def test_a_store_whose_network_has_seen_its_videos(tmp_path, capsys):
    """Without a protocol the number is shown, with what is wrong with it."""
    listed = labelled()
    weights = tmp_path / "run" / "checkpoints" / "best"
    weights.mkdir(parents=True)
    (weights / "model.safetensors").write_bytes(b"numbers")
    with (tmp_path / "run" / "split.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "split"))
        table.writerows((tmp_path / sample.path, sample.label, "train") for sample in listed)
    info = {
        "root": str(tmp_path), "weights": f"sha256:{sha256_of(weights / 'model.safetensors')}",
        "made_with": {"weights_from": str(weights)},
    }  # fmt: skip
    store = copied_store(tmp_path / "store", listed, [str(min(i, 16)) for i in range(18)], **info)
    code, printed, _ = p3d(capsys, "evaluate", store, "--out", tmp_path / "out")
    assert code == 0
    assert "note: 18 of 18 test videos are in the training list of the network" in printed
    assert "note: 1 videos have the content of another one (c/5.mp4 is c/4.mp4)" in printed
    assert len(json.loads((tmp_path / "out" / "metrics.json").read_text())["notes"]) == 2


def test_a_store_of_videos_with_several_labels(tmp_path, capsys):
    listed = [each for each in labelled("train", "test", more_labels=("a",)) if each.label != "a"]
    store = store_of(tmp_path / "store", listed)
    told = mistake(capsys, "evaluate", store)
    assert "12 videos have several labels (b/0.mp4, " in told
    assert "p3d evaluate hits" in told


def test_fused_decisions_without_training_scores_are_told_whatever_the_weights(tmp_path, capsys):
    data = write_ucf101(tmp_path / "ucf", videos=False)
    store = official_store(tmp_path / "store", "ucf101", data)
    command = ("evaluate", "ucf101", "--data", data, "--features", store, "--splits", "1", "--out", tmp_path / "run")
    assert p3d(capsys, *command)[0] == 0
    other = ("--layer", "prob", "--out", tmp_path / "other")
    assert p3d(capsys, *command[:-2], *other)[0] == 0
    for name, options in (("equal", ("--equal",)), ("given", ("--weights", "2", "1"))):
        command = ("evaluate", "fuse", tmp_path / "run", tmp_path / "other", *options, "--out", tmp_path / name)
        assert p3d(capsys, *command)[0] == 0
        assert "by the test videos' scores (not their labels)" in footnotes(tmp_path / name)


def test_scores_of_a_run_that_was_cut_do_not_stay_beside_others(tmp_path, capsys):
    data = write_ucf101(tmp_path / "ucf", videos=False)
    store = official_store(tmp_path / "store", "ucf101", data)
    command = ("evaluate", "ucf101", "--data", data, "--features", store, "--out", tmp_path / "out")
    assert p3d(capsys, *command)[0] == 0
    (tmp_path / "out" / "result.json").unlink()  # written last
    assert p3d(capsys, *command, "--splits", "2")[0] == 0
    assert [name for name in names(tmp_path / "out") if name.startswith("scores")] == ["scores.parquet"]
    scores = read_scores(tmp_path / "out" / "scores.parquet")
    save_scores(replace(scores, values=scores.values[:, ::-1]), tmp_path / "other.parquet")
    assert (
        p3d(capsys, "evaluate", "fuse", tmp_path / "out", tmp_path / "other.parquet", "--out", tmp_path / "f")[0] == 0
    )
