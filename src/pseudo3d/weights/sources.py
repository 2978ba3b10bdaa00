"""Everything that ``load_weights`` takes, opened: what it is, its arrays under our names, what is known of them.

The content of a file decides what it is, not its name; arrays are read when they are copied into a network.
"""

import contextlib
import difflib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pseudo3d.choices import Style
from pseudo3d.errors import Pseudo3dError, first_few, printable
from pseudo3d.preprocessing import CAFFE_MEAN_BGR, IMAGENET_MEAN_RGB, IMAGENET_STD_RGB
from pseudo3d.weights.arrays import Arrays, check_regular, open_safetensors
from pseudo3d.weights.caffe import read_caffe
from pseudo3d.weights.caffe_wire import other_format
from pseudo3d.weights.caffemodel import CaffeModel, looks_like_caffemodel
from pseudo3d.weights.configs import ForeignConfig, is_foreign, parse_json, read_foreign, repeated
from pseudo3d.weights.identify import Looks, identify
from pseudo3d.weights.layouts import layout_of, to_our_names
from pseudo3d.weights.pickles import read_pickle, state_arrays
from pseudo3d.weights.pretrained import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    check_belongs,
    check_config,
    read_config,
    read_layout,
)

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
        styles: those they can be for, the likeliest first; empty when they do not say.
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
    styles: tuple[Style, ...] = ()
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
        return _from_state("state dict", state_arrays(source, "state dict"), {})
    if not isinstance(source, (str, Path)) or str(source) == "":
        got = "an empty path" if source == "" else f"a value of type {type(source).__name__}"
        raise Pseudo3dError(
            f'weights: {got}; give a path, a state dict (model.state_dict()), "imagenet" or "hf:owner/name"'
        )
    if str(source) == "imagenet":
        return _open_imagenet(model)
    if str(source).startswith("hf:"):
        from pseudo3d.weights import hub

        return replace(_open_folder(hub.fetch_folder(str(source))), name=str(source))
    path = Path(source)
    if not _exists(path):
        raise Pseudo3dError(f"{printable(path, 4096)}: no such file or folder{near_names(path)}")
    return _open_folder(path) if path.is_dir() else _open_file(path)


def _exists(path: Path) -> bool:
    """Whether there is something; a name that no file can have (too long, with a NUL) is of nothing."""
    try:
        path.stat()
    except PermissionError:
        raise
    except (OSError, ValueError):
        return False
    return True


def _open_imagenet(model: str | None) -> Weights:
    from pseudo3d.weights import hub

    match = re.fullmatch(r"(?:p3d_)?resnet([1-9]\d{0,3})", model or "")
    depth = int(match[1]) if match else 50 if model in (None, "auto", "p3d") else None
    if depth not in hub.IMAGENET:
        not_this = f"of {depth}" if depth else model
        raise Pseudo3dError(f'"imagenet" has ResNets of {", ".join(map(str, hub.IMAGENET))} layers, not {not_this}')
    return replace(_open_file(hub.download(hub.IMAGENET[depth])), name=f"imagenet (ResNet-{depth})")


def near_names(path: Path) -> str:
    """For the message about a missing file: what lies beside it under a similar name, or what else could be given."""
    beside = []
    with contextlib.suppress(OSError, ValueError):
        if path.is_symlink():
            return "; it is a broken link, make it anew or give the file itself"
        beside = [each.name for each in path.parent.iterdir() if each.name != path.name]
    near = difflib.get_close_matches(path.name, beside, n=3)
    if near:
        return f"; did you mean {' or '.join(printable(path.parent / name, 4096) for name in near)}?"
    owner, _, name = str(path).partition("/")
    hub = f', or "hf:{printable(path)}" for the Hugging Face hub' if owner and name and "/" not in name else ""
    return f'; give a .safetensors, .pth, .pt, .tar or .caffemodel file, a pretrained folder, "imagenet"{hub}'


def class_names_from(names: Sequence[str] | str | Path, num_classes: int, source: str) -> tuple[str, ...]:
    """Class names out of a list, or of a file with one a line, checked against the class count.

    Lines "0 abseiling", "1 air drumming", ... are lines with the number of the output before the name: it is left out.

    Raises:
        Pseudo3dError: an unreadable file, another number of names than classes, numbers in another order than the
            outputs', a name with a control character, or one that stands twice.
    """
    if isinstance(names, (str, Path)):
        where = str(names)
        names = _unnumbered(_lines(Path(names)), where)
    else:
        where, names = "class_names", [str(name) for name in names]
    if len(names) != num_classes:
        raise Pseudo3dError(f"{where}: {len(names)} class names, but {source} has {num_classes} classes")
    odd = [name for name in names if any(unicodedata.category(each) in ("Cc", "Zl", "Zp") for each in name)]
    if odd:
        raise Pseudo3dError(f"{where}: {first_few(odd)} has a control character such as a tab; give one name a line")
    twice = repeated(names)
    if twice:
        raise Pseudo3dError(
            f"{where}: {first_few(twice)} stands there more than once; class names must differ, so write for instance "
            f"{printable(twice[0] + ' 1')!r} and {printable(twice[0] + ' 2')!r}"
        )
    return tuple(names)


