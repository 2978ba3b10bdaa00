"""How long a t-SNE map of many videos takes, by each library that can compute it.

    python benchmarks/tsne.py --out docs/results            # 10,000 videos: paper figure 7
    python benchmarks/tsne.py --quick --out quick           # a smoke test

The features are drawn, 2048 numbers a video: 101 classes (as UCF101 has), non-negative as pool5 is. Beside the time
stands how many of a video's ten nearest on the map are of its class; in the 2048 numbers themselves it is the first
line. Run it on a quiet machine; the libraries run one after the other.
"""

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np
from report import percent, table, write
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from pseudo3d.visualize.embedding import Engine, tsne

CLASSES, DIM, NEIGHBOURS = 101, 2048, 10


def drawn(videos: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (videos, 2048) and classes: a sparse centre for each class, and as much noise as the centres differ."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, videos)
    centres = rng.gamma(0.3, 1.0, (CLASSES, DIM))
    return np.maximum(centres[labels] + rng.normal(0, 1.0, (videos, DIM)), 0).astype(np.float32), labels


def same_class(points: np.ndarray, labels: np.ndarray) -> float:
    """Share of the nearest neighbours that are of a video's own class."""
    near = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(points).kneighbors(points, return_distance=False)
    return float((labels[near[:, 1:]] == labels[:, None]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="200 videos, to see that it runs")
    parser.add_argument("--out", type=Path, required=True, help="where tsne.md and tsne.json go")
    args = parser.parse_args()
    features, labels = drawn(200 if args.quick else args.videos)
    rows = [["the features themselves", "", percent(same_class(normalize(features), labels))]]
    results = {}
    engines: tuple[Engine, ...] = ("openTSNE", "scikit-learn")
    for name in engines:
        if name == "openTSNE" and importlib.util.find_spec("openTSNE") is None:
            rows.append(["openTSNE", "not installed", "not measured"])
            continue
        started = time.perf_counter()
        points = tsne(features, engine=name)
        seconds = time.perf_counter() - started
        share = same_class(points, labels)
        results[name] = {"seconds": seconds, "neighbours of the same class": share}
        rows.append([name, f"{seconds:.1f}", percent(share)])
    body = f"{len(features)} videos, {DIM} numbers each.\n\n" + table(
        ["map by", "s", f"of the {NEIGHBOURS} nearest, of the same class"], rows
    )
    write(args.out, "tsne", "t-SNE maps of many videos", body, {"videos": len(features), "maps": results})


if __name__ == "__main__":
    main()
