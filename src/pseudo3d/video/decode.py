"""Video files to clips with PyAV (FFmpeg): the frame at index i is FFmpeg's frame i, upright, in RGB.

Frames are decoded from the start of the file in order and counted, so an index means the same frame whatever else is
asked for. (``clips.ClipStream`` seeks, where that gives the same frames.) Only the frames that are asked for are
converted. Packets that FFmpeg cannot decode are counted and logged (logger "pseudo3d"), and decoding goes on, as in the
``ffmpeg`` program.

What FFmpeg makes up for the lost parts of a damaged stream depends on its number of threads. A stream that turns out
to be damaged is therefore read again with one thread: the result never depends on ``threads``.
"""

import logging
import os
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from pseudo3d.clip import Clip
from pseudo3d.errors import Pseudo3dError, VideoError
from pseudo3d.video.filters import RgbConverter, clockwise_degrees, converted, display_matrix, upright_size
from pseudo3d.video.opening import checked_threads, open_video
from pseudo3d.video.packets import DamagedError, PathLike, Tally, count_packets, decode_frames, no_frames, read_packets
from pseudo3d.video.segments import Segment, find_segment
from pseudo3d.video.timing import FrameTimes, frame_rate, frames_within, no_frame_within, stream_duration

_log = logging.getLogger("pseudo3d")

