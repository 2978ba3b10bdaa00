"""The videos of a run by what they are for: to train, to choose the best epoch, to test."""

import csv
import io
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from pseudo3d.data.annotations import SampleList
from pseudo3d.data.splits import check_no_leak, train_test_split
from pseudo3d.errors import Pseudo3dError, VideoError, first_few
from pseudo3d.training.config import TrainConfig
from pseudo3d.video.decode import read_video

logger = logging.getLogger("pseudo3d")


@dataclass(frozen=True)
class Sides:
    """The videos by what they are for; no two share a video or a group."""

    train: SampleList
    val: SampleList | None
    test: SampleList


def split_samples(samples: SampleList, config: TrainConfig) -> Sides:
    """Train, validation and test videos: the data's own splits where they have them, else drawn by group.

    Without a "val" split, ``config.val_fraction`` of the training videos chooses the best epoch; where a class has
    too few videos for that, there is no validation and the last epoch is the result.

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


def check_videos(sides: Sides) -> None:
    """Decode the first frame of every video, so that a bad one shows now and not after hours of training.

    Raises:
        VideoError: the first one's reason, and the names of the others.
    """
    paths = [side.root / s.path for side in (sides.train, sides.val, sides.test) if side for s in side.samples]

    def problem(path: Path) -> str | None:
        try:
            read_video(path, indices=[0], threads=1)
        except VideoError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = {path: text for path, text in zip(paths, pool.map(problem, paths), strict=True) if text}
    if found:
        (_, text), *others = found.items()
        more = f" (and {len(others)} more: {first_few(path.name for path, _ in others)})" if others else ""
        raise VideoError(f"{text}{more}; training needs every video, so mend it or take it out")


def sides_to_csv(sides: Sides) -> str:
    """Which video was on which side: a table that ``read_samples`` reads.

    Features extracted from this table are evaluated on the videos that the network was not trained on.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("path", "label", "split", "group"))
    for name, side in (("train", sides.train), ("val", sides.val), ("test", sides.test)):
        if side is not None:
            for sample in side.samples:
                table.writerow(((side.root / sample.path).as_posix(), sample.label, name, sample.group or ""))
    return text.getvalue()
