"""The typed config: the whole of what decides a run. It is plain data, needs no torch, and goes to and from JSON."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import tyro

from pseudo3d.choices import Head, Style, TemporalInit
from pseudo3d.data.augmentation import Augmentation
from pseudo3d.errors import Pseudo3dError
from pseudo3d.nearest import nearest

DEFAULT_MODEL = "p3d_resnet50"

Section = TypeVar("Section")


@dataclass(frozen=True)
class Optim:
    """How the weights move. The paper states neither momentum nor weight decay: the values here are ours.

    Args:
        name: "adamw" or "sgd".
        lr: learning rate at its highest.
        weight_decay: on convolution and head weights; never on batch norms and biases (the release).
        momentum: of SGD; AdamW has its own.
        schedule: "cosine" falls to zero over the run; "step" multiplies by gamma at each of the milestones.
        milestones: of "step", as shares of the run, rising.
        gamma: of "step": 0.1 divides by 10 (the paper), 0.5 halves (C3D).
        warmup_epochs: linear rise from zero at the start.
        head_lr_scale: the head's weight learns this much faster, its bias twice that (10 and 20 in the release);
            at 1 both learn as all others do.
        clip_grad_norm: gradients are scaled down to this norm; 0 for never.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    momentum: float = 0.9
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: tuple[float, ...] = (0.4, 0.8)
    gamma: float = 0.1
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
        head: "new" trains a new head; "auto" keeps that of the weights.
        head_std: standard deviation of the Gaussian weights of a new head; None for the network's own (0.01).
        temporal_init: of the temporal filters that a 2-D network lacks: "identity" computes what that network does,
            "gaussian" is the paper's.
        blocks: order of the P3D blocks; None for that of the weights, "ABC" where these have none.
        style: "caffe", "torchvision" or "port"; None for that of the weights.
        dropout: before the head; None for the network's.
        freeze_bn: keep every batch norm but the first as it is (paper 3.3: for fine-tuning).
        size: crops of size x size instead of the network's own, at least 32; None for these. c3d takes its own only.
        resize: (height, width) of the frames before cropping, in training and in testing; None for the paper's margin
            around the crop: 182x242 for P3D's 160, 240x320 for the frame baseline's 224 (section 3.3). c3d: 128x171.
        epochs: passes over the training videos, one random clip of each.
        iterations: steps of the optimizer after which the run ends, instead of ``epochs``; as the paper counts.
        batch_size: clips in a step, each of another video.
        micro_batch: clips that go through the network at once; the gradients of a step's are added up, so that a step
            is of ``batch_size`` clips however little memory there is. A batch norm that learns sees its micro-batch
            only. None: all clips of a step.
        label_smoothing: share of the target spread over all classes.
        class_weights: "balanced" makes the clips of a rare class count more, so that all classes weigh the same;
            "none" counts every clip once.
        optim: the optimizer.
        augment: how training clips vary.
        val_fraction: share of the training videos held out to choose the best epoch, unless the data have the splits
            "val" and "test". Test videos never choose.
        val_clips: clips of each validation video.
        val_every: validate after every so many epochs, and always after the last.
        test_fraction: share of the videos to test on, unless the data have splits: then it is "test", or "val" where
            there is no "test".
        test_clips: clips of each test video at the end (20 in the paper).
        max_bad: share of the training videos that may prove unreadable; each is reported and another one is shown in
            its place. Above it the run stops.
        skip_bad: leave unreadable validation and test videos out, and say how many; otherwise they are an error.
        checkpoint_every: steps between two checkpoints within an epoch; None for one at the end of each epoch only.
        keep_last: checkpoints kept to go on from: the last one and those before it, besides the best.
        device: auto, cpu, cuda, mps.
        dtype: precision of the arithmetic; auto is bfloat16 where the hardware has it.
        workers: decoding processes; None for none on up to 2 processors, else up to 8.
        sync_bn: with several processes, the batch norms that learn see the micro-batches of all of them.
        checkpoint_activations: compute the activations of each block again in the backward pass instead of keeping
            them: less memory for more time.
        compile: compile the network with torch.compile; pays off in runs of hours, the first steps take minutes.
        seed: of everything random.
        license: of the trained weights, for the model card, e.g. cc-by-4.0; None when you have not decided.
    """

    recipe: tyro.conf.Suppress[str]
    model: str | None = None
    weights: str = "random"
    head: Head = "new"
    head_std: float | None = None
    temporal_init: TemporalInit = "identity"
    blocks: str | None = None
    style: Style | None = None
    dropout: float | None = None
    freeze_bn: bool = False
    size: int | None = None
    resize: tuple[int, int] | None = None
    epochs: int = 30
    iterations: int | None = None
    batch_size: int = 16
    micro_batch: int | None = None
    label_smoothing: float = 0.1
    class_weights: Literal["none", "balanced"] = "none"
    optim: Optim = field(default_factory=Optim)
    augment: Augmentation = field(default_factory=Augmentation)
    val_fraction: float = 0.15
    val_clips: int = 4
    val_every: int = 1
    test_fraction: float = 0.25
    test_clips: int = 20
    max_bad: float = 0.05
    skip_bad: bool = False
    checkpoint_every: int | None = None
    keep_last: int = 2
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    workers: int | None = None
    sync_bn: bool = False
    checkpoint_activations: bool = False
    compile: bool = False
    seed: int = 0
    license: str | None = None

    def __post_init__(self) -> None:
        _check_types(self)
        for name in ("epochs", "iterations", "batch_size", "micro_batch", "val_clips", "val_every", "test_clips"):
            _check(name, getattr(self, name), 1)
        for name in ("checkpoint_every", "keep_last"):
            _check(name, getattr(self, name), 1)
        _check("seed", self.seed, 0)
        _check("workers", self.workers, 0)
        _check("size", self.size, 32)
        _check("head_std", self.head_std, 0)
        for name in ("val_fraction", "label_smoothing", "dropout", "max_bad"):
            _check(name, getattr(self, name), 0, below=1)
        _check("test_fraction", self.test_fraction, 0, below=1, above=True)
        self._check_optim()
        if self.compile and self.sync_bn:
            raise Pseudo3dError("--compile cannot be combined with --sync-bn: leave one of them out")
        c3d = (self.model or "").startswith("c3d")  # has no batch norms
        for name in ("batch_size", "micro_batch"):
            if getattr(self, name) == 1 and not (self.freeze_bn or c3d):
                flag = _flag(name)
                raise Pseudo3dError(f"{flag} must be at least 2: batch norms learn from the other clips of a batch")

    def _check_optim(self) -> None:
        optim = self.optim
        _check("optim.lr", optim.lr, 0, above=True)
        _check("optim.head_lr_scale", optim.head_lr_scale, 0, above=True)
        for name in ("weight_decay", "warmup_epochs", "clip_grad_norm"):
            _check(f"optim.{name}", getattr(optim, name), 0)
        _check("optim.momentum", optim.momentum, 0, below=1)
        _check("optim.gamma", optim.gamma, 0, below=1, above=True)
        for milestone in optim.milestones:
            _check("optim.milestones", milestone, 0, below=1, above=True)
        if list(optim.milestones) != sorted(set(optim.milestones)):
            given = " ".join(map(str, optim.milestones))
            raise Pseudo3dError(f"--optim.milestones must rise from one to the next, got {given}")

    def to_json(self) -> str:
        """As JSON text, for the run folder."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """The inverse of ``to_json``.

        Raises:
            Pseudo3dError: not JSON, a value of another type or out of range, or a field that is unknown or missing; it
                is named.

        Example:
            >>> config = TrainConfig("mine", epochs=3)
            >>> TrainConfig.from_json(config.to_json()) == config
            True
            >>> TrainConfig.from_json(config.to_json().replace("3,", '"3",'))
            Traceback (most recent call last):
            pseudo3d.errors.Pseudo3dError: --epochs must be a whole number, got '3'
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise Pseudo3dError(f"the training config is not valid JSON ({error})") from error
        return _section(cls, values, "the training config")


