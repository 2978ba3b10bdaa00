"""load_weights: numbers from a file, a folder or a state dict into a network, strictly and with a report."""

import json
import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pseudo3d.errors import Pseudo3dError, first_few
from pseudo3d.models import VideoModel, create_model
from pseudo3d.models.blocks import Bottleneck, Style
from pseudo3d.preprocessing import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB, Preprocessing
from pseudo3d.weights.pretrained import WEIGHTS_NAME, read_config, read_safetensors
from pseudo3d.weights.torchvision import from_torchvision, is_torchvision

logger = logging.getLogger("pseudo3d")

Source = str | Path | Mapping[str, Tensor]
Head = Literal["auto", "new"]
TemporalInit = Literal["identity", "gaussian"]


@dataclass(frozen=True)
class LoadReport:
    """What ``load_weights`` did with each array, by our names.

    Args:
        source: where the numbers came from.
        loaded: arrays of the model that were filled.
        initialised: arrays of the model that the source does not have: temporal filters, a new head.
        dropped: arrays of the source that were not used: a head of other classes.
    """

    source: str
    loaded: tuple[str, ...]
    initialised: tuple[str, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.source}: {len(self.loaded)} arrays loaded, {len(self.initialised)} initialised, "
            f"{len(self.dropped)} dropped"
        )


@dataclass
class _Weights:
    """Arrays under our names, with what is known of the network they belong to."""

    name: str
    state: dict[str, Tensor]
    style: Style | None = None  # None: a file that does not say
    blocks: str | None = None  # likewise; "2D" for a frame network
    config: dict[str, Any] = field(default_factory=dict)
    imagenet: bool = False

    @property
    def num_classes(self) -> int | None:
        return len(self.state["fc.bias"]) if "fc.bias" in self.state else None


def load_weights(
    model: VideoModel,
    source: Source,
    *,
    strict: bool = True,
    head: Head = "auto",
    temporal_init: TemporalInit = "identity",
    std: float = 0.001,
) -> LoadReport:
    """Fill ``model`` with the numbers of ``source`` and set its preprocessing to theirs.

    A 2-D ResNet becomes a P3D ResNet (paper 3.3): the 1x3x3 filters take the 3x3 ones, and the temporal filters, which
    the source lacks, are initialised: "identity" (T is the identity in A and C and zero in B, so that a clip of one
    repeated frame gives what the 2-D network gives) or "gaussian" (the paper's: zero mean, ``std``). T's batch norm
    starts at scale 1, shift 0, mean 0, variance 1.

    Args:
        model: filled in place.
        source: a path (.safetensors, .pth, .pt, .tar, a pretrained folder) or a state dict, with our names or
            torchvision's ResNet names.
        strict: arrays that the model lacks or does not get raise; otherwise they are in the report.
        head: "auto" takes the source's head when its class count fits and raises otherwise; "new" keeps the model's.
        temporal_init: "identity" or "gaussian".
        std: of the Gaussian.

    Returns:
        What was loaded, initialised and dropped.

    Raises:
        Pseudo3dError: (a ValueError) an unreadable source, another style than the model's, unknown or left-over arrays,
            other shapes, another class count. The model is then unchanged.

    Example:
        >>> import pseudo3d
        >>> frames = pseudo3d.create_model("resnet14", num_classes=5, style="torchvision")
        >>> model = pseudo3d.create_model("p3d_resnet14", num_classes=5, style="torchvision")
        >>> print(load_weights(model, frames.state_dict()))
        state dict: 104 arrays loaded, 18 initialised, 0 dropped
    """
    if head not in ("auto", "new") or temporal_init not in ("identity", "gaussian"):
        raise Pseudo3dError(
            f"head must be 'auto' or 'new' and temporal_init 'identity' or 'gaussian', got {head!r}, {temporal_init!r}"
        )
    weights = _read(source)
    _check_architecture(model, weights)
    state, dropped = _without_head(model, weights, head)
    own = {key: value for key, value in model.state_dict().items() if key != "layout"}
    missing = [key for key in own if key not in state]
    inflated = _inflated(own, missing)
    _check_arrays(weights.name, strict, own, state, expected={*inflated, *(key for key in own if _is_head(key))})
    loaded = [key for key in state if key in own]
    model.load_state_dict({key: state[key] for key in loaded}, strict=False)
    if inflated:
        initialise_temporal(model, temporal_init, std)
    _set_description(model, weights, head)
    dropped += [key for key in state if key not in own]
    return LoadReport(weights.name, tuple(loaded), tuple(missing), tuple(dropped))


