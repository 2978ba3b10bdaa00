"""What commands share in talking to a person."""

import sys
from collections.abc import Iterable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text


def progress_bar() -> Progress:
    """A bar on a terminal's error stream, nothing elsewhere."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """A table on standard output; every column but the first is aligned right."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # as it is: a name is no markup
    console = Console(soft_wrap=True)
    with console.capture() as text:
        console.print(table)
    print(text.get(), end="")  # rich itself ends the program when nobody reads on, with a code of its own


def report_failures(failures: dict[str, str], done: int) -> int:
    """Name every failed video on the error stream; the exit code that follows.

    Args:
        failures: the reason of each; a reason begins with the path.
        done: videos that went well.
    """
    if not failures:
        return 0
    for reason in failures.values():
        print(f"failed: {reason}", file=sys.stderr)
    if len(failures) + done > 1:
        print(f"{len(failures)} of {len(failures) + done} videos failed", file=sys.stderr)
    return 1 if done else 2
