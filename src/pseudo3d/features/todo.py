"""What a run has to do: the videos that are wanted, beside what the store knows of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pseudo3d.data.annotations import Sample, SampleList, label_text
from pseudo3d.features.digests import Digests
from pseudo3d.features.folders import Location
from pseudo3d.features.store import Described, Failure, FeatureStore, SourceFile
from pseudo3d.video.segments import file_of


@dataclass(frozen=True)
class Known:
    """What a store knows.

    Args:
        sources: the file that each row was made of.
        failed: the videos without features.
        described: what is said of each video that has a row.
    """

    sources: Mapping[str, SourceFile]
    failed: Mapping[str, Failure]
    described: Mapping[str, Described]

    @classmethod
    def of_store(cls, location: Location) -> "Known":
        """All that is in a store, its shards included.

        Raises:
            Pseudo3dError: not a store, or a damaged one.
        """
        store = FeatureStore(location)
        described = map(Described, store.labels, store.splits, store.groups)
        return cls(
            dict(zip(store.videos, store.sources, strict=True)),
            store.failed,
            dict(zip(store.videos, described, strict=True)),
        )


@dataclass(frozen=True)
class Todo:
    """What a run has to do.

    Args:
        videos: to encode, in the order of the list.
        changed: those of them that the store has with other content.
        done: how many are in the store, unchanged.
        failed: how many failed before, have not changed since, and are not tried again.
        redescribed: the label, split and group of videos in the store of which the list says other things now; what
            it does not say stays.
        vanished: videos that the store knows and that are neither in the list nor on the disk, if they are to be
            removed.
    """

    videos: tuple[Sample, ...]
    changed: frozenset[str]
    done: int
    failed: int
    redescribed: dict[str, Described]
    vanished: tuple[str, ...]


def find_todo(
    known: Known,
    samples: SampleList,
    *,
    retry_failed: bool = False,
    prune: bool = False,
    digests: Digests | None = None,
) -> Todo:
    """Which videos a store lacks, has with other content, or knows to have failed.

    Size and time of change tell; where only the time differs (a copy), the content does.

    Args:
        known: what the store knows.
        samples: the videos that are wanted.
        retry_failed: try those again that failed.
        prune: look for vanished ones.
        digests: of the files that this run has read already.
    """
    digests = Digests() if digests is None else digests
    videos, changed, unchanged, given_up = [], set(), 0, 0
    redescribed: dict[str, Described] = {}
    for sample in samples.samples:
        path = samples.root / sample.path
        if sample.path in known.sources:
            if _same_file(path, known.sources[sample.path], digests):
                unchanged += 1
                before = known.described[sample.path]
                described = before.changed(Described(label_text(sample), sample.split, sample.group))
                if described != before:
                    redescribed[sample.path] = described
                continue
            changed.add(sample.path)
        elif (
            sample.path in known.failed
            and not retry_failed
            and _same_file(path, known.failed[sample.path].source, digests)
        ):
            given_up += 1
            continue
        videos.append(sample)
    vanished: list[str] = []
    if prune:
        asked = {sample.path for sample in samples.samples}
        there = [*known.sources, *known.failed]
        vanished = [path for path in there if path not in asked and _is_gone(samples.root / path)]
    return Todo(tuple(videos), frozenset(changed), unchanged, given_up, redescribed, tuple(vanished))


def _is_gone(path: Path) -> bool:
    """Whether a file is certainly not there: a disk that does not answer takes no rows away."""
    try:
        file_of(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def state_of(path: Path) -> SourceFile:
    """Size and time of change of a file (a segment's too), empty when it is not there; its content is not read."""
    try:
        status = file_of(path).stat()
    except OSError:
        return SourceFile()
    return SourceFile(status.st_size, status.st_mtime_ns)


def changed_meanwhile(path: Path, before: SourceFile) -> str | None:
    """Why a video is not to be used whose file is no more what it was before it was read; None when it is."""
    if state_of(path)[:2] == before[:2]:
        return None
    return f"{path}: changed while it was read; run the same command again when it is complete"


def _same_file(path: Path, known: SourceFile, digests: Digests) -> bool:
    """Whether a file is what it was; one that is gone has not changed."""
    now = state_of(path)
    if now.size is None:
        return True
    if now.size != known.size:
        return False
    return now.modified == known.modified or (known.sha256 is not None and content_of(path, digests) == known.sha256)


def content_of(path: Path, digests: Digests) -> str | None:
    """The hash of a file's content (a segment's, too); None for what cannot be read: it is said where it is decoded."""
    try:
        return digests.of(path)
    except OSError:
        return None
