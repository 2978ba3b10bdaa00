"""Recipes: Python functions that return a typed config. The config is the whole of what decides a run."""

import difflib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import tyro

from pseudo3d.data.dataset import Augmentation
from pseudo3d.errors import Pseudo3dError
from pseudo3d.inference import DType
from pseudo3d.models.blocks import Style
from pseudo3d.weights.loading import Head, TemporalInit


@dataclass(frozen=True)
class Optim:
    """How the weights move.

    Args:
        name: "adamw" or "sgd".
        lr: learning rate at its highest.
        weight_decay: on convolution and head weights; never on batch norms and biases (the release).
        momentum: of SGD.
        schedule: "cosine" falls to zero over the run; "step" divides by 10 at ``milestones``.
        milestones: of "step", as shares of the run.
        warmup_epochs: linear rise from zero at the start.
        head_lr_scale: the head's weight learns this much faster, its bias twice that (10 and 20 in the release).
        clip_grad_norm: gradients are scaled down to this norm; 0 for never.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    momentum: float = 0.9
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: tuple[float, ...] = (0.4, 0.8)
    warmup_epochs: float = 1.0
    head_lr_scale: float = 1.0
    clip_grad_norm: float = 5.0


@dataclass(frozen=True)
class TrainConfig:
    """One training run, apart from where its data are and where it writes.

    Args:
        recipe: the recipe these values come from.
        model: a name of ``p3d models``.
        weights: what to start from: a pretrained folder, a weights file, or "random".
        blocks: order of the P3D blocks.
        style: "caffe" or "torchvision"; None for that of the weights.
        temporal_init: of the temporal filters that a 2-D network lacks.
        head: "new" trains a new head; "auto" keeps that of the weights.
        size: frames of size x size instead of the network's own; None for these.
        epochs: passes over the training videos, one random clip of each.
        batch_size: clips in a step.
        dropout: before the head; None for the network's.
        label_smoothing: share of the target spread over all classes.
        freeze_bn: keep every batch norm but the first as it is (paper 3.3: for fine-tuning).
        optim: the optimizer.
        augment: how training clips vary.
        val_fraction: share of the training videos held out to choose the best epoch, unless the data have a "val"
            split. Test videos never choose.
        val_clips: clips of each validation video after every epoch.
        test_fraction: share of the videos to test on, unless the data have a "test" split.
        test_clips: clips of each test video at the end (20 in the paper).
        device: auto, cpu, cuda, mps.
        dtype: auto, float32, bfloat16.
        workers: decoding processes; None for none on up to 2 processors, else up to 8.
        seed: of everything random.
    """

    recipe: tyro.conf.Suppress[str]
    model: str = "p3d_resnet50"
    weights: str = "random"
    blocks: str = "ABC"
    style: Style | None = None
    temporal_init: TemporalInit = "identity"
    head: Head = "new"
    size: int | None = None
    epochs: int = 30
    batch_size: int = 16
    dropout: float | None = None
    label_smoothing: float = 0.1
    freeze_bn: bool = False
    optim: Optim = field(default_factory=Optim)
    augment: Augmentation = field(default_factory=Augmentation)
    val_fraction: float = 0.15
    val_clips: int = 4
    test_fraction: float = 0.25
    test_clips: int = 20
    device: str = "auto"
    dtype: DType = "auto"
    workers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "val_clips", "test_clips"):
            if getattr(self, name) < 1:
                raise Pseudo3dError(f"{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if self.optim.lr <= 0:
            raise Pseudo3dError(f"optim.lr must be above 0, got {self.optim.lr}")

    def to_json(self) -> str:
        """As JSON text, for the run folder."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """The inverse of ``to_json``; an unknown field raises, naming it.

        Example:
            >>> TrainConfig.from_json(demo().to_json()) == demo()
            True
        """
        values: dict[str, Any] = json.loads(text)
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise Pseudo3dError(f"the training config has unknown fields {sorted(unknown)}")
        optim, augment = values.pop("optim"), values.pop("augment")
        optim["milestones"] = tuple(optim["milestones"])
        augment["resize"] = tuple(augment["resize"]) if augment["resize"] else None
        return cls(**values, optim=Optim(**optim), augment=Augmentation(**augment))


def scratch() -> TrainConfig:
    """From random weights: every batch norm learns, AdamW with cosine decay, crops from 182x242 (paper 3.3)."""
    return TrainConfig("scratch", epochs=60, augment=Augmentation(resize=(182, 242)))


def finetune() -> TrainConfig:
    """From weights trained elsewhere: batch norms frozen but the first, a faster head (paper 3.3, release).

    The learning rate suits AdamW and is ours; the paper uses SGD at 0.001.
    """
    return TrainConfig(
        "finetune",
        freeze_bn=True,
        dropout=0.5,
        optim=Optim(lr=1e-4, head_lr_scale=10.0),
        augment=Augmentation(resize=(182, 242)),
    )


def demo() -> TrainConfig:
    """The moving digits of ``p3d demo``: small frames, and no flip, which would swap the labels."""
    return TrainConfig(
        "demo",
        model="p3d_resnet14",
        size=48,
        epochs=10,
        batch_size=16,
        dropout=0.1,
        optim=Optim(lr=1.5e-3),
        augment=Augmentation(resize=(54, 54)),
        val_fraction=0.1,
        val_clips=1,
    )


RECIPES: dict[str, Callable[[], TrainConfig]] = {"scratch": scratch, "finetune": finetune, "demo": demo}


def get_recipe(name: str) -> TrainConfig:
    """The config of a recipe.

    Raises:
        Pseudo3dError: no such recipe; the nearest is named.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.0)[0]
        raise Pseudo3dError(f"no recipe {name!r}; did you mean {near!r}? There are {', '.join(RECIPES)}")
    return RECIPES[name]()
