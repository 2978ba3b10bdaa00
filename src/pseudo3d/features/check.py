"""Is a store what it says it is: every page read, every row looked at, and, if asked, the videos themselves.

One pass over the parts, a row group at a time: memory grows with the number of videos (their names), not with the
size of the features.
"""

import math
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pseudo3d.errors import Pseudo3dError, first_few, printable
from pseudo3d.features import shards
from pseudo3d.features.digests import Digests
from pseudo3d.features.folders import Folder, Location, open_folder
from pseudo3d.features.foreign import COLUMNS_FOLDER, foreign_file, foreign_names, foreign_tables
from pseudo3d.features.journal import FAILURES
from pseudo3d.features.rows import COLUMNS, Layout, SourceFile, clips_column, layout_of_schema, to_numpy
from pseudo3d.features.sharding import SHARDS, StoreState, read_state
from pseudo3d.features.shards import Part
from pseudo3d.video.segments import file_of

_AGAIN = "run the same `p3d extract` again"


@dataclass(frozen=True)
class Finding:
    """Something in a store that is not as it should be.

    Args:
        text: one line: where, what is wrong, and what to do.
        harmless: readers of the store get all of it, and all of it right.
    """

    text: str
    harmless: bool = False


def check_store(
    folder: Location,
    *,
    videos: bool = False,
    root: str | Path | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> list[Finding]:
    """Read everything in a store and say what is not as it should be.

    Looked at are the checksum of every page; the rows of each part against ``store.json``; layers that are not finite
    or all zeros; videos that are there twice; clips without a start, a time or features; failures of videos that have
    rows; files that nobody names; features from elsewhere that lack a video.

    Args:
        folder: the store, or its URL.
        videos: look at the video files too: there, and of the size and sha256 that they had when they were read.
        root: where the videos lie now; None: where the store says.
        on_rows: told how many more rows have been looked at (a progress bar).

    Returns:
        The findings; none in a sound store.

    Raises:
        Pseudo3dError: not a store, one of another version, one that is changed meanwhile, or no folder ``root``.
        OSError: the disk cannot be read.

    Example:
        >>> import tempfile
        >>> from pseudo3d.features.store import StoreWriter, VideoFeatures
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with StoreWriter(folder, {"root": folder}) as writer:
        ...         writer.add(VideoFeatures("a.mp4", {"pool5": np.zeros(4, np.float32)}, (0, 9), 25))
        ...     [finding.text.split(";")[0] for finding in check_store(folder, videos=True)]
        ['a.mp4: pool5 is all zeros', 'a.mp4: the file is gone', '1 videos were stored ...']
    """
    place = open_folder(folder)
    state = read_state(place)
    if state is None:
        raise Pseudo3dError(f"{place.location}: not a feature store (no {shards.STORE}); make one with `p3d extract`")
    check = _Check(place, state, _root(place.location, state.info, root) if videos else None)
    findings: list[Finding] = []
    for part in state.parts:
        for rows, more in check.part(part):
            findings += more
            if on_rows is not None:
                on_rows(rows)
    findings += check.told_layers()
    findings += check.failures()
    for name in foreign_names(place):
        findings += check.foreign(name)
    findings += check.not_compared()
    return findings + [_unnamed(name) for name in left_behind(place, state.parts)]


def left_behind(place: Folder, parts: Iterable[Part]) -> list[str]:
    """Files that a run wrote and nobody names: parts that do not count, and halves of files."""
    named = {part.file for part in parts}
    found = []
    for below in ("", f"{COLUMNS_FOLDER}/", *(f"{SHARDS}/{name}/" for name in place.names(SHARDS))):
        for name in place.names(below):
            part = shards.is_part_name(name) and below != f"{COLUMNS_FOLDER}/"  # there, it is what ``add`` was given
            half = name.startswith(".") and name.endswith(".part")
            if half or (part and below + name not in named):
                found.append(below + name)
    return found


def _unnamed(name: str) -> Finding:
    why = "a run that was killed left it (the next one removes it), or one is at work"
    return Finding(f"{name}: does not count; {why}", harmless=True)


def _root(where: str, info: dict[str, object], root: str | Path | None) -> Path:
    told = info.get("root") if root is None else root
    if not isinstance(told, str | Path):
        raise Pseudo3dError(f"{where}: does not say where its videos lie; give --root")
    if not Path(told).is_dir():
        raise Pseudo3dError(f"{told}: no such folder; say with --root where the videos lie now")
    return Path(told)


class _Check:
    """What one pass over a store finds."""

    def __init__(self, place: Folder, state: StoreState, root: Path | None) -> None:
        self._place = place
        self._state = state
        self._root = root
        self._newer = {part.file for part in state.parts[: state.newer]}
        self._stale = set(state.newer_failed)  # videos that shards have done again: older rows do not count
        self._part_of: dict[str, str] = {}  # every video
        self._layouts: dict[str, Layout] = {}  # by part
        self._unread = False  # a part that could not be read: which videos it has is not known
        self._unknown_content = 0
        self._digests = Digests()

    def part(self, part: Part) -> Iterator[tuple[int, list[Finding]]]:
        """The rows of one part, a row group at a time: how many, and what is wrong with them."""
        try:
            for table in shards.read_groups(self._place, part):
                if wrong := wrong_columns(table.schema):
                    self._unread = True
                    text = f"{part.file}: {first_few(wrong)} cannot be what was written; remove the file and {_AGAIN}"
                    yield part.rows, [Finding(text)]
                    return
                rows, layout = len(table), layout_of_schema(table.schema)
                if part.file not in self._newer:
                    table = next(shards.without([table], self._stale.intersection(table["video"].to_pylist())))
                told = [*self._other_layers(part, layout), *self._twice(part, table["video"].to_pylist())]
                told += wrong_values(table, layout, self._place.location)
                told += [] if self._root is None else self._wrong_files(table, self._root)
                yield rows, [Finding(text) for text in told]
        except FileNotFoundError:
            now = read_state(self._place)
            if now is None or part not in now.parts:
                raise Pseudo3dError(
                    f"{self._place.location}: is being written; verify it when that has ended"
                ) from None
            self._unread = True
            yield part.rows, [Finding(f"{part.file}: is gone, with {part.rows} videos; {_AGAIN} to make up for it")]
        except Pseudo3dError as error:  # the file is damaged; the line says what to do
            self._unread = True
            yield part.rows, [Finding(f"{error} ({part.rows} videos)")]
        except (pa.ArrowException, UnicodeDecodeError, JSONDecodeError) as error:
            self._unread = True
            text = f"{part.file}: cannot be read ({printable(error)}); remove it and {_AGAIN} ({part.rows} videos)"
            yield part.rows, [Finding(text)]

    def _other_layers(self, part: Part, layout: Layout) -> Iterator[str]:
        if part.file in self._layouts:
            return
        self._layouts[part.file] = layout
        first, expected = next(iter(self._layouts.items()))
        if layout != expected:
            yield f"{part.file}: has {layout}, {first} has {expected}; remove one of the two and {_AGAIN}"

    def _twice(self, part: Part, videos: Sequence[str]) -> Iterator[str]:
        for video in videos:
            if video in self._part_of:
                where = f"is in {self._part_of[video]} and in {part.file}"
                yield f"{printable(video)}: {where}; remove one of these files and {_AGAIN}"
            self._part_of[video] = part.file
        if part.file in self._newer:
            self._stale.update(videos)

    def _wrong_files(self, table: pa.Table, root: Path) -> Iterator[str]:
        columns = (table[name].to_pylist() for name in ("video", *SourceFile._fields))
        for video, *source in zip(*columns, strict=True):
            known = SourceFile(*source)
            self._unknown_content += known.sha256 is None
            if told := _what_changed(root / video, known, self._digests):
                yield f"{printable(video)}: the file {told}"

    def told_layers(self) -> Iterator[Finding]:
        """Whether the layers are those that ``store.json`` tells."""
        told = self._state.info.get("layers")
        for file, layout in self._layouts.items():
            if isinstance(told, list) and set(told) != set(layout.shapes):
                yield Finding(
                    f"{file}: has {', '.join(layout.shapes)}, {shards.STORE} tells of {first_few(told)}; "
                    f"remove the part and {_AGAIN}"
                )

    def failures(self) -> Iterator[Finding]:
        """Failures of videos that have rows: a run was killed between writing the two."""
        failed = self._state.failed.keys() | self._state.newer_failed.keys()
        for video in sorted(failed & self._part_of.keys()):
            text = f"{printable(video)}: has features; its line in {FAILURES} is of an earlier try and does not count"
            yield Finding(text, harmless=True)

    def foreign(self, name: str) -> Iterator[Finding]:
        """Whether features from elsewhere are whole, finite, and of each video once."""
        file, missing, others = foreign_file(name), set(self._part_of), 0
        again = f"remove {self._place.location}/{file} and add features of all videos"
        try:
            for table in foreign_tables(self._place, name):
                if wrong := {"video", name} - set(table.schema.names) or wrong_columns(table.schema):
                    raise pa.ArrowInvalid(f"{first_few(wrong)} cannot be what was written")
                videos, finite = table["video"].to_pylist(), np.isfinite(to_numpy(table[name])).all(axis=1)
                for i in np.flatnonzero(~finite):
                    yield Finding(f"{printable(videos[i])}: {name} is not finite; {again}")
                others += sum(video not in missing for video in videos)
                missing.difference_update(videos)
        except (pa.ArrowException, UnicodeDecodeError, JSONDecodeError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            yield Finding(f"{file}: not a whole Parquet file ({printable(error)}); {again}")
            return
        if missing:
            yield Finding(f"{file}: lacks {len(missing)} videos ({first_few(sorted(missing))}); {again}")
        if others and not self._unread:
            text = f"{file}: has {others} rows that nobody reads, of videos that are not in the store"
            yield Finding(f"{text}; to be rid of them, {again}", harmless=True)

    def not_compared(self) -> Iterator[Finding]:
        """How many videos' files could not be compared with anything."""
        if self._unknown_content:
            text = f"{self._unknown_content} videos were stored without the hash of their file"
            yield Finding(f"{text}; it was not compared", harmless=True)


def wrong_columns(schema: pa.Schema) -> list[str]:
    """Columns of another type than a writer gives them: a file's description of itself has no checksum.

    Example:
        >>> from pseudo3d.features.rows import COLUMNS
        >>> wrong_columns(COLUMNS.append(pa.field("pool5", pa.list_(pa.float64(), 4))))
        ['pool5']
    """

    def floats(kind: pa.DataType) -> bool:
        return pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float32()

    wrong = []
    for field in schema:
        if field.name in COLUMNS.names:
            right = field.type == COLUMNS.field(field.name).type
        elif pa.types.is_list(field.type):
            right = floats(field.type.value_type)
        else:
            right = floats(field.type)
        if not right:
            wrong.append(field.name)
    if not wrong:
        layout = layout_of_schema(schema)
        sizes = {layer: schema.field(layer).type.list_size for layer in layout.shapes}
        wrong = [
            name
            for name, shape in layout.shapes.items()
            if min(shape, default=0) < 1 or math.prod(shape) != sizes[name]
        ]
        wrong += [clips_column(layer) for layer in layout.clips if layer not in layout.shapes]
    return wrong


def wrong_values(table: pa.Table, layout: Layout, where: str) -> Iterator[str]:
    """Rows whose features or clips cannot be right, a line each.

    Args:
        table: rows of a part.
        layout: their layers.
        where: the store, for the advice.
    """
    videos = [printable(video) for video in table["video"].to_pylist()]
    clips = pc.list_value_length(table["starts"]).to_numpy()
    times = pc.list_value_length(table["times"]).to_numpy()

    def tell(wrong: np.ndarray, what: str) -> Iterator[str]:
        for i in np.flatnonzero(wrong):
            remove = f"`p3d store remove {shlex.quote(where)} {shlex.quote(videos[i])}`"
            yield f"{videos[i]}: {what}; {remove}, and extract it again"

    yield from tell((times != clips) & (times != 0), "has clips without a time, or times without a clip")
    for layer in layout.shapes:
        values = to_numpy(table[layer])
        yield from tell(~np.isfinite(values).all(axis=1), f"{layer} is not finite")
        for i in np.flatnonzero(~values.any(axis=1)):
            yield f"{videos[i]}: {layer} is all zeros; compare it with nothing, and look at the video"
    for layer in layout.clips:
        column = table[clips_column(layer)].combine_chunks()
        counts = pc.list_value_length(column).to_numpy()
        yield from tell(counts != clips, f"has clips without {layer}, or {layer} without a clip")
        finite = np.isfinite(to_numpy(column.flatten())).all(axis=1)
        wrong = np.zeros(len(videos), bool)
        wrong[np.repeat(np.arange(len(videos)), counts)[~finite]] = True
        yield from tell(wrong, f"{layer} of a clip is not finite")


def _what_changed(path: Path, known: SourceFile, digests: Digests) -> str | None:
    """What is not as it was with a file, and what to do; None: nothing that is known."""
    path = file_of(path)
    try:
        size = path.stat().st_size
        if known.size is not None and size != known.size:
            return f"has {size:,} bytes, {known.size:,} when it was read; {_AGAIN}"
        if known.sha256 is not None and digests.of(path) != known.sha256:
            return f"has other content than when it was read; {_AGAIN}"
    except (FileNotFoundError, NotADirectoryError):
        return "is gone; bring it back, or take its features out with `p3d store remove`"
    except OSError as error:
        return f"cannot be read ({error.strerror}); see who may read it"
    return None
