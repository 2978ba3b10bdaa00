"""``p3d train --dry-run``: what it looks at, what it says, and what it refuses."""

import re
from dataclasses import replace

import pytest
import torch
from tiny import SMALL, mistake, names, small_config, write_two_classes
from torch import nn

from pseudo3d import Pseudo3dError
from pseudo3d.data.annotations import read_samples
from pseudo3d.data.dataset import TrainingClips
from pseudo3d.data.sampler import StepSampler
from pseudo3d.training import dry_run as module
from pseudo3d.training.distributed import SINGLE, first_alone
from pseudo3d.training.dry_run import dry_run
from pseudo3d.training.loop import make_trainer
from pseudo3d.training.sides import split_samples
from pseudo3d.training.step import Stepper
from pseudo3d.video import index

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def eight(monkeypatch):
    for name in ("dry_run", "trainer"):
        monkeypatch.setattr(f"pseudo3d.training.{name}.available_cpus", lambda: 8)


@pytest.fixture
def indexed(tmp_path, monkeypatch):
    """The videos that are looked into, with nothing known of any."""
    monkeypatch.setenv("PSEUDO3D_CACHE", str(tmp_path / "cache"))
    seen, real = [], index.index_video

    def index_video(path):
        seen.append(path)
        return real(path)

    monkeypatch.setattr(index, "index_video", index_video)
    return seen


def test_what_it_says(samples):
    lines = dry_run(samples, small_config(micro_batch=2)).splitlines()
    sides = split_samples(samples, small_config())
    assert lines[0] == f"videos: {len(sides.train)} train, {len(sides.val)} val, {len(sides.test)} test; 2 classes"
    assert lines[1:4] == [
        "network: p3d_resnet14 on cpu, float32",
        "a batch: 4 clips of 16 frames, uint8 (4, 16, 32, 32, 3) out of frames resized to (36, 48), in 2 "
        "micro-batches of 2",
        "targets: float32 (4, 2)",
    ]
    assert re.match(r"loss of the first 2 clips: \d\.\d{3}$", lines[4])
    assert re.match(r"memory for a step: about \d+\.\d GiB, \d+\.\d GiB are free$", lines[5])
    assert lines[6].startswith("time: ")
    assert re.match(
        r"the run: \d+ steps, 1 epochs, about \d+ s with no workers, beside writing checkpoints: ", lines[7]
    )
    assert len(lines) == 8


def test_it_looks_into_the_videos_of_the_batch_only(samples, indexed):
    config = small_config(batch_size=2)
    dry_run(samples, config)
    side = split_samples(samples, config).train
    keys = StepSampler(len(side), 2, seed=config.seed).keys(0)
    assert sorted(indexed) == sorted(side.root / side.samples[key.video].path for key in keys)
    assert len(indexed) == 2 < len(samples)


def test_of_a_large_batch_it_looks_at_a_few_clips(samples, indexed, monkeypatch):
    """Else a batch of 128 long videos would take minutes; what is said is of the whole batch."""
    monkeypatch.setattr(module, "MOST_CLIPS", 2)
    told = {}
    monkeypatch.setattr(module, "_times", lambda trainer, seconds: told.update(seconds._asdict()) or [])
    monkeypatch.setattr(module, "_timed_twice", lambda work: (work(), 1.0))
    lines = dry_run(samples, small_config(batch_size=4)).splitlines()
    assert len(indexed) == 2
    assert lines[2].startswith("a batch: 4 clips of 16 frames, uint8 (4, 16, 32, 32, 3)")
    assert "in 1 micro-batch of 4" in lines[2]
    assert lines[4].startswith("loss of the first 2 clips: ")
    assert (told["loading"], told["stepping"]) == (2.0, 2.0)  # two clips took one second


