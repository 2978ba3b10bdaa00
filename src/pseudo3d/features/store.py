"""A folder of Parquet files: one row a video, one fixed-size column a layer, and what made them.

    STORE/
      store.json            what the features are (network, weights, preprocessing, clips, engine, versions), and which
                            of the parts count
      part-00000.parquet    rows: rows.py lists the columns
      failures.jsonl        one line a video that could not be used, with its reason
      columns/NAME.parquet  features from elsewhere, by video (``FeatureStore.add``)
      shards/03-of-16/      what a process that was given a part of the list has done (``sharding.py``)

Any Parquet reader (pandas, DuckDB, Polars) reads the parts without this package. ``writer.py`` says how they are
written so that nothing is lost; docs/store.md explains all of it to users.
"""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32

from pseudo3d.errors import Pseudo3dError, first_few
from pseudo3d.features import shards
from pseudo3d.features.folders import Location, open_folder
from pseudo3d.features.foreign import (
    checked_foreign,
    foreign_dim,
    foreign_file,
    foreign_names,
    foreign_tables,
    write_foreign,
)
from pseudo3d.features.journal import Failure as Failure
from pseudo3d.features.mapped import mapped_nameless, mapped_npy
from pseudo3d.features.rows import COLUMNS, LISTS, SourceFile, clips_column, layout_of_schema, timeline_of, to_numpy
from pseudo3d.features.rows import Described as Described
from pseudo3d.features.rows import Timeline as Timeline
from pseudo3d.features.rows import VideoFeatures as VideoFeatures
from pseudo3d.features.sharding import StoreState, read_state
from pseudo3d.features.shards import Part
from pseudo3d.features.writer import StoreWriter as StoreWriter

if TYPE_CHECKING:
    import pandas as pd

STORE_VERSION = shards.STORE_VERSION
MAPPED_FROM = 1 << 30
"""Bytes of an array from which ``FeatureStore.features`` keeps it in a file instead of in memory."""
_SMALL = tuple(name for name in COLUMNS.names if name not in LISTS)
_ATTEMPTS = 50  # to find a store that a writer is changing in one state


def read_info(folder: Location) -> dict[str, Any] | None:
    """What a store says it was made with: the ``info`` of its writer; None when there is no store.

    Raises:
        Pseudo3dError: a damaged store, or one of another version.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     StoreWriter(folder + "/s", {"engine": "eager"}).close()
        ...     read_info(folder + "/s"), read_info(folder + "/other")
        ({'engine': 'eager'}, None)
    """
    found = shards.read_manifest(open_folder(folder))
    return None if found is None else found[0].info


