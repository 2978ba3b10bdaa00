"""Where a store's files lie: a folder of this machine, or any place that fsspec reaches (``s3://``, ``gs://``, ...).

Both replace a file in one step: a folder by writing aside, flushing and renaming; an object store by its PUT, which is
seen whole or not at all. In a folder one process writes at a time, by a lock of the operating system, which goes away
with its process however that ends. Object stores have no such lock: there, each writer's files have names of their own,
and a writer that finds ``store.json`` changed by another stops.
"""

import contextlib
import io
import json
import logging
import os
import re
import secrets
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from pseudo3d import files
from pseudo3d.errors import Pseudo3dError

logger = logging.getLogger("pseudo3d")

Location = str | Path
"""A folder, or the URL of one as a ``str`` (``Path`` would make one slash of two)."""
_LOCK, _HOLDER = ".lock", ".lock.json"


class Folder(Protocol):
    """The few things that a store asks of the place where it lies."""

    location: str
    name: str
    token: str  # part of the names of what is written here, where two may write at once

    def names(self, below: str = "") -> list[str]:
        """What lies in it, or in a folder below, sorted; nothing when that is not there."""

    def read(self, name: str) -> bytes:
        """The content of a file; FileNotFoundError when it is not there."""

    def write(self, name: str, data: bytes) -> None:
        """Put a file in the place of another in one step."""

    def create(self, name: str, data: bytes) -> bool:
        """Put a file where there is none, in one step, though others may do the same; whether this one did."""

    def writing(self, name: str) -> contextlib.AbstractContextManager[Any]:
        """What ``pq.ParquetWriter`` writes to; it becomes the file when the block ends well."""

    def parquet(self, name: str) -> pq.ParquetFile:
        """A Parquet file, opened; only its footer has been read."""

    def delete(self, name: str) -> None:
        """Remove a file; one that is gone is no error."""

    def make(self) -> None:
        """Make the folder, where there are such things."""

    def lock(self, *, wait: bool) -> None:
        """Keep other writers out."""

    def unlock(self) -> None:
        """Let other writers in."""


def open_folder(location: Location) -> Folder:
    """The place that a path or a URL names.

    Raises:
        Pseudo3dError: a URL of a kind whose fsspec package is not installed.

    Example:
        >>> open_folder("runs/features").name, open_folder("memory://bucket/features").name
        ('features', 'features')
    """
    text = os.fspath(location)
    if isinstance(location, Path) or not re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):  # C:\ is no URL
        return LocalFolder(Path(location))
    try:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]

        system, path = url_to_fs(text)
    except (ImportError, ValueError) as error:  # no fsspec, no package for this protocol, no such protocol
        raise Pseudo3dError(f"{text}: {error}; pip install 'pseudo3d[remote]' and the package that it names") from None
    if "file" in (system.protocol if isinstance(system.protocol, tuple) else (system.protocol,)):
        return LocalFolder(Path(path))
    return RemoteFolder(text, system, path)


class LocalFolder:
    """A folder of this machine."""

    token = ""  # one writer at a time

    def __init__(self, path: Path) -> None:
        self.path = path
        self.location = str(path)
        self.name = path.name or path.resolve().name
        # a lock of this writer, not of the thread that made it: it may be closed by another
        self._lock = FileLock(path / _LOCK, thread_local=False)

    def names(self, below: str = "") -> list[str]:
        """What lies in it, sorted."""
        folder = self.path / below
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return (self.path / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Replace a file: aside, flushed, renamed."""
        with files.replacing(self.path / name) as temporary:
            temporary.write_bytes(data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless it is there; the lock keeps others out."""
        if (self.path / name).exists():
            return False
        self.write(name, data)
        return True

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A path aside, renamed at the end."""
        (self.path / name).parent.mkdir(exist_ok=True)
        with files.replacing(self.path / name) as temporary:
            yield temporary

    def parquet(self, name: str) -> pq.ParquetFile:
        """Memory-mapped; pages are checked as they are read."""
        return pq.ParquetFile(self.path / name, memory_map=True, page_checksum_verification=True)

    def delete(self, name: str) -> None:
        """Remove a file."""
        try:
            (self.path / name).unlink(missing_ok=True)
        except PermissionError:
            if os.name != "nt":  # there, a reader holds it open: the next writer removes it
                raise

    def make(self) -> None:
        """Make the folder."""
        if self.path.is_file():
            raise Pseudo3dError(f"{self.path}: is a file; give a folder for --out")
        self.path.mkdir(parents=True, exist_ok=True)

    def lock(self, *, wait: bool) -> None:
        """Take the operating system's lock, and say who has it."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            holder = f"{self.location}: is being written by {self._holder()}"
            if not wait:
                raise Pseudo3dError(f"{holder}; wait until it ends, or give another folder for --out") from None
            logger.warning("%s; waiting until it ends", holder)
            self._lock.acquire()
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
        (self.path / _HOLDER).write_text(holder, encoding="utf-8")

    def _holder(self) -> str:
        try:
            by = json.loads((self.path / _HOLDER).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):  # it has the lock and has not said yet who it is
            return "another process"
        return f"process {by['pid']} on {by['host']} since {by['since']}"

    def unlock(self) -> None:
        """Give the lock back, and leave no file of it behind."""
        if not self._lock.is_locked:
            return
        (self.path / _HOLDER).unlink(missing_ok=True)
        if os.name != "nt":
            # While it is held: who opened it before and gets it now sees that it has no name any more, and tries again.
            (self.path / _LOCK).unlink(missing_ok=True)
        self._lock.release()


class RemoteFolder:
    """A folder that fsspec reaches.

    Args:
        location: its URL.
        system: an fsspec file system.
        path: the folder in it.
    """

    def __init__(self, location: str, system: Any, path: str) -> None:
        self.location = location.rstrip("/")
        self.name = path.rstrip("/").rpartition("/")[2]
        self.token = f"-{secrets.token_hex(4)}"
        self._system = system
        self._path = path.rstrip("/")

    def _of(self, name: str) -> str:
        return f"{self._path}/{name}"

    def names(self, below: str = "") -> list[str]:
        """What lies in it, sorted."""
        folder = self._of(below).rstrip("/")
        self._system.invalidate_cache()  # others write too
        try:
            found = [str(path).rstrip("/") for path in self._system.ls(folder, detail=False)]
        except FileNotFoundError:
            return []
        return sorted(path.rpartition("/")[2] for path in found if path.strip("/") != folder.strip("/"))

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return bytes(self._system.cat_file(self._of(name)))

    def write(self, name: str, data: bytes) -> None:
        """One PUT."""
        self._system.pipe_file(self._of(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """One PUT that fails when the object is there."""
        try:
            self._system.pipe_file(self._of(name), data, mode="create")
        except FileExistsError:
            return False
        return True

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[io.BytesIO]:
        """A buffer, put at the end."""
        sink = io.BytesIO()
        yield sink
        self.write(name, sink.getvalue())

    def parquet(self, name: str) -> pq.ParquetFile:
        """Read by ranges of bytes."""
        self._system.invalidate_cache()  # a size from before would cut a file that has been replaced
        return pq.ParquetFile(self._system.open(self._of(name), "rb"), page_checksum_verification=True)

    def delete(self, name: str) -> None:
        """Remove an object."""
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(self._of(name))

    def make(self) -> None:
        """Nothing: an object store has no folders, and a bucket is not for a misspelt name to make."""

    def lock(self, *, wait: bool) -> None:
        """Nothing: see the module's text."""

    def unlock(self) -> None:
        """Nothing."""
