"""The paper's tables: its printed rows, and below them what was measured here, marked as such.

    published.csv -> rows as printed -+
                                      +-> Table -> terminal, Markdown, LaTeX, CSV
    Result, Result, ... -> our rows  -+

A number of ours stands in a column only if it is what the column means: a table of three splits says which splits a
row has when it has not all of them, clip accuracy never stands for video accuracy, and what was not measured is "-".
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pseudo3d.errors import Pseudo3dError
from pseudo3d.evaluation.published import REFERENCES, SOURCES, PublishedRow, published_rows
from pseudo3d.evaluation.rendering import Cell, Row, Table, mark_of, save_table
from pseudo3d.evaluation.results import SHARES, Measurement, Result

__all__ = ["OWN", "TABLES", "Cell", "Column", "Layout", "Row", "Table", "build_table", "save_table", "tables_for"]

OWN = "results"  # the table of numbers that no published table has a place for
_HEADING = "Measured here"
_WAYS = {
    "network": "the network's own class scores", "svm": "linear SVM on the representation", "fusion": "late fusion",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column: which printed metric it shows, and which of our numbers are the same thing.

    Args:
        title: above it.
        metric: of ``published.csv``; "" for a column that only our rows fill.
        ours: names of measurements with their unit and digits behind the point; the first that was measured counts.
        protocols: whose results fill it; all of the table's unless given.
        word: what our rows have in it, whatever was measured (a linear SVM in Table 5).
        fact: where it stands in a result's facts, key by key, for what is not measured (the clip's length).
        bare: the title says the unit, and the cells do not.
    """

    title: str
    metric: str
    ours: tuple[tuple[str, str, int], ...] = ()
    protocols: tuple[str, ...] = ()
    word: str = ""
    fact: tuple[str, ...] = ()
    bare: bool = False


@dataclass(frozen=True)
class Layout:
    """How a published table is shown and who may enter it.

    Args:
        title: what it shows.
        protocols: of the results that have a place in it.
        splits: which of a share's: "three": the mean of three; "first": split 1; "any": there is one test set.
        columns: between method and source.
        notes: what a reader has to know of the printed numbers.
    """

    title: str
    protocols: tuple[str, ...]
    splits: Literal["three", "first", "any"]
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()


_OF_THREE = "the printed numbers are means of 3 splits"
_CLASSES = {  # of the whole data set
    "ucf101": 101, "sports1m": 487, "activitynet": 200, "yupenn": 14, "dynamic-scene": 13, "bench-table1": 101,
}  # fmt: skip

_ACCURACY = (("accuracy", "%", 1), ("video hit@1", "%", 1))

