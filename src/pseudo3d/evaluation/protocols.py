"""The paper's test: several clips of each video through the network, their scores averaged (section 4)."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int64

from pseudo3d.data.annotations import SampleList
from pseudo3d.data.dataset import label_sets
from pseudo3d.errors import Pseudo3dError, VideoError
from pseudo3d.evaluation.metrics import hits_of
from pseudo3d.features.decoders import Decoders, default_workers
from pseudo3d.features.encoding import decode_here, encode_clips
from pseudo3d.inference import ClipRunner
from pseudo3d.video.clips import ClipPlan

_TIMEOUT, _MEMORY = 60.0, 2.0  # seconds without a sign of life, GiB: limits of a decoder process, as in an extraction


@dataclass(frozen=True, eq=False)
class HitCounts:
    """What a test is counted in: whole numbers, so that processes that each score a part add up exactly.

    Args:
        videos: that were scored.
        clips: of them, all together.
        clip_hit1: clips whose likeliest class is one of their video's.
        video_hit1: videos whose likeliest class, by the mean over clips, is one of theirs.
        video_hit5: videos with a class of theirs among the five likeliest; None up to five classes.
        confusion: videos by true class (rows) and likeliest class (columns); None where a video has several classes.
        skipped: "path: reason" of each video that was left out, in order.

    Example:
        >>> one = HitCounts(1, 2, 1, 1, None, np.array([[1, 0], [0, 0]]))
        >>> other = HitCounts(1, 2, 0, 0, None, np.array([[0, 0], [1, 0]]), ("b.mp4: damaged",))
        >>> both = one + other
        >>> both.hits(), both.confusion.tolist(), both.skipped
        ({'clip hit@1': 0.25, 'video hit@1': 0.5}, [[1, 0], [1, 0]], ('b.mp4: damaged',))
    """

    videos: int
    clips: int
    clip_hit1: int
    video_hit1: int
    video_hit5: int | None
    confusion: Int64[np.ndarray, "classes classes"] | None
    skipped: tuple[str, ...] = ()

    def __add__(self, other: "HitCounts") -> "HitCounts":
        """The counts of two parts of one test set together.

        Raises:
            ValueError: they are of different numbers of classes.
        """
        confusion = hit5 = None
        if self.confusion is not None and other.confusion is not None:
            if self.confusion.shape != other.confusion.shape:
                classes = f"{len(self.confusion)} and of {len(other.confusion)}"
                raise ValueError(f"counts of {classes} classes cannot be added")
            confusion = self.confusion + other.confusion
        if self.video_hit5 is not None and other.video_hit5 is not None:
            hit5 = self.video_hit5 + other.video_hit5
        return HitCounts(
            self.videos + other.videos,
            self.clips + other.clips,
            self.clip_hit1 + other.clip_hit1,
            self.video_hit1 + other.video_hit1,
            hit5,
            confusion,
            tuple(sorted(self.skipped + other.skipped)),
        )

    def hits(self) -> dict[str, float]:
        """Clip hit@1, video hit@1 and, from six classes on, video hit@5; each 0..1 (Table 2).

        Raises:
            Pseudo3dError: no video was scored.
        """
        if self.videos == 0:
            why = (
                f"all {len(self.skipped)} were left out, the first: {self.skipped[0]}"
                if self.skipped
                else "the list is empty"
            )
            raise Pseudo3dError(f"no video was scored ({why}); a score needs at least one that can be decoded")
        hits = {"clip hit@1": self.clip_hit1 / self.clips, "video hit@1": self.video_hit1 / self.videos}
        if self.video_hit5 is not None:
            hits["video hit@5"] = self.video_hit5 / self.videos
        return hits


@dataclass(frozen=True, eq=False)
class ClipScores:
    """Class probabilities of every clip of some videos.

    Args:
        prob: (videos, clips, classes).
        truth: (videos, classes), which classes are a video's; at least one is.
        videos: (videos,), their places in the list of samples.
        skipped: "path: reason" of each video that was left out, in order.
    """

    prob: Float[np.ndarray, "videos clips classes"]
    truth: Bool[np.ndarray, "videos classes"]
    videos: Int64[np.ndarray, "videos"]
    skipped: tuple[str, ...] = ()

    @property
    def video_prob(self) -> Float[np.ndarray, "videos classes"]:
        """A video's score: the mean of its clips' (paper section 4)."""
        return self.prob.mean(axis=1)

    def counts(self) -> HitCounts:
        """Hits and the confusion matrix as whole numbers.

        Raises:
            ValueError: probabilities that are not finite, or a video without a true class.
        """
        videos, clips, classes = self.prob.shape
        flat = self.prob.reshape(-1, classes)
        score = self.video_prob
        confusion = None
        if (self.truth.sum(axis=1) <= 1).all():
            cells = self.truth.argmax(axis=1) * classes + score.argmax(axis=1)
            confusion = np.bincount(cells, minlength=classes**2).reshape(classes, classes).astype(np.int64)
        return HitCounts(
            videos,
            videos * clips,
            int(hits_of(flat, np.repeat(self.truth, clips, axis=0)).sum()),
            int(hits_of(score, self.truth).sum()),
            int(hits_of(score, self.truth, k=5).sum()) if classes > 5 else None,
            confusion,
            self.skipped,
        )

    def hits(self) -> dict[str, float]:
        """Clip hit@1, video hit@1 and, from six classes on, video hit@5; each 0..1 (Table 2).

        Raises:
            Pseudo3dError: there is no video.
        """
        return self.counts().hits()


def score_videos(
    runner: ClipRunner,
    samples: SampleList,
    *,
    clips: int = 20,
    on_video: Callable[[], None] | None = None,
    skip_bad: bool = False,
    workers: int | None = 0,
    part: tuple[int, int] = (0, 1),
) -> ClipScores:
    """Classify every video by ``clips`` uniform clips, one centre crop each.

    Args:
        runner: of a network with a head for the classes of ``samples``.
        samples: labelled videos; one may have several labels.
        clips: for each video.
        on_video: called after each video (a progress bar).
        skip_bad: leave out videos that cannot be used, and name them, instead of the error.
        workers: processes that decode, each watched for hanging; 0: this process does it; None: as many as suit the
            machine. The scores have the same bits.
        part: (r, n): only the videos at r, r + n, r + 2n, ... of the list, so that n processes score each video once.

    Returns:
        Scores in the order of the list; without any video when the part is empty.

    Raises:
        VideoError: a video cannot be used; a test set with holes would give another number under the same name.
        Pseudo3dError: the network gives NaN or infinite scores.
        ValueError: the network has another number of classes, or the same under other names or in another order; a
            video without a label; a part that does not exist.
    """
    truth = _true_classes(runner, samples)
    skipped: list[str] = []
    found = dict(_scores(runner, samples, clips, on_video, skip_bad, workers, part, skipped))
    videos = np.array(sorted(found), np.int64)
    prob = np.zeros((len(videos), clips, truth.shape[1]), np.float32)
    for row, place in enumerate(videos):
        prob[row] = found.pop(int(place))
    return ClipScores(prob, truth[videos], videos, tuple(sorted(skipped)))


def count_hits(
    runner: ClipRunner,
    samples: SampleList,
    *,
    clips: int = 20,
    on_video: Callable[[], None] | None = None,
    skip_bad: bool = False,
    workers: int | None = 0,
    part: tuple[int, int] = (0, 1),
) -> HitCounts:
    """``score_videos(...).counts()`` in the memory of a few videos; arguments and errors are the same."""
    truth = _true_classes(runner, samples)
    skipped: list[str] = []
    total = ClipScores(np.zeros((0, clips, truth.shape[1]), np.float32), truth[:0], np.zeros(0, np.int64)).counts()
    for place, prob in _scores(runner, samples, clips, on_video, skip_bad, workers, part, skipped):
        total += ClipScores(prob[None], truth[place : place + 1], np.array([place], np.int64)).counts()
    return replace(total, skipped=tuple(sorted(skipped)))


def _true_classes(runner: ClipRunner, samples: SampleList) -> Bool[np.ndarray, "videos classes"]:
    """Which classes are each video's, once the network is known to mean the same by them."""
    truth = label_sets(samples)
    num_classes = runner.model.architecture.num_classes
    if num_classes != len(samples.class_names):
        raise ValueError(f"the network has {num_classes} classes, the data {len(samples.class_names)}")
    names = runner.model.class_names
    if names is not None and tuple(names) != samples.class_names:
        raise ValueError(f"the network's classes are {tuple(names)}, the data's {samples.class_names}, in index order")
    return truth


