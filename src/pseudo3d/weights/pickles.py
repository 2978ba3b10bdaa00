"""State dicts, out of PyTorch's files or given as they are; code in a file never runs."""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudo3d.errors import Pseudo3dError, printable
from pseudo3d.weights.arrays import Arrays, check_regular

_WRAPPERS = ("state_dict", "model")  # under which training scripts keep the state dict


class _NumpyValue:
    """Stands for a NumPy value of a pickle: beside a state dict nobody needs it, so that it is never made."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


# What pickles of NumPy's scalars and arrays call, under the names of NumPy 1 (core) and NumPy 2 (_core).
_NUMPY_NAMES = [
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
]


def read_pickle(path: Path) -> Arrays:
    """The state dict in a PyTorch file, or in the usual wrappers within one.

    Raises:
        Pseudo3dError: damaged, not PyTorch's, or it holds something else than plain arrays.
    """
    check_regular(path)
    try:
        with (
            path.open("rb") as file,
            warnings.catch_warnings(),
            torch.serialization.safe_globals([(_NumpyValue, name) for name in _NUMPY_NAMES]),
        ):
            warnings.simplefilter("ignore")  # of old protocols and old kinds of tensors: nothing that a user can mend
            # Only PyTorch's zip files can be mapped, and only by their name, of which PyTorch believes the suffix.
            mapped = file.read(4) == b"PK\x03\x04" and not path.name.endswith(".safetensors")
            file.seek(0)
            content = torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    # The unpickler is a machine whose program is the file: one wrong byte can end in any exception there is
    # (IndexError, struct.error, AssertionError, BadZipFile, RecursionError, ...), and none of them is a bug of ours.
    except Exception as error:
        raise Pseudo3dError(f"{path}: not a PyTorch file of plain weights: it {_reason(path, str(error))}") from error
    return state_arrays(content, str(path))


def _reason(path: Path, error: str) -> str:
    """What is wrong with a file that torch.load refuses. Its own text advises to run the code in the file."""
    if "TorchScript" in error:
        return "holds a TorchScript program; save model.state_dict()"
    named = re.search(r"nsupported (?:global: )?GLOBAL (\S+)", error)
    if named or re.search(r"unrecognized function|Can only (?:create|build)|nsupported class", error):
        what = f" ({printable(named[1])})" if named else ""
        return f"holds Python objects{what}; they are not unpickled because code could run; save model.state_dict()"
    with path.open("rb") as file:
        head = file.read(512)
    if head[257:262] == b"ustar":
        return "is a tar archive; unpack it and give the file in it"
    if head[:2] == b"PK" and "Unsupported operand" not in error:  # that is also what a newer pickle protocol has
        damaged = "is damaged; copy or download it again"
        try:
            with zipfile.ZipFile(path) as archive:
                ours = any(name.endswith("/data.pkl") for name in archive.namelist())
        except Exception:  # a damaged directory of an archive also ends in whatever it likes
            return damaged
        return damaged if ours else "is an archive of something else; unpack it and give the file in it"
    return (
        "is damaged or was not written by torch.save in its usual protocol; copy or download it again, "
        "or save model.state_dict() anew"
    )


def state_arrays(content: object, name: str) -> Arrays:
    """The arrays of a state dict, or of one in the usual wrappers, without nn.DataParallel's "module.".

    Args:
        content: what should be one.
        name: what to call it in messages.

    Raises:
        Pseudo3dError: it is none, it is empty, or a value is no plain tensor.

    Example:
        >>> state_arrays({"epoch": 3, "state_dict": {"module.fc.bias": torch.zeros(2)}}, "mine").shapes
        {'fc.bias': (2,)}
    """
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise Pseudo3dError(f"{name}: holds no state dict but {_kind(content)}; save model.state_dict()")
    if not content:
        raise Pseudo3dError(f"{name}: holds no arrays; save model.state_dict()")
    for key, value in content.items():
        fault = _fault(value)
        if fault:
            raise Pseudo3dError(f"{name}: holds no state dict of plain tensors: {printable(key)} is {fault}")
    return Arrays.of({str(key).removeprefix("module."): value for key, value in content.items()})


def _kind(value: object) -> str:
    return f"a value of type {printable(type(value).__name__)}"


def _fault(value: Any) -> str | None:
    """Why a value of a state dict cannot be copied into a network, and what to do; None when it can."""
    if isinstance(value, (np.ndarray, np.generic, _NumpyValue)):
        return "a NumPy array; make each a tensor with torch.from_numpy"
    if not isinstance(value, Tensor):
        return f"{_kind(value)}; save model.state_dict()"
    if value.is_quantized:
        return "quantised; save its dequantize()"
    if value.is_nested or value.layout != torch.strided:
        return "a sparse tensor; save its to_dense()"
    if value.is_meta:
        return "on the device meta, where it has no numbers; save the model after its weights were loaded"
    if value.is_complex():
        return "complex, and no network here has complex numbers"
    return None
