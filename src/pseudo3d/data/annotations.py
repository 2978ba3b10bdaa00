"""Which videos there are, and their class, split and group: one pure parser for each format.

A *group* is what must never stand on both sides of a split: the recording that several videos are cut from, or the
person in them. A video may have several labels, which lists and tables write as ``a|b``. Only the standard library is
imported here, so that reading a list stays cheap.
"""

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pseudo3d.data.walk import find_files, relative_to
from pseudo3d.errors import Pseudo3dError, first_few
from pseudo3d.video.segments import file_of, split_segment

# What a walk through a folder takes for a video, in any case. A list may name files of any type.
VIDEO_EXTENSIONS = (
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts",
    ".vob", ".webm", ".wmv", ".y4m",
)  # fmt: skip
LIST_EXTENSIONS = (".csv", ".lst", ".txt")
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Sample:
    """One video of a list.

    Args:
        path: POSIX path, relative to the list's root when below it, else absolute.
        label: the name of its class; None when nothing says so.
        split: "train", "val", "test", or None.
        group: what it shares with other videos (the recording it is cut from); None when nothing says so.
        more_labels: further classes that it shows (Sports-1M has such videos).

    Example:
        >>> Sample("a.mp4", "walk", more_labels=("run",)).labels, Sample("b.mp4").labels
        (('walk', 'run'), ())
    """

    path: str
    label: str | None = None
    split: str | None = None
    group: str | None = None
    more_labels: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """All its classes, ``label`` first; none when it has no label."""
        return () if self.label is None else (self.label, *self.more_labels)


@dataclass(frozen=True)
class SampleList:
    """Samples and the folder that their paths start from.

    Args:
        root: the folder; ``root / sample.path`` is the file.
        samples: in the order of their paths when they come from ``read_samples``.
        class_names: the class with index i at place i. Left out, they are the samples' labels in order (by number
            when all of them are whole numbers). A part of a list keeps the names of the whole, so that an index means
            the same class on both sides of a split.

    Example:
        >>> videos = SampleList(Path("videos"), (Sample("a.mp4", "10", "train"), Sample("b.mp4", "9", "test")))
        >>> len(videos), videos.class_names
        (2, ('9', '10'))
        >>> [sample.path for sample in videos.split("test").samples], videos.split("test").class_names
        (['b.mp4'], ('9', '10'))
    """

    root: Path
    samples: tuple[Sample, ...]
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.class_names:
            labels = (label for sample in self.samples for label in sample.labels)
            object.__setattr__(self, "class_names", class_names_of(labels))

    def __len__(self) -> int:
        return len(self.samples)

    def split(self, name: str) -> "SampleList":
        """The samples of one split ("train", "val" or "test"); none when there is no such split."""
        return replace(self, samples=tuple(sample for sample in self.samples if sample.split == name))


def class_names_of(labels: Iterable[str | None]) -> tuple[str, ...]:
    """The classes of these labels, each once and in order: by number when all of them are whole numbers.

    Args:
        labels: of videos; None is no class.

    Example:
        >>> class_names_of(["10", "9", None, "9"]), class_names_of(["10", "9", "left"])
        (('9', '10'), ('10', '9', 'left'))
    """
    names = {label for label in labels if label is not None}
    numeric = all(name.isdecimal() and len(name) < 20 for name in names)
    return tuple(sorted(names, key=lambda name: (int(name), name) if numeric else (0, name)))


def label_text(sample: Sample) -> str | None:
    """The labels of a sample as lists and tables write them: ``a|b`` for two; None without a label.

    Raises:
        Pseudo3dError: the name of a class has the ``|`` in it that parts several labels.

    Example:
        >>> label_text(Sample("a.mp4", "walk", more_labels=("run",))), label_text(Sample("b.mp4"))
        ('walk|run', None)
    """
    for label in sample.labels:
        if "|" in label:
            raise Pseudo3dError(
                f"{sample.path}: the class {label!r} cannot be written to a list, where | stands between the labels of "
                "one video: give it another name"
            )
    return "|".join(sample.labels) or None


