"""``p3d cluster-labels``."""

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from pseudo3d.commands.stored import StoredVideos, write_sheet

if TYPE_CHECKING:
    from pseudo3d.features.similar import Grouping

_SHEET_MEMBERS = 40
_OVERVIEW = 5  # of each group: one row of tiles, over the half that is nearest to its middle


def run(args: Sequence[str]) -> int:
    """Parse and run."""
    from pseudo3d.cli import parse

    return parse(cluster_labels, "cluster-labels", args)


def cluster_labels(
    store: tyro.conf.Positional[str],
    /,
    *,
    out: Path,
    groups: int | None = None,
    layer: str = "pool5",
    seed: int = 0,
    root: Path | None = None,
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> int:
    """Put a store's videos into groups that are alike (k-means), as a first draft of labels for a person to correct.

    Writes labels.csv (path, label, and similarity to the middle of the group), overview.png with a row of videos from
    each group, and a contact sheet for each group, the most typical first. Look at the sheets, give the groups names in
    labels.csv, correct or delete lines, and train: p3d train --data OUT/labels.csv.

    Example: p3d cluster-labels features --out groups --groups 6

    Args:
        store: a folder that p3d extract wrote, or its URL.
        out: the folder to write.
        groups: how many; None: the number from 2 to 12 with the highest silhouette (how much nearer videos are to
            their own group than to the next one).
        layer: which features.
        seed: of k-means.
        root: the folder of the store's videos, if they have moved.
        overwrite: replace a labels.csv that is there, with what a person wrote into it, and the sheets.
    """
    from pseudo3d import files
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.features.similar import group_videos

    table = out / "labels.csv"
    if table.exists() and not overwrite:
        raise Pseudo3dError(
            f"{table}: is there already, and somebody may have worked on it; choose another --out, or give --overwrite"
        )
    if out.exists() and not out.is_dir():
        raise Pseudo3dError(f"{out}: is a file; give a folder for --out")
    stored = StoredVideos.open(store, layer, root)
    if stored.root is None:
        raise Pseudo3dError(f"{store}: does not say where its videos are; give their folder with --root")
    grouping = group_videos(stored.store.features(layer), groups, videos=stored.store.videos, seed=seed)
    names = [f"group_{number:0{len(str(grouping.groups))}d}" for number in range(1, grouping.groups + 1)]
    out.mkdir(parents=True, exist_ok=True)
    files.write_text(table, _to_csv(stored, grouping, names))
    _print(stored, grouping, names)
    print(f"written: {table}", file=sys.stderr)
    _draw(stored, grouping, names, out)
    print(f"next: look at {out / 'overview.png'}, name the groups in {table}, then p3d train --data {table} --out RUN")
    return 0


def _to_csv(stored: StoredVideos, grouping: "Grouping", names: Sequence[str]) -> str:
    """A table that ``p3d train`` and ``p3d extract`` read; they do not look at the third column."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("path", "label", "similarity"))
    for group, name in enumerate(names):
        for row in grouping.members(group):
            path = stored.file(stored.store.videos[row]).absolute().as_posix()
            table.writerow((path, name, f"{grouping.similarity[row]:.4f}"))
    return text.getvalue()


def _print(stored: StoredVideos, grouping: "Grouping", names: Sequence[str]) -> None:
    from pseudo3d.commands.output import print_table

    for count, value in grouping.silhouettes.items():
        chosen = " (chosen; --groups N asks for another)" if count == grouping.groups else ""
        print(f"{count:3} groups: silhouette {value:.3f}{chosen}")
    rows = []
    for group, name in enumerate(names):
        members = grouping.members(group)
        typical = grouping.similarity[members].mean()
        rows.append((name, f"{len(members)}", f"{typical:.3f}", stored.store.videos[members[0]]))
    print_table(("group", "videos", "similarity to its middle", "most typical"), rows)


def _draw(stored: StoredVideos, grouping: "Grouping", names: Sequence[str], out: Path) -> None:
    import numpy as np

    from pseudo3d.visualize.contact_sheet import MOST_TILES, Section

    for old in out.glob("group_*.png"):  # of a run with more groups
        old.unlink()
    sections = []
    for group, name in enumerate(names):
        members = grouping.members(group)
        tiles = [stored.tile(int(row), score=float(grouping.similarity[row])) for row in members[:_SHEET_MEMBERS]]
        which = f", the {_SHEET_MEMBERS} nearest to its middle" if len(members) > _SHEET_MEMBERS else ""
        write_sheet([Section(f"{name}: {len(members)} videos{which}", tiles)], out / f"{name}.png")
        half = members[: max(_OVERVIEW, len(members) // 2)]
        spread = half[np.unique(np.linspace(0, len(half) - 1, _OVERVIEW).astype(int))]
        some = [stored.tile(int(row), score=float(grouping.similarity[row])) for row in spread]
        sections.append(Section(f"{name}: {len(members)} videos", some))
    write_sheet(sections[: MOST_TILES // _OVERVIEW], out / "overview.png")
