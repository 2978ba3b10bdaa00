"""Clips cut out of the frames of a video as they come: only the frames of open clips are in memory."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

_ROOM = 64  # frames beyond those of one clip: how many are written before the rest is moved to the front


class ClipWindow:
    """Takes the frames that the clips need, in order, and gives each clip when its last frame is there.

    Frames are kept once, side by side, so that a clip is a view of them::

        frames kept     [..3 4 5 6 7 8....]     a clip of 5..8 is given; when the room is used up,
                             [--clip--]         what is open is moved to the front

    Args:
        starts: first frames of the clips, rising, each once. A video shorter than a clip has one, at 0.
        length: frames in a clip.
        num_frames: of the video. In one shorter than ``length``, frame i of the clip is frame i % num_frames.

    Example:
        >>> window = ClipWindow([0, 1], length=2, num_frames=3)
        >>> frames = [np.full((1, 1, 3), level, np.uint8) for level in range(3)]
        >>> [(n, clip[:, 0, 0, 0].tolist()) for i in range(3) for n, clip in window.add(i, frames[i])]
        [(0, [0, 1]), (1, [1, 2])]
    """

    def __init__(self, starts: Sequence[int], length: int, num_frames: int) -> None:
        self._starts = starts
        self._length = length
        self._held = min(length, num_frames)  # different frames in a clip
        self._next = 0  # the first clip that has not been given
        self._kept = 0
        self._frames = np.empty((0, 0, 0, 3), np.uint8)

    def wants(self, number: int) -> bool:
        """Whether this frame is in a clip that has not been given."""
        return self._next < len(self._starts) and number >= self._starts[self._next]

    def add(self, number: int, frame: UInt8[np.ndarray, "h w 3"]) -> Iterator[tuple[int, UInt8[np.ndarray, "T h w 3"]]]:
        """Copies a frame that is wanted, and gives the clip that it completes with its number; valid until the next."""
        if len(self._frames) == 0:
            self._frames = np.empty((self._held + min(_ROOM, self._held * len(self._starts)), *frame.shape), np.uint8)
        if self._kept == len(self._frames):
            open_frames = self._held - 1
            self._frames[:open_frames] = self._frames[self._kept - open_frames :]
            self._kept = open_frames
        self._frames[self._kept] = frame
        self._kept += 1
        if number == self._starts[self._next] + self._held - 1:
            clip = self._frames[self._kept - self._held : self._kept]
            clip.flags.writeable = False  # the next clip may begin in it
            if self._held < self._length:
                clip = clip[np.arange(self._length) % self._held]
            self._next += 1
            yield self._next - 1, clip
