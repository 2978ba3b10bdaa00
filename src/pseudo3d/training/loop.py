"""The training loop: one random clip of every video an epoch, validation, checkpoints, a test at the end."""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from pseudo3d import files
from pseudo3d.data.annotations import SampleList
from pseudo3d.data.dataset import EpochSampler, TrainingClips
from pseudo3d.errors import Pseudo3dError, VideoError, first_few
from pseudo3d.evaluation.protocols import score_videos
from pseudo3d.inference import (
    ClipRunner,
    check_takes_rgb,
    choose_device,
    choose_dtype,
    fold_batch_norms,
    is_finite,
    to_input,
)
from pseudo3d.models import VideoModel, create_model
from pseudo3d.models.c3d import C3D
from pseudo3d.models.interface import filters_to_channels_last
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.training.checkpoint import run_card, save_checkpoint, write_card
from pseudo3d.training.config import DEFAULT_MODEL, TrainConfig
from pseudo3d.training.optim import freeze_batch_norms, lr_factor, make_optimizer
from pseudo3d.training.progress import TrainingProgress
from pseudo3d.training.sides import Sides, check_videos, sides_to_csv, split_samples
from pseudo3d.video.transforms import Window
from pseudo3d.weights import from_pretrained, load_model

Report = dict[str, Any]
Batch = tuple[Tensor, Tensor, list[Window]]


@dataclass(frozen=True)
class TrainResult:
    """What a run came to.

    Args:
        run: its folder.
        checkpoint: the pretrained folder that was tested.
        test: clip hit@1, video hit@1 and, from six classes on, video hit@5 on the test videos, 0..1.
        seconds: of training and validation.
    """

    run: Path
    checkpoint: Path
    test: dict[str, float]
    seconds: float


def build_model(config: TrainConfig, class_names: Sequence[str]) -> VideoModel:
    """The network that the config describes, with its head for these classes.

    Raises:
        Pseudo3dError: no such network, weights that do not fit, frozen batch norms without trained weights, or a size
            that the network does not take.
    """
    if config.weights == "random":
        if config.freeze_bn:
            raise Pseudo3dError(
                f"recipe {config.recipe} keeps the batch norms of trained weights: give them with --weights, "
                "or use --no-freeze-bn"
            )
        model = create_model(
            config.model or DEFAULT_MODEL,
            num_classes=len(class_names),
            blocks=config.blocks,
            style=config.style or "caffe",
            dropout=config.dropout,
        )
    else:
        model = load_model(
            config.model or "p3d",
            config.weights,
            num_classes=len(class_names),
            blocks=config.blocks,
            style=config.style,
            dropout=config.dropout,
            head=config.head,
            temporal_init=config.temporal_init,
        )
        check_takes_rgb(config.weights, model.architecture.in_channels)
    model.preprocessing = _sized(model, config)
    if config.head == "auto" and model.class_names not in (None, tuple(class_names)):
        raise Pseudo3dError(
            f"{config.weights}: its classes are {first_few(model.class_names or ())}, the data's "
            f"{first_few(class_names)}; use --head new"
        )
    model.class_names = tuple(class_names)
    return model


def _sized(model: VideoModel, config: TrainConfig) -> Preprocessing:
    """The model's preprocessing with the frames and crops that the config asks for."""
    p = model.preprocessing
    if isinstance(model, C3D):  # its first fully connected layer and its mean volume are of one size
        if (config.size or p.crop[0], config.resize or p.resize) != (p.crop[0], p.resize):
            raise Pseudo3dError(
                f"{model.architecture.name} takes crops of {p.crop[0]}x{p.crop[1]} out of frames resized to "
                f"{'x'.join(map(str, model.mean_volume.shape[2:]))} only; leave out --size and --resize"
            )
        return p
    return with_margin(p if config.size is None else _scaled(p, config.size), config.resize)