def _lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty; other characters that Unicode ends lines with are in the names."""
    if path.is_dir():
        raise Pseudo3dError(f"{path}: is a folder; give a file with one class name a line")
    if not path.is_file():
        raise Pseudo3dError(f"{printable(path, 4096)}: no such file of class names{near_names(path)}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Pseudo3dError(f"{path}: not a text file (UTF-8); give one class name a line") from None
    return [line.strip(" \t") for line in re.split(r"\r\n|\r|\n", text) if line.strip(" \t")]


def _unnumbered(lines: list[str], where: str) -> list[str]:
    """The names of a list that gives each the number of its output; other lists as they are."""
    numbered = [re.fullmatch(r"([0-9]{1,9})[ \t]+(.+)", line) for line in lines]
    if not lines or None in numbered:
        return lines
    numbers = [int(match[1]) for match in numbered if match]
    if numbers not in (list(range(len(lines))), list(range(1, len(lines) + 1))):
        raise Pseudo3dError(
            f"{where}: every line begins with a number, but they are not 0, 1, 2, ... or 1, 2, 3, ... in order; "
            "sort the lines by output and leave the numbers out"
        )
    return [match[2] for match in numbered if match]


def _open_folder(path: Path) -> Weights:
    """A folder of ours, or one from the hub with timm's or transformers' config."""
    file = path / CONFIG_NAME
    foreign = parse_json(file.read_bytes(), str(file)) if file.is_file() else None
    if is_foreign(foreign):
        theirs = read_foreign(path, foreign)
        weights = _foreign(path, open_safetensors(path / WEIGHTS_NAME)[0], theirs)
    else:
        config = read_config(path)
        arrays, _ = open_safetensors(path / WEIGHTS_NAME)
        check_belongs(config, arrays, path)
        weights = _from_state(str(path), arrays, config)
    return replace(weights, file=path / WEIGHTS_NAME)


def _foreign(path: Path, arrays: Arrays, config: ForeignConfig) -> Weights:
    """A timm or transformers model: its own mean, deviation and class names."""
    weights = _from_state(str(path), arrays, {})
    if weights.kind not in ("torchvision", "huggingface"):
        raise Pseudo3dError(f"{path}: its config is of timm or transformers, its arrays are of {KINDS[weights.kind]}")
    classes = weights.looks.num_classes if weights.looks else None
    return replace(
        weights,
        numbers={**_IMAGENET, "mean": config.mean, "std": config.std},
        class_names=config.class_names if config.class_names and len(config.class_names) == classes else None,
    )


def _open_file(path: Path) -> Weights:
    """A file by its content; what is of no known kind goes to the reader of its suffix, for the error."""
    check_regular(path)
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        raise Pseudo3dError(f"{path}: is empty; copy or download it again")
    suffix = path.suffix.lower()
    # safetensors: the length of a header in JSON, less than 100 MB, and its first brace
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= 100_000_000:
        return _open_safetensors(path)
    if head[:2] == b"PK" or head[:1] == b"\x80":
        return replace(_from_state(str(path), read_pickle(path), {}), file=path)
    if looks_like_caffemodel(path):
        return _open_caffe(path)
    other = other_format(head)
    if other is not None:
        raise Pseudo3dError(f"{path}: {other}")
    if suffix == ".safetensors":
        return _open_safetensors(path)
    if suffix in (".pth", ".pt", ".tar"):
        return replace(_from_state(str(path), read_pickle(path), {}), file=path)
    if suffix == ".caffemodel":
        return _open_caffe(path)
    raise Pseudo3dError(
        f"{path}: unknown kind of weights; known are .safetensors, .pth, .pt, .tar, .caffemodel and a pretrained folder"
    )


def _open_safetensors(path: Path) -> Weights:
    arrays, metadata = open_safetensors(path)
    config = {}
    if "pseudo3d" in metadata:
        where = f"{path} (its metadata)"
        config = check_config(parse_json(metadata["pseudo3d"], where), where)
        check_belongs(config, arrays, path)
    return replace(_from_state(str(path), arrays, config), file=path)


def _open_caffe(path: Path) -> Weights:
    read = read_caffe(CaffeModel(path))
    looks = identify(read.arrays.shapes)
    blocks = "2D" if read.family == "resnet" else None
    if read.kinds:
        blocks = shortest_cycle(read.kinds)
    numbers = None if read.family == "c3d" else _CAFFE
    return Weights(str(path), f"caffe {read.family}", read.arrays, looks, ("caffe",), blocks, numbers, file=path)


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
    if not arrays:
        raise Pseudo3dError(f"{name}: holds no arrays; save model.state_dict()")
    layout = layout_of(arrays)
    if layout is not None:
        arrays = to_our_names(arrays, layout)
        looks = identify(arrays.shapes)
        if layout == "port":
            return Weights(name, "port", arrays, looks, ("caffe", "port"))
        return Weights(name, layout, arrays, looks, ("torchvision",), "2D", _IMAGENET)
    styles: tuple[Style, ...] = ()
    blocks = None
    if "layout" in arrays:
        style, blocks = read_layout(arrays["layout"], name)
        styles = (style,)
        arrays = arrays.without({"layout"})
    looks = identify(arrays.shapes)
    if looks is None:
        raise Pseudo3dError(
            f"{name}: its arrays have neither this project's names nor those of torchvision's, timm's or Hugging "
            f"Face's ResNets, nor of the PyTorch port of P3D (the first are {first_few(arrays)})"
        )
    names = tuple(config.get("class_names") or ()) or None
    return Weights(name, "pseudo3d", arrays, looks, styles, blocks, config=config, class_names=names)
