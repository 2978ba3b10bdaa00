"""Decoding in processes of their own: side by side, and none of them can hang, crash or fill up the whole run.

    paths --hand out--> worker processes --pipes: messages, shared memory: pixels--> events

Whatever happens to a process happens to one video: it fails with a reason, and a new process takes the next one.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np

from pseudo3d.errors import Pseudo3dError
from pseudo3d.video.clips import ClipFacts, ClipPlan
from pseudo3d.video.packets import PathLike
from pseudo3d.video.process import DecoderProcess
from pseudo3d.video.wire import Done, Filled, Free, Job, Log, Mistake, Ready, Reply, Unusable

Key = TypeVar("Key")

_log = logging.getLogger("pseudo3d")
_START = 60.0  # seconds that a process may take to start; from a slow disk, imports take long
_LEAST_MEMORY = 256 << 20  # bytes; Python, numpy and FFmpeg take half of it before the first frame


@dataclass(frozen=True, eq=False)
class NewClip(Generic[Key]):
    """A clip of the video ``key``; one with a number that has come before replaces the earlier one.

    Args:
        key: of the video.
        number: of the clip, from 0, as ``ClipFacts.rows`` counts.
        frames: uint8 RGB (T, h, w, 3), read-only, valid only until the next event is asked for; copy it.
    """

    key: Key
    number: int
    frames: np.ndarray


@dataclass(frozen=True)
class Decoded(Generic[Key]):
    """The video ``key`` is decoded, all its clips have come."""

    key: Key
    facts: ClipFacts


@dataclass(frozen=True)
class Failed(Generic[Key]):
    """The video ``key`` cannot be used; clips that came before are worth nothing. ``reason`` begins with its path."""

    key: Key
    reason: str


Event = NewClip[Key] | Decoded[Key] | Failed[Key]


@dataclass(eq=False)
class _Task:
    key: Any
    path: str


class _Worker:
    """A process and what the pool knows of it. All but ``process`` and ``slots`` changes under the pool's lock."""

    def __init__(self) -> None:
        self.process: DecoderProcess
        self.slots: np.ndarray
        self.task: _Task | None = None
        self.ready = False  # it takes jobs: imports are done, and it has not ended
        self.leaving = False  # it said that it ends itself
        self.free = 0  # slots that it may fill
        self.heard = 0.0  # when it last gave a sign of life, on the pool's clock


