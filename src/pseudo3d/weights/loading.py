"""load_weights: numbers from a file, a folder, the hub or a state dict into a network, strictly and with a report."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pseudo3d.choices import Head, Style, TemporalInit
from pseudo3d.errors import Pseudo3dError, first_few
from pseudo3d.models import VideoModel, c3d_preprocessing, create_model
from pseudo3d.models.blocks import Bottleneck
from pseudo3d.models.c3d import C3D
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.weights.arrays import Arrays
from pseudo3d.weights.caffemodel import read_blob
from pseudo3d.weights.checks import check_architecture, check_arrays, check_numbers
from pseudo3d.weights.sources import Source, Weights, class_names_from, open_weights

logger = logging.getLogger("pseudo3d")

_STEMS = ("stem.conv1.weight", "conv1a.weight")
_PORT_DIFFERS = (
    "that port computes a ReLU on the temporal branch before the sum in B and C, leaves out C's 0.5 and shifts pool1's "
    "windows; here they go into the authors' network, which is right for weights converted from the authors'. "
    'For weights that were trained with the port, use style="port"'
)


@dataclass(frozen=True)
class LoadReport:
    """What ``load_weights`` did with each array, by our names.

    Args:
        source: where the numbers came from.
        loaded: arrays of the model that were filled.
        initialised: arrays of the model that the source does not have: temporal filters, a new head.
        dropped: arrays of the source that were not used: a head of other classes.
        adapted: those of ``loaded`` that were made for other input channels: averaged over them and rescaled.
    """

    source: str
    loaded: tuple[str, ...]
    initialised: tuple[str, ...]
    dropped: tuple[str, ...]
    adapted: tuple[str, ...] = ()

    def __str__(self) -> str:
        adapted = f", {len(self.adapted)} adapted" if self.adapted else ""
        return (
            f"{self.source}: {len(self.loaded)} arrays loaded, {len(self.initialised)} initialised, "
            f"{len(self.dropped)} dropped{adapted}"
        )


def load_weights(
    model: VideoModel,
    source: Source,
    *,
    strict: bool = True,
    head: Head = "auto",
    temporal_init: TemporalInit = "identity",
    std: float = 0.001,
    class_names: Sequence[str] | str | Path | None = None,
    mean_file: str | Path | None = None,
) -> LoadReport:
    """Fill ``model`` with the numbers of ``source`` and set its preprocessing to theirs.

    A 2-D ResNet becomes a P3D ResNet (paper 3.3): the 1x3x3 filters take the 3x3 ones, and the temporal filters, which
    the source lacks, are initialised: "identity" (T is the identity in A and C and zero in B, so that a clip of one
    repeated frame gives what the 2-D network gives) or "gaussian" (the paper's: zero mean, ``std``). T's batch norm
    starts at scale 1, shift 0, mean 0, variance 1.

    RGB weights go into a network with other input channels (grey, flow, stacked frames) by averaging the first
    filters over the colours and scaling them by 3 / channels, so that the response to equal planes stays.

    Args:
        model: filled in place.
        source: a path (.caffemodel, .safetensors, .pth, .pt, .tar, a pretrained folder), a state dict, "imagenet" (the
            2-D ResNet of the model's depth from the Hugging Face hub) or "hf:owner/name". Known layouts: ours,
            torchvision's and timm's, Hugging Face's, the PyTorch port of P3D, and the Caffe models of P3D, ResNet, C3D.
        strict: arrays that the model lacks or does not get raise; otherwise they are in the report.
        head: "auto" takes the source's head when its class count fits and raises otherwise; "new" keeps the model's.
        temporal_init: "identity" or "gaussian".
        std: of the Gaussian.
        class_names: of the source's head, in order, or a file with one a line; for sources that do not carry them.
        mean_file: Caffe's .binaryproto: C3D's mean volume, or a mean image, whose mean of each channel is taken.

    Returns:
        What was loaded, initialised and dropped.

    Raises:
        Pseudo3dError: (a ValueError) an unreadable source, another network or style than the model's, unknown or
            left-over arrays, other shapes, another class count. The model is then unchanged.

    Example:
        >>> import pseudo3d
        >>> frames = pseudo3d.create_model("resnet14", num_classes=5, style="torchvision")
        >>> model = pseudo3d.create_model("p3d_resnet14", num_classes=5, style="torchvision")
        >>> print(load_weights(model, frames.state_dict()))
        state dict: 104 arrays loaded, 15 initialised, 0 dropped
    """
    weights = open_weights(source, model=model.architecture.name)
    return _load(
        model, weights, strict=strict, head=head, temporal_init=temporal_init, std=std, class_names=class_names,
        mean_file=mean_file,
    )  # fmt: skip


def load_model(
    name: str,
    weights: Source | Weights,
    *,
    num_classes: int | None = None,
    blocks: str | None = None,
    in_channels: int | None = None,
    style: Style | None = None,
    dropout: float | None = None,
    head: Head = "auto",
    temporal_init: TemporalInit = "identity",
    std: float = 0.001,
    class_names: Sequence[str] | str | Path | None = None,
    mean_file: str | Path | None = None,
) -> VideoModel:
    """``create_model`` as the weights need it, then ``load_weights``; in evaluation mode.

    Args:
        name: one of ``list_models()``, "auto" for the network that the weights are of, or "p3d" for the same with a 2-D
            ResNet inflated to the P3D network of its depth.
        weights: as ``source`` of ``load_weights``, or what ``open_weights`` gave.
        num_classes: None for that of the weights.
        blocks: None for the order that the weights need.
        in_channels: None for those of the weights.
        style: None for the one that the weights need ("caffe" for the PyTorch port's; see ``load_weights``).
        dropout: None for that of the weights, if they are of this network and say it, or else as ``create_model``.
        head: as for ``load_weights``.
        temporal_init: as for ``load_weights``.
        std: as for ``load_weights``.
        class_names: as for ``load_weights``.
        mean_file: as for ``load_weights``.

    Raises:
        Pseudo3dError: as ``create_model`` and ``load_weights``.
    """
    opened = weights if isinstance(weights, Weights) else open_weights(weights, model=name)
    looks = opened.looks
    if name in ("auto", "p3d"):
        if looks is None or looks.name is None:
            raise Pseudo3dError(f"{opened.name}: looks like {looks.what if looks else 'no network known here'}")
        foreign = opened.kind != "pseudo3d"  # a frame network of ours was meant to be one
        name = f"p3d_{looks.name}" if name == "p3d" and foreign and looks.name.startswith("resnet") else looks.name
    saved = opened.config.get("architecture", {})
    model = create_model(
        name,
        num_classes=looks.num_classes if num_classes is None and looks else num_classes,
        blocks=_blocks_for(name, opened) if blocks is None else blocks,
        in_channels=(looks.in_channels if looks else 3) if in_channels is None else in_channels,
        style=(opened.styles or ("caffe",))[0] if style is None else style,
        dropout=saved["dropout"] if dropout is None and saved.get("name") == name else dropout,
    )
    report = _load(
        model, opened, strict=True, head=head, temporal_init=temporal_init, std=std, class_names=class_names,
        mean_file=mean_file,
    )  # fmt: skip
    if report.initialised:
        logger.warning("%s; not in the weights: %s", report, first_few(report.initialised))
    return model.eval()


def _blocks_for(name: str, weights: Weights) -> str:
    """The order of the weights' blocks, where they and the network have P3D's; else the default."""
    has_blocks = name.startswith("p3d") and weights.blocks not in (None, "2D")
    return weights.blocks if has_blocks and weights.blocks else "ABC"


def _load(
    model: VideoModel,
    weights: Weights,
    *,
    strict: bool,
    head: Head,
    temporal_init: TemporalInit,
    std: float,
    class_names: Sequence[str] | str | Path | None,
    mean_file: str | Path | None,
) -> LoadReport:
    """Check everything, then fill the model: an error leaves it as it was."""
    if head not in ("auto", "new") or temporal_init not in ("identity", "gaussian") or not std >= 0:
        raise Pseudo3dError(
            "head must be 'auto' or 'new', temporal_init 'identity' or 'gaussian' and std at least 0, "
            f"got {head!r}, {temporal_init!r} and {std!r}"
        )
    check_architecture(model, weights)
    preprocessing = _preprocessing(model, weights)
    names = _class_names(weights, class_names, head)
    mean = None if mean_file is None else _read_mean(model, mean_file)
    arrays, dropped = _without_head(model, weights, head)
    own = {key: value for key, value in model.state_dict().items() if key != "layout"}
    arrays, adapted = _for_channels(arrays, own, weights)
    missing = [key for key in own if key not in arrays]
    inflated = _inflated(own, missing, weights)
    optional = {*inflated, "mean_volume", *(key for key in own if key.startswith(f"{model.head_name}."))}
    check_arrays(weights.name, strict, own, arrays.shapes, expected=optional)
    loaded = [key for key in arrays if key in own]
    check_numbers(weights.name, arrays, loaded)

    with torch.no_grad():
        for key in loaded:  # one at a time, so that memory holds the network once
            own[key].copy_(arrays[key])
    if inflated:
        initialise_temporal(model, temporal_init, std)
    model.preprocessing = preprocessing
    if head == "auto":
        model.class_names = names
    _set_mean(model, weights, mean, loaded)
    _say_what_is_assumed(model, weights)
    dropped += [key for key in arrays if key not in own]
    # counters that nothing here reads, and C3D's mean volume, are no news
    initialised = tuple(key for key in missing if key != "mean_volume" and not key.endswith("num_batches_tracked"))
    return LoadReport(weights.name, tuple(loaded), initialised, tuple(dropped), adapted)


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


def _preprocessing(model: VideoModel, weights: Weights) -> Preprocessing:
    """The model's with what follows from the weights: all of it when they are of the same network, else the numbers."""
    own, looks = model.preprocessing, weights.looks
    if model.architecture.in_channels != (looks.in_channels if looks else 3):
        return own  # RGB filters made for other channels: their mean of each colour means nothing here
    if "preprocessing" in weights.config:
        theirs = Preprocessing.from_dict(weights.config["preprocessing"])
        if weights.config["architecture"]["name"] == model.architecture.name:
            return theirs
        # A frame network's weights do not decide how many frames a P3D clip has, nor its size.
        numbers = {
            key: getattr(theirs, key) for key in ("mean", "std", "channel_order", "value_range", "interpolation")
        }
        return replace(own, **numbers)
    if isinstance(model, C3D) and weights.kind == "caffe c3d":
        return c3d_preprocessing(len(own.mean))
    if weights.numbers is not None and len(own.mean) == 3:
        if weights.kind == "port":
            return own  # both styles it can be for have theirs
        return replace(own, **weights.numbers)
    return own


def _class_names(weights: Weights, given: Sequence[str] | str | Path | None, head: Head) -> tuple[str, ...] | None:
    if given is None:
        return weights.class_names
    if head == "new":
        raise Pseudo3dError("class_names are those of the weights' head, which head='new' leaves out; give one of both")
    classes = weights.looks.num_classes if weights.looks else None
    if classes is None:
        raise Pseudo3dError(f"{weights.name}: has no head that class_names could be for")
    return class_names_from(given, classes, weights.name)


def _read_mean(model: VideoModel, path: str | Path) -> np.ndarray:
    """A Caffe mean file, without its first axis, that fits the model."""
    mean = read_blob(Path(path))
    mean = mean[0] if mean.ndim in (4, 5) and len(mean) == 1 else mean
    if not np.isfinite(mean).all():
        raise Pseudo3dError(f"{path}: has values that are not finite; copy the file or download it again")
    architecture = model.architecture
    if architecture.style != "caffe":
        raise Pseudo3dError(f"{path}: a mean in grey levels is for style 'caffe', the model has {architecture.style!r}")
    if mean.ndim not in (3, 4) or len(mean) != architecture.in_channels:
        raise Pseudo3dError(
            f"{path}: a mean of shape {mean.shape} does not fit a network of {architecture.in_channels} input channels"
        )
    if isinstance(model, C3D) and mean.shape != tuple(model.mean_volume.shape):
        raise Pseudo3dError(
            f"{path}: the mean volume has shape {mean.shape}, C3D needs {tuple(model.mean_volume.shape)}"
        )
    return mean


def _set_mean(model: VideoModel, weights: Weights, mean: np.ndarray | None, loaded: Sequence[str]) -> None:
    """C3D's mean volume, or the mean of each channel of a mean image; without a file, C3D's channel means."""
    if not isinstance(model, C3D):
        if mean is not None:
            channel_means = mean.reshape(len(mean), -1).mean(axis=1, dtype=np.float64)
            model.preprocessing = replace(model.preprocessing, mean=tuple(float(each) for each in channel_means))
    elif mean is not None:
        model.set_mean_volume(mean)
    elif "mean_volume" not in loaded:
        means = np.array(model.preprocessing.mean, np.float32)[:, None, None, None]
        model.set_mean_volume(np.broadcast_to(means, model.mean_volume.shape))
        if weights.kind == "caffe c3d":
            logger.warning(
                "%s: C3D's mean volume is a file of its own (mean_file); channel means are used", weights.name
            )


def _say_what_is_assumed(model: VideoModel, weights: Weights) -> None:
    """Warn where the weights leave open what they compute."""
    own = model.architecture
    if weights.kind == "port":
        if own.style == "caffe":
            warnings.warn(f"{weights.name}: weights of the PyTorch port of P3D; {_PORT_DIFFERS}", stacklevel=4)
        return
    assumed = []
    if not weights.styles and not isinstance(model, C3D):
        assumed.append(f"style {own.style!r}")
    if weights.blocks is None and own.name.startswith("p3d"):
        assumed.append(f"blocks {own.blocks!r}")
    if assumed:
        warnings.warn(
            f"{weights.name}: does not say what it was trained as; {' and '.join(assumed)} assumed", stacklevel=4
        )


def _without_head(model: VideoModel, weights: Weights, head: Head) -> tuple[Arrays, list[str]]:
    """The arrays to load and the names of a head that is left out; raises when a head is wanted and does not fit."""
    keys = [key for key in weights.arrays if key.startswith(f"{model.head_name}.")]
    if head == "new":
        return weights.arrays.without(set(keys)), keys
    theirs = weights.arrays.shapes.get(f"{model.head_name}.bias", (None,))[0]
    if theirs != model.architecture.num_classes:
        words = "no head" if theirs is None else f"a head of {theirs} classes"
        instead = "" if theirs is None else f", or num_classes={theirs}"
        raise Pseudo3dError(
            f"{weights.name}: has {words}, the model one of {model.architecture.num_classes}; "
            f"pass head='new' (p3d train --head new) to train a new head{instead}"
        )
    return weights.arrays, []


def _for_channels(arrays: Arrays, own: Mapping[str, Tensor], weights: Weights) -> tuple[Arrays, tuple[str, ...]]:
    """RGB's first filters for other input channels: their mean over the colours, times 3 / channels, in every plane."""
    key = next((key for key in _STEMS if key in own and key in arrays), None)
    if key is None or len(arrays.shapes[key]) < 2:
        return arrays, ()
    theirs, channels = arrays.shapes[key][1], own[key].shape[1]
    if theirs == channels:
        return arrays, ()
    arrays = arrays.without({"mean_volume"})  # of other channels
    if theirs != 3:
        raise Pseudo3dError(
            f"{weights.name}: these weights take {theirs} input channels, the model {channels}; only those of RGB "
            f"networks can be adapted. Use create_model(..., in_channels={theirs})"
        )

    def adapt(filters: Tensor) -> Tensor:
        return (filters.float().mean(1, keepdim=True) * (3 / channels)).expand(-1, channels, *filters.shape[2:])

    return arrays.changed(key, tuple(own[key].shape), adapt), (key,)


def _inflated(own: Mapping[str, Tensor], missing: list[str], weights: Weights) -> list[str]:
    """The temporal arrays, if the source is a 2-D network: it lacks all of them. To lack some is to be broken."""
    temporal = [key for key in own if ".conv_t." in key or ".bn_t." in key]
    flat = weights.blocks == "2D" or (weights.kind == "pseudo3d" and weights.blocks is None)
    return temporal if flat and set(temporal) <= set(missing) else []
