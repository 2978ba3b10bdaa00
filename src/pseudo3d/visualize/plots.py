"""Pictures of a run: the confusion matrix and the t-SNE map, as PNG and SVG."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from pseudo3d import files
from pseudo3d.errors import Pseudo3dError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by most colour-blind people, then lighter ones of Tol's; markers repeat less
# often than colours, so that a class is a pair of both.
_COLOURS = (
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
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_UNLABELLED = "no label"


def save_figure(figure: "Figure", path: str | Path) -> list[Path]:
    """Write ``path``.png and ``path``.svg, each in one step.

    Args:
        figure: of matplotlib.
        path: without a suffix (.png or .svg is taken off); its folder is made if missing.

    Returns:
        The two files.
    """
    path = Path(path)
    if path.suffix in (".png", ".svg"):
        path = path.with_suffix("")
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in ("png", "svg"):
        target = path.with_name(f"{path.name}.{kind}")
        with files.replacing(target) as temporary:
            figure.savefig(temporary, format=kind, dpi=150, bbox_inches="tight")
        written.append(target)
    return written


def plot_confusion(
    matrix: Int[np.ndarray, "classes classes"], class_names: Sequence[str], *, title: str = ""
) -> "Figure":
    """Counts by true class (rows) and predicted class (columns), shaded by the share of the row.

    Names that would be too small to read (from about 150 classes on) and, from 26 on, counts are left out.
    """
    n = len(class_names)
    side = min(12.0, 2.2 + 0.45 * n)
    figure = _figure(side, side)
    axes = figure.subplots()
    share = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if n <= 25:
        for i, j in np.ndindex(n, n):
            if matrix[i, j]:
                axes.text(
                    j, i, str(matrix[i, j]), ha="center", va="center", color="white" if share[i, j] > 0.5 else "black"
                )
    size = min(10.0, 0.7 * side * 72 / n)  # points: a name is no higher than its row
    if size >= 4:
        axes.set_xticks(range(n), class_names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
        axes.set_yticks(range(n), class_names, fontsize=size)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    return figure


def tsne(features: Float[np.ndarray, "videos dim"], *, seed: int = 0) -> Float[np.ndarray, "videos 2"]:
    """A 2-D map in which near neighbours stay near (paper figure 7; van der Maaten and Hinton, 2008).

    Features are L2-normalised first, as for the SVM.

    Raises:
        Pseudo3dError: fewer than 3 videos, or all of them have the same features.
    """
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import normalize

    if len(features) < 3:
        raise Pseudo3dError(f"a map needs at least 3 videos, got {len(features)}")
    directions = normalize(features)
    if np.ptp(directions, axis=0).max() < 1e-6:  # scikit-learn divides by their spread, and crashes
        raise Pseudo3dError(f"all {len(features)} videos have the same features: there is nothing to map")
    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(directions)


def plot_embedding(
    panels: Sequence[tuple[str, Float[np.ndarray, "videos 2"]]], labels: Sequence[str | None]
) -> "Figure":
    """Maps of the same videos side by side, one colour and marker a class.

    Args:
        panels: title and points of each map.
        labels: class names in the order of the points; None is drawn grey.
    """
    names = sorted({label for label in labels if label is not None})
    styles = {n: (_COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]) for i, n in enumerate(names)}
    legend = sorted({label if label is not None else _UNLABELLED for label in labels}) if names else []
    if len(names) > len(_COLOURS) * len(_MARKERS):
        legend = []  # styles repeat: a name would stand for several classes
    width = 4.6 * len(panels)
    columns = max(1, int(width / (0.5 + 0.09 * max(map(len, legend), default=0))))  # inches that a name takes
    rows = -(-len(legend) // columns)
    figure = _figure(width, 4.6 + 0.22 * rows)
    figure.set_layout_engine("constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False)
    for axes, (title, points) in zip(all_axes[0], panels, strict=True):
        _scatter(axes, points, labels, styles)
        axes.set(title=title, xticks=[], yticks=[])
    if legend:
        handles, texts = all_axes[0][0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
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


def _figure(width: float, height: float) -> "Figure":
    """A figure of its own, in inches: pyplot's would need a window or change the backend of a notebook."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))
