"""``p3d duplicates``."""

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from pseudo3d.commands.stored import StoredVideos, write_sheet

if TYPE_CHECKING:
    import numpy as np

    from pseudo3d.features.similar import Similarities

_SHOWN_AT = (0.95, 0.98, 0.99, 0.995, 0.999)
_PRINTED = 10  # groups
_SHEET_GROUPS, _SHEET_MEMBERS = 40, 10


def run(args: Sequence[str]) -> int:
    """Parse and run."""
    from pseudo3d.cli import parse

    return parse(duplicates, "duplicates", args)


def duplicates(
    store: tyro.conf.Positional[str],
    /,
    *,
    threshold: float = 0.995,
    layer: str = "pool5",
    out: Path | None = None,
    sheet: Path | None = None,
    root: Path | None = None,
) -> int:
    """Find groups of videos that are nearly the same: a cosine of the threshold or more, or the same content.

    The right threshold depends on the network: what is printed of the store's own similarities helps to choose it.
    0.995 was chosen with the network of docs/fight_surv.md (P3D ResNet-14 trained on 190 clips, pool5 of 20 clips) and
    changed copies of 38 of its clips. It finds all copies of half the size or of a low bit rate and 37 of 38 that begin
    10 % later, but only 5 that lost a twentieth at each side and 2 that were mirrored. Of 43,237 pairs of clips from
    different recordings 1 reaches it (0.99: 33); of 1613 pairs from one recording 75. docs/search.md has the table. A
    group may be a chain whose ends are less alike.

    Example: p3d duplicates features --threshold 0.99 --out groups.csv --sheet groups.png

    Args:
        store: a folder that p3d extract wrote, or its URL.
        threshold: cosine from which two videos are nearly the same.
        layer: which features.
        out: write the groups (.csv): group, path, cosine to the video most like it, whether a file of the same
            content is there.
        sheet: write a contact sheet of the largest groups (.png).
        root: the folder of the store's videos, if they have moved.
    """
    from pseudo3d import files
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.features.similar import compare_all
    from pseudo3d.video.segments import split_segment
    from pseudo3d.visualize.contact_sheet import check_png

    if not 0 < threshold <= 1:
        raise Pseudo3dError(f"--threshold must be above 0 and at most 1, got {threshold:g}")
    if sheet is not None:
        check_png(sheet)
    stored = StoredVideos.open(store, layer, root)
    if len(stored.store) < 2:
        raise Pseudo3dError(f"{store}: 1 video; there is nothing to compare")
    # parts of one file have its content and are not alike for that
    contents = [
        None if split_segment(video)[1] else source.sha256
        for video, source in zip(stored.store.videos, stored.store.sources, strict=True)
    ]
    found = compare_all(
        stored.store.features(layer), sorted({threshold, *_SHOWN_AT}), contents=contents, videos=stored.store.videos
    )
    groups = found.groups[threshold]
    _explain(stored, found, threshold)
    _list(stored, groups)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(out, _to_csv(stored, groups, found, contents))
        print(f"written: {out} ({sum(map(len, groups))} videos in {len(groups)} groups)", file=sys.stderr)
    if sheet is not None and groups:
        _draw(stored, groups, found, sheet)
    return 0


def _explain(stored: StoredVideos, found: "Similarities", threshold: float) -> None:
    """How the similarities of this store lie, so that a person can choose the threshold."""
    import numpy as np

    from pseudo3d.commands.output import print_table

    pairs, nearest = found.random_pairs, found.nearest
    often, seldom = np.quantile(pairs, (0.99, 0.999)).tolist()
    print(f"{stored.store.location}: {len(stored.store)} videos, cosines of {stored.layer}")
    print(
        f"  two videos at random: {np.median(pairs):.4f} is the middle, 1 pair in 100 is above "
        f"{often:.4f}, 1 in 1000 above {seldom:.4f}"
    )
    print(
        f"  each video and the one most like it: {np.median(nearest):.4f} is the middle, "
        f"1 in 10 is above {np.quantile(nearest, 0.9):.4f}"
    )
    rows = [
        (
            f"{value:g}{' (--threshold)' if value == threshold else ''}",
            f"{len(groups)}",
            f"{sum(map(len, groups))}",
            f"{max(map(len, groups), default=0)}",
        )
        for value, groups in found.groups.items()
    ]
    print_table(("threshold", "groups", "videos in them", "largest"), rows)
    if threshold <= often:
        print(
            f"p3d: 1 pair in 100 or more reaches {threshold:g}: these are videos that are alike, hardly copies only; a "
            "higher --threshold tells them apart",
            file=sys.stderr,
        )


def _list(stored: StoredVideos, groups: "Sequence[np.ndarray]") -> None:
    from pseudo3d.errors import first_few

    for number, rows in enumerate(groups[:_PRINTED], 1):
        print(f"group {number}, {len(rows)} videos: {first_few((stored.store.videos[row] for row in rows), 6)}")
    if len(groups) > _PRINTED:
        print(f"and {len(groups) - _PRINTED} more groups; --out FILE.csv has all of them")


def _to_csv(
    stored: StoredVideos, groups: "Sequence[np.ndarray]", found: "Similarities", contents: Sequence[str | None]
) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("group", "path", "cosine", "same_content"))
    for number, rows in enumerate(groups, 1):
        here = [contents[row] for row in rows]
        for row in rows:
            twice = contents[row] is not None and here.count(contents[row]) > 1
            table.writerow((number, stored.store.videos[row], f"{found.nearest[row]:.5f}", "yes" if twice else "no"))
    return text.getvalue()


def _draw(stored: StoredVideos, groups: "Sequence[np.ndarray]", found: "Similarities", sheet: Path) -> None:
    from pseudo3d.visualize.contact_sheet import Section

    sections = []
    for number, rows in enumerate(groups[:_SHEET_GROUPS], 1):
        shown = rows[:_SHEET_MEMBERS]
        some = f", {len(shown)} of them" if len(shown) < len(rows) else ""
        tiles = [stored.tile(int(row), score=float(found.nearest[row])) for row in shown]
        sections.append(Section(f"group {number}: {len(rows)} videos{some}", tiles))
    if len(groups) > _SHEET_GROUPS:
        print(f"p3d: the sheet shows {_SHEET_GROUPS} of {len(groups)} groups, the largest", file=sys.stderr)
    write_sheet(sections, sheet)