def load_model(
    name: str,
    weights: Source,
    *,
    num_classes: int | None = None,
    blocks: str = "ABC",
    in_channels: int = 3,
    style: Style | None = None,
    dropout: float | None = None,
    head: Head = "auto",
    temporal_init: TemporalInit = "identity",
    std: float = 0.001,
) -> VideoModel:
    """``create_model`` in the style that ``weights`` need, then ``load_weights``; in evaluation mode.

    Args:
        name: one of ``list_models()``.
        weights: as ``source`` of ``load_weights``.
        num_classes: None for that of the weights.
        blocks: as for ``create_model``.
        in_channels: as for ``create_model``.
        style: None for the one that the weights need.
        dropout: as for ``create_model``.
        head: as for ``load_weights``.
        temporal_init: as for ``load_weights``.
        std: as for ``load_weights``.

    Raises:
        Pseudo3dError: as ``create_model`` and ``load_weights``.
    """
    read = _read(weights)
    model = create_model(
        name,
        num_classes=read.num_classes if num_classes is None else num_classes,
        blocks=blocks,
        in_channels=in_channels,
        style=style or read.style or "caffe",
        dropout=dropout,
    )
    report = load_weights(model, weights, head=head, temporal_init=temporal_init, std=std)
    if report.initialised:
        logger.warning("%s; not in the weights: %s", report, first_few(report.initialised))
    return model.eval()


@torch.no_grad()
def initialise_temporal(model: nn.Module, temporal_init: TemporalInit, std: float) -> None:
    """Set every temporal filter and its batch norm as ``load_weights`` describes."""
    for block in model.modules():
        if not isinstance(block, Bottleneck) or block.kind == "2D":
            continue
        weight = block.conv_t.weight  # (mid, mid, 3, 1)
        if temporal_init == "gaussian":
            nn.init.normal_(weight, std=std)
        else:
            weight.zero_()
            if block.kind != "B":
                weight[:, :, 1, 0] = torch.eye(len(weight))
        block.bn_t.reset_parameters()


def _read(source: Source) -> _Weights:
    if isinstance(source, Mapping):
        return _named("state dict", dict(source), {})
    path = Path(source)
    if path.is_dir():
        config = read_config(path)
        return _named(str(path), read_safetensors(path / WEIGHTS_NAME), config)
    if not path.exists():
        raise Pseudo3dError(f"{path}: no such file or folder; give a .safetensors, .pth, .pt or .tar file or a folder")
    if path.suffix == ".safetensors":
        return _named(str(path), read_safetensors(path), _metadata(path))
    if path.suffix in (".pth", ".pt", ".tar"):
        return _named(str(path), _read_pickle(path), {})
    raise Pseudo3dError(f"{path}: unknown kind of weights; known are .safetensors, .pth, .pt, .tar and a folder")


