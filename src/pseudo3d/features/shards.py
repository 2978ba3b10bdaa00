"""The Parquet files of a store, and ``store.json``, which says what they are of and which of them count.

A file counts when ``store.json`` names it, and ``store.json`` is replaced in one step. So a change of any size (rows
added, rows replaced, many small files made one) is: write new files, replace ``store.json``, delete the files that it
no longer names. Whatever is cut off in between leaves the store as it was before or as it is after, and files that
nobody names, which the next writer removes.
"""

import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pseudo3d.errors import Pseudo3dError, printable
from pseudo3d.features.folders import Folder
from pseudo3d.features.rows import COLUMNS, Described

STORE_VERSION = 2
STORE = "store.json"
_VERSION, _MANIFEST = "store_version", "manifest"
RESERVED = (_VERSION, _MANIFEST)

GROUP_BYTES = 16 << 20
"""What is read and written at once (a Parquet row group): it bounds the memory of both sides."""
PART_ROWS = 1024
"""A part with so many rows is large, too."""
PART_BYTES = 64 << 20
"""A file of so much is large: it is not made one with others. No more waits in memory to be written."""
_OPTIONS: dict[str, Any] = {
    "compression": "none",  # features are noise to a compressor, and uncompressed pages are read where they lie
    "use_dictionary": ["label", "split", "group"],
    "write_statistics": ["video"],
    "write_page_checksum": True,
}


@dataclass(frozen=True)
class Part:
    """A Parquet file that counts.

    Args:
        file: its name.
        rows: how many it has.
        bytes: of its values, about.
    """

    file: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What ``store.json`` says.

    Args:
        info: what decides the features, as the writer was given it.
        parts: the files that count, oldest first.
        next_part: number of the next one; numbers are not used twice.
    """

    info: dict[str, Any]
    parts: tuple[Part, ...] = ()
    next_part: int = 0

    def to_bytes(self) -> bytes:
        """The content of ``store.json``."""
        told = {"next_part": self.next_part, "parts": [asdict(part) for part in self.parts]}
        return (json.dumps({_VERSION: STORE_VERSION, **self.info, _MANIFEST: told}, indent=2) + "\n").encode()


def read_manifest(folder: Folder, below: str = "") -> tuple[Manifest, bytes] | None:
    """What ``store.json`` says, and its content; None when there is none.

    Args:
        folder: the store.
        below: a folder in it, with a slash at the end: that of a shard.

    Raises:
        Pseudo3dError: not what a writer writes, or of another version.
    """
    try:
        raw = folder.read(f"{below}{STORE}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    where = f"{folder.location}/{below}{STORE}"
    try:
        told = json.loads(raw)
    except ValueError as error:  # JSON or UTF-8
        raise Pseudo3dError(f"{where}: not valid JSON ({error}); is this a feature store?") from None
    version = told.get(_VERSION) if isinstance(told, dict) else None
    if version != STORE_VERSION:
        raise Pseudo3dError(
            f"{folder.location}: a store of version {printable(version)}, this pseudo3d reads version {STORE_VERSION}; "
            f"{'upgrade pseudo3d' if isinstance(version, int) and version > STORE_VERSION else 'extract again'}"
        )
    info = {key: value for key, value in told.items() if key not in RESERVED}
    try:
        parts = tuple(
            Part(str(part["file"]), int(part["rows"]), int(part["bytes"])) for part in told[_MANIFEST]["parts"]
        )
        return Manifest(info, parts, int(told[_MANIFEST]["next_part"])), raw
    except (KeyError, TypeError, ValueError) as error:
        raise Pseudo3dError(f"{where}: its list of parts cannot be read ({error!r}); restore the file") from None


def part_name(number: int, token: str) -> str:
    """``part-00012.parquet``; with the writer's token where two writers may be at work."""
    return f"part-{number:05d}{token}.parquet"


def is_part_name(name: str) -> bool:
    """Whether a file is, or was to become, one of ours."""
    return name.startswith("part-") and name.endswith(".parquet")


def write_part(folder: Folder, name: str, tables: Iterable[pa.Table]) -> Part | None:
    """Write tables of one schema into a new file, in groups of about ``GROUP_BYTES``; None when they have no rows."""
    groups = _grouped(tables)
    first = next(groups, None)
    if first is None:
        return None
    rows = size = 0
    with folder.writing(name) as sink, pq.ParquetWriter(sink, first.schema, **_OPTIONS) as writer:
        while first is not None:
            writer.write_table(first, row_group_size=len(first))
            rows, size = rows + len(first), size + first.nbytes
            first = next(groups, None)
    return Part(name, rows, size)


