"""A process that decodes: ``python -m pseudo3d.video.worker``, started and told what to do by ``process``.

It ends when its standard input ends, whatever it is doing, so that it never outlives its parent.
"""

import logging
import mmap
import os
import signal
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO

import numpy as np

from pseudo3d.errors import Pseudo3dError, VideoError
from pseudo3d.video.clips import ClipPlan, ClipStream
from pseudo3d.video.wire import (
    Alive,
    Begin,
    Done,
    Filled,
    Free,
    Job,
    Log,
    Mistake,
    Prepare,
    Ready,
    Reply,
    Unusable,
    clip_shape,
    receive,
    send,
    shared_bytes,
)

_LOOK = 0.02  # seconds from one look at the memory to the next
_BEYOND = 1.25  # times the limit: what the system refuses


class _Worker:
    """Does the jobs that come over ``commands``, one after the other; a thread listens meanwhile."""

    def __init__(self, commands: BinaryIO, replies: BinaryIO) -> None:
        self._replies = replies
        self._replying = threading.Lock()
        self._last_sign = 0.0
        self._orders: SimpleQueue[Begin | Prepare | Job] = SimpleQueue()
        self._free: SimpleQueue[int] = SimpleQueue()
        threading.Thread(target=self._listen, args=(commands,), daemon=True).start()

    def run(self) -> None:
        """Until the parent closes the pipe, or until a job has left the process in doubt."""
        begin = self._orders.get()
        assert isinstance(begin, Begin)
        shared = _open_shared(begin.place)
        limit = None if begin.memory is None else _MemoryLimit(begin.memory)
        logging.getLogger("pseudo3d").addHandler(_ToParent(self))
        self.reply(Ready())
        sound = True
        while sound:
            match self._orders.get():
                case Prepare(plan, count):
                    slots = self._map_slots(shared, plan, count)
                case Job(path):
                    sound = self._decode(path, plan, slots, begin, limit)

    def reply(self, message: Reply) -> None:
        with self._replying:  # a line for the log may come from another thread
            send(self._replies, message)
            self._last_sign = time.monotonic()

    def _listen(self, commands: BinaryIO) -> None:
        for message in receive(commands):
            if isinstance(message, Free):
                self._free.put(message.slot)
            else:
                self._orders.put(message)
        os._exit(0)  # the parent is gone; the main thread may be deep in FFmpeg, or waiting for a slot

    def _map_slots(self, shared: int, plan: ClipPlan, count: int) -> np.ndarray:
        """The shared memory as (slots, T, h, w, 3), every slot free."""
        self._free = SimpleQueue()
        for slot in range(count):
            self._free.put(slot)
        pixels = mmap.mmap(shared, shared_bytes(plan, count))
        return np.frombuffer(pixels, np.uint8).reshape(count, *clip_shape(plan))

    def _decode(self, path: str, plan: ClipPlan, slots: np.ndarray, begin: Begin, limit: "_MemoryLimit | None") -> bool:
        """Whether the process may take another job after this one."""

        def on_progress() -> None:
            now = time.monotonic()
            if now - self._last_sign > begin.beat:
                self.reply(Alive())
            if limit is not None:
                limit.check(now)

        try:
            stream = ClipStream(path, plan, threads=begin.threads, on_progress=on_progress)
            for number, frames in stream:
                slot = self._free.get()
                slots[slot] = frames
                self.reply(Filled(number, slot))
        except MemoryError:
            self.reply(Unusable(_too_big(path, begin.memory), last=True))
            return False
        except VideoError as error:
            self.reply(Unusable(str(error)))
        except Pseudo3dError as error:
            self.reply(Mistake(str(error)))
        else:
            self.reply(Done(stream.facts))
        return True


class _ToParent(logging.Handler):
    """Log records to the parent, as finished lines."""

    def __init__(self, worker: _Worker) -> None:
        super().__init__()
        self._worker = worker

    def emit(self, record: logging.LogRecord) -> None:
        self._worker.reply(Log(record.levelno, record.getMessage()))


def _too_big(path: str, memory: int | None) -> str:
    if memory is None:
        return f"{path}: decoding it needs more memory than there is; make the video smaller"
    return (
        f"{path}: decoding it needs more than {memory / 2**30:.1f} GiB of memory, the limit of one decoder; raise the "
        f"limit or make the video smaller"
    )


def _open_shared(place: int | str) -> int:
    """The descriptor of the shared file, of which no name remains where the system allows that."""
    if isinstance(place, int):
        return place
    descriptor = os.open(place, os.O_RDWR | getattr(os, "O_BINARY", 0))
    if sys.platform != "win32":  # which does not remove the name of an open file
        Path(place).unlink()
    return descriptor


class _MemoryLimit:
    """A limit for the private memory of this process. On Linux only: no other system keeps one.

    Most decoders say so when memory is refused; H.264's goes on with frames missing, as in a damaged file. The memory
    is therefore watched while decoding, and the system refuses only what goes far beyond the limit at once.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._looked = 0.0
        self._statm = -1
        if sys.platform == "linux":
            import resource

            soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
            own = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]  # the user's, if lower
            resource.setrlimit(resource.RLIMIT_DATA, (min([int(size * _BEYOND), *own]), hard))
            self._statm = os.open("/proc/self/statm", os.O_RDONLY)

    def check(self, now: float) -> None:
        """Called as often as convenient.

        Raises:
            MemoryError: the process has more than it may have.
        """
        if self._statm >= 0 and now - self._looked > _LOOK:
            self._looked = now
            pages = int(os.pread(self._statm, 200, 0).split()[5])  # data and stack, as RLIMIT_DATA counts
            if pages * mmap.PAGESIZE > self._size:
                raise MemoryError


def main() -> None:
    """Serve the parent at the other ends of standard input and output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt ends
    commands = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints, it does not end up between the messages
    _Worker(commands, replies).run()
    os._exit(0)  # at once: the listening thread sits in a read


if __name__ == "__main__":
    main()
