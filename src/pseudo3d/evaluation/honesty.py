"""What would make a number better than it is: each is refused, or counted in a footnote of the table.

``representations`` refuses features that are not finite, and ``scores`` values that are not; here are the checks of
what was trained on and what was tested on.
"""

import os
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from pseudo3d.data.annotations import Sample, parse_csv
from pseudo3d.data.splits import check_no_leak
from pseudo3d.errors import Pseudo3dError, first_few, printable
from pseudo3d.evaluation.representations import match_paths
from pseudo3d.features.digests import Digests
from pseudo3d.features.store import SourceFile
from pseudo3d.files import sha256_of
from pseudo3d.video.segments import split_segment

_SPLIT_LIST, _CHECKPOINTS = "split.csv", "checkpoints"  # of a run's folder (training.loop)
_WEIGHTS, _CARD = "model.safetensors", "README.md"  # of a checkpoint (weights.pretrained, which needs torch)
_OF_TRAINING = "\n## Training\n"  # on the model card of what a run has trained (weights.card)


def check_sides(samples: Sequence[Sample], *, parts_apart: bool = False) -> None:
    """Refuse a list with a video, or a group, in two of its splits. Segments of one file are one video.

    Args:
        samples: those without a split are left alone.
        parts_apart: segments are videos of their own, for an official list that divides the pieces of a file among its
            splits and whose reader counts such files.

    Raises:
        Pseudo3dError: it names the first few.

    Example:
        >>> check_sides([Sample("a.mp4", split="train"), Sample("b.mp4", split="test")])
        >>> check_sides([Sample("a.mp4#t=0,5", split="train"), Sample("a.mp4#t=5,9", split="test")])
        Traceback (most recent call last):
        pseudo3d.errors.Pseudo3dError: 1 videos are both in train and in test (a.mp4): keep them on one side
    """
    sides = {
        split: [
            sample if parts_apart else replace(sample, path=_file(sample.path))
            for sample in samples
            if sample.split == split
        ]
        for split in ("train", "val", "test")
    }
    for one, other in combinations(sides, 2):
        check_no_leak(sides[one], sides[other], names=(one, other))


def check_content(samples: Sequence[Sample], sources: Sequence[SourceFile], *, refuse: bool = True) -> tuple[str, ...]:
    """Find videos whose content is on the training and on the test side, under other names or in other segments.

    The test side is "test", else "val"; the training side is all other splits.

    Args:
        samples: with their splits.
        sources: of each, as ``Representations.sources`` has them; files whose content is not known are told apart by
            their paths alone.
        refuse: False for an official list, which cannot be mended: the videos are counted instead.

    Returns:
        A footnote, or none.

    Raises:
        Pseudo3dError: there are such videos, and ``refuse``.

    Example:
        >>> lists = [Sample("a.mp4", split="train"), Sample("b.mp4", split="test")]
        >>> check_content(lists, [SourceFile(9, 0, "12ab"), SourceFile(9, 0, "12ab")], refuse=False)
        ('1 of 1 test videos have the content of a training video (b.mp4 is a.mp4)',)
    """
    tested = "test" if any(sample.split == "test" for sample in samples) else "val"
    known = [(sample, _contents(sample, source)) for sample, source in zip(samples, sources, strict=True)]
    trained = {
        content: sample.path for sample, contents in known if sample.split not in (tested, None) for content in contents
    }
    pairs = []
    for sample, contents in known:
        twin = next((trained[content] for content in contents if content in trained), None)
        if sample.split == tested and twin is not None:
            pairs.append(f"{printable(sample.path)} is {printable(twin)}")
    if not pairs:
        return ()
    count = sum(sample.split == tested for sample in samples)
    told = f"{len(pairs)} of {count} test videos have the content of a training video ({first_few(pairs)})"
    if refuse:
        raise Pseudo3dError(f"{told}: keep each on one side, or give such videos one group")
    return (told,)


def check_copies(samples: Sequence[Sample], sources: Sequence[SourceFile]) -> tuple[str, ...]:
    """Count videos with the content of another one: tested by itself, such a video is trained on in its copy.

    Args:
        samples: all of which train where one is left out, or its fold. Copies in one group are no harm.
        sources: of each, as ``Representations.sources`` has them; files whose content is not known are told apart by
            their paths alone.

    Returns:
        A footnote, or none.

    Example:
        >>> check_copies([Sample("a.mp4"), Sample("b.mp4")], [SourceFile(9, 0, "12ab"), SourceFile(9, 0, "12ab")])
        ('1 videos have the content of another one (b.mp4 is a.mp4), which may train when they are tested',)
    """
    first: dict[str, Sample] = {}
    pairs = []
    for sample, source in zip(samples, sources, strict=True):
        others = [first.setdefault(content, sample) for content in _contents(sample, source)]
        other = next((other for other in others if other is not sample), sample)
        if other is not sample and (sample.group is None or sample.group != other.group):
            pairs.append(f"{printable(sample.path)} is {printable(other.path)}")
    if not pairs:
        return ()
    return (
        f"{len(pairs)} videos have the content of another one ({first_few(pairs)}), "
        "which may train when they are tested",
    )


