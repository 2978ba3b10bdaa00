"""A signal that asks a run to end: the step in hand is finished and kept first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):  # noqa: N818 (it is no error)
    """A run was asked to end and has kept where it is.

    Args:
        signal: the number of the signal: SIGINT of Ctrl-C, SIGTERM of a cluster that wants its machine back.
        text: one line: what is kept, and how to go on; "" in a process that leaves the word to another.
    """

    def __init__(self, signal: int, text: str) -> None:
        super().__init__(text)
        self.signal = signal
        self.text = text


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """While it is entered, SIGTERM raises ``Interrupted`` at once, as Ctrl-C raises KeyboardInterrupt.

    For what comes before the first step, where there is nothing to keep and only something to tidy.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    raise Interrupted(number, f"{name}: stopped, with no step in hand; the same command with --resume auto goes on")


class StopSignals:
    """While it is entered, the first SIGINT or SIGTERM is noted in ``pending``; a second Ctrl-C ends what is running.

    In a thread other than the main one Python has no say over signals, and nothing is noted.

    Example:
        >>> with StopSignals() as signals:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     signals.pending == signal.SIGTERM
        True
    """

    def __init__(self) -> None:
        self.pending = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.pending and number == signal.SIGINT:
            raise KeyboardInterrupt  # a cluster may send SIGTERM twice; a person who insists means it
        self.pending = self.pending or number
