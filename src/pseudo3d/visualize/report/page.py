"""The page itself: what was found, as one HTML file that needs no network."""

import base64
import hashlib
import html
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any
from urllib.parse import quote

import numpy as np

from pseudo3d.evaluation.results import SHARES, Measurement
from pseudo3d.evaluation.tables import OWN, Table, build_table, tables_for
from pseudo3d.visualize.report.maps import VideoMap
from pseudo3d.visualize.report.runs import Run, View
from pseudo3d.visualize.report.sidecar import Preview
from pseudo3d.visualize.report.sprites import Sprites

TOP = 5
"""Classes that are told of a video, the likeliest first."""

_SCRIPTS = ("core.js", "splits.js", "classes.js", "map.js", "videos.js")


@dataclass(frozen=True, eq=False)
class Content:
    """All that is on the page.

    Args:
        title: of the page.
        runs: in order.
        videos: those that are shown one by one.
        previews: of each of them.
        sprites: their thumbnails.
        maps: of each view of each run.
        clips: the folder of the clips, as the page names it.
        pictures: of each run: DeepDraw's files, as the page names them.
        left_out: videos that are in the numbers, but not shown one by one.
        titles: what the page calls each of ``videos``; their paths unless given.
    """

    title: str
    runs: Sequence[Run]
    videos: Sequence[str]
    previews: Sequence[Preview]
    sprites: Sprites
    maps: Sequence[Sequence[VideoMap]]
    clips: str
    pictures: Sequence[Sequence[str]]
    left_out: int = 0
    titles: Sequence[str] = ()


def build_page(content: Content, now: datetime) -> str:
    """The HTML text; whatever a path or a class is called, it is text on the page and nothing else.

    Args:
        content: what is on it.
        now: the time that it names.
    """
    script = "\n".join(_file(name) for name in _SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "TITLE": _text(content.title),
        "SCRIPT_HASH": digest,
        "STYLE": _file("report.css"),
        "LEAD": _text(_lead(content, now)),
        "SUMMARY": _summary(content.runs),
        "TABLES": _tables(content.runs),
        "FACTS": "".join(_facts(run) for run in content.runs),
        "DATA": _json(_data(content)),
        "SHEETS": "".join(
            f'<script type="text/plain" id="sheet-{i}">{sheet}</script>\n'
            for i, sheet in enumerate(content.sprites.sheets)
        ),
        "SCRIPT": script,
    }
    page = _file("report.html")
    pieces = page.split("@@")  # every other piece is a name: what is filled in is never searched for names again
    filled = [piece if i % 2 == 0 else parts[piece] for i, piece in enumerate(pieces)]
    return "".join(filled).encode("utf-8", "replace").decode()  # of a name that is not UTF-8


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _text(text: object) -> str:
    return html.escape(str(text))


