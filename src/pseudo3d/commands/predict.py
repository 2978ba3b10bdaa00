"""``p3d predict``."""

import warnings
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
    model: str = "auto",
    class_names: Path | None = None,
    clips: int = 20,
    top: int = 5,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    engine: Literal["auto", "fused", "eager", "compile", "graph", "openvino"] = "auto",
) -> int:
    """Name the most likely classes of each video, with probabilities averaged over its clips.

    Example: p3d predict video.mp4 --weights runs/first/checkpoints/best

    Args:
        videos: files, a folder, or a list (.txt, .csv).
        weights: a pretrained folder, a weights file of any known kind, "imagenet", "hf:owner/name", or "random" (an
            untrained network: noise).
        model: name of the network (see p3d models); auto is the one that the weights are of, a 2-D ResNet as P3D.
        class_names: file with one class name a line, for weights that do not carry them (.caffemodel).
        clips: clips of each video, spread evenly.
        top: how many classes to name.
        device: auto, cpu, cuda, mps.
        dtype: precision; auto is bfloat16 where the hardware has it. float16 is for GPUs.
        engine: how the network runs; auto is the one that is done first, the time to get ready included.
    """
    from pseudo3d.commands.encoders import started_encoder
    from pseudo3d.commands.output import report_failures
    from pseudo3d.data.collect import collect_samples
    from pseudo3d.errors import Pseudo3dError

    if top < 1:
        raise Pseudo3dError(f"--top must be at least 1, got {top}")
    samples = collect_samples(videos)
    with started_encoder(
        model=model, weights=weights, clips=clips, layer="prob", device=device, dtype=dtype, engine=engine,
        class_names=class_names,
    ) as encoder:  # fmt: skip
        names = encoder.load(clips * len(samples)).network.class_names
        if names is None:
            warnings.warn("the weights carry no class names; give them with --class-names", stacklevel=1)
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
