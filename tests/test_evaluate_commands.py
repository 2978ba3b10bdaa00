"""``p3d evaluate NAME``: every protocol from its official lists and a store, or straight from small real videos."""

import json

import numpy as np
import pytest
from evaluation_stores import official_store, write_store
from official_more_sets import write_activitynet, write_aslan, write_dynamic_scene, write_yupenn
from official_sets import write_hmdb51, write_kinetics, write_sports1m, write_ucf101
from tiny import mistake, names, p3d

from pseudo3d.cli import main
from pseudo3d.commands.evaluate import _PROTOCOLS as LISTED
from pseudo3d.commands.protocols import PROTOCOLS
from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.data.official import read_official
from pseudo3d.evaluation.results import read_result
from pseudo3d.evaluation.scores import read_scores
from pseudo3d.features.store import FeatureStore, StoreWriter, VideoFeatures

pytestmark = pytest.mark.usefixtures("one_thread")

WRITTEN = ["confusion.png", "confusion.svg", "result.json", "table.csv", "table.md", "table.tex"]


def test_ucf101_svm_from_a_store(tmp_path, capsys):
    data = write_ucf101(tmp_path / "ucf", videos=False)
    store = official_store(tmp_path / "store", "ucf101", data)
    out = tmp_path / "out"
    command = ("evaluate", "ucf101", "--data", data, "--features", store, "--out", out, "--train-scores")
    code, printed, err = p3d(capsys, *command)
    assert (code, err) == (0, [])
    assert "88.6%" in printed  # the paper's row
    assert "p3d_resnet14" in printed
    assert "measured" in printed
    scores = [f"scores-{split}{side}.parquet" for split in "123" for side in ("", "-train")]
    assert names(out) == sorted(WRITTEN + scores)
    result = read_result(out)
    assert result.protocol == "ucf101-svm"
    assert [(each.metric, each.split) for each in result.measurements] == [
        ("accuracy", "1"), ("accuracy", "2"), ("accuracy", "3"), ("accuracy", "mean"),
    ]  # fmt: skip
    shares = [each.value for each in result.measurements]
    assert shares == [1.0] * 4
    assert result.facts["tested videos"] == {"1": 6, "2": 6, "3": 6}
    assert result.facts["command"].startswith("p3d evaluate ucf101 --data ")
    test, train = read_scores(out / "scores-1.parquet"), read_scores(out / "scores-1-train.parquet")
    assert (len(test.videos), len(train.videos), test.kind) == (6, 18, "decision")
    assert not set(test.videos) & set(train.videos)
    assert p3d(capsys, *command)[0] == 0  # the same again is no other result


def test_ucf101_network_needs_one_network_a_split(tmp_path, capsys):
    data = write_ucf101(tmp_path / "ucf", videos=False)
    stores = [official_store(tmp_path / f"store{i}", "ucf101", data, info={"weights": f"sha256:{i}"}) for i in "123"]
    common = ("evaluate", "ucf101", "--data", data, "--classifier", "network", "--out", tmp_path / "out")
    assert "3, one for each split" in mistake(capsys, *common, "--features", stores[0])
    assert "--layer" in mistake(capsys, *common, "--features", *stores, "--layer", "prob")
    code, _printed, err = p3d(capsys, *common, "--features", *stores)
    assert (code, err) == (0, [])
    result = read_result(tmp_path / "out")
    assert result.measurement("clip hit@1", "mean").value == 1.0
    assert result.measurement("accuracy", "mean").value == 1.0
    copy = official_store(tmp_path / "copy", "ucf101", data, info={"weights": "sha256:1"})
    assert "same weights" in mistake(capsys, *common[:-1], tmp_path / "no", "--features", *stores[:2], copy)
    odd = official_store(tmp_path / "odd", "ucf101", data, info={"architecture": {"name": "resnet14"}})
    told = mistake(capsys, *common[:-1], tmp_path / "mixed", "--features", *stores[:2], odd)
    assert "different networks" in told
    assert "resnet14" in told
    assert not (tmp_path / "mixed").exists()


def test_hmdb51_one_split(tmp_path, capsys):
    data = write_hmdb51(tmp_path / "hmdb", videos=False)
    store = official_store(tmp_path / "store", "hmdb51", data)
    out = tmp_path / "out"
    code, _printed, err = p3d(
        capsys,
        "evaluate",
        "hmdb51",
        "--data",
        data,
        "--features",
        store,
        "--out",
        out,
        "--splits",
        "2",
        "--name",
        "mine",
    )
    assert (code, err) == (0, [])
    assert names(out) == sorted([*WRITTEN, "scores.parquet"])
    result = read_result(out)
    assert (result.name, [each.split for each in result.measurements]) == ("mine", ["2"])


