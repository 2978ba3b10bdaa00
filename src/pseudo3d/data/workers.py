"""The worker processes of a torch DataLoader, watched: whatever becomes of them comes out where a batch is asked for.

torch alone raises the death of a worker wherever its main process happens to be, in the middle of a step too.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, cast

from torch.utils.data import DataLoader

GRACE = 10.0  # seconds that a worker has to finish its batch and end before it is killed
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


class WorkerEndedError(Exception):
    """A worker ended before its time.

    Args:
        number: which one, from 0.
        exit_code: its exit code; of one that was killed by signal s, -s.
    """

    def __init__(self, number: int, exit_code: int) -> None:
        super().__init__(number, exit_code)
        self.number = number
        self.exit_code = exit_code


class TooSlowError(Exception):
    """No batch came within the loader's time limit."""


def ignore_interrupts(worker: int) -> None:
    """What a worker begins with: the main process decides what an interrupt ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class WatchedWorkers:
    """One iteration over a loader with workers; close it in any case.

    The workers are deaf to SIGINT and SIGTERM, which terminals and cluster managers send to all processes of a run:
    the main process may need more batches, or its time to write a checkpoint, before it ends them.

    Args:
        loader: with ``num_workers`` above 0 and a ``timeout``, workers not persistent.
    """

    def __init__(self, loader: DataLoader) -> None:
        self._limit = loader.timeout
        self._waiting = False
        with _interrupts_held():
            self._batches = cast(Any, iter(loader))  # what it has to end them with is private to torch
        self.processes: list[BaseProcess] = self._batches._workers
        # Signals are the main thread's business; from another thread torch looks for itself, when the time is over.
        self._handles = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
        if self._handles:
            self._before = signal.signal(signal.SIGCHLD, self._child_ended)

    def next(self) -> Any:
        """The next batch.

        Raises:
            WorkerEndedError: a worker has ended.
            TooSlowError: none came within the time limit.
            StopIteration: there are no more.
        """
        started = time.monotonic()
        self._waiting = True  # before the look at the processes: one that ends after it is noticed by its signal
        try:
            self._check()
            return next(self._batches)
        except (RuntimeError, OSError, EOFError) as error:
            self._check()
            if not isinstance(error, RuntimeError):  # a worker that is just ending can no longer hand over its batch
                wait([process.sentinel for process in self.processes], GRACE)
                self._check()
            elif time.monotonic() - started >= self._limit:
                raise TooSlowError from error
            raise
        finally:
            self._waiting = False

    def close(self) -> None:
        """Ends the workers; those that are still busy after ``GRACE`` seconds are killed."""
        impatient = threading.Timer(GRACE, self._kill)
        impatient.start()
        try:
            self._batches._shutdown_workers()
        finally:
            impatient.cancel()
            self._kill()
            for process in self.processes:
                process.join(GRACE)  # one that waits for a dead disk cannot even be killed
            if self._handles and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGCHLD, self._before)

    def _kill(self) -> None:
        for process in self.processes:
            process.kill()

    def _check(self) -> None:
        for number, process in enumerate(self.processes):
            if process.exitcode:
                raise WorkerEndedError(number, process.exitcode)

    def _child_ended(self, number: int, frame: FrameType | None) -> None:
        if callable(self._before):
            with suppress(RuntimeError):  # torch's own handler; ``next`` finds out itself
                self._before(number, frame)
        if self._waiting:
            self._check()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes that are started meanwhile inherit that SIGINT and SIGTERM do not reach them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # it would be started with the first worker, and let the signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
