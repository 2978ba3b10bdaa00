"""Rates, durations and the times of frames, in seconds."""

from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

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
