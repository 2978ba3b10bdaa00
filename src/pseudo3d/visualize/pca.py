"""Accuracy over the number of dimensions that a representation is reduced to (paper Figure 6)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pseudo3d.evaluation.reduction import Reduction
from pseudo3d.visualize.plots import COLOURS, MARKERS, new_figure, short_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_reductions(curves: Sequence[tuple[str, Reduction]], *, title: str = "") -> "Figure":
    """One line a representation, from many dimensions on the left to few on the right, as the paper has it.

    Args:
        curves: name and accuracies of each; the steps between dimensions are drawn equally wide.
        title: above the picture.

    Example:
        >>> one = Reduction((100, 10), (0.9, 0.7), 2048, 0.92, (), 30, "the data's own splits")
        >>> axes = plot_reductions([("P3D ResNet", one)]).axes[0]
        >>> [tick.get_text() for tick in axes.get_xticklabels()], axes.lines[0].get_ydata().tolist()
        (['100', '10'], [90.0, 70.0])
    """
    figure = new_figure(4.6, 3.8)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    dims = sorted({dim for _, curve in curves for dim in curve.dims}, reverse=True)
    for i, (name, curve) in enumerate(curves):
        axes.plot(
            [dims.index(dim) for dim in curve.dims],
            [100 * accuracy for accuracy in curve.accuracies],
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            markersize=5,
            linewidth=1.6,
            label=short_name(name),
        )
    axes.set_xticks(range(len(dims)), [f"{dim}" for dim in dims])
    axes.set(xlabel="feature dimension", ylabel="accuracy, %", title=title)
    axes.margins(x=0.04, y=0.08)
    axes.grid(color="#e0e0e0", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    columns = 2 if max((len(short_name(name)) for name, _ in curves), default=0) <= 22 else 1
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    return figure
