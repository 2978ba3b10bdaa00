"""Training and test videos that share nothing: by the list's own splits, or drawn by group and class."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.errors import Pseudo3dError, first_few
from pseudo3d.video.segments import split_segment

_DRAWS = 100  # shuffles tried before giving up; the first one does unless nearly every group is needed on one side


def train_test_split(
    samples: SampleList, *, test_fraction: float = 0.25, seed: int = 0
) -> tuple[SampleList, SampleList]:
    """Two sides, train and test, that share no video and no group.

    When the samples have splits these decide, and "val" is the test side if there is no "test". Otherwise whole
    groups are drawn (a video without a group is one of its own), each class as near to ``test_fraction`` as they
    allow and on both sides in any case. In the draw a video with several labels counts as one of its first.

    Args:
        samples: every one with a label; either all of them with a split or none.
        test_fraction: the part of each class's videos to test on, between 0 and 1; unused when there are splits.
        seed: of the draw; the same seed and samples give the same sides. Unused when there are splits.

    Returns:
        Train and test, each in the order of ``samples`` and with its class names.

    Raises:
        Pseudo3dError: a label is missing, there is one class only, a class cannot be on both sides, the list's own
            splits are incomplete, or one of their groups is on both sides.

    Example:
        >>> from pathlib import Path
        >>> videos = [Sample(f"{label}/{i}.mp4", label) for label in ("left", "right") for i in range(4)]
        >>> train, test = train_test_split(SampleList(Path("videos"), tuple(videos)))
        >>> len(train), [sample.label for sample in test.samples]
        (6, ['left', 'right'])
    """
    if not 0 < test_fraction < 1:
        raise Pseudo3dError(f"test_fraction must be between 0 and 1, got {test_fraction}")
    _check_labels(samples.samples)
    if any(sample.split for sample in samples.samples):
        return _listed_sides(samples)
    by_class = defaultdict(list)
    for sample in samples.samples:
        by_class[sample.label].append(sample)
    for label, members in by_class.items():
        _check_divisible(str(label), members)
    chosen = _draw(samples.samples, test_fraction, seed)
    train = tuple(sample for sample in samples.samples if _group(sample) not in chosen)
    test = tuple(sample for sample in samples.samples if _group(sample) in chosen)
    return replace(samples, samples=train), replace(samples, samples=test)


def check_no_leak(
    train: Iterable[Sample], test: Iterable[Sample], *, names: tuple[str, str] = ("train", "test")
) -> None:
    """Refuse two sides that share a video or a group.

    Args:
        train: one side.
        test: the other.
        names: what a message calls them.

    Raises:
        Pseudo3dError: a path or a group is on both sides; it names the first few.

    Example:
        >>> check_no_leak([Sample("a1.mp4", "left", group="a")], [Sample("b1.mp4", "left", group="b")])
    """
    train, test = list(train), list(test)
    paths = {sample.path for sample in train} & {sample.path for sample in test}
    groups = {sample.group for sample in train} & {sample.group for sample in test}
    for what, shared in (("videos", paths), ("groups", groups - {None})):
        if shared:
            few = first_few(sorted(map(str, shared)))
            raise Pseudo3dError(
                f"{len(shared)} {what} are both in {names[0]} and in {names[1]} ({few}): keep them on one side"
            )


def _group(sample: Sample) -> tuple[str, str]:
    return ("path", split_segment(sample.path)[0]) if sample.group is None else ("group", sample.group)


def _check_labels(samples: Sequence[Sample]) -> None:
    unlabelled = [sample.path for sample in samples if sample.label is None]
    if unlabelled:
        raise Pseudo3dError(
            f"{len(unlabelled)} videos have no class ({first_few(unlabelled)}): put each into a folder named after its "
            "class, or list 'path label' in a .txt file"
        )
    labels = {label for sample in samples for label in sample.labels}
    if len(labels) < 2:
        raise Pseudo3dError(f"there is one class only ({''.join(labels) or 'none'}): at least 2 are needed")
    # One stray file makes split/class/file into class/sub/file; nobody has classes called train and test.
    if len({label.lower() for label in labels} & {"train", "val", "valid", "validation", "test"}) >= 2:
        raise Pseudo3dError(
            f"the classes would be {first_few(sorted(labels), 5)}: for splits, every file must lie in "
            "split/class/file, with split one of train, val, test"
        )


def _listed_sides(samples: SampleList) -> tuple[SampleList, SampleList]:
    without = [sample.path for sample in samples.samples if sample.split is None]
    if without:
        raise Pseudo3dError(f"{len(without)} videos have no split ({first_few(without)}) though others have one")
    train = samples.split("train")
    test = samples.split("test") if samples.split("test").samples else samples.split("val")
    for name, side in (("train", train), ("test or val", test)):
        if not side.samples:
            raise Pseudo3dError(
                f"no video is in the split {name}: add some, or leave all splits out to have them drawn"
            )
    unseen = {label for sample in test.samples for label in sample.labels}
    unseen -= {label for sample in train.samples for label in sample.labels}
    if unseen:
        raise Pseudo3dError(f"classes to test on have no video in train ({first_few(sorted(unseen))}): add some")
    check_no_leak(train.samples, test.samples)
    return train, test


def _check_divisible(label: str, members: Sequence[Sample]) -> None:
    if len(members) == 1:
        raise Pseudo3dError(
            f"class {label} has one video ({members[0].path}): at least 2 are needed, one on each side; add videos or "
            "remove the class"
        )
    groups = {_group(sample) for sample in members}
    if len(groups) == 1:
        kind, name = groups.pop()
        what = f"in the group {name}" if kind == "group" else f"parts of {name}"
        raise Pseudo3dError(
            f"all {len(members)} videos of class {label} are {what}: at least 2 groups are needed, one on each side; "
            "add videos from elsewhere or remove the class"
        )


def _draw(samples: Sequence[Sample], test_fraction: float, seed: int) -> set[tuple[str, str]]:
    """The groups of the test side: in a random order, each changes sides if that lowers the cost, until none does."""
    totals = Counter(sample.label for sample in samples)
    members: dict[tuple[str, str], Counter[str | None]] = defaultdict(Counter)
    for sample in samples:
        members[_group(sample)][sample.label] += 1

    def cost(label: str | None, count: int) -> float:
        total = totals[label]
        target = min(max(test_fraction * total, 1), total - 1)
        return ((count - target) / total) ** 2 + (count in (0, total))  # a class missing on a side costs most

    rng = random.Random(seed)
    for _ in range(_DRAWS):
        groups = sorted(members)
        rng.shuffle(groups)
        chosen: set[tuple[str, str]] = set()
        counts = Counter[str | None]()
        moved = True
        while moved:
            moved = False
            for group in groups:
                sign = -1 if group in chosen else 1
                gain = sum(cost(k, counts[k] + sign * n) - cost(k, counts[k]) for k, n in members[group].items())
                if gain < -1e-9:  # not 0: rounding must not move a group to and fro for ever
                    chosen ^= {group}
                    counts.update({label: sign * n for label, n in members[group].items()})
                    moved = True
        if all(0 < counts[label] < total for label, total in totals.items()):
            return chosen
    raise Pseudo3dError(
        "no split by group has every class on both sides: add videos from other groups, or list splits in a .csv file"
    )