TABLES: dict[str, Layout] = {
    "table1": Layout(
        "Table 1: ResNet-50 and its P3D variants on UCF101, split 1",
        ("bench-table1", "ucf101-network"),
        "first",
        (
            Column("Model size", "model size", (("parameters, MB", "MB", 1),)),
            Column("In MiB", "", (("parameters, MiB", "MiB", 1),)),
            Column("Speed", "speed", (("speed, clips/s", "clip/s", 1), ("speed, frames/s", "frame/s", 1))),
            Column("Accuracy", "accuracy", _ACCURACY),
        ),
        (
            "Printed speeds are of one NVIDIA K40 GPU; the paper does not say whether of training or testing, nor the "
            "batch. ResNet-50 is counted in frames of 224x224, P3D in clips of 16x160x160.",
        ),
    ),
    "table2": Layout(
        "Table 2: Sports-1M",
        ("sports1m",),
        "any",
        (
            Column("Pre-train data", "pre-train data"),
            Column("Clip length", "clip length", fact=("preprocessing", "num_frames"), bare=True),
            Column("Clip hit@1", "clip hit@1", (("clip hit@1", "%", 1),)),
            Column("Video hit@1", "video hit@1", (("video hit@1", "%", 1),)),
            Column("Video hit@5", "video hit@5", (("video hit@5", "%", 1),)),
        ),
        ("Clip length in frames; those of Convolutional Pooling are 1 s apart, so that 120 cover 2 minutes.",),
    ),
    "table3": Layout(
        "Table 3: UCF101, mean of the 3 splits",
        ("ucf101-network", "ucf101-svm", "fusion"),
        "three",
        (
            Column("Accuracy", "accuracy", _ACCURACY),
            Column("With optical flow", "accuracy with optical flow"),
        ),
        ("With optical flow: scores of frames and flow fused late (in brackets in the paper).",),
    ),
    "table4": Layout(
        "Table 4: ActivityNet v1.3, validation set",
        ("activitynet-svm", "activitynet-network"),
        "any",
        (
            Column("Top-1", "top-1", (("top-1", "%", 2),)),
            Column("Top-3", "top-3", (("top-3", "%", 2),)),
            Column("mAP", "mAP", (("mAP", "%", 2),)),
        ),
        ("The printed numbers are of a linear SVM on each method's feature.",),
    ),
    "table5": Layout(
        "Table 5: ASLAN, action similarity, 10 folds",
        ("aslan",),
        "any",
        (
            Column("Model", "model", word="linear"),
            Column("Accuracy", "accuracy", (("accuracy", "%", 1),)),
            Column("AUC", "AUC", (("AUC", "%", 1),)),
        ),
    ),
    "table6": Layout(
        "Table 6: scene recognition, one video left out at a time",
        ("dynamic-scene", "yupenn"),
        "any",
        (
            Column("Dynamic Scene", "accuracy on Dynamic Scene", (("accuracy", "%", 1),), ("dynamic-scene",)),
            Column("YUPENN", "accuracy on YUPENN", (("accuracy", "%", 1),), ("yupenn",)),
        ),
    ),
    "table_c3d_ucf101": Layout(
        "C3D on UCF101",
        ("ucf101-svm",),
        "three",
        (Column("Accuracy", "accuracy", (("accuracy", "%", 1),)),),
        ("References in brackets are of the C3D paper's list, which the talk does not show.",),
    ),
    "table_c3d_runtime": Layout(
        "Runtime of C3D",
        ("bench-c3d-runtime",),
        "any",
        (
            Column("Usage", "usage", fact=("usage",)),
            Column("RT (hours)", "RT", (("runtime of UCF101, hours", "hours", 2),), bare=True),
            Column("FPS", "FPS", (("speed, frames/s", "frame/s", 1),), bare=True),
            Column("x slower", "x slower", (("x slower than C3D's printed FPS", "", 2),)),
            Column("Decoding FPS", "", (("decoding alone, frames/s", "frame/s", 1),), bare=True),
            Column("Network FPS", "", (("network alone, frames/s", "frame/s", 1),), bare=True),
        ),
        (
            "RT: hours for one set of videos, which the talk does not name; C3D's hours and FPS make 2.5 million "
            "frames, with which the FPS of iDT and of Brox's on a GPU come out a little lower than printed.",
        ),
    ),
}


def tables_for(result: Result) -> tuple[str, ...]:
    """The published tables that a result has a number for; ``OWN`` alone where there is none.

    Example:
        >>> tables_for(Result("aslan", "mine", (Measurement("accuracy", 0.8, error=0.01),)))
        ('table5',)
        >>> tables_for(Result("kinetics", "mine", (Measurement("top-1", 0.7),)))
        ('results',)
    """
    fitting = tuple(name for name in TABLES if _fits(result, name))
    return fitting or (OWN,)


def build_table(name: str, results: Sequence[Result] = ()) -> Table:
    """A published table with our rows below its own, or the table of our numbers alone.

    Args:
        name: a key of ``TABLES``, or ``OWN``.
        results: what was measured, one row each; scene results of one network and variant under one name share theirs.

    Raises:
        Pseudo3dError: no such table, a result that has no number for it, or ``OWN`` without results.

    Example:
        >>> table = build_table("table3", [Result("ucf101-svm", "mine", (Measurement("accuracy", 0.86, "1"),))])
        >>> [str(cell) for cell in table.rows[-1].cells], table.rows[-1].texts()[-1], table.footnotes
        (['86.0%', '-'], 'measured [a]', (('a', 'split 1 only; the printed numbers are means of 3 splits'),))
    """
    if name == OWN:
        return _own_table(results)
    if name not in TABLES:
        raise Pseudo3dError(f"no table {name!r}; there are {', '.join((*TABLES, OWN))}")
    layout = TABLES[name]
    for result in results:
        if not _fits(result, name):
            others = ", ".join(tables_for(result))
            raise Pseudo3dError(
                f"{result.name}: this result of {result.protocol} has no number for {name}; it has some for {others}"
            )
    printed, said = published_rows(name), [row for row in published_rows("text") if row.group == name]
    ours, footnotes = _own_rows([_measured(result, layout) for result in results])
    rows = [*(_printed_row(row, layout) for row in printed), *ours]
    shown = [i for i, c in enumerate(layout.columns) if c.metric or any(row.cells[i].value for row in rows)]
    rows = [replace(row, cells=tuple(row.cells[i] for i in shown)) for row in rows]
    place = "section" if printed[0].source == "P3D paper" else "slide"
    title = f"{layout.title} ({printed[0].source}, {place} {printed[0].section})"
    notes = (*layout.notes, *map(_said, said), *_sources([*printed, *said]))
    return Table(title, tuple(layout.columns[i].title for i in shown), tuple(rows), footnotes, notes)