Size = int | tuple[int, int] | None


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of its video; only the first frame is decoded.

    Args:
        width: of the upright frame, pixels.
        height: of the upright frame, pixels.
        fps: average rate, frames/s, or None when the file does not say.
        num_packets: of the video stream. Nearly always the number of frames, but damaged packets, hidden frames (VP8)
            and packed B-frames make a difference: ``count_frames`` is exact.
        duration: seconds, or None.
        codec: FFmpeg's name, for example "h264".
        pixel_format: FFmpeg's name, for example "yuv420p".
        rotation: degrees that the stored picture is turned clockwise to be upright, 0 to 359.
    """

    width: int
    height: int
    fps: float | None
    num_packets: int
    duration: float | None
    codec: str
    pixel_format: str
    rotation: int


@dataclass(frozen=True, eq=False)
class SampledVideo:
    """The clips of one video, made from one decoding.

    Args:
        clips: one for each row of ``indices``. Clips that overlap may share memory: copy before changing pixels.
        indices: (clips, length), the frame numbers in each clip.
        num_frames: frames in the whole video, counted by decoding it.
        fps: average rate, frames/s, or None when the file does not say.
        undecodable_packets: packets of the whole file that FFmpeg could not decode; 0 for a sound file.
    """

    clips: list[Clip]
    indices: Int64[np.ndarray, "clips length"]
    num_frames: int
    fps: float | None
    undecodable_packets: int


def probe(path: PathLike) -> VideoInfo:
    """Size, rate and length of a video, quickly: all packets are read, one frame is decoded. Of a segment, its file's.

    Raises:
        VideoError: the file cannot be used as a video, or none of its frames can be decoded.
    """
    with open_video(path, threads=1) as (container, stream):
        tally = Tally()
        packets = read_packets(path, container, stream, tally)
        first = next(decode_frames(path, stream, packets, tally, strict=False), None)
        if first is None:
            raise no_frames(path, tally, stream)
        rotation = clockwise_degrees(display_matrix(first))
        height, width = upright_size(first)
        codec, pixel_format = stream.codec_context.codec.canonical_name, first.format.name
        fps, duration = frame_rate(stream), stream_duration(container, stream)
    return VideoInfo(width, height, fps, count_packets(path), duration, codec, pixel_format, round(rotation) % 360)


def count_frames(path: PathLike, threads: int = 0) -> int:
    """The exact number of frames, by decoding the whole file; of a segment too, those of its file.

    Args:
        path: the video file.
        threads: of the decoder, 0 for FFmpeg's choice.

    Raises:
        VideoError: the file cannot be used as a video, or none of its frames can be decoded.
    """
    read = _read(path, np.empty(0, np.int64), RgbConverter(None, "bilinear"), threads, to_end=True)
    _log_damage(path, read.undecodable)
    return read.num_frames


def read_video(
    path: PathLike,
    *,
    indices: Sequence[int] | np.ndarray | None = None,
    size: Size = None,
    interpolation: str = "bilinear",
    threads: int = 0,
) -> Clip:
    """The frames of a video, all of them or those asked for.

    Args:
        path: the video file, or a segment of it (``video.segments``), for which the file is decoded twice.
        indices: frame numbers from 0, in any order, repeats allowed; the frames come in this order. Decoding stops
            at the last one. None for all frames, or all of the segment; numbers are those of the file in any case.
        size: None for the native size; an int for the short edge in pixels, where the long edge is
            int(size * long / short) as in torchvision; or (height, width). Rotation is applied before.
        interpolation: "bilinear", "bicubic", "area" or "fast_bilinear" (FFmpeg's scalers; the last one is faster and 4
            to 15 grey levels off on average).
        threads: of the decoder, 0 for FFmpeg's choice. The result does not depend on it.

    Returns:
        A clip of uint8 RGB frames (T, H, W, 3) and their times in seconds: pts * time base. A frame without a pts is
        placed one average frame duration after the one before, the first at 0. AVI stores no display times: there,
        frame i is at i / rate.

    Raises:
        VideoError: the file cannot be used as a video, or has no frame of that number or in that segment.
        Pseudo3dError: an argument is wrong.

    Example:
        >>> import av, numpy as np, tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "grey.mkv"
        >>> with av.open(path, "w") as file:
        ...     stream = file.add_stream("ffv1", rate=10, width=48, height=32, pix_fmt="gray")
        ...     for level in (0, 50, 100, 150):
        ...         frame = av.VideoFrame.from_ndarray(np.full((32, 48), level, np.uint8), format="gray")
        ...         file.mux(stream.encode(frame))
        ...     file.mux(stream.encode())
        >>> clip = read_video(path, indices=[3, 1, 1], size=16)
        >>> clip.frames.shape, clip.frames[:, 0, 0, 0].tolist(), clip.timestamps.tolist()
        ((3, 16, 24, 3), [150, 50, 50], [0.3, 0.1, 0.1])
    """
    converter = RgbConverter(size, interpolation, checked_threads(threads))
    segment = find_segment(path)[1]
    if indices is None and segment is not None:
        indices = _numbers_within(path, segment)
    if indices is None:
        read = _read_all(path, converter, threads)
        places = np.arange(read.num_frames)
    else:
        chosen = _checked_indices(indices)
        wanted, places = np.unique(chosen, return_inverse=True)
        read = _read(path, wanted, converter, threads, to_end=False)
        if wanted[-1] >= read.num_frames:
            missing = int(wanted[wanted >= read.num_frames][0])
            raise VideoError(f"{path}: has no frame {missing}: it has {read.num_frames} frames, numbered from 0")
    _log_damage(path, read.undecodable)
    return read.clip(path, places)


def read_clips(
    path: PathLike,
    sampler: Callable[[int], np.ndarray],
    *,
    size: Size = None,
    interpolation: str = "bilinear",
    threads: int = 0,
) -> SampledVideo:
    """The clips that a sampler chooses; every frame is decoded, converted and resized once for all of them.

    The sampler is asked with the number of packets first. The file is then decoded to its end, which gives the exact
    number of frames; where it differs (damaged packets, hidden frames, packed B-frames) the sampler is asked again and
    the file decoded once more. The result is always that of the exact number. Memory holds the distinct frames of the
    clips, not the video.

    Args:
        path: the video file; of a segment, the sampler still numbers the frames of the whole file.
        sampler: number of frames -> (clips, length) integers, see ``pseudo3d.video.sampling``. It may be called twice;
            one that draws at random then draws again.
        size: as in ``read_video``.
        interpolation: as in ``read_video``.
        threads: as in ``read_video``.

    Raises:
        VideoError: the file cannot be used as a video.
        Pseudo3dError: an argument is wrong, or the sampler's frame numbers are.
    """
    converter = RgbConverter(size, interpolation, checked_threads(threads))
    expected = count_packets(path)
    read, indices, places = _read_sampled(path, sampler, expected, converter, threads)
    if read.num_frames != expected:
        expected = read.num_frames
        read, indices, places = _read_sampled(path, sampler, expected, converter, read.threads)
    if read.num_frames != expected:
        raise VideoError(f"{path}: changed while it was read; wait until it is completely written")
    _log_damage(path, read.undecodable)
    clips = [read.clip(path, row) for row in places]
    return SampledVideo(clips, indices, read.num_frames, read.fps, read.undecodable)


@dataclass(frozen=True, eq=False)
class _Read:
    """The wanted frames of one reading; ``num_frames`` is the whole video's when the end was reached."""

    frames: np.ndarray
    timestamps: np.ndarray
    num_frames: int
    undecodable: int
    fps: float | None
    threads: int

    def clip(self, path: PathLike, places: np.ndarray) -> Clip:
        """The frames at these places of ``frames``; a run of neighbours is a view."""
        if (np.diff(places) == 1).all():
            run = slice(int(places[0]), int(places[-1]) + 1)
            return Clip(self.frames[run], self.timestamps[run], os.fspath(path), self.undecodable)
        return Clip(self.frames[places], self.timestamps[places], os.fspath(path), self.undecodable)


