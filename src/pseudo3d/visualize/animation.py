"""Frames as files that people open: GIF, MP4 (H.264) and a sheet of all frames."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pseudo3d import files
from pseudo3d.errors import Pseudo3dError

MADE_BY = "p3d visualize"
"""In the metadata of each picture, by which it is known again (``is_ours``)."""

_GAP = 4  # pixels between the frames of a sheet


def save_gif(frames: UInt8[np.ndarray, "T H W 3"], path: str | Path, *, fps: float = 12.0) -> Path:
    """An animated GIF that goes round and round.

    Args:
        frames: RGB.
        path: the file; its folder is made if missing.
        fps: frames/s; GIF counts in hundredths of a second, browsers slow down below two of them.

    Raises:
        Pseudo3dError: no frames, or a rate outside 1..50.
    """
    _check(frames)
    if not 1 <= fps <= 50:
        raise Pseudo3dError(f"a GIF shows 1 to 50 frames a second, got {fps:g}")
    # one palette for all frames: a palette for each would flicker
    pictures = [Image.fromarray(frame) for frame in frames]
    palette = Image.fromarray(np.concatenate(frames[:: max(1, len(frames) // 16)])).quantize(255)
    pictures = [picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for picture in pictures]
    path = _ready(path)
    with files.replacing(path) as temporary:
        pictures[0].save(
            temporary, format="gif", save_all=True, append_images=pictures[1:], duration=round(100 / fps) * 10, loop=0,
            comment=MADE_BY.encode(),
        )  # fmt: skip
    return path


def save_mp4(frames: UInt8[np.ndarray, "T H W 3"], path: str | Path, *, fps: float = 25.0, crf: int = 18) -> Path:
    """An MP4 of H.264 in 4:2:0, which browsers and players open; an odd last row or column is left out.

    Args:
        frames: RGB, at least 2x2.
        path: the file; its folder is made if missing.
        fps: frames/s.
        crf: quality: 18 is hard to tell from the original, 28 is small.

    Raises:
        Pseudo3dError: no frames, or too small ones.
    """
    _check(frames)
    height, width = (length // 2 * 2 for length in frames.shape[1:3])
    if min(height, width) < 2:
        raise Pseudo3dError(f"H.264 takes frames of at least 2x2, got {frames.shape[1]}x{frames.shape[2]}")
    path = _ready(path)
    with files.replacing(path) as temporary, av.open(str(temporary), "w", format="mp4") as file:
        file.metadata.update(title=path.stem, comment=MADE_BY)
        stream = file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": str(crf), "movflags": "+faststart"}
        for frame in frames[:, :height, :width]:
            file.mux(stream.encode(VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        file.mux(stream.encode())
    return path


def save_sheet(frames: UInt8[np.ndarray, "T H W 3"], path: str | Path, *, columns: int = 8) -> Path:
    """A PNG with all frames in reading order.

    Args:
        frames: RGB.
        path: the file; its folder is made if missing.
        columns: frames in a row, at most.

    Raises:
        Pseudo3dError: no frames.
    """
    _check(frames)
    count, height, width = frames.shape[:3]
    columns = min(columns, count)
    rows = -(-count // columns)
    sheet = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), 255, np.uint8)
    for i, frame in enumerate(frames):
        top, left = _GAP + i // columns * (height + _GAP), _GAP + i % columns * (width + _GAP)
        sheet[top : top + height, left : left + width] = frame
    return save_png(Image.fromarray(sheet), path)


def save_png(picture: Image.Image, path: str | Path) -> Path:
    """A PNG that ``is_ours`` knows again; its folder is made if missing."""
    path, told = _ready(path), PngInfo()
    told.add_text("Software", MADE_BY)
    with files.replacing(path) as temporary:
        picture.save(temporary, format="png", pnginfo=told)
    return path


def is_ours(path: str | Path) -> bool:
    """Whether a GIF, MP4 or PNG was written by this module.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     is_ours(save_sheet(np.zeros((1, 8, 8, 3), np.uint8), f"{folder}/a.png"))
        True
    """
    path = Path(path)
    try:
        if path.suffix == ".mp4":
            with av.open(str(path)) as file:
                return file.metadata.get("comment") == MADE_BY
        with Image.open(path) as picture:
            told = picture.info.get("Software" if path.suffix == ".png" else "comment")
    except (OSError, av.FFmpegError):
        return False
    return told in (MADE_BY, MADE_BY.encode())


def _check(frames: np.ndarray) -> None:
    if len(frames) == 0:
        raise Pseudo3dError("there are no frames to write")


def _ready(path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