class DecoderPool:
    """Processes that decode videos side by side, each video in one of them.

    They start at once and do their imports while the caller goes on. Use it in a ``with`` statement: at its end the
    processes are gone. They also end when this process dies, however it does.

    Args:
        workers: processes.
        timeout: seconds without a sign of life (a packet read, a frame decoded) after which a process is killed and
            its video fails. Waiting for a slow consumer does not count.
        memory: limit for the private memory of each process, bytes, or None; a video that needs more fails. Kept on
            Linux only.
        threads: of each decoder. The clips do not depend on it.
        slots: clips that a process may be ahead of the consumer; each takes T * h * w * 3 bytes of shared memory.

    Raises:
        Pseudo3dError: a number out of range.

    Example:
        >>> from pseudo3d.preprocessing import Preprocessing
        >>> with DecoderPool(workers=1) as pool:
        ...     for event in pool.stream([("first", "missing.mp4")], ClipPlan(Preprocessing())):
        ...         print(event)
        Failed(key='first', reason='missing.mp4: there is no such file; check the path')
    """

    def __init__(
        self,
        workers: int = 2,
        *,
        timeout: float = 60.0,
        memory: int | None = 2 << 30,
        threads: int = 1,
        slots: int = 4,
    ) -> None:
        if workers < 1 or slots < 1 or threads < 0 or not timeout > 0:
            raise Pseudo3dError(
                f"workers and slots must be at least 1, threads at least 0 and timeout more than 0 seconds, "
                f"got {workers}, {slots}, {threads} and {timeout}"
            )
        if memory is not None and memory < _LEAST_MEMORY:
            raise Pseudo3dError(
                f"memory must be at least {_LEAST_MEMORY >> 20} MiB for each process, got {memory} bytes"
            )
        self._count, self._timeout, self._memory, self._threads, self._slots = workers, timeout, memory, threads, slots
        self._tick = min(1.0, timeout / 4)
        self._lock = threading.Lock()
        self._waiting: deque[_Task] = deque()
        self._said: SimpleQueue[tuple[_Worker, _Task | None, Reply | None]] = SimpleQueue()
        self._workers: list[_Worker] = []
        self._plan: ClipPlan | None = None  # of the stream that runs
        self._closed = False
        self._deaths = 0  # of processes without a job, in a row
        # Time as the stream sees it: it stands still while the consumer is busy or the whole run is stopped (Ctrl-Z),
        # so that a worker is blamed only for silence while somebody listens.
        self._clock = 0.0
        self._looked = time.monotonic()
        try:
            self._start_workers()
        except BaseException:  # of three processes, the third could not be started
            self._stop_workers()
            raise

    def __enter__(self) -> "DecoderPool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop the processes."""
        self._closed = True
        self._stop_workers()

    def stream(self, videos: Iterable[tuple[Key, PathLike]], plan: ClipPlan) -> Generator[Event[Key], None, None]:
        """Decode videos; events of several come mixed, for each video its clips first, then ``Decoded`` or ``Failed``.

        What the processes log (logger "pseudo3d") is logged here. When the generator is closed early, the processes
        are stopped; after a whole one they stay ready for the next.

        Args:
            videos: (key, path); read as processes become free, at most ``workers * (slots + 1)`` ahead.
            plan: which clips.

        Raises:
            Pseudo3dError: the processes cannot start, or cannot follow the plan.
            RuntimeError: another stream of this pool runs, or the pool is closed.
        """
        if self._closed or self._plan is not None:
            raise RuntimeError("the pool is closed" if self._closed else "a pool runs one stream at a time")
        self._plan = plan
        try:
            with self._lock:
                for worker in self._workers:
                    self._prepare(worker)
            self._start_workers()
            yield from self._events(iter(videos))
        except BaseException:
            self._stop_workers()
            raise
        finally:
            self._plan = None

    def _events(self, videos: Iterator[tuple[Key, PathLike]]) -> Iterator[Event[Key]]:
        """Hands out work and turns what the processes say into events, until every video has had its last."""
        unfinished, more = 0, True
        self._looked = time.monotonic()
        while True:
            while more and len(self._waiting) < self._count * self._slots:
                video = next(videos, None)
                more = video is not None
                if video is not None:
                    unfinished += 1
                    self._take(_Task(video[0], os.fspath(video[1])))
            if not unfinished:
                return
            for event in self._next_events():
                unfinished -= not isinstance(event, NewClip)
                yield event

    def _take(self, task: _Task) -> None:
        with self._lock:
            self._waiting.append(task)
            self._hand_out()

    def _hand_out(self) -> None:
        """Waiting tasks to free processes; the lock is held."""
        for worker in self._workers:
            if worker.ready and not worker.leaving and worker.task is None and self._waiting:
                worker.task = self._waiting.popleft()
                worker.heard = self._clock
                worker.process.send(Job(worker.task.path))

    def _hear(self, worker: _Worker, reply: Reply | None) -> None:
        """What a process says, in the thread that reads it: a free process gets its next task without delay."""
        with self._lock:
            worker.heard = self._clock
            task = worker.task
            match reply:
                case Ready():
                    worker.ready = True
                case Filled():
                    worker.free -= 1
                case Done() | Unusable():
                    worker.task = None
                    worker.leaving = isinstance(reply, Unusable) and reply.last
                case None:
                    worker.ready = False
            self._hand_out()
            self._said.put((worker, task, reply))

    def _next_events(self) -> Iterator[Event[Any]]:
        """What comes of the next thing that a process says, or of the silence of one."""
        try:
            worker, task, reply = self._said.get(timeout=self._tick)
        except Empty:
            pass
        else:
            if worker in self._workers:  # a process that was given up has nothing to say any more
                yield from self._answer(worker, task, reply)
        now = time.monotonic()
        self._clock += min(now - self._looked, 2 * self._tick)
        self._looked = now
        yield from self._give_up_silent()

    def _answer(self, worker: _Worker, task: _Task | None, reply: Reply | None) -> Iterator[Event[Any]]:
        match reply:
            case Filled(number, slot):
                assert task is not None
                yield NewClip(task.key, number, worker.slots[slot])
                self._release(worker, slot)
            case Done(facts):
                assert task is not None
                self._deaths = 0
                yield Decoded(task.key, facts)
            case Unusable(reason):
                assert task is not None
                self._deaths = 0
                yield Failed(task.key, reason)
            case Mistake(text):
                raise Pseudo3dError(text)
            case Log(level, text):
                _log.log(level, "%s", text)
            case None:
                yield from self._replace(worker, task)

    def _release(self, worker: _Worker, slot: int) -> None:
        with self._lock:
            worker.free += 1
            worker.heard = self._clock
            worker.process.send(Free(slot))

    def _replace(self, worker: _Worker, task: _Task | None) -> Iterator[Event[Any]]:
        """A new process for one that has ended, and what becomes of its video."""
        with self._lock:
            self._workers.remove(worker)
        worker.process.close()
        if task is None and not worker.leaving:
            self._count_death(worker.process.ending())
        self._start_workers()
        if task is not None:
            self._deaths = 0
            lines = worker.process.last_lines()
            if len(lines) > 1:  # a mistake of this package, say: its traceback
                _log.error("%s: the decoder wrote as it ended:\n%s", task.path, "\n".join(lines))
            yield Failed(
                task.key,
                f"{task.path}: the decoder crashed ({worker.process.ending()}); the file may be damaged, or decoding "
                f"it needs more memory than there is: convert it anew, or leave it out",
            )

    def _give_up_silent(self) -> Iterator[Event[Any]]:
        """Kills the processes that have not been heard of for too long; their videos fail."""
        with self._lock:
            silent = [(worker, worker.task) for worker in self._workers if self._is_silent(worker)]
            for worker, _ in silent:
                self._workers.remove(worker)
        for worker, task in silent:
            worker.process.close()
            if task is None:
                self._count_death(f"no sign of life for {_START:g} s")
        self._start_workers()
        for _, task in silent:
            if task is not None:
                yield Failed(
                    task.key,
                    f"{task.path}: the decoder gave no sign of life for {self._timeout:g} s and was stopped; the file "
                    f"may be damaged or its disk slow: try again with a longer timeout, or leave it out",
                )

    def _is_silent(self, worker: _Worker) -> bool:
        silence = self._clock - worker.heard
        if worker.task is None:
            return not worker.ready and silence > _START
        return worker.free > 0 and silence > self._timeout  # without a free slot it may be waiting for the consumer

    def _count_death(self, how: str) -> None:
        """Notes that a process ended without a video to blame.

        Raises:
            Pseudo3dError: it is the second in a row.
        """
        self._deaths += 1
        if self._deaths > 1:
            raise Pseudo3dError(
                f"decoder processes end before they have decoded anything ({how}); install the package and PyAV again, "
                f"or free memory"
            )

    def _prepare(self, worker: _Worker) -> None:
        """Tell a process the plan; the lock is held."""
        assert self._plan is not None
        worker.slots = worker.process.prepare(self._plan, self._slots)
        worker.free = self._slots
        worker.heard = self._clock

    def _start_workers(self) -> None:
        while len(self._workers) < self._count:
            worker = _Worker()
            worker.heard = self._clock
            worker.process = DecoderProcess(
                partial(self._hear, worker), memory=self._memory, threads=self._threads, beat=self._tick
            )
            with self._lock:
                self._workers.append(worker)
                if self._plan is not None:
                    self._prepare(worker)
                    self._hand_out()

    def _stop_workers(self) -> None:
        """All of them; nothing of what they said or were to do remains."""
        with self._lock:
            workers, self._workers = self._workers, []
            self._waiting.clear()
        for worker in workers:
            worker.process.close()
        self._said = SimpleQueue()
