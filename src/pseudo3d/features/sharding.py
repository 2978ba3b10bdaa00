"""Many processes, one store, and nothing that two of them write: ``p3d extract --shard 3/16``.

    STORE/store.json, part-...      the store itself, which no shard changes
    STORE/shards/03-of-16/          what shard 3 has done: store.json, part-..., failures.jsonl, as in a store

A reader takes all of them together. What a shard says of a video is newer than what the store itself says: its row (or
its failure) takes the place of the store's row. The next process that writes to the store itself takes the shards'
parts over where they lie: it drops its own rows that they replace and names them in its ``store.json``, all in one
step, and then empties the shards' lists. A part that is named twice in between counts once.
"""

import hashlib
import re
from dataclasses import dataclass, replace

from pseudo3d.data.annotations import SampleList
from pseudo3d.errors import Pseudo3dError, printable
from pseudo3d.features import shards
from pseudo3d.features.folders import Folder, Location, open_folder
from pseudo3d.features.journal import FAILURES, Failure, read_failures
from pseudo3d.features.shards import Manifest, Part, read_manifest

SHARDS = "shards"
_NAME = re.compile(r"(\d+)-of-(\d+)")


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of a list of videos; a video belongs to the same one for ever, whatever the list.

    Args:
        index: from 0, as ``SLURM_ARRAY_TASK_ID`` and torchrun's ``RANK`` count.
        count: how many there are.

    Example:
        >>> shard = parse_shard("3/16")
        >>> shard.name, [name for name in ("a.mp4", "b.mp4", "c.mp4", "d.mp4") if Shard(0, 2).has(name)]
        ('03-of-16', ['a.mp4', 'b.mp4', 'd.mp4'])
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def name(self) -> str:
        """Of its folder in ``shards``."""
        return f"{self.index:0{len(str(self.count - 1))}d}-of-{self.count}"

    def has(self, video: str) -> bool:
        """Whether a video (its path in the list) belongs to it: by a hash, so that neither order nor length matter."""
        digest = hashlib.sha256(video.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index

    def part_of(self, samples: SampleList) -> SampleList:
        """The videos of a list that belong to it."""
        return replace(samples, samples=tuple(sample for sample in samples.samples if self.has(sample.path)))


def parse_shard(text: str) -> Shard:
    """``"3/16"``: the fourth of sixteen.

    Raises:
        Pseudo3dError: anything else.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if found is None:
        raise Pseudo3dError(f"--shard takes i/n such as 0/4, got {text!r}")
    shard = Shard(int(found[1]), int(found[2]))
    if shard.count == 0:
        raise Pseudo3dError(f"--shard {text}: there must be at least one")
    if shard.index >= shard.count:
        raise Pseudo3dError(f"--shard {text}: shards count from 0; the last of {shard.count} is {shard.count - 1}")
    return shard


def open_shard(folder: Location, shard: Shard) -> Folder:
    """The place where a shard of a store writes."""
    return open_folder(f"{open_folder(folder).location}/{SHARDS}/{shard.name}")


@dataclass(frozen=True)
class ShardState:
    """What one shard has done, as the store sees it.

    Args:
        folder: relative to the store, with a slash at the end.
        shard: which one.
        manifest: its ``store.json``, with the parts' names relative to the shard's folder.
        failed: videos without features.
        raw: what its ``store.json`` holds; None when there is none.
    """

    folder: str
    shard: Shard
    manifest: Manifest
    failed: dict[str, Failure]
    raw: bytes | None = None

    @property
    def parts(self) -> tuple[Part, ...]:
        """Its parts, their names relative to the store."""
        return tuple(replace(part, file=self.folder + part.file) for part in self.manifest.parts)


def read_shards(place: Folder) -> list[ShardState]:
    """The shards of a store that have done something.

    Raises:
        Pseudo3dError: one of them is damaged, or of another version.
    """
    states = [read_shard(place, shard) for shard in _shards_named(place)]
    return [state for state in states if state.manifest.parts or state.failed]


def _shards_named(place: Folder) -> list[Shard]:
    """Those that have a folder, whether or not they have done anything."""
    found = [_NAME.fullmatch(name) for name in place.names(SHARDS)]
    return [Shard(int(told[1]), int(told[2])) for told in found if told]


def read_shard(place: Folder, shard: Shard) -> ShardState:
    """What one shard has done; nothing, when it has not begun."""
    folder = f"{SHARDS}/{shard.name}/"
    failed = read_failures(place, folder)  # first: a video that is done meanwhile is then in the parts
    found = read_manifest(place, folder)
    return ShardState(folder, shard, *((found[0], failed, found[1]) if found else (Manifest({}), failed, None)))


def check_info(place: Folder, info: dict[str, object], state: ShardState) -> None:
    """Raise when a shard was made in another way than its store, as two that start at once without locks may be."""
    different = None if state.raw is None else shards.first_difference(info, state.manifest.info)
    if different is not None:
        raise Pseudo3dError(
            f"{place.location}/{state.folder.rstrip('/')}: was made with another {different[0]} than the store "
            f"({printable(different[1])} there, {printable(different[2])} here); remove it and run the shard again"
        )


@dataclass(frozen=True)
class StoreState:
    """A store and its shards at one moment.

    Args:
        info: what the features are.
        parts: those of the shards, which come first because they are newer, then the store's own.
        newer: how many of ``parts`` are the shards'.
        failed: videos without features, by the store itself.
        newer_failed: by the shards.
        raw: what ``store.json`` holds.
    """

    info: dict[str, object]
    parts: tuple[Part, ...]
    newer: int
    failed: dict[str, Failure]
    newer_failed: dict[str, Failure]
    raw: bytes


def read_state(place: Folder) -> StoreState | None:
    """What a store and its shards hold; None when there is no store.

    Raises:
        Pseudo3dError: a damaged store, or one of another version.
    """
    # In this order nothing is missed: what is taken over from a shard meanwhile is the store's when that is read, and a
    # failure that a row replaces meanwhile is one too many, which whoever reads the rows can see.
    of_shards = read_shards(place)
    failed = read_failures(place)
    found = read_manifest(place)
    if found is None:
        return None
    manifest, raw = found
    for state in of_shards:
        check_info(place, manifest.info, state)
    newer = [part for state in of_shards for part in state.parts]
    files = {part.file for part in newer}
    own = [part for part in manifest.parts if part.file not in files]  # one that is being taken over is still a shard's
    newer_failed = {video: each for state in of_shards for video, each in state.failed.items()}
    return StoreState(manifest.info, (*newer, *own), len(newer), failed, newer_failed, raw)


def agree(folder: Location, info: dict[str, object]) -> dict[str, object]:
    """Make the store that shards belong to, if it is not there.

    Returns:
        What it is made with: ``info``, or what another shard, which was first, has said.

    Raises:
        Pseudo3dError: the folder holds other files.
        OSError: it cannot be written.
    """
    place = open_folder(folder)
    found = read_manifest(place)
    if found is None:
        refuse_other_files(place)
        place.make()
        place.lock(wait=True)
        try:
            if place.create(shards.STORE, Manifest(info).to_bytes()):
                return info
            found = read_manifest(place)
            assert found is not None
        finally:
            place.unlock()
    return found[0].info


def refuse_other_files(place: Folder) -> None:
    """Raise when a place holds files and no store: it is not ours to write and to tidy up."""
    names = place.names()
    if shards.STORE not in names and any(not name.startswith(".") for name in names):
        raise Pseudo3dError(f"{place.location}: holds other files and no store; give a new folder for --out")


def check_count(place: Folder, shard: Shard) -> None:
    """Raise when a store has shards of another number, to which the videos belong in another way."""
    for other in _shards_named(place):
        if other.count == shard.count:
            continue
        state = read_shard(place, other)
        if state.manifest.parts or state.failed:
            raise Pseudo3dError(
                f"{place.location}: holds what shard {other} has done, and {shard} would divide the videos in another "
                f"way; let the {other.count} shards end, then run `p3d store compact {place.location}`"
            )


def empty_shard(place: Folder, state: ShardState) -> None:
    """Let a shard go whose parts and failures are the store's now; its numbers go on, as its files stay.

    Raises:
        Pseudo3dError: its process has written again meanwhile (where there are no locks).
    """
    if read_shard(place, state.shard).raw != state.raw:
        raise Pseudo3dError(
            f"{place.location}: shard {state.shard} is being written; let it end, and run the same command again"
        )
    place.delete(f"{state.folder}{FAILURES}")
    left = Manifest(state.manifest.info, (), state.manifest.next_part)
    place.write(f"{state.folder}{shards.STORE}", left.to_bytes())
