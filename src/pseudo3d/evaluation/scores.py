"""Scores of videos in files: what a run leaves for tables, reports and fusion, and what other tools bring.

A score file is Parquet, one row a video: ``video`` (text), ``labels`` (its classes, a list of texts) and ``scores``
(float32, one for each class), with the class names in order and the kind of scores in the file's metadata. Any
Parquet reader opens it. Scores from elsewhere may come as CSV: ``video,<class>,<class>,...`` and, if wanted, a column
``label``.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float32

from pseudo3d import files
from pseudo3d.errors import Pseudo3dError, first_few, printable

Kind = Literal["probability", "decision"]

_KEY, _VERSION = b"pseudo3d scores", 1
_TOLERANCE = 1e-3  # of probabilities and their sums, for those rounded to a few digits


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of some videos for every class.

    Args:
        videos: names, each once.
        class_names: in the order of the columns, each once.
        truth: (videos, classes), which classes are a video's. A video may have several, or none where it is not known.
        values: (videos, classes), float32 (float64 is rounded); the higher, the likelier.
        kind: "probability": within 0..1; "decision": any finite numbers (an SVM's).

    Raises:
        Pseudo3dError: no videos, one twice, sizes that do not fit, values that are not finite or no probabilities.

    Example:
        >>> scores = Scores(("a", "b"), ("x", "y"), np.eye(2, dtype=bool), np.array([[1, -1], [2, 0]]), "decision")
        >>> scores.values.dtype, scores.labels
        (dtype('float32'), (('x',), ('y',)))
    """

    videos: tuple[str, ...]
    class_names: tuple[str, ...]
    truth: Bool[np.ndarray, "videos classes"]
    values: Float32[np.ndarray, "videos classes"]
    kind: Kind

    def __post_init__(self) -> None:
        object.__setattr__(self, "videos", tuple(self.videos))
        object.__setattr__(self, "class_names", tuple(self.class_names))
        for what, names in (("video", self.videos), ("class", self.class_names)):
            if not names:
                raise Pseudo3dError(f"scores need at least one {what}")
            if twice := _twice(names):
                raise Pseudo3dError(f"the {what} {printable(twice)} stands twice in the scores: keep one")
        if self.kind not in get_args(Kind):
            raise Pseudo3dError(f"kind of scores is {self.kind!r}; use probability or decision")
        shape = (len(self.videos), len(self.class_names))
        for what in ("truth", "values"):
            found = np.shape(getattr(self, what))
            if found != shape:
                raise Pseudo3dError(f"{what} of scores has the shape {found}, not (videos, classes) = {shape}")
        if np.asarray(self.truth).dtype != bool:
            raise Pseudo3dError(f"truth of scores is {np.asarray(self.truth).dtype}, not bool")
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
            object.__setattr__(self, "values", np.ascontiguousarray(self.values, np.float32))
        bad = np.flatnonzero(~np.isfinite(self.values).all(axis=1))
        if len(bad):
            few = first_few(self.videos[i] for i in bad)
            raise Pseudo3dError(f"the scores of {len(bad)} videos are NaN or infinite ({few}): compute them again")
        if self.kind == "probability":
            self._check_probabilities()

    def _check_probabilities(self) -> None:
        bad = ((self.values < -_TOLERANCE) | (self.values > 1 + _TOLERANCE)).any(axis=1)
        if bad.any():
            few = first_few(self.videos[i] for i in np.flatnonzero(bad))
            raise Pseudo3dError(f"scores of {bad.sum()} videos are no probabilities ({few}): they lie outside 0..1")

    @property
    def labels(self) -> tuple[tuple[str, ...], ...]:
        """The names of each video's classes."""
        names = np.array(self.class_names, object)
        return tuple(tuple(names[row]) for row in self.truth)