def test_hits_of_a_store(tmp_path, capsys):
    classes = tuple("abcdefg")
    listed = [Sample(f"{label}/{i}.mp4", label, ("train", "test")[i % 2]) for label in classes[:6] for i in range(4)]
    listed[1] = Sample("a/1.mp4", "a", "test", more_labels=("g",))
    samples = SampleList(tmp_path / "videos", tuple(listed), classes)
    store = write_store(tmp_path / "store", samples, classes)
    code, printed, err = p3d(capsys, "evaluate", "hits", "--features", store, "--out", tmp_path / "out")
    assert (code, err) == (0, [])
    result = read_result(tmp_path / "out")
    assert [each.metric for each in result.measurements] == ["clip hit@1", "video hit@1", "video hit@5"]
    assert result.facts["tested videos"] == {"all": 12}
    assert read_scores(tmp_path / "out" / "scores.parquet").labels[0] == ("a", "g")
    plain = write_store(tmp_path / "plain", samples, classes, per_clip=False)
    code, printed, err = p3d(capsys, "evaluate", "hits", "--features", plain, "--out", tmp_path / "video")
    assert (code, err) == (0, [])
    assert "clip hit@1 was not measured" in printed
    assert [each.metric for each in read_result(tmp_path / "video").measurements] == ["video hit@1", "video hit@5"]


def test_hits_are_those_of_the_definition(tmp_path, capsys):
    classes = tuple("abcdefg")
    listed = [Sample(f"{label}/{i}.mp4", label) for label in classes for i in range(3)]
    rng = np.random.default_rng(3)
    with StoreWriter(tmp_path / "noise", {"class_names": list(classes), "sampler": "uniform"}) as writer:
        for sample in listed:
            clips = rng.dirichlet(np.ones(7), 5).astype(np.float32)
            writer.add(VideoFeatures(sample.path, {"prob": clips.mean(axis=0)}, (0, 1, 2, 3, 4), 30, label=sample.label,
                                     clips={"prob": clips}))  # fmt: skip
    assert p3d(capsys, "evaluate", "hits", "--features", tmp_path / "noise", "--out", tmp_path / "out")[0] == 0
    found = {each.metric: each.value for each in read_result(tmp_path / "out").measurements}
    stored, clip, hit1, hit5 = FeatureStore(tmp_path / "noise"), [], [], []
    for video, label in zip(stored.videos, stored.labels, strict=True):
        prob, true = stored.clip_features(video, "prob"), classes.index(label)
        clip += [row.argmax() == true for row in prob]
        hit1.append(prob.mean(axis=0).argmax() == true)
        hit5.append((prob.mean(axis=0) > prob.mean(axis=0)[true]).sum() < 5)
    assert found == pytest.approx(
        {"clip hit@1": np.mean(clip), "video hit@1": np.mean(hit1), "video hit@5": np.mean(hit5)}
    )


def test_activitynet(tmp_path, capsys):
    data = tmp_path / "anet"
    data.mkdir()
    write_activitynet(data)
    store = official_store(tmp_path / "store", "activitynet", data)
    out = tmp_path / "out"
    code, printed, err = p3d(capsys, "evaluate", "activitynet", "--data", data, "--features", store, "--out", out)
    assert (code, err) == (0, [])
    assert "75.12%" in printed
    values = {each.metric: each.value for each in read_result(out).measurements}
    assert values == {"top-1": 1.0, "top-3": 1.0, "mAP": 1.0}
    network = ("--classifier", "network", "--out", tmp_path / "network")
    assert p3d(capsys, "evaluate", "activitynet", "--data", data, "--features", store, *network)[0] == 0


@pytest.mark.parametrize(("name", "write"), [("yupenn", write_yupenn), ("dynamic-scene", write_dynamic_scene)])
def test_scenes(tmp_path, capsys, name, write):
    data = write(tmp_path / "scenes")
    store = official_store(tmp_path / "store", name, data)
    code, _printed, err = p3d(capsys, "evaluate", name, "--data", data, "--features", store, "--out", tmp_path / "out")
    assert (code, err) == (0, [])
    result = read_result(tmp_path / "out")
    assert result.measurement("accuracy").value == 1.0
    assert ("mirror" in " ".join(result.footnotes)) == (name == "dynamic-scene")
    assert "svm C chosen" not in result.facts


