"""The benchmarks of inference run, on tiny networks, and what ours is measured against computes the same."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from networks import CAFFE, IMAGENET, network, random_clips
from reference import relative_error

from pseudo3d.inference import to_input

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
LAYERS = ("res2", "res3", "res4", "res5", "pool5", "logits", "prob")


@pytest.fixture(autouse=True)
def _benchmarks_in_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def run(monkeypatch, tmp_path):
    def run(name, *options):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *options, "--out", str(tmp_path)])
        runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")
        text = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
        return text, json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))

    return run


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("name", "style", "blocks", "preprocessing"),
    [
        ("p3d_resnet14", "caffe", "ABC", CAFFE),
        ("p3d_resnet14", "torchvision", "BCA", IMAGENET),
        ("p3d_resnet14", "port", "CAB", IMAGENET),
        ("resnet14", "torchvision", None, IMAGENET),
    ],
)
@torch.no_grad()
def test_plain_convolutions_compute_the_same(name, style, blocks, preprocessing):
    from conv3d import Conv3dResNet

    more = {} if blocks is None else {"blocks": blocks}
    model = network(name, (33, 47), preprocessing, style=style, **more)
    frames = torch.from_numpy(random_clips(2, model.preprocessing))
    plain = Conv3dResNet(model)
    got = plain.forward_features(plain.of_frames(frames), LAYERS)
    expected = model.forward_features(to_input(frames, model.preprocessing), LAYERS)
    for layer in LAYERS:
        assert relative_error(got[layer], expected[layer]) < 1e-5, layer
    pool5, logits = plain(plain.of_frames(frames))
    assert torch.equal(pool5, got["pool5"])
    assert torch.equal(logits, got["logits"])


def test_svm(run, capsys):
    text, results = run("svm", "--quick")
    assert results["one split"]["same class"] == results["one split"]["videos"]
    assert "| leave one out |" in text


def test_tsne(run, capsys):
    text, results = run("tsne", "--quick")
    assert "| scikit-learn |" in text
    assert results["videos"] == 200
    assert results["maps"]["scikit-learn"]["neighbours of the same class"] > 2 / 101


@pytest.mark.slow
def test_inference_on_a_processor(run, capsys):
    text, results = run("inference_cpu", "--quick")
    assert "| fused bfloat16 |" in text
    assert "not measured: no --videos" in text
    assert "AMX " in text
    sides = results["networks"]["p3d_resnet14"]
    assert sides["conv3d float32"]["clips/s"] > 0
    assert set(sides["fused bfloat16"]["stages"]) == {"stem", "res2", "res3", "res4", "res5", "head and copies"}
    assert set(results["matmul GFLOP/s"]) == {"float32", "bfloat16"}
    assert str(sides["conv3d float32"]["batch"]) in sides["conv3d float32"]["by batch"]


@pytest.mark.usefixtures("one_thread")
def test_inference_on_a_gpu_runs_on_a_processor(run, capsys):
    text, results = run(
        "inference_gpu", "--device", "cpu", "--networks", "p3d_resnet14", "--size", "32", "--batches", "1", "2",
        "--seconds", "0", "--matmul", "64",
    )  # fmt: skip
    found = results["networks"]["p3d_resnet14"]["ways"]
    assert set(found) == {"eager float32", "conv3d float32", "conv3d autocast"}
    assert all(each["clips/s"] > 0 for way in found.values() for each in way.values())
    assert "| decode | copy | network |" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured(run, capsys):
    text, results = run("inference_gpu")
    assert "no GPU here: nothing is measured" in capsys.readouterr().err
    assert "| graph bfloat16 | not measured |" in text
    assert "batch 256" in text
    assert results["matmul FLOP/s"] is None


@pytest.mark.slow
def test_training(run, capsys):
    text, results = run("training", "--quick", "--checkpoint-activations")
    sides = results["networks"]["p3d_resnet14"]
    assert set(sides) == {"ours bfloat16 kept recomputed", "ours bfloat16 kept", "conv3d float32"}
    assert all(each["clips/s"] > 0 and each["peak MB"] > 0 for each in sides.values())
    assert "## p3d_resnet14" in text


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_precision(run, capsys, tmp_path):
    text, results = run("precision", "--quick", "--image", str(tmp_path / "curves"))
    assert (tmp_path / "curves.svg").exists()
    assert len(results["runs"]["bfloat16"]["0"]["losses"]) == 2
    assert "between precisions of one seed" in text


@pytest.mark.slow
def test_loading(run, two_classes, capsys):
    text, results = run(
        "loading", "--data", str(two_classes), "--videos", "4", "--workers", "1", "--batch", "2", "--seconds", "0",
        "--rounds", "1", "--epochs", "2",
    )  # fmt: skip
    assert "| workers: 1 |" in text
    assert all(rate > 0 for rates in results["clips/s"].values() for rate in rates)
    assert results["facts"]["frames decoded for a clip"] == 16
    assert len(results["MiB after each epoch"]) in (0, 2)
