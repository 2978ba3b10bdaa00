"""ActivityNet v1.2 and v1.3: one JSON file {version, taxonomy, database: {id: {subset, duration, annotations}}}.

The paper (section 5) classifies whole, untrimmed videos: a video has the classes of all its annotations, which for a
few videos are several. Trimmed, every annotation is a sample of its own: the segment ``v_ID.mp4#t=10.5,20``. Videos are
``v_ID.mp4`` or ``ID.mp4``, with any extension, in any folder.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.data.official.dataset import OfficialSet, VideoFiles, check_split, disk_notes, excerpt_note, read_list
from pseudo3d.data.walk import find_files
from pseudo3d.errors import Pseudo3dError, first_few, printable
from pseudo3d.video.segments import with_segment

_SUBSETS = {"training": "train", "validation": "val", "testing": "test"}
_OFFICIAL = {"1.2": {"videos": 9682, "classes": 100}, "1.3": {"videos": 19994, "classes": 200}}


class Annotation(NamedTuple):
    """What is seen in a part of a video.

    Args:
        label: the class.
        start: seconds, as the file has it.
        end: seconds, as the file has it.
    """

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class AnnotatedVideo:
    """An entry of the database.

    Args:
        video: YouTube id.
        split: "train", "val" or "test".
        duration: seconds; infinite where the file does not say.
        annotations: in the order of the file; none where the labels are held back.
    """

    video: str
    split: str
    duration: float
    annotations: tuple[Annotation, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Its classes, each once."""
        return tuple(dict.fromkeys(annotation.label for annotation in self.annotations))


@dataclass(frozen=True)
class AnnotationFile:
    """An annotation file of ActivityNet.

    Args:
        version: "1.3", "1.2", or "" when it does not say.
        videos: in the order of the file.
    """

    version: str
    videos: tuple[AnnotatedVideo, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """In alphabetical order. The file has no other: the evaluator numbers classes as they appear."""
        return tuple(sorted({label for video in self.videos for label in video.labels}))


def parse_activitynet(text: str, *, source: str = "the annotations") -> AnnotationFile:
    """The content of an annotation file.

    Args:
        text: JSON.
        source: the file's name, for errors.

    Raises:
        Pseudo3dError: it is no JSON, or not of this form, has an id twice, an unknown subset, or a label that its
            taxonomy has not.

    Example:
        >>> entry = '{"subset": "training", "duration": 9, "annotations": [{"segment": [1, 2.5], "label": "Archery"}]}'
        >>> content = parse_activitynet('{"version": "VERSION 1.3", "database": {"-a": %s}}' % entry)
        >>> content.version, content.videos[0].split, content.videos[0].annotations
        ('1.3', 'train', (Annotation(label='Archery', start=1.0, end=2.5),))
    """
    try:
        content = json.loads(text, object_pairs_hook=lambda pairs: _object(pairs, source))
    except json.JSONDecodeError as error:
        raise Pseudo3dError(f"{source}, line {error.lineno}: is no JSON ({error.msg}); download it again") from error
    except Pseudo3dError:
        raise
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; lists in lists without end
        raise Pseudo3dError(f"{source}: is JSON that nobody can mean (numbers or lists too long)") from error
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict) or not database:
        raise Pseudo3dError(f"{source}: has no database of videos; give activity_net.v1-3.min.json")
    version = str(content.get("version") or "").lower().removeprefix("version").strip()
    taxonomy = content.get("taxonomy") or []
    if not isinstance(taxonomy, list) or not all(isinstance(node, dict) for node in taxonomy):
        raise Pseudo3dError(f"{source}: its taxonomy is no list of nodes; download it again")
    known = {str(node.get("nodeName")) for node in taxonomy}
    videos = []
    for video, entry in database.items():
        videos.append(_video(video, entry, f"{source}: {printable(video)}"))
        strange = [label for label in videos[-1].labels if known and label not in known]
        if strange:
            label = printable(strange[0])
            raise Pseudo3dError(f"{source}: {printable(video)} has the label {label!r}, which its taxonomy has not")
    return AnnotationFile(version, tuple(videos))


