"""``p3d visualize``."""

from collections.abc import Sequence
from pathlib import Path

import tyro


def run(args: Sequence[str]) -> int:
    """Parse and run."""
    from pseudo3d.cli import parse

    return parse(visualize, "visualize", args)


def visualize(
    stores: tyro.conf.Positional[tuple[str, ...]],
    /,
    *,
    out: Path,
    layer: str = "pool5",
    seed: int = 0,
) -> int:
    """Draw the videos of stores as maps in which similar ones are near (t-SNE), coloured by class.

    Example: p3d visualize features --out map        (writes map.png and map.svg)

    Args:
        stores: folders that p3d extract wrote, or their URLs, of the same videos; one map for each.
        out: the pictures, without a suffix.
        layer: which features.
        seed: of the map.
    """
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.features.store import FeatureStore
    from pseudo3d.visualize.plots import plot_embedding, save_figure, tsne

    if not stores:
        raise Pseudo3dError("give at least one store; see p3d visualize --help")
    opened = [FeatureStore(store) for store in stores]
    for store in opened:
        if store.videos != opened[0].videos:
            raise Pseudo3dError(
                f"{store.location} and {opened[0].location} hold different videos; draw them one by one"
            )
        if len(store) < 3:
            raise Pseudo3dError(f"{store.location}: {len(store)} videos; a map needs at least 3")
    panels = [(store.name, tsne(store.features(layer), seed=seed)) for store in opened]
    out = out.with_suffix("") if out.suffix in (".png", ".svg") else out
    for path in save_figure(plot_embedding(panels, opened[0].labels), out):
        print(path)
    return 0
