"""Linear SVMs beside scikit-learn used directly: a problem of UCF101's size, and 420 models that leave a video out.

    python benchmarks/svm.py --out docs/results
    python benchmarks/svm.py --quick --out results     # tiny: to see that it runs

The features are made up, like pool5: 2048 numbers, none below zero, that videos of all classes have much of in common,
L2-normalised. How many are classified right says nothing of any network.

- one split: 9,537 training and 3,783 test videos of 101 classes, those of UCF101's split 1. Directly:
  ``LinearSVC().fit(train, y)``, then ``decision_function(test)``.
- leave one out: 420 videos of 14 classes, YUPENN's. Directly: the same 420 times, on all videos but one.

The direct way runs as scikit-learn is made, with its own tolerance and choice of solver, on one core. Beside it stand
the number of videos to which both ways give the same class, and how far the decision values are apart: the direct way's
tolerance. Processor seconds are those of all threads together: they say what other work beside it does not disturb.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from report import percent, table, write
from sklearn.svm import LinearSVC

from pseudo3d.evaluation.svm import l2_normalised, leave_one_out_scores, svm_scores

UCF101 = (9537, 3783, 101)  # training videos, test videos, classes
YUPENN = (420, 14)


@dataclass(frozen=True, eq=False)
class Measured:
    """What one way took, of the clock and of all processors together, and said."""

    seconds: float
    processor: float
    scores: np.ndarray


def pool5_like(rows: int, classes: int, dim: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Features of videos, and their classes, as many of each as there can be."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(rows) % classes)
    middles = rng.gamma(1.0, size=dim) + 0.4 * rng.gamma(1.0, size=(classes, dim))
    return l2_normalised(np.maximum(middles[y] + noise * rng.standard_normal((rows, dim)), 0)), y


def timed(name: str, function: Callable[[], np.ndarray]) -> Measured:
    began, before = time.perf_counter(), time.process_time()
    scores = function()
    seconds, processor = time.perf_counter() - began, time.process_time() - before
    print(f"{name}: {seconds:.1f} s, {processor:.1f} s of processors", file=sys.stderr, flush=True)
    return Measured(seconds, processor, scores)


def direct(train: np.ndarray, y: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Decision values by scikit-learn alone."""
    return LinearSVC(C=1.0, random_state=0).fit(train, y).decision_function(test)


def direct_loop(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """One model after the other, each without one row."""
    rows = np.arange(len(x))
    return np.concatenate([direct(x[rows != i], y[rows != i], x[i : i + 1]) for i in rows])


def compared(ours: Measured, plain: Measured, y: np.ndarray) -> dict[str, Any]:
    """Both ways as data."""
    guesses = ours.scores.argmax(axis=1), plain.scores.argmax(axis=1)
    return {
        "ours s": ours.seconds,
        "directly s": plain.seconds,
        "times as fast": plain.seconds / ours.seconds,
        "ours processor s": ours.processor,
        "directly processor s": plain.processor,
        "videos": len(y),
        "same class": int((guesses[0] == guesses[1]).sum()),
        "largest difference of a decision value": float(np.abs(ours.scores - plain.scores).max()),
        "accuracy": float((guesses[0] == y).mean()),
        "accuracy directly": float((guesses[1] == y).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small problems")
    parser.add_argument("--jobs", type=int, help="SVMs solved at a time; one a core without")
    parser.add_argument("--noise", type=float, default=2.6, help="deviation of what a video has of its own")
    parser.add_argument("--out", type=Path, required=True, help="folder for svm.md and svm.json")
    options = parser.parse_args()
    (trained, tested, classes), (few, scenes), dim = (
        ((60, 30, 5), (24, 3), 40) if options.quick else (UCF101, YUPENN, 2048)
    )
    x, y = pool5_like(trained + tested, classes, dim, options.noise)
    train, test, y_train, y_test = x[:trained], x[trained:], y[:trained], y[trained:]
    ours = timed("one split", lambda: svm_scores(train, y_train, test, classes, jobs=options.jobs))
    plain = timed("one split, directly", lambda: direct(train, y_train, test))
    found = {"one split": compared(ours, plain, y_test)}
    x, y = pool5_like(few, scenes, dim, options.noise)
    ours = timed("leave one out", lambda: leave_one_out_scores(x, y, scenes, jobs=options.jobs))
    plain = timed("leave one out, directly", lambda: direct_loop(x, y))
    found["leave one out"] = compared(ours, plain, y)
    rows = [
        [
            name, f"{each['ours s']:.1f}", f"{each['directly s']:.1f}", f"{each['times as fast']:.1f}",
            f"{each['ours processor s']:.1f}", f"{each['directly processor s']:.1f}",
            f"{each['same class']} of {each['videos']}", f"{each['largest difference of a decision value']:.1e}",
            percent(each["accuracy"]),
        ]
        for name, each in found.items()
    ]  # fmt: skip
    heads = [
        "", "ours, s", "directly, s", "times as fast", "ours, processor s", "directly, processor s", "same class",
        "decision values apart", "classified right",
    ]  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    body = (
        f"{trained} training and {tested} test videos of {classes} classes; {few} videos of {scenes} classes; {dim} "
        f"numbers each.\n\n{table(heads, rows)}\nThe process took {peak:.1f} GB at most.\n"
    )
    write(
        options.out, "svm", "Linear SVMs beside scikit-learn used directly", body, found | {"peak GB": peak},
        precision="float64", **{"scikit-learn": sklearn.__version__},
    )  # fmt: skip


if __name__ == "__main__":
    main()
