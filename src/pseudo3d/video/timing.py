"""Rates, durations and the times of frames, in seconds."""

import os
from collections.abc import Sequence

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pseudo3d.errors import VideoError
from pseudo3d.video.segments import Segment

_DEFAULT_RATE = 25.0  # frames/s where the file names none; FFmpeg's own default for raw streams


def frame_rate(stream: VideoStream) -> float | None:
    """Average rate, frames/s, or None when the file does not say."""
    return float(stream.average_rate) if stream.average_rate else None


def stream_duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds that the stream says it lasts, else the file, else None."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / 1_000_000  # AV_TIME_BASE, microseconds


class FrameTimes:
    """When the frames of one stream are shown; ask for every frame, in order.

    Args:
        container: the open file.
        stream: its video stream.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._step = 1 / (frame_rate(stream) or _DEFAULT_RATE)
        # FFmpeg guesses an AVI's pts from the order of packets; with B-frames it is wrong
        self._base = None if container.format.name == "avi" else stream.time_base
        self._counted = container.format.name == "avi"
        self._last = 0.0

    def __call__(self, frame: VideoFrame, number: int) -> float:
        """Seconds: pts * time base; in an AVI number / rate; without a pts one average step after the last frame."""
        if self._counted:
            self._last = number * self._step
        elif frame.pts is not None and self._base is not None:
            self._last = frame.pts * self._base.numerator / self._base.denominator
        else:
            self._last = self._last + self._step if number else 0.0
        return self._last


def guessed_times(stream: VideoStream, count: int) -> np.ndarray:
    """Times of so many frames, as they are if the first is at 0 and all are shown equally long."""
    return np.arange(count) / (frame_rate(stream) or _DEFAULT_RATE)


def frames_within(times: Sequence[float] | np.ndarray, segment: Segment) -> tuple[int, int]:
    """The first frame of a segment and the one after its last; equal when it holds none.

    Args:
        times: of all frames, seconds, at least one. Where they run backwards, the latest so far counts.
        segment: start and end, seconds; a frame at the end is outside.

    Example:
        >>> frames_within([0.0, 0.1, 0.2, 0.3], (0.1, 0.3)), frames_within([0.0, 0.1], (0.05, 0.1))
        ((1, 3), (1, 1))
    """
    first, stop = np.searchsorted(np.maximum.accumulate(times), segment).tolist()
    return first, max(first, stop)


def no_frame_within(path: str | os.PathLike[str], times: Sequence[float] | np.ndarray, segment: Segment) -> VideoError:
    """The error to raise for a segment without a frame."""
    last = float(np.max(times))
    lasts = last + (last - float(times[0])) / max(1, len(times) - 1)  # the last frame is shown for some time, too
    return VideoError(
        f"{path}: no frame is shown from {segment[0]:g} s to {segment[1]:g} s; the video has {len(times)} frames and "
        f"ends at {lasts:.2f} s: correct the segment"
    )
