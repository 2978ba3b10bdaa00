"""Pictures of a run: the confusion matrix, the map of videos and the curves of training, as PNG and SVG."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Int

from pseudo3d import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by most colour-blind people, then lighter ones of Tol's; markers repeat less
# often than colours, so that a class is a pair of both.
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#999933",
    "#882255",
    "#44AA99",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
COLUMN = 3.3
"""Inches: how wide a picture is in a column of a paper."""

_COLUMN_TEXT = 7.0  # points: of what has to be read there
_UNLABELLED = "no label"
_MOST_IN_LEGEND = 30
# What an epoch's report may tell of hits; colour and marker go with the name, whichever of them there are.
_HITS = ("train clip hit@1", "val clip hit@1", "val video hit@1", "val video hit@5")


def save_figure(
    figure: "Figure", path: str | Path, *, kinds: Sequence[Literal["png", "svg"]] = ("png", "svg")
) -> list[Path]:
    """Write ``path``.png and ``path``.svg, each in one step; the same picture gives the same bytes.

    Args:
        figure: of matplotlib.
        path: without a suffix (.png or .svg is taken off); its folder is made if missing.
        kinds: which of the two.

    Returns:
        The files.
    """
    import matplotlib as mpl

    path = Path(path)
    if path.suffix in (".png", ".svg"):
        path = path.with_suffix("")
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in kinds:
        target = path.with_name(f"{path.name}.{kind}")
        # An SVG would hold the time and random names.
        metadata = {"Date": None} if kind == "svg" else None
        with files.replacing(target) as temporary, mpl.rc_context({"svg.hashsalt": "pseudo3d"}):
            figure.savefig(temporary, format=kind, dpi=150, bbox_inches="tight", metadata=metadata)
        written.append(target)
    return written


def plot_confusion(
    matrix: Int[np.ndarray, "classes classes"], class_names: Sequence[str], *, title: str = ""
) -> "Figure":
    """Counts by true class (rows) and predicted class (columns), shaded by the share of the row.

    Names that would be too small to read (from about 150 classes on) and, from 26 on, counts are left out. Those of the
    columns are upright where slanted ones would run into each other.
    """
    n = len(class_names)
    side = min(12.0, 2.2 + 0.45 * n)
    figure = new_figure(side, side)
    axes = figure.subplots()
    share = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    cell = 0.77 * side * 72 / max(1, n)  # points: matplotlib's margins leave so much of a figure
    large = max(10.0, _COLUMN_TEXT * side / COLUMN)
    if n <= 25:
        _write_counts(axes, matrix, share > 0.5, min(large, 0.45 * cell), cell)
    # lines of text are 1.2 times as high as their letters, and at 45 degrees 0.7 of a cell apart
    size = min(large, (0.55 if n <= 25 else 0.82) * cell)
    if size >= 4:
        axes.set_xticks(range(n), class_names, fontsize=size, rotation=90)
        axes.set_yticks(range(n), class_names, fontsize=size)
        if n <= 25:
            axes.set_xticks(range(n), class_names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_xlabel("predicted", fontsize=large)
    axes.set_ylabel("true", fontsize=large)
    axes.set_title(title, fontsize=min(1.2 * large, 1.6 * 72 * side / max(1, len(title))))
    return figure


def _write_counts(axes: "Axes", matrix: np.ndarray, dark: np.ndarray, size: float, cell: float) -> None:
    """Each count in its cell of so many points, smaller where it has many digits."""
    for i, j in zip(*matrix.nonzero(), strict=True):
        fitting = min(size, 1.4 * cell / len(str(matrix[i, j])))
        colour = "white" if dark[i, j] else "black"
        axes.text(j, i, str(matrix[i, j]), ha="center", va="center", color=colour, fontsize=fitting)


def plot_embedding(
    panels: Sequence[tuple[str, Float[np.ndarray, "videos 2"]]], labels: Sequence[str | None]
) -> "Figure":
    """Maps of the same videos side by side, one colour and marker a class.

    Up to 30 classes are named in a legend. More of them nobody would find there: their names stand in the maps, which
    are then larger, each at the middle of its class.

    Args:
        panels: title and points of each map.
        labels: class names in the order of the points; None is drawn grey.
    """
    names = sorted({label for label in labels if label is not None})
    styles = {n: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, n in enumerate(names)}
    named_inside = len(names) > _MOST_IN_LEGEND
    side = 6.6 if named_inside else 4.6
    width = side * len(panels)
    legend = sorted({label if label is not None else _UNLABELLED for label in labels}) if names else []
    if named_inside:
        legend = [_UNLABELLED] if None in labels else []
    columns = max(1, int(width / (0.5 + 0.09 * max(map(len, legend), default=0))))  # inches that a name takes
    rows = -(-len(legend) // columns)
    figure = new_figure(width, side + 0.22 * rows)
    figure.set_layout_engine("constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, points) in zip(all_axes, panels, strict=True):
        _scatter(axes, points, labels, styles)
        axes.set(title=title, xticks=[], yticks=[])
    if legend:
        found = dict(zip(*reversed(all_axes[0].get_legend_handles_labels()), strict=True))
        handles = [found[name] for name in found if name in legend]
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    if named_inside:
        from pseudo3d.visualize.naming import write_names

        write_names(figure, all_axes, [points for _, points in panels], labels)
    return figure


def _scatter(
    axes: "Axes", points: np.ndarray, labels: Sequence[str | None], styles: dict[str, tuple[str, str]]
) -> None:
    classes = np.array(labels, dtype=object)
    if None in labels:
        x, y = points[classes == None].T  # noqa: E711 (elementwise)
        axes.scatter(x, y, s=10, color="#bbbbbb", label=_UNLABELLED)
    for name, (colour, marker) in styles.items():
        x, y = points[classes == name].T
        axes.scatter(x, y, s=14, color=colour, marker=marker, label=name, linewidths=0)


def plot_curves(reports: Sequence[Mapping[str, Any]]) -> "Figure":
    """Loss and hits over the epochs of a training run, one above the other.

    Args:
        reports: of the epochs, each with "epoch" (from 1), "loss" and any of "train clip hit@1", "val clip hit@1",
            "val video hit@1", "val video hit@5" (0..1); those without an epoch are passed over, but for a "test",
            whose video hit@1 is a dashed line. None and numbers that are not finite are gaps.

    Example:
        >>> figure = plot_curves([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.5, "val video hit@1": 0.4}])
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['training loss', 'hits, %']
    """
    figure = new_figure(4.6, 5.0)  # without a layout engine, which takes a third more time in every epoch
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"hspace": 0.08, "bottom": 0.2})
    epochs = [report for report in reports if "epoch" in report]
    _curve(upper, epochs, "loss", 1.0, COLOURS[6], MARKERS[0])
    for i, name in enumerate(_HITS):
        _curve(lower, epochs, name, 100.0, COLOURS[i], MARKERS[i])
    test = next((report["test"].get("video hit@1") for report in reports if "test" in report), None)
    if test is not None and math.isfinite(test):
        lower.axhline(100 * test, color="#606060", linestyle="--", linewidth=1, label=f"test video hit@1: {test:.1%}")
    upper.set(ylabel="training loss")
    lower.set(xlabel="epoch", ylabel="hits, %", ylim=(-3, 103), yticks=range(0, 101, 20))
    for axes in (upper, lower):
        axes.grid(color="#e0e0e0", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    lower.set_xlim(0, 1.03 * max((report["epoch"] for report in epochs), default=1))
    lower.xaxis.get_major_locator().set_params(integer=True)
    figure.align_ylabels()
    if lower.get_legend_handles_labels()[0]:
        lower.legend(loc="upper center", bbox_to_anchor=(0.5, -0.23), ncols=2, frameon=False, fontsize=9)
    return figure


def _curve(
    axes: "Axes", reports: Sequence[Mapping[str, Any]], key: str, scale: float, colour: str, marker: str
) -> None:
    """A line through the values that there are: not every epoch was validated."""
    points = [(report["epoch"], report.get(key)) for report in reports]
    points = [(epoch, scale * value) for epoch, value in points if value is not None and math.isfinite(value)]
    if points:
        every = -(-len(points) // 15)  # more markers would hide the line
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=colour, marker=marker, markersize=4, markevery=every, linewidth=1.4, label=key)


def short_name(name: str, most: int = 34) -> str:
    """A name that a legend has room for: its middle is left out, since both ends of a path tell runs apart.

    Example:
        >>> short_name("p3d_resnet50, runs/a_very_long_name_of_a_run/checkpoints/best")
        'p3d_resnet50, run…/checkpoints/best'
    """
    return name if len(name) <= most + 1 else f"{name[: most // 2]}…{name[len(name) - most // 2 :]}"


def new_figure(width: float, height: float) -> "Figure":
    """A figure of its own, in inches: pyplot's would need a window or change the backend of a notebook."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))
