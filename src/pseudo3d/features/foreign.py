"""Features from elsewhere in a store: ``columns/NAME.parquet``, with a row for each video.

Each is a file of its own, written in one step and never changed: the store's rows come and go without it.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from pseudo3d.errors import Pseudo3dError, first_few
from pseudo3d.features import shards
from pseudo3d.features.folders import Folder
from pseudo3d.features.rows import to_column

COLUMNS_FOLDER = "columns"
_SUFFIX = ".parquet"


def foreign_file(name: str) -> str:
    """Where features from elsewhere lie in the store."""
    return f"{COLUMNS_FOLDER}/{name}{_SUFFIX}"


def foreign_names(place: Folder) -> list[str]:
    """What was added to a store, sorted."""
    names = place.names(COLUMNS_FOLDER)
    return [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX) and not name.startswith(".")]


def foreign_dim(place: Folder, name: str) -> int:
    """Numbers a video."""
    with place.parquet(foreign_file(name)) as file:
        return int(file.schema_arrow.field(name).type.list_size)


def foreign_tables(place: Folder, name: str) -> Iterator[pa.Table]:
    """Columns ``video`` and ``name``, one row group at a time."""
    with place.parquet(foreign_file(name)) as file:
        for i in range(file.num_row_groups):
            yield file.read_row_group(i)


def write_foreign(place: Folder, name: str, videos: Sequence[str], values: Float32[np.ndarray, "videos dim"]) -> None:
    """Write what ``checked_foreign`` has checked, unless the name is taken.

    Raises:
        Pseudo3dError: the name is taken, or another process writes to the store.
        OSError: the store cannot be written.
    """
    table = pa.table([pa.array(videos, pa.string()), to_column(values)], names=["video", name])
    place.lock(wait=False)
    try:
        if name.casefold() in {taken.casefold() for taken in foreign_names(place)}:  # one file, on some systems
            raise Pseudo3dError(f"{place.location}: {name} is there already; choose another name")
        shards.write_part(place, foreign_file(name), [table])
    finally:
        place.unlock()


def checked_foreign(
    where: str, name: str, videos: Sequence[str], array: np.ndarray, *, known: Collection[str], taken: Collection[str]
) -> Float32[np.ndarray, "videos dim"]:
    """Features from elsewhere as float32, if they are of the videos of a store.

    Args:
        where: the store, for messages.
        name: of the features.
        videos: one for each row, in any order.
        array: the rows.
        known: the store's videos.
        taken: names that it may not have.

    Raises:
        Pseudo3dError: they are not.
    """
    if not re.fullmatch(r"\w[\w-]*", name):
        raise Pseudo3dError(f"{name!r} cannot name features; use letters, digits, '_' and '-'")
    if name in taken:
        raise Pseudo3dError(f"{where}: {name} is there already; choose another name")
    if array.ndim != 2 or array.dtype not in (np.float32, np.float64) or not np.isfinite(array).all():
        raise Pseudo3dError(f"{name}: must be finite float32 or float64 (videos, dim), got {array.dtype} {array.shape}")
    if len(videos) != len(array) or 0 in array.shape:
        raise Pseudo3dError(f"{name}: {len(videos)} videos and an array of {array.shape}; one row each is needed")
    told = []
    if unknown := set(videos) - set(known):
        told.append(f"{len(unknown)} are not in the store ({first_few(sorted(unknown))})")
    if missing := set(known) - set(videos):
        told.append(f"{len(missing)} of the store are missing ({first_few(sorted(missing))})")
    if told:
        raise Pseudo3dError(f"{where}: of the videos with {name}, {' and '.join(told)}; give each video's path once")
    if len(videos) != len(known):
        twice = [video for video, rows in Counter(videos).items() if rows > 1]
        raise Pseudo3dError(f"{where}: more than one row of {name} for {first_few(twice)}")
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    if not np.isfinite(values).all():
        raise Pseudo3dError(f"{name}: has values too large for float32; scale them")
    return values
