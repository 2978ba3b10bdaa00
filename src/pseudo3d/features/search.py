"""Which videos are most like one: exact cosine search, and an approximate one for very many.

The exact answer to a query needs all vectors in float32: 8 GB for a million of 2048 numbers, too slow to read each
time. ``SearchIndex`` reads a quarter of that, 8-bit codes, and asks the vectors only where the codes leave it open:

    x / |x| = m + s c + r      m: a centre that all share; c: int8 codes with a scale s for each row; r: what is left
    cosine  = q.m + s (q'.c) + (q - q').(s c) + q.r          q: the query, of length 1; q' its own 8-bit rounding

The last two terms are not computed: by Cauchy and Schwarz they are at most |q - q'| |s c| + |r|, with |s c| and |r|
known of each row. So each row has an upper limit. The rows with the highest limits are computed from the vectors in
float64. A row with a limit below the worst of them cannot be among the answers; the others are computed too.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float32, Int64

from pseudo3d.errors import Pseudo3dError
from pseudo3d.inference.devices import int8_is_native

Kind = Literal["auto", "exact", "faiss"]
EXACT_UP_TO = 1_000_000
"""Vectors up to which "auto" is exact; beyond, a query takes proportionally longer."""
RECALL = 0.99
"""Share of the ten best that the approximate index finds, measured on rows of its own when it is built."""

_AT_ONCE = 1 << 19  # numbers in hand, 256 rows of 2048: they, and the steps in between, stay in the cache
_CENTRE = 1 << 23  # numbers of which the middle is taken, 4096 rows of 2048
_SLACK = 1e-5  # more than the float32 rounding of the few operations behind each limit
_INT32_DIM = 130_000  # products of so many codes, 127 x 127 at most, add up in 32 bits

Vectors = Float32[np.ndarray, "videos dim"]
Found = tuple[Float32[np.ndarray, "queries top"], Int64[np.ndarray, "queries top"]]


class Index(Protocol):
    """What finds the most similar rows."""

    how: str

    @property
    def nbytes(self) -> int:
        """Of the index in memory, without the vectors."""

    def search(self, queries: Vectors, top: int) -> Found:
        """Scores and rows, best first."""


def open_index(vectors: Vectors, videos: Sequence[str] | None = None, *, kind: Kind = "auto") -> Index:
    """An index of the vectors: exact, or, for more than a million when faiss is installed, approximate.

    Args:
        vectors: one row a video; a memory map is read piece by piece.
        videos: their names, for messages.
        kind: "auto", "exact" or "faiss".

    Raises:
        Pseudo3dError: no vectors, one that is zero or not finite, or faiss is asked for and not installed.

    Example:
        >>> open_index(np.eye(3, dtype=np.float32)).how
        'exact'
    """
    if kind == "exact" or (kind == "auto" and (len(vectors) <= EXACT_UP_TO or not _has_faiss())):
        return SearchIndex(vectors, videos)
    return FaissIndex(vectors, videos)


class SearchIndex:
    """Exact cosine search: always the answer that all vectors in float64 would give.

    The cosine of a row does not depend on its place or on other rows. It is computed in float64 and rounded to float32;
    rows of equal scores come in the order of their numbers.

    Args:
        vectors: one row a video, of any length but 0. They are kept, not copied: a memory map stays on the disk.
        videos: their names, for messages.

    Attributes:
        nbytes: of the index in memory, without the vectors.
        how: "exact".
        computed: rows that the last query needed from the vectors.

    Raises:
        Pseudo3dError: no vectors, or one that is zero or not finite.

    Example:
        >>> index = SearchIndex(np.array([[1, 0], [0, 3], [2, 2]], np.float32))
        >>> scores, rows = index.search(np.array([[0, 1]], np.float32), top=2)
        >>> rows.tolist(), scores.round(3).tolist()
        ([[1, 2]], [[1.0, 0.7070000171661377]])
    """

    how = "exact"

    def __init__(self, vectors: Vectors, videos: Sequence[str] | None = None) -> None:
        self._vectors = vectors
        count, dim = _checked_shape(vectors)
        self._centre = _centre(vectors, videos)
        # NumPy's memory, and not PyTorch's, comes in huge pages where the system has them: it is read faster
        self._codes = torch.from_numpy(np.empty((count, dim), np.int8))
        self._scale, self._reach, self._left = (torch.empty(count) for _ in range(3))
        self._rounding = dim * 2.0**-23  # twice what a float32 sum of so many products can be off, over |a| |b|
        self.computed = 0
        for start, unit in unit_pieces(vectors, videos):
            piece = slice(start, start + len(unit))
            apart = unit - self._centre
            scale = (apart.abs().amax(dim=1) / 127).clamp_min(1e-30)
            codes = (apart / scale[:, None]).round_()
            self._codes[piece] = codes.to(torch.int8)
            coded = codes * scale[:, None]
            self._scale[piece] = scale
            self._reach[piece] = coded.norm(dim=1) * (1 + self._rounding)
            self._left[piece] = (apart - coded).norm(dim=1) * (1 + self._rounding)
        # Without such instructions, PyTorch's int8 products may saturate: they would not be exact.
        self._native = int8_is_native() and dim <= _INT32_DIM

    @property
    def nbytes(self) -> int:
        """Of the index in memory, without the vectors."""
        return sum(part.nbytes for part in (self._codes, self._scale, self._reach, self._left, self._centre))

    def search(self, queries: Vectors, top: int) -> Found:
        """The ``top`` rows (all, when there are fewer) with the highest cosine to each query, best first.

        Args:
            queries: (queries, dim), not zero.
            top: how many for each.

        Returns:
            Cosines, -1..1, and the numbers of the rows.

        Raises:
            Pseudo3dError: a query of another length, zero or not finite, or ``top`` below 1.
        """
        top = _checked_query(queries, top, self._vectors)
        found = [self._search_one(query, top) for query in _unit64(queries)]
        return np.stack([scores for scores, _ in found]), np.stack([rows for _, rows in found])

    def _search_one(self, query: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        limit = self._limits(query)
        seeds = torch.topk(limit, top, sorted=False).indices
        seed_scores = cosines(self._vectors, seeds.numpy(), query)
        limit[seeds] = -torch.inf
        rest = torch.nonzero(limit >= float(seed_scores.min()) - _SLACK)[:, 0].numpy()
        rows = np.concatenate([seeds.numpy(), rest])
        scores = np.concatenate([seed_scores, cosines(self._vectors, rest, query)])
        self.computed = len(rows)
        return _best(scores, rows, top)

    def _limits(self, query: np.ndarray) -> torch.Tensor:
        """(videos,) float32: no cosine of a row is above its limit."""
        unit = torch.from_numpy(query.astype(np.float32))
        step = float(unit.abs().max()) / 127
        rounded = (unit / step).round()
        off = float((unit - rounded * step).norm()) + self._rounding
        limit = self._products(rounded).mul_(self._scale * step)
        return (
            limit.add_(self._reach, alpha=off)
            .add_(self._left)
            .add_(float(self._centre.numpy().astype(np.float64) @ query) + _SLACK)
        )

    def _products(self, rounded: torch.Tensor) -> torch.Tensor:
        """The codes of each row times those of the query, float32."""
        if self._native:
            return torch._int_mm(self._codes, rounded.to(torch.int8)[:, None])[:, 0].float()
        out, piece = torch.empty(len(self._codes)), rows_of(len(rounded))
        for start in range(0, len(self._codes), piece):
            torch.mv(self._codes[start : start + piece].float(), rounded, out=out[start : start + piece])
        return out


class FaissIndex:
    """Approximate search for millions of vectors (faiss: lists of near ones, of which a query reads some).

    How many lists a query reads is chosen when the index is built, so that of the ten nearest neighbours of rows of its
    own ``RECALL`` are found; queries unlike all of the rows may do worse. The scores are exact: what is found is
    computed again from the vectors.

    Args:
        vectors: as for ``SearchIndex``.
        videos: their names, for messages.
        seed: of the rows that the lists are made from.

    Attributes:
        nbytes: of the index in memory, without the vectors, about.
        how: what it is, with the recall that was measured.
        recall: that recall.

    Raises:
        Pseudo3dError: as for ``SearchIndex``, or faiss is not installed.
    """

    def __init__(self, vectors: Vectors, videos: Sequence[str] | None = None, *, seed: int = 0) -> None:
        if not _has_faiss():
            raise Pseudo3dError("faiss is not installed: pip install 'pseudo3d[faiss]', or use --index exact")
        import faiss

        self._vectors = vectors
        count, dim = _checked_shape(vectors)
        lists = max(1, round(count**0.5))
        kind = faiss.ScalarQuantizer.QT_8bit
        self._index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(dim), dim, lists, kind, faiss.METRIC_INNER_PRODUCT
        )
        self._index.cp.min_points_per_centroid = 1  # no complaint about few vectors
        rows = np.sort(np.random.default_rng(seed).choice(count, min(count, 50 * lists), replace=False))
        self._index.train(_unit32(vectors[rows]).numpy())
        for _, unit in unit_pieces(vectors, videos):
            self._index.add(unit.numpy())
        self._nbytes = count * (dim + 8) + 4 * lists * dim  # codes and numbers of the rows, middles of the lists
        self.recall = self._choose_probes(lists)
        self.how = f"faiss, {self._index.nprobe} of {lists} lists read, recall {self.recall:.3f}"

    @property
    def nbytes(self) -> int:
        """Of the index in memory, without the vectors."""
        return self._nbytes

    def search(self, queries: Vectors, top: int) -> Found:
        """As ``SearchIndex.search``, but it may miss some."""
        top = _checked_query(queries, top, self._vectors)
        _, near = self._index.search(_unit32(queries).numpy(), min(len(self._vectors), 4 * top + 16))
        found = []
        for query, rows in zip(_unit64(queries), near, strict=True):
            rows = rows[rows >= 0]  # too few in the lists that were read
            scores, rows = _best(cosines(self._vectors, rows, query), rows, top)
            short = top - len(rows)
            found.append((np.pad(scores, (0, short), constant_values=-1), np.pad(rows, (0, short), constant_values=-1)))
        return np.stack([scores for scores, _ in found]), np.stack([rows for _, rows in found])

    def _choose_probes(self, lists: int) -> float:
        """Twice the lists (a power of two) that give the recall on up to 100 rows of its own; what it then is.

        Twice, because a query from elsewhere is harder: its nearest rows do not lie around it in one list.
        """
        asked = np.unique(np.linspace(0, len(self._vectors) - 1, 100).astype(np.int64))
        queries, top = self._vectors[asked], min(10, len(self._vectors))
        last = nearest_by_matmul(self._vectors, queries, top)[:, -1]
        enough = cosines(self._vectors, last, _unit64(queries))[:, None] - 1e-6  # copies of a video count alike
        probes, recall = 0, 0.0
        while recall < RECALL and probes < lists:
            probes = min(lists, max(1, 2 * probes))
            self._index.nprobe = probes
            recall = float((self.search(queries, top)[0] >= enough).mean())
        self._index.nprobe = min(lists, 2 * probes)
        return recall


def recall_of(found: Int64[np.ndarray, "queries top"], wanted: Int64[np.ndarray, "queries top"]) -> float:
    """Share of the wanted rows that were found, 0..1.

    Example:
        >>> recall_of(np.array([[1, 2]]), np.array([[2, 3]]))
        0.5
    """
    return float(np.mean([np.isin(w, f).mean() for f, w in zip(found, wanted, strict=True)]))


def nearest_by_matmul(vectors: Vectors, queries: Vectors, top: int) -> Int64[np.ndarray, "queries top"]:
    """The nearest rows of many queries, by plain float32 products of all with all; no order within rounding."""
    asked = _unit32(queries)
    scores, rows = torch.empty((len(asked), 0)), torch.empty((len(asked), 0), dtype=torch.int64)
    for start, unit in unit_pieces(vectors):
        scores = torch.cat([scores, asked @ unit.T], dim=1)
        rows = torch.cat([rows, torch.arange(start, start + len(unit)).expand(len(asked), -1)], dim=1)
        scores, places = torch.topk(scores, min(top, scores.shape[1]), dim=1)
        rows = rows.gather(1, places)
    return rows.numpy()


def cosines(vectors: Vectors, rows: Int64[np.ndarray, "n"], query: np.ndarray) -> Float32[np.ndarray, "n"]:
    """The cosine of some rows to a query, float64 rounded to float32; of a row it is the same in any company.

    Args:
        vectors: all of them.
        rows: which.
        query: float64, of length 1; or one for each of the rows.
    """
    out, piece = np.empty(len(rows), np.float32), rows_of(vectors.shape[1])
    for start in range(0, len(rows), piece):
        part = slice(start, start + piece)
        found = vectors[rows[part]].astype(np.float64)
        by = query if query.ndim == 1 else query[part]
        # sums along rows, not a matrix product: BLAS adds up a row in an order that depends on its neighbours
        out[part] = (found * by).sum(axis=1) / np.sqrt((found * found).sum(axis=1))
    return out


def rows_of(dim: int, numbers: int | None = None) -> int:
    """How many rows have about so many numbers, at least one; without ``numbers``, as many as stay in the cache."""
    return max(1, (numbers or _AT_ONCE) // dim)


def unit_pieces(
    vectors: Vectors, videos: Sequence[str] | None = None, piece: int | None = None
) -> Iterator[tuple[int, torch.Tensor]]:
    """The vectors, a few MiB at a time, each of length 1: the number of the first row, and float32 (n, dim).

    Raises:
        Pseudo3dError: one is zero or not finite.
    """
    piece = piece or rows_of(vectors.shape[1])
    for start in range(0, len(vectors), piece):
        part = vectors[start : start + piece]
        yield start, _unit32(part, videos[start : start + piece] if videos else None, start)


def _unit32(part: np.ndarray, videos: Sequence[str] | None = None, start: int = 0) -> torch.Tensor:
    exact = torch.from_numpy(np.array(part)).double()
    length = exact.norm(dim=1, keepdim=True)
    wrong = ~(length.isfinite() & (length > 0))[:, 0]
    if wrong.any():
        i = int(wrong.int().argmax())
        kind = "are all zero" if length[i] == 0 else "are not finite numbers"
        raise Pseudo3dError(
            f"{videos[i] if videos else f'row {start + i}'}: its features {kind}, so that nothing is like it; "
            "leave it out, or extract it again"
        )
    return (exact / length).float()


def _unit64(queries: np.ndarray) -> np.ndarray:
    asked = queries.astype(np.float64)
    return asked / np.linalg.norm(asked, axis=1, keepdims=True)


def _centre(vectors: Vectors, videos: Sequence[str] | None) -> torch.Tensor:
    """About the mean direction: features of a ReLU have much in common, which need not be coded. Any point is right."""
    rows = np.unique(np.linspace(0, len(vectors) - 1, rows_of(vectors.shape[1], _CENTRE)).astype(np.int64))
    names = [videos[row] for row in rows] if videos else None
    return _unit32(vectors[rows], names).mean(dim=0)


def _best(scores: np.ndarray, rows: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((rows, -scores))[:top]
    return scores[order], rows[order]


def _checked_shape(vectors: np.ndarray) -> tuple[int, int]:
    if vectors.ndim != 2 or vectors.dtype != np.float32 or 0 in vectors.shape:
        raise Pseudo3dError(f"vectors must be float32 (videos, dim), at least one, got {vectors.dtype} {vectors.shape}")
    return vectors.shape


def _checked_query(queries: np.ndarray, top: int, vectors: np.ndarray) -> int:
    if top < 1:
        raise Pseudo3dError(f"top must be at least 1, got {top}")
    if queries.ndim != 2 or queries.shape[1] != vectors.shape[1]:
        raise Pseudo3dError(f"queries must be (queries, {vectors.shape[1]}), got {queries.shape}")
    _unit32(queries, [f"query {i}" for i in range(len(queries))])
    return min(top, len(vectors))


def _has_faiss() -> bool:
    import importlib.util

    return importlib.util.find_spec("faiss") is not None
