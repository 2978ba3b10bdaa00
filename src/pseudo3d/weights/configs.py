"""config.json, of this project and of others: any JSON, believed only after every field was checked."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeGuard

from pseudo3d.errors import Pseudo3dError, first_few, printable
from pseudo3d.models import MODELS, create_model
from pseudo3d.preprocessing import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB, Preprocessing

Check = tuple[str, Callable[[Any], bool]]  # what a value must be in words, and whether it is


def parse_json(text: str | bytes, where: str) -> Any:
    """JSON that may be anything.

    Raises:
        Pseudo3dError: not JSON, not text, or nested too deep to be a config.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise Pseudo3dError(f"{where}: not valid JSON (nested too deep); copy the folder again") from None
    except ValueError as error:  # not JSON, or not even text
        raise Pseudo3dError(f"{where}: not valid JSON ({printable(error)}); copy the folder again") from error


def _shown(value: Any) -> str:
    """A value for a message; long ones by their kind."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "an object" if isinstance(value, dict) else printable(repr(value))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -1e30 < value < 1e30  # NaN is not


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**31


def _are(values: Any, fits: Callable[[Any], bool], length: int | None = None) -> bool:
    right_length = isinstance(values, list) and (len(values) == length if length else len(values) > 0)
    return right_length and all(map(fits, values))


_TEXT: Check = ("a text", lambda value: type(value) is str)
_COUNT: Check = ("a positive whole number", _is_count)
_SIZE: Check = ("[height, width]", lambda value: _are(value, _is_count, 2))
_NUMBERS: Check = ("a list of numbers", lambda value: _are(value, _is_number))
_OBJECT: Check = ("an object", lambda value: isinstance(value, dict))

_TOP: dict[str, Check] = {
    "format_version": _COUNT,
    "architecture": _OBJECT,
    "preprocessing": _OBJECT,
    "class_names": ("null or a list of texts", lambda value: value is None or _are(value, _TEXT[1])),
    "sampler": _OBJECT,
}
_ARCHITECTURE: dict[str, Check] = {
    "name": _TEXT,
    "num_classes": _COUNT,
    "blocks": _TEXT,
    "in_channels": _COUNT,
    "style": _TEXT,
    "dropout": ("a number", _is_number),
}
_PREPROCESSING: dict[str, Check] = {
    "num_frames": _COUNT,
    "resize": ("a number or [height, width]", lambda value: _is_count(value) or _SIZE[1](value)),
    "crop": _SIZE,
    "mean": _NUMBERS,
    "std": _NUMBERS,
    "channel_order": _TEXT,
    "value_range": ("[low, high]", lambda value: _are(value, _is_number, 2)),
    "interpolation": _TEXT,
}


def _check_object(values: dict[str, Any], checks: dict[str, Check], where: str) -> None:
    differing = sorted(checks.keys() ^ values.keys())
    if differing:
        raise Pseudo3dError(
            f"{where}: its config lacks or adds a field ({first_few(differing)}); was it edited by hand?"
        )
    for key, (words, fits) in checks.items():
        if not fits(values[key]):
            raise Pseudo3dError(f"{where}: {key} must be {words}, got {_shown(values[key])}; was it edited by hand?")


def check_fields(config: dict[str, Any], where: str) -> None:
    """Check every field of a config of ours, so that whoever reads it meets the types that ``model_config`` wrote.

    Args:
        config: as parsed.
        where: what to call it in messages.

    Raises:
        Pseudo3dError: a field is missing, unknown or of another type, or the fields contradict each other.
    """
    _check_object(config, _TOP, where)
    architecture, preprocessing, names = config["architecture"], config["preprocessing"], config["class_names"]
    _check_object(architecture, _ARCHITECTURE, where)
    try:
        if set(preprocessing) - {field.name for field in fields(Preprocessing)}:
            Preprocessing.from_dict(preprocessing)  # raises, in its own words
        _check_object(preprocessing, _PREPROCESSING, where)
        Preprocessing.from_dict(preprocessing)
        if architecture["name"] not in MODELS:
            create_model(architecture["name"])  # raises, and names the nearest
    except Pseudo3dError as error:
        raise Pseudo3dError(str(error) if str(error).startswith(where) else f"{where}: {error}") from error
    channels, classes = architecture["in_channels"], architecture["num_classes"]
    if len(preprocessing["mean"]) != channels:
        raise Pseudo3dError(
            f"{where}: the mean has {len(preprocessing['mean'])} numbers for {channels} input channels; correct it"
        )
    if names is not None and len(names) != classes:
        raise Pseudo3dError(f"{where}: {len(names)} class names for {classes} classes; correct config.json")
    if names is not None and len(set(names)) != classes:
        raise Pseudo3dError(f"{where}: {first_few(repeated(names))} stands twice in class_names; correct config.json")


def repeated(names: Sequence[str]) -> list[str]:
    """The names that stand more than once, in order.

    Example:
        >>> repeated(["crane", "maillot", "crane"])
        ['crane']
    """
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    return [name for name, count in seen.items() if count > 1]


# Of timm's ResNets, those whose code is ``ResNet(block=Bottleneck, layers=...)`` and nothing else: no other stem,
# no blur pooling, attention, groups or pooled shortcut. Most of the others have the same names and shapes.
# resnet14 is this project's, for tests.
_TIMM = re.compile(r"resnet14|((tv|ssl|swsl)_)?resnet(50|101|152)|gluon_resnet(50|101|152)_v1b")
# Arguments that change nothing that is computed when testing, and others with the only value that changes nothing.
_TIMM_HARMLESS = {"num_classes", "in_chans", "drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last"}
_TIMM_DEFAULTS = {"global_pool": "avg", "output_stride": 32, "act_layer": "relu", "norm_layer": "batchnorm2d"}

_HUGGINGFACE = {  # of transformers' ResNetConfig, what is computed here; what is not written is this by default
    "downsample_in_bottleneck": False,
    "embedding_size": 64,
    "layer_type": "bottleneck",
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "hidden_sizes": [256, 512, 1024, 2048],
}


@dataclass(frozen=True)
class ForeignConfig:
    """What a folder of timm's or transformers' says beside its arrays.

    Args:
        mean: of RGB in 0..1.
        std: of the same.
        class_names: in the order of the outputs; empty when it has none.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]


