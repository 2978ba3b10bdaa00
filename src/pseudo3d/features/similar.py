"""Videos that are nearly the same, and groups of videos that are alike: both from features alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pseudo3d.errors import Pseudo3dError
from pseudo3d.features.search import Vectors, cosines, rows_of, unit_pieces

SEED = 0
GROUPS = range(2, 13)
"""Numbers of groups that are tried when none is given."""

_ROWS, _COLUMNS = 1024, 8192  # of a block of cosines: 32 MiB
_NUMBERS = 1 << 24  # of the vectors that a block compares, at most
_PAIRS = 4096  # looked at in one step
_TRIED_ON = 5000  # videos: the silhouette compares all with all
_RANDOM_PAIRS = 100_000


@dataclass(frozen=True, eq=False)
class Similarities:
    """How like each other the videos of a store are.

    Args:
        random_pairs: (pairs,) float32, cosines of pairs drawn at random.
        nearest: (videos,) float32, the cosine of each to the one most like it, within 1e-5.
        groups: by threshold, the rows of each group of near-duplicates in order; largest first, none of one video.
    """

    random_pairs: Float32[np.ndarray, "pairs"]
    nearest: Float32[np.ndarray, "videos"]
    groups: dict[float, list[Int64[np.ndarray, "members"]]]


def compare_all(
    vectors: Vectors,
    thresholds: Sequence[float],
    *,
    contents: Sequence[str | None] | None = None,
    videos: Sequence[str] | None = None,
    seed: int = SEED,
) -> Similarities:
    """Compare every video with every other one; the groups of those that are nearly the same.

    A group is what pairs connect: two videos with a cosine (float32) of the threshold or more, or files of the same
    content, are of one group, and so are two that a chain of such pairs connects. Every pair is looked at; where
    float32 leaves it open, in float64. 100,000 videos of 2048 numbers are 20 TFLOP and need a few hundred MB beside the
    vectors; the time grows with the square.

    Args:
        vectors: one row a video, not zero.
        thresholds: cosines, above 0, at most 1.
        contents: a hash of each file's content; None where it is not known.
        videos: their names, for messages.
        seed: of the random pairs.

    Raises:
        Pseudo3dError: a threshold out of range, fewer than two videos, or features that are zero or not finite.

    Example:
        >>> found = compare_all(np.array([[1, 0], [0, 1], [1, 0.01]], np.float32), [0.9])
        >>> [group.tolist() for group in found.groups[0.9]], found.nearest.round(2).tolist()
        ([[0, 2]], [1.0, 0.009999999776482582, 1.0])
    """
    if len(vectors) < 2:
        raise Pseudo3dError(f"{len(vectors)} videos: there is nothing to compare")
    if wrong := [value for value in thresholds if not 0 < value <= 1]:
        raise Pseudo3dError(f"a threshold must be above 0 and at most 1, got {wrong[0]}")
    same = _same_contents(contents or [])
    found = {value: _Groups(vectors, value, same) for value in thresholds}
    nearest = np.full(len(vectors), -1, np.float32)
    for rows, columns, block in _blocks(vectors, videos):
        nearest[rows] = np.maximum(nearest[rows], block.max(axis=1))
        nearest[columns] = np.maximum(nearest[columns], block.max(axis=0))
        for each in found.values():
            each.add(rows.start, columns.start, block)
    groups = {value: _members(each.group_of) for value, each in found.items()}
    return Similarities(_random_pairs(vectors, seed), np.minimum(nearest, 1), groups)


def _blocks(vectors: Vectors, videos: Sequence[str] | None) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Cosines (float32) of each pair once: rows, columns, and the block, with -1 where it is no pair or comes twice."""
    most = rows_of(vectors.shape[1], _NUMBERS)
    for top, rows in unit_pieces(vectors, videos, min(_ROWS, most)):
        for left, columns in unit_pieces(vectors[top:], piece=min(_COLUMNS, most)):
            block = (rows @ columns.T).numpy()
            if left < len(rows):
                block[np.tril_indices(len(rows), -left, block.shape[1])] = -1
            yield slice(top, top + len(rows)), slice(top + left, top + left + len(columns)), block


class _Groups:
    """Which videos are connected at one threshold, while pairs come in."""

    def __init__(self, vectors: Vectors, threshold: float, same: np.ndarray) -> None:
        self._vectors, self._threshold = vectors, np.float32(threshold)
        self._margin = np.float32(vectors.shape[1] * 2.0**-23 + 1e-6)  # what float32 may be off, at the very most
        self.group_of = np.arange(len(vectors))
        self._join(same)

    def add(self, top: int, left: int, block: np.ndarray) -> None:
        """Connect what a block of cosines says is alike."""
        near = np.argwhere(block >= self._threshold - self._margin)
        for start in range(0, len(near), _PAIRS):
            pairs = near[start : start + _PAIRS]
            values = block[pairs[:, 0], pairs[:, 1]]
            pairs += (top, left)
            new = self.group_of[pairs[:, 0]] != self.group_of[pairs[:, 1]]  # most of a large group are connected soon
            pairs, values = pairs[new], values[new]
            open_ = values < self._threshold + self._margin
            sure = ~open_
            sure[open_] = self._exactly(pairs[open_])
            self._join(pairs[sure])

    def _exactly(self, pairs: np.ndarray) -> np.ndarray:
        others = self._vectors[pairs[:, 1]].astype(np.float64)
        others /= np.sqrt((others * others).sum(axis=1, keepdims=True))
        return cosines(self._vectors, pairs[:, 0], others) >= self._threshold

    def _join(self, pairs: np.ndarray) -> None:
        if len(pairs):
            ends = self.group_of[pairs]
            size = len(self.group_of)
            edges = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(size, size))
            self.group_of = connected_components(edges, directed=False)[1][self.group_of]


