"""A path to an open file and its video stream, or to the one line that says why there is none."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

import av
import av.error
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from pseudo3d.errors import Pseudo3dError, VideoError
from pseudo3d.video.filters import MAX_PIXELS, MAX_SIDE
from pseudo3d.video.segments import file_of


@contextmanager
def open_video(path: str | os.PathLike[str], threads: int = 0) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The open file and its first video stream, ready to decode; closed at the end. Of a segment, the whole file.

    The stream is the one that ``ffmpeg -map 0:V:0`` takes: the first, cover pictures left out. (Without ``-map`` the
    program takes the largest, which in a file with several versions of a video need not be the first.)

    Raises:
        VideoError: the file is missing, empty, not a video, has sound only, or cannot be decoded by this FFmpeg.
    """
    check_file(path)
    with _open_container(path) as container:
        stream = _first_video_stream(path, container)
        check_frame_size(path, stream.codec_context.width, stream.codec_context.height)
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        yield container, stream


def checked_threads(threads: int) -> int:
    """Refuses a negative number of decoder threads."""
    if threads < 0:
        raise Pseudo3dError(f"threads must be 0 (FFmpeg's choice) or more, got {threads}")
    return threads


def check_file(path: str | os.PathLike[str]) -> None:
    """Refuses, with a message that tells them apart, what the file system already shows not to be a video."""
    try:
        status = file_of(path).stat()
    except FileNotFoundError:
        raise VideoError(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror}); check its path and permissions") from None
    if stat.S_ISDIR(status.st_mode):
        raise VideoError(f"{path}: is a folder, not a video; name the files in it")
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(f"{path}: is not a regular file (a pipe or device); copy the video to a file first")
    if status.st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes); copy or download it again")


def check_frame_size(path: str | os.PathLike[str], width: int, height: int) -> None:
    """Refuses frames whose header asks for an absurd amount of memory, before any is taken."""
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise VideoError(
            f"{path}: frames of {width}x{height} are larger than the limit of {MAX_SIDE} a side and {MAX_PIXELS} "
            f"pixels; the header is damaged, or the video must be made smaller first"
        )


def _open_container(path: str | os.PathLike[str]) -> InputContainer:
    try:
        # "file:" keeps FFmpeg from reading "12:30.mp4" as a protocol; old AVI files have titles that are not UTF-8.
        return av.open(
            f"file:{file_of(path)}", mode="r", metadata_errors="replace", options={"max_pixels": str(MAX_PIXELS)}
        )
    except OSError as error:  # FFmpeg's permission, I/O and memory errors derive from Python's
        raise VideoError(f"{path}: cannot be read ({error.strerror}); check its permissions and disk") from None
    except av.error.FFmpegError as error:
        with file_of(path).open("rb") as file:
            is_mp4 = file.read(8)[4:] == b"ftyp"
        if is_mp4:
            raise VideoError(
                f"{path}: an MP4 whose index (moov atom) is missing or damaged: the file was cut off or is still "
                f"being written; copy or record it again"
            ) from None
        raise VideoError(
            f"{path}: is not a video that FFmpeg can read ({error.strerror}); it may be cut off or be another kind of "
            f"file"
        ) from None


def _first_video_stream(path: str | os.PathLike[str], container: InputContainer) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = sorted({s.type for s in container.streams})
        if not kinds:
            raise VideoError(
                f"{path}: holds neither pictures nor sound: the file was cut off or is still being written; "
                f"copy or record it again"
            )
        raise VideoError(f"{path}: has no video stream (only {', '.join(kinds)}); is it a sound file?")
    if streams[0].codec_context is None:
        raise VideoError(f"{path}: this FFmpeg has no decoder for its video; convert it, for example to H.264")
    return streams[0]