def test_constants_chosen_without_each_scene_are_recorded(tmp_path, capsys):
    data = write_dynamic_scene(tmp_path / "scenes")
    store = official_store(tmp_path / "store", "dynamic-scene", data)
    command = ("evaluate", "dynamic-scene", "--data", data, "--features", store, "--variant", "plain", "--c", "cv")
    code, printed, err = p3d(capsys, *command, "--out", tmp_path / "out")
    assert (code, err) == (0, [])
    facts = read_result(tmp_path / "out").facts
    assert facts["svm C"] == "cv"
    assert len(facts["svm C chosen"]) == facts["tested videos"]["all"]
    assert "SVMs, chosen by cross-validation on the training videos of each" in " ".join(printed.split())


@pytest.mark.parametrize(
    ("name", "write", "tested"), [("sports1m", write_sports1m, 9), ("kinetics", write_kinetics, 6)]
)
def test_youtube_sets(tmp_path, capsys, name, write, tested):
    data = write(tmp_path / "data", videos=False)
    samples = read_official(name, data).samples
    store = write_store(tmp_path / "store", samples, samples.class_names)
    code, _printed, err = p3d(capsys, "evaluate", name, "--data", data, "--features", store, "--out", tmp_path / "out")
    assert (code, err) == (0, [])
    result = read_result(tmp_path / "out")
    values = {each.metric: each.value for each in result.measurements}
    assert values == {"clip hit@1": 1.0, "video hit@1": 1.0}  # five classes and fewer have no hit@5
    assert result.facts["tested videos"] == {"all": tested}
    assert ("sampler uniform" in " ".join(result.footnotes)) == (name == "sports1m")


def write_pairs_store(folder, samples, **more):
    """All four layers, of the classes that ``write_aslan`` gives its videos."""
    rng = np.random.default_rng(0)
    with StoreWriter(folder, {"sampler": "uniform"}) as writer:
        for sample in samples:
            row = {name: rng.uniform(0, 0.05, 16).astype(np.float32) for name in ("prob", "pool5", "res5", "res4")}
            for values in row.values():
                values[(int(sample.path[-8:-4]) - 1) % 4] += 1
            writer.add(VideoFeatures(sample.path, row, (0,), 24))
    return str(folder)


def test_aslan(tmp_path, capsys):
    from pseudo3d.data.official.aslan import read_aslan

    data = tmp_path / "aslan"
    write_aslan(data)
    samples = read_aslan(data).samples.samples
    store = write_pairs_store(tmp_path / "store", samples)
    out = tmp_path / "out"
    code, printed, err = p3d(capsys, "evaluate", "aslan", "--data", data, "--features", store, "--out", out)
    assert (code, err) == (0, [])
    assert "80.8%" in printed
    assert names(out) == sorted(["result.json", "roc.png", "roc.svg", "scores.parquet", *WRITTEN[3:]])
    result = read_result(out)
    accuracy, auc = result.measurements
    assert (accuracy.metric, auc.metric) == ("accuracy", "AUC")
    assert accuracy.error is not None
    assert result.facts["pairs"] == {"all": 120, "used": 120, "tested": 120}
    scores = read_scores(out / "scores.parquet")
    right = (scores.values.argmax(axis=1) == scores.truth.argmax(axis=1)).reshape(10, 12).mean(axis=1)
    assert accuracy.value == pytest.approx(right.mean())
    assert accuracy.error == pytest.approx(right.std(ddof=1) / np.sqrt(10))
    few = write_pairs_store(tmp_path / "few", samples[:-1])
    told = mistake(capsys, "evaluate", "aslan", "--data", data, "--features", few, "--out", tmp_path / "no")
    assert "1 of 24 videos have no features" in told
    lenient = ("--features", few, "--out", tmp_path / "part", "--allow-missing")
    code, printed, err = p3d(capsys, "evaluate", "aslan", "--data", data, *lenient)
    assert (code, err) == (0, [])
    assert "of 120 pairs were left out" in printed


