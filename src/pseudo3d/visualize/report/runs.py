"""A run's folder, read for the page: its result, its scores, its features, its DeepDraw pictures."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pseudo3d.errors import Pseudo3dError
from pseudo3d.evaluation.representations import match_paths
from pseudo3d.evaluation.results import RESULT_NAME, Result, read_result
from pseudo3d.evaluation.scores import Scores, read_scores
from pseudo3d.features.store import FeatureStore
from pseudo3d.video.segments import file_of

WORST = 200
"""Mistakes of each score file that are always on the page, however many videos are left out."""

_SCORES = re.compile(r"scores(?:-(\w+))?\.parquet")
_PICTURES = (".gif", ".png")


@dataclass(frozen=True, eq=False)
class View:
    """The scores of one split.

    Args:
        split: "1", or "" when the run has one only.
        scores: as the run left them.
    """

    split: str
    scores: Scores

    @property
    def predicted(self) -> Int64[np.ndarray, "videos"]:
        """The class with the highest score."""
        return self.scores.values.argmax(axis=1)

    @property
    def known(self) -> Bool[np.ndarray, "videos"]:
        """Whether anything says what a video shows."""
        return np.asarray(self.scores.truth.any(axis=1))

    @property
    def right(self) -> Bool[np.ndarray, "videos"]:
        """Whether the highest score is of a true class."""
        right: np.ndarray = np.take_along_axis(self.scores.truth, self.predicted[:, None], axis=1)
        return right[:, 0]

    @property
    def confidence(self) -> Float64[np.ndarray, "videos"]:
        """How sure a prediction is: its probability; for decision values, how far it is above the best true class."""
        values = self.scores.values.astype(np.float64)
        best = values.max(axis=1)
        if self.scores.kind == "probability":
            return best
        true = np.where(self.scores.truth, values, -np.inf).max(axis=1)
        return np.where(self.known, best - true, best)

    def worst(self) -> Int64[np.ndarray, "mistakes"]:
        """The rows of wrong predictions, the surest first."""
        wrong = np.flatnonzero(self.known & ~self.right)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")]

    def confusion(self) -> list[tuple[int, int, int]]:
        """(true class, predicted class, videos), without empty cells.

        Each video counts once: a right one of several labels for the one that was found, a wrong one for its first.
        """
        true = np.where(self.right, self.predicted, self.scores.truth.argmax(axis=1))[self.known]
        pairs = np.stack([true, self.predicted[self.known]], axis=1)
        cells, counts = np.unique(pairs, axis=0, return_counts=True)
        return [(int(t), int(p), int(n)) for (t, p), n in zip(cells, counts, strict=True)]


@dataclass(frozen=True, eq=False)
class Run:
    """What the page shows of one run.

    Args:
        folder: of the run.
        result: its numbers.
        views: its scores, one for each split.
        store: its features, or None.
        no_store: why there are none, when ``store`` is None.
        layer: which features a map is drawn of.
        pictures: of DeepDraw: of each class a GIF, or a PNG where there is none.
    """

    folder: Path
    result: Result
    views: tuple[View, ...]
    store: FeatureStore | None
    no_store: str
    layer: str
    pictures: tuple[Path, ...]

    @property
    def videos(self) -> list[str]:
        """All that have scores, each once."""
        return list(dict.fromkeys(video for view in self.views for video in view.scores.videos))

    def roots(self) -> list[Path]:
        """Folders that the videos' paths may start from, as the run and its store tell them."""
        told = [self.result.facts.get("root"), None if self.store is None else self.store.info.get("root")]
        return [Path(root) for root in told if isinstance(root, str)]


