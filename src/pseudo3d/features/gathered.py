"""The activations of a video's clips, and what they become."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from pseudo3d.video.clips import ClipFacts

Layers = dict[str, Float32[np.ndarray, "..."]]


@dataclass(frozen=True, eq=False)
class EncodedVideo:
    """What became of one video: its features, or why it has none.

    Args:
        path: as it was given.
        layers: float32 activations averaged over the clips, by layer: (D,), or (C, T, H, W) for res2 to res5. Empty
            when it failed.
        error: one line, None when all went well.
        facts: of the video and its clips; None when it failed.
        clips: the activations of each sampled clip, (clips, ...), where they were asked for.
    """

    path: Path
    layers: Layers = field(default_factory=dict)
    error: str | None = None
    facts: ClipFacts | None = None
    clips: Layers = field(default_factory=dict)


class Gathered:
    """The activations of one video, clip by clip as they are computed.

    Args:
        path: of the video.
        keep: whether every clip's activations are needed in the end. Without, and when no clip is sampled twice, they
            are added up as they come: a long video has thousands of clips.
    """

    def __init__(self, path: Path, keep: bool) -> None:
        self.path, self._keep = path, keep
        self.reading = 0  # a file that starts over is read a second time: what is left of the first does not count
        self.waiting = 0  # clips handed to the network, not yet computed
        self.facts: ClipFacts | None = None
        self._rows: list[Layers] = []
        self._sums: dict[str, np.ndarray] = {}

    def begin_clip(self, number: int) -> None:
        """A clip is on its way to the network; number 0 begins a new reading."""
        if number == 0:
            self.reading, self.waiting = self.reading + 1, 0
            self._rows, self._sums = [], {}
        self.waiting += 1

    def add(self, features: Layers) -> None:
        """The activations of the next clip."""
        self.waiting -= 1
        if self._keep:
            self._rows.append({name: values.copy() for name, values in features.items()})
            return
        for name, values in features.items():
            self._sums[name] = self._sums[name] + values if name in self._sums else values.astype(np.float64)

    def result(self, per_clip: bool) -> EncodedVideo:
        """What became of the video, when all its clips are there."""
        assert self.facts is not None
        if not self._keep:
            count = len(self.facts.starts)
            means = {name: (total / count).astype(np.float32) for name, total in self._sums.items()}
            return EncodedVideo(self.path, means, facts=self.facts)
        rows = list(self.facts.rows)
        clips = {name: np.stack([self._rows[row][name] for row in rows]) for name in self._rows[0]}
        means = {name: values.mean(axis=0, dtype=np.float64).astype(np.float32) for name, values in clips.items()}
        return EncodedVideo(self.path, means, facts=self.facts, clips=clips if per_clip else {})
