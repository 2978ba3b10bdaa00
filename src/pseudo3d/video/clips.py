"""From a video file to the cropped clips that a network takes, as grey levels; no torch here."""

import logging
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import Int64, UInt8

from pseudo3d.errors import Pseudo3dError, VideoError
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.video.filters import RgbConverter, converted
from pseudo3d.video.opening import checked_threads, open_video
from pseudo3d.video.packets import DamagedError, PathLike, Tally, decode_frames, no_frames, read_packets
from pseudo3d.video.sampling import SAMPLERS, SLIDING_STRIDE, Sampler, draw_of
from pseudo3d.video.scan import Scan, scan_packets
from pseudo3d.video.seeking import decode_runs, plan_runs
from pseudo3d.video.segments import Segment, find_segment
from pseudo3d.video.timing import (
    FrameTimes,
    frame_rate,
    frames_within,
    guessed_times,
    no_frame_within,
    stream_duration,
)
from pseudo3d.video.transforms import center_crop
from pseudo3d.video.window import ClipWindow

_log = logging.getLogger("pseudo3d")

NumberedClip = tuple[int, UInt8[np.ndarray, "T h w 3"]]


@dataclass(frozen=True)
class ClipPlan:
    """Which clips of a video, and how they are made; plain data that can be sent to another process.

    Args:
        preprocessing: of the network: frames in a clip, size, crop.
        clips: how many; 20 in the paper. "sliding" does not look at it.
        sampler: "uniform", "authors", "sliding" or "random" (``video.sampling``).
        stride: frames from clip to clip; "sliding" only.
        seed: of "random", at least 0. With the number of frames and the name of the file (without its folder) it
            decides the clips: they are the same in every run, whatever other videos there are.

    Raises:
        Pseudo3dError: there is no such sampler, or a number is too small.

    Example:
        >>> ClipPlan(Preprocessing(num_frames=16), clips=3).starts(36)
        [0, 10, 20]
    """

    preprocessing: Preprocessing
    clips: int = 20
    sampler: str = "uniform"
    stride: int = SLIDING_STRIDE
    seed: int = 0

    def __post_init__(self) -> None:
        self.starts(1)  # what is wrong with the plan is said before it meets a video

    def starts(self, num_frames: int, path: PathLike = "") -> list[int]:
        """First frames of the clips of a video of that many frames, in the order of sampling.

        Args:
            num_frames: of the video, or of the segment: numbers are then counted from its first frame.
            path: of the video; "random" draws by its last part.
        """
        sample, rng = get_sampler(self.sampler), draw_of(self.seed, num_frames, PurePath(path).name)
        indices = sample(num_frames, self.clips, self.preprocessing.num_frames, self.stride, rng)
        starts: list[int] = indices[:, 0].tolist()
        return starts


@dataclass(frozen=True)
class ClipFacts:
    """What is known of a video when its clips have been read; plain data.

    Args:
        starts: first frame of each sampled clip, in the order of sampling; of a segment too in numbers of the video.
        rows: which delivered clip each sampled one is: in a short video several samples fall on the same frames.
        times: of the first frame of each sampled clip, seconds.
        num_frames: of the whole video (also when clips are of a segment), counted by decoding it, or by its packets
            when parts were left out.
        fps: average rate, frames/s, or None when the file does not say.
        duration: seconds, or None.
        undecodable_packets: packets that FFmpeg could not decode; 0 for a sound file.
        concealed_frames: frames that FFmpeg gave but marked as corrupt: parts of them are made up.
        seeks: runs of frames that were decoded, each from a keyframe; 0 when the file was decoded from start to end.
            With seeks, ``num_frames`` is that of the packets, and damage in what was not read is not known.
    """

    starts: tuple[int, ...]
    rows: tuple[int, ...]
    times: tuple[float, ...]
    num_frames: int
    fps: float | None
    duration: float | None
    undecodable_packets: int
    concealed_frames: int
    seeks: int


class _Span(NamedTuple):
    """The frames that clips are sampled from: ``first`` to ``stop`` - 1 of ``total``; all, but for a segment."""

    first: int
    stop: int
    total: int

    @property
    def size(self) -> int:
        return self.stop - self.first