def _scores(
    runner: ClipRunner,
    samples: SampleList,
    clips: int,
    on_video: Callable[[], None] | None,
    skip_bad: bool,
    workers: int | None,
    part: tuple[int, int],
    skipped: list[str],
) -> Iterator[tuple[int, Float[np.ndarray, "clips classes"]]]:
    """Each video's place and probabilities as they are computed; what is left out goes to ``skipped``."""
    number, parts = part
    if not 0 <= number < parts:
        raise ValueError(f"part must be (r, n) with r from 0 to n - 1, got {part}")
    places = range(number, len(samples), parts)
    paths = ((place, samples.root / samples.samples[place].path) for place in places)
    plan = ClipPlan(runner.preprocessing, clips)
    workers = default_workers(runner.device.type == "cuda") if workers is None else workers
    with contextlib.ExitStack() as stack:
        decode = partial(decode_here, plan=plan)
        if min(workers, len(places)) > 0:
            pool = stack.enter_context(Decoders(min(workers, len(places)), _TIMEOUT, _MEMORY).start())
            decode = partial(pool.stream, plan=plan)
        encoded = stack.enter_context(contextlib.closing(encode_clips(runner, ("prob",), paths, decode, per_clip=True)))
        for place, video in encoded:
            if video.error is not None:
                if not skip_bad:
                    raise VideoError(video.error)
                skipped.append(video.error)
            elif not np.isfinite(video.clips["prob"]).all():
                raise Pseudo3dError(f"{video.path}: the network's scores are not finite; lower its learning rate")
            else:
                yield place, video.clips["prob"]
            if on_video is not None:
                on_video()
