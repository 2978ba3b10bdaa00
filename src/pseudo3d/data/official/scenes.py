"""YUPENN (14 classes of 30 videos) and Maryland's Dynamic Scene (13 of 10): no lists, a folder is a class.

The paper (section 5) leaves one video out at a time, so that there are no splits. Folders are told by their names,
upper and lower case, blanks, dashes and underscores not looked at, at any depth: releases differ in all of these.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pseudo3d.data.annotations import VIDEO_EXTENSIONS, Sample, SampleList
from pseudo3d.data.official.dataset import OfficialSet, check_split
from pseudo3d.data.walk import find_files
from pseudo3d.errors import Pseudo3dError, first_few

YUPENN_CLASSES = (
    "Beach", "Elevator", "Forest fire", "Fountain", "Highway", "Lightning storm", "Ocean", "Railway", "Rushing river",
    "Sky-clouds", "Snowing", "Street", "Waterfall", "Windmill farm",
)  # fmt: skip
DYNAMIC_SCENE_CLASSES = (
    "Avalanche", "Boiling water", "Chaotic traffic", "Forest fire", "Fountain", "Iceberg collapse", "Landslide",
    "Smooth traffic", "Tornado", "Volcanic eruption", "Waterfall", "Waves", "Whirlpool",
)  # fmt: skip
# The six that YUP++ (Feichtenhofer et al., CVPR 2017) adds to YUPENN's.
_YUPPP_CLASSES = ("Building collapse", "Escalator", "Falling trees", "Fireworks", "Marathon", "Waving flags")


@dataclass(frozen=True)
class _Scenes:
    """What is known of a set, and which others it may be taken for."""

    name: str
    title: str
    classes: tuple[str, ...]
    videos: int
    other: str
    others: tuple[str, ...]


_YUPENN = _Scenes("yupenn", "YUPENN", YUPENN_CLASSES, 30, "Dynamic Scene", DYNAMIC_SCENE_CLASSES)
_DYNAMIC_SCENE = _Scenes("dynamic-scene", "Dynamic Scene", DYNAMIC_SCENE_CLASSES, 10, "YUPENN", YUPENN_CLASSES)


def parse_scenes(paths: Sequence[str], classes: Sequence[str]) -> tuple[list[Sample], list[str]]:
    """The class of each video out of the folders that it lies in, and the videos that lie in no class's folder.

    Args:
        paths: POSIX paths.
        classes: names of the classes.

    Example:
        >>> parse_scenes(["scenes/forest_fire/a.avi", "b.avi"], ["Forest fire"])[0][0].label
        'Forest fire'
        >>> parse_scenes(["scenes/forest_fire/a.avi", "b.avi"], ["Forest fire"])[1]
        ['b.avi']
    """
    names = {_plain(name): name for name in classes}
    samples, others = [], []
    for path in paths:
        label = next((names[_plain(p)] for p in reversed(PurePosixPath(path).parts[:-1]) if _plain(p) in names), None)
        if label is None:
            others.append(path)
        else:
            samples.append(Sample(path, label))
    return samples, others


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def read_yupenn(folder: str | Path, lists: str | Path | None = None, split: str = "1") -> OfficialSet:
    """YUPENN: a folder for each of its 14 classes, 30 videos in each.

    Args:
        folder: holds the folders of the classes, however deep.
        lists: there are none; only None.
        split: "1", the only one.

    Returns:
        The videos, class names in alphabetical order. Other counts, and files in no class's folder, are told in notes.

    Raises:
        Pseudo3dError: no videos, no class of the set, or another set: YUP++, Dynamic Scene.
    """
    return _read(_YUPENN, Path(folder), lists, split)


def read_dynamic_scene(folder: str | Path, lists: str | Path | None = None, split: str = "1") -> OfficialSet:
    """Dynamic Scene ("in the wild", Maryland): a folder for each of its 13 classes, 10 videos in each.

    Args:
        folder: as for ``read_yupenn``.
        lists: as for ``read_yupenn``.
        split: as for ``read_yupenn``.

    Raises:
        Pseudo3dError: no videos, no class of the set, or another set: YUPENN, YUP++.
    """
    return _read(_DYNAMIC_SCENE, Path(folder), lists, split)


def _read(known: _Scenes, folder: Path, lists: str | Path | None, split: str) -> OfficialSet:
    check_split(known.name, split, ("1",))
    if lists is not None:
        raise Pseudo3dError(f"{known.title} has no lists: its folders are its classes; leave --lists out")
    root = folder.absolute()
    if not root.is_dir():
        raise Pseudo3dError(f"{folder} is no folder: give the one that holds the videos")
    paths = list(find_files(root, VIDEO_EXTENSIONS))
    if not paths:
        raise Pseudo3dError(
            f"no videos below {root}: {known.title} has {len(known.classes)} folders, one for each class"
        )
    _check_set(known, root, paths)
    samples, others = parse_scenes(paths, known.classes)
    counts = Counter(sample.label for sample in samples)
    present = tuple(name for name in known.classes if counts[name])
    notes = []
    if len(present) < len(known.classes):
        lacking = first_few(name for name in known.classes if not counts[name])
        notes.append(f"an excerpt: {len(present)} of {len(known.classes)} classes, without {lacking}")
    uneven = [f"{name} {counts[name]}" for name in present if counts[name] != known.videos]
    if uneven:
        notes.append(
            f"{len(uneven)} classes have another number of videos than {known.videos}: {first_few(uneven, 14)}"
        )
    if others:
        notes.append(f"{len(others)} videos lie in no class's folder, left out: {first_few(others)}")
    return OfficialSet(known.name, known.title, SampleList(root, tuple(samples), present), notes=tuple(notes))


def _check_set(known: _Scenes, root: Path, paths: Sequence[str]) -> None:
    """Refuses another set than the one that is asked for.

    Raises:
        Pseudo3dError: naming it.
    """
    folders = {_plain(part) for path in paths for part in PurePosixPath(path).parts[:-1]}
    # static_camera and moving_camera may be the folder that was given, too
    cameras = {"staticcamera", "movingcamera"} & (folders | {_plain(root.name)})
    more = [name for name in _YUPPP_CLASSES if _plain(name) in folders]
    if cameras or more:
        why = f"its folders {', '.join(sorted(cameras))}" if cameras else f"its class {more[0]!r}"
        raise Pseudo3dError(
            f"{root} is YUP++ (20 classes, half of them with a moving camera), by {why}, and not {known.title}; give "
            f"the folder of {known.title}, or make features of this one and use `p3d evaluate STORE`"
        )
    own = [name for name in known.classes if _plain(name) in folders]
    strange = [name for name in known.others if name not in known.classes and _plain(name) in folders]
    if strange and len(strange) >= len(own):
        raise Pseudo3dError(f"{root} is {known.other}, by its class {strange[0]!r}, and not {known.title}")
    if not own:
        raise Pseudo3dError(
            f"{root} has no folder of a class of {known.title} ({first_few(known.classes)}): a folder is a class"
        )
