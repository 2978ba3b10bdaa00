"""Arrays larger than memory: written to a file row by row, then mapped.

Rows are written with ``write``, not into the mapping: a full disk is then an ``OSError``, not the end of the process.
"""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float32

from pseudo3d import files

Pieces = Iterable[tuple[Sequence[int], Float32[np.ndarray, "n dim"]]]
"""Row numbers, and the rows."""


def mapped_npy(path: str | Path, shape: tuple[int, int], pieces: Pieces) -> Float32[np.ndarray, "rows dim"]:
    """Write a .npy file and map it; changes to the array stay in memory.

    Raises:
        OSError: no space, or the folder cannot be written.
    """
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype("<f4")), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        _write_rows(file, shape, pieces)
    return np.load(path, mmap_mode="c")


def mapped_nameless(shape: tuple[int, int], pieces: Pieces) -> Float32[np.ndarray, "rows dim"]:
    """The same in a temporary file that goes away with the array.

    Raises:
        OSError: no space in the folder for temporary files.
    """
    with tempfile.TemporaryFile() as file:
        _write_rows(file, shape, pieces)
        file.flush()
        return np.memmap(file, np.dtype("<f4"), "c", shape=shape)


def _write_rows(file: IO[bytes], shape: tuple[int, int], pieces: Pieces) -> None:
    start = file.tell()
    for rows, values in pieces:
        for row, one in zip(rows, np.ascontiguousarray(values, "<f4"), strict=True):
            file.seek(start + 4 * shape[1] * row)
            file.write(one.data)