def read_run(folder: str | Path) -> Run:
    """Read a run's folder.

    A store that is gone, or has no such layer, costs the map only; ``Run.no_store`` says why.

    Raises:
        Pseudo3dError: no result is there, or a file of the run is damaged.
    """
    path = Path(folder)
    result = read_result(path)
    path = path.parent if path.name == RESULT_NAME else path
    found = sorted((match[1] or "", file) for file in path.iterdir() if (match := _SCORES.fullmatch(file.name)))
    views = tuple(View(split, read_scores(file)) for split, file in found)
    store, layer, no_store = _open_store(path, result.facts)
    return Run(path, result, views, store, no_store, layer, _pictures(path / "deepdraw"))


def _pictures(folder: Path) -> tuple[Path, ...]:
    """One for each stem: what moves, rather than the sheet of the same frames."""
    found = sorted(each for each in folder.iterdir() if each.suffix in _PICTURES) if folder.is_dir() else []
    return tuple({each.stem: each for each in reversed(found)}.values())[::-1]  # .gif before .png


def _open_store(folder: Path, facts: dict[str, Any]) -> tuple[FeatureStore | None, str, str]:
    """The run's store, the layer to draw, and why there is none."""
    told = facts.get("store")
    places = [str(folder / told), told] if isinstance(told, str) and told else []
    reason = f"its feature store is not there any more: {told}" if places else "the run does not name a feature store"
    for place in [*places, str(folder / "features")]:
        if "://" not in place and not Path(place).exists():
            continue
        try:
            store = FeatureStore(place)
            return store, _layer(store, facts), ""
        except Pseudo3dError as error:
            reason = str(error)
    return None, "", reason


def _layer(store: FeatureStore, facts: dict[str, Any]) -> str:
    """The layer that the run was measured on, rather one of features than one of class scores."""
    named = [facts.get("layer"), *(facts.get("layers") or ()), "pool5", *store.layers]
    fitting = [each for each in named if each in store.layers]
    if not fitting:
        raise Pseudo3dError(f"{store.location}: holds no features")
    return min(fitting, key=lambda each: each in ("logits", "prob"))


def shown_videos(runs: Sequence[Run], most: int) -> list[str]:
    """The videos that the page shows one by one: all, or the worst mistakes and evenly spread others.

    Args:
        runs: in the order of the page.
        most: how many, apart from the worst mistakes.

    Returns:
        Paths, each once, in the order of the first run that has them.
    """
    videos = list(dict.fromkeys(video for run in runs for video in run.videos))
    if len(videos) <= most:
        return videos
    kept = {videos[i] for i in np.linspace(0, len(videos) - 1, most).astype(int)} if most else set()
    for view in (view for run in runs for view in run.views):
        kept.update(view.scores.videos[i] for i in view.worst()[:WORST])
    return [video for video in videos if video in kept]


def wrong_videos(runs: Sequence[Run]) -> set[str]:
    """Videos that a run takes for another class."""
    return {view.scores.videos[i] for run in runs for view in run.views for i in view.worst()}


def find_files(runs: Sequence[Run], videos: Sequence[str], root: Path | None) -> list[str]:
    """Where the videos are now.

    Args:
        runs: that have them.
        videos: their paths in the scores, perhaps with a segment (``#t=3,5``).
        root: the folder that the paths start from, in place of those that the runs and their stores tell. Of an
            absolute path, its end is looked for there.

    Returns:
        The path of each, with its segment; of one that is not there, the path where it should be.
    """
    places: dict[str, list[Path]] = {}
    for run in runs:
        stored = {} if run.store is None else match_paths(run.videos, run.store.videos)[0]
        for video in run.videos:
            names = dict.fromkeys((video, stored.get(video, video)))
            starts = [root] if root is not None else [*run.roots(), Path()]
            places.setdefault(video, []).extend(start / name for start in starts for name in names)
    if root is not None:
        for video, found in places.items():
            parts = PurePosixPath(video).parts
            found += [Path(root, *parts[i:]) for i in range(1, len(parts)) if parts[0] == "/"]
    return [
        str(next((place for place in places[video] if file_of(place).is_file()), places[video][0])) for video in videos
    ]
