"""What a user's mistake and an unusable file raise: one line that says what is wrong and what to do."""

from collections.abc import Iterable


class Pseudo3dError(ValueError):
    """Wrong usage or unusable input; its text is the one line a person reads (``p3d`` ends with code 2)."""


class VideoError(Pseudo3dError):
    """This file cannot be used as a video; its text begins with the path (a run over many files records it)."""


def first_few(names: Iterable[str], count: int = 3) -> str:
    """The first names for a message, with dots when there are more."""
    names = list(names)
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
