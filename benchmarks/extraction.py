"""What ``p3d extract`` takes: from the shell for one video, and for many beside what decoding and network take alone.

    python benchmarks/extraction.py --videos VIDEOS --out docs/results

Start-up: the command as a person types it, each time a new process, P3D ResNet-50 and ResNet-152 with random numbers in
a weights folder that is written first. Pipeline: 20 clips of each of five videos by P3D ResNet-50; decoding alone
(the same decoder processes, nobody computing), the network alone (the same clips, from memory), and the extraction into
a store, taking turns; start-up of processes and network apart. Medians over the rounds.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from report import spread, table, write

from pseudo3d import create_model, save_pretrained
from pseudo3d.data.collect import collect_samples
from pseudo3d.features.encoding import Encoder
from pseudo3d.features.extract import extract
from pseudo3d.inference import ClipBatches
from pseudo3d.video.pool import Decoded, NewClip


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def startup(video: Path, weights: dict[str, Path], folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of ``p3d extract`` of one video, from the shell."""
    seconds: dict[str, list[float]] = {name: [] for name in weights}
    for turn in range(rounds):
        for name, place in weights.items():
            out = folder / f"startup-{name}-{turn}"
            command = [
                sys.executable,
                "-m",
                "pseudo3d.cli",
                "extract",
                str(video),
                "--weights",
                str(place),
                "--out",
                out,
            ]
            seconds[name].append(
                timed(lambda command=command: subprocess.run(command, check=True, capture_output=True))
            )
    return {name: {"median": statistics.median(each), "best": min(each)} for name, each in seconds.items()}


def pipeline(videos: list[Path], weights: Path, folder: Path, rounds: int) -> dict[str, float]:
    """Seconds of decoding, of the network, and of the extraction that does both, in turns."""
    encoder = Encoder(weights=weights).load()
    samples = collect_samples(videos)
    pool = encoder.pool()
    clips: list[np.ndarray] = []

    def decode(keep: bool = False) -> None:
        for event in pool.stream(enumerate(videos), encoder.plan_):
            if isinstance(event, NewClip) and keep:
                clips.append(event.frames.copy())
            assert isinstance(event, NewClip | Decoded), event

    def compute() -> None:
        batches: ClipBatches[int] = ClipBatches(encoder.runner_, ("pool5",))
        for number, clip in enumerate(clips):
            batches.add(number, clip)
        batches.flush()

    decode(keep=True)
    compute()
    seconds: dict[str, list[float]] = {"decoding alone": [], "network alone": [], "p3d extract": []}
    for turn in range(rounds):
        seconds["decoding alone"].append(timed(decode))
        seconds["network alone"].append(timed(compute))
        out = folder / f"store-{turn}"
        seconds["p3d extract"].append(timed(lambda out=out: extract(encoder, samples, out)))
    encoder.close()
    ratios = [both / (a + b) for a, b, both in zip(*seconds.values(), strict=True)]
    return {name: statistics.median(each) for name, each in seconds.items()} | {
        "videos": len(videos),
        "clips": len(clips),
        "ratio": statistics.median(ratios),
        "lowest ratio": min(ratios),
        "highest ratio": max(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, help="a folder of videos")
    parser.add_argument("--out", type=Path, required=True, help="where extraction.md and extraction.json go")
    parser.add_argument("--models", default="p3d_resnet50,p3d_resnet152")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    listed = collect_samples([args.videos])
    videos = spread([listed.root / sample.path for sample in listed.samples], 5)
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        folder = Path(name)
        weights = {
            model: save_pretrained(create_model(model, num_classes=400).eval(), folder / model)
            for model in args.models.split(",")
        }
        starts = startup(videos[0], weights, folder, max(3, args.rounds // 2))
        piped = pipeline(videos, next(iter(weights.values())), folder, args.rounds)
    body = table(
        ["`p3d extract one.mp4` (20 clips), s", "median", "best"],
        [[model, f"{each['median']:.1f}", f"{each['best']:.1f}"] for model, each in starts.items()],
    )
    body += f"\n{piped['clips']:.0f} clips of {piped['videos']:.0f} videos, {next(iter(weights))}:\n\n" + table(
        ["", "s (median)"],
        [
            *([name, f"{piped[name]:.2f}"] for name in ("decoding alone", "network alone", "p3d extract")),
            ["extract / (decoding + network)", f"{piped['ratio']:.2f}"],
            ["lowest and highest of the rounds", f"{piped['lowest ratio']:.2f}, {piped['highest ratio']:.2f}"],
        ],
    )
    write(
        args.out,
        "extraction",
        "Extraction from the shell",
        body,
        {"startup_s": starts, "pipeline": piped},
        precision="the default precision",
    )


if __name__ == "__main__":
    main()
