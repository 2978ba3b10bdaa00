r"""Loss curves of training in float32 and under bfloat16 autocast: same videos, same first weights, same draws.

    python benchmarks/precision.py --out docs/results --image docs/images/precision_curves    # about 15 minutes
    python benchmarks/precision.py --quick --out quick                                        # a smoke test

The network of ``p3d demo`` (P3D ResNet-14, from scratch) on its moving digits, by ``training.loop.train``. Clips, crops
and dropout of a seed are the same in both precisions; what differs is rounding, which grows as it does between any two
runs. The yardstick is how far runs of different seeds are from each other in float32.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from report import percent, table, write

from pseudo3d.data.annotations import SampleList, read_samples
from pseudo3d.data.synthetic import write_moving_digits
from pseudo3d.training.config import TrainConfig
from pseudo3d.training.loop import train
from pseudo3d.training.recipes import get_recipe
from pseudo3d.visualize.plots import save_figure

PRECISIONS = ("float32", "bfloat16")
COLOURS = {"float32": "#0072B2", "bfloat16": "#D55E00"}


def run_once(samples: SampleList, config: TrainConfig, out: Path) -> dict[str, Any]:
    """The loss of each epoch, and video hit@1 on the test videos at the end."""
    result = train(samples, config, out, quiet=True)
    reports = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [report["loss"] for report in reports if "epoch" in report]
    return {"losses": losses, "test video hit@1": result.test["video hit@1"]}


def distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Mean absolute difference of two curves over the epochs."""
    return statistics.mean(abs(x - y) for x, y in zip(a, b, strict=True))


def draw(runs: dict[str, dict[str, dict[str, Any]]]) -> Figure:
    """Training loss over the epochs, a colour a precision, a line a seed."""
    figure = Figure(figsize=(5.6, 3.6))
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    for precision, style in zip(PRECISIONS, ("-", "--"), strict=True):
        for i, run in enumerate(runs[precision].values()):
            epochs = range(1, len(run["losses"]) + 1)
            label = precision if i == 0 else None
            axes.plot(epochs, run["losses"], style, color=COLOURS[precision], linewidth=1.4, label=label)
    axes.set(xlabel="epoch", ylabel="training loss")
    axes.grid(color="#e0e0e0", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
    return figure


def report_body(runs: dict[str, dict[str, dict[str, Any]]]) -> tuple[str, dict[str, float | None]]:
    """Tables, and the distances between precisions and between seeds."""
    full, half = (runs[precision] for precision in PRECISIONS)
    rows = []
    for seed in full:
        a, b = full[seed], half[seed]
        rows.append([
            seed, f"{a['losses'][-1]:.3f}", f"{b['losses'][-1]:.3f}", f"{distance(a['losses'], b['losses']):.3f}",
            percent(a["test video hit@1"]), percent(b["test video hit@1"]),
        ])  # fmt: skip
    columns = ["seed", "last loss, float32", "bfloat16", "between the curves", "video hit@1, float32", "bfloat16"]
    between = statistics.mean(distance(full[seed]["losses"], half[seed]["losses"]) for seed in full)
    pairs = [distance(a["losses"], b["losses"]) for a, b in itertools.combinations(full.values(), 2)]
    seeds = statistics.mean(pairs) if pairs else None
    text = table(columns, rows) + (
        f"\nMean distance of two loss curves: {between:.3f} between precisions of one seed, "
        f"{'not measured' if seeds is None else f'{seeds:.3f}'} between seeds in float32.\n"
    )
    return text, {"between precisions": between, "between seeds": seeds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="the demo's without")
    parser.add_argument("--train-per-class", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--image", type=Path, help="where to draw the curves, without a suffix (.svg and .png)")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--out", type=Path, required=True, help="folder for precision.md and precision.json")
    options = parser.parse_args()
    config = replace(get_recipe("demo"), device=options.device, test_clips=4)
    if options.epochs is not None:
        config = replace(config, epochs=options.epochs)
    if options.quick:
        options.seeds, options.train_per_class = [0], 2
        config = replace(config, epochs=2, size=32, resize=(36, 36), batch_size=8, test_clips=1, workers=0)
    runs: dict[str, dict[str, dict[str, Any]]] = {precision: {} for precision in PRECISIONS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        test_per_class = 1 if options.quick else 20
        samples = read_samples(
            write_moving_digits(
                folder / "videos", train_per_class=options.train_per_class, test_per_class=test_per_class
            )
        )
        for seed, precision in itertools.product(options.seeds, PRECISIONS):
            of_run = replace(config, seed=seed, dtype=precision)
            runs[precision][str(seed)] = run_once(samples, of_run, folder / f"{precision}_{seed}")
            print(seed, precision, runs[precision][str(seed)], file=sys.stderr, flush=True)
    if options.image is not None:
        save_figure(draw(runs), options.image)
    body, distances = report_body(runs)
    results = {"runs": runs, "mean distance of loss curves": distances}
    write(options.out, "precision", "Training in bfloat16", body, results, precision="precisions as named")


if __name__ == "__main__":
    main()
