"""Crops and the mirror image of whole clips: one window for all frames, and views wherever NumPy allows."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from pseudo3d.errors import Pseudo3dError


class Window(NamedTuple):
    """Where a clip is cut out of its resized frames.

    Args:
        top: its first row.
        left: its first column.
        flipped: mirrored left to right after it was cut out.
    """

    top: int
    left: int
    flipped: bool = False


def center_window(frame: tuple[int, int], size: tuple[int, int]) -> Window:
    """The window of ``size`` in the middle of frames of size ``frame``, both (height, width); rounded as in Caffe.

    Raises:
        Pseudo3dError: the window is larger than the frames, or empty.

    Example:
        >>> center_window((128, 171), (112, 112))  # C3D's
        Window(top=8, left=29, flipped=False)
    """
    room_h, room_w = _room(frame, size)
    return Window(room_h // 2, room_w // 2)


def random_window(frame: tuple[int, int], size: tuple[int, int], rng: np.random.Generator) -> Window:
    """A window of ``size``, uniformly random inside frames of size ``frame`` (the paper's training crop, section 4).

    Args:
        frame: (height, width) of the frames.
        size: (height, width) of the window.
        rng: the source of chance; two integers are drawn, row then column.

    Raises:
        Pseudo3dError: the window is larger than the frames, or empty.

    Example:
        >>> random_window((182, 242), (160, 160), np.random.default_rng(0))
        Window(top=19, left=52, flipped=False)
    """
    room_h, room_w = _room(frame, size)
    return Window(int(rng.integers(0, room_h, endpoint=True)), int(rng.integers(0, room_w, endpoint=True)))


def cut_out(
    frames: UInt8[np.ndarray, "*rest H W 3"], window: Window, size: tuple[int, int]
) -> UInt8[np.ndarray, "*rest h w 3"]:
    """The same window of every frame.

    Args:
        frames: (..., H, W, 3), for example ``clip.frames``.
        window: one that lies inside the frames (``center_window``, ``random_window``).
        size: (height, width) of the window.

    Returns:
        (..., h, w, 3), a view: nothing is copied. A mirrored one has a negative stride, of which torch needs a
        contiguous copy.

    Example:
        >>> frames = np.arange(12, dtype=np.uint8).reshape(1, 4, 3)
        >>> cut_out(frames, Window(0, 1, flipped=True), (1, 2)).tolist()
        [[[6, 7, 8], [3, 4, 5]]]
    """
    part = frames[..., window.top : window.top + size[0], window.left : window.left + size[1], :]
    return part[..., ::-1, :] if window.flipped else part


def center_crop(frames: UInt8[np.ndarray, "*rest H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "*rest h w 3"]:
    """The window in the middle of every frame; its top left corner is ((H - h) // 2, (W - w) // 2), as in Caffe.

    Args:
        frames: (..., H, W, 3), for example ``clip.frames``.
        size: (height, width) of the window.

    Returns:
        (..., h, w, 3), a view: nothing is copied.

    Raises:
        Pseudo3dError: the window is larger than the frames, or empty.

    Example:
        >>> frames = np.zeros((16, 128, 171, 3), np.uint8)
        >>> center_crop(frames, (112, 112)).shape  # C3D's crop, at row 8 and column 29
        (16, 112, 112, 3)
    """
    return cut_out(frames, center_window(frames.shape[-3:-1], size), size)


def _room(frame: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """How far the window can move down and to the right."""
    (height, width), (h, w) = frame, size
    if h < 1 or w < 1:
        raise Pseudo3dError(f"a crop must be at least 1x1, got height {h} and width {w}")
    if h > height or w > width:
        raise Pseudo3dError(
            f"a crop {h} high and {w} wide does not fit into frames {height} high and {width} wide: "
            f"resize the frames to at least the crop, or ask for a smaller crop"
        )
    return height - h, width - w
