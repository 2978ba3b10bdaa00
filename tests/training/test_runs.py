"""Whole runs: what they leave in their folder, what they refuse, and how they end early."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from tiny import SMALL, names, p3d, sides_of, small_config, write_two_classes

import pseudo3d.training.loop as loop
import pseudo3d.training.trainer as trainer
from pseudo3d import Pseudo3dError, VideoError, create_model, from_pretrained, save_pretrained
from pseudo3d.cli import main
from pseudo3d.data.annotations import read_samples
from pseudo3d.evaluation.protocols import HitCounts
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.training.loop import train
from pseudo3d.training.step import NotFiniteError, Stepper
from pseudo3d.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_run_folder(trained, two_classes):
    assert names(trained) == ["checkpoints", "config.json", "curves.svg", "metrics.jsonl", "split.csv"]
    assert names(trained / "checkpoints") == [".lock", "best", "last"]
    epoch, test = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert set(epoch) == {
        "epoch", "step", "lr", "loss", "train clip hit@1", "clips/s", "waiting for data", "val clip hit@1",
        "val video hit@1",
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


def counts_of(hits):
    """What a scoring of 100 videos says in which so many share of them are right."""
    right = round(100 * hits)
    return HitCounts(100, 100, right, right, None, np.zeros((2, 2), np.int64), ())


def test_validation_chooses_the_best_epoch(samples, tmp_path, monkeypatch):
    scores = iter([0.5, 1.0, 1.0, 0.0])
    seen = []

    def count(self, model, side, clips, on_video):
        seen.append((side, clips))
        return counts_of(next(scores, 0.25))

    monkeypatch.setattr(Trainer, "_count", count)
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


@pytest.mark.parametrize(("every", "validated"), [(2, [2, 4, 5]), (9, [5])])
def test_not_every_epoch_need_be_validated(samples, tmp_path, monkeypatch, every, validated):
    monkeypatch.setattr(Trainer, "_count", lambda *_: counts_of(0.5))
    result = train(samples, small_config(epochs=5, val_every=every), tmp_path / "run", quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "val video hit@1" in line] == validated
    assert "epoch 5 of 5" in (result.checkpoint / "README.md").read_text()


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
    real = Stepper.step

    def step(self, batch, number, total):
        if number == 3:
            raise NotFiniteError("the loss became nan")
        return real(self, batch, number, total)

    monkeypatch.setattr(Stepper, "step", step)
    last = tmp_path / "run" / "checkpoints" / "last"
    message = (
        r"the loss became nan in step 4 \(epoch 2\) at learning rate 0\.\d+, with the videos (bright|dark)/.*; "
        r"lower --optim\.lr in a new run \(another --out\); --weights \S+last starts from the last weights kept"
    )
    with pytest.raises(Pseudo3dError, match=message):
        train(samples, small_config(epochs=3), tmp_path / "run", quiet=True)
    assert all(value.isfinite().all() for value in from_pretrained(last).state_dict().values())
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1


def test_weights_that_are_no_longer_finite_are_not_kept(samples, tmp_path, monkeypatch):
    """A step may be fine and leave infinite weights: a checkpoint within the epoch would have them."""
    real = Stepper.step

    def step(self, batch, number, total):
        done = real(self, batch, number, total)
        if number == 1:
            self.model.fc.weight.data[0, 0] = float("inf")
        return done

    monkeypatch.setattr(Stepper, "step", step)
    with pytest.raises(Pseudo3dError, match=r"^the network's weights are no longer finite after step 2; lower --opt"):
        train(samples, small_config(checkpoint_every=1, keep_last=1), tmp_path / "run", quiet=True)
    last = tmp_path / "run" / "checkpoints" / "last"
    assert '"step": 1,' in (last / "state.json").read_text()
    assert all(value.isfinite().all() for value in from_pretrained(last).state_dict().values())


@pytest.mark.parametrize("val", ["0", "0.15"])
def test_a_learning_rate_that_is_far_too_high(two_classes, tmp_path, capsys, val):
    args = ("--optim.lr", "1e30", "--val-fraction", val, "--batch-size", "32")  # one step: the loss before it is fine
    code, _, err = p3d(capsys, "train", "--data", two_classes, "--out", tmp_path / "run", *SMALL, *args)
    assert code == 2
    assert re.search(r"(no longer finite after step 1|became (nan|infinite) in step \d.*); lower --optim.lr", err[-1])
    assert "Traceback" not in "".join(err)
    if val != "0":  # what validation rejects is not kept
        assert names(tmp_path) == []


def bad_samples(tmp_path, count=4):
    folder = write_two_classes(tmp_path / "data", count)
    (folder / "dark" / "bad.mp4").write_text("no video")
    return read_samples(folder)


@pytest.mark.parametrize("side", ["val", "test"])
def test_bad_videos_to_validate_and_test_on_are_found_before_training(tmp_path, side):
    samples = on_sides(bad_samples(tmp_path), bad=side)
    with pytest.raises(VideoError, match=r"bad\.mp4: .*--skip-bad"):
        train(samples, small_config(), tmp_path / "run")
    assert names(tmp_path) == ["data"]


def on_sides(samples, bad):
    """Numbers 0 and 1 for the test, 2 for validation, the others for training; the bad one where it shall be."""
    numbers = {"0": "test", "1": "test", "2": "val"}
    return replace(samples, samples=tuple(
        replace(s, split=bad if "bad" in s.path else numbers.get(s.path[-5], "train")) for s in samples.samples
    ))  # fmt: skip


def reports_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("side", ["val", "test"])
def test_bad_videos_can_be_left_out_and_are_counted(tmp_path, caplog, side):
    samples = on_sides(bad_samples(tmp_path, 6), bad=side)
    result = train(samples, small_config(skip_bad=True), tmp_path / "run", quiet=True)
    assert "bad.mp4" in caplog.text
    assert (result.run / "split.csv").read_text().count(f",{side},") == (4 if side == "test" else 2)
    epoch, test = reports_of(result.run)
    assert epoch.get("val videos left out") == (1 if side == "val" else None)
    assert [bool(re.search(r"/bad\.mp4: ", reason)) for reason in test.get("videos left out", [])] == (
        [True] if side == "test" else []
    )
    assert result.left_out == {side: 1}


def test_videos_that_go_bad_later_are_counted_too(tmp_path, monkeypatch):
    """One is bad before the first step, another one when it is to be scored."""
    samples = on_sides(bad_samples(tmp_path, 6), bad="test")
    real = trainer.check_videos

    def check(*args, **options):
        found = real(*args, **options)
        (tmp_path / "data" / "dark" / "dark0.mkv").write_text("no video")
        return found

    monkeypatch.setattr(trainer, "check_videos", check)
    result = train(samples, small_config(skip_bad=True), tmp_path / "run", quiet=True)
    left_out = reports_of(result.run)[-1]["videos left out"]
    assert [re.search(r"\w+\.\w+(?=: )", reason)[0] for reason in left_out] == ["bad.mp4", "dark0.mkv"]
    assert result.left_out == {"test": 2}


def test_what_was_left_out_and_replaced_is_said_at_the_end(tmp_path, capsys):
    data = write_two_classes(tmp_path / "data", 6)
    rows = [(path, path.parent.name, {"0": "test", "1": "test", "2": "val"}.get(path.stem[-1], "train"))
            for path in sorted(data.rglob("*.mkv"))]  # fmt: skip
    for side in ("train", "val", "test"):
        (data / f"{side}.mp4").write_text(f"no video of {side}")
        rows.append((data / f"{side}.mp4", "dark", side))
    table = tmp_path / "list.csv"
    table.write_text("path,label,split\n" + "".join(f"{path},{label},{split}\n" for path, label, split in rows))
    run = tmp_path / "run"
    code, out, _ = p3d(capsys, "train", "--data", table, "--out", run, *SMALL, "--skip-bad", "--max-bad", "0.2")
    assert code == 0
    for side in ("val", "test"):
        assert f"left out of {side}, unreadable: 1 (scores are of the others; {run / 'metrics.jsonl'})\n" in out
    assert "unreadable training videos, in whose place others were shown: 1\n" in out
    assert [line["training videos replaced"] for line in reports_of(run)] == [1, 1]


def test_all_settings_are_printed(two_classes, tmp_path, capsys):
    capsys.readouterr()
    assert main(["train", "--data", str(two_classes), "--out", str(tmp_path / "run"), *SMALL, "--seed", "7"]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "all settings (" in line]
    for words in ("model p3d_resnet14,", "style caffe,", "dropout 0.1,", "resize 36 48,", "dtype float32,", "seed 7,",
                  "optim.lr 0.001,", "optim.milestones 0.4 0.8,", "augment.flip False,"):  # fmt: skip
        assert words in line, words


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_bad_training_video_is_replaced_and_named(tmp_path, caplog, workers):
    samples = on_sides(bad_samples(tmp_path, 6), bad="train")
    config = small_config(workers=workers, max_bad=0.5, epochs=2)
    result = train(samples, config, tmp_path / "run", quiet=True)
    assert caplog.text.count("bad.mp4") == 1
    assert json.loads((result.run / "metrics.jsonl").read_text().splitlines()[0])["epoch"] == 1
    with pytest.raises(Pseudo3dError, match=r"1 of 7 training videos .*--max-bad.*bad\.mp4"):
        train(samples, replace(config, max_bad=0.1), tmp_path / "other", quiet=True)
    assert names(tmp_path) == ["data", "run"]


def test_a_step_that_diverges_names_the_videos_that_were_shown(tmp_path, monkeypatch):
    """And not the bad one that another took the place of."""
    samples = on_sides(bad_samples(tmp_path, 6), bad="train")
    shown = []

    def step(self, batch, number, total):
        shown.extend(batch.videos)
        raise NotFiniteError("the loss became nan")

    monkeypatch.setattr(Stepper, "step", step)
    with pytest.raises(Pseudo3dError, match="the loss became nan in step 1"):
        train(samples, small_config(max_bad=0.5, batch_size=7), tmp_path / "run", quiet=True)
    _, *named = (tmp_path / "run" / "diverged.txt").read_text().splitlines()
    trained = samples.split("train").samples
    assert named == [trained[video].path for video in shown]
    assert len(named) == 7
    assert {sample.path for sample in trained} - set(named) == {"dark/bad.mp4"}


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_video_that_goes_bad_later(tmp_path, caplog, workers):
    """After the check, before its first clip: from another process too it is named once and another one is shown."""
    samples = on_sides(bad_samples(tmp_path, 6), bad="train")
    bad = tmp_path / "data" / "dark" / "bad.mp4"
    good = tmp_path / "data" / "dark" / "dark3.mkv"
    noise = bad.read_bytes()
    bad.write_bytes(good.read_bytes())
    real = trainer.check_videos

    def check(*args, **options):
        found = real(*args, **options)
        bad.write_bytes(noise)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "check_sides", lambda _: None)  # the same content twice
        patch.setattr(trainer, "check_videos", check)
        train(samples, small_config(workers=workers, max_bad=0.5, epochs=2), tmp_path / "run", quiet=True)
    assert caplog.text.count("bad.mp4: ") == 1
    assert "another video took its place" in caplog.text


def test_a_test_video_that_goes_bad_costs_no_weights(tmp_path, monkeypatch):
    samples = on_sides(bad_samples(tmp_path, 6), bad="test")
    monkeypatch.setattr(trainer, "check_videos", lambda sides, *_, **__: (sides, {}))
    with pytest.raises(VideoError, match=r"bad\.mp4"):
        train(samples, small_config(val_fraction=0.0), tmp_path / "run", quiet=True)
    assert from_pretrained(tmp_path / "run" / "checkpoints" / "best").class_names == ("bright", "dark")