class FeatureStore:
    """The features of many videos, read from a folder that ``p3d extract`` wrote.

    Opening reads the small columns only. It shows the store in one state, also while a writer is at work; what has been
    written since is seen by opening it again.

    Args:
        folder: the store, or its URL.

    Raises:
        Pseudo3dError: not a store, one of another version, or a damaged part.

    Example:
        >>> import tempfile
        >>> row = VideoFeatures("a/b.mp4", {"pool5": np.ones(4, np.float32)}, starts=(0, 9), num_frames=25)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with StoreWriter(folder, {"model": "p3d_resnet14"}) as writer:
        ...         writer.add(row)
        ...     store = FeatureStore(folder)
        ...     store.add("idt", ["a/b.mp4"], np.zeros((1, 3)))
        ...     store.videos, store.features().shape, store.features("idt").shape, store.failures
        (['a/b.mp4'], (1, 4), (1, 3), {})
    """

    def __init__(self, folder: Location) -> None:
        self._place = open_folder(folder)
        self.location = self._place.location
        self.name = self._place.name
        self._open()

    def _open(self) -> None:
        """Read the small columns of the parts that count; again if a writer deletes one of them meanwhile."""
        before = None
        read: dict[Part, tuple[pa.Table, pa.Schema]] = {}  # kept while others merge: files of parts never change
        for attempt in range(_ATTEMPTS):
            time.sleep(0.005 * attempt)
            state = read_state(self._place)
            if state is None:
                raise Pseudo3dError(
                    f"{self.location}: not a feature store (no {shards.STORE}); make one with `p3d extract`"
                )
            self.info: dict[str, Any] = state.info
            self._parts: tuple[Part, ...] = state.parts
            try:
                self._read_small(state, read)
                failed = {**state.failed, **state.newer_failed}
                self.failed = {video: each for video, each in failed.items() if video not in self._row_of}
                """What is known of each video without features."""
                return
            except FileNotFoundError as error:
                if state == before:
                    self._say_gone(error)
                before = state
        raise Pseudo3dError(f"{self.location}: is being changed all the time; try again")

    def _read_small(self, state: StoreState, known: dict[Part, tuple[pa.Table, pa.Schema]]) -> None:
        for part in self._parts:
            if part not in known:
                known[part] = shards.read_small(self._place, part, _SMALL)
        read = [known[part] for part in self._parts]
        self._layout = layout_of_schema(read[0][1]) if read else layout_of_schema(COLUMNS)
        newer = {video for table, _ in read[: state.newer] for video in table["video"].to_pylist()}
        stale = newer | state.newer_failed.keys()  # what shards have done again: rows of before do not count
        own = shards.without((table for table, _ in read[state.newer :]), stale)
        tables = [*(table for table, _ in read[: state.newer]), *own]
        table = pa.concat_tables(tables) if read else COLUMNS.empty_table().select(_SMALL)
        part_of = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
        order = pc.sort_indices(table, sort_keys=[("video", "ascending")])
        self.table: pa.Table = table.take(order)
        """The columns of one value, in the order of ``videos``: ``rows.COLUMNS`` without starts and times."""
        self._part_of = part_of[order.to_numpy()]
        self.videos: list[str] = self.table["video"].to_pylist()
        """POSIX paths relative to the input root, sorted."""
        self._row_of = {video: i for i, video in enumerate(self.videos)}
        if len(self._row_of) < len(self.videos):
            twice = next(a for a, b in zip(self.videos, self.videos[1:], strict=False) if a == b)
            advice = f"run `p3d store compact {self.location}`" if state.newer else "remove one of the parts"
            raise Pseudo3dError(f"{self.location}: {twice} is in two of the parts; {advice}")

    def _say_gone(self, error: FileNotFoundError) -> None:
        gone = sorted(part.file for part in shards.missing(self._place, self._parts))
        raise Pseudo3dError(
            f"{self.location}: {first_few(gone)} is gone; run the same `p3d extract` again to make up for it"
        ) from error

    def __len__(self) -> int:
        return len(self.videos)

    def __repr__(self) -> str:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"FeatureStore({self.location!r}: {len(self)} videos{failed}, layers {', '.join(self.layers) or 'none'})"

    @property
    def failures(self) -> dict[str, str]:
        """The reason for each video without features."""
        return {video: failure.reason for video, failure in self.failed.items()}

    @property
    def layers(self) -> list[str]:
        """Names that ``features`` takes: the network's layers, then what ``add`` brought."""
        return [*self._layout.shapes, *foreign_names(self._place)]

    @property
    def clip_layers(self) -> list[str]:
        """Names that ``clip_features`` takes."""
        return list(self._layout.clips)

    @property
    def labels(self) -> list[str | None]:
        """Class names in the order of ``videos``."""
        return self.table["label"].to_pylist()

    @property
    def splits(self) -> list[str | None]:
        """Each is "train", "val", "test" or None, in the order of ``videos``."""
        return self.table["split"].to_pylist()

    @property
    def groups(self) -> list[str | None]:
        """Sources in the order of ``videos``."""
        return self.table["group"].to_pylist()

    @property
    def damaged(self) -> list[bool]:
        """Whether a part of the file could not be decoded as it was meant, in the order of ``videos``."""
        return self.table["damaged"].to_pylist()

    @property
    def sources(self) -> list[SourceFile]:
        """The file that each row was made of, in the order of ``videos``."""
        return [SourceFile(**row) for row in self.table.select(SourceFile._fields).to_pylist()]

    def shape(self, layer: str = "pool5") -> tuple[int, ...]:
        """What a row of ``features(layer)`` is when it is not flat: (2048,), or (channels, time, height, width).

        Raises:
            Pseudo3dError: the store has no such layer.
        """
        self.check_layer(layer)
        return self._layout.shapes.get(layer) or (foreign_dim(self._place, layer),)

    def features(self, layer: str = "pool5", *, file: str | Path | None = None) -> Float32[np.ndarray, "videos dim"]:
        """One row a video, in the order of ``videos``: the layer averaged over the clips, flat.

        An array above 1 GiB is not kept in memory: it is written to a file, piece by piece, and mapped.

        Args:
            layer: which features.
            file: the .npy file to write and to map; None: in memory, or a nameless file in the folder for temporary
                files (``TMPDIR``) that goes away with the array.

        Raises:
            Pseudo3dError: the store has no such layer, a part is gone, or features from elsewhere lack a video.
            OSError: no space for the file.
        """
        self.check_layer(layer)
        shape = (len(self), math.prod(self.shape(layer)))
        pieces = (([self._row_of[video] for video in videos], values) for videos, values in self.batches(layer))
        if file is not None:
            return mapped_npy(file, shape, pieces)
        if 4 * math.prod(shape) > MAPPED_FROM:
            return mapped_nameless(shape, pieces)
        out = np.empty(shape, np.float32)
        for rows, values in pieces:
            out[rows] = values
        return out

    def batches(self, layer: str = "pool5") -> Iterator[tuple[list[str], Float32[np.ndarray, "n dim"]]]:
        """Every video once, a few MiB at a time and in no particular order: videos, features.

        Raises:
            Pseudo3dError: as for ``features``.
        """
        self.check_layer(layer)
        own = layer in self._layout.shapes
        missing = set(self._row_of)
        for table in self._tables([layer]) if own else foreign_tables(self._place, layer):
            videos = table["video"].to_pylist()
            wanted = [i for i, video in enumerate(videos) if video in missing]
            if wanted:
                missing.difference_update(videos)
                yield [videos[i] for i in wanted], to_numpy(table[layer])[wanted]
        self._check_all(missing, layer)

    def _check_all(self, missing: set[str], layer: str) -> None:
        """Raise for videos whose features were not found."""
        if missing:
            advice = "the store has changed since it was opened; open it again"
            if layer not in self._layout.shapes:
                advice = f"remove {self.location}/{foreign_file(layer)} and add features of all videos"
            raise Pseudo3dError(
                f"{self.location}: {len(missing)} videos have no {layer} ({first_few(sorted(missing))}); {advice}"
            )

    def _tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Columns and ``video`` of the parts that count; when a writer has replaced one, of those that count now."""
        parts, done = list(self._parts), set[Part]()
        while parts:
            part = parts.pop(0)
            try:
                yield from shards.read_groups(self._place, part, {"video", *columns})
            except FileNotFoundError as error:
                state = read_state(self._place)
                if state is None or part in state.parts:
                    self._say_gone(error)
                else:
                    parts = [each for each in state.parts if each not in done]
            done.add(part)

    def check_clip_layer(self, layer: str) -> None:
        """Ask for a name of ``clip_layers``.

        Raises:
            Pseudo3dError: the clips' own features of this layer were not kept.
        """
        if layer not in self.clip_layers:
            raise Pseudo3dError(
                f"{self.location}: no features of single clips of {layer!r}; this store has them of "
                f"{', '.join(self.clip_layers) or 'no layer'} (`p3d extract --per-clip` keeps them)"
            )

    def clip_features(self, video: str, layer: str = "pool5") -> Float32[np.ndarray, "clips dim"]:
        """The features of a video's clips, in the order of ``timeline(video)``, flat. For all videos: ``clips``.

        Raises:
            Pseudo3dError: no such video, or the clips' own features of this layer were not kept.
        """
        self.check_clip_layer(layer)
        return to_numpy(self._row(video, (clips_column(layer),))[clips_column(layer)].combine_chunks().flatten())

    def clips(self, layer: str = "pool5") -> Iterator[tuple[str, Timeline, Float32[np.ndarray, "clips dim"]]]:
        """Every video once, in no particular order and bounded memory: where its clips lie, and their features.

        Raises:
            Pseudo3dError: the clips' own features of this layer were not kept, or a part is gone.
        """
        self.check_clip_layer(layer)
        missing = set(self._row_of)
        for table in self._tables([*LISTS, clips_column(layer)]):
            for i, video in enumerate(table["video"].to_pylist()):
                if video in missing:
                    missing.remove(video)
                    row = table.slice(i, 1)
                    values = row[clips_column(layer)].combine_chunks().flatten()
                    yield video, timeline_of(row), to_numpy(values)
        self._check_all(missing, layer)

    def timeline(self, video: str) -> Timeline:
        """Where the clips of a video lie.

        Raises:
            Pseudo3dError: no such video.
        """
        return timeline_of(self._row(video, LISTS))

    def _row(self, video: str, columns: Sequence[str]) -> pa.Table:
        """One row, read from the one row group that has it."""
        if video not in self._row_of:
            raise Pseudo3dError(f"{self.location}: no video {video!r} in this store")
        try:
            part = self._parts[self._part_of[self._row_of[video]]]
            with shards.open_part(self._place, part) as file:
                for i in range(file.num_row_groups):
                    names = file.read_row_group(i, columns=["video"])["video"].to_pylist()
                    if video in names:
                        where = names.index(video)
                        group = file.read_row_group(i, columns=list(columns))
                        return group.take([where])
        except FileNotFoundError:
            self._open()  # a writer has replaced the part
            return self._row(video, columns)
        raise Pseudo3dError(f"{self.location}: {video} was removed since the store was opened; open it again")

    def check_layer(self, layer: str) -> None:
        """Ask for a name of ``layers``.

        Raises:
            Pseudo3dError: the store has no such layer.
        """
        if layer not in self._layout.shapes and layer not in foreign_names(self._place):
            raise Pseudo3dError(
                f"{self.location}: no layer {layer!r}; this store has {', '.join(self.layers) or 'none'}"
            )

    def add(self, name: str, videos: Sequence[str], array: np.ndarray) -> None:
        """Add features from elsewhere (IDT, another network's), which ``features(name)`` then gives.

        Args:
            name: of the column.
            videos: those of the store, all of them, in any order.
            array: float32 or float64 (videos, dim), a row for each of ``videos``; kept as float32.

        Raises:
            Pseudo3dError: a name that is taken or no file can have, videos that the store does not have or that are
                missing or there twice, an array of another kind, or a process that writes to the store.
            OSError: the store cannot be written.
        """
        taken = {*self.layers, *COLUMNS.names, *map(clips_column, self.clip_layers)}
        values = checked_foreign(self.location, name, videos, array, known=self._row_of, taken=taken)
        write_foreign(self._place, name, videos, values)

    def to_pandas(self, columns: Sequence[str] | None = None) -> "pd.DataFrame":
        """The rows as a table, in the order of ``videos`` (needs pandas).

        Args:
            columns: names of ``rows.COLUMNS``, of layers, or ``LAYER_clips``; None: all of them.

        Raises:
            Pseudo3dError: no such column.
        """
        own = [*COLUMNS.names, *self._layout.shapes, *map(clips_column, self.clip_layers)]
        wanted = [*own, *foreign_names(self._place)] if columns is None else list(columns)
        if unknown := [name for name in wanted if name not in (*own, *foreign_names(self._place))]:
            raise Pseudo3dError(f"{self.location}: no column {unknown[0]!r}; this store has {', '.join(own)}")
        table = self._sorted(self._tables([name for name in wanted if name in own]))
        for name in wanted:
            if name not in own:
                column = self._sorted(foreign_tables(self._place, name))[name]
                table = table.append_column(name, column)
        return table.select(wanted).to_pandas()

    def _sorted(self, tables: Iterable[pa.Table]) -> pa.Table:
        """Tables with a column ``video`` as one, with the rows of ``videos`` in their order."""
        found = list(tables)
        if not found:
            return COLUMNS.empty_table()
        table = pa.concat_tables(found)
        return table.take(pc.index_in(pa.array(self.videos, pa.string()), value_set=table["video"].combine_chunks()))