def _object(pairs: Sequence[tuple[str, Any]], source: str) -> dict[str, Any]:
    """An object of the file. JSON's readers keep the last of two entries of one name, and say nothing."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Pseudo3dError(f"{source}: has {printable(twice)} twice; keep one entry")
    return found


def _video(video: str, entry: Any, where: str) -> AnnotatedVideo:
    if not video or "/" in video or not video.isprintable():
        raise Pseudo3dError(f"{where}: is no YouTube id")
    if not isinstance(entry, dict) or not isinstance(entry.get("annotations", []), list):
        raise Pseudo3dError(f"{where}: must have a subset and a list of annotations")
    subset = entry.get("subset")
    if not isinstance(subset, str) or subset not in _SUBSETS:
        raise Pseudo3dError(f"{where}: unknown subset {printable(subset)!r}; it is {', '.join(_SUBSETS)}")
    duration = entry.get("duration")
    seconds = float(duration) if _is_number(duration) and duration > 0 else math.inf
    annotations = tuple(_annotation(one, where) for one in entry.get("annotations", []))
    return AnnotatedVideo(video, _SUBSETS[subset], seconds, annotations)


def _annotation(one: Any, where: str) -> Annotation:
    label, segment = (one.get("label"), one.get("segment")) if isinstance(one, dict) else (None, None)
    if not isinstance(label, str) or not label:
        raise Pseudo3dError(f"{where}: an annotation has no label")
    if not label.isprintable():  # a line end, or half of a character, which no list can hold
        raise Pseudo3dError(f"{where}: the label {printable(label)} is no line of text; download the file again")
    if not isinstance(segment, list) or len(segment) != 2 or not all(map(_is_number, segment)):
        raise Pseudo3dError(f"{where}: {printable(segment)} is no segment; it is [start, end] in seconds")
    return Annotation(label, float(segment[0]), float(segment[1]))


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9  # NaN is below nothing


def read_activitynet(
    folder: str | Path, lists: str | Path | None = None, split: str = "1", trimmed: bool = False
) -> OfficialSet:
    """ActivityNet from its annotation file; the version is told in a note.

    Args:
        folder: holds the videos, however deep, and the annotation file if ``lists`` is None.
        lists: the annotation file, or a folder that holds it.
        split: "1", the only one.
        trimmed: a sample for every annotation, the segment with its one class, instead of one for every video.

    Returns:
        The videos or segments on the disk; class names in alphabetical order; the group is the YouTube video. Videos
        for testing have no label, since theirs are held back; in training and validation, a video without annotations
        is left out and told in a note, and so is, trimmed, a segment that ends before it starts or begins after the
        video. One that goes beyond its video is cut there, and told too.

    Raises:
        Pseudo3dError: no annotation file, several, or a malformed one.
    """
    check_split("activitynet", split, ("1",))
    path = _annotation_file(Path(folder if lists is None else lists))
    content = parse_activitynet(read_list(path), source=path.name)
    if not content.class_names:
        raise Pseudo3dError(f"{path}: no video has a label; give the file with the annotations")
    files = VideoFiles(folder, any_case=False)
    there = {entry.video: _found(files, entry.video) for entry in content.videos}
    gone = {video for video, place in there.items() if place is None}
    if len(gone) == len(there):  # the list alone serves features that were made elsewhere
        there = {video: f"v_{video}.mp4" for video in there}
    odd = _Odd()
    samples, absent = [], []
    for entry in content.videos:
        made = _trimmed(entry, odd) if trimmed else _whole(entry, odd)
        place = there[entry.video]
        samples += [replace(sample, path=place + sample.path) for sample in made if place is not None]
        if entry.video in gone:
            absent.append(Sample(f"v_{entry.video}.mp4", None, entry.split if made else None, entry.video))
    title = f"ActivityNet{' v' + content.version if content.version else ''}{', trimmed' if trimmed else ''}"
    notes = (*_version_notes(content), *odd.notes(), *disk_notes(files, gone, len(content.videos)))
    return OfficialSet(
        "activitynet", title, SampleList(files.folder, tuple(samples), content.class_names), tuple(absent), notes
    )


def _annotation_file(place: Path) -> Path:
    """The annotation file: ``place`` itself, or the one below it that is named as the official ones are."""
    if place.is_file():
        return place
    if not place.is_dir():
        raise Pseudo3dError(f"{place} does not exist: give the annotation file of ActivityNet, or its folder")
    root = place.absolute()
    found = [root / path for path in find_files(root, (".json",)) if Path(path).name.startswith("activity_net")]
    found = found or sorted(root.glob("*.json"))
    if not found:
        raise Pseudo3dError(f"no activity_net.v1-3.min.json is below {root}; give it, or its folder, with --lists")
    if len(found) > 1:
        raise Pseudo3dError(
            f"{len(found)} annotation files may be meant ({first_few(path.relative_to(root) for path in found)}), "
            "perhaps of different versions; name one with --lists"
        )
    return found[0]


def _found(files: VideoFiles, video: str) -> str | None:
    return files.find(f"v_{video}.mp4") or files.find(f"{video}.mp4")


@dataclass
class _Odd:
    """Ids of videos of which something is odd."""

    unlabelled: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    hidden: int = 0

    def notes(self) -> list[str]:
        """A line for each kind."""
        kinds = (
            (self.unlabelled, "videos for training or validation without annotations, left out"),
            (self.beyond, "segments go beyond their video, cut at its ends"),
            (self.empty, "segments end before they start, or lie behind their video, left out"),
            (self.twice, "annotations stand twice, taken once"),
        )
        lines = [f"{len(ids):,} {what}: {first_few(ids)}" for ids, what in kinds if ids]
        return lines + (
            [f"{self.hidden:,} videos for testing have no label: they are held back"] if self.hidden else []
        )


def _whole(entry: AnnotatedVideo, odd: _Odd) -> list[Sample]:
    """The sample of a video; its path is still empty."""
    if not entry.labels and entry.split != "test":
        odd.unlabelled.append(entry.video)
        return []
    odd.hidden += not entry.labels
    label, *more = entry.labels or (None,)
    return [Sample("", label, entry.split, entry.video, tuple(filter(None, more)))]


def _trimmed(entry: AnnotatedVideo, odd: _Odd) -> list[Sample]:
    """A sample for each segment; the path is the fragment of one alone. A test video stays whole."""
    if not entry.annotations:
        return _whole(entry, odd)
    labels: dict[tuple[float, float], list[str]] = {}
    for label, start, end in entry.annotations:
        place = max(start, 0.0), min(end, entry.duration)
        if place[0] >= place[1]:
            odd.empty.append(entry.video)
            continue
        if place != (start, end):
            odd.beyond.append(entry.video)
        here = labels.setdefault(place, [])
        (odd.twice if label in here else here).append(entry.video if label in here else label)
    return [
        Sample(with_segment("", *place), here[0], entry.split, entry.video, tuple(here[1:]))
        for place, here in labels.items()
    ]


def _version_notes(content: AnnotationFile) -> list[str]:
    notes = [
        f"{f'version {content.version}' if content.version else 'no version is told'}; classes in alphabetical order"
    ]
    counts = len(content.videos), len(content.class_names)
    official = _OFFICIAL.get(content.version)
    if official is not None:
        notes += excerpt_note(*counts, official)
        others = [other for other, known in _OFFICIAL.items() if known["classes"] == counts[1] and known != official]
        notes += [f"by its number of classes it is v{other}, though it says {content.version}" for other in others]
    elif content.version:
        notes.append("the paper's is version 1.3")
    return notes
