"""Runs that are stopped and gone on with end with the same bits; whatever stops them leaves a whole state."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tiny import SMALL, names, p3d, sides_of, small_config

import pseudo3d.data.annotations as annotations
import pseudo3d.training.loop as loop
from pseudo3d import Pseudo3dError, VideoError, from_pretrained
from pseudo3d.training.checkpoint import Checkpoints
from pseudo3d.training.config import TrainConfig
from pseudo3d.training.distributed import SINGLE, Group
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


class Killed(BaseException):
    """Stands for what ends a process at once."""


def test_killed_during_validation(samples, tmp_path, monkeypatch, undisturbed):
    """Without checkpoints within epochs: the epoch's steps are on the disk before its validation begins."""
    out, config = tmp_path / "run", replace(CONFIG, checkpoint_every=None)

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_count", killed)
        with pytest.raises(Killed):
            train(samples, config, out, quiet=True)
    assert Checkpoints(out / "checkpoints", 2).resumable() == [(2, out / "checkpoints" / "last")]
    with monkeypatch.context() as patch:
        real, steps = Stepper.step, []
        patch.setattr(Stepper, "step", lambda self, batch, at, total: steps.append(at) or real(self, batch, at, total))
        train(samples, config, out, resume="auto", quiet=True)
    assert steps == [2, 3]
    assert end_of(out) == undisturbed


def test_a_signal_during_the_test(samples, tmp_path, monkeypatch, undisturbed):
    """The state that is kept is that of the training, not of the best epoch's weights that are being tested."""
    out = tmp_path / "run"
    real = Trainer._count

    def count(self, model, side, clips, on_video):
        if side is self.sides.test:
            signal.raise_signal(signal.SIGTERM)
        return real(self, model, side, clips, on_video)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_count", count)
        with pytest.raises(Interrupted, match="SIGTERM: stopped at step 4 of 4"):
            train(samples, CONFIG, out, quiet=True)
    train(samples, CONFIG, out, resume="auto", quiet=True)
    assert end_of(out) == undisturbed


@pytest.mark.parametrize("step", [1, 2, 3])
def test_the_state_before_a_step_that_is_not_finite_is_kept(samples, tmp_path, monkeypatch, undisturbed, step):
    """Also the statistics of the batch norms, which its forward pass has moved: the run can go on as if nothing was."""
    out, config = tmp_path / "run", replace(CONFIG, checkpoint_every=None)
    real, calls = Stepper._clip, iter(range(100))

    def clip(self, loss):
        if next(calls) == step - 1:
            for norm in self.model.modules():
                if isinstance(norm, torch.nn.BatchNorm2d):
                    norm.running_mean.fill_(float("nan"))
            loss = float("nan")
        real(self, loss)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "_clip", clip)
        with pytest.raises(Pseudo3dError, match=rf"the loss became nan in step {step} .*; lower --optim\.lr") as caught:
            train(samples, config, out, quiet=True)
    last, told = out / "checkpoints" / "last", out / "diverged.txt"
    assert f"(all 4: {told}); lower --optim.lr in a new run (another --out); --weights {last} starts" in str(
        caught.value
    )
    first, *videos = told.read_text().splitlines()
    assert first.startswith(f"the loss became nan in step {step} (epoch {(step + 1) // 2}) at learning rate ")
    assert len(videos) == 4
    assert set(videos) <= {sample.path for sample in samples.samples}
    assert Checkpoints(out / "checkpoints", 2).resumable()[0] == (step - 1, last)
    train(samples, config, out, resume="auto", quiet=True)
    assert end_of(out) == undisturbed


