"""Before a run costs hours: whether its steps fit into memory, and what one step is like (``p3d train --dry-run``)."""

import os
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pseudo3d.data.annotations import SampleList
from pseudo3d.data.dataset import ClipBatch, load
from pseudo3d.training.config import TrainConfig
from pseudo3d.training.distributed import SINGLE
from pseudo3d.training.memory import available_memory, check_memory, measure_need
from pseudo3d.training.step import part_of
from pseudo3d.video.transforms import center_window

if TYPE_CHECKING:
    from pseudo3d.training.trainer import Trainer


SHORT = 20.0  # seconds of a step after which a dry run does not do another one


def check_room(trainer: "Trainer") -> int:
    """Refuse a run whose steps do not fit into memory, before its first step.

    Args:
        trainer: before its first step.

    Returns:
        Bytes that a step is expected to take.

    Raises:
        Pseudo3dError: they do not fit; it says which --micro-batch does.
    """
    stepper, config = trainer.stepper, trainer.config
    smallest = 1 if config.freeze_bn else 2
    share = -(-min(config.batch_size, len(trainer.sides.train)) // trainer.group.size)
    clips = min(config.micro_batch or share, share)

    def loss_of(count: int) -> Tensor:
        return stepper.loss(_blank(trainer, count), stepper.model)[0]

    need = measure_need(stepper.model, loss_of, clips=smallest, optimizer=config.optim.name)
    available = available_memory(stepper.device)
    if available is not None and stepper.device.type == "cpu":
        available //= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes of a group that share this machine
    check_memory(need, clips, available, smallest=smallest)
    return need.of(clips)


def dry_run(samples: SampleList, config: TrainConfig) -> str:
    """Load one batch, do one step with it, and tell what a run would be like; nothing is kept.

    Args:
        samples: labelled videos.
        config: the recipe.

    Returns:
        Lines for a person: the videos, the shapes, the memory, and an estimate of the time that the run would take.

    Raises:
        Pseudo3dError: whatever ``training.loop.train`` would refuse before its first step.
    """
    from pseudo3d.training.loop import make_trainer

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(samples, config, Path(folder), SINGLE)
        config, stepper = trainer.config, trainer.stepper
        trainer.sampler.start, trainer.sampler.stop = 0, 1
        started = time.perf_counter()
        with closing(load(trainer.loader)) as batches:
            batch = next(batches)
        loading = time.perf_counter() - started
        size = config.micro_batch or len(batch.targets)
        part = part_of(batch, slice(0, size))
        started = time.perf_counter()
        result = stepper.step(part, 0)
        first = time.perf_counter() - started
        if first < SHORT:  # the first step is slower than those that follow: memory is new, kernels are being made
            started = time.perf_counter()
            stepper.step(part, 1)
            first = time.perf_counter() - started
        seconds = first * len(batch.targets) / len(part.targets)
    p, sides, parts = trainer.model.preprocessing, trainer.sides, -(-len(batch.targets) // size)
    free = available_memory(stepper.device)
    total = trainer.steps * max(seconds, loading if trainer.workers else seconds + loading)
    lines = [
        f"videos: {', '.join(f'{len(side)} {name}' for name, side in sides.named())}; "
        f"{len(sides.train.class_names)} classes",
        f"network: {trainer.model.architecture.name} on {stepper.device}, {str(stepper.dtype).removeprefix('torch.')}",
        f"a batch: {len(batch.targets)} clips of {p.num_frames} frames, uint8 {tuple(batch.frames.shape)} out of "
        f"frames resized to {p.resize}, in {parts} micro-batch{'es' if parts > 1 else ''} of {size}",
        f"targets: float32 {tuple(batch.targets.shape)}",
        f"loss of the first {len(part.targets)} clips: {result.loss / result.clips:.3f}",
        f"memory for a step: about {check_room(trainer) / 2**30:.1f} GiB"
        + (f", {free / 2**30:.1f} GiB are free" if free is not None else ""),
        f"time: {loading:.1f} s to load the batch with the start of the loader, {seconds:.1f} s for the step",
        f"the run: {trainer.steps} steps, {trainer.epochs} epochs, about {_duration(total)} beside validation and test",
    ]
    return "\n".join(lines)


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
