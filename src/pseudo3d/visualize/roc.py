"""ROC curves of pair classifiers (ASLAN)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from pseudo3d.visualize.plots import COLOURS, new_figure, short_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = tuple[str, Float[np.ndarray, "points"], Float[np.ndarray, "points"], float]
_DASHES = ("-", "--", "-.", ":")


def plot_roc(curves: Sequence[Curve]) -> "Figure":
    """True positives over false ones at every threshold, with the diagonal of chance; the legend is below.

    Args:
        curves: (name, false positive rates, true positive rates, area under the curve) of each, all 0..1 and rising,
            as ``metrics.roc_curve`` and ``metrics.roc_auc`` give them. Each has a colour and a dash of its own.

    Example:
        >>> rates = np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.75, 1.0])
        >>> figure = plot_roc([("pool5", *rates, 0.875)])
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['pool5, AUC 87.5%', 'chance']
    """
    figure = new_figure(4.6, 4.6 + 0.22 * (len(curves) + 1))
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    for i, (name, false_rate, true_rate, auc) in enumerate(curves):
        style = _DASHES[i // len(COLOURS) % len(_DASHES)] if len(curves) > len(COLOURS) else _DASHES[i % len(_DASHES)]
        axes.plot(
            100 * false_rate,
            100 * true_rate,
            color=COLOURS[i % len(COLOURS)],
            linestyle=style,
            linewidth=1.6,
            label=f"{short_name(name)}, AUC {auc:.1%}",
        )
    axes.plot([0, 100], [0, 100], color="#999999", linewidth=0.8, label="chance")
    ticks = range(0, 101, 20)
    axes.set(xlabel="false positives, %", ylabel="true positives, %", xticks=ticks, yticks=ticks, aspect="equal")
    axes.set(xlim=(-1, 101), ylim=(-1, 101))
    axes.grid(color="#e0e0e0", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    return figure
