"""One row a video: what it holds, what is checked, and its columns on disk.

Columns of the layers come after those of ``COLUMNS``: ``pool5`` is fixed_size_list<float>[2048], the average over the
clips; with the clips' own features there is ``pool5_clips`` too, a list of such lists, in the order of ``starts``. A
layer with a shape is stored flat; its shape stands in the field's metadata.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64, Int64

from pseudo3d.errors import Pseudo3dError

COLUMNS = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        pa.field("size", pa.int64()),
        pa.field("modified", pa.int64()),
        pa.field("sha256", pa.string()),
        pa.field("label", pa.string()),
        pa.field("split", pa.string()),
        pa.field("group", pa.string()),
        pa.field("num_frames", pa.int64(), nullable=False),
        pa.field("fps", pa.float64()),
        pa.field("duration", pa.float64()),
        pa.field("starts", pa.list_(pa.int64()), nullable=False),
        pa.field("times", pa.list_(pa.float64()), nullable=False),
        pa.field("undecodable_packets", pa.int64(), nullable=False),
        pa.field("concealed_frames", pa.int64(), nullable=False),
        pa.field("damaged", pa.bool_(), nullable=False),
        pa.field("seeks", pa.int64(), nullable=False),
    ]
)
LISTS = ("starts", "times")
"""Columns that are long in a dense store: read when they are asked for."""
_OF_SOURCE = ("size", "modified", "sha256")
_CLIPS = "_clips"
MAX_CELL_BYTES = 1 << 30
"""Of one layer of one video: Parquet's pages are smaller than 2 GiB."""


class SourceFile(NamedTuple):
    """Which file a row, or a failure, was made of; None where it is not known.

    Args:
        size: bytes.
        modified: time of the last change, nanoseconds since 1970 (``st_mtime_ns``).
        sha256: of the whole content, hexadecimal (``pseudo3d.files.sha256_of``).
    """

    size: int | None = None
    modified: int | None = None
    sha256: str | None = None


UNKNOWN_FILE = SourceFile()


class Timeline(NamedTuple):
    """Where the clips of a video lie.

    Args:
        starts: (clips,) int64, the first frame of each.
        times: (clips,) float64, its time in seconds; empty if that was not recorded.
    """

    starts: Int64[np.ndarray, "clips"]
    times: Float64[np.ndarray, "clips"]


class Described(NamedTuple):
    """What the user's data say of a video: each None where they do not.

    Args:
        label: class name.
        split: "train", "val" or "test".
        group: its source.
    """

    label: str | None = None
    split: str | None = None
    group: str | None = None

    def changed(self, now: "Described") -> "Described":
        """What is said now, and where nothing is, what was said before."""
        return Described(*(old if new is None else new for old, new in zip(self, now, strict=True)))


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """One row of a store.

    Args:
        video: POSIX path relative to the input root.
        layers: float32 of any shape for each layer, (dim,) or (C, T, H, W), averaged over the clips.
        starts: first frame of each clip.
        num_frames: of the whole video.
        fps: average rate, or None.
        undecodable_packets: 0 for a sound file.
        label: class name, or None.
        split: "train", "val", "test", or None.
        group: source of the video, or None.
        source: the file that this was made of.
        duration: seconds, or None.
        times: seconds of each clip's first frame; as many as ``starts``, or none.
        concealed_frames: frames that the decoder made up in part; 0 for a sound file.
        seeks: how often the decoder jumped; 0: read from start to end.
        clips: float32 (clips, *shape) by layer, the clips' own features in the order of ``starts``; beside the average.

    Example:
        >>> VideoFeatures("a.mp4", {"pool5": np.ones(4, np.float32)}, (0, 9), 25, concealed_frames=2).damaged
        True
    """

    video: str
    layers: Mapping[str, Float32[np.ndarray, "..."]]
    starts: tuple[int, ...]
    num_frames: int
    fps: float | None = None
    undecodable_packets: int = 0
    label: str | None = None
    split: str | None = None
    group: str | None = None
    source: SourceFile = UNKNOWN_FILE
    duration: float | None = None
    times: tuple[float, ...] = ()
    concealed_frames: int = 0
    seeks: int = 0
    clips: Mapping[str, Float32[np.ndarray, "clips ..."]] | None = None

    @property
    def damaged(self) -> bool:
        """Whether a part of the file could not be decoded as it was meant."""
        return self.undecodable_packets > 0 or self.concealed_frames > 0

    @property
    def nbytes(self) -> int:
        """Of the features, in memory."""
        return sum(values.nbytes for part in (self.layers, self.clips or {}) for values in part.values())


