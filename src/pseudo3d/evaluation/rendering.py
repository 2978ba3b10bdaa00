"""A table of results and its four forms: for a terminal, Markdown, LaTeX (booktabs) and CSV."""

import csv
import io
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pseudo3d import files

_NOTE_WIDTH = 110
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "×": r"$\times$", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "`": r"\textasciigrave{}", "…": r"\dots{}", "µ": r"$\mu$",
    "≥": r"$\geq$", "≤": r"$\leq$", "≈": r"$\approx$", "−": "$-$", "→": r"$\to$", "←": r"$\leftarrow$",
    "[": "{[}", "]": "{]}", "*": "{*}",  # \\ would take a [3] or a star that the next row begins with for its own
}  # fmt: skip
_LATEX_WIDTHS = {"l": 36, "r": 24, "title": 12}  # characters of a cell in one line: left, right, above a column
_MARKDOWN = {char: f"\\{char}" for char in "\\|*<`~&"}


@dataclass(frozen=True)
class Cell:
    """One number, or a word, or nothing.

    Args:
        value: as it is shown, without its unit; "" for nothing.
        unit: "%", "MB", ...
        error: what follows the ±, in the same unit.

    Example:
        >>> str(Cell("80.8", "%", "0.4")), str(Cell("9.0", "clip/s")), str(Cell("linear")), str(Cell())
        ('80.8 ± 0.4%', '9.0 clip/s', 'linear', '-')
    """

    value: str = ""
    unit: str = ""
    error: str = ""

    def __str__(self) -> str:
        if self.value in ("", "-"):
            return "-"
        number = f"{self.value} ± {self.error}" if self.error else self.value
        return number + (self.unit if self.unit in ("", "%") else f" {self.unit}")


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Args:
        method: what was measured.
        cells: one for each column.
        source: where the numbers stand, or "measured".
        group: the heading that it stands under; "" without one.
        marks: of the footnotes that belong to it, "a", "b", ...
    """

    method: str
    cells: tuple[Cell, ...]
    source: str
    group: str = ""
    marks: tuple[str, ...] = ()

    def texts(self) -> list[str]:
        """Method, cells and source as they are shown."""
        marks = f" [{', '.join(self.marks)}]" if self.marks else ""
        return [_flat(self.method), *map(str, self.cells), self.source + marks]


@dataclass(frozen=True)
class Table:
    """Rows under headings, with what must be said of them below.

    Args:
        title: what the table shows and where its numbers are from.
        columns: titles of the columns between method and source.
        rows: in order; neighbours of one group stand under one heading.
        footnotes: (mark, text), which rows point at.
        notes: of the whole table.

    Example:
        >>> table = Table("Scenes", ("Accuracy",), (Row("[3]", (Cell("43.1", "%"),), "paper"),))
        >>> print(table.text(), end="")
        Scenes
        <BLANKLINE>
        Method  Accuracy  Source
        [3]        43.1%  paper
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def _header(self) -> list[str]:
        return ["Method", *self.columns, "Source"]

    def _blocks(self) -> Iterable[tuple[str, list[Row]]]:
        """Neighbouring rows of one group."""
        block: list[Row] = []
        for row in self.rows:
            if block and row.group != block[-1].group:
                yield block[0].group, block
                block = []
            block.append(row)
        if block:
            yield block[0].group, block

    def _notes(self) -> list[str]:
        return [_flat(text) for text in (*(f"[{mark}] {text}" for mark, text in self.footnotes), *self.notes)]

    def text(self) -> str:
        """For a terminal: columns of one width, notes in lines of at most 110 characters."""
        lines: list[tuple[str, list[str]]] = [("", self._header)]  # (heading above the line, cells)
        for group, rows in self._blocks():
            for i, row in enumerate(rows):
                method, *cells = row.texts()
                lines.append((group if i == 0 else "", [f"  {method}" if group else method, *cells]))
        widths = [max(len(cells[i]) for _, cells in lines) for i in range(len(self._header))]
        out = [*textwrap.wrap(_flat(self.title), _NOTE_WIDTH), ""]
        for heading, (method, *cells, source) in lines:
            out += [heading] if heading else []
            padded = [method.ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells, widths[1:-1], strict=True)), source]
            out.append("  ".join(padded).rstrip())
        notes = [line for note in self._notes() for line in textwrap.wrap(note, _NOTE_WIDTH, subsequent_indent="    ")]
        return "\n".join([*out, *([""] if notes else []), *notes]) + "\n"

    def markdown(self) -> str:
        """GitHub's Markdown; headings of groups are rows in italics."""
        rows = [self._header, ["---", *["---:"] * len(self.columns), "---"]]
        for group, block in self._blocks():
            if group:
                rows.append([f"*{_markdown(group)}*", *[""] * (len(self.columns) + 1)])
            rows += [[_markdown(text) for text in row.texts()] for row in block]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        notes = [f"- {_markdown(note)}" for note in self._notes()]
        return "\n".join([_markdown(self.title), "", *lines, *(["", *notes] if notes else [])]) + "\n"

    def latex(self) -> str:
        r"""A ``table`` for LaTeX; needs ``\usepackage{booktabs,graphicx}`` and UTF-8.

        LaTeX numbers its tables, so that the published number goes to the end of the caption. Where a table is wider
        than the line it is made smaller. Letters that pdflatex has no font for (Greek, Chinese) need lualatex and one.
        """

        def line(texts: Sequence[str]) -> str:
            return " & ".join(map(_latex_cell, texts, columns)) + r" \\"

        columns = f"l{'r' * len(self.columns)}l"
        titles = [_latex_cell(text, side, title=True) for text, side in zip(self._header, columns, strict=True)]
        caption = re.sub(r"^(Table \d+): (.)(.*)\)$", lambda m: f"{m[2].upper()}{m[3]}, {m[1]})", self.title)
        out = [r"\begin{table}", r"\centering", rf"\caption{{{_latex(caption)}}}", r"\medskip"]
        out += [r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"]
        out += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", " & ".join(titles) + r" \\"]
        for group, block in self._blocks():
            out.append(r"\midrule")
            if group:
                out.append(rf"\multicolumn{{{len(self._header)}}}{{l}}{{\emph{{{_latex(group)}}}}} \\")
            out += [line(row.texts()) for row in block]
        out += [r"\bottomrule", r"\end{tabular}}"]
        if notes := self._notes():
            out += ["", r"\medskip", r"\begin{minipage}{\linewidth}\footnotesize\raggedright"]
            out += [re.sub(r"(/|\\_)", r"\1\\allowbreak{}", _latex(note)) + r"\par" for note in notes]
            out.append(r"\end{minipage}")
        return "\n".join([*out, r"\end{table}"]) + "\n"

    def csv(self) -> str:
        """One column for each unit, so that cells are bare numbers; empty where nothing was published or measured.

        A row's footnotes stand in its last column.
        """
        kinds: list[tuple[int, str, bool]] = []  # (column, unit, whether the error)
        for i in range(len(self.columns)):
            shown = [row.cells[i] for row in self.rows if row.cells[i].value not in ("", "-")]
            for unit in dict.fromkeys(cell.unit for cell in shown):
                kinds.append((i, unit, False))
                if any(cell.error for cell in shown if cell.unit == unit):
                    kinds.append((i, unit, True))
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        titles = [
            self.columns[i] + (" error" if error else "") + (f" ({unit})" if unit not in self.columns[i] else "")
            for i, unit, error in kinds
        ]
        writer.writerow(["group", "method", *titles, "source", "notes"])
        texts = dict(self.footnotes)
        for row in self.rows:
            cells = [row.cells[i] for i, _, _ in kinds]
            values = [
                (cell.error if error else cell.value) if cell.unit == unit and cell.value != "-" else ""
                for cell, (_, unit, error) in zip(cells, kinds, strict=True)
            ]
            notes = " | ".join(_flat(texts[mark]) for mark in row.marks)
            writer.writerow([_flat(row.group), _flat(row.method), *values, row.source, notes])
        return out.getvalue()


def save_table(table: Table, folder: str | Path, stem: str) -> list[Path]:
    """Write ``stem``.md, .tex and .csv into a folder, which is made if it is not there.

    Returns:
        The three files.

    Raises:
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> table = Table("Scenes", ("Accuracy",), (Row("[3]", (Cell("43.1", "%"),), "paper"),))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in save_table(table, folder, "table6")]
        ['table6.md', 'table6.tex', 'table6.csv']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"md": table.markdown(), "tex": table.latex(), "csv": table.csv()}
    for suffix, text in texts.items():
        files.write_text(folder / f"{stem}.{suffix}", text)
    return [folder / f"{stem}.{suffix}" for suffix in texts]


def mark_of(number: int) -> str:
    """The mark of a footnote: a, b, ..., z, aa, ab, ...

    Example:
        >>> [mark_of(number) for number in (0, 25, 26)]
        ['a', 'z', 'aa']
    """
    letters = ""
    while number >= 0:
        number, letter = divmod(number, 26)
        letters, number = chr(ord("a") + letter) + letters, number - 1
    return letters


def _escaped(text: str, escapes: dict[str, str]) -> str:
    return "".join(escapes.get(char, char) for char in _flat(text))


def _latex(text: str) -> str:
    """A text that LaTeX shows as it is, but for quotation marks, which it knows as opening and closing ones."""
    escaped = re.sub("-(?=-)", "-{}", _escaped(text, _LATEX))  # -- would be a dash
    return re.sub(r'(^|[\s(\[{])"', r"\1``", escaped).replace('"', "''")


def _latex_cell(text: str, side: str, *, title: bool = False) -> str:
    """A cell at the left ("l") or the right of its column; where it is long, in several lines."""
    lines = [_latex(line) for line in textwrap.wrap(text, _LATEX_WIDTHS["title" if title else side])]
    if len(lines) < 2:
        return "".join(lines)
    return rf"\begin{{tabular}}[{'b' if title else 't'}]{{@{{}}{side}@{{}}}}" + r" \\ ".join(lines) + r"\end{tabular}"


def _markdown(text: str) -> str:
    """A text that Markdown shows as it is: no emphasis, link, entity or cell comes of it."""
    escaped = _escaped(text, _MARKDOWN).replace("](", r"]\(")
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", escaped)  # inside a word, an underscore is one


def _flat(text: str) -> str:
    """One line that no terminal obeys: a row is somebody's name for it."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
