"""Writes a store so that whatever ends the run, at whatever instruction, what was written is whole and there once.

Rows wait in memory until there are ``rows_per_part`` of them, or 64 MiB, or ``seconds`` have gone by since rows were
last written. Then they become a new Parquet file, and ``store.json`` is replaced by one that names it too
(``shards.py`` says why nothing can be lost or doubled in between). A killed run loses the rows of its last seconds.
Since a run that writes often leaves many small files, they are made into large ones from time to time and at the end,
in the same way: new file, new ``store.json``, old files deleted. A row that is replaced or removed goes likewise: the
files that hold such rows are written anew without them, and take effect together with the new rows.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any

from pseudo3d.features import shards
from pseudo3d.features.committed import CommittedParts
from pseudo3d.features.folders import Location
from pseudo3d.features.journal import Failure, read_failures, write_failures
from pseudo3d.features.rows import (
    UNKNOWN_FILE,
    Described,
    Layout,
    SourceFile,
    VideoFeatures,
    layout_of,
    layout_of_schema,
    to_table,
)
from pseudo3d.features.sharding import Shard
from pseudo3d.features.shards import Part

_INDEX = ("video", "label", "split", "group", "size", "modified", "sha256")
_MOST_SMALL_PARTS = 64


class StoreWriter:
    """Writes a store; a killed run loses no more than the rows of its last ``seconds``.

    An existing store goes on where it stopped, if it was made in the same way. One process writes at a time. An
    ``OSError`` of ``add``, ``flush`` or ``close``, such as that of a full disk, leaves the store whole and what was
    added in memory: the call may be repeated.

    Args:
        folder: made if missing; or an fsspec URL.
        info: what decides the features; JSON types. A store made with other values is refused; for what only says how
            it is computed, give what ``read_info`` says.
        rows_per_part: videos in one Parquet file.
        seconds: after which rows are written, however few; looked at when one is added.
        wait: for another process that writes to this store, instead of the error.
        shard: write what this part of the list of videos gives, beside the processes of the other parts; the store
            itself stays as it is (``sharding.py``). Without, what shards have done is taken over.

    Raises:
        Pseudo3dError: the folder holds a store made in another way (the message says what differs), or other files, or
            another process writes to it, or, with ``shard``, to the same part, or the store has shards of another
            number.
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with StoreWriter(folder, {"model": "p3d_resnet14"}) as writer:
        ...         writer.add(VideoFeatures("a.mp4", {"pool5": np.ones(4, np.float32)}, (0, 9), 25, label="x"))
        ...         writer.add_failure("b.mp4", "b.mp4: empty file")
        ...     with StoreWriter(folder, {"model": "p3d_resnet14"}) as writer:
        ...         writer.done, list(writer.failures)
        ({'a.mp4': Described(label='x', split=None, group=None)}, ['b.mp4'])
    """

    def __init__(
        self,
        folder: Location,
        info: dict[str, Any],
        *,
        rows_per_part: int = shards.PART_ROWS,
        seconds: float = 10.0,
        wait: bool = False,
        shard: Shard | None = None,
    ) -> None:
        if reserved := set(info) & set(shards.RESERVED):
            raise ValueError(f"info may not have the key {min(reserved)}")
        self.rows_per_part = rows_per_part
        self.seconds = seconds
        self.done: dict[str, Described] = {}
        """What is said of each video that has a row, written or waiting."""
        self.sources: dict[str, SourceFile] = {}
        """The file that each of these rows was made of."""
        self.failed: dict[str, Failure] = {}
        """The videos without features."""
        self._committed = CommittedParts(folder, info, wait=wait, shard=shard)
        self.location = self._committed.location
        self._stored: set[str] = set()  # videos with a row that is written
        self._layout: Layout | None = None  # of all rows; the first says it
        self._waiting: dict[str, VideoFeatures] = {}
        self._waiting_bytes = 0
        self._dropped: set[str] = set()  # videos whose written row is to go
        self._described: dict[str, Described] = {}  # of written rows, what they are to say
        self._failures_changed = False
        self._written_at = time.monotonic()
        self._closed = False
        try:
            self._load()
        except BaseException:
            self._release()
            raise

    def _load(self) -> None:
        for part in self._committed.parts:
            table, schema = self._committed.read(part, _INDEX)
            self._layout = layout_of_schema(schema)
            for row in table.to_pylist():
                self._note(row["video"], Described(*(row[name] for name in Described._fields)),
                           SourceFile(*(row[name] for name in SourceFile._fields)))  # fmt: skip
                self._stored.add(row["video"])
        self.failed = {
            video: each for video, each in read_failures(self._committed.place).items() if video not in self.done
        }

    def _note(self, video: str, described: Described, source: SourceFile) -> None:
        self.done[video] = described
        self.sources[video] = source

    @property
    def failures(self) -> dict[str, str]:
        """The reason for each video without features."""
        return {video: failure.reason for video, failure in self.failed.items()}

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        try:
            self.flush()
        finally:
            self._release()

    def add(self, row: VideoFeatures, *, replace: bool = False) -> None:
        """Add one video.

        Args:
            row: its features.
            replace: the row that the video has is of another content: on disk, one goes as the other comes.

        Raises:
            ValueError: a feature that is not finite float32, layers or sizes unlike the other rows', a video that is
                there already (unless ``replace``), one whose name is not UTF-8, or a writer that was closed.
        """
        self._check_open()
        if row.video in self.done and not replace:
            raise ValueError(f"{row.video} is in the store already")
        layout = layout_of(row)
        if layout != (self._layout or layout):
            raise ValueError(f"{row.video}: the rows before have the layers {self._layout}, this one {layout}")
        self._layout = layout
        self._forget(row.video)
        self._waiting[row.video] = row
        self._waiting_bytes += row.nbytes
        self._note(row.video, Described(row.label, row.split, row.group), row.source)
        self.flush_if_due()

    def add_failure(self, video: str, reason: str, source: SourceFile = UNKNOWN_FILE) -> None:
        """Record why a video has no features; a row that it had, of its former content, goes.

        Args:
            video: POSIX path relative to the input root.
            reason: one line, beginning with the path.
            source: the file that was tried.
        """
        self._check_open()
        attempts = self.failed[video].attempts + 1 if video in self.failed else 1
        self._forget(video)
        self.failed[video] = Failure(reason, source, attempts)
        self._failures_changed = True
        self.flush_if_due()

    def remove(self, video: str) -> None:
        """Forget the row of a video, or its failure.

        Raises:
            KeyError: the store knows neither.
        """
        self._check_open()
        if video not in self.done and video not in self.failed:
            raise KeyError(f"{self.location}: {video} is not in the store")
        self._forget(video)
        self.flush_if_due()

    def describe(self, described: Mapping[str, Described]) -> None:
        """Change what rows say of their videos: label, split and group.

        Args:
            described: by video; those of others stay as they are.

        Raises:
            KeyError: a video has no row.
        """
        self._check_open()
        for video, each in described.items():
            if video not in self.done:
                raise KeyError(f"{self.location}: {video} is not in the store")
            if video in self._waiting:
                self._waiting[video] = replace(self._waiting[video], **each._asdict())
            else:
                self._described[video] = each
            self.done[video] = each
        self.flush_if_due()

    def _forget(self, video: str) -> None:
        self._failures_changed |= self.failed.pop(video, None) is not None
        before = self._waiting.pop(video, None)
        self._waiting_bytes -= before.nbytes if before else 0
        if video in self._stored:
            self._dropped.add(video)
        self._described.pop(video, None)
        self.done.pop(video, None)
        self.sources.pop(video, None)

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"{self.location}: this writer is closed")

    def flush_if_due(self) -> None:
        """Write what waits if it has become much, or has waited for ``seconds``.

        ``add`` does it too; a caller whose videos take long does it in between.
        """
        if (
            len(self._waiting) >= self.rows_per_part
            or self._waiting_bytes >= shards.PART_BYTES
            or time.monotonic() - self._written_at >= self.seconds
        ):
            self.flush()

    def flush(self) -> None:
        """Write what was added and removed since the last time; from then on, no end of the run takes it away.

        Raises:
            Pseudo3dError: another process has written to the store (where there are no locks).
            OSError: the disk is full, or cannot be written; the call may be repeated.
        """
        if self._closed:
            return
        if self._waiting or self._dropped or self._described:
            self._committed.check_own()  # before a file is written, too: it could have the name of another's
            parts = self._committed.without(self._dropped, self._described)
            if self._waiting:
                parts += self._committed.new_part([to_table(list(self._waiting.values()))])
            self._committed.commit(parts)
            self._stored -= self._dropped
            self._stored |= self._waiting.keys()
            self._waiting, self._waiting_bytes, self._dropped, self._described = {}, 0, set(), {}
            self._committed.tidy()
        if self._failures_changed:
            write_failures(self._committed.place, self.failed)
            self._failures_changed = False
        self._written_at = time.monotonic()
        self._merge_small(at_least=_MOST_SMALL_PARTS)

    def close(self) -> None:
        """Write what is left, make the small files one, and let other writers in; again is no error."""
        try:
            self.flush()
            if not self._closed:
                self._merge_small(at_least=2)
        finally:
            self._release()

    def _release(self) -> None:
        self._closed = True
        self._committed.release()

    def _merge_small(self, *, at_least: int) -> None:
        """Make small parts large ones; those that are left, if they are so many."""
        group: list[Part] = []
        for part in self._committed.parts:
            if not self._is_full([part]):
                group.append(part)
            if len(group) > 1 and self._is_full(group):
                self._committed.merge(group)
                group = []
        if len(group) >= at_least:
            self._committed.merge(group)

    def _is_full(self, parts: Collection[Part]) -> bool:
        rows, size = sum(part.rows for part in parts), sum(part.bytes for part in parts)
        return rows >= self.rows_per_part or size >= shards.PART_BYTES
