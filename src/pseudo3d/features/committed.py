"""The parts of a store that count, and every way in which they change, each in one step.

``StoreWriter`` keeps the rows that wait; what is on the disk is here. A change writes new files, replaces
``store.json`` and deletes the files that it names no more (``shards.py``).
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pseudo3d.errors import Pseudo3dError
from pseudo3d.features import shards
from pseudo3d.features.folders import Location, logger, open_folder
from pseudo3d.features.foreign import COLUMNS_FOLDER
from pseudo3d.features.journal import FAILURES, read_failures, write_failures
from pseudo3d.features.rows import Described
from pseudo3d.features.sharding import (
    SHARDS,
    Shard,
    agree,
    check_count,
    check_info,
    empty_shard,
    open_shard,
    read_shard,
    read_shards,
    refuse_other_files,
)
from pseudo3d.features.shards import Manifest, Part, read_manifest


class CommittedParts:
    """The parts that count, of a store that this process alone writes to; the lock is held until ``release``.

    Args:
        folder: made if missing; or an fsspec URL.
        info: what decides the features; a store made with other values is refused.
        wait: for another process that writes to it.
        shard: the parts of this shard of the store, not of the store itself.

    Raises:
        Pseudo3dError: as ``StoreWriter``.
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     committed = CommittedParts(folder, {"model": "p3d_resnet14"})
        ...     committed.release()
        ...     committed.parts
        ()
    """

    def __init__(
        self, folder: Location, info: dict[str, Any], *, wait: bool = False, shard: Shard | None = None
    ) -> None:
        info = json_types(info)
        self._store = self.place = open_folder(folder)
        refuse_other_files(self._store)
        self._shard = shard
        if shard is not None:
            check_count(self._store, shard)
            shards.check_same(self._store.location, agree(folder, info), info)
            self.place = open_shard(folder, shard)
        self.location = self.place.location
        self.place.make()
        self.place.lock(wait=wait)
        try:
            self._open(info)
            if shard is None:
                self._take_over(wait)
        except BaseException:
            self.release()
            raise

    @property
    def parts(self) -> tuple[Part, ...]:
        """Those that count, oldest first."""
        return self._manifest.parts

    def release(self) -> None:
        """Let other writers in."""
        self.place.unlock()

    def _open(self, info: dict[str, Any]) -> None:
        found = read_manifest(self.place)
        if found is None:
            self._manifest = Manifest(info)
            self._on_disk = {self._manifest.to_bytes()}
            self.place.write(shards.STORE, self._manifest.to_bytes())
        else:
            self._manifest, raw = found
            self._on_disk = {raw}  # what store.json may hold, if nobody else writes
            shards.check_same(self.location, self._manifest.info, info)
        self._next = self._manifest.next_part
        self._replaced: set[Part] = set()  # parts that count no more and are to be deleted
        self._videos: dict[Part, list[str]] | None = None  # of parts, while one shard after the other asks for them
        self._count_checked = False
        listed = self.parts
        self._clean()
        if self.parts != listed:  # the store has taken them over; a list that still had them would be newer than it
            self.commit(self.parts)
            self._replaced.clear()
        self._drop_missing()

    def _clean(self) -> None:
        """Remove what a killed run left: files that ``store.json`` does not name, and halves of files."""
        named = {part.file for part in self.parts}
        if self.place is not self._store:  # what has been taken over lies here still, and is the store's
            theirs = read_manifest(self._store)
            prefix = f"{SHARDS}/{self.place.name}/"
            taken = {part.file.removeprefix(prefix) for part in (theirs[0].parts if theirs else ())}
            self._manifest = replace(self._manifest, parts=tuple(part for part in self.parts if part.file not in taken))
            named |= taken
        for name in self.place.names():
            whole, half = name, name.startswith(".") and name.endswith(".part")
            if half:  # ".store.json.PID.part"
                whole = name.removeprefix(".").removesuffix(".part").rpartition(".")[0]
            if (shards.is_part_name(whole) and name not in named) or (half and whole in (shards.STORE, FAILURES)):
                self.place.delete(name)
        for name in self.place.names(COLUMNS_FOLDER):
            if name.startswith(".") and name.endswith(".part"):
                self.place.delete(f"{COLUMNS_FOLDER}/{name}")

    def _drop_missing(self) -> None:
        for part in shards.missing(self.place, self.parts):
            logger.warning("%s/%s is gone: its %d videos count as not done", self.location, part.file, part.rows)
            self._manifest = replace(self._manifest, parts=tuple(other for other in self.parts if other != part))

    def _take_over(self, wait: bool) -> None:
        """Make what shards have done the store's own; their files stay where they are until they are merged."""
        self._videos = {}
        for shard in [state.shard for state in read_shards(self.place)]:
            theirs = open_shard(self.location, shard)
            theirs.lock(wait=wait)
            try:
                state = read_shard(self.place, shard)
                check_info(self.place, self._manifest.info, state)
                gone = shards.missing(self.place, state.parts)
                parts = [part for part in state.parts if part not in gone]
                named = {part.file for part in self.parts}
                new = [part for part in parts if part.file not in named]
                done = {video for part in parts for video in self.videos_in(part)}
                failed = {video: each for video, each in state.failed.items() if video not in done}
                if new or failed:
                    replaced = {video for part in new for video in self.videos_in(part)} | failed.keys()
                    self.commit([*self.without(replaced), *new])
                    self.tidy()
                if failed:
                    write_failures(self.place, {**read_failures(self.place), **failed})
                empty_shard(self.place, state)
            finally:
                theirs.unlock()
        self._videos = None

    def read(self, part: Part, columns: Collection[str]) -> tuple[pa.Table, pa.Schema]:
        """Some columns of a part, and the schema of all."""
        return shards.read_small(self.place, part, columns)

    def videos_in(self, part: Part) -> list[str]:
        """The videos that a part has rows of."""
        if self._videos is not None and part in self._videos:
            return self._videos[part]
        table, _ = self.read(part, ("video",))
        videos: list[str] = table["video"].to_pylist()
        if self._videos is not None:
            self._videos[part] = videos
        return videos

    def without(self, videos: Collection[str], described: Mapping[str, Described] | None = None) -> list[Part]:
        """The parts, those with rows that go, or that are to say other things, written anew."""
        described = described or {}
        changed = set(videos) | described.keys()
        parts = []
        for part in self.parts:
            if changed and not changed.isdisjoint(self.videos_in(part)):
                groups = shards.without(shards.read_groups(self.place, part), videos)
                parts += self.new_part(shards.described(groups, described))
            else:
                parts.append(part)
        return parts

    def new_part(self, tables: Iterable[pa.Table]) -> list[Part]:
        """Write a part that does not count yet; none when there are no rows."""
        # A number is not used again, even if this attempt fails: store.json may name its file already (see commit).
        name = shards.part_name(self._next, self.place.token)
        self._next += 1
        part = shards.write_part(self.place, name, tables)
        return [part] if part else []

    def merge(self, small: Collection[Part]) -> None:
        """Make some parts one."""
        tables: Iterator[pa.Table] = (table for part in small for table in shards.read_groups(self.place, part))
        self.commit([part for part in self.parts if part not in small] + self.new_part(tables))
        self.tidy()

    def check_own(self) -> bytes:
        """What ``store.json`` holds, if it is what this writer wrote.

        Raises:
            Pseudo3dError: it is not.
        """
        there = self.place.read(shards.STORE)
        if there not in self._on_disk:
            raise Pseudo3dError(
                f"{self.location}: another process has written to this store; end it, and run the same command again"
            )
        return there

    def commit(self, parts: Collection[Part]) -> None:
        """Make these the parts that count; ``tidy`` deletes those that do no more."""
        if self._shard is not None and not self._count_checked:  # another number may have begun at the same time
            check_count(self._store, self._shard)
            self._count_checked = True
        before, manifest = self._manifest, Manifest(self._manifest.info, tuple(parts), self._next)
        raw, there = manifest.to_bytes(), self.check_own()
        self._on_disk = {there, raw}  # an error may come before or after the file was replaced
        self.place.write(shards.STORE, raw)
        self._on_disk = {raw}
        self._manifest = manifest
        self._replaced |= set(before.parts) - set(parts)

    def tidy(self) -> None:
        """Delete the files of parts that count no more."""
        while self._replaced:
            self.place.delete(self._replaced.pop().file)


def json_types(info: dict[str, Any]) -> dict[str, Any]:
    """The same as it comes back from JSON: a tuple is a list."""
    return json.loads(json.dumps(info))