def _twice(names: Sequence[str]) -> str | None:
    """A name that stands twice."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def save_scores(scores: Scores, path: str | Path) -> None:
    """Write a score file, in one step.

    Args:
        scores: what to write.
        path: ends in .parquet; its folder is there.

    Raises:
        Pseudo3dError: another ending, or a file of that name is there that is no score file.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> scores = Scores(("a",), ("x", "y"), np.array([[True, False]]), np.array([[0.75, 0.25]]), "probability")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_scores(scores, f"{folder}/scores.parquet")
        ...     read_scores(f"{folder}/scores.parquet").values
        array([[0.75, 0.25]], dtype=float32)
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise Pseudo3dError(f"{path}: scores are written as .parquet")
    if path.exists():
        try:
            _metadata(path)
        except Pseudo3dError as error:
            raise Pseudo3dError(f"{error}; it is not overwritten: move it away or choose another folder") from error
    values = pa.FixedSizeListArray.from_arrays(pa.array(scores.values.ravel()), len(scores.class_names))
    columns = {
        "video": pa.array(scores.videos, pa.string()),
        "labels": pa.array(scores.labels, pa.list_(pa.string())),
        "scores": values,
    }
    told = {"version": _VERSION, "kind": scores.kind, "class_names": scores.class_names}
    table = pa.table(columns).replace_schema_metadata({_KEY: json.dumps(told)})
    with files.replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_scores(path: str | Path) -> Scores:
    """Read a score file of ours (.parquet) or scores from elsewhere (.csv).

    A CSV starts with a line ``video,<class>,<class>,...``; a column ``label`` may stand anywhere (``a|b`` for two
    labels; empty: not known). Its scores are taken for probabilities when all of them are within 0..1 and every row
    sums to 1, else for decision values.

    Raises:
        Pseudo3dError: the file is not there, is of another kind, damaged, or a line of it is wrong (its number is
            given).
    """
    path = Path(path)
    if not path.is_file():
        raise Pseudo3dError(f"{path} does not exist: give a score file (.parquet or .csv)")
    if path.suffix.lower() == ".csv":
        scores = _read_csv
    elif path.suffix.lower() == ".parquet":
        scores = _read_parquet
    else:
        raise Pseudo3dError(f"{path}: scores are read from .parquet and .csv")
    try:
        return scores(path)
    except OSError as error:
        raise Pseudo3dError(f"cannot read {path}: {error.strerror or error}") from error


def _metadata(path: Path) -> dict[str, Any]:
    """What a score file says of itself."""
    try:
        found = (pq.read_schema(path).metadata or {}).get(_KEY)
    except pa.ArrowException as error:
        raise Pseudo3dError(f"{path}: no score file, or a damaged one ({printable(error)})") from error
    if found is None:
        raise Pseudo3dError(f"{path}: a Parquet file, but no scores of `p3d evaluate`")
    told: dict[str, Any] = json.loads(found)
    if told["version"] != _VERSION:
        raise Pseudo3dError(f"{path}: scores of version {told['version']}, this pseudo3d reads {_VERSION}")
    return told


