"""Recipes: Python functions that return a typed config. The config is the whole of what decides a run."""

import difflib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

import tyro

from pseudo3d.data.dataset import Augmentation
from pseudo3d.errors import Pseudo3dError
from pseudo3d.models.blocks import Style
from pseudo3d.weights.loading import Head, TemporalInit

DEFAULT_MODEL = "p3d_resnet50"


@dataclass(frozen=True)
class Optim:
    """How the weights move. The paper states neither momentum nor weight decay: the values here are ours.

    Args:
        name: "adamw" or "sgd".
        lr: learning rate at its highest.
        weight_decay: on convolution and head weights; never on batch norms and biases (the release).
        momentum: of SGD; AdamW has its own.
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
        model: a name of ``p3d models``; None for that of the weights (a 2-D ResNet's P3D network), else p3d_resnet50.
        weights: what to start from: a pretrained folder, a weights file, "imagenet", "hf:owner/name", or "random".
        blocks: order of the P3D blocks.
        style: "caffe", "torchvision" or "port"; None for that of the weights.
        temporal_init: of the temporal filters that a 2-D network lacks.
        head: "new" trains a new head; "auto" keeps that of the weights.
        size: crops of size x size instead of the network's own, at least 32; None for these. c3d takes its own only.
        resize: (height, width) of the frames before cropping, in training and in testing; None for the paper's margin
            around the crop: 182x242 for P3D's 160, 240x320 for the frame baseline's 224 (section 3.3). c3d: 128x171.
        epochs: passes over the training videos, one random clip of each.
        iterations: steps of the optimizer after which the run ends, instead of ``epochs``; as the paper counts.
        batch_size: clips in a step, each of another video.
        micro_batch: clips that go through the network at once; the gradients of a step's are added up, so that a step
            is of ``batch_size`` clips however little memory there is. A batch norm that learns sees its micro-batch
            only. None: all clips of a step.
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
        dtype: precision of the arithmetic; auto is bfloat16 where the hardware has it.
        workers: decoding processes; None for none on up to 2 processors, else up to 8.
        seed: of everything random.
        license: of the trained weights, for the model card, e.g. cc-by-4.0; None when you have not decided.
    """

    recipe: tyro.conf.Suppress[str]
    model: str | None = None
    weights: str = "random"
    blocks: str = "ABC"
    style: Style | None = None
    temporal_init: TemporalInit = "identity"
    head: Head = "new"
    size: int | None = None
    resize: tuple[int, int] | None = None
    epochs: int = 30
    iterations: int | None = None
    batch_size: int = 16
    micro_batch: int | None = None
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
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    workers: int | None = None
    seed: int = 0
    license: str | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "iterations", "batch_size", "micro_batch", "val_clips", "test_clips"):
            _check(name, getattr(self, name), 1)
        _check("seed", self.seed, 0)
        _check("workers", self.workers, 0)
        _check("size", self.size, 32)
        for name in ("val_fraction", "label_smoothing", "dropout"):
            _check(name, getattr(self, name), 0, below=1)
        _check("test_fraction", self.test_fraction, 0, below=1, above=True)
        _check("optim.lr", self.optim.lr, 0, above=True)
        _check("optim.head_lr_scale", self.optim.head_lr_scale, 0, above=True)
        for name in ("weight_decay", "warmup_epochs", "clip_grad_norm"):
            _check(f"optim.{name}", getattr(self.optim, name), 0)
        _check("optim.momentum", self.optim.momentum, 0, below=1)
        if self.batch_size == 1 and not self.freeze_bn:
            raise Pseudo3dError("--batch-size must be at least 2: batch norms learn from the other clips of a batch")
        if self.micro_batch == 1 and not self.freeze_bn:
            raise Pseudo3dError("--micro-batch must be at least 2: batch norms learn from the other clips of a batch")

    def to_json(self) -> str:
        """As JSON text, for the run folder."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """The inverse of ``to_json``.

        Raises:
            Pseudo3dError: not JSON, a value out of range, or a field that is unknown or missing; it is named.

        Example:
            >>> TrainConfig.from_json(demo().to_json()) == demo()
            True
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise Pseudo3dError(f"the training config is not valid JSON ({error})") from error
        config = _section(cls, values, "the training config")
        sections = {
            "optim": _section(Optim, config["optim"], "optim of the training config"),
            "augment": _section(Augmentation, config["augment"], "augment of the training config"),
        }
        return cls(**{**config, "optim": Optim(**sections["optim"]), "augment": Augmentation(**sections["augment"])})