def _flag(name: str) -> str:
    """The option of a field."""
    return f"--{name.replace('_', '-')}"


def _check(name: str, value: float | None, low: float, *, below: float = math.inf, above: bool = False) -> None:
    """Raise unless ``value`` is None or from ``low`` (itself left out if ``above``) to below ``below``."""
    if value is None or (low < value < below if above else low <= value < below):  # NaN is in no range
        return
    text = f"above {low}" if above else f"at least {low}"
    text += f" and below {below}" if below < math.inf else ""
    raise Pseudo3dError(f"{_flag(name)} must be {text}, got {value}")


def _check_types(section: Any, prefix: str = "") -> None:
    """Raise for the first field of a dataclass whose value is not of the type that it declares."""
    for name, kind in get_type_hints(type(section)).items():
        value = getattr(section, name)
        _check_type(prefix + name, value, kind)
        if is_dataclass(kind):
            _check_types(value, f"{prefix}{name}.")


def _check_type(name: str, value: Any, kind: Any) -> None:
    if not _is_a(value, kind):
        raise Pseudo3dError(f"{_flag(name)} must be {_words(kind)}, got {value!r}")


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value fits a type hint: a class, words (Literal), a tuple, or a choice of these."""
    parts = get_args(kind)
    if get_origin(kind) is Literal:
        return value in parts
    if get_origin(kind) is tuple:
        if not isinstance(value, tuple) or (parts[-1] is not Ellipsis and len(value) != len(parts)):
            return False
        return all(_is_a(each, parts[0]) for each in value)
    if parts:
        return any(_is_a(value, part) for part in parts)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _words(kind: Any) -> str:
    """What a type hint takes, in words."""
    parts = get_args(kind)
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, parts))
    if get_origin(kind) is tuple:
        return "numbers" if parts[-1] is Ellipsis else f"{len(parts)} whole numbers"
    if parts:
        return " or ".join(map(_words, parts))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "None"}
    return words.get(kind, "a section of its own")


def _meant(unknown: str, kinds: Mapping[str, Any]) -> str:
    """What a field that there is not was probably to be, of the fields with these type hints and of their sections'."""
    names = [
        *kinds,
        *(f"{name}.{each.name}" for name, kind in kinds.items() if is_dataclass(kind) for each in fields(kind)),
    ]
    near, alike = nearest(unknown, names)
    return f"; did you mean {near!r}?" if alike else f"; the nearest is {near!r}"


def _section(kind: type[Section], values: Any, what: str, prefix: str = "") -> Section:
    """A dataclass out of JSON types, no field unknown and none missing."""
    if not isinstance(values, dict):
        raise Pseudo3dError(f"{what} must be a JSON object, got {values!r}")
    kinds = get_type_hints(kind)
    for problem, found in (("unknown", values.keys() - kinds), ("missing", kinds.keys() - values)):
        if found:
            meant = _meant(sorted(found)[0], kinds) if problem == "unknown" else ""
            raise Pseudo3dError(f"{what} has {problem} fields {sorted(found)}{meant}")
    arguments = {}
    for name, value in values.items():
        if is_dataclass(kinds[name]):
            value = _section(kinds[name], value, f"{name} of {what}", f"{prefix}{name}.")
        arguments[name] = tuple(value) if isinstance(value, list) else value
        _check_type(prefix + name, arguments[name], kinds[name])  # before any of them is used
    return kind(**arguments)
