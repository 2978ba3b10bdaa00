"""Are the videos of a data set there, readable, different, and of the class that the lists say.

lists + folder --> missing, mislabelled          (names only)
files --decoder processes--> unreadable, damaged (each with limits of time and memory)
files --size, then SHA-256--> duplicates
lists --sides of each file--> files with parts on several sides
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PurePosixPath

from pseudo3d.data.annotations import VIDEO_EXTENSIONS, SampleList
from pseudo3d.data.walk import find_files
from pseudo3d.errors import Pseudo3dError
from pseudo3d.files import sha256_of
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.video.clips import ClipFacts, ClipPlan
from pseudo3d.video.pool import Decoded, DecoderPool, Failed
from pseudo3d.video.segments import find_segment, split_segment

KINDS = ("missing", "unreadable", "damaged", "duplicate across splits", "duplicate", "mislabelled")
"""What may be wrong with a video, in the order of a report."""

ClassesInName = Callable[[str, Sequence[str]], Sequence[str]]
"""(path, classes) -> the classes that the file's name may tell; none when it tells nothing."""

_SMALL = (32, 32)


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with one video of a set.

    Args:
        kind: one of ``KINDS``.
        path: of the file, from the set's folder; what the lists call it when it is missing.
        reason: what exactly is wrong.
    """

    kind: str
    path: str
    reason: str


@dataclass(frozen=True)
class Listed:
    """A file, and what the lists say of it.

    Args:
        path: from the set's folder.
        labels: its classes.
        sides: for each split that was read, on which of its sides the file or parts of it are: "train", "val", "test".
    """

    path: str
    labels: tuple[str, ...]
    sides: tuple[tuple[str, ...], ...]


def files_of(splits: Sequence[SampleList]) -> list[Listed]:
    """The files of a set, each once, whatever number of splits and segments it is in.

    Args:
        splits: the same set by its splits, all with one root.

    Example:
        >>> from pseudo3d.data.annotations import Sample
        >>> pieces = Sample("a.mp4#t=0,2", "run", "train"), Sample("a.mp4#t=4,6", "sit", "train")
        >>> first = SampleList(Path("/v"), pieces)
        >>> second = SampleList(Path("/v"), (Sample("a.mp4", "run", "test"),))
        >>> files_of([first, second])
        [Listed(path='a.mp4', labels=('run', 'sit'), sides=(('train',), ('test',)))]
    """
    labels: dict[str, dict[str, None]] = {}
    sides: dict[str, list[dict[str, None]]] = {}
    for place, samples in enumerate(splits):
        for sample in samples.samples:
            path = _file_in(samples.root, sample.path)
            labels.setdefault(path, {}).update(dict.fromkeys(sample.labels))
            here = sides.setdefault(path, [{} for _ in splits])[place]
            here.update({} if sample.split is None else {sample.split: None})
    return [Listed(path, tuple(labels[path]), tuple(map(tuple, sides[path]))) for path in labels]


def _file_in(root: Path, listed: str) -> str:
    """The file that a list means, from the root: of a segment its file's, unless a file of just that name is there."""
    file, segment = split_segment(listed)
    return listed if segment is None or find_segment(root / listed)[1] is None else file