def _same_contents(contents: Sequence[str | None]) -> Int64[np.ndarray, "pairs 2"]:
    first: dict[str, int] = {}
    pairs = [(first.setdefault(each, i), i) for i, each in enumerate(contents) if each is not None]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def _members(group_of: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(group_of, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group_of[order])) + 1)
    return sorted((group for group in groups if len(group) > 1), key=lambda group: (-len(group), group[0]))


def _random_pairs(vectors: Vectors, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    count = min(_RANDOM_PAIRS, len(vectors) * (len(vectors) - 1) // 2)
    first = rng.integers(0, len(vectors), count)
    second = (first + rng.integers(1, len(vectors), count)) % len(vectors)  # never the same one
    out = np.empty(count, np.float32)
    for start in range(0, count, _PAIRS):
        part = slice(start, start + _PAIRS)
        others = vectors[second[part]].astype(np.float64)
        others /= np.sqrt((others * others).sum(axis=1, keepdims=True))
        out[part] = cosines(vectors, first[part], others)
    return out


@dataclass(frozen=True, eq=False)
class Grouping:
    """Videos in groups.

    Args:
        group_of: (videos,) int64, the group of each, from 0; group 0 is the largest.
        similarity: (videos,) float32, the cosine of each to the middle of its group.
        silhouettes: by number of groups, how well they are apart (-1..1); empty when the number was given.
    """

    group_of: Int64[np.ndarray, "videos"]
    similarity: Float32[np.ndarray, "videos"]
    silhouettes: dict[int, float]

    @property
    def groups(self) -> int:
        """How many there are."""
        return int(self.group_of.max()) + 1

    def members(self, group: int) -> Int64[np.ndarray, "members"]:
        """The rows of a group, nearest to its middle first."""
        rows = np.flatnonzero(self.group_of == group)
        return rows[np.argsort(-self.similarity[rows], kind="stable")]


def group_videos(
    vectors: Vectors, groups: int | None = None, *, videos: Sequence[str] | None = None, seed: int = SEED
) -> Grouping:
    """Groups of videos that are alike: k-means on vectors of length 1, the same at every call.

    Without a number of groups, each of ``GROUPS`` is tried, on up to 5000 of the videos, and the one with the highest
    silhouette taken: for each video, how much nearer its own group is than the next one, on average. It finds groups
    that are far apart; whether these are what a person has in mind only the person can say.

    Args:
        vectors: one row a video, not zero.
        groups: how many, at least 2.
        videos: their names, for messages.
        seed: of k-means and the choice of the videos.

    Raises:
        Pseudo3dError: fewer than three videos, more groups than different videos, or features that are zero or not
            finite.

    Example:
        >>> found = group_videos(np.array([[1, 0], [0, 1], [1, 0.01], [0.01, 1], [1, 0.02]], np.float32), 2)
        >>> found.group_of.tolist(), found.members(0).tolist()
        ([0, 1, 0, 1, 0], [2, 0, 4])
    """
    if len(vectors) < 3:
        raise Pseudo3dError(f"{len(vectors)} videos: groups need at least 3")
    if groups is not None and groups < 2:
        raise Pseudo3dError(f"groups must be at least 2, got {groups}")
    unit = torch.cat([piece for _, piece in unit_pieces(vectors, videos)]).numpy()
    different = len(np.unique(unit, axis=0)) if len(unit) <= _TRIED_ON else len(unit)
    if different < (groups or 3):
        raise Pseudo3dError(
            f"{len(unit)} videos with {different} different features cannot make {groups or 'two or more'} groups; "
            "ask for fewer groups, or extract more videos"
        )
    silhouettes = {} if groups else _silhouettes(unit, different, seed)
    count = groups or max(silhouettes, key=lambda each: silhouettes[each])
    group_of, centres = _k_means(unit, count, seed)
    by_size = np.argsort(-np.bincount(group_of, minlength=count), kind="stable")
    place = np.empty(count, np.int64)
    place[by_size] = np.arange(count)
    lengths = np.linalg.norm(centres, axis=1).clip(1e-12)
    similarity = np.einsum("nd,nd->n", unit, (centres / lengths[:, None])[group_of])
    return Grouping(place[group_of], similarity.astype(np.float32), silhouettes)


def _k_means(unit: np.ndarray, groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.cluster import KMeans

    found = KMeans(groups, n_init=5, random_state=seed).fit(unit)
    return found.labels_.astype(np.int64), found.cluster_centers_


def _silhouettes(unit: np.ndarray, different: int, seed: int) -> dict[int, float]:
    from sklearn.metrics import silhouette_score

    some = unit
    if len(unit) > _TRIED_ON:
        some = unit[np.sort(np.random.default_rng(seed).choice(len(unit), _TRIED_ON, replace=False))]
    return {
        groups: float(silhouette_score(some, _k_means(some, groups, seed)[0], metric="cosine"))
        for groups in GROUPS
        if groups < min(len(some), different)
    }
