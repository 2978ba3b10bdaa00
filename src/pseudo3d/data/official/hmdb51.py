"""HMDB51 (Kuehne et al., ICCV 2011): ``CLASS_test_splitN.txt``, lines ``name.avi 0|1|2``; three splits.

1 is training, 2 is test, 0 is neither; 70 and 30 videos of a class. Names are
``FILM_CLASS_body_camera_people_view_quality_number.avi``, where FILM may hold any character but a slash.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from pseudo3d.data.annotations import VIDEO_EXTENSIONS, Sample, SampleList
from pseudo3d.data.official.dataset import (
    OfficialSet,
    VideoFiles,
    apart,
    check_once,
    check_split,
    disk_notes,
    excerpt_note,
    lines_of,
    placed,
    read_list,
)
from pseudo3d.data.walk import find_files
from pseudo3d.errors import Pseudo3dError, first_few, printable

HMDB51_SPLITS = ("1", "2", "3")
OFFICIAL_COUNTS = {"videos": 51 * 100, "classes": 51}  # 70 + 30 of a class; the set has 6,766 videos
_MARKS = {"0": None, "1": "train", "2": "test"}
_LIST = re.compile(r"(?P<label>.+)_test_split(?P<split>\d)\.txt$")
_PROPERTIES = r"_(?P<body>[fhlu]|full|head|lower|upper)_(?:nm|cm)_np\d+_(?:fr|ba|le|ri)_(?:goo|med|bad)_\d+$"
_NAME = re.compile(r"(?P<start>.+)" + _PROPERTIES)


def _bare(path: str) -> str:
    """The file name without extension and without what the stabilised version adds to it."""
    return PurePosixPath(path).stem.removesuffix("_stab")


def classes_in_name(path: str, classes: Sequence[str]) -> tuple[str, ...]:
    """The classes that the name of an HMDB51 video may tell: what stands before its properties ends in them.

    Example:
        >>> classes_in_name("a/Film_draw_sword_f_cm_np1_fr_med_0.avi", ("draw_sword", "hit", "sword"))
        ('draw_sword', 'sword')
    """
    match = _NAME.match(_bare(path))
    return tuple(name for name in classes if match and match["start"].endswith(f"_{name}"))


def film_of(path: str, label: str) -> str | None:
    """The film that a clip is cut from: what its name says before the class; None when it is named otherwise.

    Example:
        >>> film_of("#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi", "clap"), film_of("clap1.avi", "clap")
        ('#20_Rhythm', None)
    """
    match = _NAME.match(_bare(path))
    if match is None or not match["start"].endswith(f"_{label}"):
        return None
    return match["start"].removesuffix(f"_{label}") or None


def parse_hmdb51(text: str, label: str, *, source: str = "the list") -> list[Sample]:
    r"""Samples from lines ``name.avi 0|1|2``: split None, "train", "test". The group is class and film.

    Args:
        text: of CLASS_test_splitN.txt.
        label: the class.
        source: the file's name, for errors.

    Raises:
        Pseudo3dError: a line is malformed or its mark is none of these, with its number; a video is there twice.

    Example:
        >>> [(s.path, s.split, s.group) for s in parse_hmdb51("A_#1_(b)_clap_u_nm_np1_fr_goo_0.avi 2 \n", "clap")]
        [('clap/A_#1_(b)_clap_u_nm_np1_fr_goo_0.avi', 'test', 'clap A_#1_(b)')]
    """
    samples = []
    for number, line in lines_of(text):
        name, mark = line.rsplit(maxsplit=1) if len(line.split()) > 1 else (line, "")
        if not mark or PurePosixPath(name).suffix.lower() not in VIDEO_EXTENSIONS:
            raise Pseudo3dError(f"{source}, line {number}: {printable(line)!r} is no line 'name.avi 0|1|2'")
        if mark not in _MARKS:
            raise Pseudo3dError(
                f"{source}, line {number}: the mark {printable(mark)!r}; HMDB51 has 1 (training), 2 (test), 0 (neither)"
            )
        film = film_of(name, label)
        samples.append(Sample(f"{label}/{name}", label, _MARKS[mark], film and f"{label} {film}"))
    check_once(((number, sample.path) for (number, _), sample in zip(lines_of(text), samples, strict=True)), source)
    return samples


def read_hmdb51(folder: str | Path, lists: str | Path | None = None, split: str = "1") -> OfficialSet:
    """HMDB51 as its authors hand it out: class folders and the 153 lists ``CLASS_test_splitN.txt``.

    The lists have no class order; the classes are in alphabetical order. A group is class and film: the official splits
    keep the clips that a class has of one film on one side, while a film may give clips of other classes to the other
    side. Where a list parts even the clips of one class, that group is left out and counted in the notes.

    Args:
        folder: holds the videos, however deep, and the lists if ``lists`` is None.
        lists: holds the lists, in itself or in a folder below.
        split: "1", "2" or "3".

    Returns:
        The videos marked 1 (split "train") and 2 ("test"); those marked 0 are counted in the notes.

    Raises:
        Pseudo3dError: the lists are not there, malformed, incomplete or of another set.
    """
    check_split("hmdb51", split, HMDB51_SPLITS)
    place, labels = _find_lists(Path(folder if lists is None else lists), split)
    listed = [
        sample
        for label in labels
        for name in (f"{label}_test_split{split}.txt",)
        for sample in parse_hmdb51(read_list(place / name), label, source=name)
    ]
    used = [sample for sample in listed if sample.split is not None]
    for side in ("train", "test"):
        if not any(sample.split == side for sample in used):
            raise Pseudo3dError(
                f"the lists of split {split} in {place} mark no video for {side}: take the official ones"
            )
    grouped, parted = apart(used)
    files = VideoFiles(folder)
    samples, absent = placed(files, _as_on_disk(files, grouped))
    notes = [*_notes(listed, labels, split), *excerpt_note(len(used), len(labels), OFFICIAL_COUNTS)]
    if parted:
        notes.append(f"{parted} films have clips of one class in training and test by the official lists: no group")
    places = [str(files.folder / sample.path) for sample in samples]
    if any("_stab." in path or "/hmdb51_sta" in path for path in places):
        notes.append("the stabilised version of the videos")
    notes += disk_notes(files, absent, len(used))
    return OfficialSet(
        "hmdb51", f"HMDB51, split {split}", SampleList(files.folder, samples, labels), absent, tuple(notes)
    )


def _find_lists(root: Path, split: str) -> tuple[Path, tuple[str, ...]]:
    """The folder of the lists, and the classes that have one for this split."""
    if not root.is_dir():
        raise Pseudo3dError(f"{root} is no folder: give the one that holds the lists of HMDB51")
    found: dict[Path, dict[str, set[str]]] = {}
    others = set()
    for path in find_files(root.absolute(), (".txt",)):
        match = _LIST.match(PurePosixPath(path).name)
        if match:
            place = (root.absolute() / path).parent
            found.setdefault(place, {}).setdefault(match["label"], set()).add(match["split"])
        elif PurePosixPath(path).name.startswith(("trainlist0", "testlist0")):
            others.add(path)
    if not found:
        hint = f"; {sorted(others)[0]} is a list of UCF101" if others else ""
        raise Pseudo3dError(
            f"the lists of HMDB51 (CLASS_test_split{split}.txt) are not below {root}; give their folder with --lists"
            f"{hint}"
        )
    if len(found) > 1:
        raise Pseudo3dError(
            f"lists of HMDB51 are in {len(found)} folders ({first_few(found)}); choose one with --lists"
        )
    place, splits = next(iter(found.items()))
    without = sorted(label for label, numbers in splits.items() if split not in numbers)
    if without:
        raise Pseudo3dError(f"{place} has no list of split {split} for {len(without)} classes ({first_few(without)})")
    return place, tuple(sorted(splits))


def _as_on_disk(files: VideoFiles, samples: Sequence[Sample]) -> list[Sample]:
    """The samples, of the stabilised version where only that is on the disk (``name_stab.avi``)."""
    if not any(stem.endswith("_stab") for stem in files.by_stem):
        return list(samples)
    stabilised = []
    for sample in samples:
        place = PurePosixPath(sample.path)
        other = f"{place.stem}_stab"
        there = place.stem not in files.by_stem and other in files.by_stem
        path = str(place.with_name(other + place.suffix)) if there else sample.path
        stabilised.append(replace(sample, path=path))
    return stabilised


def _notes(listed: Sequence[Sample], labels: Sequence[str], split: str) -> list[str]:
    notes = ["classes in alphabetical order: the official lists give none"]
    if len(labels) == 21:
        notes.append("21 classes, as many as JHMDB has; HMDB51 has 51")
    unused = sum(sample.split is None for sample in listed)
    if unused:
        notes.append(f"{unused:,} videos are marked 0: neither training nor test in split {split}")
    without = sum(sample.group is None for sample in listed)
    if without:
        notes.append(f"{without} names do not tell their film: no group is known for them")
    counts = Counter((sample.label, sample.split) for sample in listed)
    odd = [label for label in labels if (counts[label, "train"], counts[label, "test"]) != (70, 30)]
    if odd:
        notes.append(f"{len(odd)} classes have other counts than 70 training and 30 test videos ({first_few(odd)})")
    return notes
