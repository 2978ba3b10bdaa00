"""A store as plain files, for programs that want those: .npy for each video, one CSV, or one .safetensors."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
from jaxtyping import Float32, Shaped

from pseudo3d import files
from pseudo3d.errors import Pseudo3dError
from pseudo3d.features.store import FeatureStore

Format = Literal["npy", "csv", "safetensors"]
MOST_COLUMNS = 20_000
MOST_HEADER_BYTES = 95_000_000
"""The format's readers refuse a header of more than 100 MB; the paths stand in it."""
_SAFETENSORS = {"i": "I64", "f": "F64"}  # kinds of arrays beside the features
_AT_ONCE = 256  # rows of a CSV
_DESCRIBED = ("video", "label", "split", "group", "num_frames", "fps")


def export_store(
    store: FeatureStore,
    out: str | Path,
    format: Format,
    *,
    layers: Sequence[str] | None = None,
    per_clip: bool = False,
) -> int:
    """Write a store's features as plain files; what is there of the same name is replaced.

    npy: ``out`` is a folder with the tree of the videos, ``a/b.mp4`` as ``a/b.npy``; with several layers
    ``a/b_pool5.npy``. Videos that would share a name keep their suffix: ``a/b.mp4.npy`` and ``a/b.avi.npy``. An array
    has the layer's shape, and a first axis for the clips with ``per_clip``.

    csv: ``out`` is a file with a header and a row a video, sorted: video, label, split, group, num_frames, fps, then
    pool5_0, pool5_1, ... With ``per_clip`` it has a row a clip, those of a video together, with its start (a frame) and
    time (seconds).

    safetensors: ``out`` is a file with one tensor a layer, float32 (videos, *shape). Its metadata have ``videos``, the
    paths in the order of the rows, and ``labels`` and ``splits``, each a JSON list. With ``per_clip`` a layer is
    (clips of all videos, *shape), those of video i in the rows ``offsets[i]:offsets[i + 1]``, with ``starts`` (frames)
    and ``times`` (seconds, NaN where not known). A few MiB are in memory at a time.

    Args:
        store: the features.
        out: the folder, or the file.
        format: "npy", "csv" or "safetensors".
        layers: which features; None: all.
        per_clip: the features of the single clips, not their average.

    Returns:
        How many files, rows or tensors were written.

    Raises:
        Pseudo3dError: no such layer, too many columns for a CSV or paths for a .safetensors, a video outside of the
            root, or ``out`` is a file where a folder is needed, or a folder where a file is.
        OSError: ``out`` cannot be written.

    Example:
        >>> import tempfile
        >>> from pseudo3d.features.store import StoreWriter, VideoFeatures
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with StoreWriter(f"{folder}/s", {}) as writer:
        ...         writer.add(VideoFeatures("a/b.mp4", {"pool5": np.ones(2, np.float32)}, (0,), 16, label="x"))
        ...     store = FeatureStore(f"{folder}/s")
        ...     export_store(store, f"{folder}/npy", "npy"), np.load(f"{folder}/npy/a/b.npy")
        ...     export_store(store, f"{folder}/s.csv", "csv"), Path(f"{folder}/s.csv").read_text().splitlines()[1]
        (1, array([1., 1.], dtype=float32))
        (1, '"a/b.mp4","x",,,16,,1,1')
    """
    out = Path(out)
    names = (store.clip_layers if per_clip else store.layers) if layers is None else list(layers)
    for name in names:
        (store.check_clip_layer if per_clip else store.check_layer)(name)
    if not names:
        raise Pseudo3dError(f"{store.location}: nothing to export; this store has no features of that kind")
    write = {"npy": _write_npy, "csv": _write_csv, "safetensors": _write_safetensors}[format]
    return write(store, out, names, per_clip)


