"""What a person sees while a network trains."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingProgress:
    """A progress bar on a terminal, a line every tenth of the run elsewhere.

    Args:
        epochs: of the run.
        steps: of the whole run.
        quiet: show nothing.
    """

    def __init__(self, epochs: int, steps: int, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.epochs = epochs
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=self.console, disable=not self.console.is_terminal,
        )  # fmt: skip
        self.task = self.progress.add_task("training", total=steps, note="")
        self.note = ""

    def __enter__(self) -> "TrainingProgress":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def stepped(self, epoch: int, loss: float, lr: float) -> None:
        """One batch is done; ``loss`` is the mean of the epoch so far."""
        self.progress.update(
            self.task, advance=1, note=f"epoch {epoch}/{self.epochs}  loss {loss:.3f}  lr {lr:.2g}  {self.note}"
        )

    def ended(self, epoch: int, loss: float, val_hit: float | None) -> None:
        """An epoch is over; its mean loss and, if there was a validation, its video hit@1 (0..1)."""
        self.note = "" if val_hit is None else f"val video hit@1 {val_hit:.1%}"
        every = max(1, self.epochs // 10)
        if not self.console.is_terminal and (epoch % every == 0 or epoch == self.epochs):
            text = f"epoch {epoch}/{self.epochs}: loss {loss:.3f} {self.note}".rstrip()
            self.console.print(text, highlight=False, soft_wrap=True)

    def tested(self) -> None:
        """One test video is done."""
        self.progress.update(self.task, description="testing")