def check_not_trained_on(
    facts_or_run: Mapping[str, Any] | str | Path,
    test: Sequence[Sample],
    *,
    root: str | Path | None = None,
    sources: Sequence[SourceFile] = (),
    refuse: bool = True,
) -> tuple[str, ...]:
    """Refuse to test a network on videos that it was trained on.

    Only a run of ``p3d train`` says what it was trained on, in the split.csv beside its checkpoints. A test video is
    one of those by its path, or by its content under another. Published weights have no such list.

    Args:
        facts_or_run: ``FeatureStore.info``, or the weights or the run themselves.
        test: the test videos.
        root: the folder that their paths start from; None: the root that the facts name, if any.
        sources: of each test video, as ``Representations.sources`` has them; without, the files are read where they
            have the size of a training video.
        refuse: False where the number may be looked at all the same: the videos are counted instead.

    Returns:
        Footnotes: that the list could not be found, that test videos chose the epoch, or that they have the names of
        training videos whose content could not be compared.

    Raises:
        Pseudo3dError: test videos were trained on, and ``refuse``; or the run's list is damaged.
    """
    facts = facts_or_run if isinstance(facts_or_run, Mapping) else {"made_with": {"weights_from": str(facts_or_run)}}
    told = facts.get("made_with", {}).get("weights_from")
    weights = Path(told) if told else None
    run = _run_of(weights) if weights is not None else None
    if weights is None or run is None:
        return _unknown(weights, "the list of its run is not there") if weights and _of_a_run(weights) else ()
    if _changed(weights, facts.get("weights")):
        return _unknown(weights, "the weights there are others now")
    listed = _read_list(run / _SPLIT_LIST)
    start = str((root if root is not None else facts.get("root")) or "")
    videos = [
        _TestVideo(sample.path, _file(posixpath.join(start, sample.path)), source)
        for sample, source in zip(test, sources or [SourceFile()] * len(test), strict=True)
    ]
    found = dict(_same_content(videos, listed))
    found |= {video.name: video.file for video in videos if video.file in listed}
    notes = []
    for side, names in _by_side(found, listed).items():
        few = f"({run / _SPLIT_LIST}: {first_few(names)})"
        if side == "train":
            told = f"{len(names)} of {len(test)} test videos are in the training list of the network {few}"
            if refuse:
                raise Pseudo3dError(f"{told}: test on others, or take weights that have not seen them")
            notes.append(told)
        else:
            notes.append(f"{len(names)} of {len(test)} test videos chose the epoch of the network {few}")
    if named := _by_side(_same_names(videos, listed), listed).get("train", []):
        notes.append(
            f"{len(named)} of {len(test)} test videos have the names of videos that the network was trained on "
            f"({run / _SPLIT_LIST}: {first_few(named)}); files are not there, so their content was not compared"
        )
    return tuple(notes)


def check_class_order(network_classes: Sequence[str] | None, data_classes: Sequence[str]) -> tuple[str, ...]:
    """Refuse a network whose outputs mean other classes than the data's.

    Args:
        network_classes: in the order of its outputs; None or empty when the network does not say.
        data_classes: in index order.

    Returns:
        A footnote when the network does not name its classes, else none.

    Raises:
        Pseudo3dError: other names, or the same in another order; the first difference is named.

    Example:
        >>> check_class_order(["run", "walk"], ["run", "walk"])
        ()
    """
    if not network_classes:
        return ("the network does not name its classes: they were taken to be in the order of the data's",)
    known, asked = set(network_classes), set(data_classes)
    differing = [
        f"{len(names)} classes of the {whose} are not among the {others} ({first_few(names)})"
        for whose, others, names in (
            ("data", "network's", [name for name in data_classes if name not in known]),
            ("network", "data's", [name for name in network_classes if name not in asked]),
        )
        if names
    ]
    if differing:
        raise Pseudo3dError(f"{' and '.join(differing)}: the network is for other classes")
    if len(network_classes) != len(data_classes):
        raise Pseudo3dError(f"the network has {len(network_classes)} classes, the data {len(data_classes)}")
    for number, (network, data) in enumerate(zip(network_classes, data_classes, strict=True)):
        if network != data:
            raise Pseudo3dError(
                f"class {number} is {printable(network)!r} for the network and {printable(data)!r} in the data: the "
                "same names in another order; give the class names in the network's order"
            )
    return ()


