"""``p3d extract``."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro


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
    model: str = "p3d_resnet50",
    layers: str = "pool5",
    clips: int = 20,
    sampler: Literal["uniform", "authors"] = "uniform",
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
        weights: a pretrained folder, a weights file, or "random" (an untrained network: noise).
        out: the store's folder.
        model: name of the network, when the weights do not say it (see p3d models).
        layers: activations to keep, e.g. pool5,prob.
        clips: clips of each video, spread evenly.
        sampler: where clips start.
        groups: file of `path group` lines: what comes from one source.
        device: auto, cpu, cuda, mps.
        dtype: precision; auto is bfloat16 where the hardware has it.
        batch_size: clips in a batch.
    """
    from pseudo3d.commands.output import progress_bar, report_failures
    from pseudo3d.data.collect import collect_samples
    from pseudo3d.features.encoder import VideoEncoder
    from pseudo3d.features.extract import extract as run_extraction

    samples = collect_samples(videos, groups=groups)
    encoder = VideoEncoder(
        model, weights=weights, clips=clips, sampler=sampler, device=device, dtype=dtype, batch_size=batch_size
    ).load()
    names = tuple(name.strip() for name in layers.split(",") if name.strip())
    started = time.perf_counter()
    with progress_bar() as bar:
        task = bar.add_task("extracting", total=len(samples), note="")
        failed = 0

        def on_video(error: str | None) -> None:
            nonlocal failed
            failed += error is not None
            bar.update(task, advance=1, note=f"{failed} failed" if failed else "")

        report = run_extraction(encoder, samples, out, layers=names, on_video=on_video)
    seconds = time.perf_counter() - started
    before = f", {report.already_done} were there before" if report.already_done else ""
    print(f"{out}: {report.encoded} videos, {report.encoded * clips} clips in {seconds:.1f} s{before}")
    return report_failures(report.failures, report.encoded + report.already_done)
