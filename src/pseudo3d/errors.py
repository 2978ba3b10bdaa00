"""What a user's mistake and an unusable file raise: one line that says what is wrong and what to do."""

from collections.abc import Iterable


class Pseudo3dError(ValueError):
    """Wrong usage or unusable input; its text is the one line a person reads (``p3d`` ends with code 2)."""


class VideoError(Pseudo3dError):
    """This file cannot be used as a video; its text begins with the path (a run over many files records it)."""


def printable(text: object, most: int = 200) -> str:
    r"""A text out of a file for a message: one line of at most ``most`` characters that no terminal obeys.

    Example:
        >>> printable("res2.0.conv_a"), printable("a\x1b[31m"), printable("a" * 300, 5)
        ('res2.0.conv_a', "'a\\x1b[31m'", 'aaaaa...')
    """
    text = str(text)
    text = text[:most] + ("..." if len(text) > most else "")
    return text if text.isprintable() else repr(text)


def first_few(names: Iterable[object], count: int = 3) -> str:
    """The first names for a message, with dots when there are more; each as ``printable`` writes it."""
    names = list(names)
    return ", ".join(printable(name) for name in names[:count]) + (", ..." if len(names) > count else "")
