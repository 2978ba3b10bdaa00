"""The files of a folder, however deep, and paths that start from one."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from pseudo3d.errors import Pseudo3dError


def find_files(root: Path, suffixes: Collection[str]) -> Iterator[str]:
    """POSIX paths, relative to ``root``, of the files below it that end in one of the suffixes, in any case.

    Hidden files and folders are skipped and links are followed, though never in a circle. A dangling link counts too:
    whoever opens it reports it.

    Args:
        root: a folder.
        suffixes: with their dots, in lower case.

    Raises:
        Pseudo3dError: a folder cannot be read.
    """
    return _walk(root, root, suffixes, ())


def _walk(folder: Path, root: Path, suffixes: Collection[str], above: tuple[Path, ...]) -> Iterator[str]:
    """The files below ``folder``; ``above`` are the real paths of the folders that led here."""
    real = folder.resolve()
    if real in above:  # a link to a folder above: following it would never end
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise Pseudo3dError(f"cannot read the folder {folder}: {error.strerror}") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = Path(entry.path)
        if entry.is_dir():
            yield from _walk(path, root, suffixes, (*above, real))
        elif path.suffix.lower() in suffixes:
            yield path.relative_to(root).as_posix()


def relative_to(root: Path, path: str) -> str:
    """A path that starts from ``root`` (or is absolute) as POSIX text: relative when it lies below, else absolute.

    Example:
        >>> relative_to(Path("/videos"), "./a/../b.mp4"), relative_to(Path("/videos"), "/elsewhere/c.mp4")
        ('b.mp4', '/elsewhere/c.mp4')
    """
    full = Path(os.path.normpath(root / path))
    return full.relative_to(root).as_posix() if full.is_relative_to(root) else full.as_posix()