def is_foreign(config: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a config is timm's or transformers', which some ResNets have beside their arrays."""
    return isinstance(config, dict) and ("pretrained_cfg" in config or "model_type" in config)


def read_foreign(folder: Path, config: dict[str, Any]) -> ForeignConfig:
    """The mean, deviation and class names of a timm or transformers ResNet that computes what ours computes.

    Args:
        folder: with config.json and perhaps preprocessor_config.json.
        config: config.json as parsed.

    Raises:
        Pseudo3dError: another network, or a field that cannot be read.
    """
    path = folder / "config.json"
    numbers: dict[str, Any] = {}
    if "pretrained_cfg" in config:
        _check_timm(config, path)
        numbers = config["pretrained_cfg"] or {}
        if not isinstance(numbers, dict):
            raise Pseudo3dError(f"{path}: pretrained_cfg must be an object, got {_shown(numbers)}")
        names = ("mean", "std")
    else:
        _check_huggingface(config, path)
        names = ("image_mean", "image_std")
        processor = folder / "preprocessor_config.json"
        if processor.is_file():
            path, numbers = processor, parse_json(processor.read_bytes(), str(processor))
            if not isinstance(numbers, dict):
                raise Pseudo3dError(f"{path}: must be an object, is {_shown(numbers)}; copy the folder again")
    mean = _three(numbers, names[0], path) or IMAGENET_MEAN_RGB
    std = _three(numbers, names[1], path) or IMAGENET_STD_RGB
    if min(std) <= 0:
        raise Pseudo3dError(f"{path}: {names[1]} must be above 0, got {list(std)}")
    return ForeignConfig(mean, std, _labels(config, folder / "config.json"))


def _check_timm(config: dict[str, Any], path: Path) -> None:
    name = config.get("architecture")
    if not isinstance(name, str) or not _TIMM.fullmatch(name):
        raise Pseudo3dError(
            f"{path}: architecture {_shown(name)} is not a ResNet of ours; of timm's, resnet50, resnet101 and "
            "resnet152 are, also with tv_, ssl_, swsl_, or gluon_ and _v1b"
        )
    arguments = {"global_pool": config.get("global_pool", "avg")}
    given = config.get("model_args") or {}
    if not isinstance(given, dict):
        raise Pseudo3dError(f"{path}: model_args must be an object, got {_shown(given)}")
    for key, value in {**arguments, **given}.items():
        if key not in _TIMM_HARMLESS and (key not in _TIMM_DEFAULTS or value != _TIMM_DEFAULTS[key]):
            raise Pseudo3dError(
                f"{path}: {printable(key)} is {_shown(value)}, with which timm computes something else than the "
                "ResNets here; no style fits"
            )


def _check_huggingface(config: dict[str, Any], path: Path) -> None:
    kind = config["model_type"]
    if kind != "resnet":
        raise Pseudo3dError(f"{path}: model_type {_shown(kind)} is not a ResNet of ours")
    for key, expected in _HUGGINGFACE.items():
        value = config.get(key, expected)
        if value != expected or type(value) is not type(expected):
            raise Pseudo3dError(
                f"{path}: {key} is {printable(json.dumps(value))}, here it is {json.dumps(expected)}: its ResNet "
                "strides in the first 1x1 convolution or has another stem; no style fits"
                if key in ("downsample_in_bottleneck", "embedding_size")
                else f"{path}: {key} is {printable(json.dumps(value))}, the ResNets here have {json.dumps(expected)}"
            )


def _three(numbers: dict[str, Any], key: str, path: Path) -> tuple[float, ...] | None:
    """Three numbers, one a colour; None when the field is not there or null."""
    value = numbers.get(key)
    if value is None:
        return None
    if not _are(value, _is_number, 3):
        raise Pseudo3dError(f"{path}: {key} must be three numbers, one a colour, got {_shown(value)}")
    return tuple(map(float, value))


def _labels(config: dict[str, Any], path: Path) -> tuple[str, ...]:
    """The class names, made to differ: ImageNet's two kinds of crane become "crane (134)" and "crane (517)"."""
    labels = config.get("id2label") or config.get("label_names") or []
    if isinstance(labels, dict):
        try:
            labels = [labels[key] for key in sorted(labels, key=int)]
        except ValueError:
            raise Pseudo3dError(
                f"{path}: id2label must have whole numbers for keys; correct it or take it out"
            ) from None
    if labels and not _are(labels, _TEXT[1]):
        raise Pseudo3dError(f"{path}: the class names must be texts, got {_shown(labels)}; correct or remove them")
    twice = set(repeated(labels))
    return tuple(f"{name} ({i})" if name in twice else name for i, name in enumerate(labels))
