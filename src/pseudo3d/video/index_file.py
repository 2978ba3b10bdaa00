"""The index of a video: what it holds, and how it lies in a file of the cache."""

import hashlib
import io
import os
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float64, Int64

from pseudo3d.video.packets import PathLike
from pseudo3d.video.segments import Segment
from pseudo3d.video.timing import frames_within, no_frame_within

_VERSION = f"pseudo3d index 1, PyAV {av.__version__}"  # another FFmpeg may count a damaged file's frames otherwise


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """What is known of a video's frames, and what it takes to begin decoding in the middle; plain data.

    Args:
        num_frames: of the whole video, counted by decoding it, or of a segment; at least 1.
        times: (num_frames,) when each frame is shown, seconds, as ``Clip.timestamps`` has them.
        size: (height, width) of the first frame, upright, in pixels. It decides the size of all.
        pts: (num_frames,) display times in decoding order, as in ``scan.Scan``; empty where seeking is of no use.
        entries: (keys,) rising numbers of the frames where decoding may begin; empty with ``pts``.
        dts: (keys,) decoding times of the entries.
        first: number of the first frame of the segment, 0 for a whole video. ``pts``, ``entries`` and ``dts`` are of
            the whole video in any case.
    """

    num_frames: int
    times: Float64[np.ndarray, "frames"]
    size: tuple[int, int]
    pts: Int64[np.ndarray, "packets"]
    entries: Int64[np.ndarray, "keys"]
    dts: Int64[np.ndarray, "keys"]
    first: int = 0

    def within(self, path: PathLike, segment: Segment) -> "VideoIndex":
        """The index of a segment; this one is of the whole video.

        Args:
            path: for the error.
            segment: start and end, seconds.

        Raises:
            VideoError: there is no frame in it.
        """
        first, stop = frames_within(self.times, segment)
        if first == stop:
            raise no_frame_within(path, self.times, segment)
        return replace(self, num_frames=stop - first, times=self.times[first:stop], first=first)

    def entry(self, number: int) -> int:
        """The frame at which decoding must begin to give frame ``number`` of the file; 0 is its start."""
        place = int(np.searchsorted(self.entries, number, side="right")) - 1
        return int(self.entries[place]) if place >= 0 else 0


def packed_index(place: str, stamp: tuple[int, int], index: VideoIndex) -> bytes:
    """An index and what it is of: an .npz file of plain arrays, then the SHA-256 of all that."""
    file = io.BytesIO()
    np.savez_compressed(
        file,
        version=np.frombuffer(_VERSION.encode(), np.uint8),
        path=np.frombuffer(os.fsencode(place), np.uint8),  # names need not be UTF-8
        facts=np.array([*stamp, *index.size], np.int64),
        times=index.times,
        pts=index.pts,
        entries=index.entries,
        dts=index.dts,
    )
    content = file.getvalue()
    return content + hashlib.sha256(content).digest()


def load_index(file: Path, place: str, stamp: tuple[int, int]) -> VideoIndex | None:
    """The index in a file of the cache, if there is one, whole, of this version, and of this video as it is now."""
    try:
        content = file.read_bytes()
    except OSError:  # in most cases there is none yet
        return None
    if hashlib.sha256(content[:-32]).digest() != content[-32:]:
        return None
    with np.load(io.BytesIO(content[:-32]), allow_pickle=False) as arrays:
        version, path, facts = arrays["version"].tobytes(), arrays["path"].tobytes(), arrays["facts"].tolist()
        if version != _VERSION.encode() or path != os.fsencode(place) or tuple(facts[:2]) != stamp:
            return None
        times = arrays["times"]
        return VideoIndex(len(times), times, (facts[2], facts[3]), arrays["pts"], arrays["entries"], arrays["dts"])