class ClipStream:
    """The different clips of one video, one after the other, in bounded memory.

    Iterate once. Clips come in the order of their starts, numbered from 0, each as soon as its last frame is decoded:
    (number, uint8 RGB (T, h, w, 3), resized and centre-cropped). The array is valid until the next one is asked for,
    and may not be changed. A file that proves to be damaged, or to have another number of frames than packets, starts
    over: a number that comes again replaces what came before, and only those in ``facts.rows`` count in the end.

    Where the clips need less than half of the frames, and the kind of file allows it, only those are decoded, each run
    from a keyframe (``video.seeking``); docs/decoding.md says what that means.

    Of a segment (``video.segments``), the clips are sampled among its frames alone, which are looped where they are
    fewer than a clip has.

    Args:
        path: the video file, or a segment of it.
        plan: which clips.
        threads: of the decoder, 0 for FFmpeg's choice. The result does not depend on it; more than one pays off for
            large frames only.
        on_progress: called with every packet that is looked at and every frame that is decoded; a watchdog may listen.

    Attributes:
        facts: what is known of the video, once the iteration has ended.

    Raises:
        VideoError: (while iterating) the file cannot be used as a video, or the segment holds none of its frames.
        Pseudo3dError: ``threads`` is negative.

    Example:
        >>> import av, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "grey.mkv"
        >>> with av.open(path, "w") as file:
        ...     stream = file.add_stream("ffv1", rate=10, width=48, height=32, pix_fmt="gray")
        ...     for level in range(40):
        ...         frame = av.VideoFrame.from_ndarray(np.full((32, 48), level, np.uint8), format="gray")
        ...         file.mux(stream.encode(frame))
        ...     file.mux(stream.encode())
        >>> clips = ClipStream(path, ClipPlan(Preprocessing(resize=32, crop=(32, 32)), clips=3))
        >>> [(number, frames.shape, int(frames[0, 0, 0, 0])) for number, frames in clips]
        [(0, (16, 32, 32, 3), 0), (1, (16, 32, 32, 3), 12), (2, (16, 32, 32, 3), 24)]
        >>> clips.facts.starts, clips.facts.times
        ((0, 12, 24), (0.0, 1.2, 2.4))
    """

    facts: ClipFacts

    def __init__(
        self, path: PathLike, plan: ClipPlan, *, threads: int = 1, on_progress: Callable[[], None] | None = None
    ) -> None:
        self._path = path
        self._plan = plan
        self._threads = checked_threads(threads)
        self._progress = on_progress or (lambda: None)

    def __iter__(self) -> Iterator[NumberedClip]:
        self._segment = find_segment(self._path)[1]
        with open_video(self._path, self._threads) as (container, stream):
            scan = scan_packets(self._path, container, stream, self._progress)
            expected = self._expected(stream, scan)
            done = yield from self._from_scan(container, stream, scan, expected)
        if not done:
            yield from self._anew(expected)
        if self._span != expected:
            expected = self._span
            yield from self._anew(expected)
        if self._span != expected:
            raise VideoError(f"{self._path}: changed while it was read; wait until it is completely written")
        self._log_damage()

    def _expected(self, stream: VideoStream, scan: Scan) -> _Span:
        """The frames to sample from, as far as the packets tell; decoding them all tells for certain."""
        total = scan.tally.packets
        if self._segment is None:
            return _Span(0, total, total)
        if scan.pts is None or stream.time_base is None:
            first, stop = frames_within(guessed_times(stream, total), self._segment)
            return _Span(first, stop, total) if first < stop else _Span(0, total, total)
        times = np.sort(scan.pts) * stream.time_base.numerator / stream.time_base.denominator
        return self._within(self._segment, times)

    def _within(self, segment: Segment, times: np.ndarray) -> _Span:
        first, stop = frames_within(times, segment)
        if first == stop:
            raise no_frame_within(self._path, times, segment)
        return _Span(first, stop, len(times))

    def _starts(self, span: _Span) -> list[int]:
        return [span.first + start for start in self._plan.starts(span.size, self._path)]

    def _from_scan(
        self, container: InputContainer, stream: VideoStream, scan: Scan, span: _Span
    ) -> Generator[NumberedClip, None, bool]:
        """Reads with what the scan has found; False when that is no way to read this file."""
        held = min(self._plan.preprocessing.num_frames, span.size)
        runs = plan_runs(scan.entries, sorted(set(self._starts(span))), held, span.total)
        try:
            if runs:
                frames = decode_runs(self._path, container, stream, scan, runs)
                yield from self._cut(container, stream, frames, scan.tally, span, len(runs))
            elif scan.kept is not None:
                yield from self._whole(container, stream, scan.kept, scan.tally, span)
        except DamagedError:
            if not runs:
                self._threads = 1
            return False
        return bool(runs) or scan.kept is not None

    def _anew(self, span: _Span) -> Iterator[NumberedClip]:
        """Reads from start to end with a new decoder; damage, which shows while there are several threads, with one."""
        try:
            with open_video(self._path, self._threads) as (container, stream):
                tally = Tally()
                packets = read_packets(self._path, container, stream, tally)
                yield from self._whole(container, stream, packets, tally, span)
        except DamagedError:
            self._threads = 1
            yield from self._anew(span)

    def _whole(
        self, container: InputContainer, stream: VideoStream, packets: Iterable[Packet], tally: Tally, span: _Span
    ) -> Iterator[NumberedClip]:
        frames = decode_frames(self._path, stream, packets, tally, strict=self._threads != 1)
        yield from self._cut(container, stream, enumerate(frames), tally, span, 0)

    def _cut(
        self,
        container: InputContainer,
        stream: VideoStream,
        frames: Iterable[tuple[int, VideoFrame]],
        tally: Tally,
        span: _Span,
        runs: int,
    ) -> Iterator[NumberedClip]:
        """Cuts the clips of the frames of ``span`` out of the numbered frames, and states the facts."""
        preprocessing = self._plan.preprocessing
        samples = self._starts(span)
        starts = sorted(set(samples))
        times = dict.fromkeys(starts, 0.0)
        window = ClipWindow([start - span.first for start in starts], preprocessing.num_frames, span.size)
        converter = RgbConverter(preprocessing.resize, preprocessing.interpolation, self._threads)
        seconds, shown = FrameTimes(container, stream), array("d")
        number, concealed = -1, 0
        for number, frame in frames:
            self._progress()
            concealed += frame.is_corrupt
            time = seconds(frame, number)
            shown.append(time)
            if number in times:
                times[number] = time
            if window.wants(number - span.first):
                picture = center_crop(converted(self._path, converter, frame), preprocessing.crop)
                yield from window.add(number - span.first, picture)
        if number < 0:
            raise no_frames(self._path, tally, stream)
        self._span = span
        if not runs:
            whole = _Span(0, number + 1, number + 1)
            self._span = whole if self._segment is None else self._within(self._segment, np.array(shown))
        row = {start: i for i, start in enumerate(starts)}
        self.facts = ClipFacts(
            starts=tuple(samples),
            rows=tuple(row[start] for start in samples),
            times=tuple(times[start] for start in samples),
            num_frames=self._span.total,
            fps=frame_rate(stream),
            duration=stream_duration(container, stream),
            undecodable_packets=tally.undecodable,
            concealed_frames=concealed,
            seeks=runs,
        )

    def _log_damage(self) -> None:
        if self.facts.undecodable_packets:
            count = self.facts.undecodable_packets
            _log.warning("%s: FFmpeg could not decode %d packets; their frames are missing", self._path, count)
        if self.facts.concealed_frames:
            count = self.facts.concealed_frames
            _log.warning("%s: %d frames are damaged, FFmpeg made up parts of them", self._path, count)