def _read_parquet(path: Path) -> Scores:
    told = _metadata(path)
    names = tuple(told["class_names"])
    place = {name: number for number, name in enumerate(names)}
    try:
        table = pq.read_table(path, columns=["video", "labels", "scores"])
        values = table["scores"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        truth = np.zeros((len(table), len(names)), bool)
        for row, labels in zip(truth, table["labels"].to_pylist(), strict=True):
            row[[place[label] for label in labels]] = True
        return Scores(tuple(table["video"].to_pylist()), names, truth, values.reshape(truth.shape), told["kind"])
    except Pseudo3dError as error:
        raise Pseudo3dError(f"{path}: {error}") from error
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise Pseudo3dError(f"{path}: is damaged ({printable(error)})") from error


def _read_csv(path: Path) -> Scores:
    rows = _csv_rows(path)
    _, header = next(rows, (1, []))
    lower = [name.lower() for name in header]
    if not lower or lower[0] != "video":
        raise Pseudo3dError(
            f"{path}: the first line must be video,<class>,<class>,... and perhaps label; it begins with "
            f"{printable(header[0] if header else '')!r}"
        )
    label_at = lower.index("label") if "label" in lower else None
    places = [number for number in range(1, len(header)) if number != label_at]
    names = tuple(header[number] for number in places)
    videos, truth, values = [], [], []
    for line, row in rows:
        where = f"{path}, line {line}"
        if len(row) != len(header):
            raise Pseudo3dError(f"{where}: {len(row)} cells for {len(header)} columns")
        videos.append(row[0])
        values.append(_csv_values([row[number] for number in places], names, where))
        truth.append(_csv_truth(row[label_at] if label_at is not None else "", names, where))
    try:
        if not videos:
            raise Pseudo3dError("scores need at least one video")
        scores = Scores(tuple(videos), names, np.stack(truth), np.stack(values), "decision")
    except Pseudo3dError as error:
        raise Pseudo3dError(f"{path}: {error}") from error
    inside = (scores.values >= 0).all() and (scores.values <= 1 + _TOLERANCE).all()
    if inside and (abs(scores.values.sum(axis=1, dtype=np.float64) - 1) <= _TOLERANCE).all():
        return replace(scores, kind="probability")
    return scores


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not empty, with its line."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for row in reader:
                if any(map(str.strip, row)):
                    yield reader.line_num, [cell.strip() for cell in row]
        except csv.Error as error:
            raise Pseudo3dError(f"{path}, line {reader.line_num}: not a comma-separated table: {error}") from error
        except UnicodeDecodeError as error:
            raise Pseudo3dError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error


def _csv_values(cells: list[str], names: Sequence[str], where: str) -> np.ndarray:
    values = []
    for name, cell in zip(names, cells, strict=True):
        try:
            values.append(float(cell))
        except ValueError as error:
            raise Pseudo3dError(f"{where}: the score of {name} is {printable(cell)!r}, not a number") from error
    return np.array(values)


def _csv_truth(cell: str, names: Sequence[str], where: str) -> np.ndarray:
    labels = [label.strip() for label in cell.split("|")] if cell else []
    if unknown := [label for label in labels if label not in names]:
        raise Pseudo3dError(f"{where}: the label {printable(unknown[0])!r} is none of the {len(names)} classes")
    return np.array([name in labels for name in names], bool)


def align(scores: Sequence[Scores], *, names: Sequence[str] | None = None) -> tuple[Scores, ...]:
    """The same scores with the same videos in the same order and the same classes in the same order: the first's.

    Scores that do not know the truth of any video take it from the first that does.

    Args:
        scores: of the same videos and classes, each in any order.
        names: what messages call each of them; None: "scores 1", "scores 2", ...

    Raises:
        Pseudo3dError: nothing to align, other videos or classes (it names the first few that are missing, and where),
            or another truth.

    Example:
        >>> truth, values = np.array([[True, False]]), np.array([[0.75, 0.25]])
        >>> one = Scores(("a",), ("x", "y"), truth, values, "probability")
        >>> two = Scores(("a",), ("y", "x"), truth[:, ::-1], values[:, ::-1], "probability")
        >>> align([one, two])[1].values
        array([[0.75, 0.25]], dtype=float32)
    """
    if not scores:
        raise Pseudo3dError("there are no scores to align: give at least one score file")
    called = [f"scores {number}" for number in range(1, len(scores) + 1)] if names is None else list(names)
    first = scores[0]
    aligned = []
    for name, each in zip(called, scores, strict=True):
        rows = _order("videos", (called[0], first.videos), (name, each.videos))
        columns = _order("classes", (called[0], first.class_names), (name, each.class_names))
        places = np.ix_(rows, columns)
        aligned.append(
            replace(
                each,
                videos=first.videos,
                class_names=first.class_names,
                truth=each.truth[places],
                values=each.values[places],
            )
        )
    return _same_truth(aligned, called)


Named = tuple[str, Sequence[str]]


def _order(what: str, first: Named, other: Named) -> list[int]:
    """Where the other has each of the first's."""
    place = {name: number for number, name in enumerate(other[1])}
    lacking = [name for name in first[1] if name not in place]
    known = set(first[1])
    extra = [name for name in other[1] if name not in known]
    told = [
        f"{len(names)} {what} of {here} are not in {there} ({first_few(names)})"
        for here, there, names in ((first[0], other[0], lacking), (other[0], first[0], extra))
        if names
    ]
    if told:
        raise Pseudo3dError(f"{' and '.join(told)}: scores must be of the same {what}")
    return [place[name] for name in first[1]]


def _same_truth(scores: Sequence[Scores], names: Sequence[str]) -> tuple[Scores, ...]:
    known = [number for number, each in enumerate(scores) if each.truth.any()]
    if not known:
        return tuple(scores)
    teller = known[0]
    truth = scores[teller].truth
    for number in known[1:]:
        differing = np.flatnonzero((scores[number].truth != truth).any(axis=1))
        if len(differing):
            row = differing[0]
            told, other = ("|".join(scores[each].labels[row]) or "nothing" for each in (teller, number))
            raise Pseudo3dError(
                f"{len(differing)} videos have other labels in {names[number]} than in {names[teller]}, the first is "
                f"{scores[0].videos[row]}: {other} and {told}"
            )
    return tuple(replace(each, truth=truth) for each in scores)
