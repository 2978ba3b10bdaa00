"""What a person sees while a network trains."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from types import TracebackType

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

_LINES = 10  # of a whole run, where there is no terminal
_FIRST_LINE_S, _LINE_EVERY_S = 5.0, 30.0  # of looking at videos
_FEW_STEPS = 100  # a shorter run has lines for its epochs only


Looking = Callable[[int], AbstractContextManager[Callable[[], None]]]  # looking_at, for so many videos


@contextmanager
def looking_at(videos: int, *, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """A bar for the first look at a run's videos; where there is no terminal, a line now and then when it takes long.

    Args:
        videos: how many.
        quiet: show nothing.

    Yields:
        What to call after each of them.

    Example:
        >>> with looking_at(2, quiet=True) as looked:
        ...     looked()
        ...     looked()
    """
    console = Console(stderr=True, quiet=quiet)
    bar = Progress(
        TextColumn("looking at the videos"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, disable=quiet or not console.is_terminal, transient=True,
    )  # fmt: skip
    task, done, due = bar.add_task("", total=videos), 0, time.monotonic() + _FIRST_LINE_S

    def looked() -> None:
        nonlocal done, due
        done += 1
        bar.advance(task)
        if bar.disable and done < videos and time.monotonic() >= due:
            console.print(f"looked at {done} of {videos} videos", highlight=False, soft_wrap=True)
            due = time.monotonic() + _LINE_EVERY_S

    with _bar_below_the_log(bar):
        yield looked


UNSEEN: Looking = partial(looking_at, quiet=True)


class TrainingProgress(AbstractContextManager):
    """A bar and a line of numbers on a terminal, a line every tenth of the run elsewhere, all on the error stream.

    Lines of the package's log, warnings and ``note`` come to stand above the bar.

    Args:
        epochs: of the run.
        steps: of the whole run.
        start: steps that were done before, when the run is resumed.
        quiet: show nothing; for all processes but one of a distributed run.

    Example:
        >>> with TrainingProgress(epochs=2, steps=8, quiet=True) as progress:
        ...     progress.stepped(1, 0.7, 1e-3, clips_per_s=20.0, waiting=0.1, memory=4 * 10**9)
        ...     progress.text()
        'epoch 1/2  loss 0.700  lr 0.001  20.0 clips/s  10% of the time waiting for data  4.0 GB'
    """

    def __init__(self, epochs: int, steps: int, *, start: int = 0, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.epochs, self.steps, self.done = epochs, steps, start
        self._numbers = self._hit = ""
        self._due = False  # a line, unless the epoch's end says more
        self._bar = _Bar(self.text, self.console, disable=quiet or not self.console.is_terminal)
        self._task = self._bar.add_task("training", total=steps, completed=start)
        self._scoring: TaskID | None = None
        self._shown = ExitStack()

    def __enter__(self) -> "TrainingProgress":
        self._shown.enter_context(_bar_below_the_log(self._bar))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.close()

    def stepped(self, epoch: int, loss: float, lr: float, *, clips_per_s: float, waiting: float, memory: int) -> None:
        """One step is done.

        Args:
            epoch: from 1.
            loss: the mean of the epoch so far.
            lr: learning rate of the step.
            clips_per_s: training clips a second.
            waiting: share of the time spent waiting for data, 0..1.
            memory: bytes in use.
        """
        if self._due:
            self._line(f"step {self.done}/{self.steps}: {self.text()}")
        self._end_scoring()
        self._numbers = (
            f"epoch {epoch}/{self.epochs}  loss {loss:.3f}  lr {lr:.2g}  {clips_per_s:.1f} clips/s  "
            f"{waiting:.0%} of the time waiting for data  {memory / 1e9:.1f} GB"
        )
        self.done += 1
        self._bar.update(self._task, completed=self.done)
        new_tenth = self.done * _LINES // self.steps > (self.done - 1) * _LINES // self.steps
        self._due = new_tenth and self.steps >= _FEW_STEPS and self.epochs <= _LINES // 2

    def ended(self, epoch: int, loss: float, val_hit: float | None) -> None:
        """An epoch is over; its mean loss and, if there was a validation, its video hit@1 (0..1)."""
        self._end_scoring()
        self._due = False
        hit = "" if val_hit is None else f"val video hit@1 {val_hit:.1%}"
        self._hit = hit or self._hit
        every = max(1, self.epochs // _LINES)
        if epoch % every == 0 or epoch == self.epochs:
            self._line(f"epoch {epoch}/{self.epochs}: loss {loss:.3f} {hit}".rstrip())

    def scoring(self, what: str, videos: int) -> None:
        """Videos begin to be scored, and have a bar of their own until training goes on.

        Args:
            what: "validation", "test".
            videos: how many.
        """
        self._end_scoring()
        self._scoring = self._bar.add_task(what, total=videos)

    def scored(self) -> None:
        """One of these videos is done."""
        assert self._scoring is not None
        self._bar.update(self._scoring, advance=1)

    def note(self, text: str) -> None:
        """Print a line, above the bar."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def text(self) -> str:
        """The numbers of the last step and of the last validation."""
        return "  ".join(filter(None, (self._numbers, self._hit)))

    def _line(self, text: str) -> None:
        """What a terminal's bar says already."""
        if not self.console.is_terminal:
            self.note(text)

    def _end_scoring(self) -> None:
        if self._scoring is not None:
            self._bar.remove_task(self._scoring)
            self._scoring = None


class _Bar(Progress):
    """Bars with a line of numbers below; the numbers would leave no room beside them."""

    def __init__(self, text: Callable[[], str], console: Console, *, disable: bool) -> None:
        self._text = text
        super().__init__(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=console, disable=disable,
            speed_estimate_period=3600,  # seconds; rich's 30 are shorter than many a step
        )  # fmt: skip

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield Text(self._text())


@contextmanager
def _bar_below_the_log(bar: Progress) -> Iterator[None]:
    """The bar on the screen, and above it what is logged."""
    stderr = sys.stderr
    with bar:
        # On a terminal sys.stderr is now a stream that prints above the bar, but log handlers keep the stream that
        # they were made with.
        handlers = [handler for handler in _log_handlers() if handler.stream is stderr]
        for handler in handlers:
            handler.setStream(sys.stderr)
        try:
            yield
        finally:
            for handler in handlers:
                handler.setStream(stderr)


def _log_handlers() -> list[logging.StreamHandler]:
    found = [*logging.getLogger("pseudo3d").handlers, *logging.getLogger().handlers]
    return [handler for handler in found if isinstance(handler, logging.StreamHandler)]