def left_out_footnote(left_out: Sequence[str]) -> tuple[str, ...]:
    """What a table says of videos that were not scored.

    Args:
        left_out: "path: reason" of each.

    Example:
        >>> left_out_footnote(["a.mp4: no video stream"]), left_out_footnote([])
        (('1 video was left out (a.mp4: no video stream)',), ())
    """
    if not left_out:
        return ()
    what = "1 video was" if len(left_out) == 1 else f"{len(left_out)} videos were"
    return (f"{what} left out ({first_few(left_out)})",)


@dataclass(frozen=True)
class _TestVideo:
    """What it is called, its file, and what is known of the file."""

    name: str
    file: str
    source: SourceFile


def _contents(sample: Sample, source: SourceFile) -> tuple[str, ...]:
    """What a video shares with its copies (the hash) and with other segments of its file (the path)."""
    path = f"file {_file(sample.path)}"
    return (path,) if source.sha256 is None else (source.sha256, path)


def _file(path: str) -> str:
    """The file of a path, without the segment and ``a/../``."""
    return posixpath.normpath(split_segment(path)[0])


def _run_of(weights: Path) -> Path | None:
    """The run of weights: RUN itself, RUN/checkpoints/NAME, or the file in that."""
    above = [folder.parent for folder in weights.absolute().parents if folder.name == _CHECKPOINTS]
    places = [weights, *above[:1]]
    return next(
        (place for place in places if (place / _SPLIT_LIST).is_file() and (place / _CHECKPOINTS).is_dir()), None
    )


def _of_a_run(weights: Path) -> bool:
    """Whether weights look like a run's, though its list was not found: by where they lay, or by their model card."""
    folder = weights if weights.suffix != ".safetensors" else weights.parent
    if folder.parent.name == _CHECKPOINTS:
        return True
    card = folder / _CARD
    return card.is_file() and _OF_TRAINING in card.read_text(encoding="utf-8", errors="replace")


def _unknown(weights: Path, why: str) -> tuple[str, ...]:
    return (
        f"whether the network was trained on test videos could not be checked: its weights ({printable(weights)}) are "
        f"of a training run, and {why}",
    )


def _changed(weights: Path, digest: Any) -> bool:
    """Whether weights are no more those that the features were made with."""
    file = weights / _WEIGHTS if weights.is_dir() else weights
    return isinstance(digest, str) and file.is_file() and digest != f"sha256:{sha256_of(file)}"


def _read_list(path: Path) -> dict[str, str]:
    """The side of each file of a run's list."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Pseudo3dError(f"cannot read {path}, the training list of the network: {error}") from error
    samples = parse_csv(text, source=str(path))
    # of segments of one file on several sides, training counts
    sides: dict[str, str] = {}
    for sample in samples:
        if sample.split is not None and sides.get(_file(sample.path)) != "train":
            sides[_file(sample.path)] = sample.split
    return sides


def _by_side(found: Mapping[str, str], listed: Mapping[str, str]) -> dict[str, list[str]]:
    """Test videos by the side, train or val, that their file in the list was on."""
    sides = defaultdict(list)
    for name, file in found.items():
        if listed[file] in ("train", "val"):
            sides[listed[file]].append(name)
    return sides


def _same_content(videos: Iterable[_TestVideo], listed: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each test video with the content of a listed one that is not tested itself; equal sizes only are read."""
    by_size, digests = defaultdict(list), Digests()
    for video in videos:
        size = video.source.size if video.source.size is not None else _size(video.file)
        if size and video.file not in listed:
            by_size[size].append(video)
    for file, side in listed.items():
        same_size = by_size.get(_size(file) or 0, []) if side != "test" else []
        content = digests.of(file) if same_size else None
        for video in same_size:
            if (video.source.sha256 or digests.of(video.file)) == content:
                yield video.name, file


def _same_names(videos: Sequence[_TestVideo], listed: Mapping[str, str]) -> dict[str, str]:
    """Test videos with the names of listed ones in another folder, where a file is not there to be compared."""
    elsewhere = {_file(video.name): video for video in videos if video.file not in listed}
    fits, _ = match_paths(list(elsewhere), listed)
    return {
        elsewhere[path].name: file
        for path, file in fits.items()
        if _size(file) is None or (elsewhere[path].source.size is None and _size(elsewhere[path].file) is None)
    }


def _size(file: str) -> int | None:
    try:
        return os.stat(file).st_size  # noqa: PTH116  # thousands of files: no Path is made of each
    except OSError:
        return None
