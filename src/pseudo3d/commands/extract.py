"""``p3d extract``."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

if TYPE_CHECKING:
    from pseudo3d.data.annotations import SampleList
    from pseudo3d.features.encoder import VideoEncoder
    from pseudo3d.features.extract import ExtractReport


def run(args: Sequence[str]) -> int:
    """Parse and run."""
    from pseudo3d.cli import parse

    return parse(extract, "extract", args)


def extract(
    videos: tyro.conf.Positional[tuple[Path, ...]],
    /,
    *,
    weights: str,
    out: Path,
    model: str = "auto",
    class_names: Path | None = None,
    layers: str = "pool5",
    clips: int = 20,
    sampler: Literal["uniform", "authors", "sliding"] = "uniform",
    groups: Path | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    batch_size: int | None = None,
) -> int:
    """Write one representation of each video into a store: activations averaged over clips.

    The same command again goes on where it stopped. Labels and splits are taken from folders
    (class/file or split/class/file), from a `path label` list (.txt) or from a CSV with a header.

    Example: p3d extract my_videos/ --weights runs/first/checkpoints/best --out features

    Args:
        videos: files, a folder, or a list (.txt, .csv).
        weights: a pretrained folder, a weights file of any known kind, "imagenet", "hf:owner/name", or "random" (an
            untrained network: noise).
        out: the store's folder.
        model: name of the network (see p3d models); auto is the one that the weights are of, a 2-D ResNet as P3D.
        class_names: file with one class name a line, for weights that do not carry them (.caffemodel).
        layers: activations to keep, e.g. pool5,prob. The C3D paper's representation is fc6.
        clips: clips of each video, spread evenly; not looked at with --sampler sliding.
        sampler: where clips start; sliding: every 8 frames, as many as the video has (the C3D paper's).
        groups: file of `path group` lines: what comes from one source.
        device: auto, cpu, cuda, mps.
        dtype: precision; auto is bfloat16 where the hardware has it.
        batch_size: clips in a batch.
    """
    from pseudo3d.commands.output import report_failures
    from pseudo3d.data.collect import collect_samples
    from pseudo3d.features.encoder import VideoEncoder

    samples = collect_samples(videos, groups=groups)
    encoder = VideoEncoder(
        model, weights=weights, clips=clips, sampler=sampler, device=device, dtype=dtype, batch_size=batch_size,
        class_names=class_names,
    ).load()  # fmt: skip
    started = time.perf_counter()
    report = _run(encoder, samples, out, tuple(name.strip() for name in layers.split(",") if name.strip()))
    seconds = time.perf_counter() - started
    before = f", {report.already_done} were there before" if report.already_done else ""
    print(f"{out}: {report.encoded} videos, {report.clips} clips in {seconds:.1f} s{before}")
    return report_failures(report.failures, report.encoded + report.already_done)


def _run(encoder: "VideoEncoder", samples: "SampleList", out: Path, layers: tuple[str, ...]) -> "ExtractReport":
    """The extraction behind a progress bar."""
    from pseudo3d.commands.output import progress_bar
    from pseudo3d.features.extract import extract as run_extraction

    with progress_bar() as bar:
        task = bar.add_task("extracting", total=len(samples), note="")
        failed = 0

        def on_video(error: str | None) -> None:
            nonlocal failed
            failed += error is not None
            bar.update(task, advance=1, note=f"{failed} failed" if failed else "")

        return run_extraction(encoder, samples, out, layers=layers, on_video=on_video)