class Layout(NamedTuple):
    """What the rows of a store have in common.

    Args:
        shapes: of each layer.
        clips: layers that are there for each clip too.
    """

    shapes: dict[str, tuple[int, ...]]
    clips: tuple[str, ...]

    def __str__(self) -> str:
        own = f" and, of each clip, {', '.join(self.clips)}" if self.clips else ""
        return f"{', '.join(f'{layer} {shape}' for layer, shape in self.shapes.items())}{own}"


def layout_of(row: VideoFeatures) -> Layout:
    """The layers of a row.

    Raises:
        ValueError: a feature that is not finite float32, or of another size than the clips or the other features ask.
        Pseudo3dError: a name that is not UTF-8.
    """
    if any("\udc80" <= character <= "\udcff" for character in row.video):  # how Python writes a stray byte
        raise Pseudo3dError(f"{row.video!a}: the name is not UTF-8; rename the file")
    clips = row.clips or {}
    if len(row.times) not in (0, len(row.starts)):
        raise ValueError(f"{row.video}: {len(row.starts)} clips and {len(row.times)} times")
    for layer, values in (*row.layers.items(), *((f"{name}{_CLIPS}", values) for name, values in clips.items())):
        if values.dtype != np.float32 or values.ndim < 1 or not np.isfinite(values).all():
            raise ValueError(f"{row.video}: {layer} must be finite float32 (dim,), got {values.dtype} {values.shape}")
        if values.nbytes > MAX_CELL_BYTES:
            raise Pseudo3dError(
                f"{row.video}: {layer} has {values.nbytes / 2**30:.1f} GiB, a store holds up to "
                f"{MAX_CELL_BYTES >> 30} of one layer of one video; use smaller layers or fewer clips"
            )
    for layer, values in clips.items():
        if layer not in row.layers or values.shape != (len(row.starts), *row.layers[layer].shape):
            raise ValueError(f"{row.video}: {layer} of the clips has the shape {values.shape}, not that of its layer")
    return Layout({layer: values.shape for layer, values in row.layers.items()}, tuple(clips))


def to_table(rows: Sequence[VideoFeatures]) -> pa.Table:
    """Rows of one layout as a table."""
    layout = layout_of(rows[0])
    columns = [pa.array([_value(row, field.name) for row in rows], field.type) for field in COLUMNS]
    fields = list(COLUMNS)
    for layer, shape in layout.shapes.items():
        columns.append(to_column(np.stack([row.layers[layer].reshape(-1) for row in rows])))
        fields.append(pa.field(layer, columns[-1].type, nullable=False, metadata={"shape": json.dumps(shape)}))
    for layer in layout.clips:
        own = [row.clips[layer].reshape(len(row.starts), row.layers[layer].size) for row in rows if row.clips]
        offsets = pa.array(np.cumsum([0, *map(len, own)]), pa.int32())
        values = to_column(np.concatenate(own))
        kind = pa.list_(pa.field("element", values.type, nullable=False))
        columns.append(pa.ListArray.from_arrays(offsets, values, type=kind))
        fields.append(pa.field(f"{layer}{_CLIPS}", kind, nullable=False))
    return pa.table(columns, schema=pa.schema(fields))


def _value(row: VideoFeatures, name: str) -> object:
    return getattr(row.source if name in _OF_SOURCE else row, name)


def to_column(values: Float32[np.ndarray, "n dim"]) -> pa.FixedSizeListArray:
    """An array as a column of fixed-size lists."""
    kind = pa.list_(pa.field("element", pa.float32(), nullable=False), values.shape[1])
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=kind)


def layout_of_schema(schema: pa.Schema) -> Layout:
    """The layers of the rows in a file."""
    shapes, clips = {}, []
    for field in schema:
        if pa.types.is_fixed_size_list(field.type):
            told = (field.metadata or {}).get(b"shape")
            shapes[field.name] = tuple(json.loads(told)) if told else (field.type.list_size,)
        elif field.name not in COLUMNS.names:
            clips.append(field.name.removesuffix(_CLIPS))
    return Layout(shapes, tuple(clips))


def clips_column(layer: str) -> str:
    """The column of the clips' own features of a layer."""
    return f"{layer}{_CLIPS}"


def to_numpy(column: pa.ChunkedArray | pa.Array) -> Float32[np.ndarray, "n dim"]:
    """A column of fixed-size lists as an array."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)


def timeline_of(row: pa.Table) -> Timeline:
    """The lists of a table of one row."""
    return Timeline(*(row[name].combine_chunks().flatten().to_numpy() for name in LISTS))
