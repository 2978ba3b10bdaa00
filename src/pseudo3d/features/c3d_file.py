"""The feature files of the C3D authors' extraction tool: one activation of one clip (or of a few), and its shape.

    5 int32    num, channels, length, height, width      little-endian
    float32    num * channels * length * height * width  little-endian, in this order

Their tool names a file FIRST_FRAME.LAYER, for example 000016.fc6-1, in a folder for each video; fc6 of one clip is
1 x 4096 x 1 x 1 x 1.
"""

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from pseudo3d import files
from pseudo3d.errors import Pseudo3dError

_INT, _FLOAT = np.dtype("<i4"), np.dtype("<f4")
_HEADER = 5 * _INT.itemsize
_AXES = "num, channels, length, height, width"


def read_c3d_features(path: str | Path) -> Float32[np.ndarray, "num channels length height width"]:
    """The array in a feature file of the C3D authors' tool.

    Raises:
        Pseudo3dError: no such file, or one that is not such a file or not a whole one.

    Example:
        >>> import tempfile
        >>> fc6 = np.linspace(0, 1, 4096, dtype=np.float32)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_c3d_features(Path(folder) / "000000.fc6-1", fc6)
        ...     path.stat().st_size, read_c3d_features(path).shape
        (16404, (1, 4096, 1, 1, 1))
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise Pseudo3dError(f"{path}: no such file; give a feature file of the C3D tool") from None
    except IsADirectoryError:
        raise Pseudo3dError(f"{path}: is a folder; give one of the feature files in it") from None
    if len(data) < _HEADER:
        what = "is empty" if not data else f"has {len(data)} bytes, fewer than the {_HEADER} of its header"
        raise Pseudo3dError(f"{path}: {what}; copy or extract it again")
    shape = tuple(np.frombuffer(data, _INT, count=5).tolist())
    if min(shape) < 1:
        raise Pseudo3dError(f"{path}: its header ({_AXES}) says {shape}; it is no feature file of the C3D tool")
    expected = _HEADER + math.prod(shape) * _FLOAT.itemsize
    if len(data) != expected:
        raise Pseudo3dError(
            f"{path}: its header ({_AXES}) says {shape}, which takes {expected:,} bytes, and the file has "
            f"{len(data):,}; it is not whole, or no feature file of the C3D tool"
        )
    return np.frombuffer(data, _FLOAT, offset=_HEADER).reshape(shape).astype(np.float32)


def write_c3d_features(path: str | Path, array: np.ndarray) -> Path:
    """Write an array as the C3D authors' tool does, in one step (what stood at ``path`` is replaced or stays whole).

    Args:
        path: the file; its folder must exist.
        array: float32 (num, channels, length, height, width), or vectors: (num, D) or, of one clip, (D,), which are
            written as (num, D, 1, 1, 1).

    Returns:
        The path.

    Raises:
        Pseudo3dError: another number of axes or dtype, or an empty array.
        OSError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    if array.dtype != np.float32:
        raise Pseudo3dError(f"{path}: a C3D feature file holds float32, got {array.dtype}; convert with .astype")
    if array.ndim not in (1, 2, 5) or array.size == 0:
        raise Pseudo3dError(
            f"{path}: a C3D feature file holds ({_AXES}), or (num, D) or (D,), none of them 0; got {array.shape}"
        )
    if array.ndim < 5:
        array = array.reshape(-1, array.shape[-1], 1, 1, 1)
    if max(array.shape) > np.iinfo(_INT).max:
        raise Pseudo3dError(
            f"{path}: the shape {array.shape} does not fit into the 32-bit header of a C3D feature file"
        )
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        file.write(np.array(array.shape, _INT).tobytes())
        file.write(np.ascontiguousarray(array, _FLOAT).data)
    return path
