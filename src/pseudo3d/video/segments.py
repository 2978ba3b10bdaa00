"""A segment of a video, written behind its path as a media fragment: ``v_x.mp4#t=10.5,20``.

The notation is that of the W3C's Media Fragments (section 4.2.1, normal play time in seconds), which players understand
too. A segment holds the frames whose times, as ``Clip.timestamps`` has them, lie in [start, end). Wherever a video is
read, such a path may stand for it; frame numbers and times stay those of the whole video. A file whose very name ends
in ``#t=10.5,20`` is that file, not a segment of another one.

Only the standard library is imported here, so that reading a list of videos stays cheap.
"""

import math
import os
import re
from decimal import Decimal
from pathlib import Path

from pseudo3d.errors import Pseudo3dError

Segment = tuple[float, float]
"""Start and end, seconds; an end that was left out is infinite."""

_FRAGMENT = re.compile(r"(?P<file>.+)#t=(?:npt:)?(?P<start>\d+(?:\.\d*)?)?(?:,(?P<end>\d+(?:\.\d*)?))?", re.DOTALL)


def split_segment(path: str | os.PathLike[str]) -> tuple[str, Segment | None]:
    """A path without its fragment, and the segment; None where there is none. The disk is not looked at.

    Args:
        path: of a file or a segment. The start, the comma with the end, and ``npt:`` may be left out.

    Example:
        >>> split_segment("a/v.mp4#t=10.5,20"), split_segment("v.mp4#t=,3"), split_segment("v.mp4")
        (('a/v.mp4', (10.5, 20.0)), ('v.mp4', (0.0, 3.0)), ('v.mp4', None))
    """
    text = os.fspath(path)
    found = _FRAGMENT.fullmatch(text)
    if found is None or (found["start"] is None and found["end"] is None) or _FRAGMENT.fullmatch(found["file"]):
        return text, None  # a segment of a segment is none
    return found["file"], (float(found["start"] or 0), float(found["end"] or math.inf))


def with_segment(path: str | os.PathLike[str], start: float, end: float) -> str:
    """The path of a segment; ``split_segment`` gives back the same numbers.

    Args:
        path: of a file.
        start: seconds, at least 0.
        end: seconds, above ``start``; ``math.inf`` for the end of the video.

    Raises:
        Pseudo3dError: the path has a segment already, or these numbers are none.

    Example:
        >>> with_segment("v.mp4", 10.50, 20), with_segment("v.mp4", 3, math.inf)
        ('v.mp4#t=10.5,20', 'v.mp4#t=3')
    """
    if not 0 <= start < end:
        raise Pseudo3dError(f"{path}: a segment from {start} s to {end} s; it must start at 0 or later, before its end")
    if split_segment(path)[1] is not None:
        raise Pseudo3dError(f"{path}: is a segment already; give the path of the file")
    return f"{os.fspath(path)}#t={_seconds(start)}" + ("" if math.isinf(end) else f",{_seconds(end)}")


def _seconds(value: float) -> str:
    """The shortest decimal number that is read back as the same float, without an exponent."""
    text = format(Decimal(repr(float(value))), "f")
    return text.removesuffix(".0")


def find_segment(path: str | os.PathLike[str]) -> tuple[Path, Segment | None]:
    """The file that a path stands for, and the segment of it: a file of just that name goes before a segment.

    Args:
        path: of a file or a segment, which need not exist.
    """
    file, segment = split_segment(path)
    if segment is None or os.path.lexists(path):
        return Path(path), None
    return Path(file), segment


def file_of(path: str | os.PathLike[str]) -> Path:
    """The file that a path stands for, as ``find_segment`` finds it."""
    return find_segment(path)[0]
