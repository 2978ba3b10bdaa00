"""The wire of protobuf: a walk over tags and lengths of a mapped file that believes none of them, and their writing.

Only ``caffemodel`` uses it. Nothing here knows a field of Caffe's, but the errors are those of someone who gave a file
as Caffe's.
"""

import contextlib
import mmap
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pseudo3d.errors import Pseudo3dError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # wire types; groups (3, 4) are in no file of Caffe
MAX_BYTES = 2**31 - 1  # protobuf's limit for a message
_MAX_FIELDS = 100_000  # that are walked over in one file: ends the walk over junk. P3D ResNet-152 has some thousands
AGAIN = "copy the file or download it again"
_RUN = 16384  # fields that are looked at together when each holds a single number

# What is often given by mistake, by its first bytes.
_OTHERS = (
    (rb"version https://git-lfs", "is a git-lfs pointer, not the file itself; run `git lfs pull` or download the file"),
    (
        rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype|!--|html|head|body|\?xml)",
        "is a web page (HTML), not the file itself; open its address in a browser and download the file from there",
    ),
    (rb"\x89HDF\r\n", "is an HDF5 file, which is not read; write it again with Caffe's snapshot_format: BINARYPROTO"),
    (
        rb"PK\x03\x04|\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf",
        "is an archive (or a PyTorch file), not Caffe's; unpack it first",
    ),
    (
        rb"(?![\s\S]*[\x00-\x08\x0e-\x1f])(\xef\xbb\xbf)?(\s*#[^\n]*\n)*\s*[A-Za-z_]\w*\s*[:{]",
        "is text, such as a prototxt, which describes a network and holds no weights; give the binary file",
    ),
)


def other_format(head: bytes) -> str | None:
    r"""What a file that is no weights is, in words for a message, by its first bytes; None when nothing is known.

    A valid file can begin like another format's: a net whose name has 60 bytes begins with a line break and "<". So ask
    only when reading it as what it should be has failed.

    Args:
        head: the first 4096 bytes.

    Example:
        >>> other_format(b"\x89HDF\r\n")[:15], other_format(b"\n<net")
        ('is an HDF5 file', None)
    """
    return next((what for pattern, what in _OTHERS if re.match(pattern, head)), None)


class Field(NamedTuple):
    """Where a field lies: its tag at ``start``, its value from ``body`` to ``end``.

    Fixed-size fields of one number that follow each other are one run: ``end`` is that of the last.
    """

    number: int
    wire: int
    start: int
    body: int
    end: int


class MalformedError(Exception):
    """These bytes are no message. ``missing``: how many are past its end, if that is what is wrong."""

    def __init__(self, reason: str, at: int, missing: int = 0, field: Field | None = None):
        super().__init__(f"{reason} at byte {at:,}")
        self.missing, self.field = missing, field

    def how_much(self) -> str:
        """How many bytes are missing, for a message; within a tag or a length nobody knows how many follow."""
        at_least = "" if self.field else "at least "
        return f"{at_least}{self.missing:,} {'byte is' if self.missing == 1 else 'bytes are'} missing"


class MappedFile:
    """A file in memory, and the walk over the fields of the messages in it.

    Args:
        path: a regular file that is not empty.

    Raises:
        Pseudo3dError: it cannot be opened, or is something else.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.data = self._map()
        self.left = _MAX_FIELDS

    def _map(self) -> mmap.mmap:
        try:
            status = self.path.stat()
            if stat.S_ISREG(status.st_mode) and status.st_size:  # never opens a pipe, which would wait
                with self.path.open("rb") as file:
                    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise self.error("no such file; check the path") from None
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = error.strerror if isinstance(error, OSError) else error
            raise self.error(f"cannot be read ({reason}); check the path and its permissions") from error
        if stat.S_ISDIR(status.st_mode):
            raise self.error("is a folder; give the file in it")
        if not stat.S_ISREG(status.st_mode):
            raise self.error("is not a regular file; copy its content into one")
        raise self.error(f"is empty; {AGAIN}")

    def close(self) -> None:
        """Unmap the file; no view of ``data`` may be left."""
        self.data.close()

    def error(self, text: str) -> Pseudo3dError:
        """What a user reads: the path and what is wrong."""
        return Pseudo3dError(f"{self.path}: {text}")

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Where reading fails and the first bytes are those of another format, the error says that instead."""
        try:
            yield
        except Pseudo3dError as error:
            what = other_format(self.data[:4096])
            if what is None:
                raise
            raise self.error(what) from error

    def message(self, start: int, end: int, what: str) -> list[Field]:
        """All fields of a message; a malformed one is an error that begins with ``what``."""
        try:
            return list(self.fields(start, end))
        except MalformedError as error:
            raise self.error(f"{what} is damaged ({error}); {AGAIN}") from error

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of the message between two offsets, in order.

        Raises:
            MalformedError: when the walk comes to it; what was yielded before is well-formed.
        """
        at = start
        while at < end:
            self.left -= 1
            if self.left < 0:
                raise MalformedError(f"more than {_MAX_FIELDS:,} fields, which no network has,", at)
            tag, body = self._varint(at, end)
            number, wire = tag >> 3, tag & 7
            if wire == VARINT:
                stop = self._varint(body, end)[1]
            elif wire == LENGTH:
                length, body = self._varint(body, end)
                if length > MAX_BYTES:
                    raise MalformedError(f"a length of {length:,} bytes, more than protobuf allows,", at)
                stop = body + length
            elif wire in (FIXED32, FIXED64):
                size = 4 if wire == FIXED32 else 8
                stop = body + size
                if body == at + 1 and stop <= end:
                    stop = at + self._run(at, end, 1 + size) * (1 + size)
            else:
                raise MalformedError(f"wire type {wire}, which Caffe never writes,", at)
            if number == 0:
                raise MalformedError("a field without a number", at)
            field = Field(number, wire, at, body, stop)
            if stop > end:
                raise MalformedError("a field past the end", at, missing=stop - end, field=field)
            yield field
            at = stop

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """A number at ``at``, and where it ends."""
        value = 0
        for i in range(min(10, end - at)):
            byte = self.data[at + i]
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                return value, at + i + 1
        if end - at < 10:
            raise MalformedError("a number is cut off", at, missing=1)
        raise MalformedError("a number of more than 10 bytes", at)

    def _run(self, at: int, end: int, size: int) -> int:
        """How many fields of ``size`` bytes with the same one-byte tag follow each other from ``at``."""
        most = min((end - at) // size, _RUN)
        seen = min(16, most)
        while True:  # the look ahead grows with what was found, so that many short runs take no longer than one
            tags = np.frombuffer(self.data[at : at + seen * size], np.uint8)[::size]
            other = np.flatnonzero(tags != tags[0])
            if len(other) or seen == most:
                return int(other[0]) if len(other) else most
            seen = min(8 * seen, most)


def length_prefix(number: int, length: int) -> bytes:
    r"""The tag and the length in front of a length-delimited field, as they are written.

    Example:
        >>> length_prefix(5, 300)
        b'*\xac\x02'
    """
    out = bytearray()
    for value in (number << 3 | LENGTH, length):
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out)
