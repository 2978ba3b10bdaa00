"""Exact search against a plain float64 one, on vectors that are easy, alike, equal or meant to mislead."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from pseudo3d import Pseudo3dError
from pseudo3d.features import search
from pseudo3d.features.search import FaissIndex, SearchIndex, nearest_by_matmul, open_index, recall_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.usefixtures("one_thread")
DIM = 96


def plain_search(vectors, queries, top):
    """The definition: cosines in float64, rounded to float32, the best first, equal ones by row."""
    x, q = vectors.astype(np.float64), queries.astype(np.float64)
    scores = np.array(
        [[np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)) for b in x] for a in q], np.float32
    )  # fmt: skip
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return np.take_along_axis(scores, rows, axis=1), rows


def random(rng, n):
    return rng.normal(size=(n, DIM))


def clustered(rng, n):
    centres = np.maximum(rng.normal(size=(12, DIM)), 0) + 0.5
    return centres[rng.integers(0, 12, n)] + 0.02 * rng.normal(size=(n, DIM))


def duplicated(rng, n):
    return rng.normal(size=(n // 20, DIM))[rng.integers(0, n // 20, n)]


def all_equal(rng, n):
    return np.tile(rng.normal(size=DIM), (n, 1))


def nearly_all_the_same(rng, n):
    return rng.uniform(1, 2, DIM) + 1e-5 * rng.normal(size=(n, DIM))


def one_huge_component(rng, n):
    """One number of each sets the scale of its codes, and leaves one code, 0, to all the others."""
    vectors = 1e-3 * rng.normal(size=(n, DIM))
    vectors[np.arange(n), rng.integers(0, DIM, n)] = rng.choice([-1.0, 1.0], n)
    return vectors


def one_that_misleads(rng, n):
    """The best row has a long remainder that points along the query, all others have none."""
    query = np.full(DIM, 0.49)
    vectors = np.round(rng.uniform(-3, 3, (n, DIM)))
    vectors[:, 0] = 127
    vectors[n // 2] += query
    return np.concatenate([vectors[:-1], query[None]])


def of_all_lengths(rng, n):
    return rng.normal(size=(n, DIM)) * 10.0 ** rng.integers(-15, 15, (n, 1))


KINDS = (random, clustered, duplicated, all_equal, nearly_all_the_same, one_huge_component, one_that_misleads,
         of_all_lengths)  # fmt: skip


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_that_of_a_plain_search(kind, native, monkeypatch):
    rng = np.random.default_rng(1)
    vectors = kind(rng, 1500).astype(np.float32)
    queries = np.concatenate([vectors[[3, -1]], vectors[:2] + 0.1 * vectors[7:9], rng.normal(size=(2, DIM))])
    queries = queries.astype(np.float32)
    monkeypatch.setattr(search, "int8_is_native", lambda: native)
    monkeypatch.setattr(search, "_AT_ONCE", 700 * DIM)
    index = SearchIndex(vectors)
    for top in (1, 10):
        scores, rows = index.search(queries, top)
        expected_scores, expected = plain_search(vectors, queries, top)
        assert np.array_equal(rows, expected)
        assert np.array_equal(scores, expected_scores)
        assert (scores.dtype, rows.dtype) == (np.float32, np.int64)


def test_equal_vectors_have_equal_scores_and_come_by_row():
    vectors = np.random.default_rng(0).normal(size=(50, DIM)).astype(np.float32)
    vectors[[7, 20, 41]] = vectors[3]
    scores, rows = SearchIndex(vectors).search(vectors[3:4], 5)
    assert rows[0, :4].tolist() == [3, 7, 20, 41]
    assert scores[0, :4].tolist() == [1, 1, 1, 1]
    assert scores[0, 4] < 1


def test_few_rows_are_computed_from_the_vectors():
    """That is what the codes are for; also where features have most in common, as those after a ReLU."""
    rng = np.random.default_rng(2)
    for vectors in (rng.normal(size=(20_000, 256)), 3 + rng.normal(size=(20_000, 256))):
        index = SearchIndex(vectors.astype(np.float32))
        index.search(vectors[:1].astype(np.float32) + rng.normal(size=(1, 256)).astype(np.float32), 10)
        assert index.computed < 200
    assert index.nbytes < 20_000 * (256 + 12) + 5000


def test_no_limit_is_below_its_cosine():
    rng = np.random.default_rng(3)
    for kind in KINDS:
        vectors = kind(rng, 400).astype(np.float32)
        query = rng.normal(size=DIM) + vectors[0] / np.linalg.norm(vectors[0])
        query /= np.linalg.norm(query)
        x = vectors.astype(np.float64)
        exact = x @ query / np.linalg.norm(x, axis=1)
        assert (SearchIndex(vectors)._limits(query).numpy() >= exact).all()


def test_long_vectors_do_not_overflow(monkeypatch):
    """Sums of products of codes leave 32 bits where all of very many are 127."""
    vectors = np.ones((3, 400), np.float32) * np.array([[1], [-1], [2]], np.float32)
    monkeypatch.setattr(search, "_INT32_DIM", 300)
    assert SearchIndex(vectors).search(vectors[1:2], 3)[1].tolist() == [[1, 0, 2]]
    assert 127 * 127 * 130_000 < 2**31


def test_a_memory_map_is_searched_where_it_lies(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(300, DIM)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    assert np.array_equal(SearchIndex(mapped).search(vectors[5:6], 3)[1], plain_search(vectors, vectors[5:6], 3)[1])


def test_more_than_there_are():
    assert SearchIndex(np.eye(3, dtype=np.float32)).search(np.ones((1, 3), np.float32), 10)[1].tolist() == [[0, 1, 2]]


def changed(row, value):
    vectors = np.ones((5, 4), np.float32)
    vectors[row] = value
    return vectors


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        (changed(3, 0), "d.mp4: its features are all zero, so that nothing is like it; leave it out"),
        (changed(1, np.nan), "b.mp4: its features are not finite numbers"),
        (np.ones((0, 4), np.float32), r"vectors must be float32 \(videos, dim\), at least one, got float32 \(0, 4\)"),
        (np.ones((5, 4)), "got float64"),
    ],
)
def test_vectors_that_cannot_be_searched(vectors, words):
    with pytest.raises(Pseudo3dError, match=words):
        SearchIndex(vectors, ["a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4"])


@pytest.mark.parametrize(
    ("query", "top", "words"),
    [
        (np.zeros((1, 4), np.float32), 3, "query 0: its features are all zero"),
        (np.ones((1, 5), np.float32), 3, r"queries must be \(queries, 4\), got \(1, 5\)"),
        (np.ones((1, 4), np.float32), 0, "top must be at least 1, got 0"),
    ],
)
def test_queries_that_cannot_be_answered(query, top, words):
    with pytest.raises(Pseudo3dError, match=words):
        SearchIndex(changed(0, 2)).search(query, top)


def test_which_index_is_opened(monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    assert isinstance(open_index(vectors), SearchIndex)
    monkeypatch.setattr(search, "EXACT_UP_TO", 10)
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert isinstance(open_index(vectors), SearchIndex)  # it only takes longer
    with pytest.raises(Pseudo3dError, match=r"faiss is not installed: pip install 'pseudo3d\[faiss\]', or use --index"):
        open_index(vectors, kind="faiss")


def many_clusters(count, dim, seed=0):
    rng = np.random.default_rng(seed)
    centres = np.maximum(rng.normal(size=(count // 100, dim)), 0).astype(np.float32)
    vectors = centres[rng.integers(0, len(centres), count)]
    for start in range(0, count, 10_000):
        part = vectors[start : start + 10_000]
        part += 0.3 * rng.normal(size=part.shape).astype(np.float32)
    return vectors


def test_faiss_finds_what_the_exact_search_finds(monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(search, "EXACT_UP_TO", 1000)
    vectors = many_clusters(3000, 64)
    index = open_index(vectors)
    assert isinstance(index, FaissIndex)
    assert index.how.startswith("faiss, ")
    queries = many_clusters(3000, 64)[::97] + 0.1
    scores, rows = index.search(queries, 10)
    exact_scores, exact = SearchIndex(vectors).search(queries, 10)
    assert recall_of(rows, exact) >= 0.99
    same = rows == exact
    assert np.array_equal(scores[same], exact_scores[same])
    with pytest.raises(Pseudo3dError, match="row 3: its features are all zero"):
        FaissIndex(np.where(np.arange(3000)[:, None] == 3, 0, vectors))


def test_the_benchmark_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    options = ["--vectors", "1000", "--queries", "2", "--no-faiss", "--scratch", tmp_path, "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["search.py", *map(str, options)])
    runpy.run_path(str(BENCHMARKS / "search.py"), run_name="__main__")
    results = json.loads((tmp_path / "out" / "search.json").read_text(encoding="utf-8"))
    for kind in ("clustered", "isotropic"):
        ways = results[kind]["ways"]
        assert ways["exact (SearchIndex)"]["recall"] == 1
        assert ways["exact (SearchIndex)"]["index bytes"] < 0.26 * ways["plain float32 products"]["index bytes"]
        assert results[kind]["largest difference of a score"] < 1e-6
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_copies_do_not_count_as_missed():
    """Fifty copies of each: any ten of them are the ten best."""
    pytest.importorskip("faiss")
    vectors = np.repeat(np.random.default_rng(0).normal(size=(60, 32)).astype(np.float32), 50, axis=0)
    index = FaissIndex(vectors)
    assert index.recall == 1
    assert int(index.how.split()[1]) < 10  # of 55 lists


@pytest.mark.slow
def test_recall_of_faiss_on_200_000():
    pytest.importorskip("faiss")
    vectors = many_clusters(200_000, 256)
    rng = np.random.default_rng(9)
    queries = vectors[rng.integers(0, len(vectors), 100)] + 0.2 * rng.normal(size=(100, 256)).astype(np.float32)
    wanted = nearest_by_matmul(vectors, queries, 10)
    assert recall_of(SearchIndex(vectors).search(queries, 10)[1], wanted) == 1
    assert recall_of(FaissIndex(vectors).search(queries, 10)[1], wanted) >= 0.99