def _json(value: object) -> str:
    """JSON that no HTML parser ends early."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")


def _lead(content: Content, now: datetime) -> str:
    parts = [f"{len(content.runs)} runs" if len(content.runs) > 1 else content.runs[0].result.protocol]
    if content.videos:
        what = "pairs of videos" if all(run.of_pairs for run in content.runs) else "videos"
        parts.append(f"{len(content.videos) + content.left_out:,} {what}".replace(",", " "))
    if content.left_out:
        parts.append(f"{len(content.videos):,} of them shown one by one".replace(",", " "))
    return " · ".join([*parts, f"{now:%d %B %Y, %H:%M}"])


def _summary(runs: Sequence[Run]) -> str:
    """The measurements, one row a run, with numbered footnotes."""
    columns = list(dict.fromkeys((each.metric, each.split) for run in runs for each in run.result.measurements))
    best = {column: _best(runs, column) for column in columns}
    notes: list[str] = list(dict.fromkeys(note for run in runs for note in run.result.footnotes))
    head = "".join(f'<th scope="col" class="number">{_text(_column(*column))}</th>' for column in columns)
    rows = []
    for number, run in enumerate(runs):
        marks = ", ".join(str(notes.index(note) + 1) for note in run.result.footnotes)
        marks = f'<sup aria-label="notes {marks}">{marks}</sup>' if marks else ""
        cells = []
        for column in columns:
            found = run.result.measurement(*column)
            mark = ' class="number best"' if found is not None and found.value == best[column] else ' class="number"'
            cells.append(f"<td{mark}>{'–' if found is None else _value(found)}</td>")
        rows.append(
            f'<tr><th scope="row"><span class="run-key run-{number % 6}">{number + 1}</span> '
            f"{_text(run.result.name)}{marks}<small>{_text(run.result.protocol)}</small></th>{''.join(cells)}</tr>"
        )
    footnotes = "".join(f"<li>{_text(note)}</li>" for note in notes)
    return (
        f'<div class="scroll"><table class="summary"><thead><tr><th scope="col">run</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>" + (f'<ol class="notes">{footnotes}</ol>' if notes else "")
    )


def _tables(runs: Sequence[Run]) -> str:
    """The paper's tables that the runs have a place in, with its rows."""
    names = dict.fromkeys(name for run in runs for name in tables_for(run.result) if name != OWN)
    return "".join(
        _table(build_table(name, [run.result for run in runs if name in tables_for(run.result)])) for name in names
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col" class="number">{_text(column)}</th>' for column in table.columns)
    rows, group = [], ""
    for row in table.rows:
        if row.group != group:
            group = row.group
            rows.append(f'<tr><th scope="colgroup" colspan="{len(table.columns) + 2}">{_text(group)}</th></tr>')
        own = ' class="own"' if row.source == "measured" else ""
        method, *texts, source = row.texts()
        cells = "".join(f'<td class="number">{_text(cell)}</td>' for cell in texts)
        rows.append(f'<tr{own}><th scope="row">{_text(method)}</th>{cells}<td>{_text(source)}</td></tr>')
    notes = "".join(f"<li>[{_text(mark)}] {_text(text)}</li>" for mark, text in table.footnotes)
    notes += "".join(f"<li>{_text(text)}</li>" for text in table.notes)
    return (
        f'<details class="published" open><summary>{_text(table.title)}</summary><div class="scroll"><table><thead><tr>'
        f'<th scope="col">method</th>{head}<th scope="col">source</th></tr></thead><tbody>{"".join(rows)}</tbody>'
        f'</table></div><ul class="notes">{notes}</ul></details>'
    )


def _best(runs: Sequence[Run], column: tuple[str, str]) -> float | None:
    """The highest value of a column of shares, where several runs of one protocol can be compared."""
    found = [each.value for run in runs if (each := run.result.measurement(*column)) is not None]
    one_protocol = len({run.result.protocol for run in runs}) == 1
    return max(found) if len(found) > 1 and one_protocol and column[0] in SHARES else None


def _column(metric: str, split: str) -> str:
    if not split:
        return metric
    return f"{metric}, {split}" if split == "mean" else f"{metric}, split {split}"


def _value(found: Measurement) -> str:
    scale, unit, digits = (100, "%", 1) if found.metric in SHARES else (1, "", 1)
    error = "" if found.error is None else f" ± {scale * found.error:.{digits}f}"
    return f"{scale * found.value:.{digits}f}{error}{unit}"


def _facts(run: Run) -> str:
    rows = "".join(
        f"<dt>{_text(key)}</dt><dd>{_text(value if isinstance(value, str) else json.dumps(value))}</dd>"
        for key, value in run.result.facts.items()
        if value not in (None, "", [], {})
    )
    if not rows:
        return ""
    return f"<details><summary>How {_text(run.result.name)} was measured</summary><dl>{rows}</dl></details>"


def _data(content: Content) -> dict[str, Any]:
    """What the script draws."""
    number = {video: i for i, video in enumerate(content.videos)}
    sprites = content.sprites
    return {
        "videos": list(content.titles or content.videos),
        "clips": quote(os.fsencode(content.clips)),
        "clip": [None if preview.clip is None else preview.clip for preview in content.previews],
        "reasons": {i: preview.reason for i, preview in enumerate(content.previews) if preview.reason},
        "sprite": list(sprites.places),
        "tile": [sprites.width, sprites.height, sprites.columns],
        "sheets": len(sprites.sheets),
        "runs": [
            {
                "name": run.result.name,
                "classes": list(run.views[0].scores.class_names) if run.views else [],
                "views": [_view(run, *each, number) for each in zip(run.views, maps, strict=True)],
                "layer": next((each.layer for each in run.stored if each.layer), ""),
                "pictures": [quote(os.fsencode(name)) for name in pictures],
                "labels": [path.stem for path in run.pictures],
            }
            for run, maps, pictures in zip(content.runs, content.maps, content.pictures, strict=True)
        ],
    }


def _view(run: Run, view: View, drawn: VideoMap, number: Mapping[str, int]) -> dict[str, Any]:
    scores = view.scores
    places = {video: drawn.places[video] for video in scores.videos if video in drawn.places}
    rows = [i for i, video in enumerate(scores.videos) if video in number]
    top = np.argsort(-scores.values[rows], axis=1, kind="stable")[:, :TOP]
    values = np.take_along_axis(scores.values[rows], top, axis=1)
    return {
        "split": view.split,
        "kind": scores.kind,
        "classes": None if scores.class_names == run.views[0].scores.class_names else list(scores.class_names),
        "video": [number[scores.videos[i]] for i in rows],
        "truth": [np.flatnonzero(scores.truth[i]).tolist() for i in rows],
        "top": top.tolist(),
        "scores": [[round(float(value), 4) for value in row] for row in values],
        "confidence": [round(float(value), 4) for value in view.confidence[rows]],
        "confusion": view.confusion(),
        "map": [[number[video], *(round(float(x), 4) for x in point)] for video, point in places.items()],
        "noMap": drawn.reason,
    }
