"""Whole runs: what they leave in their folder, what they refuse, and how they end early."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from tiny import SMALL, names, p3d, sides_of, small_config, write_two_classes

import pseudo3d.training.loop as loop
from pseudo3d import Pseudo3dError, VideoError, create_model, from_pretrained, save_pretrained
from pseudo3d.data.annotations import read_samples
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.training.loop import Trainer, train

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_run_folder(trained, two_classes):
    assert names(trained) == ["checkpoints", "config.json", "metrics.jsonl", "split.csv"]
    assert names(trained / "checkpoints") == ["best", "last"]
    epoch, test = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert set(epoch) == {
        "epoch", "loss", "train clip hit@1", "clips/s", "waiting for data", "val clip hit@1", "val video hit@1",
    }  # fmt: skip
    assert epoch["epoch"] == 1
    assert 0 <= epoch["train clip hit@1"] <= 1
    assert 0 <= epoch["waiting for data"] <= 1
    assert set(test) == {"test", "clips", "seconds"}
    assert set(test["test"]) == {"clip hit@1", "video hit@1"}
    paths = sides_of(trained)
    assert sum(map(len, paths.values())) == len(set.union(*paths.values())) == 12
    for side in paths.values():
        assert {path.split("/")[0] for path in side} == {"bright", "dark"}


def test_a_checkpoint_carries_all(trained):
    model = from_pretrained(trained / "checkpoints" / "best")
    assert model.class_names == ("bright", "dark")
    assert model.preprocessing == replace(create_model("p3d_resnet14").preprocessing, resize=(36, 48), crop=(32, 32))
    assert model.architecture.num_classes == 2
    assert not model.training
    assert "recipe scratch, epoch 1 of 1" in (trained / "checkpoints" / "best" / "README.md").read_text()


def test_validation_chooses_the_best_epoch(samples, tmp_path, monkeypatch):
    scores = iter([0.5, 1.0, 1.0, 0.0])
    seen = []

    def evaluate(self, side, clips, on_video=None):
        seen.append((side, clips))
        return {"clip hit@1": 0.0, "video hit@1": next(scores, 0.25)}

    monkeypatch.setattr(Trainer, "evaluate", evaluate)
    result = train(samples, small_config(epochs=4, val_clips=2, test_clips=3), tmp_path / "run", quiet=True)
    best, last = ((result.run / "checkpoints" / name / "README.md").read_text() for name in ("best", "last"))
    assert "epoch 3 of 4" in best  # of two equals the later
    assert "| val video hit@1 | 1.0000 |" in best
    assert "epoch 4 of 4" in last
    assert result.test["video hit@1"] == 0.25
    assert [clips for _, clips in seen] == [2, 2, 2, 2, 3]
    sides = sides_of(result.run)
    for (side, _), name in zip(seen, ["val"] * 4 + ["test"], strict=True):
        assert {sample.path for sample in side.samples} == sides[name]


def test_without_validation_the_last_epoch_is_the_result(samples, tmp_path):
    result = train(samples, small_config(epochs=2, val_fraction=0.0), tmp_path / "run", quiet=True)
    assert "epoch 2 of 2" in (result.checkpoint / "README.md").read_text()
    assert "val video hit@1" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_frozen_batch_norms_need_trained_weights(samples, tmp_path):
    with pytest.raises(Pseudo3dError, match="recipe finetune keeps the batch norms of trained weights: give them with"):
        train(samples, small_config("finetune"), tmp_path / "run")
    assert names(tmp_path) == []


def test_weights_of_small_frames_need_a_size(samples, tmp_path):
    model = create_model("p3d_resnet14", num_classes=2)
    model.preprocessing = Preprocessing(resize=(16, 16), crop=(16, 16))
    save_pretrained(model, tmp_path / "weights")
    config = small_config("finetune", weights=str(tmp_path / "weights"), size=None)
    with pytest.raises(Pseudo3dError, match="the weights are for frames of 16x16; give a --size of at least 32"):
        train(samples, config, tmp_path / "run")
    assert names(tmp_path) == ["weights"]


def test_a_loss_that_is_no_longer_finite(samples, tmp_path, monkeypatch):
    real = Trainer.step

    def step(self, *batch):
        loss, correct = real(self, *batch)
        return (math.nan if len(self.reports) == 1 else loss), correct

    monkeypatch.setattr(Trainer, "step", step)
    last = tmp_path / "run" / "checkpoints" / "last"
    with pytest.raises(Pseudo3dError, match=r"the loss became nan in epoch 2 at learning rate .*; lower --optim.lr \("):
        train(samples, small_config(epochs=3), tmp_path / "run", quiet=True)
    assert all(value.isfinite().all() for value in from_pretrained(last).state_dict().values())
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("val", ["0", "0.15"])
def test_a_learning_rate_that_is_far_too_high(two_classes, tmp_path, capsys, val):
    args = ("--optim.lr", "1e30", "--val-fraction", val, "--batch-size", "32")  # one step: the loss before it is fine
    code, _, err = p3d(capsys, "train", "--data", two_classes, "--out", tmp_path / "run", *SMALL, *args)
    assert code == 2
    assert re.search(r"no longer finite; lower --optim.lr", err[-1])
    assert "Traceback" not in "".join(err)
    if val != "0":  # what validation rejects is not kept
        assert names(tmp_path) == []


def bad_samples(tmp_path):
    folder = write_two_classes(tmp_path / "data", 4)
    (folder / "dark" / "bad.mp4").write_text("no video")
    return read_samples(folder)


def test_bad_videos_are_found_before_training(tmp_path):
    samples = bad_samples(tmp_path)
    (tmp_path / "data" / "bright" / "worse.mp4").write_bytes(b"")
    samples = read_samples(tmp_path / "data")
    with pytest.raises(
        VideoError, match=r"(bad|worse)\.mp4: .* \(and 1 more: (bad|worse)\.mp4\); training needs every"
    ):
        train(samples, small_config(), tmp_path / "run")
    assert names(tmp_path) == ["data"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_video_that_goes_bad_later(tmp_path, monkeypatch, workers):
    """Its own one line arrives, from another process too, and the name of the run is free again."""
    samples = bad_samples(tmp_path)
    samples = replace(samples, samples=tuple(
        replace(s, split="test" if "0" in s.path else "train") for s in samples.samples
    ))  # fmt: skip
    monkeypatch.setattr(loop, "check_videos", lambda _: None)
    with pytest.raises(VideoError) as caught:
        train(samples, small_config(workers=workers, val_fraction=0.0), tmp_path / "run", quiet=True)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'data' / 'dark' / 'bad.mp4'}: is not a video")
    assert "\n" not in text
    assert names(tmp_path) == ["data"]


def test_a_bad_test_video_costs_no_weights(tmp_path, monkeypatch):
    samples = bad_samples(tmp_path)
    samples = replace(samples, samples=tuple(
        replace(s, split="test" if "0" in s.path or "bad" in s.path else "train") for s in samples.samples
    ))  # fmt: skip
    monkeypatch.setattr(loop, "check_videos", lambda _: None)
    with pytest.raises(VideoError, match=r"bad\.mp4"):
        train(samples, small_config(val_fraction=0.0), tmp_path / "run", quiet=True)
    assert from_pretrained(tmp_path / "run" / "checkpoints" / "best").class_names == ("bright", "dark")


def test_ctrl_c(two_classes, tmp_path, capsys, monkeypatch):
    real = Trainer.train_epoch

    def train_epoch(self, epoch, progress):
        if epoch == 2:
            raise KeyboardInterrupt
        return real(self, epoch, progress)

    monkeypatch.setattr(Trainer, "train_epoch", train_epoch)
    run = tmp_path / "run"
    code, _, err = p3d(capsys, "train", "--data", two_classes, "--out", run, *SMALL, "--epochs", "3")
    assert code == 130
    assert err[-1] == "p3d train: stopped; what was written so far is whole"
    assert names(run) == ["checkpoints", "config.json", "metrics.jsonl", "split.csv"]
    assert from_pretrained(run / "checkpoints" / "last").class_names == ("bright", "dark")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal to a group of processes")
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_real_ctrl_c(two_classes, tmp_path, workers):
    """The terminal interrupts the workers too; none of them may add a traceback."""
    command = [sys.executable, "-m", "pseudo3d.cli", "train", "--data", str(two_classes), "--out", str(tmp_path / "r")]
    command += [*SMALL, "--epochs", "1000", "--workers", workers]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    last = tmp_path / "r" / "checkpoints" / "last" / "config.json"
    for _ in range(600):
        if last.exists():
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "p3d train: stopped; what was written so far is whole"
    from_pretrained(last.parent)
