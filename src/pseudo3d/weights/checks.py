"""What is asked of weights before the first number is written: the network, its arrays, their values."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pseudo3d.errors import Pseudo3dError, first_few
from pseudo3d.models import VideoModel
from pseudo3d.models.blocks import Bottleneck
from pseudo3d.models.c3d import C3D
from pseudo3d.weights.arrays import Arrays, Shape
from pseudo3d.weights.sources import Weights


def check_architecture(model: VideoModel, weights: Weights) -> None:
    """Raise for weights of another network, style or block order, saying which network they are of."""
    own, looks = model.architecture, weights.looks
    if looks is not None and looks.name not in (own.name, own.name.removeprefix("p3d_")):
        better = f"use {looks.name} for them" if looks.name else "nothing here fits"
        raise Pseudo3dError(f"{weights.name}: looks like {looks}, the model is {own.name}; {better}")
    if weights.styles and own.style not in weights.styles:
        needed = weights.styles[0]
        raise Pseudo3dError(
            f"{weights.name}: these weights need style {needed!r}, the model has style {own.style!r}; "
            f"they would load and compute nonsense. Use create_model(..., style={needed!r}) or load_model"
        )
    theirs = weights.blocks
    if theirs in (None, "2D") or isinstance(model, C3D):
        return
    kinds = [block.kind for block in model.modules() if isinstance(block, Bottleneck) and block.kind != "2D"]
    if any(kind != theirs[i % len(theirs)] for i, kind in enumerate(kinds)):
        raise Pseudo3dError(
            f"{weights.name}: these weights are for blocks {theirs!r}, the model has {own.blocks!r}; "
            f"leave blocks out, or use create_model(..., blocks={theirs!r})"
        )


def check_arrays(
    name: str, strict: bool, own: Mapping[str, Tensor], shapes: Mapping[str, Shape], *, expected: set[str]
) -> None:
    """Raise for other shapes and, if ``strict``, for arrays that are missing (but ``expected`` to be) or unknown."""
    differing = [key for key in shapes if key in own and shapes[key] != tuple(own[key].shape)]
    if differing:
        key = differing[0]
        raise Pseudo3dError(
            f"{name}: {key} has shape {shapes[key]}, the model needs {tuple(own[key].shape)}"
            f" ({len(differing)} arrays differ in shape)"
        )
    absent = [key for key in own if key not in shapes and key not in expected and "num_batches_tracked" not in key]
    unknown = [key for key in shapes if key not in own]
    parts = []
    if absent:
        parts.append(f"{len(absent)} arrays of the model are not there ({first_few(absent)})")
    if unknown:
        parts.append(f"{len(unknown)} arrays are not the model's ({first_few(unknown)})")
    if strict and parts:
        raise Pseudo3dError(f"{name}: {' and '.join(parts)}; is it a damaged file, or another network?")


def check_numbers(name: str, arrays: Arrays, keys: Sequence[str]) -> None:
    """Raise for arrays that are no finite floating-point numbers, and for negative variances."""
    for key in keys:
        if not key.endswith("num_batches_tracked"):
            _check_values(name, key, arrays[key])


def _check_values(name: str, key: str, value: Tensor) -> None:
    if not value.is_floating_point():
        raise Pseudo3dError(f"{name}: {key} holds {value.dtype}, not floating-point numbers; save the network again")
    low, high = value.aminmax()  # NaN if there is one; needs no memory, as isfinite does
    if not bool(torch.isfinite(low.float() + high.float())):
        raise Pseudo3dError(f"{name}: {key} has values that are not finite; was its training stopped in time?")
    if key.endswith("running_var") and bool(low < 0):
        raise Pseudo3dError(f"{name}: {key} has negative values, which no variance has; is it another array?")
