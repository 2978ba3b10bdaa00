"""What every reader of an official data set returns, and how its files are found: lists anywhere, videos anywhere.

Official lists name videos by paths that few copies on disk keep. A video is therefore found by its file name, in
whatever folder it lies; where it lies tells ``p3d data check`` whether it is in the folder of another class.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pseudo3d.data.annotations import VIDEO_EXTENSIONS, Sample, SampleList
from pseudo3d.data.walk import find_files
from pseudo3d.errors import Pseudo3dError, first_few, printable


@dataclass(frozen=True)
class OfficialSet:
    """A data set in its official layout, one split of it.

    Args:
        name: what the command line calls it, such as "ucf101".
        title: with its split, for people: "UCF101, split 1".
        samples: the videos with split "train", "val" or "test" and, where the lists tell it, the group; class names are
            in the official order. Videos that are not on the disk are left out; if none is there at all, they are all
            here with the paths of the lists, so that the lists alone serve features that were made elsewhere.
        absent: what the lists name and the disk has not, under the listed paths, each with its split; None for what
            no side has a use for.
        notes: what was recognised and what is odd, one line each.

    Example:
        >>> absent = Sample("a.avi", "run", "train"), Sample("b.avi", "run", "test")
        >>> got = OfficialSet("ucf101", "UCF101, split 1", SampleList(Path(), ()), absent)
        >>> got.missing, got.missing_from(("test",))
        (('a.avi', 'b.avi'), ('b.avi',))
    """

    name: str
    title: str
    samples: SampleList
    absent: tuple[Sample, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """What the lists name and the disk has not."""
        return tuple(sample.path for sample in self.absent)

    def missing_from(self, sides: Collection[str]) -> tuple[str, ...]:
        """What is missing from these splits: a network that is tested has no use for training videos."""
        return tuple(sample.path for sample in self.absent if sample.split in sides)


class VideoFiles:
    """The videos below a folder, found by file name; the folder is walked once.

    Args:
        folder: where the videos are, however deep.
        any_case: find a video also by a name that differs in upper and lower case. Not for YouTube ids, which differ by
            nothing else.

    Attributes:
        other_case: listed paths that were found only because upper and lower case were taken for the same.

    Raises:
        Pseudo3dError: no such folder, or one below it cannot be read.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "Run").mkdir(); (root / "Run" / "v_run_g01_c01.avi").touch()
        >>> files = VideoFiles(root)
        >>> files.find("Run/v_Run_g01_c01.avi"), files.find("v_Run_g02_c01.avi"), files.other_case
        ('Run/v_run_g01_c01.avi', None, ['Run/v_Run_g01_c01.avi'])
    """

    def __init__(self, folder: str | Path, *, any_case: bool = True) -> None:
        self.folder = Path(folder).absolute()
        if not self.folder.is_dir():
            raise Pseudo3dError(f"{folder} is no folder: give the one that holds the videos")
        self.by_stem: dict[str, list[str]] = {}
        for path in find_files(self.folder, VIDEO_EXTENSIONS):
            self.by_stem.setdefault(PurePosixPath(path).stem, []).append(path)
        self._folded: dict[str, list[str]] = {}
        for stem, paths in self.by_stem.items() if any_case else ():
            self._folded.setdefault(stem.casefold(), []).extend(paths)
        self.other_case: list[str] = []

    def __len__(self) -> int:
        return sum(map(len, self.by_stem.values()))

    def find(self, listed: str) -> str | None:
        """Where the video is that a list names, as a path that starts from the folder; None when it is not there.

        Of several files of that name, the one in the folders that the list names. The extension may differ: people
        convert videos.

        Raises:
            Pseudo3dError: several different files have the name, and the list does not say which.
        """
        place = PurePosixPath(listed)
        stem = place.stem if place.suffix.lower() in VIDEO_EXTENSIONS else place.name
        paths = self.by_stem.get(stem)
        if paths is None:
            paths = self._folded.get(stem.casefold())
            if paths is None:
                return None
            self.other_case.append(listed)
        return paths[0] if len(paths) == 1 else self._choose(listed, place.parent.parts, paths)

    def _choose(self, listed: str, parents: tuple[str, ...], paths: list[str]) -> str:
        near = [path for path in paths if parents and PurePosixPath(path).parent.parts[-len(parents) :] == parents]
        left = near or paths
        if len({(self.folder / path).resolve() for path in left}) > 1:
            raise Pseudo3dError(
                f"{len(left)} files below {self.folder} may be {listed}: {first_few(left)}; keep one of them there"
            )
        return left[0]


def find_videos(folder: str | Path) -> dict[str, str]:
    """The videos below a folder: file name without extension -> path that starts from the folder.

    Links to a file count as that file.

    Raises:
        Pseudo3dError: no such folder, or two different files have one name.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "walk").mkdir(); (root / "walk" / "a.mp4").touch()
        >>> find_videos(root)
        {'a': 'walk/a.mp4'}
    """
    files = VideoFiles(folder)
    return {stem: files._choose(stem, (), paths) for stem, paths in files.by_stem.items()}


def placed(files: VideoFiles, samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """The samples that are on the disk, with their paths there, and the others as they are listed.

    When none is on the disk, all samples come back with the paths of the list (see ``OfficialSet``).
    """
    there, absent = [], []
    for sample in samples:
        path = files.find(sample.path)
        if path is None:
            absent.append(sample)
        else:
            there.append(replace(sample, path=path))
    return (tuple(there) if there else tuple(samples)), tuple(absent)


def find_lists(
    folder: str | Path, names: Iterable[str], what: str, recognise: Callable[[Collection[str]], str] = lambda _: ""
) -> Path:
    """The folder, ``folder`` itself or one below it, that holds the files of these names.

    Args:
        folder: where to look.
        names: of the files; all must be there.
        what: they are, for an error.
        recognise: from the names of the files that are there instead, what they are: the end of the error.

    Raises:
        Pseudo3dError: no folder has them, or several have.
    """
    root = Path(folder).absolute()
    if not root.is_dir():
        raise Pseudo3dError(f"{folder} is no folder: give the one that holds {what}")
    wanted = set(names)
    suffixes = {PurePosixPath(name).suffix.lower() for name in wanted}
    found: dict[Path, set[str]] = {}
    for path in find_files(root, suffixes):
        found.setdefault((root / path).parent, set()).add(PurePosixPath(path).name)
    places = [place for place, there in found.items() if wanted <= there]
    if not places:
        raise Pseudo3dError(
            f"{what} ({first_few(sorted(wanted))}) are not below {root}; give their folder with --lists"
            f"{recognise(set().union(*found.values()))}"
        )
    if len(places) > 1:
        raise Pseudo3dError(f"{what} are in {len(places)} folders ({first_few(places)}); choose one with --lists")
    return places[0]


def read_list(path: Path) -> str:
    """The text of an official list (UTF-8, or Latin-1 as some old ones are).

    Raises:
        Pseudo3dError: it cannot be read, or it is no text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Pseudo3dError(f"cannot read {path}: {error.strerror}") from error
    if b"\0" in content:
        raise Pseudo3dError(f"{path} is no text file: take the list out of its archive again")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def lines_of(text: str) -> list[tuple[int, str]]:
    r"""The lines of a list that say something, with their numbers, without white space at their ends.

    Example:
        >>> lines_of("a 1 \r\n\nb 2\n")
        [(1, 'a 1'), (3, 'b 2')]
    """
    lines = enumerate(text.removeprefix("\ufeff").split("\n"), start=1)  # splitlines knows further ends of lines
    return [(number, line.strip()) for number, line in lines if line.strip()]


