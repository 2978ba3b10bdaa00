"""One run, from its first step or from a checkpoint to its test: epochs, validation, checkpoints, reports."""

import contextlib
import hashlib
import itertools
import json
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pseudo3d import files
from pseudo3d.cpus import available_cpus
from pseudo3d.data.annotations import SampleList
from pseudo3d.data.dataset import ClipBatch, TrainingClips, check_bad, label_sets, load, make_loader
from pseudo3d.data.sampler import StepSampler
from pseudo3d.errors import Pseudo3dError, first_few
from pseudo3d.evaluation.protocols import HitCounts, count_hits
from pseudo3d.inference import ClipRunner, fold_batch_norms, is_finite, to_input
from pseudo3d.models import VideoModel
from pseudo3d.training.batch_norms import has_batch_norm, running_statistics
from pseudo3d.training.cards import run_card, write_card
from pseudo3d.training.checkpoint import Checkpoints, RunState
from pseudo3d.training.config import TrainConfig
from pseudo3d.training.distributed import SINGLE, Group
from pseudo3d.training.progress import UNSEEN, Looking, TrainingProgress
from pseudo3d.training.record import Record, Report
from pseudo3d.training.sides import Sides, check_videos
from pseudo3d.training.sinks import Sink
from pseudo3d.training.step import NotFiniteError, Stepper
from pseudo3d.training.stopping import Interrupted, StopSignals
from pseudo3d.video.index import IndexCache
from pseudo3d.visualize.frames import undo_preprocessing
from pseudo3d.weights import from_pretrained
from pseudo3d.weights.pretrained import WEIGHTS_NAME

_log = logging.getLogger("pseudo3d")

SCALARS_EVERY = 10  # steps between two points of a curve in TensorBoard
MEET_EVERY = 4  # videos of a validation or test after which several processes ask each other for signals


@dataclass(frozen=True)
class TrainResult:
    """What a run came to.

    Args:
        run: its folder.
        checkpoint: the pretrained folder that was tested.
        test: clip hit@1, video hit@1 and, from six classes on, video hit@5 on the test videos, 0..1.
        seconds: of training and validation.
        left_out: how many unreadable videos were left out, by "val" and "test".
        replaced: training videos that others took the place of, since they cannot be read.
    """

    run: Path
    checkpoint: Path
    test: dict[str, float]
    seconds: float
    left_out: Mapping[str, int] = field(default_factory=dict)
    replaced: int = 0


