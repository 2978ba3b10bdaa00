"""Where the videos lie on a t-SNE map of their features; computed once."""

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from pseudo3d import files
from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.errors import Pseudo3dError
from pseudo3d.evaluation.representations import read_representations
from pseudo3d.visualize.embedding import tsne
from pseudo3d.visualize.report.runs import Run


def map_of(run: Run, videos: Sequence[str], cache: Path) -> tuple[dict[str, Float64[np.ndarray, "2"]], str]:
    """The map of some videos of a run.

    Args:
        run: with its store.
        videos: their paths, as in the run's scores.
        cache: a folder that keeps maps, since many videos take minutes.

    Returns:
        The place of each video, 0..1 both ways with the same scale, y downwards; and why there is no map, or "".
    """
    if run.store is None:
        return {}, run.no_store
    wanted = set(videos)
    mine = [video for video in run.videos if video in wanted]
    samples = SampleList(Path(), tuple(Sample(video) for video in mine), ("-",))
    try:
        found = read_representations(run.store, samples, [run.layer], allow_missing=True)
        points = _cached(np.asarray(found.features[run.layer], np.float32), cache)
    except Pseudo3dError as error:
        return {}, str(error)
    points = points - points.min(axis=0)
    scale = points.max()
    points = (points + (scale - points.max(axis=0)) / 2) / scale
    return {sample.path: point for sample, point in zip(found.samples, points, strict=True)}, ""


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
