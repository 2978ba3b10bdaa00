"""Runs that are stopped and gone on with end with the same bits; whatever stops them leaves a whole state."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tiny import SMALL, names, p3d, small_config

from pseudo3d import Pseudo3dError, from_pretrained
from pseudo3d.training.checkpoint import Checkpoints
from pseudo3d.training.loop import train
from pseudo3d.training.step import Stepper
from pseudo3d.training.stopping import Interrupted
from pseudo3d.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

# Everything random is on: dropout, crops, flips, the order of the videos; two steps an epoch, four in all.
CONFIG = small_config(epochs=2, dropout=0.5, optim={"warmup_epochs": 0.5})
CONFIG = replace(CONFIG, augment=replace(CONFIG.augment, flip=True), checkpoint_every=1)


def end_of(out):
    """The weights and the optimizer's numbers at the end of a run, and what it reported but for times."""
    last = out / "checkpoints" / "last"
    state = json.loads((last / "state.json").read_text())["state"]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "clips/s", "waiting for data")
    reports = [{key: value for key, value in line.items() if key not in timed} for line in lines]
    files = (
        last / "model.safetensors",
        last / "optimizer.safetensors",
        out / "checkpoints" / "best" / "model.safetensors",
    )
    # the order of the metadata in a file's header is not fixed
    arrays = [{key: value.numpy().tobytes() for key, value in load_file(path).items()} for path in files]
    return arrays, reports, (state["best"], state["best_epoch"], state["step"])


@pytest.fixture(scope="module")
def undisturbed(two_classes, tmp_path_factory):
    from pseudo3d.data.annotations import read_samples

    out = tmp_path_factory.mktemp("undisturbed") / "run"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    train(read_samples(two_classes), CONFIG, out, quiet=True)
    torch.set_num_threads(before)
    return end_of(out)


def stopping_at(monkeypatch, step, number=signal.SIGTERM):
    """A signal comes during that step, from 1."""
    real = Stepper.step

    def stop(self, batch, at, total):
        if at == step - 1:
            signal.raise_signal(number)
        return real(self, batch, at, total)

    monkeypatch.setattr(Stepper, "step", stop)


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_stopped_at_any_step(samples, tmp_path, monkeypatch, undisturbed, step):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stopping_at(patch, step)
        with pytest.raises(Interrupted, match=f"SIGTERM: stopped at step {step} of 4, .*--resume auto"):
            train(samples, CONFIG, out, quiet=True)
    assert Checkpoints(out / "checkpoints", 2).resumable()[0][0] == step
    torch.rand(3)  # what else is drawn in between does not count
    train(samples, CONFIG, out, resume="auto", quiet=True)
    assert end_of(out) == undisturbed


def test_a_signal_during_validation(samples, tmp_path, monkeypatch, undisturbed):
    """The epoch's steps are kept; its validation is done anew."""
    out = tmp_path / "run"
    real = Trainer._stop_if_asked
    calls = iter(range(100))

    def ask(self):
        if next(calls) == 1:  # after the first step; then after the first validation video
            signal.raise_signal(signal.SIGINT)
        real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_stop_if_asked", ask)
        with pytest.raises(Interrupted, match="SIGINT: stopped at step 2 of 4"):
            train(samples, CONFIG, out, quiet=True)
    assert not (out / "metrics.jsonl").exists()
    train(samples, CONFIG, out, resume="auto", quiet=True)
    assert end_of(out) == undisturbed


def test_an_older_checkpoint_can_be_chosen(samples, tmp_path, undisturbed):
    out = tmp_path / "run"
    train(samples, CONFIG, out, quiet=True)
    older = out / "checkpoints" / "step_00000003"
    train(samples, CONFIG, out, resume=str(older), quiet=True)
    assert end_of(out) == undisturbed
    assert names(out / "checkpoints") == [".lock", "best", "last", "step_00000003"]


def test_a_run_that_is_done_is_only_tested_again(samples, tmp_path, monkeypatch, undisturbed):
    out = tmp_path / "run"
    first = train(samples, CONFIG, out, quiet=True)
    monkeypatch.setattr(Stepper, "step", None)
    again = train(samples, CONFIG, out, resume="auto", quiet=True)
    assert again.test == first.test
    assert end_of(out) == undisturbed


def test_auto_begins_where_there_is_nothing(samples, tmp_path, undisturbed):
    train(samples, CONFIG, tmp_path / "run", resume="auto", quiet=True)
    assert end_of(tmp_path / "run") == undisturbed
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(Pseudo3dError, match="other: holds other files and no checkpoint; give a new folder"):
        train(samples, CONFIG, tmp_path / "other", resume="auto", quiet=True)