def with_margin(preprocessing: Preprocessing, resize: tuple[int, int] | None) -> Preprocessing:
    """The same crop out of frames resized to (height, width), in training and in testing.

    Without ``resize``, 182x242 for crops of 160x160 and the same margin around others (paper section 3.3), unless the
    network says it itself, as the frame baseline does with 240x320.

    Raises:
        Pseudo3dError: the crop is below 32 pixels or does not fit into the frames.

    Example:
        >>> p = Preprocessing()
        >>> with_margin(p, None).resize, with_margin(p.with_size(80), None).resize, with_margin(p, (170, 226)).resize
        ((182, 242), (91, 121), (170, 226))
    """
    height, width = preprocessing.crop
    if min(height, width) < 32:
        raise Pseudo3dError(f"the weights are for frames of {height}x{width}; give a --size of at least 32")
    if resize is None and (isinstance(preprocessing.resize, int) or preprocessing.resize == preprocessing.crop):
        resize = round(height * 182 / 160), round(width * 242 / 160)
    if resize is not None and (resize[0] < height or resize[1] < width):
        raise Pseudo3dError(
            f"--resize {resize[0]} {resize[1]} leaves no room for crops of {height}x{width}; "
            "make it at least as large, or choose a smaller --size"
        )
    return preprocessing if resize is None else replace(preprocessing, resize=resize)


def _scaled(preprocessing: Preprocessing, size: int) -> Preprocessing:
    """Crops of size x size, with the network's own margin around them where it has one."""
    resize = preprocessing.resize
    if isinstance(resize, int) or resize == preprocessing.crop:
        return preprocessing.with_size(size)
    height, width = (round(edge * size / own) for edge, own in zip(resize, preprocessing.crop, strict=True))
    return replace(preprocessing, resize=(height, width), crop=(size, size))


def train(samples: SampleList, config: TrainConfig, out: str | Path, *, quiet: bool = False) -> TrainResult:
    """Train a network on labelled videos and test it.

    Writes ``out``/config.json, metrics.jsonl (one line an epoch, one for the test), split.csv (which video was on
    which side; a list that ``p3d extract`` takes) and checkpoints/best and checkpoints/last, each a pretrained folder.

    Args:
        samples: labelled videos (``data.annotations.read_samples``).
        config: the recipe (``training.config``).
        out: the run's folder; must not hold a run already.
        quiet: no progress bar.

    Raises:
        Pseudo3dError: unusable data or config, a video that cannot be decoded, a loss that is no longer finite.
        OSError: the folder cannot be written or the disk is full; the last checkpoint is whole.
    """
    out = Path(out)
    _check_out(out)
    sides = split_samples(samples, config)
    torch.manual_seed(config.seed)
    model = build_model(config, samples.class_names)
    assert not isinstance(model.preprocessing.resize, int)  # with_margin has seen to it
    # config.json says what was trained, not what was left open
    config = replace(config, model=model.architecture.name, resize=model.preprocessing.resize)
    trainer = Trainer(model, sides, config, out)
    check_videos(sides)
    with _run_folder(out):
        files.write_text(out / "config.json", config.to_json())
        files.write_text(out / "split.csv", sides_to_csv(sides))
        with TrainingProgress(trainer.epochs, trainer.steps, quiet=quiet) as progress:
            return trainer.run(progress)


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise Pseudo3dError(f"{out}: is a file; give a folder for --out")
    if (out / "checkpoints").exists():
        raise Pseudo3dError(f"{out}: holds a training run already; choose another folder for --out or remove it")
    if out.exists() and any(out.iterdir()):
        raise Pseudo3dError(f"{out}: holds other files; give a new folder for --out")


