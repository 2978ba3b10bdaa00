"""A thumbnail and a small H.264 clip of a video, or of two side by side; also the program that makes them.

Such a process reads one job a line (JSON: ``[videos, picture, clip]``) and answers one line each: an empty text, or why
the videos cannot be shown.
"""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import UInt8
from PIL import Image

from pseudo3d import files
from pseudo3d.errors import VideoError
from pseudo3d.video.filters import RgbConverter, converted, upright_size
from pseudo3d.video.opening import open_video
from pseudo3d.video.packets import Tally, decode_frames, no_frames, read_packets
from pseudo3d.video.segments import find_segment
from pseudo3d.video.timing import FrameTimes, frame_rate, stream_duration

SECONDS = 10.0
"""A clip is no longer."""
EDGE = 160
"""Pixels of a clip's short edge, at most."""
RATE = 15
"""Frames a second, at most."""
PICTURE_EDGE = 120
"""Pixels of a thumbnail's short edge, at most."""

_GAP = 4  # pixels between two videos
_LEAST = 16  # pixels: H.264 codes blocks of 16
_MARGIN = 2.0  # seconds before a segment to seek to: frames before a keyframe may be shown after it


def make_clip(video: str, clip: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Write the start of a video (or of its segment) as a small MP4 that browsers play.

    H.264 in 4:2:0, at most ``EDGE`` pixels (never enlarged), ``RATE`` frames/s and ``SECONDS`` long; its index comes
    first, so that it plays at once.

    Args:
        video: the file, perhaps with a segment (``#t=3,5``).
        clip: to write, in one step; its folder is there.

    Returns:
        The frame in the middle.

    Raises:
        VideoError: the video cannot be used, or has no frame in the segment.
        OSError: the clip cannot be written.
    """
    frames, places = _start_of(video)
    with files.replacing(clip, flush=False) as temporary:
        _encode(frames, places, temporary)
    return frames[len(frames) // 2]


def make_pair_clip(videos: Sequence[str], clip: Path) -> UInt8[np.ndarray, "H W 3"]:
    """As ``make_clip``, of several videos side by side, in time with each other; a shorter one stays at its end.

    Raises:
        VideoError: one of them cannot be used; it says which.
        OSError: the clip cannot be written.
    """
    shown = [_start_of(video) for video in videos]
    places = sorted({place for _, own in shown for place in own})
    steps = [np.maximum(0, np.searchsorted(own, places, side="right") - 1) for _, own in shown]
    frames = [
        side_by_side([own[step[i]] for (own, _), step in zip(shown, steps, strict=True)]) for i in range(len(places))
    ]
    with files.replacing(clip, flush=False) as temporary:
        _encode(frames, places, temporary)
    return frames[len(frames) // 2]


def side_by_side(frames: Sequence[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "H W 3"]:
    """Frames in a row, as high as the lowest of them, with a dark line between; the width is even, as H.264 needs it.

    Example:
        >>> side_by_side([np.zeros((20, 30, 3), np.uint8), np.zeros((40, 40, 3), np.uint8)]).shape
        (20, 54, 3)
    """
    height = min(len(frame) for frame in frames)
    parts = []
    for frame in frames:
        width = max(_LEAST, 2 * round(frame.shape[1] * height / len(frame) / 2))
        parts += [np.asarray(Image.fromarray(frame).resize((width, height))), np.zeros((height, _GAP, 3), np.uint8)]
    return np.concatenate(parts[:-1], axis=1)


def _start_of(video: str) -> tuple[list[UInt8[np.ndarray, "H W 3"]], list[int]]:
    """The frames of a clip, and their places in it, counted at ``RATE``.

    Raises:
        VideoError: the video cannot be used, or has no frame in the segment.
    """
    path, segment = find_segment(video)
    start, end = segment or (0.0, math.inf)
    frames: list[np.ndarray] = []
    places: list[int] = []
    for time, frame in _read(path, start):
        if segment is None and not places:
            start = time  # many files do not begin at 0
        if time >= min(end, start + SECONDS):
            break
        place = math.floor((time - start) * RATE + 0.01)  # times are rounded
        if place < 0 or (places and place <= places[-1]):
            continue
        if not places:
            converter = RgbConverter(_even_size(frame), "bilinear", threads=1)
        frames.append(converted(path, converter, frame).copy())
        places.append(place)
    if not frames:
        raise VideoError(f"{video}: has no frame in this segment; the video is shorter")
    return frames, places


def middle_frame(video: str) -> UInt8[np.ndarray, "H W 3"]:
    """A frame from about the middle of a video or segment, as the file has it near a keyframe; little is decoded.

    Raises:
        VideoError: the video cannot be used.
    """
    path, segment = find_segment(video)
    start, end = segment or (0.0, math.inf)
    with open_video(path, threads=1) as (container, stream):
        end = min(end, start + SECONDS, stream_duration(container, stream) or start)
    middle = (start + max(start, end)) / 2
    for time, frame in _read(path, middle):  # noqa: B007 (the last one is used)
        if time >= middle:
            break
    return converted(path, RgbConverter(_even_size(frame), "bilinear", threads=1), frame).copy()


def _read(path: Path, start: float) -> Iterator[tuple[float, VideoFrame]]:
    """Frames and their times, from a keyframe before ``start`` on; the last one comes in any case."""
    with open_video(path, threads=1) as (container, stream):
        times, tally = FrameTimes(container, stream), Tally()
        first = _seek(container, stream, start)
        frames = decode_frames(path, stream, read_packets(path, container, stream, tally), tally, strict=False)
        seen = False
        for number, frame in enumerate(frames):
            time = times(frame, number)
            if first and not seen and time > start:  # the seek went too far: read from the beginning
                break
            seen = True
            yield time, frame
        if seen:
            return
        if not first:
            raise no_frames(path, tally, stream)
    with open_video(path, threads=1) as (container, stream):
        times, tally = FrameTimes(container, stream), Tally()
        frames = decode_frames(path, stream, read_packets(path, container, stream, tally), tally, strict=False)
        number = -1
        for number, frame in enumerate(frames):
            yield times(frame, number), frame
        if number < 0:
            raise no_frames(path, tally, stream)


def _seek(container: InputContainer, stream: VideoStream, start: float) -> bool:
    """Whether reading goes on from elsewhere than the beginning."""
    if start <= _MARGIN or container.format.name == "avi" or frame_rate(stream) is None:  # an AVI has no times
        return False
    try:
        container.seek(int((start - _MARGIN) * 1_000_000), backward=True)
    except av.error.FFmpegError:  # this kind of file has no index
        return False
    return True


def _even_size(frame: VideoFrame) -> tuple[int, int]:
    height, width = upright_size(frame)
    scale = min(1.0, EDGE / min(height, width))
    return tuple(max(_LEAST, 2 * round(side * scale / 2)) for side in (height, width))  # type: ignore[return-value]


def _encode(frames: list[np.ndarray], places: list[int], path: Path) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        stream = out.add_stream("libx264", rate=RATE, options={"crf": "27", "preset": "veryfast"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, RATE)
        stream.codec_context.thread_count = 1
        for place, array in zip(places, frames, strict=True):
            frame = VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = place, Fraction(1, RATE)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def make(videos: Sequence[str], picture: Path, clip: Path | None) -> None:
    """Write the thumbnail (JPEG) of a video, or of a pair, and, if asked for, the clip, each in one step.

    Raises:
        VideoError: a video cannot be used.
        OSError: a file cannot be written.
    """
    if clip is None:
        frames = [middle_frame(video) for video in videos]
        frame = frames[0] if len(frames) == 1 else side_by_side(frames)
    else:
        frame = make_clip(videos[0], clip) if len(videos) == 1 else make_pair_clip(videos, clip)
    image = Image.fromarray(frame)
    image.thumbnail((16 * PICTURE_EDGE, PICTURE_EDGE) if image.width > image.height else (PICTURE_EDGE, 1920))
    with files.replacing(picture, flush=False) as temporary:
        image.save(temporary, format="jpeg", quality=88)


def main() -> None:
    """Serve the parent at the other ends of standard input and output."""
    for line in sys.stdin:
        videos, picture, clip = json.loads(line)
        try:
            make(videos, Path(picture), None if clip is None else Path(clip))
            answer = ""
        except VideoError as error:
            answer = str(error)
        except (OSError, av.error.FFmpegError) as error:  # a full disk is no fault of the decoder's
            answer = f"its preview could not be written: {error}"
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
