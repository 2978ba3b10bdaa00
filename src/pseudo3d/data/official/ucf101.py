"""UCF101 (Soomro, Zamir, Shah 2012): ``classInd.txt``, ``trainlist0N.txt``, ``testlist0N.txt``; three splits.

Video names tell class, group and clip: ``v_Archery_g01_c03.avi``. The 25 groups of a class are the recordings that its
clips are cut from, so that a group is named by class and number. Split N tests on seven of them.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.data.official.dataset import (
    OfficialSet,
    VideoFiles,
    check_once,
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

UCF101_SPLITS = ("1", "2", "3")
OFFICIAL_COUNTS = {"videos": 13320, "classes": 101}
_TEST_GROUPS = {"1": range(1, 8), "2": range(8, 15), "3": range(15, 22)}
_NAME = re.compile(r"v_(?P<label>.+)_g(?P<group>\d{2})_c\d{2}$")
_UCF11 = re.compile(r"v_[a-z_]+_\d{2}_\d{2}$")  # v_biking_01_01: UCF11, the YouTube action set
_THUMOS = re.compile(r"(video_(validation|test|background)|thumos)_?\d+", re.IGNORECASE)


def class_in_name(path: str) -> str | None:
    """The class that the name of a UCF101 video tells, as it is written there.

    Example:
        >>> class_in_name("HandstandPushups/v_HandStandPushups_g01_c01.avi"), class_in_name("a.avi")
        ('HandStandPushups', None)
    """
    match = _NAME.match(PurePosixPath(path).stem)
    return match["label"] if match else None


def parse_class_index(text: str, *, source: str = "classInd.txt") -> tuple[str, ...]:
    r"""The classes in order, from lines ``k Class`` with k = 1, 2, 3, ...

    Raises:
        Pseudo3dError: a line is none of these, or a number or class is out of order or there twice.

    Example:
        >>> parse_class_index("1 ApplyEyeMakeup\r\n2 ApplyLipstick\r\n")
        ('ApplyEyeMakeup', 'ApplyLipstick')
    """
    names: list[str] = []
    for number, line in lines_of(text):
        words = line.split()
        place = whole_number(words[0])
        if len(words) != 2 or place is None:
            raise Pseudo3dError(f"{source}, line {number}: {printable(line)!r} is no line 'number Class'")
        if place != len(names) + 1:
            raise Pseudo3dError(f"{source}, line {number}: class number {place} where {len(names) + 1} is due")
        if words[1] in names:
            raise Pseudo3dError(f"{source}, line {number}: the class {printable(words[1])} is there twice")
        names.append(words[1])
    if not names:
        raise Pseudo3dError(f"{source} names no classes: take the file of the official lists")
    return tuple(names)


def parse_ucf101(text: str, classes: Sequence[str], *, split: str, source: str = "the list") -> list[Sample]:
    r"""Samples from lines ``Class/v_Class_gGG_cCC.avi k``, or without ``k`` as in the test lists.

    Args:
        text: of trainlist0N.txt or testlist0N.txt.
        classes: of classInd.txt; ``k`` counts them from 1.
        split: "train" or "test"; a training list must give ``k``.
        source: the file's name, for errors.

    Raises:
        Pseudo3dError: a line is malformed, its number or class is not in the class file, number and folder disagree, or
            the list is that of another set; with the line's number.

    Example:
        >>> parse_ucf101("Archery/v_Archery_g08_c01.avi 1\n", ("Archery",), split="train")[0].group
        'Archery g08'
    """
    samples = []
    spelt = {name.casefold(): name for name in classes}
    for number, line in lines_of(text):
        where = f"{source}, line {number}"
        path, index = _path_and_index(line, split, where)
        folder, named = PurePosixPath(path).parent.name, class_in_name(path)
        label = folder or named
        if index is not None:
            if not 1 <= index <= len(classes):
                raise Pseudo3dError(f"{where}: class number {index}; the class file has 1 to {len(classes)}")
            told, label = label, classes[index - 1]
            if told is not None and told.casefold() != label.casefold():
                raise Pseudo3dError(
                    f"{where}: {printable(path)} has class number {index}, which is {label} in the class file"
                )
        if label is None:
            raise Pseudo3dError(f"{where}: neither folder nor name of {printable(path)} tells a class")
        if label.casefold() not in spelt:
            raise Pseudo3dError(f"{where}: the class {printable(label)} of {printable(path)} is not in the class file")
        label = spelt[label.casefold()]
        match = _NAME.match(PurePosixPath(path).stem)
        samples.append(Sample(path, label, split, f"{label} g{match['group']}" if match else None))
    check_once(((number, sample.path) for (number, _), sample in zip(lines_of(text), samples, strict=True)), source)
    return samples


def _path_and_index(line: str, split: str, where: str) -> tuple[str, int | None]:
    words = line.split()
    stem, path = PurePosixPath(words[0]).stem, printable(words[0])
    if _UCF11.match(stem):
        raise Pseudo3dError(f"{where}: {path} is named as in UCF11 (YouTube actions); UCF101 needs its own lists")
    if _THUMOS.search(stem):
        raise Pseudo3dError(f"{where}: {path} is named as in THUMOS; UCF101 needs its own lists")
    if len(words) > 2 or (len(words) == 2 and whole_number(words[1]) is None):
        raise Pseudo3dError(f"{where}: {printable(line)!r} is no line 'Class/video.avi number'")
    hmdb = "/" not in words[0] and class_in_name(words[0]) is None
    if hmdb and len(words) == 2 and words[1] in ("0", "1", "2"):
        raise Pseudo3dError(f"{where}: {printable(line)!r} looks like a line of HMDB51's lists; UCF101 needs its own")
    if len(words) == 1 and split == "train":
        raise Pseudo3dError(
            f"{where}: {path} has no class number; lists of the action detection task have none: take those of the "
            "recognition task (ucfTrainTestlist)"
        )
    return words[0], whole_number(words[1]) if len(words) == 2 else None


def read_ucf101(folder: str | Path, lists: str | Path | None = None, split: str = "1") -> OfficialSet:
    """UCF101 as its authors hand it out: class folders (or all videos in one) and the lists of the recognition task.

    Args:
        folder: holds the videos, however deep, and the lists if ``lists`` is None.
        lists: holds the lists, in itself or in a folder below.
        split: "1", "2" or "3".

    Returns:
        Videos of trainlist0N.txt (split "train") and testlist0N.txt ("test") in the order of the lists.

    Raises:
        Pseudo3dError: the lists are not there, malformed, of another set, or of two different splits.
    """
    check_split("ucf101", split, UCF101_SPLITS)
    train_name, test_name = f"trainlist0{split}.txt", f"testlist0{split}.txt"
    place = find_lists(
        folder if lists is None else lists,
        ("classInd.txt", train_name, test_name),
        "the lists of UCF101",
        _other_lists,
    )
    classes = parse_class_index(read_list(place / "classInd.txt"))
    train = parse_ucf101(read_list(place / train_name), classes, split="train", source=train_name)
    test = parse_ucf101(read_list(place / test_name), classes, split="test", source=test_name)
    for name, side in ((train_name, train), (test_name, test)):
        if not side:
            raise Pseudo3dError(f"{place / name} lists no videos: take the file of the official lists")
    _check_sides(train, test, train_name, test_name)
    notes = [*_split_notes(train, test, split, train_name, test_name), *_class_notes(classes)]
    files = VideoFiles(folder)
    samples, absent = placed(files, train + test)
    notes += excerpt_note(len(train) + len(test), len(classes), OFFICIAL_COUNTS)
    notes += disk_notes(files, absent, len(train) + len(test))
    return OfficialSet(
        "ucf101", f"UCF101, split {split}", SampleList(files.folder, samples, classes), absent, tuple(notes)
    )


def _other_lists(names: Collection[str]) -> str:
    """What lists these are that are not those of UCF101, as the end of a sentence."""
    strange = sorted(name for name in names if re.search(r"_test_split\d\.txt$", name))
    if strange:
        return f"; {strange[0]} is a list of HMDB51"
    if any(name.startswith("trainlist0") for name in names) and "classInd.txt" not in names:
        return "; lists without classInd.txt, as the action detection task has: take those of the recognition task"
    return ""


def _check_sides(train: Sequence[Sample], test: Sequence[Sample], train_name: str, test_name: str) -> None:
    """Refuses lists that share videos or groups: those of two different splits do."""
    for what, left, right in (
        ("videos", {s.path for s in train}, {s.path for s in test}),
        ("groups", {s.group for s in train if s.group}, {s.group for s in test if s.group}),
    ):
        shared = sorted(left & right)
        if shared:
            raise Pseudo3dError(
                f"{train_name} and {test_name} share {len(shared)} {what} ({first_few(shared)}): they are of two "
                "different splits; take both from one archive"
            )


def _split_notes(
    train: Sequence[Sample], test: Sequence[Sample], split: str, train_name: str, test_name: str
) -> list[str]:
    """What the groups tell of the split.

    Raises:
        Pseudo3dError: both lists are those of another split.
    """
    groups = {int(s.group[-2:]) for s in test if s.group}
    trained = {int(s.group[-2:]) for s in train if s.group}
    for other, expected in _TEST_GROUPS.items():
        if other != split and groups and groups <= set(expected) and not trained & set(expected):
            raise Pseudo3dError(
                f"{train_name} and {test_name} hold split {other}: its test groups are {expected.start} to "
                f"{expected.stop - 1}, those of split {split} are {_TEST_GROUPS[split].start} to "
                f"{_TEST_GROUPS[split].stop - 1}; name the files as in the official archive"
            )
    if groups and not groups <= set(_TEST_GROUPS[split]):
        return [f"not the official division: {test_name} has groups {first_few(sorted(groups), 25)}"]
    without = sum(s.group is None for s in (*train, *test))
    return [f"{without} videos are not named v_Class_gGG_cCC: no group is known for them"] if without else []


def _class_notes(classes: Sequence[str]) -> list[str]:
    notes = []
    if len(classes) in (11, 50):
        notes.append(f"{len(classes)} classes, as many as UCF{len(classes)} has; UCF101 has 101")
    if list(classes) != sorted(classes, key=str.casefold):
        notes.append("the classes of classInd.txt are not in alphabetical order, as the official ones are")
    return notes