def _grouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    size = 0
    for table in tables:
        rows = max(1, GROUP_BYTES * len(table) // max(1, table.nbytes))
        for i in range(0, len(table), rows):
            piece = table.slice(i, rows)
            if waiting and size + piece.nbytes > GROUP_BYTES:
                yield pa.concat_tables(waiting)
                waiting, size = [], 0
            waiting.append(piece)
            size += piece.nbytes
    if waiting:
        yield pa.concat_tables(waiting)


@contextlib.contextmanager
def open_part(folder: Folder, part: Part) -> Iterator[pq.ParquetFile]:
    """A part to read from.

    Raises:
        FileNotFoundError: it is gone.
        Pseudo3dError: it is not whole, or not what ``store.json`` says, also when that shows while it is read.
    """
    try:
        with folder.parquet(part.file) as file:
            if file.metadata.num_rows != part.rows:
                raise pa.ArrowInvalid(f"{file.metadata.num_rows} rows, {part.rows} were written")
            if missing := set(COLUMNS.names) - set(file.schema_arrow.names):
                raise pa.ArrowInvalid(f"no column {min(missing)}")
            yield file
    except (
        pa.ArrowException,
        OSError,
        UnicodeDecodeError,
        json.JSONDecodeError,
    ) as error:  # a footer may be damaged in all ways
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Pseudo3dError(
            f"{folder.location}/{part.file}: not a whole Parquet file ({printable(error)}); "
            "remove it and run the same `p3d extract` again"
        ) from None


def missing(folder: Folder, parts: Iterable[Part]) -> list[Part]:
    """The parts whose files are gone."""
    parts = list(parts)
    there = set()
    for below in {part.file.rpartition("/")[0] for part in parts}:
        there |= {f"{below}/{name}" if below else name for name in folder.names(below)}
    return [part for part in parts if part.file not in there]


def read_small(folder: Folder, part: Part, columns: Collection[str]) -> tuple[pa.Table, pa.Schema]:
    """Some columns of a part, and the schema of all."""
    with open_part(folder, part) as file:
        return file.read(columns=list(columns)), file.schema_arrow


def read_groups(folder: Folder, part: Part, columns: Collection[str] | None = None) -> Iterator[pa.Table]:
    """A part, one row group at a time."""
    with open_part(folder, part) as file:
        for i in range(file.num_row_groups):
            yield file.read_row_group(i, columns=None if columns is None else list(columns))


def without(tables: Iterable[pa.Table], videos: Collection[str]) -> Iterator[pa.Table]:
    """Tables without the rows of some videos."""
    gone = pa.array(sorted(videos), pa.string())
    for table in tables:
        yield table.filter(pc.invert(pc.is_in(table["video"], value_set=gone))) if videos else table


def described(tables: Iterable[pa.Table], anew: Mapping[str, Described]) -> Iterator[pa.Table]:
    """Tables in which other things are said of some videos."""
    for table in tables:
        rows = table.select(["video", *Described._fields]).to_pylist()
        told = [anew.get(row["video"]) or Described(*(row[name] for name in Described._fields)) for row in rows]
        for i, name in enumerate(Described._fields):
            column = pa.array([each[i] for each in told], pa.string())
            table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
        yield table


def check_same(where: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Compare what a store was made with to what is asked for now.

    Raises:
        Pseudo3dError: they differ; the first key that does is named, ``preprocessing.crop`` inside another.
    """
    different = first_difference(before, now)
    if different is not None:
        key, *values = different
        old, new = (printable("none" if value is None else value) for value in values)
        raise Pseudo3dError(
            f"{where}: this store was made with another {key} ({old}, now {new}); give a new folder for --out"
        )


def first_difference(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """The first key, by name, whose values differ, with dots for keys inside others, and both values.

    Example:
        >>> first_difference({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}})
        ('b.c', 2, 3)
    """
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if not differing:
        return None
    key, old, new = differing[0], before.get(differing[0]), now.get(differing[0])
    if isinstance(old, dict) and isinstance(new, dict):
        inner = first_difference(old, new)
        if inner is not None:
            return f"{key}.{inner[0]}", *inner[1:]
    return key, old, new
