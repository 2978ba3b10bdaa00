"""Before a run costs hours: whether its steps fit into memory, and what one step is like (``p3d train --dry-run``)."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from pseudo3d.cpus import available_cpus
from pseudo3d.data.annotations import SampleList
from pseudo3d.data.dataset import ClipBatch, TrainingClips, load, make_loader
from pseudo3d.data.sampler import StepSampler
from pseudo3d.errors import Pseudo3dError, first_few
from pseudo3d.evaluation.protocols import count_hits
from pseudo3d.features.encoding import decode_here
from pseudo3d.inference import ClipRunner
from pseudo3d.training.config import TrainConfig
from pseudo3d.training.distributed import first_alone
from pseudo3d.training.memory import (
    available_memory,
    check_memory,
    measure_need,
    too_little_beside_explained,
    too_little_explained,
)
from pseudo3d.training.step import NotFiniteError, StepResult
from pseudo3d.video.clips import ClipPlan
from pseudo3d.video.pool import Decoded
from pseudo3d.video.transforms import center_window

if TYPE_CHECKING:
    from pseudo3d.training.trainer import Trainer


SHORT = 10.0  # seconds of work after which a dry run does not do it again
MOST_CLIPS = 16  # in its step: a large batch is no different, and loading 128 long videos would take minutes
_TEST_VIDEOS = 3  # to read in a dry run

Result = TypeVar("Result")


class Room(NamedTuple):
    """Bytes that a step is expected to take, and that this process may take; None where nobody knows."""

    needed: int
    available: int | None


def check_room(trainer: "Trainer") -> Room:
    """Refuse a run whose steps do not fit into memory, before its first step.

    Args:
        trainer: before its first step.

    Raises:
        Pseudo3dError: they do not fit, or memory ran out in finding out; it says which --micro-batch does.
    """
    stepper, config = trainer.stepper, trainer.config
    smallest = stepper.smallest
    _, clips = _sizes(trainer)

    def loss_of(count: int) -> Tensor:
        return stepper.loss(_blank(trainer, count), stepper.model)[0]

    with too_little_explained(smallest, smallest=smallest):
        need = measure_need(stepper.model, loss_of, clips=smallest, optimizer=config.optim.name)
    available = available_memory(stepper.device)
    if available is not None and stepper.device.type == "cpu":
        available //= trainer.group.on_machine[1]
    check_memory(need, clips, available, smallest=smallest)
    return Room(need.of(clips), available)


def dry_run(samples: SampleList, config: TrainConfig, processes: int = 1) -> str:
    """Load one batch, do one step with it, and tell what a run would be like; nothing is kept.

    Of a batch it takes the first micro-batch, and ``MOST_CLIPS`` clips at most. Of the videos it looks into those of
    these clips and a few to test on, and what it finds out about their frames stays in the cache.

    Args:
        samples: labelled videos.
        config: the recipe.
        processes: of this machine that would share the run; this is the first one, alone.

    Returns:
        Lines for a person: the videos, the shapes, the memory, and an estimate of the time that the run would take.

    Raises:
        Pseudo3dError: what ``training.loop.train`` would refuse before its first step, but for bad videos that it has
            not looked into; or the step's loss is not finite, or memory ran out.
    """
    from pseudo3d.training.loop import make_trainer

    with tempfile.TemporaryDirectory() as folder, too_little_beside_explained():
        trainer = make_trainer(samples, config, Path(folder), first_alone(config.device, processes))
        room = check_room(trainer)
        share, part = _sizes(trainer)
        batch, looking, loading = _first_clips(trainer, min(part, MOST_CLIPS))
        scoring = _scoring(trainer)  # before the steps, which may spoil the weights
        result, stepping = _stepped(trainer, batch)
    loading, stepping = (seconds * share / len(batch.targets) for seconds in (loading, stepping))
    return "\n".join(
        [
            *_shapes(trainer, batch, share, part),
            *(f"cannot be read, another video took its place: {reason}" for _, reason in batch.bad),
            f"loss of the first {len(batch.targets)} clips: {result.loss / result.clips:.3f}",
            _memory(room),
            *_times(trainer, _Seconds(looking, loading, stepping, *scoring)),
        ]
    )


class _Seconds(NamedTuple):
    """What was measured, with one process that does one thing after the other.

    Args:
        looking: at a video for the first time.
        loading: this process's clips of a batch.
        stepping: with them.
        opening: what a validation or test begins with, its decoder processes among it.
        reading: the test's clips of a video.
        scoring: one of them.
    """

    looking: float
    loading: float
    stepping: float
    opening: float
    reading: float
    scoring: float


def _sizes(trainer: "Trainer") -> tuple[int, int]:
    """Clips of a step that are this process's, and how many of them go through the network at once."""
    config = trainer.config
    share = -(-min(config.batch_size, len(trainer.sides.train)) // trainer.group.size)
    return share, min(config.micro_batch or share, share)


def _first_clips(trainer: "Trainer", count: int) -> tuple[ClipBatch, float, float]:
    """So many clips, loaded in this process; seconds of the first look at one of their videos, and to load all.

    Worker processes would take longer to start than a batch takes.
    """
    dataset, side = trainer.loader.dataset, trainer.sides.train
    assert isinstance(dataset, TrainingClips)
    sampler = StepSampler(len(side), count, seed=trainer.config.seed)
    sampler.stop = 1
    keys = sampler.keys(0)
    started = time.perf_counter()
    paths = [side.root / side.samples[key.video].path for key in keys]
    dataset.index.build(paths, sharing=trainer.group.on_machine[1])
    looking = (time.perf_counter() - started) / len(keys)
    loader = make_loader(dataset, sampler, workers=0)

    def loaded() -> ClipBatch:
        with closing(load(loader)) as batches:
            return next(batches)

    batch, seconds = _timed_twice(loaded)
    return batch, looking, seconds


def _scoring(trainer: "Trainer") -> tuple[float, float, float]:
    """Seconds to begin a validation, to read the clips of a test video (the median of a few), and to score a clip."""
    side, clips = trainer.sides.test, trainer.config.test_clips
    started = time.perf_counter()
    runner = ClipRunner(trainer.model, device=str(trainer.stepper.device), dtype=trainer.config.dtype)
    few = replace(side, samples=side.samples[: max(1, trainer.workers)])
    count_hits(runner, few, clips=1, skip_bad=True, workers=trainer.workers)
    opening = time.perf_counter() - started
    plan = ClipPlan(runner.preprocessing, clips)
    reading: list[float] = []
    began = time.perf_counter()
    for number, sample in enumerate(side.samples):
        started = time.perf_counter()
        *_, last = decode_here([(number, side.root / sample.path)], plan)
        if isinstance(last, Decoded):
            reading.append(time.perf_counter() - started)
        if len(reading) == _TEST_VIDEOS or time.perf_counter() - began > SHORT / 2:
            break
    p = runner.preprocessing
    blank = [np.zeros((p.num_frames, *p.crop, 3), np.uint8)] * runner.batch_size
    _, seconds = _timed_twice(lambda: runner(blank, ("prob",)))
    return opening, statistics.median(reading or [0.0]), seconds / runner.batch_size


def _stepped(trainer: "Trainer", batch: ClipBatch) -> tuple[StepResult, float]:
    """A step with these clips: what came out first, and the seconds that it takes."""
    numbers, results = itertools.count(), []

    def step() -> None:
        number = next(numbers)
        try:
            results.append(trainer.stepper.step(batch, number, len(batch.targets) * trainer.group.size))
        except NotFiniteError as error:
            names = first_few(trainer.sides.train.samples[video].path for video in batch.videos)
            raise Pseudo3dError(
                f"{error} in step {number + 1} at learning rate {trainer.stepper.lr(number):.2g}, with the videos "
                f"{names}; lower --optim.lr"
            ) from error

    if trainer.config.compile:
        step()  # compiles
    _, seconds = _timed_twice(step)
    return results[0], seconds


def _timed_twice(work: Callable[[], Result]) -> tuple[Result, float]:
    """What some work gives, and its seconds when done again: at first memory is new and kernels are being made.

    Work that takes long is done once.
    """
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - started
        if seconds > SHORT:
            break
    return result, seconds


def _shapes(trainer: "Trainer", batch: ClipBatch, share: int, part: int) -> list[str]:
    sides, stepper, p = trainer.sides, trainer.stepper, trainer.model.preprocessing
    parts, size = -(-share // part), trainer.group.size
    shared = f" in each of {size} processes" if size > 1 else ""
    return [
        f"videos: {', '.join(f'{len(side)} {name}' for name, side in sides.named())}; "
        f"{len(sides.train.class_names)} classes",
        f"network: {trainer.model.architecture.name} on {stepper.device}, {str(stepper.dtype).removeprefix('torch.')}",
        f"a batch: {share} clips of {p.num_frames} frames{shared}, uint8 {(share, *batch.frames.shape[1:])} out of "
        f"frames resized to {p.resize}, in {parts} micro-batch{'es' if parts > 1 else ''} of {part}",
        f"targets: float32 {(share, *batch.targets.shape[1:])}",
    ]


def _memory(room: Room) -> str:
    free = "" if room.available is None else f", {room.available / 2**30:.1f} GiB are free"
    return f"memory for a step: about {room.needed / 2**30:.1f} GiB{free}"


def _times(trainer: "Trainer", seconds: _Seconds) -> list[str]:
    """What was measured, and what the run would take with its workers."""
    config, sides, size = trainer.config, trainer.sides, trainer.group.size
    cpus = max(1, available_cpus() // size)
    busy = min(torch.get_num_threads(), cpus) if trainer.stepper.device.type == "cpu" else 1

    def paced(network: float, loading: float) -> float:
        return seconds_beside(network, loading, workers=trainer.workers, busy=busy, cpus=cpus)

    def scored(videos: int, clips: int) -> float:
        a_video = paced(clips * seconds.scoring, seconds.reading * clips / config.test_clips)
        return seconds.opening + -(-videos // size) * a_video

    validations = 0 if sides.val is None else -(-trainer.epochs // config.val_every)
    parts = {
        "the first look at all videos": seconds.looking * sum(len(side) for _, side in sides.named()) / size,
        f"{trainer.steps} steps": trainer.steps * paced(seconds.stepping, seconds.loading),
        f"{validations} validations": validations * scored(len(sides.val or ()), config.val_clips),
        "the test": scored(len(sides.test), config.test_clips),
    }
    clips = f"{config.test_clips} clip{'' if config.test_clips == 1 else 's'}"
    workers = f"{trainer.workers or 'no'} worker{'' if trainer.workers == 1 else 's'}"
    return [
        f"time: {seconds.loading:.1f} s to load the batch, {seconds.stepping:.1f} s for the step; for a test video "
        f"{seconds.reading:.1f} s to load {clips}, {config.test_clips * seconds.scoring:.1f} s to score them",
        f"the run: {trainer.steps} steps, {trainer.epochs} epochs, about {_duration(sum(parts.values()))} with "
        f"{workers}, beside writing checkpoints: "
        + ", ".join(f"{_duration(each)} for {what}" for what, each in parts.items()),
    ]


def seconds_beside(network: float, loading: float, *, workers: int, busy: int, cpus: int) -> float:
    """Seconds from one batch to the next when worker processes load them beside the network.

    Args:
        network: seconds with a batch.
        loading: seconds of one process to load it.
        workers: 0 for one after the other.
        busy: processors that the network uses.
        cpus: processors that there are, for both.

    Example:
        >>> [seconds_beside(1.0, 4.0, workers=n, busy=1, cpus=8) for n in (0, 1, 2, 7)]
        [5.0, 4.0, 2.0, 1.0]
        >>> seconds_beside(1.0, 4.0, workers=2, busy=2, cpus=2)  # they take turns
        3.0
    """
    if workers == 0:
        return network + loading
    return max(network, loading / workers, (network * busy + loading) / cpus)


def _blank(trainer: "Trainer", count: int) -> ClipBatch:
    """So many black clips, as large as those that the network will see."""
    p, classes = trainer.model.preprocessing, len(trainer.sides.train.class_names)
    assert not isinstance(p.resize, int)  # make_trainer has seen to it
    window = center_window(p.resize, p.crop)
    return ClipBatch(
        torch.zeros(count, p.num_frames, *p.crop, 3, dtype=torch.uint8),
        torch.full((count, classes), 1 / classes),
        torch.ones(count, dtype=torch.bool),
        [window] * count,
        [0] * count,
        [],
    )


def _duration(seconds: float) -> str:
    """Rounded for a person.

    Example:
        >>> _duration(50), _duration(600), _duration(40000)
        ('50 s', '10 minutes', '11.1 hours')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
