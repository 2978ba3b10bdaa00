"""The decoding half of a distributed extraction: a few paths in, their clips out, as tables. No torch here.

A row is a clip (``frames``), or, after the last clip of a video, what is known of it (``known``).
"""

import atexit
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pseudo3d.features.decoders import Decoders
from pseudo3d.features.digests import Digests
from pseudo3d.features.rows import SourceFile
from pseudo3d.features.todo import changed_meanwhile, content_of, state_of
from pseudo3d.video.clips import ClipFacts, ClipPlan
from pseudo3d.video.pool import DecoderPool, Failed, NewClip

ROW = pa.schema(
    [
        pa.field("video", pa.int64(), nullable=False),
        pa.field("reading", pa.int64(), nullable=False),
        pa.field("number", pa.int64(), nullable=False),
        pa.field("shape", pa.list_(pa.int64())),
        pa.field("frames", pa.large_binary()),
        pa.field("known", pa.large_binary()),
    ]
)
_pools: dict[Decoders, DecoderPool] = {}  # of this process, which decodes one batch of paths after the other
_digests = Digests()  # also of earlier batches: segments of a file may be in several


class KnownVideo(NamedTuple):
    """What a decoder says of a video at its end.

    Args:
        facts: of the video and its clips; None when it failed.
        error: why it failed.
        source: the file, hashed.
        reading: the last time that the file was read from its start, of the file as it was; clips of others do not
            count.
    """

    facts: ClipFacts | None
    error: str | None
    source: SourceFile
    reading: int


def decode_paths(paths: pa.Table, plan: ClipPlan, decoders: Decoders) -> Iterator[pa.Table]:
    """The clips of some videos, and what is known of each.

    Args:
        paths: columns ``video`` (a number) and ``path`` (bytes, as the file system has it).
        plan: which clips.
        decoders: the limits of the one process that decodes them.
    """
    videos = {row["video"]: Path(os.fsdecode(row["path"])) for row in paths.to_pylist()}
    before: dict[int, SourceFile] = {}

    def opened() -> Iterator[tuple[int, Path]]:
        for video, path in videos.items():
            before[video] = state_of(path)
            yield video, path

    readings: dict[int, int] = {}
    for event in _pool(decoders).stream(opened(), plan):
        video = event.key
        # Clips of a file that was replaced before Ray repeated this are of another reading, too.
        readings.setdefault(video, (before[video].size or 0) ^ (before[video].modified or 0))
        if isinstance(event, NewClip):
            readings[video] += event.number == 0
            yield _row(video, readings[video], event.number, frames=event.frames)
            continue
        path = videos[video]
        source = before[video]._replace(sha256=content_of(path, _digests))
        facts, error = (None, event.reason) if isinstance(event, Failed) else (event.facts, None)
        error = error or changed_meanwhile(path, before[video])
        known = KnownVideo(None if error else facts, error, source, readings[video])
        yield _row(video, readings[video], -1, known=pickle.dumps(known))


def _row(
    video: int, reading: int, number: int, *, frames: np.ndarray | None = None, known: bytes | None = None
) -> pa.Table:
    values = {
        "video": video,
        "reading": reading,
        "number": number,
        "shape": None if frames is None else list(frames.shape),
        "frames": None if frames is None else frames.tobytes(),
        "known": known,
    }
    return pa.Table.from_pylist([values], ROW)


def _pool(decoders: Decoders) -> DecoderPool:
    """The one decoder process of this process, started by its first task."""
    if decoders not in _pools:
        _pools[decoders] = decoders.start()
        atexit.register(_pools[decoders].close)
    return _pools[decoders]
