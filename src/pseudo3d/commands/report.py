"""``p3d report``."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

if TYPE_CHECKING:
    from pseudo3d.visualize.report.writing import Written

_NAMED = 10  # failed videos; the page says of every one why


def run(args: Sequence[str]) -> int:
    """Parse and run."""
    from pseudo3d.cli import parse

    return parse(report, "report", args)


def report(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    /,
    *,
    out: Path,
    title: str = "",
    root: Path | None = None,
    previews: Literal["auto", "all", "mistakes", "none"] = "auto",
    videos: int = 10_000,
    workers: int | None = None,
) -> int:
    """Write one HTML page of what runs of p3d evaluate found, which opens from disk and needs no network.

    It has the tables, the accuracy of each class, confusion matrices, a t-SNE map whose videos play when they are
    clicked, the surest mistakes, and DeepDraw's pictures from RUN/deepdraw. Several runs stand side by side. Clips lie
    in a folder beside the page (report_clips for report.html): keep the two together. They are made once; the same
    command goes on where it was stopped.

    Example: p3d report runs/first runs/second --out report.html

    Args:
        runs: folders that p3d evaluate wrote (with result.json).
        out: the page, NAME.html.
        title: of the page; by default the runs' names.
        root: the folder of the videos, if they have moved.
        previews: which videos can be played: all, mistakes, none, or auto: all up to 2,000 videos, then mistakes.
        videos: how many are shown one by one, besides the worst mistakes; the numbers are always of all of them.
        workers: processes that make the previews; None: one for each core.
    """
    from pseudo3d.commands.output import progress_bar
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.visualize.report.runs import read_run
    from pseudo3d.visualize.report.writing import check_out, write_report

    if not runs:
        raise Pseudo3dError("give at least one run; see p3d report --help")
    if videos < 0 or (workers is not None and workers < 1):
        raise Pseudo3dError("--videos must be 0 or more and --workers 1 or more")
    check_out(out)
    read = [read_run(folder) for folder in runs]
    with progress_bar() as bar:
        task = bar.add_task("previews", total=None, note="")
        written = write_report(
            read,
            out,
            title=title,
            root=root,
            previews=previews,
            most=videos,
            workers=workers,
            on_start=lambda total: bar.update(task, total=total),
            on_video=lambda: bar.advance(task),
        )
    _tell(written)
    return 1 if written.failures else 0


def _tell(written: "Written") -> None:
    """What came of it, and what could not be shown."""
    for name, reason in written.no_maps.items():
        print(f"p3d: no map of {name}: {reason}", file=sys.stderr)
    for reason in list(written.failures.values())[:_NAMED]:
        print(f"failed: {reason}", file=sys.stderr)
    if written.failures:
        print(
            f"{len(written.failures)} of {written.videos} videos could not be shown; the page says why"
            " (--root FOLDER: where the videos are now)",
            file=sys.stderr,
        )
    size = written.page.stat().st_size / 1e6
    print(f"{written.page}: {size:.1f} MB, {written.videos} videos, {written.playable} of them with a clip")