def _read(path: PathLike, wanted: np.ndarray, converter: RgbConverter, threads: int, *, to_end: bool) -> _Read:
    """The frames numbered ``wanted`` (sorted, without repeats), as one thread decodes them."""
    try:
        return _read_once(path, wanted, converter, threads, to_end=to_end)
    except DamagedError:
        return _read_once(path, wanted, converter, 1, to_end=to_end)


def _read_once(path: PathLike, wanted: np.ndarray, converter: RgbConverter, threads: int, *, to_end: bool) -> _Read:
    numbers = wanted.tolist()
    frames, times = np.empty((0, 0, 0, 3), np.uint8), np.empty(len(numbers), np.float64)
    kept = seen = 0
    with open_video(path, threads) as (container, stream):
        tally, fps, seconds = Tally(), frame_rate(stream), FrameTimes(container, stream)
        packets = read_packets(path, container, stream, tally)
        for frame in decode_frames(path, stream, packets, tally, strict=threads != 1):
            time = seconds(frame, seen)
            if seen == 0:
                frames = _allocate(path, len(numbers), converter.output_size(frame))
            if kept < len(numbers) and numbers[kept] == seen:
                frames[kept], times[kept] = converted(path, converter, frame), time
                kept += 1
            seen += 1
            if kept == len(numbers) and not to_end:
                break
        if seen == 0:
            raise no_frames(path, tally, stream)
    return _Read(frames[:kept], times[:kept], seen, tally.undecodable, fps, threads)


def _read_sampled(
    path: PathLike, sampler: Callable[[int], np.ndarray], num_frames: int, converter: RgbConverter, threads: int
) -> tuple[_Read, np.ndarray, np.ndarray]:
    """The sampled frames, each once, the frame numbers (clips, length), and where each of them is in the reading."""
    indices = _sampled(path, sampler, num_frames)
    wanted, places = np.unique(indices, return_inverse=True)
    return _read(path, wanted, converter, threads, to_end=True), indices, places.reshape(indices.shape)


def _numbers_within(path: PathLike, segment: Segment) -> np.ndarray:
    """The numbers of the frames of a segment, by decoding the whole file: only that tells when each is shown."""
    with open_video(path, threads=1) as (container, stream):
        tally, seconds, times = Tally(), FrameTimes(container, stream), array("d")
        frames = decode_frames(path, stream, read_packets(path, container, stream, tally), tally, strict=False)
        times.extend(seconds(frame, number) for number, frame in enumerate(frames))
        if not times:
            raise no_frames(path, tally, stream)
    first, stop = frames_within(np.array(times), segment)
    if first == stop:
        raise no_frame_within(path, np.array(times), segment)
    return np.arange(first, stop)


def _read_all(path: PathLike, converter: RgbConverter, threads: int) -> _Read:
    """Every frame, in an array that is allocated once: its length is the packet count unless that proves too small."""
    read = _read(path, np.arange(count_packets(path)), converter, threads, to_end=True)
    if read.num_frames > len(read.frames):
        read = _read(path, np.arange(read.num_frames), converter, read.threads, to_end=True)
    return read


def _allocate(path: PathLike, count: int, size: tuple[int, int]) -> np.ndarray:
    try:
        return np.empty((count, *size, 3), np.uint8)
    except MemoryError:
        raise VideoError(
            f"{path}: {count} frames of {size[1]}x{size[0]} do not fit into memory; ask for fewer or smaller ones"
        ) from None


def _log_damage(path: PathLike, undecodable: int) -> None:
    if undecodable:
        _log.warning("%s: FFmpeg could not decode %d packets; their frames are missing", path, undecodable)


def _checked_indices(indices: Sequence[int] | np.ndarray) -> np.ndarray:
    chosen = np.asarray(indices)
    if chosen.ndim != 1 or chosen.size == 0 or not np.issubdtype(chosen.dtype, np.integer):
        raise Pseudo3dError(
            f"indices must be a 1-D list of at least one frame number, got {chosen.dtype} of shape {chosen.shape}"
        )
    if chosen.min() < 0:
        raise Pseudo3dError(f"indices must not be negative, got {int(chosen.min())}; count frames from 0")
    return chosen.astype(np.int64)


def _sampled(path: PathLike, sampler: Callable[[int], np.ndarray], num_frames: int) -> np.ndarray:
    indices = np.asarray(sampler(num_frames))
    if indices.ndim != 2 or indices.size == 0 or not np.issubdtype(indices.dtype, np.integer):
        raise Pseudo3dError(
            f"the sampler must give integers of shape (clips, length), got {indices.dtype} {indices.shape}"
        )
    if indices.min() < 0 or indices.max() >= num_frames:
        raise Pseudo3dError(
            f"the sampler chose frames {int(indices.min())} to {int(indices.max())} of a video of {num_frames}: {path}"
        )
    return indices.astype(np.int64)
