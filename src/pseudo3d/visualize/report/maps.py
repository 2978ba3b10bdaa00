"""Where the videos lie on a t-SNE map of their features; computed once."""

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from pseudo3d import files
from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.errors import Pseudo3dError
from pseudo3d.evaluation.representations import read_representations
from pseudo3d.visualize.embedding import tsne
from pseudo3d.visualize.report.runs import Run, Stored


@dataclass(frozen=True, eq=False)
class VideoMap:
    """Where videos lie.

    Args:
        places: of each video, 0..1 both ways with the same scale, y downwards.
        reason: why there is no map, or "".
    """

    places: dict[str, Float64[np.ndarray, "2"]]
    reason: str = ""


def maps_of(run: Run, videos: Sequence[str], cache: Path) -> list[VideoMap]:
    """The maps of some videos of a run, one for each of its views; one for all of them where they have one store.

    Args:
        run: with its stores.
        videos: their paths, as in the run's scores.
        cache: a folder that keeps maps, since many videos take minutes.
    """
    if run.of_pairs:
        return [VideoMap({}, "its scores are of pairs of videos, and a map shows single ones")] * len(run.views)
    wanted = set(videos)
    theirs: dict[Stored, dict[str, None]] = {}
    for view, stored in zip(run.views, run.stored, strict=True):
        theirs.setdefault(stored, {}).update(dict.fromkeys(each for each in view.scores.videos if each in wanted))
    maps = {stored: _map_of(stored, list(own), cache) for stored, own in theirs.items()}
    return [maps[stored] for stored in run.stored]


def _map_of(stored: Stored, videos: Sequence[str], cache: Path) -> VideoMap:
    if stored.store is None:
        return VideoMap({}, stored.reason)
    samples = SampleList(Path(), tuple(map(Sample, videos)), ("-",))
    try:
        found = read_representations(stored.store, samples, [stored.layer], allow_missing=True)
        points = _cached(np.asarray(found.features[stored.layer], np.float32), cache)
    except Pseudo3dError as error:
        return VideoMap({}, str(error))
    points = points - points.min(axis=0)
    scale = points.max()
    points = (points + (scale - points.max(axis=0)) / 2) / scale
    return VideoMap({sample.path: point for sample, point in zip(found.samples, points, strict=True)})


def _cached(features: np.ndarray, folder: Path) -> np.ndarray:
    key = hashlib.sha256(features.tobytes()).hexdigest()[:20]
    file = folder / f"map-{key}.npy"
    if file.exists():
        with contextlib.suppress(ValueError, EOFError):  # cut off, by a copy of the folder that was stopped: made anew
            kept: np.ndarray = np.load(file, allow_pickle=False)
            if kept.shape == (len(features), 2):
                return kept
    points = np.asarray(tsne(features), np.float64)
    folder.mkdir(parents=True, exist_ok=True)
    with files.replacing(file) as temporary, temporary.open("wb") as out:
        np.save(out, points)
    return points
