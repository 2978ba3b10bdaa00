"""Where the frames of a video are, found out once and kept, so that a clip from its middle is read without the rest.

    file --index_video--> VideoIndex --IndexCache--> one small file per video, in the user's cache folder
    path + VideoIndex + start --read_frames--> the frames, exactly those of ``decode.read_video``

An index is made by decoding the whole file once, without turning frames into RGB. That is what makes it exact: the
number of frames is counted, never taken from the packets, and a file is sought in only if each of its frames came out
sound and with the time that its packets promised. All other files are read from the start, as far as needed.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import UInt8

from pseudo3d.cpus import available_cpus
from pseudo3d.errors import Pseudo3dError, VideoError
from pseudo3d.files import cache_folder, replacing
from pseudo3d.video.decode import Size
from pseudo3d.video.filters import RgbConverter, check_size, converted, resized, upright_size
from pseudo3d.video.index_file import VideoIndex, load_index, packed_index
from pseudo3d.video.opening import check_file, checked_threads, open_video
from pseudo3d.video.packets import DamagedError, PathLike, Tally, decode_frames, no_frames, read_packets
from pseudo3d.video.scan import PacketScanner, Scan
from pseudo3d.video.seeking import Run, decode_runs
from pseudo3d.video.segments import file_of, find_segment
from pseudo3d.video.timing import FrameTimes

_log = logging.getLogger("pseudo3d")

_HELD_BYTES = 128 << 20  # of indices in memory: some 20,000 of videos of 300 frames
_OBJECT_BYTES = 1000  # of an index without frames
_AT_ONCE = 1000  # videos handed to the threads of a build at a time


def index_video(path: PathLike) -> VideoIndex:
    """Decodes a video once, with one thread, and notes where its frames are.

    Args:
        path: the video file, or a segment of it (``video.segments``): the index is then that of the segment.

    Raises:
        VideoError: the file cannot be used as a video, or none of its frames (in the segment) can be decoded.

    Example:
        >>> import av, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "grey.mkv"
        >>> with av.open(path, "w") as file:
        ...     stream = file.add_stream("mjpeg", rate=10, width=48, height=32, pix_fmt="yuvj420p")
        ...     for level in (0, 50, 100):
        ...         frame = av.VideoFrame.from_ndarray(np.full((32, 48), level, np.uint8), format="gray")
        ...         file.mux(stream.encode(frame))
        ...     file.mux(stream.encode())
        >>> index = index_video(path)
        >>> index.num_frames, index.times.tolist(), index.size, index.entry(2)
        (3, [0.0, 0.1, 0.2], (32, 48), 2)
        >>> read_frames(path, index, 1, 4, size=16)[:, 0, 0, 0].tolist()
        [50, 100, 0, 50]
    """
    file, segment = find_segment(path)
    if segment is not None:
        return index_video(file).within(path, segment)
    times: list[float] = []
    pts: list[int | None] = []
    size, sound = (0, 0), True
    with open_video(path, threads=1) as (container, stream):
        tally, scanner, seconds = Tally(), PacketScanner(container, stream), FrameTimes(container, stream)
        packets = _looked_at(scanner, read_packets(path, container, stream, tally))
        for number, frame in enumerate(decode_frames(path, stream, packets, tally, strict=False)):
            size = size if number else upright_size(frame)
            sound = sound and not frame.is_corrupt
            times.append(seconds(frame, number))
            pts.append(frame.pts)
        if not times:
            raise no_frames(path, tally, stream)
        scan = scanner.result(tally)
    if tally.undecodable:
        _log.warning("%s: FFmpeg could not decode %d packets; their frames are missing", path, tally.undecodable)
    none = np.empty(0, np.int64)
    if not sound or scan.pts is None or not scan.entries.any() or np.sort(scan.pts).tolist() != pts:
        return VideoIndex(len(times), np.array(times), size, none, none, none)
    return VideoIndex(len(times), np.array(times), size, scan.pts, scan.entries, scan.dts)


def _looked_at(scanner: PacketScanner, packets: Iterable[Packet]) -> Iterator[Packet]:
    for packet in packets:
        scanner.look(packet)
        yield packet


def read_frames(
    path: PathLike,
    index: VideoIndex,
    start: int,
    length: int,
    *,
    size: Size = None,
    interpolation: str = "bilinear",
    threads: int = 1,
) -> UInt8[np.ndarray, "T h w 3"]:
    """Frames (start + k) mod num_frames, k = 0 to length - 1: those of ``read_video(path, indices=...)``, bit for bit.

    Of a segment, they are counted from its first frame, and come from it alone.

    Decoding begins at the last entry of the index up to ``start`` and ends with the last frame that is needed; what
    lies before the start is decoded, not converted. A file without entries, or that has changed since, is read from
    its start, and so are clips that go round its end.

    Args:
        path: the video file.
        index: of this file (``index_video``, ``IndexCache.get``).
        start: number of the first frame in what the index is of, from 0.
        length: frames, at least 1.
        size: as in ``read_video``: (height, width), the short edge, or None for the native size.
        interpolation: as in ``read_video``.
        threads: of the decoder, 0 for FFmpeg's choice. The result does not depend on it.

    Raises:
        VideoError: the file cannot be used as a video, or has lost the frames that are asked for since it was indexed.
        Pseudo3dError: an argument is wrong.
    """
    if start < 0 or length < 1:
        raise Pseudo3dError(f"start must be at least 0 and length at least 1, got {start} and {length}")
    check_size(size)
    checked_threads(threads)
    numbers = index.first + (start + np.arange(length)) % index.num_frames
    wanted, places = np.unique(numbers, return_inverse=True)
    entry = index.entry(int(wanted[0]))

    def attempt(entry: int, threads: int) -> np.ndarray:
        # The first frame of the file decides the size of all, also where the first to be decoded is another one.
        converter = RgbConverter(resized(index.size, size), interpolation, threads)
        with open_video(path, threads) as (container, stream):
            if entry:
                scan = Scan(Tally(), index.pts, index.entries, index.dts, None)
                numbered = decode_runs(path, container, stream, scan, [Run(entry, int(wanted[-1]))])
            else:
                numbered = _from_start(path, container, stream, strict=threads != 1)
            return _collected(path, converter, numbered, wanted)

    try:
        frames = attempt(entry, threads)
    except DamagedError:
        frames = attempt(0, 1)
    return frames if np.array_equal(places, np.arange(len(frames))) else frames[places]


def _from_start(
    path: PathLike, container: InputContainer, stream: VideoStream, *, strict: bool
) -> Iterator[tuple[int, VideoFrame]]:
    """All frames with their numbers."""
    tally = Tally()
    packets = read_packets(path, container, stream, tally)
    yield from enumerate(decode_frames(path, stream, packets, tally, strict=strict))


def _collected(
    path: PathLike, converter: RgbConverter, numbered: Iterable[tuple[int, VideoFrame]], wanted: np.ndarray
) -> np.ndarray:
    """The wanted ones (rising numbers) of the frames, which are not decoded any further than that."""
    numbers = wanted.tolist()
    frames = np.empty((0, 0, 0, 3), np.uint8)
    kept = 0
    for number, frame in numbered:
        if number < numbers[kept]:
            continue
        picture = converted(path, converter, frame)
        if kept == 0:
            frames = np.empty((len(numbers), *picture.shape), np.uint8)
        frames[kept] = picture
        kept += 1
        if kept == len(numbers):
            return frames
    raise VideoError(f"{path}: has no frame {numbers[kept]} any more; it changed after it was indexed, try again")


class IndexCache:
    """The indices of videos, each made once and kept in a file of its own.

    An index is made anew when the size or the time of change of its video differs from what they were, when its file
    in the cache is damaged, or when it was made with another version of PyAV. Processes may share a folder. One that
    cannot be written is no error: indices are then in memory only, which is logged once.

    Memory holds at most 128 MiB of indices. An object that is sent to another process goes without them.

    Args:
        folder: for the files; None for ``files.cache_folder() / "index"``. It is made when first needed.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (cache_folder() / "index" if folder is None else Path(folder)).absolute()
        self._told = False  # that the folder cannot be written
        self._forget()

    def _forget(self) -> None:
        self._held: dict[str, tuple[tuple[int, int], VideoIndex]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> tuple[Path, bool]:
        return self.folder, self._told

    def __setstate__(self, state: tuple[Path, bool]) -> None:
        self.folder, self._told = state
        self._forget()

    def get(self, path: PathLike) -> VideoIndex:
        """The index of a video or of a segment: from memory, from the folder, or made now and kept.

        Raises:
            VideoError: the file cannot be used as a video, or has no frame in the segment.
        """
        file, segment = find_segment(path)
        whole = self._whole(file)
        return whole if segment is None else whole.within(path, segment)

    def _whole(self, path: Path) -> VideoIndex:
        """The index of a whole file, which those of all its segments are cut out of."""
        place = os.path.abspath(path)  # noqa: PTH100  # Path.absolute keeps "..", and one file would have two names
        stamp = _stamp(path)  # before the file is read: if it changes meanwhile, the index will be out of date
        with self._lock:
            held = self._held.get(place)
        if held is not None and held[0] == stamp:
            return held[1]
        file = self.folder / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.npz"
        index = load_index(file, place, stamp)
        if index is None:
            index = index_video(path)
            self._save(file, packed_index(place, stamp, index))
        self._hold(place, stamp, index)
        return index

    def build(
        self, paths: Sequence[PathLike], *, on_video: Callable[[], None] | None = None, sharing: int = 1
    ) -> dict[Path, str]:
        """Makes sure that all these videos have an index, as many at a time as there are processors.

        Args:
            paths: video files and segments; each is looked at once, however often it is named.
            on_video: called after each of them, in this thread.
            sharing: processes of this machine that do the same now, each with its share of the processors.

        Returns:
            Those that cannot be used as a video, in the order of ``paths``, with the reason (it begins with the path).
        """
        different = list(dict.fromkeys(map(Path, paths)))
        of_files: dict[Path, list[Path]] = {}
        for path in different:
            of_files.setdefault(file_of(path), []).append(path)
        files, reasons, tell = list(of_files.values()), dict[Path, str](), on_video or (lambda: None)
        threads = max(1, available_cpus() // sharing)  # decoding and reading run outside Python's lock
        with ThreadPoolExecutor(threads) as pool:
            for first in range(0, len(files), _AT_ONCE):
                for bad, count in pool.map(self._bad, files[first : first + _AT_ONCE]):
                    reasons |= bad
                    for _ in range(count):
                        tell()
        return {path: reasons[path] for path in different if path in reasons}

    def _bad(self, paths: Sequence[Path]) -> tuple[dict[Path, str], int]:
        """Why there is no index of some of these (of one file, which the first is read for); and how many they are."""
        reasons = {}
        for path in paths:
            try:
                self.get(path)
            except VideoError as error:
                reasons[path] = str(error)
        return reasons, len(paths)

    def _hold(self, place: str, stamp: tuple[int, int], index: VideoIndex) -> None:
        """Keeps an index in memory, and drops the oldest ones when they become too many."""
        with self._lock:
            old = self._held.pop(place, None)
            self._bytes += _bytes_of(index) - (_bytes_of(old[1]) if old else 0)
            self._held[place] = stamp, index
            while self._bytes > _HELD_BYTES and len(self._held) > 1:
                self._bytes -= _bytes_of(self._held.pop(next(iter(self._held)))[1])

    def _save(self, file: Path, content: bytes) -> None:
        with self._lock:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with replacing(file, flush=False) as temporary:
                    temporary.write_bytes(content)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and file.exists():
                    return  # a process of the same number on another machine has put it there
                if not self._told:
                    _log.warning(
                        "%s: cannot be written (%s); indices of videos are kept in memory only and made anew by every "
                        "run; set PSEUDO3D_CACHE to another folder",
                        self.folder,
                        error.strerror,
                    )
                self._told = True


def _stamp(path: PathLike) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds, by which a file is known to be the same."""
    check_file(path)
    try:
        status = file_of(path).stat()
    except OSError as error:  # removed a moment ago
        raise VideoError(f"{path}: cannot be read ({error.strerror}); check its path and permissions") from None
    return status.st_size, status.st_mtime_ns


def _bytes_of(index: VideoIndex) -> int:
    return _OBJECT_BYTES + sum(array.nbytes for array in (index.times, index.pts, index.entries, index.dts))
