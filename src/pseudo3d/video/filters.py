"""Decoded frames to upright RGB arrays of one size, inside FFmpeg's filter graph.

decoded frame -> buffer -> transpose, hflip, vflip -> scale (size and colour in one step) -> format=rgb24 -> array
                           as the file's display matrix asks

Pictures that become smaller go through three planes (gbrp) on the way to rgb24: swscale has vector code for those, and
packs pixels one by one otherwise. The grey levels are the same (tests/video/test_filters.py).
"""

import math
import os
from collections.abc import Iterator

import av.error
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame
from jaxtyping import UInt8

from pseudo3d.errors import Pseudo3dError, VideoError

INTERPOLATIONS = ("bilinear", "bicubic", "area", "fast_bilinear")
MAX_SIDE = 1 << 14
MAX_PIXELS = 1 << 27  # 16K pictures fit; a decoder may hold 17 of them, 1.5 bytes a pixel each

# Without these two, swscale turns 4:2:0 into RGB through 8-bit tables whose results are 1 to 2 grey levels too dark on
# average and depend on whether the frame is also resized; with them a flat colour is the correctly rounded one.
_EXACT_COLOUR = "accurate_rnd+full_chroma_int"
_RESERVED_MATRIX, _UNSPECIFIED_MATRIX = 3, 2  # AVColorSpace: files carry the reserved value by mistake

Matrix = tuple[float, float, float, float]
IDENTITY: Matrix = (1.0, 0.0, 0.0, 1.0)


class RgbConverter:
    """Turns the frames of one video into RGB arrays; the size follows from the first frame and then stays.

    The colour matrix (bt601, bt709, bt2020) and range (limited, full) are the frame's own; where it names none,
    FFmpeg's defaults hold (bt601, limited; gray is full). An alpha channel is dropped, not blended. A frame whose
    resolution, format, colour or orientation differs from the one before gets a new graph.

    Args:
        size: short edge in pixels, (height, width), or None for the first frame's own size.
        interpolation: one of ``INTERPOLATIONS``.
        threads: of the scaler, 0 for FFmpeg's choice.
    """

    def __init__(self, size: int | tuple[int, int] | None, interpolation: str, threads: int = 0) -> None:
        if interpolation not in INTERPOLATIONS:
            raise Pseudo3dError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}")
        check_size(size)
        self._size = size
        self._interpolation = interpolation
        self._threads = threads
        self._output: tuple[int, int] | None = None
        self._key: tuple[object, ...] = ()
        self._graph = Graph()

    def output_size(self, frame: VideoFrame) -> tuple[int, int]:
        """(height, width) of all results; the first frame that is shown here decides it."""
        if self._output is None:
            self._output = resized(upright_size(frame), self._size)
        return self._output

    def __call__(self, frame: VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
        """The frame as RGB, upright and resized; it shares FFmpeg's memory, so copy what is to be kept.

        Raises:
            av.error.FFmpegError: FFmpeg has no conversion for this format or colour matrix.
        """
        key = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, display_matrix(frame))
        if key != self._key:
            self._graph = self._build(frame)
            self._key = key
        self._graph.push(frame)
        picture = self._graph.vpull()
        plane = picture.planes[0]
        data = np.frombuffer(plane, np.uint8)  # type: ignore[call-overload]  # a buffer, which its stub does not say
        rows = data.reshape(picture.height, plane.line_size)  # lines are padded
        return rows[:, : picture.width * 3].reshape(picture.height, picture.width, 3)

    def _build(self, frame: VideoFrame) -> Graph:
        height, width = self.output_size(frame)
        matrix = _UNSPECIFIED_MATRIX if frame.colorspace == _RESERVED_MATRIX else frame.colorspace
        size, threads = f"{width}:{height}", f":threads={self._threads}" if self._threads else ""
        # With two taps down a column (enlarging, fast_bilinear) swscale rounds planes and packed pixels differently.
        planar = self._interpolation in ("bilinear", "bicubic") and upright_size(frame)[0] >= 1.1 * height
        graph = Graph()
        nodes = [
            # By hand, because Graph.add_buffer leaves out colour, which FFmpeg expects to agree with the frames'.
            graph.add(
                "buffer",
                video_size=f"{frame.width}x{frame.height}",
                pix_fmt=frame.format.name,
                time_base="1/1000",
                colorspace=str(int(matrix)),
                range=str(int(frame.color_range)),
            ),
            *(graph.add(name, arguments) for name, arguments in _upright_filters(display_matrix(frame))),
            graph.add("scale", f"{size}:flags={self._interpolation}+{_EXACT_COLOUR}{threads}"),
            *((graph.add("format", "gbrp"), graph.add("scale", f"{size}{threads}")) if planar else ()),
            graph.add("format", "rgb24"),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*nodes).configure()
        return graph


