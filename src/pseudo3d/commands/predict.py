"""``p3d predict``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro


def run(args: Sequence[str]) -> int:
    """Parse and run."""
    from pseudo3d.cli import parse

    return parse(predict, "predict", args)


def predict(
    videos: tyro.conf.Positional[tuple[Path, ...]],
    /,
    *,
    weights: str,
    model: str = "p3d_resnet50",
    clips: int = 20,
    top: int = 5,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
) -> int:
    """Name the most likely classes of each video, with probabilities averaged over its clips.

    Example: p3d predict video.mp4 --weights runs/first/checkpoints/best

    Args:
        videos: files, a folder, or a list (.txt, .csv).
        weights: a pretrained folder, a weights file, or "random" (an untrained network: noise).
        model: name of the network, when the weights do not say it (see p3d models).
        clips: clips of each video, spread evenly.
        top: how many classes to name.
        device: auto, cpu, cuda, mps.
        dtype: precision; auto is bfloat16 where the hardware has it.
    """
    from pseudo3d.commands.output import report_failures
    from pseudo3d.data.collect import collect_samples
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.features.encoder import VideoEncoder

    if top < 1:
        raise Pseudo3dError(f"--top must be at least 1, got {top}")
    samples = collect_samples(videos)
    encoder = VideoEncoder(model, weights=weights, clips=clips, layer="prob", device=device, dtype=dtype).load()
    names = encoder.network.class_names
    failures, done = {}, 0
    for result in encoder.encode_many([samples.root / sample.path for sample in samples.samples]):
        if result.error is not None:
            failures[str(result.path)] = result.error
            continue
        done += 1
        prob = result.layers["prob"]
        print(result.path)
        for index in (-prob).argsort(kind="stable")[:top]:
            print(f"  {prob[index]:6.1%}  {names[index] if names else f'class_{index}'}")
    return report_failures(failures, done)
