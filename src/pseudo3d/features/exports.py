"""A store as plain files, for programs that want those: .npy for each video, or one CSV."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
from jaxtyping import Float32

from pseudo3d import files
from pseudo3d.errors import Pseudo3dError
from pseudo3d.features.store import FeatureStore

Format = Literal["npy", "csv"]
MOST_COLUMNS = 20_000
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

    Args:
        store: the features.
        out: the folder, or the file.
        format: "npy" or "csv".
        layers: which features; None: all.
        per_clip: the features of the single clips, not their average.

    Returns:
        How many files, or rows, were written.

    Raises:
        Pseudo3dError: no such layer, too many columns for a CSV, a video outside of the root, or ``out`` is a file
            where a folder is needed, or a folder where a file is.
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
    return (_write_npy if format == "npy" else _write_csv)(store, out, names, per_clip)


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