def _metadata(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {}).get("pseudo3d", "{}"))


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """A state dict out of a PyTorch file, or out of the usual wrappers around one."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise Pseudo3dError(f"{path}: not a PyTorch file of plain weights ({reason})") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise Pseudo3dError(f"{path}: holds no state dict; save model.state_dict()")
    return {key.removeprefix("module."): value for key, value in content.items()}


def _named(name: str, state: dict[str, Tensor], config: dict[str, Any]) -> _Weights:
    if is_torchvision(state):
        return _Weights(name, from_torchvision(state), "torchvision", "2D", imagenet=True)
    layout = state.pop("layout", None)
    if "stem.conv1.weight" not in state:
        raise Pseudo3dError(
            f"{name}: its arrays have neither this project's names nor those of torchvision's ResNets "
            f"(the first are {', '.join(list(state)[:3])})"
        )
    style, blocks = (None, None) if layout is None else bytes(layout.tolist()).decode().split()
    return _Weights(name, state, style, blocks, config)  # type: ignore[arg-type]


def _check_architecture(model: VideoModel, weights: _Weights) -> None:
    own = model.architecture
    if weights.style is not None and weights.style != own.style:
        raise Pseudo3dError(
            f"{weights.name}: these weights need style {weights.style!r}, the model has style {own.style!r}; "
            f"they would load and compute nonsense. Use create_model(..., style={weights.style!r}) or load_model"
        )
    if model.has_time and weights.blocks not in (None, "2D", own.blocks):
        raise Pseudo3dError(
            f"{weights.name}: these weights are for blocks {weights.blocks!r}, the model has {own.blocks!r}"
        )


def _is_head(key: str) -> bool:
    return key.startswith("fc.")


def _without_head(model: VideoModel, weights: _Weights, head: Head) -> tuple[dict[str, Tensor], list[str]]:
    """The arrays to load and the names of a head that is left out; raises when a head is wanted and does not fit."""
    if head == "new":
        dropped = [key for key in weights.state if _is_head(key)]
        return {key: value for key, value in weights.state.items() if not _is_head(key)}, dropped
    if weights.num_classes != model.fc.out_features:
        theirs = "no head" if weights.num_classes is None else f"a head of {weights.num_classes} classes"
        instead = "" if weights.num_classes is None else f", or num_classes={weights.num_classes}"
        raise Pseudo3dError(
            f"{weights.name}: has {theirs}, the model one of {model.fc.out_features}; "
            f"pass head='new' to train a new head{instead}"
        )
    return dict(weights.state), []


def _inflated(own: Mapping[str, Tensor], missing: list[str]) -> list[str]:
    """The temporal arrays, if the source is a 2-D network: it lacks all of them. To lack some is to be broken."""
    temporal = [key for key in own if ".conv_t." in key or ".bn_t." in key]
    return temporal if set(temporal) <= set(missing) else []


def _check_arrays(
    name: str, strict: bool, own: Mapping[str, Tensor], state: Mapping[str, Tensor], *, expected: set[str]
) -> None:
    """Raise for other shapes and, if ``strict``, for arrays that are missing (but ``expected`` to be) or unknown."""
    shapes = [key for key in state if key in own and state[key].shape != own[key].shape]
    if shapes:
        key = shapes[0]
        raise Pseudo3dError(
            f"{name}: {key} has shape {tuple(state[key].shape)}, the model needs {tuple(own[key].shape)}"
            f" ({len(shapes)} arrays differ in shape)"
        )
    absent = [k for k in own if k not in state and k not in expected and not k.endswith("num_batches_tracked")]
    unknown = [key for key in state if key not in own]
    parts = []
    if absent:
        parts.append(f"{len(absent)} arrays of the model are not there ({first_few(absent)})")
    if unknown:
        parts.append(f"{len(unknown)} arrays are not the model's ({first_few(unknown)})")
    if strict and parts:
        raise Pseudo3dError(f"{name}: {' and '.join(parts)}; is it another depth or network?")


def _set_description(model: VideoModel, weights: _Weights, head: Head) -> None:
    """Preprocessing always follows the weights; class names only with their head."""
    if weights.imagenet:
        model.preprocessing = replace(
            model.preprocessing,
            mean=IMAGENET_MEAN_RGB,
            std=IMAGENET_STD_RGB,
            channel_order="RGB",
            value_range=(0.0, 1.0),
        )
    elif "preprocessing" in weights.config:
        theirs = Preprocessing.from_dict(weights.config["preprocessing"])
        # A frame network's weights do not decide how many frames a P3D clip has.
        model.preprocessing = replace(theirs, num_frames=model.preprocessing.num_frames)
    if head == "auto" and weights.config.get("class_names"):
        model.class_names = tuple(weights.config["class_names"])
