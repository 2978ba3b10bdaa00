"""Pictures and numbers side by side under one name (NAME.png, NAME.svg, ...): which of them may be written anew."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pseudo3d.errors import Pseudo3dError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class _Kind:
    """What a kind of picture leaves, and by which of its files it is known again.

    Args:
        suffixes: of its files, in the order that they are written.
        keys: of its NAME.json; without them NAME.svg has a mark (``with_mark``).
    """

    suffixes: tuple[str, ...]
    keys: frozenset[str] = frozenset()


_KINDS = {
    "map": _Kind((".png", ".svg")),
    "pca": _Kind((".png", ".svg", ".json", ".csv"), frozenset({"svm C", "lines"})),
    "sizes": _Kind((".png", ".svg", ".json"), frozenset({"benchmark", "networks"})),
}


def stem_of(out: Path, kind: str) -> Path:
    """``out`` without the suffix of one of its files.

    Example:
        >>> stem_of(Path("a/map.png"), "map").as_posix(), stem_of(Path("run.v2"), "map").as_posix()
        ('a/map', 'run.v2')
    """
    return out.with_suffix("") if out.suffix in _KINDS[kind].suffixes else out


def check_pictures(out: Path, kind: str) -> None:
    """Refuse names that are taken by something else than an earlier picture of this kind, before any work is done.

    Args:
        out: as a person gave it, perhaps with the suffix of one of the files.
        kind: "map", "pca" or "sizes".

    Raises:
        Pseudo3dError: it names the file that would be lost.
    """
    stem = stem_of(out, kind)
    suffixes = _KINDS[kind].suffixes
    taken = [path for suffix in suffixes if (path := stem.with_name(f"{stem.name}{suffix}")).exists()]
    if taken and not _is_ours(stem, kind):
        told = " and ".join(path.name for path in taken)
        where = "" if kind == "map" else f" {kind}"
        raise Pseudo3dError(
            f"--out {out}: {told} {'is' if len(taken) == 1 else 'are'} there and not known to be of p3d "
            f"visualize{where}; choose another name"
        )


def with_mark(figure: "Figure", kind: str) -> "Figure":
    """The figure, whose SVG will say of which kind it is."""
    figure.set_gid(_mark(kind))
    return figure


def _mark(kind: str) -> str:
    return f"p3d-visualize-{kind}"


def _is_ours(stem: Path, kind: str) -> bool:
    keys = _KINDS[kind].keys
    record = stem.with_name(f"{stem.name}{'.json' if keys else '.svg'}")
    if not record.is_file():
        return False
    if not keys:
        return f'<g id="{_mark(kind)}">'.encode() in record.read_bytes()
    try:
        told = json.loads(record.read_bytes())
    except ValueError:
        return False
    return isinstance(told, dict) and keys <= told.keys()
