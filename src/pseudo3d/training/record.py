"""What a run has reported, on the disk: metrics.jsonl for programs, curves.svg for people."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pseudo3d import files
from pseudo3d.visualize.plots import plot_curves, save_figure

Report = dict[str, Any]


class Record:
    """The reports of a run, written anew with every one that comes.

    Args:
        out: the run's folder, which exists.
        reports: of the run so far, when it is resumed; what the files hold beyond them goes with the next ``add``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     Record(Path(out)).add({"epoch": 1, "loss": float("nan"), "val video hit@1": 0.5})
        ...     print((Path(out) / "metrics.jsonl").read_text())
        {"epoch": 1, "loss": null, "val video hit@1": 0.5}
    """

    def __init__(self, out: Path, reports: Sequence[Report] = ()) -> None:
        self.out = out
        self.reports: list[Report] = list(reports)

    def add(self, report: Report) -> None:
        """Keep a report and write both files, each in one step.

        Args:
            report: an epoch's or, with "test", the last; JSON types. Numbers that are not finite are written as null,
                since JSON has no others.

        Raises:
            OSError: the folder cannot be written or the disk is full.
        """
        self.reports.append(report)
        lines = (json.dumps(_finite(each), allow_nan=False) + "\n" for each in self.reports)
        files.write_text(self.out / "metrics.jsonl", "".join(lines))
        save_figure(plot_curves(self.reports), self.out / "curves", kinds=("svg",))


def _finite(value: Any) -> Any:
    """The same with None in the place of NaN and infinity."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
