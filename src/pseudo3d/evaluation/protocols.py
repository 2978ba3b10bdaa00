"""The paper's test: several clips of each video through the network, their scores averaged (section 4)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from pseudo3d.data.annotations import SampleList
from pseudo3d.data.dataset import label_indices
from pseudo3d.evaluation.metrics import hit_at_k
from pseudo3d.inference import ClipBatches, ClipRunner
from pseudo3d.video.clips import load_clips


@dataclass(frozen=True, eq=False)
class ClipScores:
    """Class probabilities of every clip of some videos.

    Args:
        prob: (videos, clips, classes).
        labels: (videos,), indices of the true classes.
    """

    prob: Float[np.ndarray, "videos clips classes"]
    labels: Int64[np.ndarray, "videos"]

    @property
    def video_prob(self) -> Float[np.ndarray, "videos classes"]:
        """A video's score: the mean of its clips' (paper section 4)."""
        return self.prob.mean(axis=1)

    def hits(self) -> dict[str, float]:
        """Clip hit@1, video hit@1 and, from six classes on, video hit@5; each 0..1 (Table 2)."""
        clips = self.prob.reshape(-1, self.prob.shape[2])
        hits = {
            "clip hit@1": hit_at_k(clips, np.repeat(self.labels, self.prob.shape[1])),
            "video hit@1": hit_at_k(self.video_prob, self.labels),
        }
        if self.prob.shape[2] > 5:
            hits["video hit@5"] = hit_at_k(self.video_prob, self.labels, k=5)
        return hits


def score_videos(
    runner: ClipRunner, samples: SampleList, *, clips: int = 20, on_video: Callable[[], None] | None = None
) -> ClipScores:
    """Classify every video by ``clips`` uniform clips, one centre crop each.

    Args:
        runner: of a network with a head for the classes of ``samples``.
        samples: labelled videos.
        clips: for each video.
        on_video: called after each video (a progress bar).

    Raises:
        VideoError: a video cannot be used; a test set with holes would give another number under the same name.
        ValueError: the network has another number of classes, or the same under other names or in another order.
    """
    labels = label_indices(samples)
    num_classes = runner.model.architecture.num_classes
    if num_classes != len(samples.class_names):
        raise ValueError(f"the network has {num_classes} classes, the data {len(samples.class_names)}")
    names = runner.model.class_names
    if names is not None and tuple(names) != samples.class_names:
        raise ValueError(f"the network's classes are {tuple(names)}, the data's {samples.class_names}, in index order")

    prob = np.zeros((len(samples), clips, len(samples.class_names)), np.float32)
    batches: ClipBatches[tuple[int, np.ndarray]] = ClipBatches(runner, ("prob",))

    def take(computed: list[tuple[tuple[int, np.ndarray], dict[str, np.ndarray]]]) -> None:
        for (i, rows), features in computed:
            prob[i, rows] = features["prob"]

    for i, sample in enumerate(samples.samples):
        loaded = load_clips(samples.root / sample.path, runner.preprocessing, clips=clips)
        for number, clip in enumerate(loaded.frames):
            take(batches.add((i, loaded.rows == number), clip))
        if on_video is not None:
            on_video()
    take(batches.flush())
    return ClipScores(prob, labels)
