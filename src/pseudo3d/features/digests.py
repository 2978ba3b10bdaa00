"""The SHA-256 of files that are asked for again and again: a file with a thousand segments is read once."""

import os
from pathlib import Path

from pseudo3d.files import sha256_of
from pseudo3d.video.segments import file_of


class Digests:
    """Hashes of files, each computed once as long as size and time of change stay. For one thread at a time.

    Args:
        kept: how many are remembered, those that were asked for last; about 400 bytes each.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.mp4").write_text("abc")
        ...     digests = Digests()
        ...     digests.of(f"{folder}/a.mp4#t=0,5") == digests.of(f"{folder}/a.mp4") == sha256_of(f"{folder}/a.mp4")
        True
    """

    def __init__(self, kept: int = 1 << 14) -> None:
        self._kept = kept
        self._known: dict[tuple[str, int, int], str] = {}  # the one that was asked for last stands last

    def of(self, path: str | os.PathLike[str]) -> str:
        """The hash of a file, or of the file of a segment.

        Raises:
            OSError: the file cannot be read.
        """
        file = file_of(path)
        before = _state(file)
        known = self._known.pop(before, None)
        digest = sha256_of(file) if known is None else known
        if known is not None or _state(file) == before:  # else it changed while it was read
            self._known[before] = digest
        if len(self._known) > self._kept:
            del self._known[next(iter(self._known))]
        return digest


def _state(file: Path) -> tuple[str, int, int]:
    status = file.stat()
    return str(file), status.st_size, status.st_mtime_ns
