"""The videos of a run by what they are for: to train, to choose the best epoch, to test."""

import csv
import io
import itertools
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pseudo3d import files
from pseudo3d.cpus import available_cpus
from pseudo3d.data.annotations import SampleList, label_text
from pseudo3d.data.dataset import check_bad
from pseudo3d.data.splits import check_no_leak, train_test_split
from pseudo3d.errors import Pseudo3dError, VideoError, first_few
from pseudo3d.training.config import TrainConfig
from pseudo3d.training.distributed import SINGLE, Group
from pseudo3d.training.progress import UNSEEN, Looking
from pseudo3d.video.index import IndexCache
from pseudo3d.video.segments import file_of

logger = logging.getLogger("pseudo3d")

_AT_ONCE = 256  # videos between two looks at the clock
_MEET_EVERY = 60.0  # seconds of looking into videos


@dataclass(frozen=True)
class Sides:
    """The videos by what they are for; no two share a video or a group.

    Args:
        train: to learn from.
        val: to choose the best epoch by; None for none.
        test: to test on.
        left_out: why videos that were listed for "val" and "test" are not among these (``check_videos``).
    """

    train: SampleList
    val: SampleList | None
    test: SampleList
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def named(self) -> list[tuple[str, SampleList]]:
        """Those that there are, train first, with their names."""
        sides = (("train", self.train), ("val", self.val), ("test", self.test))
        return [(name, side) for name, side in sides if side is not None]


def split_samples(samples: SampleList, config: TrainConfig) -> Sides:
    """Train, validation and test videos: the data's own splits where they have them, else drawn by group.

    A list with "train" and "val" only is tested on "val". Unless there are both "val" and "test",
    ``config.val_fraction`` of the training videos chooses the best epoch; where a class has too few videos for that,
    there is no validation and the last epoch is the result.

    Raises:
        Pseudo3dError: the videos cannot be divided (``train_test_split`` says why).
    """
    val = samples.split("val")
    if len(val) and len(samples.split("test")):
        train, test = train_test_split(
            replace(samples, samples=tuple(sample for sample in samples.samples if sample.split != "val"))
        )
        check_no_leak(train.samples, val.samples, names=("train", "val"))
        check_no_leak(val.samples, test.samples, names=("val", "test"))
        return Sides(train, val, test)
    train, test = train_test_split(samples, test_fraction=config.test_fraction, seed=config.seed)
    if config.val_fraction <= 0:
        return Sides(train, None, test)
    free = replace(train, samples=tuple(replace(sample, split=None) for sample in train.samples))
    try:
        train, val = train_test_split(free, test_fraction=config.val_fraction, seed=config.seed)
    except Pseudo3dError as error:
        logger.warning("no validation, the last epoch will be the result: %s", error)
        return Sides(train, None, test)
    return Sides(train, val, test)


def check_sides(sides: Sides) -> None:
    """Refuse sides that cannot teach anything, and sides whose result would be too good.

    Files are the same whatever their names when their content is; only those of equal size are read for that. Files
    that cannot be read are left to ``check_videos``.

    Raises:
        Pseudo3dError: a side without a video, one class only, a class without a training video, or a video or a group
            on two sides.
    """
    for name, side in sides.named():
        if not side.samples:
            raise Pseudo3dError(
                f"no video is in the split {name}: add some, or leave all splits out to have them drawn"
            )
    _check_classes(sides)
    for (name, side), (other_name, other) in itertools.combinations(sides.named(), 2):
        check_no_leak(side.samples, other.samples, names=(name, other_name))
    twins = _same_files([(name, side.root / sample.path) for name, side in sides.named() for sample in side.samples])
    if twins:
        (name, path), (other_name, other_path) = twins[0]
        more = f" (and {len(twins) - 1} more such pairs)" if len(twins) > 1 else ""
        raise Pseudo3dError(
            f"{path} in {name} and {other_path} in {other_name} are the same video{more}: keep it on one side, or give "
            "such videos one group"
        )


def _check_classes(sides: Sides) -> None:
    classes = {label: None for _, side in sides.named() for sample in side.samples for label in sample.labels}
    if len(classes) == 1:
        raise Pseudo3dError(f"all videos are of class {next(iter(classes))!r}: training needs at least 2 classes")
    trained = {label for sample in sides.train.samples for label in sample.labels}
    without = [name for name in dict.fromkeys((*sides.train.class_names, *classes)) if name not in trained]
    if without:
        where = [name for name, side in sides.named() if any(set(s.labels) & set(without) for s in side.samples)]
        seen = f", though {' and '.join(where)} have some" if where else ""
        raise Pseudo3dError(
            f"{len(without)} classes have no training video ({first_few(map(repr, without))}){seen}: add videos to "
            "train or take the classes out"
        )


Place = tuple[str, Path]  # the side, and the file


def _same_files(places: Sequence[Place]) -> list[tuple[Place, Place]]:
    """Pairs of the same file or content on two sides; for each file only the first one."""
    by_size = defaultdict(list)
    for place in places:
        with suppress(OSError):  # whoever opens it says what is wrong with it
            by_size[file_of(place[1]).stat().st_size].append(place)
    suspects = [
        place for size, group in by_size.items() if size > 0 and len({side for side, _ in group}) > 1 for place in group
    ]
    unique = list(dict.fromkeys(file_of(path) for _, path in suspects))  # of segments of a file it is read once
    with ThreadPoolExecutor(available_cpus()) as pool:
        contents = dict(zip(unique, pool.map(_content, unique), strict=True))
    first: dict[str, Place] = {}
    twins = []
    for place in suspects:
        content = contents[file_of(place[1])]
        if content is not None and first.setdefault(content, place)[0] != place[0]:
            twins.append((first[content], place))
    return twins


