"""A million vectors: how long a query takes, how large the index is, beside plain float32 products and faiss.

    python benchmarks/search.py --out docs/results
    python benchmarks/search.py --vectors 200000 --out results     # smaller: a fifth of the time and the disk

The vectors (2048 numbers each; 8.2 GB for a million) are written into a file, in ``--scratch`` or the folder for
temporary files, which is removed at the end, and mapped as those of a store of that size are. Two kinds:

- clustered: around a middle for each 200, after a ReLU as pool5 is, with noise: what videos are like.
- isotropic: each number drawn on its own. Nothing is like anything, which is the hardest to search.

Queries are vectors of the same kind that are not among them. Ways take turns, query by query, so that what else the
machine does disturbs them alike. Every answer of the exact index is compared with that of the plain products, in which
rows within rounding of each other may change places: the scores must agree.
"""

import argparse
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import table, write

from pseudo3d.features.search import EXACT_UP_TO, FaissIndex, SearchIndex, cosines, nearest_by_matmul, recall_of

DIM, TOP = 2048, 10
_PIECE = 10_000


def pieces(kind: str, count: int, seed: int) -> Iterator[np.ndarray]:
    """Vectors of a kind, some at a time; the middles do not depend on the seed."""
    rng = np.random.default_rng(seed)
    middles = np.maximum(np.random.default_rng(0).normal(size=(5000, DIM), loc=-0.5), 0).astype(np.float32)
    for start in range(0, count, _PIECE):
        n = min(_PIECE, count - start)
        noise = rng.standard_normal((n, DIM), np.float32)
        if kind == "isotropic":
            yield noise
            continue
        yield np.maximum(middles[rng.integers(0, len(middles), n)] + 0.3 * noise, 0)


def written(path: Path, kind: str, count: int) -> np.ndarray:
    """The vectors, in a file."""
    with path.open("wb") as file:
        for part in pieces(kind, count, seed=1):
            file.write(part.data)
    return np.memmap(path, np.float32, "r", shape=(count, DIM))


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    value = function()
    return time.perf_counter() - began, value


