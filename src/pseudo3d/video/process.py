"""One decoder process, as its parent sees it: started, written to, read from, killed."""

import logging
import mmap
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from pseudo3d.errors import printable
from pseudo3d.video.clips import ClipPlan
from pseudo3d.video.wire import Begin, Prepare, Reply, clip_shape, create_shared_file, receive, send, shared_bytes

_log = logging.getLogger("pseudo3d")
_WORKER = "pseudo3d.video.worker"  # the module that the process runs
_LAST_LINES = 30  # of its standard error, kept for the report of a crash
_DEATH = 5.0  # seconds until a killed process is given up: one that waits for a disk may not even be killed


class DecoderProcess:
    """A process that runs ``worker``; a thread of its own hands on what it says.

    Args:
        on_reply: called in that thread with each message, and at last with None, when the process has ended.
        memory: the limit for the process, bytes, or None.
        threads: of its decoder.
        beat: seconds between its signs of life.

    Raises:
        OSError: the system cannot start another process.
    """

    def __init__(
        self, on_reply: Callable[[Reply | None], None], *, memory: int | None, threads: int, beat: float
    ) -> None:
        self._file, self._place = create_shared_file()
        inherited = (self._file,) if isinstance(self._place, int) else ()
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-m", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            pass_fds=inherited,
            **_own_group(),
        )
        self._last_lines: deque[bytes] = deque(maxlen=_LAST_LINES)
        self._readers = [
            threading.Thread(target=self._read_replies, args=(on_reply,), daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.send(Begin(self._place, memory, threads, beat))

    def prepare(self, plan: ClipPlan, slots: int) -> np.ndarray:
        """Tell the plan of the next jobs; the shared memory, read-only uint8 (slots, T, h, w, 3).

        The memory lives as long as somebody holds the array, also after the process.
        """
        size = shared_bytes(plan, slots)
        if os.fstat(self._file).st_size < size:
            os.ftruncate(self._file, size)
        pixels = mmap.mmap(self._file, size, access=mmap.ACCESS_READ)
        self.send(Prepare(plan, slots))
        return np.frombuffer(pixels, np.uint8).reshape(slots, *clip_shape(plan))

    def send(self, message: object) -> None:
        """Write a message; one at a time, the caller sees to that. Nothing happens when the process has ended."""
        assert self._popen.stdin is not None
        with suppress(OSError):  # the reading thread sees its end too, and reports it
            send(self._popen.stdin, message)  # type: ignore[arg-type]

    def close(self) -> None:
        """Kill the process if it still runs, and let go of all that belongs to it."""
        self._popen.kill()
        try:
            self._popen.wait(_DEATH)
        except subprocess.TimeoutExpired:
            _log.warning("decoder process %d waits for a disk and cannot be ended; left behind", self._popen.pid)
            return
        for reader in self._readers:
            reader.join()
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            assert pipe is not None
            with suppress(OSError):  # a message that nobody can read any more
                pipe.close()
        os.close(self._file)
        if isinstance(self._place, str):
            with suppress(
                PermissionError
            ):  # Windows keeps it while somebody holds its pixels, and clears it away later
                Path(self._place).unlink(missing_ok=True)

    def ending(self) -> str:
        """How the closed process ended, in words, with what it wrote last."""
        code = self._popen.returncode
        if code is None:
            return "it does not end"
        how = f"signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"
        return f"{how}: {printable(self.last_lines()[-1])}" if self._last_lines else how

    def last_lines(self) -> list[str]:
        """The end of its standard error."""
        return [line.decode(errors="replace").rstrip() for line in self._last_lines]

    def _read_replies(self, on_reply: Callable[[Reply | None], None]) -> None:
        assert self._popen.stdout is not None
        for reply in receive(self._popen.stdout):  # type: ignore[arg-type]
            on_reply(reply)
        on_reply(None)

    def _read_errors(self) -> None:
        assert self._popen.stderr is not None
        self._last_lines.extend(self._popen.stderr)


def _environment() -> dict[str, str]:
    """The parent's, with its module path (it may have been changed since the start), and one thread for numpy."""
    paths = [str(Path(path).absolute()) for path in sys.path]
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **one_thread, "PYTHONPATH": os.pathsep.join(paths)}


def _own_group() -> dict[str, Any]:
    """Arguments for ``Popen``: Ctrl-C in the terminal goes to the parent only, from the first moment on."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"process_group": 0}