def _check(name: str, value: float | None, low: float, *, below: float = math.inf, above: bool = False) -> None:
    """Raise unless ``value`` is None or from ``low`` (itself left out if ``above``) to below ``below``."""
    if value is None or (low < value < below if above else low <= value < below):  # NaN is in no range
        return
    text = f"above {low}" if above else f"at least {low}"
    text += f" and below {below}" if below < math.inf else ""
    raise Pseudo3dError(f"--{name.replace('_', '-')} must be {text}, got {value}")


def _section(kind: type, values: Any, what: str) -> dict[str, Any]:
    """The fields of a dataclass out of JSON types, none unknown and none missing."""
    if not isinstance(values, dict):
        raise Pseudo3dError(f"{what} must be a JSON object, got {values!r}")
    names = {f.name for f in fields(kind)}
    for problem, found in (("unknown", values.keys() - names), ("missing", names - values.keys())):
        if found:
            raise Pseudo3dError(f"{what} has {problem} fields {sorted(found)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def scratch() -> TrainConfig:
    """From random weights: every batch norm learns, AdamW with cosine decay, crops from 182x242 (paper 3.3)."""
    return TrainConfig("scratch", epochs=60)


def finetune() -> TrainConfig:
    """From weights trained elsewhere: batch norms frozen but the first, a faster head (paper 3.3, release).

    The learning rate suits AdamW and is ours; the paper uses SGD at 0.001.
    """
    return TrainConfig(
        "finetune",
        freeze_bn=True,
        dropout=0.5,
        optim=Optim(lr=1e-4, head_lr_scale=10.0),
    )


def ucf101_p3d() -> TrainConfig:
    """P3D ResNet-50 on UCF101 as in section 3.3: 160x160 out of 182x242, 7,500 steps of 128 clips of other videos.

    ``--blocks A`` (B, C) trains P3D-A (B, C); left out, the three take turns. Momentum and weight decay are not in the
    paper: they are Caffe's usual ones. The temporal filters begin Gaussian (std 0.001), the head ten times faster and
    its bias twenty times (release). All videos of the training split are trained on; the last weights are tested.
    """
    return TrainConfig(
        "ucf101_p3d",
        model="p3d_resnet50",
        weights="imagenet",
        temporal_init="gaussian",
        resize=(182, 242),
        iterations=7500,
        batch_size=128,
        dropout=0.9,
        label_smoothing=0.0,
        freeze_bn=True,
        optim=Optim(
            "sgd",
            lr=1e-3,
            weight_decay=5e-4,
            momentum=0.9,
            schedule="step",
            milestones=(3000 / 7500, 6000 / 7500),
            warmup_epochs=0.0,
            head_lr_scale=10.0,
            clip_grad_norm=0.0,
        ),
        augment=Augmentation(flip=True),
        val_fraction=0.0,
        test_clips=20,
    )


def ucf101_resnet50() -> TrainConfig:
    """The frame baseline on UCF101 as in section 3.3: as ``ucf101_p3d``, on single frames, 224x224 out of 240x320.

    Tested on 25 frames of a video (the authors' answer).
    """
    p3d = ucf101_p3d()
    return replace(
        p3d, recipe="ucf101_resnet50", model="resnet50", temporal_init="identity", resize=(240, 320), test_clips=25
    )


def demo() -> TrainConfig:
    """The moving digits of ``p3d demo``: small frames, and no flip, which would swap the labels."""
    return TrainConfig(
        "demo",
        model="p3d_resnet14",
        size=48,
        resize=(54, 54),
        epochs=9,
        batch_size=16,
        dropout=0.1,
        optim=Optim(lr=1.5e-3),
        val_fraction=0.1,
        val_clips=1,
    )


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "scratch": scratch,
    "finetune": finetune,
    "ucf101_p3d": ucf101_p3d,
    "ucf101_resnet50": ucf101_resnet50,
    "demo": demo,
}


def get_recipe(name: str) -> TrainConfig:
    """The config of a recipe.

    Raises:
        Pseudo3dError: no such recipe; the nearest is named.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.0)[0]
        raise Pseudo3dError(f"no recipe {name!r}; did you mean {near!r}? There are {', '.join(RECIPES)}")
    return RECIPES[name]()
