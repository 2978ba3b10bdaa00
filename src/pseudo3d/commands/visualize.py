"""``p3d visualize``."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

_HELP = """usage: p3d visualize STORE... --out PICTURE    a map of the videos of stores (t-SNE), coloured by class
       p3d visualize KIND [...]

Kinds of pictures:
{kinds}

A store in a folder of such a name is ./pca. `p3d visualize KIND --help` explains one and shows an example.
"""
KINDS = {
    "deepdraw": "what a network takes for a class: a clip of noise, changed until it is sure (figure 5)",
    "gradcam": "which places and moments of a video speak for a class, as an overlay video",
    "pca": "accuracy against the number of dimensions (figure 6)",
    "sizes": "accuracy against the size and depth of networks (figure 1)",
}


def run(args: Sequence[str]) -> int:
    """Parse and run."""
    from pseudo3d.cli import parse

    if args and args[0] in KINDS:
        return importlib.import_module(f"pseudo3d.commands.{args[0]}").run(args[1:])
    if args and args[0] in ("-h", "--help"):
        width = max(map(len, KINDS))
        print(_HELP.format(kinds="\n".join(f"  {word:{width}}  {text}" for word, text in KINDS.items())))
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
    from pseudo3d.visualize.embedding import tsne, tsne_engine
    from pseudo3d.visualize.outputs import check_pictures, stem_of, with_mark
    from pseudo3d.visualize.plots import plot_embedding, save_figure

    if not stores:
        raise Pseudo3dError("give at least one store; see p3d visualize --help")
    check_pictures(out, "map")
    opened = [FeatureStore(store) for store in stores]
    for store in opened:
        if store.videos != opened[0].videos:
            raise Pseudo3dError(
                f"{store.location} and {opened[0].location} hold different videos; draw them one by one"
            )
        if len(store) < 3:
            raise Pseudo3dError(f"{store.location}: {len(store)} videos; a map needs at least 3")
    panels = [(store.name, tsne(store.features(layer), seed=seed)) for store in opened]
    for path in save_figure(with_mark(plot_embedding(panels, opened[0].labels), "map"), stem_of(out, "map")):
        print(path)
    print(f"p3d: t-SNE by {tsne_engine()}, seed {seed}", file=sys.stderr)
    return 0