def whole_number(text: str) -> int | None:
    """A number as lists have it, in at most nine digits; None for anything else.

    Example:
        >>> whole_number("012"), whole_number("-1"), whole_number("9" * 5000), whole_number("\u00b2")
        (12, None, None, None)
    """
    return int(text) if text.isdecimal() and len(text) < 10 else None


def check_split(name: str, split: str, splits: Sequence[str]) -> None:
    """Refuses a split that the set has not.

    Raises:
        Pseudo3dError: with the splits that there are.
    """
    if split not in splits:
        there = f"the splits {', '.join(splits)}" if len(splits) > 1 else "one split only: leave it out, or say 1"
        raise Pseudo3dError(f"{name} has no split {printable(split)!r}; it has {there}")


def apart(samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], int]:
    """The samples without those groups that the official lists themselves put on several sides, and how many these are.

    An official split is kept as it is, also where it parts a group; such a group is then none.

    Example:
        >>> apart([Sample("a", split="train", group="x"), Sample("b", split="test", group="x")])[0][0].group
        >>> apart([Sample("a", split="train", group="x"), Sample("b", split="train", group="x")])[1]
        0
    """
    sides: dict[str, set[str | None]] = {}
    for sample in samples:
        if sample.group is not None:
            sides.setdefault(sample.group, set()).add(sample.split)
    parted = {group for group, splits in sides.items() if len(splits) > 1}
    return tuple(replace(s, group=None) if s.group in parted else s for s in samples), len(parted)


def excerpt_note(videos: int, classes: int, official: Mapping[str, int]) -> tuple[str, ...]:
    """The note that a list has other counts than the official one; none when it has the same.

    Args:
        videos: listed.
        classes: of the class file.
        official: the official counts, "videos" and "classes".

    Example:
        >>> excerpt_note(24, 3, {"videos": 13320, "classes": 101})
        ('an excerpt: 24 of 13,320 videos, 3 of 101 classes',)
        >>> excerpt_note(13320, 101, {"videos": 13320, "classes": 101})
        ()
    """
    if (videos, classes) == (official["videos"], official["classes"]):
        return ()
    more = videos > official["videos"] or classes > official["classes"]
    counts = f"{videos:,} of {official['videos']:,} videos, {classes} of {official['classes']} classes"
    return (f"{'other counts than the official lists' if more else 'an excerpt'}: {counts}",)


def disk_notes(files: VideoFiles, missing: Collection[str | Sample], listed: int) -> tuple[str, ...]:
    """What the disk has and has not, for ``OfficialSet.notes``."""
    notes = []
    if missing:
        notes.append(f"{len(missing):,} of {listed:,} listed videos are not below {files.folder}")
    if files.other_case:
        notes.append(
            f"{len(files.other_case)} files differ from the lists in upper and lower case "
            f"({first_few(files.other_case, 1)}): taken as the same"
        )
    return tuple(notes)


def check_once(lines: Iterable[tuple[int, str]], source: str) -> None:
    """Refuses a list that names a video twice.

    Args:
        lines: number of each line and the video that it names.
        source: the list's name.

    Raises:
        Pseudo3dError: with the first one.
    """
    first: dict[str, int] = {}
    twice = [(number, path) for number, path in lines if first.setdefault(path, number) != number]
    if twice:
        number, path = twice[0]
        more = f" ({len(twice)} such lines)" if len(twice) > 1 else ""
        raise Pseudo3dError(
            f"{source}, line {number}: {printable(path)} is on line {first[path]} already{more}: keep one line of each"
        )
