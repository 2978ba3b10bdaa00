"""Everything that ``load_weights`` takes, opened: what it is, its arrays under our names, what is known of them.

The content of a file decides what it is, not its name; arrays are read when they are copied into a network.
"""

import difflib
import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pseudo3d.errors import Pseudo3dError, first_few
from pseudo3d.models.blocks import Style
from pseudo3d.preprocessing import CAFFE_MEAN_BGR, IMAGENET_MEAN_RGB, IMAGENET_STD_RGB
from pseudo3d.weights.arrays import Arrays, open_safetensors
from pseudo3d.weights.caffe import read_caffe
from pseudo3d.weights.caffemodel import CaffeModel, looks_like_caffemodel
from pseudo3d.weights.identify import Looks, identify
from pseudo3d.weights.layouts import layout_of, to_our_names
from pseudo3d.weights.pretrained import CONFIG_NAME, WEIGHTS_NAME, read_config

Source = str | Path | Mapping[str, Tensor]

KINDS = {
    "pseudo3d": "this project's format",
    "torchvision": "torchvision's or timm's ResNet",
    "huggingface": "Hugging Face's ResNet",
    "port": "the well-known PyTorch port of P3D",
    "caffe p3d": "the P3D authors' Caffe model",
    "caffe resnet": "He et al.'s Caffe model",
    "caffe c3d": "the C3D authors' Caffe model",
}

_IMAGENET = {
    "mean": IMAGENET_MEAN_RGB,
    "std": IMAGENET_STD_RGB,
    "channel_order": "RGB",
    "value_range": (0.0, 1.0),
}
_CAFFE = {"mean": CAFFE_MEAN_BGR, "std": (1.0, 1.0, 1.0), "channel_order": "BGR", "value_range": (0.0, 255.0)}


@dataclass(frozen=True)
class Weights:
    """Opened weights.

    Args:
        name: what to call them in messages.
        kind: one of ``KINDS``.
        arrays: under our names.
        looks: the network that they fit; None when it is not known here.
        style: the style they need; None when they do not say.
        blocks: the cycle of P3D blocks, "2D" for a frame network; None when they do not say.
        numbers: mean, std, channel order and range of the three-channel input they were trained with.
        config: config.json of a folder of ours.
        class_names: in the order of the head's outputs.
        file: the file with the arrays; None for a state dict.
    """

    name: str
    kind: str
    arrays: Arrays
    looks: Looks | None
    style: Style | None = None
    blocks: str | None = None
    numbers: dict[str, Any] | None = None
    config: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    file: Path | None = None


def open_weights(source: Source, *, model: str | None = None) -> Weights:
    """Open any source of ``load_weights``.

    Args:
        source: a path, a state dict, "imagenet", or "hf:owner/name" with an optional "@revision".
        model: the network that "imagenet" is for; its ResNet has as many layers. 50 unless a name says how many.

    Raises:
        Pseudo3dError: nothing there, a broken file, arrays of no kind known here.
    """
    if isinstance(source, Mapping):
        return _from_state("state dict", Arrays.of(source), {})
    if str(source) == "imagenet":
        return _open_imagenet(model)
    if str(source).startswith("hf:"):
        from pseudo3d.weights import hub

        return replace(_open_folder(hub.fetch_folder(str(source))), name=str(source))
    path = Path(source)
    if not path.exists():
        raise Pseudo3dError(f"{path}: no such file or folder{near_names(path)}")
    return _open_folder(path) if path.is_dir() else _open_file(path)


def _open_imagenet(model: str | None) -> Weights:
    from pseudo3d.weights import hub

    depth = int(model.rpartition("resnet")[2]) if model and "resnet" in model else 50
    if depth not in hub.IMAGENET or model == "c3d":
        not_this = model if model == "c3d" else f"of {depth}"
        raise Pseudo3dError(f'"imagenet" has ResNets of {", ".join(map(str, hub.IMAGENET))} layers, not {not_this}')
    return replace(_open_file(hub.download(hub.IMAGENET[depth])), name=f"imagenet (ResNet-{depth})")


def near_names(path: Path) -> str:
    """For the message about a missing file: what lies beside it under a similar name, or what else could be given."""
    beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=3)
    if near:
        return f"; did you mean {' or '.join(str(path.parent / name) for name in near)}?"
    owner, _, name = str(path).partition("/")
    hub = f', or "hf:{path}" for the Hugging Face hub' if owner and name and "/" not in name else ""
    return f'; give a .safetensors, .pth, .pt, .tar or .caffemodel file, a pretrained folder, "imagenet"{hub}'


def class_names_from(names: Sequence[str] | str | Path, num_classes: int, source: str) -> tuple[str, ...]:
    """Class names out of a list, or of a file with one a line, checked against the class count.

    Raises:
        Pseudo3dError: an unreadable file, another number of names than classes, or a name that stands twice.
    """
    if isinstance(names, (str, Path)):
        path = Path(names)
        if not path.is_file():
            raise Pseudo3dError(f"{path}: no such file of class names{near_names(path)}")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise Pseudo3dError(f"{path}: not a text file (UTF-8); give one class name a line") from None
        where, names = str(path), [line.strip() for line in lines if line.strip()]
    else:
        where, names = "class_names", [str(name) for name in names]
    if len(names) != num_classes:
        raise Pseudo3dError(f"{where}: {len(names)} class names, but {source} has {num_classes} classes")
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise Pseudo3dError(f"{where}: {first_few(twice)} stands there more than once; class names must differ")
    return tuple(names)


