"""The labels, splits and groups that a store carries itself, and what is to be said of videos that it has twice."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pseudo3d.data.annotations import Sample, SampleList, assign_groups, read_groups
from pseudo3d.evaluation.honesty import check_content, check_copies
from pseudo3d.features.store import FeatureStore, SourceFile
from pseudo3d.video.segments import split_segment


def own_samples(store: FeatureStore, groups: Path | None = None) -> SampleList:
    """The store's videos in its order, as a list whose paths start from the folder that the store was made of.

    Args:
        store: with or without labels; "a|b" are two labels of one video.
        groups: file of `path group` lines, which count before the store's own.

    Raises:
        Pseudo3dError: the file is malformed, or names none of the videos.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from pseudo3d.features.store import StoreWriter, VideoFeatures
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with StoreWriter(folder, {}) as writer:
        ...         writer.add(VideoFeatures("v.mp4", {"pool5": np.ones(2, np.float32)}, (0,), 16, label="a|b"))
        ...     own_samples(FeatureStore(folder)).samples[0].labels
        ('a', 'b')
    """
    listed = []
    for video, label, split, group in zip(store.videos, store.labels, store.splits, store.groups, strict=True):
        first, *more = (None,) if label is None else label.split("|")
        listed.append(Sample(video, first, split, group, tuple(str(each) for each in more)))
    if groups is not None:
        listed = assign_groups(listed, read_groups(groups))
    return SampleList(Path(store.info.get("root") or "."), tuple(listed))


def grouped_by_file(samples: Sequence[Sample]) -> list[Sample]:
    """Segments of one file that have no group get the file as theirs, to stay on one side of a cross-validation.

    Example:
        >>> cut = [Sample("a.mp4#t=0,5"), Sample("a.mp4#t=5,9"), Sample("b.mp4")]
        >>> [sample.group for sample in grouped_by_file(cut)]
        ['a.mp4', 'a.mp4', None]
    """
    parts = [split_segment(sample.path) for sample in samples]
    divided = {file for file, segment in parts if segment is not None}
    return [
        replace(sample, group=file) if not sample.group and file in divided else sample
        for sample, (file, _) in zip(samples, parts, strict=True)
    ]


def copies_footnotes(samples: Sequence[Sample], sources: Sequence[SourceFile]) -> tuple[str, ...]:
    """What is said of videos with the content of others that they are tested against.

    Args:
        samples: with splits, of which one is tested; or without any, for cross-validation.
        sources: of each.
    """
    if any(sample.split for sample in samples):
        return check_content(samples, sources, refuse=False)
    return check_copies(samples, sources)