@dataclass(frozen=True)
class _Measured:
    """A row of ours before its footnotes have their marks; rows of one name and ``network`` may become one."""

    name: str
    cells: tuple[Cell, ...]
    footnotes: tuple[str, ...]
    network: object = None
    group: str = ""


def _fits(result: Result, name: str) -> bool:
    layout = TABLES[name]
    if result.protocol not in layout.protocols:
        return False
    if result.protocol == "fusion" and result.data != "ucf101":
        return False
    if name == "table_c3d_ucf101" and not _network_name(result).startswith("c3d"):
        return False
    if name == "table1" and _network_name(result) not in ("", "resnet50", "p3d_resnet50"):
        return False  # the table compares networks of one depth
    return any(_found(result, column, layout)[0] is not None for column in layout.columns)


def _network_name(result: Result) -> str:
    architecture = result.facts.get("architecture")
    return str(architecture.get("name", "")) if isinstance(architecture, dict) else ""


def _found(result: Result, column: Column, layout: Layout) -> tuple[tuple[Measurement, str, int] | None, str]:
    """The number of a result for a column with its unit and digits, and what has to be said of it."""
    if column.protocols and result.protocol not in column.protocols:
        return None, ""
    for metric, unit, digits in column.ours:
        splits = {each.split: each for each in result.measurements if each.metric == metric}
        number, footnote = _of_split(splits, layout.splits if metric in SHARES else "any")
        if number is not None:
            return (number, unit, digits), footnote
    return None, ""


def _of_split(splits: dict[str, Measurement], wanted: str) -> tuple[Measurement | None, str]:
    """The number that a table of such splits shows, and what has to be said of it."""
    numbered = sorted(name for name in splits if name not in ("", "mean"))
    if wanted == "first":
        return splits.get("1"), ""
    if wanted == "any":
        alone = splits[numbered[0]] if len(numbered) == 1 else None
        return splits.get("mean", splits.get("", alone)), ""
    if "mean" in splits:
        which = f"mean of splits {' and '.join(numbered)} only" if numbered else "it is not recorded of which splits"
        return splits["mean"], "" if {"1", "2", "3"} <= set(numbered) else f"{which}; {_OF_THREE}"
    if len(numbered) == 1:
        return splits[numbered[0]], f"split {numbered[0]} only; {_OF_THREE}"
    return splits.get(""), f"it is not recorded of which split; {_OF_THREE}"


def _measured(result: Result, layout: Layout) -> _Measured:
    """The row of one result; what the table demands is said first, then what the result says of itself."""
    cells, footnotes = [], []
    for column in layout.columns:
        found, footnote = _found(result, column, layout)
        cells.append(_own_cell(result, column, found))
        footnotes += [footnote] if found is not None and footnote else []
    classes, all_classes = result.facts.get("classes"), _CLASSES.get(result.data or "")
    if all_classes is not None and classes not in (None, all_classes):
        footnotes.append(f"measured on {classes} classes; the printed numbers are of {all_classes}")
    network = tuple(result.facts.get(key) for key in ("architecture", "weights", "variant"))
    footnotes = list(dict.fromkeys((*footnotes, *result.footnotes)))
    return _Measured(result.name, tuple(cells), tuple(footnotes), network, _heading(result, layout))


def _heading(result: Result, layout: Layout) -> str:
    """What our row stands under: where a table takes rows of several ways to a class, which way it is."""
    ways = {way for way in _WAYS if any(protocol.endswith(way) for protocol in layout.protocols)}
    told = next((_WAYS[way] for way in ways if result.protocol.endswith(way)), "")
    return f"{_HEADING}: {told}" if len(ways) > 1 else _HEADING


