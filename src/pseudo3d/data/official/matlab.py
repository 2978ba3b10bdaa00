"""Matrices of numbers out of a MATLAB file of version 5 (``save -v6`` and ``-v7``), read with bounds.

SciPy reads far more, and is used for older files; its reader of these ends the process at some damaged files.

    header, 128 bytes | element | element ...     element: type, size (4 bytes each), content, padding to 8 bytes
    a matrix: flags and class | shape | name | numbers, each an element; -v7 packs it into one with zlib
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

_HEADER = 128
_MATRIX, _PACKED = 14, 15
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC = range(6, 16)  # classes: double, single, int8 to uint64
_COMPLEX = 0x800
_MOST_BYTES = 1 << 28  # unpacked; the pairs of ASLAN take 240 kB


def is_version_5(data: bytes) -> bool:
    """Whether a file begins as one of version 5 does."""
    return len(data) > _HEADER and (data[124:128] in (b"\x00\x01IM", b"\x01\x00MI"))


def parse_matrices(data: bytes) -> dict[str, np.ndarray | None]:
    """The variables of a file by name; None for those that are no matrix of real numbers.

    Args:
        data: the content of a file of version 5.

    Raises:
        ValueError: it is cut off or damaged.

    Example:
        >>> import io
        >>> from scipy.io import savemat
        >>> file = io.BytesIO()
        >>> savemat(file, {"pairs": np.array([[1.0, 2.0]]), "name": "x"})
        >>> parse_matrices(file.getvalue())
        {'pairs': array([[1., 2.]]), 'name': None}
    """
    order = "<" if data[126:128] == b"IM" else ">"
    found: dict[str, np.ndarray | None] = {}
    for kind, content in _elements(data[_HEADER:], order):
        if kind == _PACKED:
            unpacker = zlib.decompressobj()
            try:
                plain = unpacker.decompress(content, _MOST_BYTES)
            except zlib.error as error:
                raise ValueError("a packed variable is damaged") from error
            if not unpacker.eof:
                raise ValueError("a packed variable is cut off, or far too large")
            ((kind, content),) = list(_elements(plain, order))[:1] or [(0, b"")]
        if kind != _MATRIX:
            raise ValueError(f"an element of kind {kind} where a variable is due")
        name, matrix = _matrix(content, order)
        found[name] = matrix
    return found


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Kind and content of one element after the other."""
    place = 0
    while place < len(data):
        if place + 8 > len(data):
            raise ValueError("cut off")
        kind, size = struct.unpack_from(f"{order}II", data, place)
        start, padded = place + 8, kind != _PACKED
        if kind >> 16:  # a small element: its size, kind and content in 8 bytes
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
            if size > 4:
                raise ValueError("a small element of more than 4 bytes")
        if start + size > len(data):
            raise ValueError("cut off")
        yield kind, data[start : start + size]
        place = start + size
        place += -place % 8 if padded else 0


def _matrix(content: bytes, order: str) -> tuple[str, np.ndarray | None]:
    parts = []
    elements = _elements(content, order)
    for _ in range(3):
        parts.append(next(elements, (0, b"")))
    (_, flags), (_, sizes), (_, name) = parts
    if len(flags) != 8 or len(sizes) < 8 or len(sizes) % 4:
        raise ValueError("a variable without flags or shape")
    (told,) = struct.unpack_from(f"{order}I", flags)
    shape = tuple(np.frombuffer(sizes, f"{order}i4").tolist())
    text = name.decode("latin-1")
    if told & 0xFF not in _NUMERIC or told & _COMPLEX:
        return text, None
    kind, numbers = next(elements, (0, b""))
    if kind not in _TYPES or min(shape) < 0:
        raise ValueError("a variable without numbers")
    values = np.frombuffer(numbers, np.dtype(order + _TYPES[kind]))
    count = 1
    for edge in shape:
        count *= edge
    if count != len(values):
        raise ValueError("a variable with another number of values than its shape says")
    return text, values.astype(values.dtype.newbyteorder("=")).reshape(shape, order="F")
