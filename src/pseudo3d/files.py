"""Files written so that nobody sees half of one (aside, flushed, renamed); what tells files apart; where to cache."""

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | Path, *, flush: bool = True) -> Iterator[Path]:
    """A temporary name beside ``path``; what is written there takes its place when the block ends well.

    On any error the temporary file is removed and what stood at ``path`` before is untouched.

    Args:
        path: the file; its folder must exist.
        flush: wait until the content and the new name are on the disk, so that a power cut finds the old file or the
            new one. False for thousands of files that can be made again.

    Raises:
        OSError: the folder cannot be written or the disk is full.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a.txt"
        ...     with replacing(path) as temporary:
        ...         _ = temporary.write_text("whole")
        ...     path.read_text(), len(list(Path(folder).iterdir()))
        ('whole', 1)
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        if flush:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
        if flush:
            flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can do that (Windows cannot)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # "not on this file system"; anything else is an error
            raise
    finally:
        os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8) in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal.

    Raises:
        OSError: the file cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(f"{folder}/a.txt", "abc")
        ...     sha256_of(f"{folder}/a.txt")[:16]
        'ba7816bf8f01cfea'
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """The user's folder for what can be made again: $PSEUDO3D_CACHE, $XDG_CACHE_HOME/pseudo3d or ~/.cache/pseudo3d."""
    given, base = os.environ.get("PSEUDO3D_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if given:
        return Path(given)
    try:
        return Path(base or Path.home() / ".cache") / "pseudo3d"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / "pseudo3d"
