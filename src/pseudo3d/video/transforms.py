"""Crops and the mirror image of whole clips: one window for all frames, and views wherever NumPy allows."""

import numpy as np
from jaxtyping import UInt8

from pseudo3d.errors import Pseudo3dError


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
    room_h, room_w = _room(frames, size)
    return _window(frames, room_h // 2, room_w // 2, size)


def random_crop(
    frames: UInt8[np.ndarray, "*rest H W 3"], size: tuple[int, int], rng: np.random.Generator
) -> UInt8[np.ndarray, "*rest h w 3"]:
    """One window, uniformly random and the same in every frame of the clip (the paper's training crop, section 4).

    Args:
        frames: (..., H, W, 3).
        size: (height, width) of the window.
        rng: the source of chance; two integers are drawn, row then column.

    Returns:
        (..., h, w, 3), a view: nothing is copied.

    Raises:
        Pseudo3dError: the window is larger than the frames, or empty.

    Example:
        >>> frames = np.zeros((16, 182, 242, 3), np.uint8)
        >>> random_crop(frames, (160, 160), np.random.default_rng(0)).shape
        (16, 160, 160, 3)
    """
    room_h, room_w = _room(frames, size)
    top = int(rng.integers(0, room_h, endpoint=True))
    left = int(rng.integers(0, room_w, endpoint=True))
    return _window(frames, top, left, size)


def horizontal_flip(frames: UInt8[np.ndarray, "*rest H W 3"]) -> UInt8[np.ndarray, "*rest H W 3"]:
    """Every frame mirrored left to right; a view with a negative stride (torch needs a contiguous copy of it).

    It changes the label of direction classes ("left", "right", rotations): a recipe decides, never a default.

    Example:
        >>> frames = np.arange(6, dtype=np.uint8).reshape(1, 1, 2, 3)
        >>> horizontal_flip(frames).tolist()
        [[[[3, 4, 5], [0, 1, 2]]]]
    """
    return frames[..., :, ::-1, :]


def _room(frames: np.ndarray, size: tuple[int, int]) -> tuple[int, int]:
    """How far the window can move down and to the right."""
    (height, width), (h, w) = frames.shape[-3:-1], size
    if h < 1 or w < 1:
        raise Pseudo3dError(f"a crop must be at least 1x1, got height {h} and width {w}")
    if h > height or w > width:
        raise Pseudo3dError(
            f"a crop {h} high and {w} wide does not fit into frames {height} high and {width} wide: "
            f"resize the frames to at least the crop, or ask for a smaller crop"
        )
    return height - h, width - w


def _window(frames: np.ndarray, top: int, left: int, size: tuple[int, int]) -> np.ndarray:
    return frames[..., top : top + size[0], left : left + size[1], :]