@contextmanager
def _run_folder(out: Path) -> Iterator[None]:
    """The run's folder; removed when the run ends before its first checkpoint, so that the name is free again."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    (out / "checkpoints").mkdir(parents=True)  # of two runs that are started at once, the second ends here
    try:
        yield
    except BaseException:
        if not any((out / "checkpoints").glob("*/config.json")):
            shutil.rmtree(out / "checkpoints")
            for name in ("config.json", "split.csv", "metrics.jsonl"):
                (out / name).unlink(missing_ok=True)
            with suppress(OSError):  # somebody else's file is in one of them
                for folder in made:
                    folder.rmdir()
        raise


class Trainer:
    """One run: the network, its optimizer and its data.

    Args:
        model: trained in place.
        sides: the videos.
        config: the recipe.
        out: the run's folder, which exists when ``run`` is called.
    """

    def __init__(self, model: VideoModel, sides: Sides, config: TrainConfig, out: Path) -> None:
        self.config, self.sides, self.out = config, sides, out
        self.reports: list[Report] = []
        self.device = choose_device(config.device)
        self.dtype = choose_dtype(config.dtype, self.device)
        self.model = model.to(self.device)
        filters_to_channels_last(self.model)
        self._set_training_mode()  # before the optimizer: frozen parameters are not its business
        self.optimizer = make_optimizer(model, config.optim)
        dataset = TrainingClips(sides.train, model.preprocessing, config.augment, seed=config.seed)
        self.sampler = EpochSampler(len(dataset), config.seed)
        workers = config.workers if config.workers is not None else _default_workers()
        self.loader: DataLoader = DataLoader(
            dataset,
            config.batch_size,
            sampler=self.sampler,
            num_workers=workers,
            collate_fn=list,
            # A last batch of one clip has no batch statistics.
            drop_last=config.batch_size > 1 and len(dataset) % config.batch_size == 1,
            persistent_workers=workers > 0,
            multiprocessing_context="spawn" if workers > 0 else None,
            generator=torch.Generator(),  # of its own, or the number of workers would change what dropout draws
        )
        self.steps_per_epoch = len(self.loader)
        steps = self.steps_per_epoch * config.epochs if config.iterations is None else config.iterations
        self.steps, self.epochs = steps, math.ceil(steps / self.steps_per_epoch)
        self.steps_done = 0
        warmup = min(round(config.optim.warmup_epochs * self.steps_per_epoch), steps // 2)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: lr_factor(config.optim, step, steps, warmup)
        )

    def run(self, progress: TrainingProgress) -> TrainResult:
        """All epochs, then the test with the best epoch's weights (the last one's when nothing was held out)."""
        started, best, best_epoch = time.perf_counter(), -1.0, 0
        best_val: dict[str, float] = {}
        for epoch in range(1, self.epochs + 1):
            report: Report = {"epoch": epoch, **self.train_epoch(epoch, progress)}
            val: dict[str, float] = {}
            if self.sides.val is not None:
                val = self.evaluate(self.sides.val, self.config.val_clips)
                report |= {f"val {name}": value for name, value in val.items()}
            progress.ended(epoch, report["loss"], report.get("val video hit@1"))
            # The later of two equals has seen more.
            score = report.get("val video hit@1", float(epoch))
            self._append_metrics(report)
            card = run_card(self.config, self.sides, epoch=epoch, val=val)
            for name in ("last", "best") if score >= best else ("last",):
                save_checkpoint(self.model, self.out / "checkpoints" / name, card=card)
            if score >= best:
                best, best_epoch, best_val = score, epoch, val
        seconds = time.perf_counter() - started
        checkpoint = self.out / "checkpoints" / "best"
        self.model = from_pretrained(checkpoint)
        test = self.evaluate(self.sides.test, self.config.test_clips, progress.tested)
        self._append_metrics({"test": test, "clips": self.config.test_clips, "seconds": round(seconds, 1)})
        write_card(self.model, checkpoint, run_card(self.config, self.sides, epoch=best_epoch, val=best_val, test=test))
        return TrainResult(self.out, checkpoint, test, seconds)

    def train_epoch(self, epoch: int, progress: TrainingProgress) -> Report:
        """One pass over the training videos; its mean loss, clip hit@1, speed and share of time waiting for data."""
        self.sampler.epoch = epoch
        self._set_training_mode()
        started, waited, losses, hits, clips = time.perf_counter(), 0.0, 0.0, 0, 0
        for (frames, labels, windows), wait in _timed(self.batches()):
            waited += wait
            lr = float(self.schedule.get_last_lr()[0])
            loss, correct = self.step(frames, labels, windows)
            if not math.isfinite(loss):
                raise self._diverged(f"the loss became {loss} in epoch {epoch} at learning rate {lr:.2g}")
            losses += loss * len(labels)
            hits, clips = hits + correct, clips + len(labels)
            progress.stepped(epoch, losses / clips, lr)
            if self.steps_done == self.steps:
                break
        if not all(bool(value.isfinite().all()) for value in self.model.state_dict().values()):
            raise self._diverged(f"the weights are no longer finite after epoch {epoch}")
        seconds = time.perf_counter() - started
        return {
            "loss": losses / clips,
            "train clip hit@1": hits / clips,
            "clips/s": clips / seconds,
            "waiting for data": waited / seconds,
        }

    def batches(self) -> Iterator[Batch]:
        """Batches of uint8 frames (N, T, h, w, 3), labels (N,) and the N windows that the frames were cut out at.

        Raises:
            VideoError: a video cannot be used.
        """
        for items in self.loader:
            for item in items:
                if isinstance(item, VideoError):
                    raise item
            frames, labels, windows = zip(*items, strict=True)
            yield torch.from_numpy(np.stack(frames)), torch.tensor(labels), list(windows)

    def step(self, frames: Tensor, labels: Tensor, windows: Sequence[Window] | None = None) -> tuple[float, int]:
        """One update of the weights; the loss and how many clips were classified right.

        The loss is the mean over all clips, computed ``micro_batch`` clips at a time. Without ``windows``, the frames
        are from the centre.
        """
        size = self.config.micro_batch or len(labels)
        self.optimizer.zero_grad(set_to_none=True)
        total, correct = 0.0, 0
        for start in range(0, len(labels), size):
            part = slice(start, start + size)
            share = len(labels[part]) / len(labels)
            loss, hits = self._backward(frames[part], labels[part], windows[part] if windows else None, share)
            total, correct = total + loss, correct + hits
        if self.config.optim.clip_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optim.clip_grad_norm)
        self.optimizer.step()
        self.schedule.step()
        self.steps_done += 1
        return total, correct

    def _backward(
        self, frames: Tensor, labels: Tensor, windows: Sequence[Window] | None, share: float
    ) -> tuple[float, int]:
        """Add a micro-batch's share of the gradient; its share of the loss, and its hits."""
        labels = labels.to(self.device)
        frames = frames.to(self.device, non_blocking=True)
        inputs = to_input(frames, self.model.preprocessing, self.model.mean_volume, windows)
        with torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32):
            logits = self.model(inputs)
        loss = share * F.cross_entropy(logits.float(), labels, label_smoothing=self.config.label_smoothing)
        loss.backward()
        return loss.item(), int((logits.argmax(1) == labels).sum())

    def evaluate(self, samples: SampleList, clips: int, on_video: Callable[[], None] | None = None) -> dict[str, float]:
        """Hits by the paper's protocol with so many clips a video."""
        if not is_finite(fold_batch_norms(self.model)):
            raise self._diverged("the network's weights are no longer finite")
        runner = ClipRunner(self.model, device=self.config.device, dtype=self.config.dtype)
        scores = score_videos(runner, samples, clips=clips, on_video=on_video)
        if not np.isfinite(scores.prob).all():
            raise self._diverged("the network's scores are no longer finite")
        return scores.hits()

    def _diverged(self, what: str) -> Pseudo3dError:
        last = self.out / "checkpoints" / "last"
        kept = f" (the last weights that were kept are in {last})" if last.exists() else ""
        return Pseudo3dError(f"{what}; lower --optim.lr{kept}")

    def _set_training_mode(self) -> None:
        self.model.train()
        if self.config.freeze_bn:
            freeze_batch_norms(self.model)

    def _append_metrics(self, report: Report) -> None:
        self.reports.append(report)
        files.write_text(self.out / "metrics.jsonl", "".join(json.dumps(each) + "\n" for each in self.reports))


def _timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds that were spent waiting for it."""
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - started


def _default_workers() -> int:
    """On two processors decoding beside the network only takes turns with it."""
    cpus = os.cpu_count() or 1
    return 0 if cpus <= 2 else min(8, cpus - 1)
