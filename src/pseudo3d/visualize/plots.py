"""Pictures of a run: the confusion matrix and the t-SNE map, as PNG and SVG."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from pseudo3d import files

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


def save_figure(figure: "Figure", path: str | Path) -> list[Path]:
    """Write ``path``.png and ``path``.svg, each in one step, and close the figure.

    Args:
        figure: of matplotlib.
        path: without a suffix; its folder is made if missing.

    Returns:
        The two files.
    """
    import matplotlib.pyplot as plt

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in ("png", "svg"):
        target = path.with_name(f"{path.name}.{kind}")
        with files.replacing(target) as temporary:
            figure.savefig(temporary, format=kind, dpi=150, bbox_inches="tight")
        written.append(target)
    plt.close(figure)
    return written


def plot_confusion(
    matrix: Int[np.ndarray, "classes classes"], class_names: Sequence[str], *, title: str = ""
) -> "Figure":
    """Counts by true class (rows) and predicted class (columns), shaded by the share of the row."""
    plt = _pyplot()
    n = len(class_names)
    side = min(12.0, 2.2 + 0.45 * n)
    figure, axes = plt.subplots(figsize=(side, side))
    share = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if n <= 25:
        for i, j in np.ndindex(n, n):
            if matrix[i, j]:
                axes.text(
                    j, i, str(matrix[i, j]), ha="center", va="center", color="white" if share[i, j] > 0.5 else "black"
                )
    axes.set_xticks(range(n), class_names, rotation=45, ha="right")
    axes.set_yticks(range(n), class_names)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    return figure


def tsne(features: Float[np.ndarray, "videos dim"], *, seed: int = 0) -> Float[np.ndarray, "videos 2"]:
    """A 2-D map in which near neighbours stay near (paper figure 7; van der Maaten and Hinton, 2008).

    Features are L2-normalised first, as for the SVM.

    Raises:
        ValueError: fewer than 3 videos.
    """
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import normalize

    if len(features) < 3:
        raise ValueError(f"t-SNE needs at least 3 videos, got {len(features)}")
    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(normalize(features))


def plot_embedding(
    panels: Sequence[tuple[str, Float[np.ndarray, "videos 2"]]], labels: Sequence[str | None]
) -> "Figure":
    """Maps of the same videos side by side, one colour and marker a class.

    Args:
        panels: title and points of each map.
        labels: class names in the order of the points; None is drawn grey.
    """
    plt = _pyplot()
    names = sorted({label for label in labels if label is not None})
    styles = {n: (_COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]) for i, n in enumerate(names)}
    figure, all_axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 4.6), squeeze=False)
    for axes, (title, points) in zip(all_axes[0], panels, strict=True):
        _scatter(axes, points, labels, styles)
        axes.set(title=title, xticks=[], yticks=[])
    if 0 < len(names) <= 20:
        handles, texts = all_axes[0][0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="lower center", ncols=min(8, len(names)), frameon=False, fontsize=9)
        figure.subplots_adjust(bottom=0.1 + 0.045 * (1 + (len(names) - 1) // 8), wspace=0.06)
    return figure


def _scatter(
    axes: "Axes", points: np.ndarray, labels: Sequence[str | None], styles: dict[str, tuple[str, str]]
) -> None:
    classes = np.array([label if label is not None else "" for label in labels])
    if "" in classes:
        x, y = points[classes == ""].T
        axes.scatter(x, y, s=10, color="#bbbbbb", label="no label")
    for name, (colour, marker) in styles.items():
        x, y = points[classes == name].T
        axes.scatter(x, y, s=14, color=colour, marker=marker, label=name, linewidths=0)


def _pyplot() -> ModuleType:
    """Pyplot drawing to files only: no window, no display needed."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    return plt
