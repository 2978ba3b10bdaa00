"""Kinetics-400, -600 and -700: tables with the columns label, youtube_id, time_start, time_end, split.

Videos are cut pieces ``ID_000012_000022.mp4`` (seconds with six digits) or whole videos ``ID.mp4``, of which a sample
is the segment ``ID.mp4#t=12,22``; in class folders (with spaces or underscores), in split folders, or all in one.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.data.official.dataset import OfficialSet, VideoFiles, apart, check_split, disk_notes, read_list
from pseudo3d.data.walk import find_files
from pseudo3d.errors import Pseudo3dError, first_few, printable
from pseudo3d.video.segments import with_segment

_NEEDED = ("youtube_id", "time_start", "time_end")
_SPLITS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}
_VERSIONS = (400, 600, 700)
# Classes that Kinetics-600 named anew (left: 400, right: 600 and 700), so that an excerpt still tells its version.
_RENAMED = {"hugging": "hugging (not baby)"}


@dataclass(frozen=True)
class Piece:
    """A row of a table.

    Args:
        video: YouTube id.
        start: seconds.
        end: seconds, more than ``start``.
        label: None where the test labels are held back.
        split: "train", "val", "test".
    """

    video: str
    start: float
    end: float
    label: str | None
    split: str

    @property
    def stem(self) -> str:
        """The name of the file that this piece is cut into.

        Example:
            >>> Piece("AAAAAAAAAAA", 12, 22, "yoga", "train").stem
            'AAAAAAAAAAA_000012_000022'
        """
        return f"{self.video}_{round(self.start):06}_{round(self.end):06}"


def parse_kinetics(text: str, *, split: str | None = None, source: str = "the table") -> list[Piece]:
    r"""The rows of a table of Kinetics; a table without the column label, or with empty labels, is one for a contest.

    Args:
        text: the whole table with its header; other columns (is_cc) are not looked at.
        split: of rows whose column split is empty or not there: "train", "val" or "test".
        source: the file's name, for errors.

    Raises:
        Pseudo3dError: no such columns, or a row with another number of cells, no id, times that are no seconds, an
            unknown split, or no label outside the test split; with the line's number.

    Example:
        >>> head = "label,youtube_id,time_start,time_end,split\n"
        >>> parse_kinetics(head + "yoga,AAAAAAAAAAA,12,22,validate\n")
        [Piece(video='AAAAAAAAAAA', start=12.0, end=22.0, label='yoga', split='val')]
    """
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise Pseudo3dError(f"{source}, line {reader.line_num}: not a comma-separated table: {error}") from error
    columns = [name.lower() for name in rows[0][1]] if rows else []
    lacking = [name for name in _NEEDED if name not in columns]
    if lacking:
        raise Pseudo3dError(f"{source}: the first line lacks the columns {', '.join(lacking)} of Kinetics' tables")
    pieces = []
    for number, row in rows[1:]:
        where = f"{source}, line {number}"
        if len(row) != len(columns):
            raise Pseudo3dError(f"{where}: {len(row)} cells for {len(columns)} columns")
        pieces.append(_piece(dict(zip(columns, row, strict=True)), split, where))
    return pieces


def _piece(cells: Mapping[str, str], split: str | None, where: str) -> Piece:
    told = cells.get("split", "").lower() or split or ""
    if told not in _SPLITS:
        raise Pseudo3dError(f"{where}: unknown split {printable(told)!r}: it is train, val (or validate) or test")
    try:
        start, end = float(cells["time_start"]), float(cells["time_end"])
    except ValueError:
        start, end = 0.0, -1.0
    if not 0 <= start < end < float("inf"):
        times = f"{cells['time_start']} to {cells['time_end']}"
        raise Pseudo3dError(f"{where}: from {printable(times)} is no piece of a video: give seconds, the first smaller")
    if not cells["youtube_id"] or "/" in cells["youtube_id"]:
        raise Pseudo3dError(f"{where}: {printable(cells['youtube_id'])!r} is no YouTube id")
    label = cells.get("label") or None
    if label is None and told != "test":
        raise Pseudo3dError(f"{where}: no label; only a test table may go without")
    return Piece(cells["youtube_id"], start, end, label, _SPLITS[told])


def read_kinetics(folder: str | Path, lists: str | Path | None = None, split: str = "1") -> OfficialSet:
    """Kinetics-400, -600 or -700 from its official tables; which one is recognised by its classes and told in a note.

    The classes are in alphabetical order, as in every list of them in use; the tables give none. The group is the
    YouTube video.

    Args:
        folder: holds the videos, however deep, and the tables if ``lists`` is None.
        lists: holds the tables (train.csv, val.csv or validate.csv, test.csv), in itself or in folders below.
        split: "1", the only one.

    Returns:
        The videos on the disk, cut pieces before segments of whole videos; test videos without labels have none.

    Raises:
        Pseudo3dError: no tables, malformed ones, or those of different versions mixed.
    """
    check_split("kinetics", split, ("1",))
    tables = _tables(Path(folder if lists is None else lists))
    listed = sum(map(len, tables.values()))
    pieces = list(dict.fromkeys(piece for table in tables.values() for piece in table))
    names = {source: {p.label for p in table if p.label is not None} for source, table in tables.items()}
    classes = tuple(sorted({name for told in names.values() for name in told}))
    if not classes:
        raise Pseudo3dError("the tables of Kinetics have no labels at all: give train.csv or val.csv too")
    _check_versions(names)
    _check_overlap(tables)
    files = VideoFiles(folder, any_case=False)
    replaced = _replace_corrupted(files)
    samples, absent = _placed(files, pieces)
    grouped, parted = apart(samples)
    notes = [*_version_notes(classes), *disk_notes(files, absent, len(pieces))]
    if listed > len(pieces):
        notes.append(f"{listed - len(pieces)} lines are there twice, word for word: taken once")
    if replaced:
        notes.append(f"{replaced} videos are taken from a replacement folder, not from where the corrupted ones are")
    if parted:
        notes.append(f"{parted} YouTube videos have pieces in several of train, val and test by the tables: no group")
    unlabelled = sum(piece.label is None for piece in pieces)
    if unlabelled:
        notes.append(f"{unlabelled:,} test videos have no label: they are held back")
    version = f"-{len(classes)}" if len(classes) in _VERSIONS else ""
    return OfficialSet(
        "kinetics", f"Kinetics{version}", SampleList(files.folder, grouped, classes), absent, tuple(notes)
    )


def _tables(root: Path) -> dict[str, list[Piece]]:
    """The pieces of every table below a folder; other .csv files are passed over."""
    if not root.is_dir():
        raise Pseudo3dError(f"{root} is no folder: give the one that holds the tables of Kinetics")
    tables: dict[str, list[Piece]] = {}
    for path in find_files(root.absolute(), (".csv",)):
        text = read_list(root / path)
        header = text.strip().partition("\n")[0].lower()
        if all(name in header for name in _NEEDED):
            stem = PurePosixPath(path).stem.lower()
            told = [name for word, name in _SPLITS.items() if word in stem]
            table = parse_kinetics(text, split=told[0] if told else None, source=path)
            if table:
                tables[path] = table
    if not tables:
        raise Pseudo3dError(
            f"no table of Kinetics (.csv with the columns {', '.join(_NEEDED)}) is below {root}; give the folder with "
            "--lists"
        )
    return tables


def _check_versions(names: Mapping[str, set[str]]) -> None:
    """Refuses tables of which none holds the classes of all others: they are of different versions.

    Raises:
        Pseudo3dError: naming the tables and what they look like.
    """
    labelled = {source: told for source, told in names.items() if told}
    largest = max(labelled, key=lambda source: len(labelled[source]))
    for source, told in labelled.items():
        strange = sorted(told - labelled[largest])
        versions = _version(told), _version(labelled[largest])
        if strange or (None not in versions and versions[0] != versions[1]):
            more = f", which has not {first_few(strange)}" if strange else ""
            raise Pseudo3dError(
                f"tables of different versions are mixed: {source} has {len(told)} classes{_named(versions[0])}, "
                f"{largest} has {len(labelled[largest])}{_named(versions[1])}{more}; take all tables from one release"
            )


def _version(classes: set[str]) -> int | None:
    return len(classes) if len(classes) in _VERSIONS else None


def _named(version: int | None) -> str:
    return f" (Kinetics-{version})" if version else ""


def _check_overlap(tables: Mapping[str, Sequence[Piece]]) -> None:
    """Refuses tables that give one piece to two splits, as those of different versions do, or two labels.

    Raises:
        Pseudo3dError: with the first piece and its table or tables.
    """
    seen: dict[str, tuple[str, Piece]] = {}
    for source, table in tables.items():
        for piece in table:
            there, first = seen.setdefault(piece.stem, (source, piece))
            if (there, first) == (source, piece):
                continue
            name = printable(piece.stem)
            if first.split != piece.split:
                raise Pseudo3dError(
                    f"{name} is {first.split} in {there} and {piece.split} in {source}: they are of different "
                    "versions; take all tables from one release"
                )
            if there == source:
                how = first_few([first.label, piece.label] if first.label != piece.label else ["other times"])
                raise Pseudo3dError(f"{source} lists {name} twice, with {how}: keep one line")
            raise Pseudo3dError(f"{there} and {source} both list {name}: keep one of the two tables")


def _version_notes(classes: Sequence[str]) -> list[str]:
    notes = ["classes in alphabetical order: the official tables give none"]
    if len(classes) in _VERSIONS:
        notes.append(f"Kinetics-{len(classes)}, by its number of classes")
    else:
        notes.append(f"an excerpt: {len(classes)} classes; Kinetics has 400, 600 or 700")
    for old, new in _RENAMED.items():
        if old in classes and len(classes) != 400:
            notes.append(f"the class {old!r} is of Kinetics-400")
        if new in classes and len(classes) == 400:
            notes.append(f"the class {new!r} is of Kinetics-600 or -700, though there are 400 classes")
    return notes


def _replace_corrupted(files: VideoFiles) -> int:
    """Where a file is also in a folder replacement..., as in a public copy of Kinetics-400, only that one counts."""
    replaced = 0
    for stem, paths in files.by_stem.items():
        better = [path for path in paths if "/replacement" in f"/{path}"]
        if better and len(better) < len(paths):
            files.by_stem[stem] = better
            replaced += 1
    return replaced


def _placed(files: VideoFiles, pieces: Sequence[Piece]) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """The pieces on the disk, cut or as segments of whole videos, and the others; all if none is there."""
    there, absent = [], []
    for piece in pieces:
        sample = Sample(f"{piece.stem}.mp4", piece.label, piece.split, piece.video)
        folder = f"{piece.label}/" if piece.label else ""
        whole = None
        path = files.find(f"{folder}{piece.stem}.mp4")
        if path is None:
            whole = files.find(f"{folder}{piece.video}.mp4")
        if path is None and whole is None:
            absent.append(sample)
        else:
            found = path if path is not None else with_segment(str(whole), piece.start, piece.end)
            there.append(replace(sample, path=found))
    return tuple(there or absent), tuple(absent)