def _labels(text: str, where: str) -> tuple[str, ...]:
    """The labels that ``label_text`` wrote, at least one."""
    labels = tuple(label.strip() for label in text.split("|"))
    if not all(labels):
        raise Pseudo3dError(f"{where}: {text!r} has an empty label: write 'a|b' for a video with the labels a and b")
    if len(set(labels)) < len(labels):
        raise Pseudo3dError(f"{where}: {text!r} names a label twice: keep one")
    return labels


def parse_folder(paths: Iterable[str]) -> list[Sample]:
    """Classes, and splits if there are any, from where the files lie: ``class/file`` or ``split/class/file``.

    The first folder is a split only if every file lies at least two folders deep and every first folder is called
    train, val, valid, validation or test (in any case). Otherwise it is the class, however deep the file lies. A file
    with no folder has no class.

    Args:
        paths: POSIX paths of videos, relative to the root.

    Returns:
        One sample for each path, in the same order.

    Example:
        >>> parse_folder(["left/a.mp4", "right/day1/b.mp4"])[1]
        Sample(path='right/day1/b.mp4', label='right', split=None, group=None, more_labels=())
        >>> parse_folder(["Train/left/a.mp4", "valid/left/b.mp4"])[1]
        Sample(path='valid/left/b.mp4', label='left', split='val', group=None, more_labels=())
    """
    parts = [(path, PurePosixPath(path).parts) for path in paths]
    if parts and all(_in_split_folder(place) for _, place in parts):
        return [Sample(path, place[1], _SPLITS[place[0].lower()]) for path, place in parts]
    return [Sample(path, place[0] if len(place) > 1 else None) for path, place in parts]


def _in_split_folder(parts: Sequence[str]) -> bool:
    return len(parts) >= 3 and parts[0].lower() in _SPLITS


def parse_list(lines: Iterable[str], *, source: str = "the list") -> list[Sample]:
    """Samples from lines ``path label``. The label is the last word, so a path may contain spaces.

    ``path a|b`` is a video with the labels a and b.

    Args:
        lines: text; blank lines and those that begin with # are skipped.
        source: what to call the lines in an error.

    Returns:
        One sample for each line, in the same order.

    Raises:
        Pseudo3dError: a line has no label, an empty one or one twice; it gives the line's number.

    Example:
        >>> parse_list(["# my videos", "day one/a.mp4 left"])
        [Sample(path='day one/a.mp4', label='left', split=None, group=None, more_labels=())]
    """
    samples = []
    for number, path, label in _two_columns(lines, "label", source):
        # "my video.mp4" with its label forgotten must not become the path "my" with the class "video.mp4".
        if PurePosixPath(split_segment(label)[0]).suffix.lower() in VIDEO_EXTENSIONS:
            raise Pseudo3dError(f"{source}, line {number}: '{path} {label}' has no label: write 'path label'")
        first, *more = _labels(label, f"{source}, line {number}")
        samples.append(Sample(path, first, more_labels=tuple(more)))
    return samples


def _two_columns(lines: Iterable[str], second: str, source: str) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(lines, start=1):
        text = line.removeprefix("\ufeff").strip()
        if not text or text.startswith("#"):
            continue
        words = text.rsplit(maxsplit=1)
        if len(words) < 2:
            raise Pseudo3dError(f"{source}, line {number}: {text!r} has no {second}: write 'path {second}'")
        yield number, words[0], words[1]