def file_names(videos: Sequence[str], layers: Sequence[str]) -> dict[tuple[str, str], str]:
    """The .npy file of each video and layer, relative to the folder; no two are the same.

    Raises:
        Pseudo3dError: a video that does not lie below the root, or two files that no rule keeps apart.

    Example:
        >>> list(file_names(["a.avi", "a.mp4", "b.mp4"], ["pool5"]).values())
        ['a.avi.npy', 'a.mp4.npy', 'b.npy']
        >>> list(file_names(["b.mp4"], ["pool5", "prob"]).values())
        ['b_pool5.npy', 'b_prob.npy']
    """
    for video in videos:
        if PurePosixPath(video).is_absolute() or ".." in PurePosixPath(video).parts:
            raise Pseudo3dError(f"{video}: does not lie below the root of the videos; export as csv")
    ends = {layer: f"_{layer}.npy" if len(layers) > 1 else ".npy" for layer in layers}
    stems = {video: str(PurePosixPath(video).with_suffix("")) for video in videos}
    keys = [(video, layer) for video in videos for layer in layers]
    counts = Counter(stems[video] + ends[layer] for video, layer in keys)
    shared = {video for video, layer in keys if counts[stems[video] + ends[layer]] > 1}
    names = {(video, layer): (video if video in shared else stems[video]) + ends[layer] for video, layer in keys}
    if len(set(names.values())) < len(names):
        twice = Counter(names.values()).most_common(1)[0][0]
        raise Pseudo3dError(f"{twice}: would be the file of two videos; export one layer at a time, or as csv")
    return names


def _write_npy(store: FeatureStore, out: Path, layers: Sequence[str], per_clip: bool) -> int:
    names = file_names(store.videos, layers)
    if out.is_file():
        raise Pseudo3dError(f"{out}: is a file; .npy files need a folder")
    for folder in {(out / name).parent for name in names.values()}:
        folder.mkdir(parents=True, exist_ok=True)
    for layer in layers:
        shape = store.shape(layer)
        for video, values in _each(store, layer, per_clip):
            with files.replacing(out / names[video, layer], flush=False) as temporary, temporary.open("wb") as file:
                np.save(file, values.reshape((len(values), *shape) if per_clip else shape))
    return len(names)


def _each(store: FeatureStore, layer: str, per_clip: bool) -> Iterator[tuple[str, Float32[np.ndarray, "..."]]]:
    if per_clip:
        yield from ((video, values) for video, _, values in store.clips(layer))
    else:
        for videos, values in store.batches(layer):
            yield from zip(videos, values, strict=True)


def _write_csv(store: FeatureStore, out: Path, layers: Sequence[str], per_clip: bool) -> int:
    columns = sum(int(np.prod(store.shape(layer))) for layer in layers)
    if columns > MOST_COLUMNS:
        raise Pseudo3dError(f"{', '.join(layers)}: {columns} columns are too many for a csv; export as npy")
    if out.is_dir():
        raise Pseudo3dError(f"{out}: is a folder; a csv needs the name of a file")
    rows = 0
    with files.replacing(out) as temporary, temporary.open("wb") as file:
        writer = None
        for table in (_clip_tables if per_clip else _video_tables)(store, layers):
            writer = writer or pyarrow.csv.CSVWriter(file, table.schema)
            writer.write(table)
            rows += len(table)
        if writer is not None:
            writer.close()
    return rows


