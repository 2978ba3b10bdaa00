"""One array in a file of Caffe: found, checked, read and written. ``caffemodel`` is what others use."""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from pseudo3d.errors import Pseudo3dError
from pseudo3d.weights import caffe_pb2
from pseudo3d.weights.caffe_wire import (
    AGAIN,
    FIXED32,
    FIXED64,
    LENGTH,
    VARINT,
    Field,
    MappedFile,
    length_prefix,
)

_pb: Any = caffe_pb2  # its classes are made at run time
_MAX_AXES = 32  # Caffe's limit
_MAX_VALUES = 2**31 - 1  # Caffe's limit for one array
_MAX_HEAD = 1 << 20  # bytes of names and sizes in one layer or array


class Blob(NamedTuple):
    """An array that is found and checked, but not read: runs are (offset, values, bytes from one to the next)."""

    shape: tuple[int, ...]
    dtype: str
    runs: list[tuple[int, int, int]]
    volume: bool  # in the dialect of C3D


@functools.cache
def _head_numbers(kind: Any) -> frozenset[int]:
    """The small fields of a message, which protobuf parses."""
    large = ("layer", "v1_layer", "blob", "data", "diff", "double_data")
    return frozenset(field.number for field in kind.DESCRIPTOR.fields if field.name not in large)


def parse_head(file: MappedFile, fields: list[Field], kind: Any, what: str) -> Any:
    """The small fields of a message as protobuf's object."""
    small = [field for field in fields if field.number in _head_numbers(kind)]
    size = sum(field.end - field.start for field in small)
    if size > _MAX_HEAD:
        raise file.error(f"{what} has {size:,} bytes of names and sizes, more than any network; {AGAIN}")
    try:
        return kind.FromString(b"".join(file.data[field.start : field.end] for field in small))
    except DecodeError as error:
        raise file.error(f"{what} is damaged ({' '.join(str(error).split())}); {AGAIN}") from error


def _runs(file: MappedFile, fields: list[Field], number: int, size: int, what: str) -> list[tuple[int, int, int]]:
    """Where the numbers of one field lie."""
    runs = []
    for field in fields:
        length = field.end - field.body
        if field.number == number and field.wire == LENGTH:  # packed, as Caffe writes; several pieces may follow
            if length % size:
                raise file.error(f"{what} has {length:,} bytes of {8 * size}-bit numbers; damaged: {AGAIN}")
            if length:
                runs.append((field.body, length // size, size))
        elif field.number == number and field.wire == (FIXED32 if size == 4 else FIXED64):  # each has its own tag
            runs.append((field.body, (length + 1) // (size + 1), size + 1))
    return runs


def _check_shape(file: MappedFile, shape: tuple[int, ...], count: int, what: str) -> None:
    if len(shape) > _MAX_AXES:
        raise file.error(f"{what} has more than {_MAX_AXES} dimensions; damaged: {AGAIN}")
    if min(shape, default=0) < 0:
        raise file.error(f"{what} has a negative size in its shape {shape}; damaged: {AGAIN}")
    if math.prod(size or 1 for size in shape) > _MAX_VALUES:
        raise file.error(f"{what} has shape {shape}, more than {_MAX_VALUES:,} values; damaged: {AGAIN}")
    needed = math.prod(shape)
    if needed and not count:
        raise file.error(
            f"{what} has shape {shape} but no float32 or float64 data; write the file again without half precision"
        )
    if needed != count:
        raise file.error(f"{what} has a count of {count:,}, but its shape {shape} takes {needed:,}; damaged: {AGAIN}")


def locate(file: MappedFile, start: int, end: int, what: str) -> Blob:
    """An array's shape and where its numbers are, checked against each other."""
    fields = file.message(start, end, what)
    # C3D's fork has the width, a number, where others have the data.
    volume = any(f.number == _pb.VolumeBlob.WIDTH_FIELD_NUMBER and f.wire == VARINT for f in fields)
    kind = _pb.VolumeBlob if volume else _pb.Blob
    head = parse_head(file, fields, kind, what)
    if volume:
        shape: tuple[int, ...] = (head.num, head.channels, head.length, head.height, head.width)
    elif head.HasField("shape"):
        shape = tuple(head.shape.dim[: _MAX_AXES + 1])
    elif any(head.HasField(name) for name in ("num", "channels", "height", "width")):
        shape = (head.num, head.channels, head.height, head.width)
    else:
        shape = ()  # as in Caffe: a single value
    dtype, runs = "<f4", _runs(file, fields, kind.DATA_FIELD_NUMBER, 4, what)
    if not volume and (doubles := _runs(file, fields, kind.DOUBLE_DATA_FIELD_NUMBER, 8, what)):
        dtype, runs = "<f8", doubles  # Caffe prefers them too
    _check_shape(file, shape, sum(count for _, count, _ in runs), what)
    return Blob(shape, dtype, runs, volume)


def read_values(file: MappedFile, blob: Blob) -> np.ndarray:
    """The numbers, copied out of the map once; doubles become float32 (infinite beyond its range)."""
    values = np.empty(sum(count for _, count, _ in blob.runs), np.float32)  # counted from bytes that are there
    at = 0
    with np.errstate(over="ignore", invalid="ignore"):
        for offset, count, stride in blob.runs:
            # A view of the map may not outlive this line, or the map could not be closed.
            values[at : at + count] = np.ndarray(count, blob.dtype, file.data, offset, (stride,))
            at += count
    return values.reshape(blob.shape)


def blob_parts(array: np.ndarray, what: str) -> list[bytes | memoryview]:
    """What is written for an array: its shape, and the bytes of its numbers where they lie, uncopied if contiguous."""
    array = np.asarray(array)
    if array.dtype != np.float32 or array.ndim > _MAX_AXES:
        raise Pseudo3dError(f"{what} is {array.dtype} with {array.ndim} dimensions; float32 with at most 32 is written")
    head = _pb.Blob(shape=_pb.Shape(dim=array.shape)).SerializeToString()
    data = np.ascontiguousarray(array, "<f4").reshape(-1).view(np.uint8).data
    return [head, length_prefix(_pb.Blob.DATA_FIELD_NUMBER, data.nbytes), data]
