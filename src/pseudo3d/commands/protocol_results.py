"""What a protocol leaves: result.json, scores, the paper's table with our row, pictures; and what it may not touch."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pseudo3d.evaluation.results import Result
    from pseudo3d.evaluation.scores import Scores

# What a run of ours leaves in its folder; a folder with other files is somebody's and is left alone.
_OWN = re.compile(
    r"result\.json|scores(-\d)?(-train)?\.parquet|table\w*\.(md|tex|csv)|(confusion|roc)\.(png|svg)|features(-\d)?"
    r"|videos(-\d)?\.csv|deepdraw|\..*"
)
_MOST_IN_MATRIX = 1000  # classes


@dataclass(frozen=True, eq=False)
class Finished:
    """A protocol that has run, to be written.

    Args:
        out: the folder.
        result: the numbers; ``facts["asked"]`` is what ``check_out`` compares.
        scores: by the end of the file's name: "" for scores.parquet, "-1" for scores-1.parquet, "-1-train".
        figures: by name, drawn already.
    """

    out: Path
    result: "Result"
    scores: Mapping[str, "Scores"] = field(default_factory=dict)
    figures: Mapping[str, "Figure"] = field(default_factory=dict)


def check_out(out: Path, protocol: str, asked: Mapping[str, Any]) -> None:
    """Refuse a folder that holds something else, before any work is done.

    Args:
        out: the folder.
        protocol: of the result to come.
        asked: what decides that result, in JSON types.

    Raises:
        Pseudo3dError: a file, a folder with other files, or a result of another protocol or of other options.
    """
    from pseudo3d.errors import Pseudo3dError, first_few
    from pseudo3d.evaluation.results import RESULT_NAME, read_result

    if not out.exists():
        return
    if not out.is_dir():
        raise Pseudo3dError(f"{out}: is a file; give a folder for --out")
    others = sorted(path.name for path in out.iterdir() if not _OWN.fullmatch(path.name))
    if others:
        raise Pseudo3dError(f"{out}: holds other files ({first_few(others)}); give a folder of its own for --out")
    if not (out / RESULT_NAME).exists():
        return
    before = read_result(out)
    if before.protocol != protocol:
        raise Pseudo3dError(f"{out}: holds a result of {before.protocol}; give another folder for --out")
    reuse = f" (--features {out / 'features'} uses the features in it)" if (out / "features").exists() else ""
    check_asked(out, before, asked, reuse)


def check_asked(place: Path, before: "Result", asked: Mapping[str, Any], hint: str = "") -> None:
    """Refuse to put a result in the place of one of other options.

    Args:
        place: of the one that is there.
        before: it.
        asked: what decides the result to come, in JSON types.
        hint: what else may be done.

    Raises:
        Pseudo3dError: it names the first option that differs.
    """
    from pseudo3d.errors import Pseudo3dError

    then = before.facts.get("asked", {})
    for key in sorted({*then, *asked}):
        if then.get(key) != asked.get(key):
            raise Pseudo3dError(
                f"{place}: holds a result of other options: {key} was {_short(then.get(key))} and is "
                f"{_short(asked.get(key))} now; give another folder for --out{hint}"
            )


def _short(value: Any) -> str:
    from pseudo3d.errors import printable

    return printable(" ".join(map(str, value)) if isinstance(value, list | tuple) else value, 80)


def write(finished: Finished, command: str) -> None:
    """Write all of it, the result last, and print the tables.

    Args:
        finished: what to write.
        command: the line that it came from.
    """
    from datetime import UTC, datetime

    from pseudo3d import __version__
    from pseudo3d.evaluation.results import save_result
    from pseudo3d.evaluation.scores import save_scores
    from pseudo3d.evaluation.tables import OWN, build_table, save_table, tables_for
    from pseudo3d.visualize.plots import save_figure

    out = finished.out
    out.mkdir(parents=True, exist_ok=True)
    told = {"command": command, "version": __version__, "date": datetime.now(UTC).isoformat(timespec="seconds")}
    result = replace(finished.result, facts={**finished.result.facts, **told})
    for ending, scores in finished.scores.items():
        save_scores(scores, out / f"scores{ending}.parquet")
    _remove_scores(out, {f"scores{ending}.parquet" for ending in finished.scores})
    for name, figure in finished.figures.items():
        save_figure(figure, out / name)
    names = tables_for(result)
    tables = [build_table(name, [result]) for name in names]
    for name, table in zip(names, tables, strict=True):
        save_table(table, out, "table" if len(tables) == 1 else name)
    save_result(result, out)
    for table in tables:
        print(table.text())
    if names != (OWN,):
        _print_own(result)
    print(f"written: {out}")


def _remove_scores(out: Path, kept: Collection[str]) -> None:
    """Remove scores that a run with other splits left before it had a result: they would pass for this one's."""
    from pseudo3d.evaluation.scores import read_scores

    for path in sorted(out.glob("scores*.parquet")):
        if _OWN.fullmatch(path.name) and path.name not in kept:
            read_scores(path)  # refuses what is none
            path.unlink()


def _print_own(result: "Result") -> None:
    """All numbers of the result: a paper's table shows some of them only."""
    from pseudo3d.commands.output import print_table

    splits = list(dict.fromkeys(each.split for each in result.measurements))
    metrics = list(dict.fromkeys(each.metric for each in result.measurements))
    rows = []
    for metric in metrics:
        cells = []
        for split in splits:
            found = result.measurement(metric, split)
            error = f" ± {found.error:.1%}" if found is not None and found.error is not None else ""
            cells.append("-" if found is None else f"{found.value:.1%}{error}")
        rows.append((metric, *cells))
    heads = [f"split {split}" if split.isdecimal() else split or "value" for split in splits]
    print_table(("measured here", *heads), rows)


def confusion_of(scores: Mapping[str, "Scores"], title: str) -> dict[str, "Figure"]:
    """The confusion matrix over the test sides of all splits; none where a video has several classes."""
    import numpy as np

    from pseudo3d.visualize.plots import plot_confusion

    tested = [each for ending, each in scores.items() if not ending.endswith("-train")]
    names = tested[0].class_names
    if len(names) > _MOST_IN_MATRIX or any((each.truth.sum(axis=1) != 1).any() for each in tested):
        return {}
    matrix = np.zeros((len(names), len(names)), np.int64)
    for each in tested:
        np.add.at(matrix, (each.truth.argmax(axis=1), each.values.argmax(axis=1)), 1)
    return {"confusion": plot_confusion(matrix, names, title=title)}