def test_a_refused_resume_leaves_everything_as_it_was(samples, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stopping_at(patch, 1)
        with pytest.raises(Interrupted):
            train(samples, CONFIG, out, quiet=True)
    (out / "checkpoints" / "last" / "config.json").unlink()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(Pseudo3dError, match=r"last: has no config\.json.*there is none before it"):
        train(samples, CONFIG, out, resume="auto", quiet=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_another_run_of_the_same_folder_meanwhile(samples, tmp_path, monkeypatch):
    """It may begin and end while this one looks at the videos: nothing of it is lost."""
    out, real = tmp_path / "run", Trainer.look

    def look(self, looking):
        real(self, looking)
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "look", real)
            train(samples, CONFIG, out, quiet=True)

    monkeypatch.setattr(Trainer, "look", look)
    with pytest.raises(Pseudo3dError, match="run: another process has trained there meanwhile; give the same command"):
        train(samples, CONFIG, out, resume="auto", quiet=True)
    assert Checkpoints(out / "checkpoints", 2).resumable()[0] == (4, out / "checkpoints" / "last")
    shutil.rmtree(out)
    with pytest.raises(Pseudo3dError, match="run: holds a training run already; go on with it by --resume auto"):
        train(samples, CONFIG, out, quiet=True)
    assert Checkpoints(out / "checkpoints", 2).resumable()[0] == (4, out / "checkpoints" / "last")


class Told(Group):
    """Process 0, to whom the others say other things than it says itself."""

    def gather(self, obj):
        return [obj, *self.others]


def group_of(*others):
    group = Told(0, 1 + len(others))
    object.__setattr__(group, "others", others)
    return group


def test_machines_that_do_not_share_the_folder(samples, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    loop._check_shared(tmp_path / "run", group_of(True, True))
    with pytest.raises(Pseudo3dError, match="run: process 2 does not see this folder of process 0; --out must be on a"):
        loop._check_shared(tmp_path / "run", group_of(True, False))
    trainer = loop.make_trainer(samples, CONFIG, tmp_path / "run", SINGLE)
    trainer.state.step, trainer.group = 4, group_of(4)
    loop._check_same_step(tmp_path / "last", trainer)
    trainer.group = group_of(2)
    with pytest.raises(Pseudo3dError, match=r"last: processes read different steps there \(2, 4\): the disk"):
        loop._check_same_step(tmp_path / "last", trainer)


def test_what_process_0_decides():
    def refuse():
        raise Pseudo3dError("no")

    assert SINGLE.decided(lambda: 3) == 3
    with pytest.raises(Pseudo3dError, match="no"):
        SINGLE.decided(refuse)
    second = Group(1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Group, "gather", lambda self, obj: [3, obj])
        assert second.decided(refuse) == 3  # it is not asked itself
        patch.setattr(Group, "gather", lambda self, obj: [Pseudo3dError("no"), obj])
        with pytest.raises(Pseudo3dError, match="no"):
            second.decided(lambda: 3)


def test_workers_of_many_machines(samples, tmp_path, monkeypatch):
    """Each machine's cores are divided among its own processes."""
    monkeypatch.setattr("pseudo3d.training.trainer.available_cpus", lambda: 64)
    config = replace(CONFIG, workers=None)
    group = group_of()
    object.__setattr__(group, "on_machine", (0, 8))
    assert loop.make_trainer(samples, config, tmp_path / "run", group).workers == 7


def test_only_what_a_run_has_made_is_removed_with_it(samples, tmp_path, monkeypatch):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "split.csv").write_text("mine")

    def fail(self, progress):
        (self.out / "metrics.jsonl").write_text("")
        raise Pseudo3dError("early")

    monkeypatch.setattr(Trainer, "run", fail)
    with pytest.raises(Pseudo3dError, match="early"):
        train(samples, CONFIG, out, resume="auto", quiet=True)
    assert names(out) == ["split.csv"]


def test_a_torn_state_is_refused_and_the_one_before_is_offered(samples, tmp_path, undisturbed):
    out = tmp_path / "run"
    train(samples, CONFIG, out, quiet=True)
    last, older = out / "checkpoints" / "last", out / "checkpoints" / "step_00000003"
    (last / "state.json").write_text('{"half')
    for resume in ("auto", str(last)):
        with pytest.raises(
            Pseudo3dError, match=r"state\.json: is torn .*; go on from the one before with --resume \S+step_00000003$"
        ):
            train(samples, CONFIG, out, resume=resume, quiet=True)
        assert names(out / "checkpoints") == [".lock", "best", "last", "step_00000003"]
    train(samples, CONFIG, out, resume=str(older), quiet=True)
    assert end_of(out) == undisturbed


def test_a_test_video_that_goes_bad_later_does_not_end_the_run(samples, tmp_path, monkeypatch):
    data = shutil.copytree(samples.root, tmp_path / "data")
    samples, out = replace(samples, root=data), tmp_path / "run"
    with monkeypatch.context() as patch:
        stopping_at(patch, 2)
        with pytest.raises(Interrupted):
            train(samples, CONFIG, out, quiet=True)
    bad = sorted(sides_of(out)["test"])[0]
    (data / bad).write_text("no video")
    with pytest.raises(VideoError, match=r"use --skip-bad"):
        train(samples, CONFIG, out, resume="auto", quiet=True)
    result = train(samples, replace(CONFIG, skip_bad=True), out, resume="auto", quiet=True)
    assert result.left_out == {"test": 1}
    assert bad not in sides_of(out)["test"]  # what the run has tested on, and how, is what its files say
    assert TrainConfig.from_json((out / "config.json").read_text()).skip_bad


@pytest.mark.parametrize("lose", [shutil.rmtree, lambda best: (best / "model.safetensors").write_bytes(b"other")])
def test_a_run_that_is_done_and_has_lost_its_best(samples, tmp_path, lose, undisturbed):
    out = tmp_path / "run"
    train(samples, CONFIG, out, quiet=True)
    lose(out / "checkpoints" / "best")
    message = (
        r"best: its weights are not those of epoch 2, the best of this run \(missing, torn or exchanged\), and no "
        r"epoch is left to choose another; train the last steps again with --resume (\S+step_00000003), or test the "
        r"last weights with p3d evaluate hits --data \S+split\.csv --weights \S+last$"
    )
    with pytest.raises(Pseudo3dError, match=message):
        train(samples, CONFIG, out, resume="auto", quiet=True)
    train(samples, CONFIG, out, resume=str(out / "checkpoints" / "step_00000003"), quiet=True)
    assert end_of(out) == undisturbed


def test_what_was_left_open_is_decided_and_may_not_change(samples, tmp_path, monkeypatch):
    out, config = tmp_path / "run", replace(CONFIG, dtype="auto", dropout=None, size=32)
    with monkeypatch.context() as patch:
        patch.setattr("pseudo3d.inference.devices.bfloat16_is_native", lambda device: True)
        stopping_at(patch, 1)
        with pytest.raises(Interrupted):
            train(samples, config, out, quiet=True)
    saved = TrainConfig.from_json((out / "config.json").read_text())
    decided = {"dtype": "bfloat16", "dropout": 0.1, "style": "caffe", "blocks": "ABC", "size": 32, "resize": (36, 48)}
    assert saved == replace(config, **decided)
    with monkeypatch.context() as patch:
        patch.setattr("pseudo3d.inference.devices.bfloat16_is_native", lambda device: False)
        with pytest.raises(
            Pseudo3dError, match=r"belongs to another run: dtype was bfloat16, is float32; give the opt"
        ):
            train(samples, config, out, resume="auto", quiet=True)
        stopping_at(patch, 2)
        with pytest.raises(Interrupted, match="at step 2 of 4"):  # the saved config is the same run's
            train(samples, replace(saved, device="auto"), out, resume="auto", quiet=True)


def test_sigterm_before_the_first_step(samples, tmp_path, monkeypatch):
    """At once, and nothing is left, whether the folder is there already or not."""
    before = signal.getsignal(signal.SIGTERM)
    for place in ("trainer.check_videos", "loop.open_sinks"):
        with monkeypatch.context() as patch:
            patch.setattr(f"pseudo3d.training.{place}", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
            with pytest.raises(
                Interrupted, match=r"^SIGTERM: stopped, with no step in hand; .* --resume auto goes on$"
            ):
                train(samples, CONFIG, tmp_path / "run", quiet=True)
        assert names(tmp_path) == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_while_the_data_are_read(two_classes, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(annotations, "read_samples", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    code, out, err = p3d(capsys, "train", "--data", two_classes, "--out", tmp_path / "run", *SMALL)
    assert (code, out) == (143, "")
    assert err == ["p3d train: SIGTERM: stopped, with no step in hand; the same command with --resume auto goes on"]


def test_what_a_process_killed_early_has_left_is_in_nobodys_way(samples, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / ".lock").touch()
    train(samples, small_config(), tmp_path / "run", quiet=True)


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
    with pytest.raises(Pseudo3dError, match=r"belongs to another run: .*train videos was \d+ \(list \w{8}, labels "):
        train(fewer, CONFIG, out, resume="auto")
    first, *others = samples.samples
    other = {"bright": "dark", "dark": "bright"}[first.label]
    relabelled = replace(samples, samples=(replace(first, label=other), *others))
    with pytest.raises(Pseudo3dError, match=r"belongs to another run: \w+ videos was \d+ \("):
        train(relabelled, CONFIG, out, resume="auto")
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


@pytest.mark.slow
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

    def save(self, *args, **more):
        if next(calls) == 2:
            raise OSError(28, "No space left on device", str(self.last))
        real(self, *args, **more)

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