def _write_safetensors(store: FeatureStore, out: Path, layers: Sequence[str], per_clip: bool) -> int:
    """The format's own package writes whole arrays; here rows come a few at a time and go where they belong."""
    if out.is_dir():
        raise Pseudo3dError(f"{out}: is a folder; a .safetensors needs the name of a file")
    index = _ClipIndex(store, layers[0]) if per_clip else None
    small = {} if index is None else {"offsets": index.offsets, "starts": index.starts, "times": index.times}
    count = len(store) if index is None else len(index.starts)
    shapes = {layer: (count, *store.shape(layer)) for layer in layers}
    head = _safetensors_head(store, small, shapes)
    with files.replacing(out) as temporary, temporary.open("wb") as file:
        file.write(head)
        begin = len(head) + sum(array.nbytes for array in small.values())
        for layer, shape in shapes.items():
            size = 4 * math.prod(shape[1:])
            for rows, values in _numbered(store, layer) if index is None else index.numbered(store, layer):
                for row, one in zip(rows, np.ascontiguousarray(values, "<f4"), strict=True):
                    file.seek(begin + size * row)
                    file.write(one.data)
            begin += size * count
        file.seek(len(head))
        for array in small.values():  # last: reading the clips has filled them
            file.write(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return len(small) + len(shapes)


def _safetensors_head(
    store: FeatureStore, small: dict[str, Shaped[np.ndarray, "..."]], shapes: dict[str, tuple[int, ...]]
) -> bytes:
    """What stands before the numbers: names, shapes and places of the tensors, and what the rows are of."""
    lists = {"videos": store.videos, "labels": store.labels, "splits": store.splits}
    told: dict[str, Any] = {
        "__metadata__": {name: json.dumps(values, ensure_ascii=False) for name, values in lists.items()}
    }
    end = 0
    kinds = {name: (_SAFETENSORS[array.dtype.kind], array.shape, array.nbytes) for name, array in small.items()}
    kinds |= {name: ("F32", shape, 4 * math.prod(shape)) for name, shape in shapes.items()}
    for name, (kind, shape, size) in kinds.items():
        begin, end = end, end + size
        told[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(told, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8
    if len(text) > MOST_HEADER_BYTES:
        raise Pseudo3dError(f"{store.location}: too many paths for the header of a .safetensors; export as npy")
    return len(text).to_bytes(8, "little") + text


def _numbered(store: FeatureStore, layer: str) -> Iterator[tuple[Sequence[int], Float32[np.ndarray, "n dim"]]]:
    row_of = {video: i for i, video in enumerate(store.videos)}
    for videos, values in store.batches(layer):
        yield [row_of[video] for video in videos], values


class _ClipIndex:
    """Where the clips of each video lie when those of all videos stand one after the other.

    Attributes:
        offsets: (videos + 1,) int64; the rows of video i are ``offsets[i]:offsets[i + 1]``.
        starts: (clips,) int64, filled while ``numbered`` is read.
        times: (clips,) float64, likewise.
    """

    def __init__(self, store: FeatureStore, layer: str) -> None:
        counts = {video: len(timeline.starts) for video, timeline, _ in store.clips(layer)}
        self.offsets = np.cumsum([0, *(counts[video] for video in store.videos)], dtype=np.int64)
        self.starts = np.zeros(self.offsets[-1], np.int64)
        self.times = np.full(self.offsets[-1], np.nan)

    def numbered(self, store: FeatureStore, layer: str) -> Iterator[tuple[Sequence[int], Float32[np.ndarray, "n dim"]]]:
        """Row numbers and rows of the clips of one video after the other."""
        number = {video: i for i, video in enumerate(store.videos)}
        for video, timeline, values in store.clips(layer):
            begin, end = self.offsets[number[video] : number[video] + 2].tolist()
            if len(values) != end - begin:
                raise Pseudo3dError(f"{store.location}: changed while it was read; run the same command again")
            self.starts[begin:end] = timeline.starts
            self.times[begin:end] = timeline.times if len(timeline.times) else np.nan
            yield range(begin, end), values


def _video_tables(store: FeatureStore, layers: Sequence[str]) -> Iterator[pa.Table]:
    features = {layer: store.features(layer) for layer in layers}
    for i in range(0, len(store), _AT_ONCE):
        table = store.table.select(_DESCRIBED).slice(i, _AT_ONCE)
        yield _with_columns(table, {layer: values[i : i + _AT_ONCE] for layer, values in features.items()})


def _clip_tables(store: FeatureStore, layers: Sequence[str]) -> Iterator[pa.Table]:
    rows = {video: i for i, video in enumerate(store.videos)}
    for group in zip(*(store.clips(layer) for layer in layers), strict=True):
        video, timeline, _ = group[0]
        if any(other != video for other, _, _ in group):
            raise Pseudo3dError(f"{store.location}: changed while it was read; run the same command again")
        table = store.table.select(_DESCRIBED).take([rows[video]] * len(timeline.starts))
        times = timeline.times if len(timeline.times) else [None] * len(timeline.starts)
        table = table.append_column("start", pa.array(timeline.starts, pa.int64()))
        table = table.append_column("time", pa.array(times, pa.float64()))
        yield _with_columns(table, dict(zip(layers, (values for _, _, values in group), strict=True)))


def _with_columns(table: pa.Table, features: dict[str, Float32[np.ndarray, "n dim"]]) -> pa.Table:
    """A table with a column for each number."""
    columns, names = list(table.columns), list(table.column_names)
    for layer, values in features.items():
        columns += [pa.array(column) for column in np.ascontiguousarray(values.T)]
        names += [f"{layer}_{i}" for i in range(values.shape[1])]
    return pa.table(columns, names=names)