def parse_csv(text: str, *, source: str = "the table") -> list[Sample]:
    r"""Samples from a comma-separated table with the columns path and label, and perhaps split and group.

    Other columns are ignored, so that a table may carry what else its owner needs. An empty split or group is None. The
    label ``a|b`` stands for the two labels a and b.

    Args:
        text: the whole table, its first line the names of the columns.
        source: what to call the table in an error.

    Returns:
        One sample for each row, in the same order.

    Raises:
        Pseudo3dError: the column path or label is missing (it names the columns found), or a row has too few or too
            many cells, no path, no label, a label twice or an unknown split (it gives the line's number).

    Example:
        >>> parse_csv("path,label,split,seconds\na.mp4,left,validation,3.5\n")
        [Sample(path='a.mp4', label='left', split='val', group=None, more_labels=())]
    """
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise Pseudo3dError(f"{source}, line {reader.line_num}: not a comma-separated table: {error}") from error
    columns = [name.lower() for name in rows[0][1]] if rows else []
    if not {"path", "label"} <= set(columns):
        found = ", ".join(columns) or "none"
        raise Pseudo3dError(f"{source}: the first line must name the columns path and label; found: {found}")
    return [_csv_sample(columns, row, f"{source}, line {number}") for number, row in rows[1:]]


def _csv_sample(columns: list[str], row: list[str], where: str) -> Sample:
    if len(row) != len(columns):
        raise Pseudo3dError(
            f"{where}: {len(row)} cells for {len(columns)} columns: put a cell with a comma in double quotes"
        )
    cells = dict(zip(columns, row, strict=True))
    if not cells["path"] or not cells["label"]:
        raise Pseudo3dError(f"{where}: the {'label' if cells['path'] else 'path'} is empty")
    split = cells.get("split", "")
    if split and split.lower() not in _SPLITS:
        raise Pseudo3dError(f"{where}: unknown split {split!r}: use train, val or test, or leave it empty")
    first, *more = _labels(cells["label"], where)
    return Sample(cells["path"], first, _SPLITS.get(split.lower()), cells.get("group") or None, tuple(more))


def parse_groups(lines: Iterable[str], *, source: str = "the groups") -> dict[str, str]:
    """Groups from lines ``path group``. The group is the last word, so a path may contain spaces.

    Args:
        lines: text; blank lines and those that begin with # are skipped. ``assign_groups`` says what a path may be.
        source: what to call the lines in an error.

    Returns:
        The group of each path.

    Raises:
        Pseudo3dError: a line has no group, or a path stands twice; it gives the line's number.

    Example:
        >>> parse_groups(["left/a.mp4 film1", "b film1"])
        {'left/a.mp4': 'film1', 'b': 'film1'}
    """
    groups: dict[str, str] = {}
    for number, path, group in _two_columns(lines, "group", source):
        if path in groups:
            raise Pseudo3dError(f"{source}, line {number}: {path} has a group already ({groups[path]}): keep one line")
        groups[path] = group
    return groups


def assign_groups(samples: Iterable[Sample], groups: Mapping[str, str]) -> list[Sample]:
    """The samples with their groups, which replace any that they have.

    A sample's group is that of its whole path as the list has it, else of its file name (of a segment: its file's),
    else of that without the extension. Entries that fit no sample are ignored: one file may serve several lists.

    Args:
        samples: videos.
        groups: the group of each path, as ``parse_groups`` returns it.

    Returns:
        The samples, in the same order.

    Raises:
        Pseudo3dError: a sample has no group, or one file name stands for several samples.

    Example:
        >>> assign_groups([Sample("left/a.mp4", "left")], {"a": "film1"})
        [Sample(path='left/a.mp4', label='left', split=None, group='film1', more_labels=())]
    """
    assigned, without = [], []
    used: dict[str, str] = {}
    for sample in samples:
        path = PurePosixPath(split_segment(sample.path)[0])
        key = next((key for key in (sample.path, str(path), path.name, path.stem) if key in groups), None)
        if key is None:
            without.append(sample.path)
            continue
        if used.setdefault(key, str(path)) != str(path):
            raise Pseudo3dError(
                f"the group of {key!r} fits both {used[key]} and {sample.path}: write their paths instead"
            )
        assigned.append(replace(sample, group=groups[key]))
    if without:
        raise Pseudo3dError(
            f"{len(without)} videos have no group ({first_few(without)}): add a line 'path group' for each"
        )
    return assigned


