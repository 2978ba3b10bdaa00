"""What the commands of ``p3d bench`` share: folders of results, and a table shown and written."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pseudo3d.commands.protocol_results import check_asked

if TYPE_CHECKING:
    from pseudo3d.evaluation.results import Result

DTypeName = Literal["auto", "float32", "bfloat16", "float16"]
EngineName = Literal["auto", "fused", "eager", "compile", "graph", "openvino"]

_OWN = re.compile(r"(table\w*|results)\.(md|tex|csv)|result\.json|videos|resnet50|p3d_(a|b|c|abc)|\..*\.part")


def told() -> dict[str, str]:
    """Facts of every measurement: version and date."""
    from pseudo3d import __version__

    return {"version": __version__, "date": datetime.now(UTC).isoformat(timespec="seconds")}


def show(name: str, results: "Sequence[Result]", out: Path | None) -> None:
    """Print the table of what was measured, and write it where there is a folder for it."""
    from pseudo3d.evaluation.tables import build_table, save_table

    table = build_table(name, results)
    print(table.text(), end="")
    if out is not None:
        save_table(table, out, name)
        print(f"written: {out}")


def with_asked(result: "Result", asked: Mapping[str, Any]) -> "Result":
    """The result with what decided it, which ``check_folder`` compares."""
    return replace(result, facts={**result.facts, "asked": dict(asked)})


def check_folder(out: Path | None, results: Mapping[str, str], asked: Mapping[str, Any]) -> None:
    """Refuse a folder with other files than ours, or with results of something else, before any work is done.

    Args:
        out: the folder; None where nothing is written.
        results: the protocol of each result.json to come, by the folder in ``out`` ("." for ``out`` itself); none for
            tables alone, which would take the place of those of a measurement.
        asked: what decides these results, in JSON types.

    Raises:
        Pseudo3dError: it names what is there.
    """
    from pseudo3d.errors import Pseudo3dError, first_few
    from pseudo3d.evaluation.results import RESULT_NAME, read_result

    if out is None or not out.exists():
        return
    if not out.is_dir():
        raise Pseudo3dError(f"{out}: is a file; give a folder for --out")
    others = sorted(path.name for path in out.iterdir() if not _OWN.fullmatch(path.name))
    if others:
        raise Pseudo3dError(f"{out}: holds other files ({first_few(others)}); give a folder of its own for --out")
    measured = sorted([*out.glob(RESULT_NAME), *out.glob(f"*/{RESULT_NAME}")])
    if measured and not results:
        raise Pseudo3dError(f"{out}: holds what was measured ({measured[0]}); give another folder for --out")
    for folder, protocol in results.items():
        path = out / folder / RESULT_NAME
        if not path.exists():
            continue
        before = read_result(path)
        if before.protocol != protocol:
            raise Pseudo3dError(f"{path}: is a result of {before.protocol}; give another folder for --out")
        check_asked(path, before, asked)


def read_runs(place: Path) -> list["Result"]:
    """The result of a run's folder (or file), or those of the folders in it.

    Raises:
        Pseudo3dError: there is none.
    """
    from pseudo3d.evaluation.results import RESULT_NAME, read_result

    below = [] if (place / RESULT_NAME).exists() else sorted(place.glob(f"*/{RESULT_NAME}"))
    return [read_result(path) for path in below or [place]]