@dataclass(frozen=True, eq=False)
class LoadedClips:
    """The test clips of one video: resized, centre crop, RGB grey levels.

    Args:
        frames: (distinct, T, h, w, 3), every clip once: in a short video several samples fall on the same frames.
        rows: (clips,), where in ``frames`` each sampled clip is.
        starts: (clips,), the first frame of each sampled clip.
        num_frames: of the whole video.
        fps: average rate, or None when the file does not say.
        undecodable_packets: 0 for a sound file.
    """

    frames: UInt8[np.ndarray, "distinct T h w 3"]
    rows: Int64[np.ndarray, "clips"]
    starts: Int64[np.ndarray, "clips"]
    num_frames: int
    fps: float | None
    undecodable_packets: int


def get_sampler(name: str) -> Sampler:
    """The sampler of that name (``video.sampling.SAMPLERS``).

    Raises:
        Pseudo3dError: there is none; the message lists them.
    """
    if name not in SAMPLERS:
        raise Pseudo3dError(f"no sampler {name!r}; there are {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def load_clips(
    path: PathLike, preprocessing: Preprocessing, *, clips: int = 20, sampler: str = "uniform", threads: int = 1
) -> LoadedClips:
    """Sample, decode, resize and crop the clips of one video by the paper's test protocol (section 4).

    Args:
        path: the video file, or a segment of it; decoded once for all its clips.
        preprocessing: of the network: frames in a clip, size, crop.
        clips: how many; 20 in the paper. "sliding" does not look at it: a clip every 8 frames, as many as that makes.
        sampler: "uniform", "authors", "sliding" or "random" (seed 0). All clips of the video are in memory at once,
            which for "sliding" grows with the video: 75 kB a frame for C3D. ``ClipStream`` gives them one by one.
        threads: of the decoder, 0 for FFmpeg's choice. More than one pays off for large frames only.

    Raises:
        VideoError: the file cannot be used as a video.
        Pseudo3dError: an unknown sampler.
    """
    stream = ClipStream(path, ClipPlan(preprocessing, clips, sampler), threads=threads)
    found = {number: frames.copy() for number, frames in stream}
    facts = stream.facts
    return LoadedClips(
        np.stack([found[number] for number in range(max(facts.rows) + 1)]),
        np.asarray(facts.rows, np.int64),
        np.asarray(facts.starts, np.int64),
        facts.num_frames,
        facts.fps,
        facts.undecodable_packets,
    )
