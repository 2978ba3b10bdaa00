"""``p3d evaluate NAME`` straight from small real videos in the official layouts: extracted, then as from a store."""

import csv
import shutil

import pytest
import torch
from official_more_sets import write_activitynet, write_aslan, write_dynamic_scene
from official_sets import write_kinetics, write_sports1m, write_ucf101
from tiny import mistake, names, one_thread, p3d, write_two_classes

from pseudo3d import FeatureStore, create_model, save_pretrained
from pseudo3d.data.official import read_official
from pseudo3d.evaluation.results import read_result

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = ("--clips", "2", "--device", "cpu", "--dtype", "float32", "--workers", "0")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a tiny network for any number of classes, with names for them."""
    made = {}

    def of(class_names):
        if class_names not in made:
            with one_thread(), torch.random.fork_rng():
                torch.manual_seed(0)
                model = create_model("p3d_resnet14", num_classes=len(class_names))
            model.preprocessing = model.preprocessing.with_size(32)
            model.class_names = class_names
            made[class_names] = str(save_pretrained(model, tmp_path_factory.mktemp("net") / "w"))
        return made[class_names]

    return of


def evaluate(capsys, name, data, weights, out, *more):
    """Run a protocol on videos and read its result."""
    code, printed, err = p3d(
        capsys, "evaluate", name, "--data", data, "--weights", weights, "--out", out, *QUICK, *more
    )
    assert (code, err) == (0, []), printed
    return read_result(out)


def test_ucf101_svm(tmp_path, capsys, weights):
    data = write_ucf101(tmp_path / "ucf", classes=2, clips=1)
    out, net = tmp_path / "out", weights(("a", "b"))
    result = evaluate(capsys, "ucf101", data, net, out)
    assert {"features", "videos.csv", "result.json", "scores-1.parquet"} <= set(names(out))
    store = FeatureStore(out / "features")
    assert (len(store), store.layers, store.info["clips"]) == (8, ["pool5"], 2)
    assert result.facts["tested videos"] == {"1": 2, "2": 2, "3": 2}
    told = mistake(capsys, "evaluate", "ucf101", "--data", data, "--weights", net, "--out", out, *QUICK, "--c", "2")
    assert f"--features {out / 'features'}" in told
    # from its features as from the videos, and again without doing anything twice
    other = tmp_path / "again"
    command = ("evaluate", "ucf101", "--data", data, "--features", out / "features", "--out", other)
    assert p3d(capsys, *command)[0] == 0
    assert read_result(other).measurements == result.measurements
    code, printed, _ = p3d(capsys, "evaluate", "ucf101", "--data", data, "--weights", net, "--out", out, *QUICK)
    assert code == 0
    assert "0 videos, 0 clips" in printed


def test_ucf101_network_of_one_split(tmp_path, capsys, weights):
    data = write_ucf101(tmp_path / "ucf", classes=2, clips=1)
    classes = read_official("ucf101", data).samples.class_names
    out, network = tmp_path / "out", ("--classifier", "network", "--splits", "2")
    result = evaluate(capsys, "ucf101", data, weights(classes), out, *network)
    assert [(each.metric, each.split) for each in result.measurements] == [("clip hit@1", "2"), ("accuracy", "2")]
    assert sorted(FeatureStore(out / "features").videos)[0].endswith("v_ApplyEyeMakeup_g08_c01.avi")
    assert len(FeatureStore(out / "features")) == 2  # the test side only


def test_a_network_is_not_tested_on_what_it_was_trained_on(tmp_path, capsys, weights):
    data = write_ucf101(tmp_path / "ucf", classes=2, clips=1)
    official = read_official("ucf101", data).samples
    run, split = tmp_path / "run", ("--classifier", "network", "--splits", "1")
    shutil.copytree(weights(official.class_names), run / "checkpoints" / "best")
    with (run / "split.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "split"))
        table.writerows((data / sample.path, sample.label, "train") for sample in official.samples)
    command = ("evaluate", "ucf101", "--data", data, "--weights", run / "checkpoints" / "best", *split, *QUICK)
    assert "in the training list of the network" in mistake(capsys, *command, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_network_for_other_classes_is_refused_before_anything_is_extracted(tmp_path, capsys, weights):
    data = write_ucf101(tmp_path / "ucf", classes=2, clips=1)
    command = ("evaluate", "ucf101", "--data", data, "--classifier", "network", "--splits", "1", *QUICK)
    for net, words in ((("x", "y"), "(x, y): the network is for other classes"), (("x", "y", "z"), "3 classes, the")):
        assert words in mistake(capsys, *command, "--weights", weights(net), "--out", tmp_path / "out")
    hits = ("evaluate", "hits", "--data", data / "UCF-101", "--weights", weights(("x", "y")), *QUICK)
    assert "none of the 2 classes (x, y)" in mistake(capsys, *hits, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_hits_with_a_video_that_fails(tmp_path, capsys, weights):
    data = write_two_classes(tmp_path / "videos", count=2)
    (data / "dark" / "broken.mkv").write_bytes(b"no video")
    net, out = weights(("bright", "dark", "grey")), tmp_path / "out"
    command = ("evaluate", "hits", "--data", data, "--weights", net, "--out", out, *QUICK)
    code, _, err = p3d(capsys, *command)
    assert code == 2
    assert "--allow-missing" in err[-1]
    assert "result.json" not in names(out)
    code, printed, err = p3d(capsys, *command, "--allow-missing")
    assert code == 0
    assert "1 video was left out" in printed
    assert read_result(out).facts["tested videos"] == {"all": 4}
    told = mistake(capsys, "evaluate", "hits", "--weights", net, "--out", tmp_path / "no")
    assert "--data must be given" in told


@pytest.mark.parametrize(("code", "told"), [(130, "stopped"), (2, "no video could be used")])
def test_an_extraction_that_ends_early(code, told, tmp_path, capsys, weights, monkeypatch):
    monkeypatch.setattr("pseudo3d.commands.extract.Job.run", lambda job: code)
    data, net = write_ucf101(tmp_path / "ucf", classes=2, clips=1), weights(("a", "b"))
    command = ("evaluate", "ucf101", "--data", data, "--weights", net, "--out", tmp_path / "out", *QUICK)
    found, _, err = p3d(capsys, *command)
    assert found == code
    assert told in err[-1]
    assert names(tmp_path / "out") == ["videos.csv"]


@pytest.mark.slow
def test_every_other_set(tmp_path, capsys, weights):
    data = tmp_path / "anet"
    write_activitynet(data)
    whole = evaluate(capsys, "activitynet", data, weights(("a", "b")), tmp_path / "whole")
    trimmed = evaluate(capsys, "activitynet", data, weights(("a", "b")), tmp_path / "trimmed", "--trimmed")
    assert whole.facts["tested videos"] == trimmed.facts["tested videos"] == {"all": 6}
    assert all("#t=" in video for video in FeatureStore(tmp_path / "trimmed" / "features").videos)

    data = write_sports1m(tmp_path / "sports")
    classes = read_official("sports1m", data).samples.class_names
    result = evaluate(capsys, "sports1m", data, weights(classes), tmp_path / "sports_out")
    assert FeatureStore(tmp_path / "sports_out" / "features").info["sampler"] == "random"
    assert "videos of the official lists are not there" in " ".join(result.footnotes)

    data = write_kinetics(tmp_path / "kinetics", whole=True)
    classes = read_official("kinetics", data).samples.class_names
    result = evaluate(capsys, "kinetics", data, weights(classes), tmp_path / "kinetics_out")
    assert result.facts["tested videos"] == {"all": 6}

    data = write_dynamic_scene(tmp_path / "scenes")
    result = evaluate(capsys, "dynamic-scene", data, weights(("a", "b")), tmp_path / "scenes_out")
    info = FeatureStore(tmp_path / "scenes_out" / "features").info
    assert (info["preprocessing"]["resize"], info["mirror"]) == (160, True)
    assert not any("mirror" in note or "resized" in note for note in result.footnotes)

    data = tmp_path / "aslan"
    write_aslan(data)
    result = evaluate(capsys, "aslan", data, weights(("a", "b")), tmp_path / "aslan_out")
    assert result.facts["layers"] == ["prob", "pool5", "res5", "res4"]
    assert (tmp_path / "aslan_out" / "roc.svg").exists()