class Plain:
    """All vectors in memory, of length 1, as float32; a query is a product with all of them."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._unit = torch.from_numpy(np.array(vectors))
        self._unit /= self._unit.norm(dim=1, keepdim=True)
        self.nbytes = self._unit.nbytes

    def search(self, queries: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """The highest products of one query."""
        query = torch.from_numpy(queries[0] / np.linalg.norm(queries[0]))
        scores, rows = torch.topk(torch.mv(self._unit, query), top)
        return scores[None].numpy(), rows[None].numpy()


def free_memory() -> int:
    """Bytes that a process can have, or 0 where the system does not say."""
    info = Path("/proc/meminfo")
    lines = info.read_text(encoding="ascii").splitlines() if info.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), 0)


def indexes(vectors: np.ndarray, faiss: bool) -> tuple[dict[str, Any], dict[str, float], dict[str, str]]:
    """The ways to search, the seconds that each took to build, and why others are not there."""
    made, seconds, left_out = {}, {}, {}
    ways: dict[str, Callable[[np.ndarray], Any]] = {"exact (SearchIndex)": SearchIndex}
    if free_memory() > 1.4 * vectors.nbytes:
        ways["plain float32 products"] = Plain
    else:
        left_out["plain float32 products"] = f"{vectors.nbytes / 1e9:.1f} GB do not fit into memory"
    if faiss:
        ways["faiss (FaissIndex)"] = FaissIndex
    for name, way in ways.items():
        seconds[name], made[name] = timed(partial(way, vectors))
        print(f"{name}: built in {seconds[name]:.1f} s", file=sys.stderr, flush=True)
    return made, seconds, left_out


def measure(kind: str, vectors: np.ndarray, queries: int, faiss: bool) -> tuple[str, dict[str, Any]]:
    """One kind of vectors: the table, and the same as data."""
    made, seconds, left_out = indexes(vectors, faiss)
    asked = np.concatenate(list(pieces(kind, queries, seed=2)))
    exact, times, found = made["exact (SearchIndex)"], {name: [] for name in made}, {name: [] for name in made}
    computed = []
    for i in range(-3, queries):  # the first ones get things ready
        query = asked[[max(i, 0)]]
        for name, index in made.items():
            took, answer = timed(partial(index.search, query, TOP))
            if i >= 0:
                times[name].append(1e3 * took)
                found[name].append(answer[1][0])
        if i >= 0:
            computed.append(exact.computed)
    wanted = nearest_by_matmul(vectors, asked, TOP)
    data: dict[str, Any] = {"not measured": left_out, "rows computed from the vectors": computed, "ways": {}}
    rows = []
    for name, index in made.items():
        got = np.stack(found[name])
        each = {
            "median ms": float(np.median(times[name])), "p95 ms": float(np.quantile(times[name], 0.95)),
            "index bytes": int(index.nbytes), "build s": seconds[name], "recall": recall_of(got, wanted),
            "all ms": times[name],
        }  # fmt: skip
        data["ways"][name] = each
        rows.append([
            name, f"{each['median ms']:.1f}", f"{each['p95 ms']:.1f}", f"{index.nbytes / 1e9:.2f}",
            f"{each['build s']:.0f}", f"{each['recall']:.3f}",
        ])  # fmt: skip
    rows += [[name, why, *["-"] * 4] for name, why in left_out.items()]
    data["largest difference of a score"] = worst = differences(
        vectors, asked, np.stack(found["exact (SearchIndex)"]), wanted
    )
    text = table(["way", "query, median ms", "p95 ms", "index, GB", "built in, s", f"recall at {TOP}"], rows)
    text += (
        f"\nThe exact index computed {np.median(computed):.0f} rows from the vectors for a query (median; at most "
        f"{max(computed)}). Its scores and those of the plain products differ by {worst:.1e} at most.\n"
    )
    if faiss:
        text += f"faiss: {made['faiss (FaissIndex)'].how}, as measured when it was built.\n"
    return text, data


def differences(vectors: np.ndarray, asked: np.ndarray, found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference between the scores of two answers, rank by rank, both computed in float64."""
    worst = 0.0
    for query, ours, theirs in zip(asked.astype(np.float64), found, wanted, strict=True):
        unit = query / np.linalg.norm(query)
        a, b = (np.sort(cosines(vectors, rows, unit)) for rows in (ours, theirs))
        worst = max(worst, float(np.abs(a - b).max()))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=EXACT_UP_TO)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--kinds", nargs="*", default=["clustered", "isotropic"], choices=["clustered", "isotropic"])
    parser.add_argument("--scratch", type=Path, help="folder for the vectors")
    parser.add_argument("--no-faiss", action="store_true")
    parser.add_argument("--out", type=Path, required=True, help="folder for search.md and search.json")
    options = parser.parse_args()
    needed = 4 * DIM * options.vectors
    scratch = options.scratch or Path(tempfile.gettempdir())
    if shutil.disk_usage(scratch).free < 1.2 * needed:
        raise SystemExit(f"{needed / 1e9:.1f} GB of vectors need more space than {scratch} has; give --scratch")
    versions = {}
    if not options.no_faiss:
        import faiss

        versions["faiss"] = faiss.__version__
    body, results = f"{options.vectors} vectors of {DIM} numbers, {options.queries} queries one at a time.\n", {}
    for kind in options.kinds:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            vectors = written(Path(folder, "vectors"), kind, options.vectors)
            text, results[kind] = measure(kind, vectors, options.queries, not options.no_faiss)
            del vectors  # Windows removes no file that is mapped
        body += f"\n## {kind}\n\n{text}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    body += f"\nThe process took {peak:.1f} GB at most, with the plain products' vectors and what is mapped.\n"
    results |= {"vectors": options.vectors, "dim": DIM, "peak GB": peak}
    write(options.out, "search", "Searching a million vectors", body, results, **versions)


if __name__ == "__main__":
    main()