def test_what_one_of_several_processes_would_do(samples, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    room = {}
    monkeypatch.setattr(module, "check_memory", lambda need, clips, *_, **__: room.update(clips=clips))
    lines = dry_run(samples, small_config(batch_size=4, sync_bn=True), 2).splitlines()
    assert room == {"clips": 2}
    assert lines[2] == (
        "a batch: 2 clips of 16 frames in each of 2 processes, uint8 (2, 16, 32, 32, 3) out of frames resized to "
        "(36, 48), in 1 micro-batch of 2"
    )
    assert lines[3] == "targets: float32 (2, 2)"


@pytest.mark.usefixtures("eight")
def test_several_processes_share_the_videos(samples, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    trainer = make_trainer(samples, small_config(epochs=5, workers=3), tmp_path, first_alone("cpu", 2))
    seconds = module._Seconds(looking=10.0, loading=6.0, stepping=3.0, opening=7.0, reading=4.0, scoring=0.5)
    text = "\n".join(module._times(trainer, seconds))
    assert f"{10 * len(samples) / 2:.0f} s for the first look at all videos" in text
    # of eight processors this one has four, one of which is the network's, which has to wait for three that load
    assert f"{trainer.steps * 3} s for {trainer.steps} steps" in text
    half = -(-len(trainer.sides.test) // 2)
    assert f"{7 + half * 4 / 3:.0f} s for the test" in text


def test_a_bad_video_of_the_batch_is_named(tmp_path, indexed):
    folder = write_two_classes(tmp_path / "data", 4)
    (folder / "dark" / "bad.mp4").write_text("no video")
    samples = read_samples(folder)
    sides = {"0": "test", "1": "val"}
    samples = replace(samples, samples=tuple(replace(s, split=sides.get(s.path[-5], "train")) for s in samples.samples))
    text = dry_run(samples, small_config(batch_size=5))
    assert "a batch: 5 clips" in text
    assert re.search(r"^cannot be read, another video took its place: .*bad\.mp4: is not a video", text, re.MULTILINE)


@pytest.mark.parametrize("compiled", [False, True])
def test_memory_is_looked_at_before_the_steps_and_compiling_is_no_step(samples, monkeypatch, compiled):
    done, room, step = [], module.check_room, Stepper.step
    monkeypatch.setattr(module, "check_room", lambda trainer: done.append("room") or room(trainer))
    monkeypatch.setattr(Stepper, "step", lambda self, *args: done.append("step") or step(self, *args))
    monkeypatch.setattr(nn.Module, "compile", lambda self: done.append("compile"))
    text = dry_run(samples, small_config(compile=compiled))
    assert done == [*(["compile"] if compiled else []), "room", *["step"] * (3 if compiled else 2)]
    assert re.search(r"memory for a step: about \d+\.\d GiB, \d+\.\d GiB are free", text)


def test_workers_are_not_started(samples, monkeypatch):
    """Their start would be most of what is measured: the batch is loaded by this process."""
    real, drawn = TrainingClips._draw, []

    def draw(self, epoch, video):
        drawn.append(video)
        return real(self, epoch, video)

    monkeypatch.setattr(TrainingClips, "_draw", draw)
    dry_run(samples, small_config(workers=2))
    assert len(set(drawn)) == 4


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("workers", "step", "video"),
    [
        (0, 3.0 + 6.0, 20 * 0.5 + 4.0),  # one after the other
        (1, 6.0, 10.0),  # the loader takes longer than the step; the network longer than the reading
        (3, 3.0, 10.0),
    ],
)
def test_what_a_run_would_take(samples, tmp_path, workers, step, video):
    config = small_config(workers=workers, epochs=5, val_every=2, test_clips=20, val_clips=5)
    trainer = make_trainer(samples, config, tmp_path, SINGLE)
    seconds = module._Seconds(looking=10.0, loading=6.0, stepping=3.0, opening=7.0, reading=4.0, scoring=0.5)
    text = "\n".join(module._times(trainer, seconds))
    val, test = len(trainer.sides.val), len(trainer.sides.test)
    expected = {
        "the first look at all videos": 10 * len(samples),
        f"{trainer.steps} steps": trainer.steps * step,
        "3 validations": 3 * (7 + val * video / 4),  # after the epochs 2, 4 and 5
        "the test": 7 + test * video,
    }
    for what, each in {**expected, "": sum(expected.values())}.items():
        words = f"{each:.0f} s" if each < 120 else f"{each / 60:.0f} minutes"
        assert (f"{words} for {what}" if what else f"about {words} with") in text
    assert "6.0 s to load the batch, 3.0 s for the step; for a test video 4.0 s to load 20 clips, 10.0 s to" in text


def test_processors_are_shared():
    """Whoever is done first waits for the other; on two processors, a network on both leaves none to the workers."""
    assert module.seconds_beside(1.0, 4.0, workers=4, busy=1, cpus=8) == 1.0
    assert module.seconds_beside(1.0, 4.0, workers=4, busy=1, cpus=2) == 2.5
    assert module.seconds_beside(1.0, 4.0, workers=4, busy=2, cpus=2) == 3.0


def test_a_learning_rate_that_is_far_too_high(two_classes, tmp_path, capsys):
    rate = ("--optim.lr", "1e30", "--optim.warmup-epochs", "0")
    line = mistake(capsys, "train", "--data", two_classes, *SMALL, *rate, "--dry-run")
    assert re.search(
        r"^p3d train: the (loss|gradient) became (nan|infinite) in step 2 at learning rate \S+, with the videos "
        r"\w+/\w+\.mkv, .*; lower --optim\.lr$",
        line,
    )
    assert names(tmp_path) == []


def test_what_train_would_refuse(samples):
    with pytest.raises(Pseudo3dError, match=r"^recipe scratch keeps the batch norms of trained weights: give them"):
        dry_run(samples, small_config(freeze_bn=True))
