"""What a person names on the command line as videos."""

import os
from collections.abc import Sequence
from pathlib import Path

from pseudo3d.data.annotations import LIST_EXTENSIONS, Sample, SampleList, assign_groups, read_groups, read_samples
from pseudo3d.errors import Pseudo3dError
from pseudo3d.video.segments import file_of


def collect_samples(paths: Sequence[str | Path], *, groups: str | Path | None = None) -> SampleList:
    """Videos from one folder or list (with its labels), or from any number of files and folders (without).

    A file that is named is taken whatever its suffix says; whether it is a video shows when it is decoded. Files
    named twice count once.

    Args:
        paths: one folder, one list (.txt, .lst, .csv), or several files and folders.
        groups: a file of lines ``path group``.

    Returns:
        The samples; paths start from the folder, or from the nearest folder that holds all files.

    Raises:
        Pseudo3dError: nothing was named, a path does not exist, or what ``read_samples`` raises.
    """
    if not paths:
        raise Pseudo3dError("no videos named: give files, a folder, or a list (.txt, .csv)")
    given = [Path(path) for path in paths]
    if len(given) == 1 and (given[0].is_dir() or given[0].suffix.lower() in LIST_EXTENSIONS):
        return read_samples(given[0], groups=groups)
    missing = [path for path in given if not file_of(path).exists()]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise Pseudo3dError(f"{missing[0]} does not exist{more}: give files, a folder, or a list (.txt, .csv)")
    found: set[Path] = set()
    for path in given:
        if path.is_dir():
            listed = read_samples(path)
            found |= {_normal(listed.root / sample.path) for sample in listed.samples}
        else:
            found.add(_normal(path.absolute()))
    root = Path(os.path.commonpath([path.parent for path in found]))
    samples = [Sample(path.relative_to(root).as_posix()) for path in sorted(found)]
    if groups is not None:
        samples = assign_groups(samples, read_groups(groups))
    return SampleList(root, tuple(samples))


def _normal(path: Path) -> Path:
    """One spelling for each file: no ``..`` in it, links as they are."""
    return Path(os.path.normpath(path))
