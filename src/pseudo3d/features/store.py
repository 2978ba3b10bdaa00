"""A folder of Parquet files: one row a video, one fixed-size column a layer, and what made them.

    STORE/
      store.json            what the features are: network, weights, preprocessing, clips, engine, versions
      part-00000.parquet    rows; written aside, flushed, renamed
      failures.jsonl        one line a video that could not be used, with its reason

Any Parquet reader (pandas, DuckDB, Polars) reads the parts without this package.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from pseudo3d import files
from pseudo3d.errors import Pseudo3dError

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("pseudo3d")

STORE_VERSION = 1
_INFO, _FAILURES = "store.json", "failures.jsonl"
_COLUMNS = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("split", pa.string()),
        pa.field("group", pa.string()),
        pa.field("num_frames", pa.int64(), nullable=False),
        pa.field("fps", pa.float64()),
        pa.field("starts", pa.list_(pa.int64()), nullable=False),
        pa.field("undecodable_packets", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """One row of a store.

    Args:
        video: POSIX path relative to the input root.
        layers: float32 (dim,) for each layer, averaged over the clips.
        starts: first frame of each clip.
        num_frames: of the whole video.
        fps: average rate, or None.
        undecodable_packets: 0 for a sound file.
        label: class name, or None.
        split: "train", "val", "test", or None.
        group: source of the video, or None.
    """

    video: str
    layers: Mapping[str, Float32[np.ndarray, "dim"]]
    starts: tuple[int, ...]
    num_frames: int
    fps: float | None = None
    undecodable_packets: int = 0
    label: str | None = None
    split: str | None = None
    group: str | None = None


class FeatureStore:
    """The features of many videos, read from a folder that ``p3d extract`` wrote.

    Args:
        folder: the store.

    Raises:
        Pseudo3dError: not a store, one of another version, or a damaged part.

    Example:
        >>> import tempfile
        >>> row = VideoFeatures("a/b.mp4", {"pool5": np.ones(4, np.float32)}, starts=(0, 9), num_frames=25)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with StoreWriter(folder, {"model": "p3d_resnet14"}) as writer:
        ...         writer.add(row)
        ...     store = FeatureStore(folder)
        >>> store.videos, store.features().shape, store.failures
        (['a/b.mp4'], (1, 4), {})
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.info = _read_info(self.folder)
        if self.info is None:
            raise Pseudo3dError(f"{self.folder}: not a feature store (no {_INFO}); make one with `p3d extract`")
        self.failures = _read_failures(self.folder)
        parts = [_read_part(path) for path in _parts(self.folder)]
        table = pa.concat_tables(parts) if parts else _COLUMNS.empty_table()
        self._table = table.sort_by("video")

    def __len__(self) -> int:
        return self._table.num_rows

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.folder)!r}: {len(self)} videos, layers {', '.join(self.layers) or 'none'})"

    @property
    def layers(self) -> list[str]:
        """Names of the layers that ``features`` takes."""
        return [name for name in self._table.column_names if name not in _COLUMNS.names]

    @property
    def videos(self) -> list[str]:
        """POSIX paths relative to the input root, sorted."""
        return self._table["video"].to_pylist()

    @property
    def labels(self) -> list[str | None]:
        """Class names in the order of ``videos``."""
        return self._table["label"].to_pylist()

    @property
    def splits(self) -> list[str | None]:
        """Each is "train", "val", "test" or None, in the order of ``videos``."""
        return self._table["split"].to_pylist()

    @property
    def groups(self) -> list[str | None]:
        """Sources in the order of ``videos``."""
        return self._table["group"].to_pylist()

    def features(self, layer: str = "pool5") -> Float32[np.ndarray, "videos dim"]:
        """One row a video, in the order of ``videos``: the layer averaged over the clips.

        Raises:
            Pseudo3dError: the store has no such layer.
        """
        if layer not in self.layers:
            raise Pseudo3dError(f"{self.folder}: no layer {layer!r}; this store has {', '.join(self.layers) or 'none'}")
        column = self._table[layer].combine_chunks()
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(self), column.type.list_size)

    def to_pandas(self) -> "pd.DataFrame":
        """Everything as a table (needs pandas)."""
        return self._table.to_pandas()


