"""Frames from the middle of a file, each checked to be the one that decoding from the start would give.

With clips of 4 frames and keyframes K that decoding may begin at (``scan.Scan.entries``)::

    packets     K . . . . . K . . . . . K . . . . . K . . . . . K
    clips       [--0--]             [--1--]     [2-----]
    decoded     ^-----^     ^-------------^ ^---------^           runs: from a K to the end of a clip

The frames of a run must come in the order and with the display times that the packets promise; the first that does not
ends the attempt, and the file is read from its start.
"""

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pseudo3d.video.packets import DamagedError, Tally, decode_frames, read_packets
from pseudo3d.video.scan import Scan

_WORTH = 0.5  # seek when less than this share of the frames has to be decoded


class Run(NamedTuple):
    """Frames that are decoded in one go.

    Args:
        first: where decoding begins, an entry of the scan.
        last: the last frame that is needed.
    """

    first: int
    last: int


def plan_runs(entries: np.ndarray, starts: Sequence[int], length: int, num_frames: int) -> list[Run]:
    """The runs that hold all clips; empty when it is not worth it, or not possible.

    Args:
        entries: rising numbers of frames where decoding may begin.
        starts: rising first frames of the clips.
        length: frames in a clip.
        num_frames: of the video.

    Example:
        >>> plan_runs(np.array([0, 100, 200, 300]), [0, 120, 210, 390], 16, 1000)
        [Run(first=0, last=15), Run(first=100, last=135), Run(first=200, last=225), Run(first=300, last=405)]
        >>> plan_runs(np.array([0, 500]), [0, 400], 16, 1000), plan_runs(np.array([0, 10]), [0, 10, 500], 16, 1000)
        ([Run(first=0, last=415)], [])
    """
    runs: list[Run] = []
    for start in starts:
        place = int(np.searchsorted(entries, start, side="right")) - 1
        if place < 0:
            return []
        first, last = int(entries[place]), min(start + length, num_frames) - 1
        if runs and first <= runs[-1].last + 1:
            runs[-1] = Run(runs[-1].first, last)
        else:
            runs.append(Run(first, last))
    decoded = sum(run.last - run.first + 1 for run in runs)
    return runs if decoded < _WORTH * num_frames else []


def decode_runs(
    path: str | os.PathLike[str], container: InputContainer, stream: VideoStream, scan: Scan, runs: Sequence[Run]
) -> Iterator[tuple[int, VideoFrame]]:
    """The frames of the runs, with their numbers.

    Raises:
        DamagedError: something was not as the scan promises. What came before it is sound, the rest must be read from
            the start of the file.
    """
    assert scan.pts is not None  # else there are no entries, and no runs
    shown = np.sort(scan.pts)
    for run in runs:
        tally = Tally()
        packets = _packets_from(path, container, stream, scan, run.first, tally)
        number = run.first
        for frame in decode_frames(path, stream, packets, tally, strict=True):
            if number == len(shown) or frame.pts != shown[number]:
                raise DamagedError
            yield number, frame
            number += 1
            if number > run.last:
                break
        else:
            raise DamagedError


def _packets_from(
    path: str | os.PathLike[str],
    container: InputContainer,
    stream: VideoStream,
    scan: Scan,
    position: int,
    tally: Tally,
) -> Iterator[Packet]:
    """The packets from that position on, counted, each checked to be the one that the scan saw there."""
    assert scan.pts is not None
    if scan.kept is not None:
        stream.codec_context.flush_buffers()
        packets = iter(scan.kept[position:])
    else:
        try:
            container.seek(int(scan.dts[np.searchsorted(scan.entries, position)]), stream=stream)  # flushes too
        except av.error.FFmpegError:
            raise DamagedError from None
        packets = read_packets(path, container, stream, Tally())
    found = False
    for packet in packets:
        if not found and packet.pts is not None and packet.pts < scan.pts[position]:
            continue  # the container's index is coarser than its keyframes
        found = True
        if position == len(scan.pts) or packet.pts != scan.pts[position]:
            raise DamagedError
        tally.packets += 1
        position += 1
        yield packet
    if position != len(scan.pts):
        raise DamagedError