def check_videos(
    splits: Sequence[SampleList],
    pool: DecoderPool,
    *,
    missing: Iterable[str] = (),
    classes_in_name: ClassesInName | None = None,
    decode: bool = False,
    on_video: Callable[[], None] | None = None,
) -> list[Problem]:
    """Look at every video of a set.

    Args:
        splits: the set by its splits (``OfficialSet.samples`` of each), all with one root.
        pool: the processes that open the files.
        missing: what the lists name and the disk has not.
        classes_in_name: what the names of this set tell of the class.
        decode: decode all frames; otherwise a file is opened, its packets are read, and its first frame is decoded.
        on_video: called after each file that was opened.

    Returns:
        The problems by kind (``KINDS``), then in the order of the lists.

    Raises:
        Pseudo3dError: no splits, or none of the videos is on the disk.
    """
    if not splits:
        raise Pseudo3dError("no split to check: name at least one")
    root, gone = splits[0].root, dict.fromkeys(missing)
    files = files_of(splits)
    there = [file for file in files if (root / file.path).is_file()]
    if not there:
        raise Pseudo3dError(
            f"none of the {max(len(files), len(gone)):,} listed videos is below {root}; check the folder"
        )
    gone |= dict.fromkeys(file.path for file in files if not (root / file.path).is_file())
    problems = [Problem("missing", path, "the lists name it, and it is not there") for path in gone]
    problems += unreadable(root, there, pool, decode=decode, on_video=on_video)
    problems += divided(there)
    problems += duplicates(root, there)
    classes = tuple(dict.fromkeys(name for samples in splits for name in samples.class_names))
    problems += mislabelled(there, classes, classes_in_name)
    return sorted(problems, key=lambda problem: KINDS.index(problem.kind))


def unlisted(root: Path, files: Iterable[Listed]) -> int:
    """How many videos are below the folder that no list names."""
    named = {file.path for file in files}
    return sum(path not in named for path in find_files(root, VIDEO_EXTENSIONS))


def unreadable(
    root: Path,
    files: Sequence[Listed],
    pool: DecoderPool,
    *,
    decode: bool = False,
    on_video: Callable[[], None] | None = None,
) -> list[Problem]:
    """The files that cannot be read as videos, and those with damage; in the order given.

    Args:
        root: of the paths.
        files: that exist.
        pool: the processes that open them.
        decode: decode all frames.
        on_video: called after each file.
    """
    preprocessing = Preprocessing(
        num_frames=16 if decode else 1, resize=_SMALL, crop=_SMALL, interpolation="fast_bilinear"
    )
    plan = ClipPlan(preprocessing, clips=1, sampler="sliding" if decode else "uniform", stride=16)
    found: dict[int, Problem] = {}
    videos = ((number, root / file.path) for number, file in enumerate(files))
    for event in pool.stream(videos, plan):
        if isinstance(event, Failed):
            path = files[event.key].path
            found[event.key] = Problem("unreadable", path, event.reason.removeprefix(f"{root / path}: "))
        elif isinstance(event, Decoded):
            damage = _damage(event.facts)
            if damage:
                found[event.key] = Problem("damaged", files[event.key].path, damage)
        if on_video is not None and isinstance(event, Failed | Decoded):
            on_video()
    return [found[number] for number in sorted(found)]


def _damage(facts: ClipFacts) -> str:
    parts = []
    if facts.undecodable_packets:
        parts.append(f"FFmpeg could not decode {facts.undecodable_packets} of its packets")
    if facts.concealed_frames:
        parts.append(f"{facts.concealed_frames} of its frames are damaged")
    return "; ".join(parts)


def divided(files: Iterable[Listed]) -> list[Problem]:
    """Files of which the lists have parts on several sides of a split: there twice, though under one name.

    Example:
        >>> once = Listed("a.mp4", ("run",), (("train",), ("test",)))  # split 1 trains on it, split 2 tests
        >>> divided([once, Listed("b.mp4", ("run",), (("train", "test"),))])
        [Problem(kind='duplicate across splits', path='b.mp4', reason='parts of it are in train and in test')]
    """
    problems = []
    for file in files:
        several = next((sides for sides in file.sides if len(sides) > 1), None)
        if several is not None:
            where = " and ".join(f"in {side}" for side in several)
            problems.append(Problem("duplicate across splits", file.path, f"parts of it are {where}"))
    return problems


def duplicates(root: Path, files: Sequence[Listed]) -> list[Problem]:
    """Files with the content of a file that comes before; told apart when the two are on different sides of a split.

    Only files of one size are read; those that cannot be read are left to ``unreadable``.

    Raises:
        OSError: a file is gone.
    """
    sizes: dict[int, list[Listed]] = {}
    for file in files:
        sizes.setdefault((root / file.path).stat().st_size, []).append(file)
    problems = []
    for size, alike in sizes.items():
        contents: dict[str, list[Listed]] = {}
        for file in alike if size and len(alike) > 1 else ():
            content = _content(root / file.path)
            if content is None:
                continue
            earlier = contents.setdefault(content, [])
            if earlier:
                problems.append(_duplicate(file, earlier))
            earlier.append(file)
    return problems


