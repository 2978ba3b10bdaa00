"""``p3d visualize sizes``."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import tyro


def run(args: Sequence[str]) -> int:
    """Parse and run."""
    from pseudo3d.cli import parse

    return parse(sizes, "visualize sizes", args)


def sizes(
    results: tyro.conf.Positional[tuple[Path, ...]] = (),
    /,
    *,
    out: Path,
    benchmark: Literal["sports1m", "ucf101"] = "sports1m",
) -> int:
    """Draw accuracy against the size and the depth of networks: the paper's (Figure 1) and, beside them, yours.

    Published points are hollow: accuracies of the paper's tables, sizes as printed, or counted where the paper's text
    gives none. Yours are filled and marked measured. Writes OUT.png, OUT.svg and OUT.json.

    Example: p3d visualize sizes runs/sports1m --out sizes

    Args:
        results: folders of p3d evaluate sports1m (or their result.json); with --benchmark ucf101 those of p3d evaluate
            ucf101 --classifier network and of p3d bench table1. None: the published points alone.
        out: the pictures and numbers, without a suffix.
        benchmark: sports1m (Figure 1) or ucf101 (split 1, Table 1).
    """
    from pseudo3d import files
    from pseudo3d.commands.output import print_table
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.evaluation.results import read_result
    from pseudo3d.visualize.outputs import check_pictures, stem_of
    from pseudo3d.visualize.plots import save_figure
    from pseudo3d.visualize.sizes import measured_point, plot_sizes, published_points

    check_pictures(out, "sizes")
    ours = [measured_point(read_result(result), benchmark) for result in results]
    names = [point.name for point in ours]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise Pseudo3dError(f"two results are called {twice[0]!r}; give each a --name of its own in p3d evaluate")
    points = [*published_points(benchmark), *ours]
    out = stem_of(out, "sizes")
    written = save_figure(plot_sizes(points, benchmark), out)
    told = {"benchmark": benchmark, "networks": [asdict(point) for point in points]}
    written.append(out.with_name(f"{out.name}.json"))
    files.write_text(written[-1], json.dumps(told, indent=2) + "\n")
    for path in written:
        print(path)
    rows = [
        (
            point.name,
            f"{point.megabytes:.1f}{' *' if point.counted else ''}",
            f"{point.layers}",
            f"{point.accuracy:.1%}",
            "measured" if point.measured else "published",
        )
        for point in points
    ]
    print_table(("network", "MB", "layers", "accuracy", ""), rows)
    print("* counted from the parameters in float32, MB = 10^6 bytes; the others as printed. Layers are counted here.")
    return 0
