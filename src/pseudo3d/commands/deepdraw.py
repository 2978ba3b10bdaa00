"""``p3d visualize deepdraw``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

if TYPE_CHECKING:
    import numpy as np
    from rich.progress import Progress, TaskID

    from pseudo3d.visualize.deepdraw import Step


def run(args: Sequence[str]) -> int:
    """Parse and run."""
    from pseudo3d.cli import parse

    return parse(deepdraw, "visualize deepdraw", args)


def deepdraw(
    classes: tyro.conf.Positional[tuple[str, ...]],
    /,
    *,
    weights: str,
    out: Path,
    model: str = "auto",
    class_names: Path | None = None,
    iterations: float = 1.0,
    jitter: int = 8,
    time_blur: float = 0.5,
    seed: int = 0,
    formats: tuple[Literal["gif", "mp4", "png"], ...] = ("gif", "mp4", "png"),
    fps: float = 8.0,
    device: str = "auto",
) -> int:
    """Draw what a network takes for a class: a clip of noise, changed until it is sure (paper figure 5).

    Writes CLASS.gif, CLASS.mp4 and CLASS.png (all frames on one sheet) for each class. The steps that are used here
    are ours: the paper names the DeepDraw toolbox and no settings.

    Example: p3d visualize deepdraw "tai chi" boxing --weights runs/first/checkpoints/best --out drawn

    Args:
        classes: names, or numbers from 0.
        weights: a pretrained folder, a weights file of any known kind, or "hf:owner/name".
        out: folder of the pictures.
        model: name of the network (see p3d models); auto is the one that the weights are of.
        class_names: file with one class name a line, for weights that do not carry them (.caffemodel).
        iterations: times the usual number of steps (220): 0.2 for a look, 2 for more detail.
        jitter: largest random offset of a step, in pixels.
        time_blur: smoothing over time after each step, in frames; 0 for none.
        seed: of the noise: another one gives another clip of the class.
        formats: which files.
        fps: frames a second of GIF and MP4.
        device: auto, cpu, cuda, mps.
    """
    from dataclasses import replace

    from pseudo3d.commands.explained import check_not_taken, class_number, class_stem, class_title, open_to_explain
    from pseudo3d.commands.output import progress_bar
    from pseudo3d.visualize.deepdraw import OCTAVES
    from pseudo3d.visualize.deepdraw import deepdraw as draw

    _check(classes, iterations, jitter, time_blur, formats, fps)  # before minutes of work
    network = open_to_explain(model, weights, class_names, device)
    targets = list(dict.fromkeys(class_number(network, word) for word in classes))
    check_not_taken(out, [f"{class_stem(network, target)}.{kind}" for target in targets for kind in formats])
    octaves = [replace(each, iterations=max(1, round(each.iterations * iterations))) for each in OCTAVES]
    out.mkdir(parents=True, exist_ok=True)
    with progress_bar() as bar:
        for target in targets:
            title = class_title(network, target)
            task = bar.add_task(title, total=sum(octave.iterations for octave in octaves), note="")
            told = _Told(bar, task)
            frames = draw(network, target, octaves=octaves, jitter=jitter, time_blur=time_blur, seed=seed, on_step=told)
            files = _write(frames, out / class_stem(network, target), formats, fps)
            print(f"{files}: {title}, probability {told.probability:.1%} at the last step")
    return 0


@dataclass
class _Told:
    """Shows each step on the bar, and keeps the probability of the last one."""

    bar: "Progress"
    task: "TaskID"
    probability: float = 0.0

    def __call__(self, step: "Step") -> None:
        self.probability = step.probability
        self.bar.update(self.task, completed=step.done, note=f"{step.probability:.1%}")


def _check(
    classes: Sequence[str], iterations: float, jitter: int, time_blur: float, formats: Sequence[str], fps: float
) -> None:
    from pseudo3d.errors import Pseudo3dError

    if not classes:
        raise Pseudo3dError("name at least one class; see p3d visualize deepdraw --help")
    if not 0 < iterations <= 100 or jitter < 0 or not 0 <= time_blur <= 100:
        raise Pseudo3dError("--iterations must be above 0 and at most 100, --jitter and --time-blur not below 0")
    if not formats or not 1 <= fps <= 50:
        raise Pseudo3dError(f"--formats needs at least one of gif, mp4, png, and --fps 1 to 50, got {fps:g}")


def _write(frames: "np.ndarray", stem: Path, formats: Sequence[str], fps: float) -> str:
    """Write the files of one class, which may have a dot in its name; what they are called."""
    from pseudo3d.visualize import animation

    if "gif" in formats:
        animation.save_gif(frames, stem.with_name(f"{stem.name}.gif"), fps=fps)
    if "mp4" in formats:
        animation.save_mp4(frames, stem.with_name(f"{stem.name}.mp4"), fps=fps)
    if "png" in formats:
        animation.save_sheet(frames, stem.with_name(f"{stem.name}.png"))
    return f"{stem}.{{{','.join(formats)}}}"
