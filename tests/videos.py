"""Small encoded videos for the tests, written with PyAV."""

import shutil
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

MATRICES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}  # Kr, Kb
MATRIX_CODES = {"bt601": 6, "bt709": 1, "bt2020": 9}  # AVColorSpace
RANGE_CODES = {"limited": 1, "full": 2}  # AVColorRange
X264 = {"crf": "10", "bf": "2", "g": "12", "preset": "veryfast"}


def write_video(
    path: Path,
    frames: Sequence[np.ndarray] | Sequence[VideoFrame],
    *,
    codec: str = "ffv1",
    pix_fmt: str = "yuv444p",
    source: str = "rgb24",
    fps: int = 25,
    options: dict[str, str] | None = None,
    pts: Sequence[int] | None = None,
    rotation: int | None = None,
    flip: bool = False,
    colour: tuple[str, str] | None = None,
    title: str | None = None,
) -> Path:
    """Encodes arrays in the layout ``source`` (converted by FFmpeg to ``pix_fmt``), or ready frames in ``pix_fmt``."""
    with av.open(str(path), "w") as file:
        if title:
            file.metadata["title"] = title
        stream = None
        for number, array in enumerate(frames):
            frame = VideoFrame.from_ndarray(array, format=source) if isinstance(array, np.ndarray) else array
            if stream is None:
                stream = file.add_stream(codec, rate=fps, options=options or {})
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pix_fmt
                stream.codec_context.time_base = Fraction(1, fps)
                if rotation is not None:
                    if not hasattr(stream, "set_display_rotation"):
                        pytest.skip("this PyAV cannot write a display matrix")
                    stream.set_display_rotation(rotation, hflip=flip)
                if colour is not None:
                    stream.codec_context.colorspace = MATRIX_CODES[colour[0]]
                    stream.codec_context.color_range = RANGE_CODES[colour[1]]
            if colour is not None:
                frame.colorspace, frame.color_range = MATRIX_CODES[colour[0]], RANGE_CODES[colour[1]]
            frame.pts = number if pts is None else pts[number]
            frame.time_base = Fraction(1, fps)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def flat(rgb: tuple[int, int, int], height: int = 32, width: int = 48) -> np.ndarray:
    return np.broadcast_to(np.array(rgb, np.uint8), (height, width, 3)).copy()


def numbered(count: int, height: int = 64, width: int = 96) -> list[np.ndarray]:
    """Frames that carry their number as eight black or white bars, so that any codec keeps it readable."""
    bits = (np.arange(count)[:, None] >> np.arange(8)) & 1
    rows = np.repeat(bits.astype(np.uint8) * 255, width // 8, axis=1)
    return [np.broadcast_to(row[None, :, None], (height, row.size, 3)).copy() for row in rows]


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers that ``numbered`` drew, read back from (T, H, W, 3)."""
    bars = frames.mean(axis=(1, 3)).reshape(len(frames), 8, -1).mean(axis=2) > 127
    return (bars << np.arange(8)).sum(axis=1).tolist()


def gradient(height: int, width: int) -> np.ndarray:
    """A picture without symmetry: red grows to the right, green downwards, blue marks the top left corner."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.linspace(0, 255, width)[None, :]
    picture[..., 1] = np.linspace(0, 255, height)[:, None]
    picture[: height // 4, : width // 4, 2] = 255
    return picture


def yuv_frame(rgb: Sequence[float], matrix: str, colour_range: str, pix_fmt: str, size: tuple[int, int]) -> VideoFrame:
    """A flat frame of this colour (0..1), by the definition of the colour matrix and range."""
    (kr, kb), (height, width) = MATRICES[matrix], size
    luma = kr * rgb[0] + (1 - kr - kb) * rgb[1] + kb * rgb[2]
    chroma = [(rgb[2] - luma) / (2 * (1 - kb)), (rgb[0] - luma) / (2 * (1 - kr))]
    bits = 10 if "10" in pix_fmt else 8
    unit, top = 2 ** (bits - 8), 2**bits - 1
    if colour_range == "limited":
        levels = [(16 + 219 * luma) * unit, *((128 + 224 * c) * unit for c in chroma)]
    else:
        levels = [top * luma, *(128 * unit + top * c for c in chroma)]
    frame = VideoFrame(width, height, pix_fmt)
    for plane, level in zip(frame.planes, levels, strict=True):
        np.frombuffer(plane, np.uint16 if bits > 8 else np.uint8)[:] = min(round(level), top)
    return frame


def damaged(folder: Path) -> Path:
    """40 H.264 frames, of which packets 10 and 11 claim impossible lengths."""
    good = write_video(folder / "good.mp4", numbered(40), codec="libx264", pix_fmt="yuv420p", options=X264)
    with av.open(str(good)) as file:
        places = [(p.pos, p.size) for p in file.demux(video=0) if p.size]
    data = bytearray(good.read_bytes())
    for position, size in places[10:12]:
        data[position : position + size] = b"\xff" * size
    path = folder / "broken.mp4"
    path.write_bytes(data)
    return path


def ffmpeg(*arguments: str | Path) -> bytes:
    """Output of the ``ffmpeg`` program; the test is skipped without it."""
    return _program("ffmpeg", *arguments)


def ffprobe(*arguments: str | Path) -> str:
    return _program("ffprobe", *arguments).decode()


def _program(name: str, *arguments: str | Path) -> bytes:
    if shutil.which(name) is None:
        pytest.skip(f"the {name} program is not installed")
    done = subprocess.run([name, "-v", "error", *map(str, arguments)], capture_output=True, check=True)
    return done.stdout
