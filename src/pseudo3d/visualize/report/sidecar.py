"""The folder beside the page: previews of videos, made once, side by side, in processes of their own.

A preview is named after its video's path, size and time of change, so that a second page finds what the first has made
and a run that was stopped goes on. A video that hangs or crashes its decoder costs itself only.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType

from pseudo3d.cpus import available_cpus
from pseudo3d.errors import Pseudo3dError
from pseudo3d.video.opening import check_file
from pseudo3d.video.segments import file_of

_TIMEOUT = 120.0  # seconds for one video
_JPEG_END = b"\xff\xd9"
_WORKER = "pseudo3d.visualize.report.previews"

Wanted = tuple[str, Sequence[str], bool]
"""A video's name, its file (perhaps with a segment, ``#t=3,5``; of a pair both), and whether it needs a clip."""


@dataclass(frozen=True)
class Preview:
    """What there is to show of a video.

    Args:
        picture: the thumbnail, or None.
        clip: the name of its clip in the folder, or None when none was asked for or made.
        reason: why there is no picture; "" when there is one.
    """

    picture: Path | None
    clip: str | None
    reason: str = ""


def make_previews(
    folder: Path,
    videos: Sequence[Wanted],
    *,
    workers: int | None = None,
    on_done: Callable[[], None] = lambda: None,
) -> list[Preview]:
    """The previews of videos; those that are missing are made.

    Args:
        folder: where they lie; made if it is not there.
        videos: as ``Wanted`` says.
        workers: processes; None: one for each core.
        on_done: called after each video.

    Returns:
        One for each video, in the same order.

    Raises:
        Pseudo3dError: this FFmpeg cannot write H.264.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(clip for _, _, clip in videos):
        _check_encoder()
    with _Makers(workers or available_cpus()) as makers:

        def make(video: Wanted) -> Preview:
            preview = _preview(folder, *video, makers)
            on_done()
            return preview

        return makers.map(make, videos)


def preview_key(name: str, files: Sequence[str]) -> str:
    """What previews of a video, or of a pair, are named after; another one when a file changes.

    Raises:
        VideoError: there is no such file, or it is empty.
    """
    told: list[str | int] = [name]
    for path in map(file_of, files):
        check_file(path)
        status = path.stat()
        told += [status.st_size, status.st_mtime_ns]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:20]


def _preview(folder: Path, name: str, files: Sequence[str], wants_clip: bool, makers: "_Makers") -> Preview:
    try:
        key = preview_key(name, files)
    except Pseudo3dError as error:
        return Preview(None, None, _without_path(str(error), files))
    picture, clip = folder / f"{key}.jpg", folder / f"{key}.mp4"
    if not _is_whole(picture, _JPEG_END) or (wants_clip and not _is_whole(clip)):
        reason = makers.ask(files, picture, clip if wants_clip else None)
        if reason:
            return Preview(None, None, _without_path(reason, files))
    return Preview(picture, clip.name if _is_whole(clip) else None)


def _is_whole(file: Path, end: bytes = b"") -> bool:
    """Whether a preview is there and can be shown: a power cut or a copy that was stopped leaves parts of files."""
    if not file.is_file() or file.stat().st_size == 0:
        return False
    with file.open("rb") as opened:
        opened.seek(-min(len(end), file.stat().st_size), os.SEEK_END)
        return opened.read().endswith(end)


def _without_path(reason: str, files: Sequence[str]) -> str:
    """The reason alone, since the page has the path beside it; of a pair it says which of both."""
    for path in (files[0], str(file_of(files[0]))) if len(files) == 1 else ():
        reason = reason.removeprefix(f"{path}: ")
    return reason


def _check_encoder() -> None:
    import av.codec

    if "libx264" not in av.codec.codecs_available:
        raise Pseudo3dError("this PyAV cannot write H.264 (no libx264); give --previews none, or install a wheel of it")


class _Makers:
    """Processes that make previews, each driven by a thread."""

    def __init__(self, count: int) -> None:
        self._threads = ThreadPoolExecutor(count)
        self._free: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> "_Makers":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with self._lock:
            self._closed = True
            for process in self._running:
                process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in list(self._running):
            self._end(process)

    def map(self, function: Callable[[Wanted], Preview], items: Sequence[Wanted]) -> list[Preview]:
        return list(self._threads.map(function, items))

    def ask(self, videos: Sequence[str], picture: Path, clip: Path | None) -> str:
        """Have a preview made; why that is not possible, or ""."""
        try:
            process = self._free.get_nowait()
        except Empty:
            process = self._start()
        timer = threading.Timer(_TIMEOUT, process.kill)
        timer.start()
        answer = ""
        with contextlib.suppress(BrokenPipeError):  # it has died; the empty answer says so
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps([list(videos), str(picture), None if clip is None else str(clip)]) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        late = timer.finished.is_set()
        timer.cancel()
        if answer:
            self._free.put(process)
            return str(json.loads(answer))
        self._end(process)
        if late:
            return f"decoding it took more than {_TIMEOUT:.0f} s"
        return f"its decoder ended without an answer (exit code {process.returncode})"

    def _start(self) -> "subprocess.Popen[str]":
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        with self._lock:
            if self._closed:
                raise RuntimeError("the previews are stopped")
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", _WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # FFmpeg's lines on odd files
                text=True,
                encoding="ascii",  # JSON; a name that is not UTF-8 is escaped
                env=environment,
            )
            self._running.add(process)
        return process

    def _end(self, process: "subprocess.Popen[str]") -> None:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        with self._lock:
            self._running.discard(process)