def test_out_folders_are_respected(tmp_path, capsys):
    data = write_ucf101(tmp_path / "ucf", videos=False)
    store = official_store(tmp_path / "store", "ucf101", data)
    out = tmp_path / "out"
    command = ("evaluate", "ucf101", "--data", data, "--features", store, "--splits", "1", "--out")
    assert p3d(capsys, *command, out)[0] == 0
    before = (out / "result.json").read_bytes()
    assert "c was 1.0 and is 2.0" in mistake(capsys, *command, out, "--c", "2")
    assert "splits was 1 and is 2" in mistake(capsys, *command[:-3], "--splits", "2", "--out", out)
    told = mistake(capsys, "evaluate", "hits", "--features", store, "--out", out)
    assert "holds a result of ucf101-svm" in told
    assert "other files" in mistake(capsys, *command, data)
    assert "is a file" in mistake(capsys, *command, out / "result.json")
    (out / "result.json").write_text("{}")
    assert "no result" in mistake(capsys, *command, out)
    assert before != (out / "result.json").read_bytes() == b"{}"


def test_bad_input_is_told_in_one_line(tmp_path, capsys):
    data = write_ucf101(tmp_path / "ucf", videos=False)
    samples = read_official("ucf101", data).samples
    store = write_store(tmp_path / "store", samples, samples.class_names)
    out = tmp_path / "out"

    def told(*more, name="ucf101", features=store):
        words = ("evaluate", name, "--data", data, "--features", features, "--out", out)
        return mistake(capsys, *words, *more)

    assert "--layers fc6" in told("--layer", "fc6")
    assert "--c must be above 0" in told("--c", "-1")
    assert "--splits takes some of 1,2,3" in told("--splits", "1,1")
    assert "either --features" in told("--weights", "random")
    lost = write_store(tmp_path / "lost", samples, samples.class_names, failed=[samples.samples[0].path])
    assert "no video stream" in told(features=lost)
    few = SampleList(samples.root, samples.samples, samples.class_names)
    more_classes = write_store(tmp_path / "four", few, (*samples.class_names, "Bowling"))
    network = ("--classifier", "network", "--splits", "1")
    assert "4 classes, the data 3" in told(*network, features=more_classes)
    renamed = write_store(tmp_path / "names", samples, samples.class_names, info={"class_names": ["x", "y", "z"]})
    assert "classes" in told(*network, features=renamed)
    assert "did you mean" in mistake(capsys, "evaluate", "ucf10", "--out", out)
    (data / "ucfTrainTestlist" / "trainlist01.txt").write_text("Bowling/v_Bowling_g01_c01.avi 9\n")
    assert "class" in told()
    assert not out.exists()


def test_failed_videos_are_counted(tmp_path, capsys):
    data = write_ucf101(tmp_path / "ucf", videos=False)
    samples = read_official("ucf101", data).samples
    store = write_store(tmp_path / "store", samples, samples.class_names, failed=[samples.samples[0].path])
    command = ("evaluate", "ucf101", "--data", data, "--features", store, "--allow-missing", "--out", tmp_path / "out")
    code, printed, err = p3d(capsys, *command)
    assert (code, err) == (0, [])
    assert "1 video was left out" in printed


def test_classes_in_another_order_are_matched_by_name(tmp_path, capsys):
    data = write_ucf101(tmp_path / "ucf", videos=False)
    samples = read_official("ucf101", data).samples
    turned = samples.class_names[::-1]
    store = write_store(tmp_path / "store", samples, turned)
    command = ("evaluate", "ucf101", "--data", data, "--features", store, "--classifier", "network", "--splits", "1")
    code, printed, err = p3d(capsys, *command, "--out", tmp_path / "out")
    assert (code, err) == (0, [])
    assert "matched by name" in printed
    assert read_result(tmp_path / "out").measurement("clip hit@1", "1").value == 1.0


def test_store_in_a_folder_called_like_a_protocol(tmp_path, capsys, monkeypatch):
    classes = ("bright", "dark")
    listed = [Sample(f"{label}/{i}.mp4", label, ("train", "test")[i % 2]) for label in classes for i in range(4)]
    write_store(tmp_path / "ucf101", SampleList(tmp_path, tuple(listed), classes), classes)
    monkeypatch.chdir(tmp_path)
    code, _, err = p3d(capsys, "evaluate", "./ucf101")
    assert (code, err) == (0, [])
    assert json.loads((tmp_path / "ucf101" / "evaluation" / "metrics.json").read_text())["accuracy"] == 1.0


@pytest.mark.parametrize(("words", "shown"), [((), "--folds"), (("hmdb51",), "--classifier"), (("fuse",), "--equal")])
def test_help(words, shown, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", *words, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert shown in printed
    assert "Example: p3d evaluate" in printed
    assert words or "dynamic-scene" in printed


def test_every_protocol_is_listed_in_the_help():
    assert set(PROTOCOLS) == set(LISTED)
