"""A store's videos as commands show them: their files, the moments in them, their tiles on contact sheets."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pseudo3d.video.segments import split_segment

if TYPE_CHECKING:
    import numpy as np

    from pseudo3d.features.store import FeatureStore
    from pseudo3d.visualize.contact_sheet import Section, Tile

LATEST_FRAME = 500
"""The frame that stands for a whole video is its middle one, or this one: all frames before it must be decoded."""
_CLIP_LENGTH = 16  # where the store does not say


class Moment(NamedTuple):
    """A part of a video.

    Args:
        start: seconds, or None where the frame rate is not known.
        end: seconds, or None.
        frame: number of the frame that shows it.
    """

    start: float | None
    end: float | None
    frame: int

    def __str__(self) -> str:
        if self.end is None:
            return "-" if self.start is None else f"{self.start:.1f} s"
        return f"{self.start or 0:.1f}-{self.end:.1f} s"


@dataclass(frozen=True, eq=False)
class StoredVideos:
    """An opened store that has videos, and where their files are.

    Args:
        store: the features.
        layer: which of them.
        root: the folder that the paths start from; None when nobody says.
    """

    store: "FeatureStore"
    layer: str
    root: Path | None

    @classmethod
    def open(cls, location: str, layer: str, root: Path | None = None) -> "StoredVideos":
        """A store to look at.

        Raises:
            Pseudo3dError: no store, an empty one, no such layer, or ``root`` is no folder.
        """
        from pseudo3d.errors import Pseudo3dError
        from pseudo3d.features.store import FeatureStore

        store = FeatureStore(location)
        if len(store) == 0:
            raise Pseudo3dError(
                f"{location}: holds no features ({len(store.failures)} videos failed); extract some first"
            )
        store.check_layer(layer)
        if root is not None and not root.is_dir():
            raise Pseudo3dError(f"--root {root}: no such folder; give the one that the store's paths start from")
        told = store.info.get("root")
        return cls(store, layer, root if root is not None or told is None else Path(told))

    def file(self, video: str) -> Path:
        """Where a video should be."""
        return Path(video) if self.root is None else self.root / video

    def whole(self, row: int) -> Moment:
        """A video, or the part of one that a row is of, from its start to its end."""
        segment = split_segment(self.store.videos[row])[1]
        if segment is not None:
            starts = sorted(self.store.timeline(self.store.videos[row]).starts)
            end = None if math.isinf(segment[1]) else segment[1]
            return Moment(segment[0], end, int(starts[len(starts) // 2]))
        frames, fps, duration = (self.store.table[name][row].as_py() for name in ("num_frames", "fps", "duration"))
        if duration is None and fps:
            duration = frames / fps
        return Moment(0.0, duration, min(frames // 2, LATEST_FRAME))

    def best_clip(self, row: int, query: "np.ndarray") -> Moment:
        """The clip of a video that is most like a query (float64, of length 1); all of it without clips' features."""
        import numpy as np

        from pseudo3d.features.search import cosines

        if self.layer not in self.store.clip_layers:
            return self.whole(row)
        video = self.store.videos[row]
        clips, timeline = self.store.clip_features(video, self.layer), self.store.timeline(video)
        with np.errstate(invalid="ignore"):  # a clip whose features are all zero is like nothing
            best = int(np.nan_to_num(cosines(clips, np.arange(len(clips)), query), nan=-1).argmax())
        frames, fps = (self.store.table[name][row].as_py() for name in ("num_frames", "fps"))
        length = self.store.info.get("preprocessing", {}).get("num_frames", _CLIP_LENGTH)
        first = int(timeline.starts[best])
        start = float(timeline.times[best]) if len(timeline.times) else first / fps if fps else None
        end = start + min(length, frames - first) / fps if start is not None and fps else None
        return Moment(start, end, min(first + length // 2, frames - 1))

    def tile(self, row: int, moment: Moment | None = None, *, score: float | None = None, note: str = "") -> "Tile":
        """A video on a sheet: a moment of it, or all of it."""
        from pseudo3d.visualize.contact_sheet import Tile

        video, shown = self.store.videos[row], moment or self.whole(row)
        fps = self.store.table["fps"][row].as_py()
        time = shown.start if moment is not None else shown.frame / fps if fps else None
        return Tile(self.file(video), video, shown.frame, time, score, note)


def write_sheet(sections: "Sequence[Section]", path: Path) -> None:
    """A contact sheet, and what there is to say of it."""
    from pseudo3d.visualize.contact_sheet import save_contact_sheet

    failed, tiles = save_contact_sheet(sections, path), sum(len(section.tiles) for section in sections)
    print(f"written: {path} ({tiles} videos)", file=sys.stderr)
    if failed:
        print(
            f"p3d: {failed} of them could not be shown; the sheet says why (--root FOLDER: where the videos are now)",
            file=sys.stderr,
        )
