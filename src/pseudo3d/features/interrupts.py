"""Ctrl-C that waits for the work in hand."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupts:
    """While it is entered, SIGINT and SIGTERM raise KeyboardInterrupt outside of ``held`` only.

    A signal that comes within ``held`` is raised at its end; a second one at once. In a thread other than the main one
    Python has no say over signals, and nothing changes.

    Example:
        >>> done = []
        >>> with contextlib.suppress(KeyboardInterrupt), Interrupts() as interrupts:
        ...     with interrupts.held():
        ...         signal.raise_signal(signal.SIGINT)
        ...         done.append("the batch")
        ...     done.append("more")
        >>> done
        ['the batch']
    """

    def __init__(self) -> None:
        self._before: dict[int, object] = {}
        self._holding = False
        self._pending = False

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._holding and not self._pending:
            self._pending = True
        else:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Work that a signal lets finish first."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._pending:
            raise KeyboardInterrupt