def _content(file: Path) -> str | None:
    try:
        return files.sha256_of(file)
    except OSError:  # as above
        return None


def check_videos(
    sides: Sides,
    cache: IndexCache,
    *,
    skip_bad: bool,
    max_bad: float,
    group: Group = SINGLE,
    looking: Looking = UNSEEN,
) -> tuple[Sides, dict[int, str]]:
    """Look into every file, so that a bad one shows now and not after hours of training.

    What stands in the cache already is not looked at again. The processes of a group share the files out. Bad training
    videos stay in the list, since another video is drawn in the place of one that fails; they are logged by name.

    Args:
        sides: the videos.
        cache: of what is known of the files; its folder has all of them afterwards.
        skip_bad: leave bad validation and test videos out, logged by name, instead of ending.
        max_bad: the share of the training videos that may be bad, 0..1.
        group: the processes that share the run; all of them call this.
        looking: shows how far this process is with its share of the files.

    Returns:
        The same on every process. The sides, validation and test without the bad ones, which ``left_out`` names; and
        the reasons of bad training videos by their places in ``sides.train``.

    Raises:
        VideoError: bad validation or test videos without ``skip_bad``: the first one's reason, and the names of the
            others.
        Pseudo3dError: too many bad training videos, or no good one is left to validate or to test on.
    """
    found = _unusable([path for _, side in sides.named() for path in _paths(side)], cache, group, looking)
    held_out = [path for _, side in sides.named()[1:] for path in _paths(side) if path in found]
    if held_out and not skip_bad:
        first, *others = held_out
        more = f" (and {len(others)} more: {first_few(path.name for path in others)})" if others else ""
        raise VideoError(
            f"{found[first]}{more}; the result would be of other videos than the list says: mend it, take it out, or "
            "use --skip-bad"
        )
    bad = {i: found[path] for i, path in enumerate(_paths(sides.train)) if path in found}
    check_bad(bad, sides.train, max_bad)
    say = logger.warning if group.is_main else logger.debug  # once is enough
    for reason in bad.values():
        say("training will use other videos in the place of a bad one: %s", reason)
    val = None if sides.val is None else _without(sides.val, found, "val", say)
    kept = Sides(sides.train, val, _without(sides.test, found, "test", say))
    left_out = {name: tuple(found[path] for path in _paths(side) if path in found) for name, side in sides.named()[1:]}
    return replace(kept, left_out={name: reasons for name, reasons in left_out.items() if reasons}), bad


def _unusable(paths: Sequence[Path], cache: IndexCache, group: Group, looking: Looking) -> dict[Path, str]:
    """Why some of these cannot be used as videos, in their order: what any process of the group found.

    First all processes share the files out; then those of each machine do, which costs nothing where the machines
    share the cache's folder.
    """
    place = {file: number for number, file in enumerate(dict.fromkeys(map(file_of, paths)))}
    found: dict[Path, str] = {}
    for number, count in dict.fromkeys(((group.rank, group.size), group.on_machine)):
        share = [path for path in paths if place[file_of(path)] % count == number]
        with looking(len(share)) as looked:
            for reasons in _meeting(share, partial(cache.build, on_video=looked, sharing=group.on_machine[1]), group):
                found |= reasons
    return {path: found[path] for path in paths if path in found}


def _meeting(
    paths: Sequence[Path], build: Callable[[Sequence[Path]], dict[Path, str]], group: Group
) -> Iterator[dict[Path, str]]:
    """What every process finds in its paths.

    They meet now and then: one that is done waits for the others for hours, but never long without a sign of life
    (``distributed.LIMIT``).
    """
    done = 0
    while True:
        until, here = time.monotonic() + _MEET_EVERY, dict[Path, str]()
        while done < len(paths):
            here |= build(paths[done : done + _AT_ONCE])
            done += _AT_ONCE
            if time.monotonic() >= until:
                break
        told = group.gather((here, done >= len(paths)))
        yield from (reasons for reasons, _ in told)
        if all(ended for _, ended in told):
            return


def _paths(side: SampleList) -> list[Path]:
    return [side.root / sample.path for sample in side.samples]


def _without(side: SampleList, bad: Mapping[Path, str], name: str, say: Callable[[str, str, str], None]) -> SampleList:
    """The side without its bad videos, each said."""
    good = []
    for sample, path in zip(side.samples, _paths(side), strict=True):
        if path in bad:
            say("left out of %s: %s", name, bad[path])
        else:
            good.append(sample)
    if not good:
        raise Pseudo3dError(
            f"none of the {len(side)} videos of {name} can be used (the reasons are above): mend them or take others"
        )
    return replace(side, samples=tuple(good))


def sides_to_csv(sides: Sides) -> str:
    """Which video was on which side: a table that ``read_samples`` reads.

    Features extracted from this table are evaluated on the videos that the network was not trained on.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("path", "label", "split", "group"))
    for name, side in sides.named():
        for sample in side.samples:
            table.writerow(((side.root / sample.path).as_posix(), label_text(sample), name, sample.group or ""))
    return text.getvalue()