def test_what_cannot_be_gone_on_with(samples, tmp_path):
    out = tmp_path / "run"
    train(samples, CONFIG, out, quiet=True)
    with pytest.raises(Pseudo3dError, match=r"holds a training run already; go on with it by --resume auto, or"):
        train(samples, CONFIG, out)
    with pytest.raises(Pseudo3dError, match=r"belongs to another run: epochs was 2, is 3"):
        train(samples, replace(CONFIG, epochs=3), out, resume="auto")
    changed = replace(CONFIG, optim=replace(CONFIG.optim, lr=0.5))
    with pytest.raises(Pseudo3dError, match=r"belongs to another run: optim\.lr was 0\.001, is 0\.5"):
        train(samples, changed, out, resume="auto")
    fewer = replace(samples, samples=samples.samples[1:])
    with pytest.raises(Pseudo3dError, match=r"belongs to another run: .* videos was "):
        train(fewer, CONFIG, out, resume="auto")
    with pytest.raises(Pseudo3dError, match=r"--resume .*best: is no checkpoint of the run in .*; there are .*last"):
        train(samples, CONFIG, out, resume=str(out / "checkpoints" / "best"))
    (out / "checkpoints" / "last" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(
        Pseudo3dError, match=r"torn or exchanged\); go on from the one before with --resume .*step_00000003"
    ):
        train(samples, CONFIG, out, resume="auto")


def test_one_process_at_a_time(samples, tmp_path, monkeypatch):
    out = tmp_path / "run"

    def second(self, progress):
        train(samples, CONFIG, out, resume="auto", quiet=True)

    monkeypatch.setattr(Trainer, "run", second)
    with pytest.raises(Pseudo3dError, match="another process is training there"):
        train(samples, CONFIG, out, quiet=True)


def test_best_of_a_step_that_is_done_again(samples, tmp_path, monkeypatch):
    """Where the weights of ``best`` are not those that the state speaks of, the next epoch is the best so far."""
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stopping_at(patch, 3)
        with pytest.raises(Interrupted):
            train(samples, CONFIG, out, quiet=True)
    from_best = out / "checkpoints" / "best" / "model.safetensors"
    from_best.write_bytes((out / "checkpoints" / "last" / "model.safetensors").read_bytes())
    train(samples, CONFIG, out, resume="auto", quiet=True)
    assert "epoch 2 of 2" in (out / "checkpoints" / "best" / "README.md").read_text()


def test_another_number_of_workers_changes_nothing(samples, tmp_path, monkeypatch, undisturbed):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stopping_at(patch, 2)
        with pytest.raises(Interrupted):
            train(samples, CONFIG, out, quiet=True)
    train(samples, replace(CONFIG, workers=1, keep_last=3, checkpoint_every=None), out, resume="auto", quiet=True)
    assert end_of(out) == undisturbed


def test_a_full_disk_keeps_the_last_checkpoint(samples, tmp_path, monkeypatch, undisturbed):
    out = tmp_path / "run"
    real = Checkpoints.save
    calls = iter(range(100))

    def save(self, model, optimizer, state, belongs, card):
        if next(calls) == 2:
            raise OSError(28, "No space left on device", str(self.last))
        real(self, model, optimizer, state, belongs, card)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        with pytest.raises(OSError, match="No space left"):
            train(samples, CONFIG, out, quiet=True)
    from_pretrained(out / "checkpoints" / "last")
    train(samples, CONFIG, out, resume="auto", quiet=True)
    assert end_of(out) == undisturbed


def command(two_classes, out, *more):
    return [sys.executable, "-m", "pseudo3d.cli", "train", "--data", str(two_classes), "--out", str(out),
            *SMALL, "--epochs", "4", "--dropout", "0.5", "--checkpoint-every", "1", *more]  # fmt: skip


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_killed_at_random_moments(two_classes, tmp_path):
    """Five times kill -9, each time gone on with: the weights of an undisturbed run."""
    subprocess.run(command(two_classes, tmp_path / "whole"), env=ENVIRONMENT, capture_output=True, check=True)
    out, draw = tmp_path / "run", random.Random(0)
    for _ in range(5):
        process = subprocess.Popen(
            command(two_classes, out, "--resume", "auto"),
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        before = newest(out)
        while process.poll() is None and newest(out) == before:  # until it has done something
            time.sleep(0.01)
        time.sleep(draw.random() * 0.3)
        process.kill()
        process.communicate()
    done = subprocess.run(
        command(two_classes, out, "--resume", "auto"), env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert end_of(out) == end_of(tmp_path / "whole")


def newest(out):
    found = Checkpoints(out / "checkpoints", 1).resumable()
    return found[0][0] if found else -1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal to a group of processes")
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_real_ctrl_c(two_classes, tmp_path, workers):
    """The terminal interrupts the workers too; none of them may add a traceback."""
    run = command(two_classes, tmp_path / "r", "--epochs", "1000", "--workers", workers)
    process = subprocess.Popen(run, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for _ in range(1200):
        if (tmp_path / "r" / "checkpoints" / "last").exists():
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("p3d train: SIGINT: stopped at step ")
    from_pretrained(tmp_path / "r" / "checkpoints" / "last")


def test_ctrl_c_on_the_command_line(two_classes, tmp_path, capsys, monkeypatch):
    stopping_at(monkeypatch, 1, signal.SIGINT)
    code, _, err = p3d(capsys, "train", "--data", two_classes, "--out", tmp_path / "run", *SMALL)
    assert code == 130
    assert err[-1].startswith("p3d train: SIGINT: stopped at step 1 of 2, which is kept in ")
    assert err[-1].endswith("go on with the same command and --resume auto")