class StoreWriter:
    """Writes a store; what is added survives whatever ends the run, up to the last ``rows_per_part`` rows.

    An existing store goes on where it stopped, if it was made in the same way.

    Args:
        folder: made if missing.
        info: what decides the features; JSON types. A store made with other values is refused.
        rows_per_part: videos in one Parquet file.

    Raises:
        Pseudo3dError: the folder holds a store made in another way (the message says what differs), or other files.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: str | Path, info: dict[str, Any], *, rows_per_part: int = 256) -> None:
        self.folder = Path(folder)
        self.rows_per_part = rows_per_part
        self._rows: list[VideoFeatures] = []
        info = {"store_version": STORE_VERSION, **info}
        if self.folder.is_file():
            raise Pseudo3dError(f"{self.folder}: is a file; give a folder for --out")
        self.folder.mkdir(parents=True, exist_ok=True)
        before = _read_info(self.folder)
        if before is None:
            if any(self.folder.iterdir()):
                raise Pseudo3dError(f"{self.folder}: holds other files and no store; give a new folder for --out")
            files.write_text(self.folder / _INFO, json.dumps(info, indent=2) + "\n")
        else:
            _check_same(self.folder, before, json.loads(json.dumps(info)))
        self._dims: dict[str, int] = {}  # of each layer; the first row says it
        self.done: dict[str, tuple[str | None, str | None, str | None]] = {}  # label, split, group of each video
        for part in _parts(self.folder):
            rows = _read_part(part, ["video", "label", "split", "group"]).to_pylist()
            self.done |= {row["video"]: (row["label"], row["split"], row["group"]) for row in rows}
        self.failures = _read_failures(self.folder)

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def add(self, row: VideoFeatures) -> None:
        """Add one video.

        Raises:
            ValueError: a feature that is not finite float32, layers or sizes unlike the other rows', a video that is
                there already, or one whose name is not UTF-8.
        """
        if row.video in self.done:
            raise ValueError(f"{row.video} is in the store already")
        if any("\udc80" <= character <= "\udcff" for character in row.video):  # how Python writes a stray byte
            raise Pseudo3dError(f"{row.video!a}: the name is not UTF-8; rename the file")
        for layer, values in row.layers.items():
            if values.dtype != np.float32 or values.ndim != 1 or not np.isfinite(values).all():
                raise Pseudo3dError(
                    f"{row.video}: {layer} must be finite float32 (dim,), got {values.dtype} {values.shape}"
                )
        dims = {layer: len(values) for layer, values in row.layers.items()}
        if dims != (self._dims or dims):
            raise ValueError(f"{row.video}: the rows before have the layers {self._dims}, this one {dims}")
        self._dims = dims
        self.done[row.video] = (row.label, row.split, row.group)
        self._rows.append(row)
        if self.failures.pop(row.video, None) is not None:
            self._write_failures()
        if len(self._rows) >= self.rows_per_part:
            self.flush()

    def add_failure(self, video: str, reason: str) -> None:
        """Record why a video has no features."""
        self.failures[video] = reason
        self._write_failures()

    def flush(self) -> None:
        """Write what has been added since the last part."""
        if not self._rows:
            return
        parts = _parts(self.folder)
        number = int(parts[-1].stem.removeprefix("part-")) + 1 if parts else 0  # not their count: one may be gone
        with files.replacing(self.folder / f"part-{number:05d}.parquet") as temporary:
            pq.write_table(_to_table(self._rows), temporary)
        self._rows = []

    def _write_failures(self) -> None:
        lines = [json.dumps({"video": video, "reason": reason}) for video, reason in sorted(self.failures.items())]
        files.write_text(self.folder / _FAILURES, "".join(f"{line}\n" for line in lines))


def _to_table(rows: Iterable[VideoFeatures]) -> pa.Table:
    rows = list(rows)
    columns = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in _COLUMNS]
    fields = list(_COLUMNS)
    for layer in rows[0].layers:
        values = np.stack([row.layers[layer] for row in rows])
        array = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        columns.append(array)
        fields.append(pa.field(layer, array.type, nullable=False))
    return pa.table(columns, schema=pa.schema(fields))


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def _read_part(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except pa.ArrowInvalid as error:
        raise Pseudo3dError(
            f"{path}: not a whole Parquet file ({error}); remove it and run the same `p3d extract` again"
        ) from None


def _read_info(folder: Path) -> dict[str, Any] | None:
    path = folder / _INFO
    if not path.is_file():
        return None
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise Pseudo3dError(f"{path}: not valid JSON ({error}); is this a feature store?") from error
    version = info.get("store_version") if isinstance(info, dict) else None
    if version != STORE_VERSION:
        raise Pseudo3dError(
            f"{folder}: a store of version {version}, this pseudo3d reads version {STORE_VERSION}; "
            "upgrade pseudo3d or extract again"
        )
    return info


def _read_failures(folder: Path) -> dict[str, str]:
    path = folder / _FAILURES
    if not path.is_file():
        return {}
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {entry["video"]: entry["reason"] for entry in entries}


def _check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if differing:
        key = differing[0]
        raise Pseudo3dError(
            f"{folder}: this store was made with another {key} ({before.get(key)}, now {now.get(key)}); "
            f"give a new folder for --out"
        )
