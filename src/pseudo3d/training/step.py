"""One step of training: a batch of any size, in micro-batches, on one process or several, with the same gradient."""

import contextlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pseudo3d.data.dataset import ClipBatch
from pseudo3d.errors import Pseudo3dError
from pseudo3d.inference import choose_device, choose_dtype, to_input
from pseudo3d.models import VideoModel
from pseudo3d.models.interface import filters_to_channels_last
from pseudo3d.training.batch_norms import freeze_batch_norms, has_batch_norm, standing_in, synchronise_batch_norms
from pseudo3d.training.config import TrainConfig
from pseudo3d.training.distributed import SINGLE, Group
from pseudo3d.training.memory import too_little_explained
from pseudo3d.training.optim import lr_factor, make_optimizer


class StepResult(NamedTuple):
    """What a step has seen, over this process's clips.

    Args:
        loss: sum over the clips.
        hits: clips whose most likely class is a true one.
        clips: how many count.
    """

    loss: float
    hits: int
    clips: int


class NotFiniteError(Exception):
    """The loss or the gradient is no longer finite; the weights have not been moved by it."""


class Stepper:
    """The network, its optimizer and how a batch moves it.

    The loss of a batch is the mean over its clips of (class weight) x (cross-entropy with a smoothed target). It is
    computed ``micro_batch`` clips at a time and shared among processes: gradients are sums, so the step is that of
    all clips at once, but for a batch norm that learns, which sees its own micro-batch.

    Args:
        model: trained in place.
        config: the recipe.
        steps: of the whole run.
        warmup: steps at its start in which the learning rate rises.
        class_weights: (classes,), of mean 1 over the training clips; None for none.
        group: the processes that share each batch.

    Attributes:
        model: the network.
        optimizer: over its parameters that learn.
        device: of the network.
        dtype: of the arithmetic.
    """

    def __init__(
        self,
        model: VideoModel,
        config: TrainConfig,
        *,
        steps: int,
        warmup: int = 0,
        class_weights: Float[np.ndarray, "classes"] | None = None,
        group: Group = SINGLE,
    ) -> None:
        self.config, self.group, self.steps, self.warmup = config, group, steps, warmup
        self.device = choose_device(group.device or config.device)
        self.dtype = choose_dtype(config.dtype, self.device)
        self.model = model.to(self.device)
        filters_to_channels_last(self.model)
        if config.checkpoint_activations:
            if not hasattr(model, "checkpoint_activations"):
                raise Pseudo3dError(
                    f"{model.architecture.name} cannot recompute its activations; leave out --checkpoint-activations"
                )
            model.checkpoint_activations = True
        self.train_mode()  # before the optimizer: frozen parameters are not its business
        if config.sync_bn:
            synchronise_batch_norms(self.model)
        self.optimizer = make_optimizer(self.model, config.optim)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.class_weights = None
        if class_weights is not None:
            self.class_weights = torch.as_tensor(class_weights, dtype=torch.float32, device=self.device)
        if config.compile:
            model.compile()
        self.wrapped = group.wrap(self.model)

    def train_mode(self) -> None:
        """Training mode, with the batch norms frozen that the recipe freezes."""
        self.model.train()
        if self.config.freeze_bn:
            freeze_batch_norms(self.model)

    @property
    def smallest(self) -> int:
        """The fewest clips at once that the network learns from: a batch norm that learns needs two."""
        return 2 if has_batch_norm(self.model) and not self.config.freeze_bn else 1

    def lr(self, step: int) -> float:
        """The learning rate of that step, from 0 (of the weights outside of the head)."""
        return self.config.optim.lr * lr_factor(self.config.optim, step, self.steps, self.warmup)

    def step(self, batch: ClipBatch, number: int, total: int | None = None) -> StepResult:
        """One update of the weights.

        Args:
            batch: this process's clips.
            number: of the step, from 0; it decides the learning rate and what dropout draws.
            total: clips of all processes that count; None for those of ``batch``.

        Returns:
            Of this process's clips.

        Raises:
            NotFiniteError: the loss or the gradient is NaN or infinite; nothing has moved.
            Pseudo3dError: memory ran out.
        """
        clips = len(batch.targets)
        with too_little_explained(min(self.config.micro_batch or clips, clips), smallest=self.smallest):
            return self._step(batch, number, total)

    def _step(self, batch: ClipBatch, number: int, total: int | None) -> StepResult:
        torch.manual_seed(_seed(self.config.seed, number, self.group.rank))
        self.optimizer.zero_grad(set_to_none=True)
        result = self.accumulate(batch, int(batch.counted.sum()) if total is None else total)
        self._clip(sum(self.group.total([result.loss])))
        factor = lr_factor(self.config.optim, number, self.steps, self.warmup)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.step()
        return result

    def _clip(self, loss: float) -> None:
        """Scale the gradient down to its largest norm; the same on every process, as gradient and loss are."""
        limit = self.config.optim.clip_grad_norm
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        for name, value in (("loss", loss), ("gradient", norm.item())):
            if not math.isfinite(value):
                raise NotFiniteError(f"the {name} became {'nan' if math.isnan(value) else 'infinite'}")
        if limit > 0:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)

    def accumulate(self, batch: ClipBatch, total: int) -> StepResult:
        """Add the gradient of the mean loss over ``total`` clips of all processes; see ``step``."""
        losses, hits, clips = 0.0, 0, 0
        parts = list(self._parts(batch, total))
        for number, part in enumerate(parts):
            standing = contextlib.nullcontext() if part.counted.any() else standing_in(self.model)
            with self._syncing(number == len(parts) - 1), standing:
                loss, hit = self.loss(part)
                # the processes' gradients are averaged, this is a sum
                (loss * (self.group.size / total)).backward()
            losses, hits, clips = losses + loss.item(), hits + hit, clips + int(part.counted.sum())
        return StepResult(losses, hits, clips)

    def loss(self, batch: ClipBatch, network: nn.Module | None = None) -> tuple[Float[Tensor, ""], int]:
        """The summed loss of the clips that count, and how many of them are classified right.

        Args:
            batch: a micro-batch.
            network: computes the scores; None for the model as the processes share it.
        """
        frames = batch.frames.to(self.device, non_blocking=True)
        targets = batch.targets.to(self.device, non_blocking=True)
        counted = batch.counted.to(self.device, non_blocking=True)
        inputs = to_input(frames, self.model.preprocessing, self.model.mean_volume, batch.windows)
        with torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32), _lone_clips_explained():
            logits = (network or self.wrapped)(inputs)
        losses = F.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=self.config.label_smoothing)
        if self.class_weights is not None:
            losses = losses * (targets @ self.class_weights)
        right = targets.gather(1, logits.argmax(1, keepdim=True))[:, 0] > 0
        return (losses * counted).sum(), int((right & counted).sum())

    def _parts(self, batch: ClipBatch, total: int) -> Iterator[ClipBatch]:
        """The micro-batches; as many on every process where batch norms wait for each other's."""
        size = self.config.micro_batch or len(batch.targets)
        starts = list(range(0, len(batch.targets), size))
        for start in starts:
            yield part_of(batch, slice(start, start + size))
        if self.config.sync_bn and self.config.micro_batch:
            most = -(-total // self.group.size)  # clips of the process with the largest share
            for _ in range(-(-most // size) - len(starts)):
                only = part_of(batch, slice(0, 1))
                yield only._replace(counted=torch.zeros_like(only.counted))

    def _syncing(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients travel once a step, with its last micro-batch."""
        if last or not isinstance(self.wrapped, nn.parallel.DistributedDataParallel):
            return contextlib.nullcontext()
        return self.wrapped.no_sync()


def part_of(batch: ClipBatch, part: slice) -> ClipBatch:
    """Some clips of a batch; views of its memory."""
    return batch._replace(
        frames=batch.frames[part],
        targets=batch.targets[part],
        counted=batch.counted[part],
        windows=batch.windows[part],
        videos=batch.videos[part],
    )


@contextlib.contextmanager
def _lone_clips_explained() -> Iterator[None]:
    """What torch says of a batch norm that has nothing to learn from, in the words of the options."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise Pseudo3dError(
            "a batch norm that learns got one clip alone, of a single pixel there: use a larger --batch-size, "
            "--micro-batch or --size, fewer processes, --sync-bn or --freeze-bn"
        ) from error


def _seed(seed: int, step: int, rank: int) -> int:
    """Of what a step draws on one process (dropout): a run that goes on needs no random state."""
    return int(np.random.SeedSequence((seed, 4, step, rank)).generate_state(1, np.uint64)[0] >> 1)