def read_samples(data: str | Path, *, groups: str | Path | None = None) -> SampleList:
    """The videos of a folder, of a list of lines ``path label`` (.txt, .lst) or of a table (.csv).

    In a folder, files that end in one of ``VIDEO_EXTENSIONS`` count; hidden files and folders are skipped and links
    are followed. In a list, a path starts from the list's own folder unless it is absolute; where none of the videos
    lies in that folder, the root is the nearest folder that holds them all. Each video stands once.

    Args:
        data: the folder or file.
        groups: a file of lines ``path group``, as ``assign_groups`` reads it.

    Returns:
        The samples in the order of their paths, with the root they start from.

    Raises:
        Pseudo3dError: nothing is there, there are no videos in it, listed files do not exist, a video is listed
            twice (with one label or two), or a parser's own error.
    """
    data = Path(data).absolute()
    if data.is_dir():
        root, samples = data, parse_folder(find_files(data, VIDEO_EXTENSIONS))
        empty = f"no videos in {data}: looked for {' '.join(VIDEO_EXTENSIONS)}, also in its folders"
    elif data.suffix.lower() in LIST_EXTENSIONS:
        text, name, root = _read_text(data), data.name, data.parent
        table = data.suffix.lower() == ".csv"
        samples = parse_csv(text, source=name) if table else parse_list(text.splitlines(), source=name)
        samples = [replace(sample, path=relative_to(root, sample.path)) for sample in samples]
        empty = f"{data} lists no videos"
        _check_listed(root, samples, name)
        root, samples = _at_home(root, samples)
    elif data.exists():
        raise Pseudo3dError(f"{data} is no list of videos: give a folder or one of {' '.join(LIST_EXTENSIONS)}")
    else:
        raise Pseudo3dError(f"{data} does not exist: give a folder of videos or one of {' '.join(LIST_EXTENSIONS)}")
    if not samples:
        raise Pseudo3dError(empty)
    if groups is not None:
        samples = assign_groups(samples, read_groups(groups))
    return SampleList(root, tuple(sorted(samples, key=lambda sample: sample.path)))


def read_groups(path: str | Path) -> dict[str, str]:
    """The group of each video out of a file of lines ``path group`` (``parse_groups``).

    Raises:
        Pseudo3dError: the file cannot be read or a line is wrong.
    """
    return parse_groups(_read_text(Path(path)).splitlines(), source=str(path))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise Pseudo3dError(f"{path} does not exist") from error
    except OSError as error:
        raise Pseudo3dError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Pseudo3dError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error


def _at_home(root: Path, samples: list[Sample]) -> tuple[Path, list[Sample]]:
    """Paths relative to where the videos are, for a list that lies elsewhere: names then survive a move of the list."""
    if not samples or not all(Path(sample.path).is_absolute() for sample in samples):
        return root, samples
    home = Path(os.path.commonpath([Path(sample.path).parent for sample in samples]))
    return home, [replace(sample, path=relative_to(home, sample.path)) for sample in samples]


def _check_listed(root: Path, samples: Sequence[Sample], source: str) -> None:
    labels: dict[str, str | None] = {}
    for sample in samples:
        label = label_text(sample)
        if sample.path in labels:
            first = labels[sample.path]
            how = f"as {first} and as {label}" if first != label else f"both as {first}"
            raise Pseudo3dError(f"{source} lists {sample.path} twice, {how}: keep one")
        labels[sample.path] = label
    missing = [sample.path for sample in samples if not file_of(root / sample.path).is_file()]
    if missing:
        raise Pseudo3dError(
            f"{source} lists {len(missing)} files that do not exist ({first_few(missing)}): paths start from {root}"
        )
