"""Accuracy over the size and depth of networks (paper Figure 1).

What is drawn here as published is what the paper prints: the accuracy in its tables, and the size in a table or in the
text. For P3D ResNet-152 the text of the paper that we have gives no size (the drawing of Figure 1 is not in it): its
parameters are counted, and the point says so. Layers are counted in all networks alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from pseudo3d.errors import Pseudo3dError
from pseudo3d.evaluation.published import PublishedRow, published_rows
from pseudo3d.evaluation.results import Result
from pseudo3d.visualize.plots import COLOURS, MARKERS, new_figure, short_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Benchmark = Literal["sports1m", "ucf101"]


@dataclass(frozen=True)
class NetworkPoint:
    """A network in the figure.

    Args:
        name: beside the point.
        megabytes: size of the parameters in float32, 10^6 bytes (or, if printed, as printed).
        layers: convolutions and fully connected layers, without those of shortcuts.
        accuracy: 0..1.
        measured: here; otherwise published.
        counted: the size is counted here and not published.
    """

    name: str
    megabytes: float
    layers: int
    accuracy: float
    measured: bool
    counted: bool


@dataclass(frozen=True)
class _Benchmark:
    """Where a benchmark's numbers are: published table and metric, the classes, and which results of ours count."""

    table: str
    metric: str
    classes: int
    protocols: tuple[str, ...]
    metrics: tuple[str, ...]
    split: str
    label: str


_BENCHMARKS: dict[Benchmark, _Benchmark] = {
    "sports1m": _Benchmark(
        "table2", "video hit@1", 487, ("sports1m",), ("video hit@1",), "", "video hit@1 on Sports-1M, %"
    ),
    "ucf101": _Benchmark(
        "table1",
        "accuracy",
        101,
        ("bench-table1", "ucf101-network"),
        ("accuracy", "video hit@1"),
        "1",
        "accuracy on UCF101, split 1, %",
    ),
}
# Our name and blocks of the networks whose printed rows are drawn; the others' layers are printed nowhere.
_NETWORKS = {
    "C3D [31]": ("c3d", "ABC"),
    "ResNet-152 [7]": ("resnet152", "ABC"),
    "P3D ResNet (ours)": ("p3d_resnet152", "ABC"),
    "ResNet-50": ("resnet50", "ABC"),
    "P3D-A ResNet": ("p3d_resnet50", "A"),
    "P3D-B ResNet": ("p3d_resnet50", "B"),
    "P3D-C ResNet": ("p3d_resnet50", "C"),
    "P3D ResNet": ("p3d_resnet50", "ABC"),
}


@cache
def network_size(
    name: str, *, num_classes: int | None = None, blocks: str = "ABC", in_channels: int = 3
) -> tuple[float, int]:
    """MB of float32 parameters (10^6 bytes), and layers: convolutions and fully connected ones, no shortcut's.

    Raises:
        Pseudo3dError: no such network.

    Example:
        >>> [network_size(name, num_classes=487)[1] for name in ("c3d", "resnet152", "p3d_resnet152")]
        [11, 152, 199]
    """
    import torch
    from torch import nn

    from pseudo3d.models import create_model
    from pseudo3d.models.cost import count_parameters

    blocks = blocks if name.startswith("p3d") else "ABC"  # the others have none, and say "ABC"
    with torch.device("meta"):
        model = create_model(name, num_classes=num_classes, blocks=blocks, in_channels=in_channels)
    kinds = (nn.Conv2d, nn.Conv3d, nn.Linear)
    layers = [path for path, module in model.named_modules() if isinstance(module, kinds) and "shortcut" not in path]
    return count_parameters(model) * 4 / 1e6, len(layers)


def published_points(benchmark: Benchmark = "sports1m") -> tuple[NetworkPoint, ...]:
    """The paper's networks whose layers can be counted.

    Args:
        benchmark: "sports1m" (Figure 1; accuracies of Table 2) or "ucf101" (Table 1).

    Example:
        >>> [(point.name, round(point.megabytes), point.accuracy, point.counted) for point in published_points()]
        [('C3D', 321, 0.6, False), ('C3D, I380K', 321, 0.611, False), ('ResNet-152', 235, 0.646, False),
         ('P3D ResNet', 267, 0.664, True)]
    """
    wanted = _BENCHMARKS[benchmark]
    printed = {
        row.method: row.values["model size"].number for row in published_rows("text") if "model size" in row.values
    }
    points = []
    for row in published_rows(wanted.table):
        if row.method not in _NETWORKS:
            continue
        network, blocks = _NETWORKS[row.method]
        counted, layers = network_size(network, num_classes=wanted.classes, blocks=blocks)
        size = row.values["model size"].number if "model size" in row.values else printed.get(row.method)
        accuracy = round(row.values[wanted.metric].number / 100, 6)
        points.append(
            NetworkPoint(_short(row), counted if size is None else size, layers, accuracy, False, size is None)
        )
    return tuple(points)