def _content(path: Path) -> str | None:
    """The hash of a file; None for what cannot be read, which is a problem of another kind."""
    try:
        return sha256_of(path)
    except OSError:
        return None


def _duplicate(file: Listed, earlier: Sequence[Listed]) -> Problem:
    parted = next((other for other in earlier if _two_sides(file, other)), None)
    other = parted or earlier[0]
    same = set(file.labels) & set(other.labels) or not (file.labels and other.labels)
    reason = f"the same content as {other.path}" + ("" if same else f", which is of the class {other.labels[0]}")
    if parted is None:
        return Problem("duplicate", file.path, reason)
    here, there = _two_sides(file, other)[0]
    return Problem("duplicate across splits", file.path, f"{reason}; this one is in {here}, the other in {there}")


def _two_sides(file: Listed, other: Listed) -> list[tuple[str, str]]:
    """Each way in which two files are on different sides of a split."""
    pairs = (pair for both in zip(file.sides, other.sides, strict=True) for pair in product(*both))
    return [(here, there) for here, there in pairs if here != there]


def mislabelled(files: Iterable[Listed], classes: Sequence[str], in_name: ClassesInName | None = None) -> list[Problem]:
    """Files that lie in the folder of another class than the lists say, or whose name tells another one.

    Of the folders above a file, the nearest that is called like a class counts. Upper and lower case, spaces,
    underscores and other marks are taken for the same.

    Args:
        files: with labels; those without are passed over.
        classes: of the set.
        in_name: what a name tells.

    Example:
        >>> file = Listed("videos/air_drumming/a.mp4", ("yoga",), (("train",),))
        >>> mislabelled([file], ("yoga", "air drumming"))[0].reason
        'the lists say yoga, it lies in the folder of air drumming'
    """
    by_plain = {_plain(name): name for name in classes}
    problems = []
    for file in files:
        own = {_plain(label) for label in file.labels}
        if not own:
            continue
        says = f"the lists say {'|'.join(file.labels)}"
        folder = next((name for name in _folders(file.path) if name in by_plain), None)
        named = [_plain(name) for name in (in_name(file.path, classes) if in_name else ())]
        if folder is not None and folder not in own:
            problems.append(Problem("mislabelled", file.path, f"{says}, it lies in the folder of {by_plain[folder]}"))
        elif named and not own & set(named):
            told = by_plain.get(named[0], named[0])
            problems.append(Problem("mislabelled", file.path, f"{says}, its name says {told}"))
    return problems


def _folders(path: str) -> Iterator[str]:
    """The names of the folders above a file, the nearest first, in the form that is compared."""
    return map(_plain, reversed(PurePosixPath(path).parent.parts))


def _plain(name: str) -> str:
    """A class name as folders write it in any manner: small letters and digits only, unless that leaves nothing."""
    return re.sub(r"[\W_]+", "", name.casefold()) or name


def leading_class(path: str, classes: Sequence[str]) -> tuple[str, ...]:
    """The class that a file's name begins with, for data without a rule for names; none where it names several.

    Example:
        >>> classes = ("run", "left turn")
        >>> leading_class("x/left_turn_03.mp4", classes), leading_class("runner.mp4", classes)
        (('left turn',), ())
        >>> leading_class("run_left_turn.mp4", classes)
        ()
    """
    words = re.findall(r"[^\W\d_]+|\d+", PurePosixPath(path).stem.casefold())
    told = []
    for name in classes:
        own = re.findall(r"[^\W\d_]+|\d+", name.casefold())
        places = [i for i in range(len(words)) if own and words[i : i + len(own)] == own]
        if places:
            told.append((places[0], name))
    return (told[0][1],) if len(told) == 1 and told[0][0] == 0 and not told[0][1].isdecimal() else ()