def _fact(result: Result, path: tuple[str, ...]) -> str:
    """What stands at a place of the facts; "" where nothing does."""
    value: object = result.facts if path else ""
    for key in path:
        value = value.get(key, "") if isinstance(value, dict) else ""
    return str(value)


def _own_cell(result: Result, column: Column, found: tuple[Measurement, str, int] | None) -> Cell:
    if found is None:
        return Cell(column.word or _fact(result, column.fact))
    cell = _number_cell(*found)
    return replace(cell, unit="") if column.bare else cell


def _number_cell(number: Measurement, unit: str, digits: int) -> Cell:
    scale = 100 if unit == "%" else 1
    error = "" if number.error is None else f"{scale * number.error:.{digits}f}"
    return Cell(f"{scale * number.value:.{digits}f}", unit, error)


def _printed_row(row: PublishedRow, layout: Layout) -> Row:
    cells = []
    for column in layout.columns:
        printed = row.values.get(column.metric)
        cells.append(Cell() if printed is None else Cell(printed.value, "" if column.bare else printed.unit))
    return Row(row.method, tuple(cells), row.source, row.group)


def _own_rows(measured: Iterable[_Measured]) -> tuple[tuple[Row, ...], tuple[tuple[str, str], ...]]:
    """Our rows and the footnotes with their marks; a text that several rows have gets one mark."""
    marks: dict[str, str] = {}
    rows = []
    together = _together(measured)
    groups = [each.group for each in together]
    for each in sorted(together, key=lambda each: groups.index(each.group)):
        for text in each.footnotes:
            marks.setdefault(text, mark_of(len(marks)))
        own = tuple(marks[text] for text in each.footnotes)
        rows.append(Row(each.name, each.cells, "measured", each.group, own))
    return tuple(rows), tuple((mark, text) for text, mark in marks.items())


def _together(measured: Iterable[_Measured]) -> list[_Measured]:
    """Rows of one network in one variant that fill different columns (two scene sets in Table 6) as one."""
    rows: list[_Measured] = []
    for new in measured:
        for i, row in enumerate(rows):
            apart = all(not (a.value and b.value) for a, b in zip(row.cells, new.cells, strict=True))
            if (row.name, row.network) == (new.name, new.network) and apart:
                cells = tuple(a if a.value else b for a, b in zip(row.cells, new.cells, strict=True))
                rows[i] = replace(row, cells=cells, footnotes=tuple(dict.fromkeys(row.footnotes + new.footnotes)))
                break
        else:
            rows.append(new)
    return rows


def _said(row: PublishedRow) -> str:
    """A number of the running text, for the notes of the table that it belongs to."""
    values = ", ".join(f"{metric} {Cell(found.value, found.unit)}" for metric, found in row.values.items())
    return f"The text (section {row.section}) adds: {row.method}, {values}."


def _sources(printed: Sequence[PublishedRow]) -> tuple[str, ...]:
    """What the rows' sources are, and the works that the paper's numbers in brackets stand for."""
    names = tuple(dict.fromkeys(row.source for row in printed))
    notes = [f"{name}: {SOURCES[name]}." for name in names]
    cited = sorted(
        {int(n) for row in printed if row.source == "P3D paper" for n in re.findall(r"\[(\d+)\]", row.method)}
    )
    if cited:
        notes.append("; ".join(f"[{number}] {REFERENCES[number]}" for number in cited) + ".")
    return tuple(notes)


def _own_table(results: Sequence[Result]) -> Table:
    """All numbers of the results, a column for each metric and split; nothing is printed anywhere to compare with."""
    if not results:
        raise Pseudo3dError(f"the table {OWN!r} shows what was measured: give the folders of runs")
    keys = list(dict.fromkeys((each.metric, each.split) for result in results for each in result.measurements))
    rows = []
    for number, result in enumerate(results):
        cells = []
        for metric, split in keys:
            found = result.measurement(metric, split)
            unit = "%" if metric in SHARES else ""
            cells.append(Cell() if found is None else _number_cell(found, unit, 2 if unit == "" else 1))
        rows.append(_Measured(result.name, tuple(cells), result.footnotes, network=number))  # each its own row
    columns = [
        f"{metric}, {f'split {split}' if split.isdecimal() else split}" if split else metric for metric, split in keys
    ]
    ours, footnotes = _own_rows(rows)
    protocols = ", ".join(dict.fromkeys(result.protocol for result in results))
    return Table(f"Measured: {protocols}", tuple(columns), ours, footnotes)