def measured_point(result: Result, benchmark: Benchmark = "sports1m") -> NetworkPoint:
    """A result of ours as a point; its size is counted.

    Args:
        result: of ``p3d evaluate sports1m``; for "ucf101", of ``p3d evaluate ucf101 --classifier network`` or
            ``p3d bench table1``, with split 1.
        benchmark: that it must be of.

    Raises:
        Pseudo3dError: it is of another benchmark, has no such accuracy, or does not say of which network it is.

    Example:
        >>> from pseudo3d.evaluation.results import Measurement
        >>> facts = {"architecture": {"name": "p3d_resnet50", "num_classes": 487}}
        >>> point = measured_point(Result("sports1m", "our P3D-50", (Measurement("video hit@1", 0.5),), facts))
        >>> round(point.megabytes, 1), point.layers, point.accuracy, point.measured
        (103.7, 63, 0.5, True)
    """
    wanted = _BENCHMARKS[benchmark]
    if result.protocol not in wanted.protocols:
        raise Pseudo3dError(
            f"{result.name}: a result of {result.protocol} has no place beside those of {benchmark}; it takes "
            f"{' and '.join(wanted.protocols)}"
        )
    found = [result.measurement(metric, wanted.split) for metric in wanted.metrics]
    accuracy = next((each.value for each in found if each is not None), None)
    if accuracy is None:
        split = f" of split {wanted.split}" if wanted.split else ""
        raise Pseudo3dError(f"{result.name}: has no {' or '.join(wanted.metrics)}{split}, so that it cannot be drawn")
    architecture = result.facts.get("architecture")
    if not isinstance(architecture, dict) or "name" not in architecture:
        raise Pseudo3dError(f"{result.name}: does not say which network it is of; its size cannot be counted")
    megabytes, layers = network_size(
        architecture["name"],
        num_classes=architecture.get("num_classes", wanted.classes),
        blocks=architecture.get("blocks", "ABC"),
        in_channels=architecture.get("in_channels", 3),
    )
    return NetworkPoint(result.name, megabytes, layers, accuracy, True, True)


def plot_sizes(points: Sequence[NetworkPoint], benchmark: Benchmark = "sports1m") -> "Figure":
    """Accuracy over size on the left and over layers on the right; published points are hollow, ours filled.

    Each network has a colour and a shape of its own.

    Args:
        points: of ``published_points`` and ``measured_point``, at least one.
        benchmark: what the accuracy is of.
    """
    figure = new_figure(4.6, 3.0 + 0.2 * len(points))
    figure.set_layout_engine("constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for i, point in enumerate(points):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        face = colour if point.measured else "white"
        for axes, x in ((left, point.megabytes), (right, point.layers)):
            axes.plot(x, 100 * point.accuracy, marker, color=colour, markerfacecolor=face, markersize=7,
                      markeredgewidth=1.6, label=_described(point))  # fmt: skip
    left.set(xlabel="size, MB", ylabel=_BENCHMARKS[benchmark].label, xlim=(0, 1.12 * max(p.megabytes for p in points)))
    right.set(xlabel="layers", xlim=(0, 1.12 * max(p.layers for p in points)))
    for axes in (left, right):
        axes.margins(y=0.12)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(color="#e0e0e0", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *left.get_legend_handles_labels(),
        loc="outside lower center",
        title="hollow: published; filled: measured; *: size counted here",
        frameon=False,
        fontsize=9,
        title_fontsize=9,
    )
    return figure


def _described(point: NetworkPoint) -> str:
    size = f"{point.megabytes:.0f} MB{'*' if point.counted else ''}"
    name, ours = short_name(point.name, 20), ", measured" if point.measured else ""
    return f"{name}: {point.accuracy:.1%}, {size}, {point.layers} layers{ours}"


def _short(row: PublishedRow) -> str:
    """The method without its reference, with its training data where there are several of it."""
    name = row.method.split(" [")[0].removesuffix(" (ours)")
    data = row.values.get("pre-train data")
    return f"{name}, {data.value}" if name == "C3D" and data is not None and data.value != "-" else name
