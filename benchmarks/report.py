"""What the benchmarks of features share: distances between features, Markdown tables, and what machine it was."""

import json
import platform
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from pseudo3d import files

Item = TypeVar("Item")


def difference(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """How far the rows of ``a`` are from those of ``b``: cosine, and distance as a share of b's length."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    length_a, length_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(axis=1) / np.maximum(length_a * length_b, 1e-300)
    l2 = np.linalg.norm(a - b, axis=1) / length_b
    return {
        "cosine": float(cosine.mean()),
        "lowest cosine": float(cosine.min()),
        "relative L2": float(l2.mean()),
        "largest relative L2": float(l2.max()),
    }


def between_videos(features: np.ndarray) -> dict[str, float]:
    """``difference`` of two different videos, over all pairs: the scale to read the others on."""
    i, j = (~np.eye(len(features), dtype=bool)).nonzero()
    return difference(features[i], features[j])


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """``count`` of them (all, when there are fewer), evenly spread over the list: neighbours are alike."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)]


def percent(value: float) -> str:
    """A share 0..1."""
    return f"{100 * value:.1f} %"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; every column but the first is aligned right."""
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def machine() -> dict[str, str]:
    """Where and with what this runs."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


def write(
    out: Path, name: str, title: str, body: str, results: dict[str, Any], *, precision: str = "float32", **versions: str
) -> None:
    """``name``.md and ``name``.json into the folder ``out``; the Markdown on standard output too."""
    about = machine() | versions
    command = f"python benchmarks/{name}.py {' '.join(sys.argv[1:])}"
    facts = ", ".join(f"{key} {value}" for key, value in about.items())
    text = f"# {title}\n\nWritten by\n\n    {command}\n\n({facts}; {precision}).\n\n{body.rstrip()}\n"
    out.mkdir(parents=True, exist_ok=True)
    files.write_text(out / f"{name}.md", text)
    files.write_text(
        out / f"{name}.json", json.dumps({"machine": about, "command": command} | results, indent=1) + "\n"
    )
    print(text)