def converted(path: str | os.PathLike[str], converter: RgbConverter, frame: VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
    """What ``converter`` makes of the frame, with FFmpeg's refusal as a message about the file.

    Raises:
        VideoError: FFmpeg has no conversion for this format or colour matrix.
    """
    try:
        return converter(frame)
    except MemoryError:  # FFmpeg's derives from both; it says nothing about the frame
        raise
    except av.error.FFmpegError as error:
        raise VideoError(
            f"{path}: FFmpeg cannot turn its frames ({frame.format.name}, colour matrix {int(frame.colorspace)}) into "
            f"RGB ({error.strerror}); convert the video, for example to H.264 in bt709"
        ) from None


def check_size(size: int | tuple[int, int] | None) -> None:
    """Refuses a target size that is not positive or is absurdly large.

    Example:
        >>> check_size(0)
        Traceback (most recent call last):
        pseudo3d.errors.Pseudo3dError: size must be 1 to 16384 pixels, got 0
    """
    edges = () if size is None else (size,) if isinstance(size, int) else tuple(size)
    if any(not 1 <= edge <= MAX_SIDE for edge in edges):
        raise Pseudo3dError(f"size must be 1 to {MAX_SIDE} pixels, got {size}")


def resized(native: tuple[int, int], size: int | tuple[int, int] | None) -> tuple[int, int]:
    """The (height, width) that ``size`` asks for.

    Args:
        native: (height, width) of the upright frame.
        size: (height, width); or the short edge, and the long one is int(size * long / short), truncated as in
            torchvision's Resize; or None for ``native``.

    Example:
        >>> resized((240, 320), 162), resized((320, 240), 162), resized((240, 320), (182, 242))
        ((162, 216), (216, 162), (182, 242))
    """
    if size is None:
        return native
    if not isinstance(size, int):
        return size[0], size[1]
    height, width = native
    if height <= width:
        return size, size * width // height
    return size * height // width, size


def display_matrix(frame: VideoFrame) -> Matrix:
    """(a, b, c, d) of the frame's display matrix: the pixel at (x, y) is shown at (a x + c y, b x + d y)."""
    # Not frame.side_data: the frame would hold what holds it, and live on with its pixels until the next collection.
    side_data = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]  # its stub knows no __init__
    if side_data is None:
        return IDENTITY
    # 3x3 in 16.16 fixed point, row by row; the last column and row move and project, which is not used.
    entries = np.frombuffer(side_data, np.int32).tolist()
    return entries[0] / 65536, entries[1] / 65536, entries[3] / 65536, entries[4] / 65536


def clockwise_degrees(matrix: Matrix) -> float:
    """How far the stored picture is turned clockwise to be upright, 0 to 360 (degrees).

    Example:
        >>> clockwise_degrees((0.0, 1.0, -1.0, 0.0))  # a phone held upright
        90.0
    """
    a, b, c, d = matrix
    across, down = math.hypot(a, c), math.hypot(b, d)
    if across == 0 or down == 0:
        return 0.0
    return math.degrees(math.atan2(b / down, a / across)) % 360


def upright_size(frame: VideoFrame) -> tuple[int, int]:
    """(height, width) of the frame after it has been turned upright."""
    turned = any(name == "transpose" for name, _ in _upright_filters(display_matrix(frame)))
    return (frame.width, frame.height) if turned else (frame.height, frame.width)


def _upright_filters(matrix: Matrix) -> Iterator[tuple[str, str | None]]:
    """The filters that show the picture as its display matrix asks, with the ``ffmpeg`` program's choices.

    Quarter turns and mirror images are a transposition (or none) and then a flip of each axis whose entry is negative;
    other angles are drawn into a frame of the same size, with black corners.
    """
    a, b, c, d = matrix
    degrees = clockwise_degrees(matrix)
    if abs(degrees - 90 * round(degrees / 90)) >= 1:
        yield "rotate", f"{degrees}*PI/180"
        return
    turned = round(degrees / 90) % 2 == 1
    if turned:
        yield "transpose", "cclock_flip"  # the plain transposition, without a flip
    if (c if turned else a) < 0:
        yield "hflip", None
    if (b if turned else d) < 0:
        yield "vflip", None
