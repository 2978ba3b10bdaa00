"""Sports-1M (Karpathy et al., CVPR 2014): lists of YouTube addresses with one or more of 487 sports.

``labels.txt`` has a class a line; ``train_partition.txt`` and ``test_partition.txt`` have lines ``URL label,label``,
the labels counted from 0. Videos are on the disk by their YouTube id; many are dead, which is counted and no error.

The paper divides the videos 70/10/20 (section 4), the lists into training and test only. An eighth of the training
list, chosen by a checksum of the id, is therefore validation here: the same videos on every machine.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.data.official.dataset import (
    OfficialSet,
    VideoFiles,
    check_split,
    disk_notes,
    excerpt_note,
    find_lists,
    lines_of,
    placed,
    read_list,
    whole_number,
)
from pseudo3d.errors import Pseudo3dError, first_few, printable

OFFICIAL_COUNTS = {"videos": 1_133_158, "classes": 487}
LISTS = ("labels.txt", "train_partition.txt", "test_partition.txt")
_ID = re.compile(r"(?:[?&]v=|youtu\.be/|/embed/|/v/)([\w-]{11})(?![\w-])")
_DOWNLOADED = re.compile(r"\[([\w-]{11})\]$|-([\w-]{11})$")  # "Title [ID]" (yt-dlp), "Title-ID" (youtube-dl)
_VAL_SHARE = 8  # one in so many videos of the training list


def parse_labels(text: str, *, source: str = "labels.txt") -> tuple[str, ...]:
    r"""The classes in order, one a line.

    Raises:
        Pseudo3dError: none, or one twice, with the line's number.

    Example:
        >>> parse_labels("boomerang\nboxing\n")
        ('boomerang', 'boxing')
    """
    names: dict[str, int] = {}
    for number, line in lines_of(text):
        if line in names:
            raise Pseudo3dError(
                f"{source}, line {number}: the class {printable(line)} is on line {names[line]} already"
            )
        names[line] = number
    if not names:
        raise Pseudo3dError(f"{source} names no classes: take the file of the official release")
    return tuple(names)


def parse_sports1m(text: str, classes: Sequence[str], *, split: str, source: str = "the list") -> list[Sample]:
    r"""Samples from lines ``URL label,label``; the path of a sample is the YouTube id, the labels in the list's order.

    Args:
        text: of train_partition.txt or test_partition.txt.
        classes: of labels.txt; labels count them from 0.
        split: "train" or "test".
        source: the file's name, for errors.

    Raises:
        Pseudo3dError: a line is malformed, is no YouTube address, or has a label outside the class file; with its
            number.

    Example:
        >>> parse_sports1m("https://www.youtube.com/watch?v=AAAAAAAAAAA 1,0\n", ("boomerang", "boxing"), split="test")
        [Sample(path='AAAAAAAAAAA', label='boxing', split='test', group=None, more_labels=('boomerang',))]
    """
    samples = []
    for number, line in lines_of(text):
        where = f"{source}, line {number}"
        words = line.split()
        if len(words) != 2:
            raise Pseudo3dError(f"{where}: {printable(line)!r} is no line 'URL label,label'")
        address = _ID.search(words[0])
        if address is None:
            raise Pseudo3dError(f"{where}: {printable(words[0])} is no address of a YouTube video")
        first, *more = _labels(words[1], classes, where)
        samples.append(Sample(address[1], first, split, more_labels=tuple(more)))
    return samples


def _labels(text: str, classes: Sequence[str], where: str) -> tuple[str, ...]:
    numbers = [whole_number(number) for number in text.split(",")]
    if None in numbers:
        raise Pseudo3dError(f"{where}: the labels {printable(text)!r}; write numbers parted by commas")
    places = [number for number in numbers if number is not None]
    outside = [number for number in places if number >= len(classes)]
    if outside:
        raise Pseudo3dError(f"{where}: label {outside[0]}; labels.txt has 0 to {len(classes) - 1}")
    return tuple(dict.fromkeys(classes[number] for number in places))


def read_sports1m(folder: str | Path, lists: str | Path | None = None, split: str = "1") -> OfficialSet:
    """Sports-1M: the official lists, and the videos that could be had, as ``ID.mp4`` (any extension, any folder).

    Names as downloaders make them, "Title [ID].mp4" or "Title-ID.mp4", are found too.

    Args:
        folder: holds the videos, however deep, and the lists if ``lists`` is None.
        lists: holds labels.txt, train_partition.txt and test_partition.txt, in itself or in a folder below.
        split: "1", the only one.

    Returns:
        The videos on the disk: the test list as "test", seven eighths of the training list as "train", one as "val".

    Raises:
        Pseudo3dError: the lists are not there, malformed, or of another set; or most of the test list is in the
            training list.
    """
    check_split("sports1m", split, ("1",))
    place = find_lists(
        folder if lists is None else lists,
        LISTS,
        "the lists of Sports-1M",
    )
    classes = parse_labels(read_list(place / LISTS[0]))
    train = parse_sports1m(read_list(place / LISTS[1]), classes, split="train", source=LISTS[1])
    test = parse_sports1m(read_list(place / LISTS[2]), classes, split="test", source=LISTS[2])
    _check_apart(train, test, place)
    listed, repeated = _once([*test, *train])
    listed = [replace(s, split="val") if s.split == "train" and in_validation(s.path) else s for s in listed]
    files = VideoFiles(folder, any_case=False)
    _add_downloads(files)
    samples, absent = placed(files, listed)
    notes = [
        "validation is an eighth of the official training list, chosen by a checksum of the id: the lists have none",
        *excerpt_note(len(listed), len(classes), OFFICIAL_COUNTS),
        *disk_notes(files, absent, len(listed)),
    ]
    if repeated:
        notes.append(
            f"{repeated} lines name a video again: the first counts, in the test list before the training list"
        )
    return OfficialSet("sports1m", "Sports-1M", SampleList(files.folder, samples, classes), absent, tuple(notes))


def in_validation(video: str) -> bool:
    """Whether a video of the training list is validation, by its YouTube id.

    Example:
        >>> sum(in_validation(f"video{number:06}") for number in range(8000)) // 100
        10
    """
    return zlib.crc32(video.encode()) % _VAL_SHARE == 0


def _check_apart(train: Sequence[Sample], test: Sequence[Sample], place: Path) -> None:
    """Refuse a test list that is the training list, whole or for the most part: what it counts was learnt by heart."""
    learnt = {sample.path for sample in train}
    tested = dict.fromkeys(sample.path for sample in test)
    both = [video for video in tested if video in learnt]
    if 2 * len(both) > len(tested):
        raise Pseudo3dError(
            f"{place / LISTS[2]} and {place / LISTS[1]} are mostly the same list: {len(both):,} of {len(tested):,} "
            f"test videos are training videos, too ({first_few(both)}); bring the official lists"
        )


def _once(samples: Sequence[Sample]) -> tuple[list[Sample], int]:
    """Each video once, the first that comes, and how many were left out."""
    first = {sample.path: sample for sample in reversed(samples)}
    kept = [sample for sample in samples if first[sample.path] is sample]
    return kept, len(samples) - len(kept)


def _add_downloads(files: VideoFiles) -> None:
    """Let a video be found by its id that a downloader has put behind its title."""
    for stem in list(files.by_stem):
        match = None if len(stem) == 11 else _DOWNLOADED.search(stem)
        if match:
            files.by_stem.setdefault(match[1] or match[2], []).extend(files.by_stem[stem])
