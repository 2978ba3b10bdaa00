"""Names of groups of points, written where the groups are, none over another."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TEXT = 7.0  # points
_BESIDE = 9.0  # points: a name further away than this has a line to its group
# Places for a name around its group, the nearest first: so many points away, in so many directions.
_AROUND = np.array(
    [(0.0, 0.0)]
    + [
        (radius * np.cos(angle), radius * np.sin(angle))
        for radius in range(6, 91, 6)
        for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ]
)


def write_names(
    figure: "Figure",
    all_axes: Sequence["Axes"],
    maps: Sequence[Float[np.ndarray, "points 2"]],
    labels: Sequence[str | None],
) -> None:
    """Write each label at the middle of its points in every map, or near it, with a line to it.

    Names are placed in order of the number of their points. What is left without room is not written, and below the map
    stands how many those are. The layout of the figure is settled first and then fixed.

    Args:
        figure: with its points drawn.
        all_axes: of the maps.
        maps: the points of each.
        labels: in the order of the points; None has no name.
    """
    for axes in all_axes:
        axes.set_xlabel(" ", fontsize=9)  # room for what may have to be said
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, points in zip(all_axes, maps, strict=True):
        left_out, names = _write(figure, axes, points, labels)
        if left_out:
            axes.set_xlabel(f"{left_out} of {names} names have no room")


def _write(figure: "Figure", axes: "Axes", points: np.ndarray, labels: Sequence[str | None]) -> tuple[int, int]:
    """How many names were left out, and how many there are."""
    from matplotlib import patheffects

    groups = _groups(points, labels)
    scale = 72 / figure.dpi  # pixels to points
    inside = axes.get_window_extent()
    low, high = np.array([inside.x0, inside.y0]) * scale + 2, np.array([inside.x1, inside.y1]) * scale - 2
    placed: list[np.ndarray] = []
    halo = [patheffects.withStroke(linewidth=1.5, foreground="white")]
    left_out = 0
    for name, middle in groups:
        text = axes.annotate(name, middle, xytext=(0, 0), textcoords="offset points", ha="center", va="center",
                             fontsize=_TEXT, path_effects=halo, in_layout=False)  # fmt: skip
        box = text.get_window_extent()
        half = np.array([box.width, box.height]) * scale / 2 + 0.5
        centres = axes.transData.transform(middle) * scale + _AROUND
        free = ((centres - half >= low) & (centres + half <= high)).all(axis=1)
        if placed:
            taken = np.array(placed)
            apart = np.abs(centres[:, None] - taken[:, :2]) >= half + taken[:, 2:]
            free &= apart.any(axis=2).all(axis=1)
        if not free.any():
            text.remove()
            left_out += 1
            continue
        best = int(free.argmax())
        placed.append(np.concatenate([centres[best], half]))
        text.set_position(tuple(_AROUND[best]))
        if np.hypot(*_AROUND[best]) > _BESIDE:
            axes.annotate("", middle, xytext=_AROUND[best], textcoords="offset points", in_layout=False,
                          arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "#606060"}, zorder=1.5)  # fmt: skip
    return left_out, len(groups)


def _groups(points: np.ndarray, labels: Sequence[str | None]) -> list[tuple[str, tuple[float, float]]]:
    """Each name and the point of its group that is nearest to the group's median; the largest group first."""
    classes = np.array(labels, dtype=object)
    found = []
    for name in sorted({label for label in labels if label is not None}):
        mine = points[classes == name]
        nearest = np.linalg.norm(mine - np.median(mine, axis=0), axis=1).argmin()
        found.append((-len(mine), name, (float(mine[nearest, 0]), float(mine[nearest, 1]))))
    return [(name, middle) for _, name, middle in sorted(found)]