class Trainer:
    """A network, its optimizer and its data, and how far they are.

    Args:
        model: trained in place.
        sides: the videos.
        config: the recipe; model and resize are set.
        out: the run's folder, which exists when ``run`` is called.
        cache: of the videos' indices.
        group: the processes that share the run; the first one writes.
    """

    def __init__(
        self,
        model: VideoModel,
        sides: Sides,
        config: TrainConfig,
        out: Path,
        *,
        cache: IndexCache | None = None,
        group: Group = SINGLE,
    ) -> None:
        self.config, self.sides, self.out, self.group = config, sides, out, group
        self.listed = sides  # bad ones among them, too
        self.state = RunState()
        self.checkpoints = Checkpoints(out / "checkpoints", config.keep_last)
        self.sinks: list[Sink] = []
        self.signals = StopSignals()
        self.sampler = StepSampler(
            len(sides.train),
            config.batch_size,
            seed=config.seed,
            rank=group.rank,
            world_size=group.size,
            drop_single=config.batch_size > 1 and has_batch_norm(model),  # one clip alone has no batch statistics
        )
        self.steps_per_epoch = self.sampler.steps_per_epoch
        steps = self.steps_per_epoch * config.epochs if config.iterations is None else config.iterations
        self.steps, self.epochs = steps, math.ceil(steps / self.steps_per_epoch)
        warmup = min(round(config.optim.warmup_epochs * self.steps_per_epoch), steps // 2)
        truth = label_sets(sides.train)
        weights = balanced_weights(truth) if config.class_weights == "balanced" else None
        self.stepper = Stepper(model, config, steps=steps, warmup=warmup, class_weights=weights, group=group)
        self.workers = config.workers if config.workers is not None else _default_workers(group.on_machine[1])
        self._cache = IndexCache() if cache is None else cache
        dataset = TrainingClips(sides.train, model.preprocessing, config.augment, seed=config.seed, index=self._cache)
        self.loader = make_loader(
            dataset, self.sampler, workers=self.workers, pin_memory=self.stepper.device.type == "cuda"
        )

    @property
    def model(self) -> VideoModel:
        """The network that is trained."""
        return self.stepper.model

    @property
    def belongs(self) -> str:
        """What may not change within a run, as JSON: the recipe's numbers and the videos listed for each side."""
        free = ("device", "workers", "checkpoint_every", "keep_last", "license", "max_bad", "skip_bad")
        recipe = {key: value for key, value in json.loads(self.config.to_json()).items() if key not in free}
        optim, augment = recipe.pop("optim"), recipe.pop("augment")
        recipe |= {f"optim.{key}": value for key, value in optim.items()}
        recipe |= {f"augment.{key}": value for key, value in augment.items()}
        for name, side in self.listed.named():
            listed = _digest([(sample.path, sample.group) for sample in side.samples])
            labels = _digest([sample.labels for sample in side.samples])
            recipe[f"{name} videos"] = f"{len(side)} (list {listed}, labels {labels})"
        return json.dumps(recipe)

    def look(self, looking: Looking = UNSEEN) -> None:
        """Look into every video, before the first step (``check_videos`` says what is refused and left out)."""
        self.sides, self.state.bad = check_videos(
            self.sides, self._cache, skip_bad=self.config.skip_bad, max_bad=self.config.max_bad, group=self.group,
            looking=looking,
        )  # fmt: skip

    def run(self, progress: TrainingProgress) -> TrainResult:
        """What is left of the run, then the test with the best epoch's weights (the last one's without a validation).

        Raises:
            Pseudo3dError: the loss is no longer finite, and the state before that step has been kept; or too many
                videos are bad.
            Interrupted: a signal asked for the end, and where the run is has been kept.
        """
        self.record = Record(self.out, self.state.reports)
        with self.signals:
            if self._unreported():
                self._end_epoch(progress)
            self.sampler.start, self.sampler.stop = self.state.step, self.steps
            with contextlib.closing(load(self.loader)) as batches:
                for batch, waited in _timed(batches):
                    self._train(batch, waited, progress)
                    if self._unreported():
                        self._end_epoch(progress)
                    elif self.config.checkpoint_every and self.state.step % self.config.checkpoint_every == 0:
                        self._save()
                    self._stop_if_asked()
            return self._test(progress)

    @property
    def epoch(self) -> int:
        """The epoch of the last step done, from 1."""
        return max(1, math.ceil(self.state.step / self.steps_per_epoch))

    def _unreported(self) -> bool:
        """Whether an epoch is over and its report has not been written."""
        step = self.state.step
        return (step % self.steps_per_epoch == 0 or step == self.steps) and len(self.state.reports) < math.ceil(
            step / self.steps_per_epoch
        )

    def _train(self, batch: ClipBatch, waited: float, progress: TrainingProgress) -> None:
        """One step, and what is told of it."""
        started, state = time.perf_counter(), self.state
        if state.step % self.steps_per_epoch == 0:
            state.loss, state.hits, state.clips, state.seconds, state.waited = 0.0, 0, 0, 0.0, 0.0
            self.stepper.train_mode()
            self._show_clip(batch)
        clips = len(self.sampler.keys(state.step))
        lr = self.stepper.lr(state.step)
        self._note_bad(batch)
        statistics = running_statistics(self.model)
        try:
            done = self.stepper.step(batch, state.step, clips)
        except NotFiniteError as error:
            for buffer, value in statistics:
                buffer.copy_(value)
            raise self._diverged(str(error), batch, lr) from error
        loss, hits, shown = self.group.total([done.loss, done.hits, done.clips])
        state.step += 1
        state.loss, state.hits, state.clips = state.loss + loss, state.hits + int(hits), state.clips + int(shown)
        seconds = time.perf_counter() - started + waited
        state.seconds, state.waited = state.seconds + seconds, state.waited + waited
        state.total_seconds += seconds
        mean, waiting, speed = state.loss / state.clips, state.waited / state.seconds, state.clips / state.seconds
        memory = _memory_in_use(self.stepper.device)
        progress.stepped(self.epoch, mean, lr, clips_per_s=speed, waiting=waiting, memory=memory)
        if state.step % SCALARS_EVERY == 0 or state.step == 1:
            values = {"loss": loss / shown, "lr": lr, "clips/s": speed, "waiting for data": waiting, "memory": memory}
            for sink in self.sinks:
                sink.scalars(state.step, {f"train/{name}": value for name, value in values.items()})

    def _end_epoch(self, progress: TrainingProgress) -> None:
        """Validation, report, checkpoints; ``best`` before ``last``, which says what best is."""
        state, epoch, started = self.state, self.epoch, time.perf_counter()
        self.group.share_buffers(self.model)
        if not is_finite(fold_batch_norms(self.model)):
            raise self._not_finite()
        report: Report = {
            "epoch": epoch,
            "step": state.step,
            "lr": self.stepper.lr(state.step - 1),
            "loss": state.loss / state.clips,
            "train clip hit@1": state.hits / state.clips,
            "clips/s": state.clips / state.seconds,
            "waiting for data": state.waited / state.seconds,
        }
        report |= {"training videos replaced": len(state.bad)} if state.bad else {}
        val: dict[str, float] = {}
        if self.sides.val is not None and (epoch % self.config.val_every == 0 or state.step == self.steps):
            counts = self._validate(self.sides.val, progress)
            val = counts.hits()
            left_out = len(self._left_out("val", counts))
            report |= {f"val {name}": value for name, value in val.items()}
            report |= {"val videos left out": left_out} if left_out else {}
        state.total_seconds += time.perf_counter() - started
        state.reports.append(report)
        for sink in self.sinks:
            sink.scalars(state.step, {name: value for name, value in report.items() if name not in ("epoch", "step")})
        # The later of two equals has seen more; without a validation the last one counts.
        score = val.get("video hit@1", float(epoch) if self.sides.val is None else None)
        if score is not None and score >= state.best:
            state.best, state.best_epoch, state.best_val = score, epoch, val
            if self.group.is_main:
                state.best_sha256 = self.checkpoints.save_best(self.model, self._card(epoch, val))
        self._save()
        if self.group.is_main:
            self.record.add(report)
        progress.ended(epoch, report["loss"], val.get("video hit@1"))

    def _validate(self, side: SampleList, progress: TrainingProgress) -> HitCounts:
        """The hits on the validation videos, once the epoch's steps are safe from what may end the process."""
        self._save(spare=1)
        progress.scoring("validation", self._share(side))
        counts = self._count(self.model, side, self.config.val_clips, progress.scored)
        if counts.confusion is not None:
            for sink in self.sinks:
                sink.confusion(self.state.step, counts.confusion, self.sides.train.class_names)
        return counts

    def _left_out(self, name: str, counts: HitCounts) -> list[str]:
        """Why videos of a side were not scored: those found bad before the first step, and those found since."""
        return [*self.sides.left_out.get(name, ()), *counts.skipped]

    def _save(self, spare: int = 0) -> None:
        """The whole state as the newest checkpoint.

        Raises:
            Pseudo3dError: on every process: the weights are no longer finite; the checkpoints stay as they are.
        """
        if not is_finite(self.model):
            raise self._not_finite()
        if self.group.is_main:
            reports = self.state.reports
            of_now = reports[-1] if reports and reports[-1]["step"] == self.state.step else {}
            card = self._card(self.epoch, {k.removeprefix("val "): v for k, v in of_now.items() if _is_val_hit(k)})
            self.checkpoints.save(self.model, self.stepper.optimizer, self.state, self.belongs, card, spare=spare)

    def resume(self, folder: Path) -> None:
        """Go on from a checkpoint of this run.

        Raises:
            Pseudo3dError: what ``Checkpoints.load`` refuses; or the run is done, and ``best`` is not what it left.
        """
        bad = self.state.bad
        self.state = self.checkpoints.load(folder, self.model, self.stepper.optimizer, self.belongs)
        self.state.bad |= bad
        weights = self.checkpoints.best / WEIGHTS_NAME
        if self.state.best_epoch and (not weights.exists() or files.sha256_of(weights) != self.state.best_sha256):
            self.state.best = -1.0  # it is of a step that is done again, or gone: the next epoch is the best so far
            if self.state.step == self.steps and not self._unreported():
                raise Pseudo3dError(self._best_is_lost())

    def _best_is_lost(self) -> str:
        """What to say of a run that is done and whose best weights are not there."""
        last, best = self.checkpoints.last, self.checkpoints.best
        older = [folder for _, folder in self.checkpoints.resumable() if folder != last]
        again = f"train the last steps again with --resume {older[0]}, or " if older else ""
        return (
            f"{best}: its weights are not those of epoch {self.state.best_epoch}, the best of this run (missing, torn "
            f"or exchanged), and no epoch is left to choose another; {again}test the last weights with p3d evaluate "
            f"hits --data {self.out / 'split.csv'} --weights {last}"
        )

    def _test(self, progress: TrainingProgress) -> TrainResult:
        """The best epoch's weights on the test videos."""
        self.group.barrier()  # the first process has written them
        best, state = self.checkpoints.best, self.state
        model = from_pretrained(best).to(self.stepper.device)
        progress.scoring("testing", self._share(self.sides.test))
        counts = self._count(model, self.sides.test, self.config.test_clips, progress.scored)
        test, left_out = counts.hits(), self._left_out("test", counts)
        line: Report = {"test": test, "clips": self.config.test_clips, "seconds": round(state.total_seconds, 1)}
        line |= {"videos left out": left_out} if left_out else {}
        line |= {"training videos replaced": len(state.bad)} if state.bad else {}
        if self.group.is_main:
            self.record.add(line)
            write_card(model, best, self._card(state.best_epoch, state.best_val, test))
            for sink in self.sinks:
                sink.scalars(state.step, {f"test {name}": value for name, value in test.items()})
        self.group.barrier()
        numbers = {"val": state.reports[-1].get("val videos left out", 0), "test": len(left_out)}
        numbers = {name: number for name, number in numbers.items() if number}
        return TrainResult(self.out, best, test, state.total_seconds, numbers, len(state.bad))

    def _count(self, model: VideoModel, samples: SampleList, clips: int, on_video: Callable[[], None]) -> HitCounts:
        """Hits by the paper's protocol with so many clips a video; each process scores its part of the videos.

        A signal ends it: alone after the video in hand, among several processes after some, when all have met.
        """
        runner = ClipRunner(model, device=str(self.stepper.device), dtype=self.config.dtype)
        every, of_each = (1 if self.group.size == 1 else MEET_EVERY), len(samples) // self.group.size
        numbers = itertools.count(1)

        def scored() -> None:
            on_video()
            number = next(numbers)
            if number % every == 0 and number <= of_each:
                self._stop_if_asked()

        counts = count_hits(
            runner,
            samples,
            clips=clips,
            on_video=scored,
            skip_bad=self.config.skip_bad,
            workers=self.workers,
            part=(self.group.rank, self.group.size),
        )
        first, *others = self.group.gather(counts)
        return sum(others, start=first)

    def _share(self, side: SampleList) -> int:
        """How many of its videos the first process scores."""
        return -(-len(side) // self.group.size)

    def _stop_if_asked(self) -> None:
        """End the run with a checkpoint when a signal has come to any of its processes."""
        pending = max(self.group.gather(self.signals.pending))
        if not pending:
            return
        self._save()
        text = (
            f"{signal.Signals(pending).name}: stopped at step {self.state.step} of {self.steps}, which is kept in "
            f"{self.checkpoints.last}; go on with the same command and --resume auto"
        )
        raise Interrupted(pending, text if self.group.is_main else "")

    def _note_bad(self, batch: ClipBatch) -> None:
        """Count and name the videos that were replaced by others in this step, on any process."""
        bad = batch.bad
        if self.group.any(bool(bad)):
            bad = [each for part in self.group.gather(bad) for each in part]
        for video, reason in bad:
            if video not in self.state.bad:
                self.state.bad[video] = reason
                check_bad(self.state.bad, self.sides.train, self.config.max_bad)
                if self.group.is_main:
                    _log.warning("%s (another video took its place)", reason)

    def _show_clip(self, batch: ClipBatch) -> None:
        """The first clip of the epoch, as the network sees it."""
        if self.sinks:
            p = self.model.preprocessing
            mean, windows = self.model.mean_volume, batch.windows[:1]
            inputs = to_input(batch.frames[:1].to(self.stepper.device), p, mean, windows)
            frames = undo_preprocessing(inputs, p, mean, windows)[0]
            for sink in self.sinks:
                sink.clip(self.state.step + 1, "clip", frames)

    def _card(self, epoch: int, val: dict[str, float] | None = None, test: dict[str, float] | None = None) -> Any:
        return run_card(self.config, self.sides, epoch=epoch, val=val, test=test)

    def _diverged(self, what: str, batch: ClipBatch, lr: float) -> Pseudo3dError:
        """What to say of a step that was not done; the state before it is kept, where that is finite."""
        shown = [video for video, counted in zip(batch.videos, batch.counted.tolist(), strict=True) if counted]
        names = [self.sides.train.samples[video].path for part in self.group.gather(shown) for video in part]
        step = self.state.step + 1
        place = (
            f"{what} in step {step} (epoch {math.ceil(step / self.steps_per_epoch)}) at learning rate {lr:.2g}, with "
            "the videos"
        )
        if is_finite(self.model):
            self._save(spare=1)
        told, listed = self.out / "diverged.txt", ", ".join(names)
        if self.group.is_main and self.checkpoints.last.exists():
            files.write_text(told, "".join(f"{line}\n" for line in (f"{place}:", *names)))
            listed = f"{first_few(names)} (all {len(names)}: {told})"
        return Pseudo3dError(f"{place} {listed}; {self._lower()}")

    def _not_finite(self) -> Pseudo3dError:
        text = f"the network's weights are no longer finite after step {self.state.step}; {self._lower()}"
        return Pseudo3dError(text)

    def _lower(self) -> str:
        """What to do when numbers are no longer finite."""
        last = self.checkpoints.last
        if not last.exists():
            return "lower --optim.lr"
        return f"lower --optim.lr in a new run (another --out); --weights {last} starts from the last weights kept"


def balanced_weights(truth: np.ndarray) -> np.ndarray:
    """Weights that give every class the same share of the loss, float64 (classes,), of mean 1 over the clips.

    Args:
        truth: bool (videos, classes); every class has a video.

    Example:
        >>> balanced_weights(np.array([[True, False], [True, False], [False, True], [True, False]]))
        array([0.66666667, 2.        ])
    """
    shares = (truth / truth.sum(1, keepdims=True)).sum(0)
    return shares.sum() / (len(shares) * shares)


def _is_val_hit(name: str) -> bool:
    """Whether a number of a report is one of a validation's ("val video hit@1")."""
    return name.startswith("val ") and "hit@" in name


def _digest(values: Sequence[Any]) -> str:
    """What there is, in order, in eight hexadecimal digits."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:8]


def _timed(batches: Iterator[ClipBatch]) -> Iterator[tuple[ClipBatch, float]]:
    """Each batch with the seconds that were spent waiting for it."""
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - started


def _memory_in_use(device: torch.device) -> int:
    """Bytes: of tensors on a GPU, else of this process in the system's memory (its peak where only that is known)."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _default_workers(processes: int) -> int:
    """For each of a machine's processes. On two processors decoding beside the network only takes turns with it."""
    cpus = available_cpus() // processes
    return 0 if cpus <= 2 else min(8, cpus - 1)