def _open_folder(path: Path) -> Weights:
    """A folder of ours, or one from the hub with timm's or transformers' config."""
    config = _foreign_config(path / CONFIG_NAME)
    if config is not None:
        weights = _foreign(path, open_safetensors(path / WEIGHTS_NAME)[0], config)
    else:
        config = read_config(path)
        weights = _from_state(str(path), open_safetensors(path / WEIGHTS_NAME)[0], config)
    return replace(weights, file=path / WEIGHTS_NAME)


def _foreign_config(path: Path) -> dict[str, Any] | None:
    """The config of timm or transformers; None when there is none, for ``read_config`` to judge."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) and ("pretrained_cfg" in config or "model_type" in config) else None


def _foreign(path: Path, arrays: Arrays, config: dict[str, Any]) -> Weights:
    """A timm or transformers model: its own mean, deviation and class names."""
    weights = _from_state(str(path), arrays, {})
    if weights.kind not in ("torchvision", "huggingface"):
        raise Pseudo3dError(f"{path}: {config.get('architecture') or config.get('model_type')} is not a ResNet of ours")
    if config.get("downsample_in_bottleneck") or config.get("embedding_size", 64) != 64:
        raise Pseudo3dError(
            f"{path}: its ResNet strides in the first 1x1 convolution or has another stem; no style fits"
        )
    timm = config.get("pretrained_cfg") or {}
    processor = path / "preprocessor_config.json"
    theirs = json.loads(processor.read_text(encoding="utf-8")) if processor.is_file() else {}
    mean = timm.get("mean") or theirs.get("image_mean") or IMAGENET_MEAN_RGB
    std = timm.get("std") or theirs.get("image_std") or IMAGENET_STD_RGB
    labels = config.get("id2label") or {}
    names = tuple(str(labels[key]) for key in sorted(labels, key=int)) or tuple(config.get("label_names") or ())
    return replace(
        weights,
        numbers={**_IMAGENET, "mean": tuple(mean), "std": tuple(std)},
        class_names=names if weights.looks and len(names) == weights.looks.num_classes else None,
    )


def _open_file(path: Path) -> Weights:
    with path.open("rb") as file:
        start = file.read(64)
    if start.lstrip()[:1] == b"<" or start.startswith(b"version https://git-lfs"):
        what = "a web page" if b"<" in start else "a git-lfs pointer"
        raise Pseudo3dError(f"{path}: {what} and not the weights themselves; download the file again")
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        arrays, metadata = open_safetensors(path)
        config = json.loads(metadata.get("pseudo3d", "{}"))
        return replace(_from_state(str(path), arrays, config), file=path)
    if start[:2] == b"PK" or start[:1] == b"\x80" or path.suffix in (".pth", ".pt", ".tar"):
        return replace(_from_state(str(path), Arrays.of(_read_pickle(path)), {}), file=path)
    if path.suffix == ".caffemodel" or looks_like_caffemodel(path):
        return _open_caffe(path)
    raise Pseudo3dError(
        f"{path}: unknown kind of weights; known are .safetensors, .pth, .pt, .tar, .caffemodel and a pretrained folder"
    )


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """A state dict out of a PyTorch file, or out of the usual wrappers around one; code in it is never run."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Pseudo3dError(f"{path}: not a PyTorch file of plain weights ({reason})") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise Pseudo3dError(f"{path}: holds no state dict; save model.state_dict()")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _open_caffe(path: Path) -> Weights:
    read = read_caffe(CaffeModel(path))
    looks = identify(read.arrays.shapes)
    blocks = "2D" if read.family == "resnet" else None
    if read.kinds:
        blocks = shortest_cycle(read.kinds)
    numbers = None if read.family == "c3d" else _CAFFE
    return Weights(str(path), f"caffe {read.family}", read.arrays, looks, "caffe", blocks, numbers, file=path)


def shortest_cycle(kinds: str) -> str:
    """The shortest string that repeated gives ``kinds``.

    Example:
        >>> shortest_cycle("ABCABCA"), shortest_cycle("AAAA")
        ('ABC', 'A')
    """
    lengths = range(1, len(kinds) + 1)
    return next(kinds[:n] for n in lengths if all(kind == kinds[i % n] for i, kind in enumerate(kinds)))


def _from_state(name: str, arrays: Arrays, config: dict[str, Any]) -> Weights:
    """Weights out of a state dict under our names or those of ``layouts``."""
    layout = layout_of(arrays)
    if layout is not None:
        arrays = to_our_names(arrays, layout)
        looks = identify(arrays.shapes)
        if layout == "port":
            return Weights(name, "port", arrays, looks, None, "ABC")
        return Weights(name, layout, arrays, looks, "torchvision", "2D", _IMAGENET)
    style, blocks = None, None
    if "layout" in arrays:
        style, blocks = bytes(arrays["layout"].tolist()).decode().split()
        arrays = arrays.without({"layout"})
    looks = identify(arrays.shapes)
    if looks is None:
        raise Pseudo3dError(
            f"{name}: its arrays have neither this project's names nor those of torchvision's, timm's or Hugging "
            f"Face's ResNets, nor of the PyTorch port of P3D (the first are {first_few(arrays)})"
        )
    names = tuple(config.get("class_names") or ()) or None
    return Weights(name, "pseudo3d", arrays, looks, style, blocks, config=config, class_names=names)  # type: ignore[arg-type]
