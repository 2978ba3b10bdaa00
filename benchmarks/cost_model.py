"""What a video costs: seconds of a core for decoding and for the network, and bytes read and written.

    python benchmarks/cost_model.py --videos ../shared/data/fight_surv --out docs/results --plots docs/images

Extractions of videos of several sizes, lengths and numbers of clips, some written for it (ffmpeg) and some of
``--videos``, are measured; straight lines with no negative slope are fitted to them; and runs that were not fitted on,
of other sizes and of other real videos, are predicted and measured. Seconds are those of a core (user and system), of
the decoder processes and of the process with the network, so that other work on the machine disturbs little. Then the
same lines say what Sports-1M's videos would take.
"""

import argparse
import os
import subprocess
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
import torch
from matplotlib.figure import Figure
from memory import tree
from report import percent, table, write
from scipy.optimize import nnls

from pseudo3d import create_model, save_pretrained
from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.data.collect import collect_samples
from pseudo3d.features.encoding import Encoder
from pseudo3d.features.extract import extract
from pseudo3d.features.store import FeatureStore
from pseudo3d.visualize.plots import save_figure

RATE = 25  # frames/s of the written videos
FITTED = (  # width, height, seconds, clips, how many videos
    (320, 240, 2, 1, 30),
    (320, 240, 10, 20, 6),
    (320, 240, 60, 20, 4),
    (640, 360, 10, 5, 8),
    (640, 360, 40, 20, 4),
    (1280, 720, 5, 2, 8),
    (1280, 720, 20, 20, 3),
    (1280, 720, 60, 4, 3),
)
CHECKED = ((480, 360, 15, 10, 6), (960, 540, 8, 3, 8), (960, 540, 30, 12, 4))
REAL_FITTED, REAL_CHECKED = (3, 20), (1, 10)
REAL_VIDEOS = 30
# Sports-1M: 1.13 million videos (Karpathy et al., CVPR 2014: 5 min 36 s on average), 20 clips (paper 4). Size and bit
# rate are assumptions: downloads with 360 lines.
SPORTS = {"videos": 1_130_000, "seconds": 336.0, "width": 640, "height": 360, "mbit_s": 0.7, "clips": 20}


@dataclass(frozen=True)
class Run:
    """One extraction: what went in, and what it took, both by video."""

    name: str
    videos: int
    megapixels: float  # of a frame
    frames: float
    megabytes: float
    clips: float  # different ones
    decode_s: float
    network_s: float
    read_mb: float
    written_mb: float

    def decoded(self) -> float:
        """Frames that have to be decoded: all, or those of the clips and what lies between them and a keyframe."""
        return decoded_frames(self.frames, self.clips)


def decoded_frames(frames: float, clips: float) -> float:
    """As ``Run.decoded``: the first clip begins with the file; x264 sets a keyframe every 250 frames or at a cut."""
    return min(frames, 16 + (clips - 1) * (16 + 125))


def decode_terms(run: Run) -> list[float]:
    """What the seconds of decoding are made of: a file, its bits, its pixels, and the pixels that are converted."""
    share = run.decoded() / run.frames
    return [
        1.0,
        run.megabytes * share,
        run.decoded() * run.megapixels,
        min(run.frames, 16 * run.clips) * run.megapixels,
    ]


def network_terms(run: Run) -> list[float]:
    """What the process with the network does: a row, hashing the file, the clips."""
    return [1.0, run.megabytes, run.clips]


TERMS = {
    "decode_s": (decode_terms, ("a video", "a MB", "a decoded megapixel", "a converted megapixel")),
    "network_s": (network_terms, ("a video", "a MB", "a clip")),
    "read_mb": (lambda run: [run.megabytes], ("a MB",)),
    "written_mb": (lambda run: [1.0], ("a video",)),
}


def fit(runs: Sequence[Run]) -> dict[str, np.ndarray]:
    """The slope of each term, so that the relative errors are smallest in squares."""
    found = {}
    for cost, (terms, _) in TERMS.items():
        wanted = np.array([getattr(run, cost) for run in runs])
        matrix = np.array([terms(run) for run in runs]) / wanted[:, None]
        found[cost], _ = nnls(matrix, np.ones(len(runs)))
    return found


def predict(model: dict[str, np.ndarray], run: Run) -> dict[str, float]:
    """The costs of a video of a run."""
    return {cost: float(np.dot(model[cost], TERMS[cost][0](run))) for cost in TERMS}


def write_videos(folder: Path, width: int, height: int, seconds: int, count: int) -> list[Path]:
    """Different videos with motion and noise, H.264."""
    folder.mkdir()
    paths = []
    for number in range(count):
        source = f"testsrc2=size={width}x{height}:rate={RATE}:duration={seconds}"
        noise = f"hue=h={360 * number // count},noise=alls={6 + 4 * (number % 3)}:allf=t"
        paths.append(folder / f"{number}.mp4")
        command = ["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", f"{source},{noise}", "-pix_fmt", "yuv420p"]
        subprocess.run([*command, "-preset", "veryfast", "-crf", "30", paths[-1]], check=True)
    return paths


def cpu_seconds(pid: int) -> float:
    """Of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def io_bytes(pid: int) -> tuple[int, int]:
    """What a process has read and written, from the disk or its cache."""
    told = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(told["rchar"]), int(told["wchar"])


def measure(name: str, encoder: Encoder, samples: SampleList, out: Path) -> Run:
    """Extract the videos, and what that took."""
    encoder.load()
    encoder.pool()
    decoders = tree(os.getpid())[1:]
    extract(encoder, SampleList(samples.root, samples.samples[:1]), f"{out}-first")  # gets everything ready
    before = time.process_time(), [cpu_seconds(pid) for pid in decoders], io_bytes_of_all(decoders)
    extract(encoder, samples, out)
    network = time.process_time() - before[0]
    decoding = sum(map(cpu_seconds, decoders)) - sum(before[1])
    read, written = (after - then for after, then in zip(io_bytes_of_all(decoders), before[2], strict=True))
    store = FeatureStore(out)
    count = len(store)
    assert count == len(samples), store.failures
    frames = np.array(store.table["num_frames"])
    sizes = np.array(store.table["size"])
    clips = np.array([len(set(store.timeline(video).starts.tolist())) for video in store.videos])
    pixels = [megapixels(samples.root / video) for video in store.videos]
    of_videos = float(np.mean(pixels)), float(frames.mean()), float(sizes.mean()) / 1e6, float(clips.mean())
    return Run(name, count, *of_videos, decoding / count, network / count, read / 1e6 / count, written / 1e6 / count)


def io_bytes_of_all(decoders: Sequence[int]) -> tuple[int, int]:
    """Of this process and the decoders."""
    told = [io_bytes(pid) for pid in (os.getpid(), *decoders)]
    return sum(read for read, _ in told), sum(written for _, written in told)


def megapixels(path: Path) -> float:
    """Of a frame of a video."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        return stream.width * stream.height / 1e6


def all_runs(videos: Path | None, weights: Path, folder: Path) -> tuple[list[Run], list[Run]]:
    """The runs to fit, and those to check."""
    encoders: dict[int, Encoder] = {}

    def run(name: str, samples: SampleList, clips: int) -> Run:
        if clips not in encoders:
            encoders[clips] = Encoder(weights=weights, clips=clips, workers=2)
        done = measure(name, encoders[clips], samples, folder / f"store{len(list(folder.glob('store*')))}")
        encoders[clips].close()
        print(done, flush=True)
        return done

    def written(sizes: Sequence[tuple[int, int, int, int, int]]) -> list[Run]:
        runs = []
        for width, height, seconds, clips, count in sizes:
            name = f"{width}x{height}, {seconds} s, {clips} clips"
            paths = write_videos(folder / name.replace(" ", ""), width, height, seconds, count)
            samples = SampleList(paths[0].parent, tuple(Sample(path.name) for path in paths))
            runs.append(run(name, samples, clips))
        return runs

    fitted, checked = written(FITTED), written(CHECKED)
    if videos is not None:
        real = collect_samples([videos])
        for runs, clips, first in (
            *((fitted, clips, 0) for clips in REAL_FITTED),
            *((checked, clips, REAL_VIDEOS) for clips in REAL_CHECKED),
        ):
            part = SampleList(real.root, real.samples[first :: 2 * REAL_VIDEOS // 6][:REAL_VIDEOS])
            runs.append(run(f"real videos, {clips} clips", part, clips))
    return fitted, checked


def error(model: dict[str, np.ndarray], run: Run) -> tuple[float, float]:
    """Predicted seconds of a core by video, and how far off that is."""
    costs = predict(model, run)
    predicted, measured = costs["decode_s"] + costs["network_s"], run.decode_s + run.network_s
    return predicted, predicted / measured - 1


def sports(model: dict[str, np.ndarray], assumed: dict[str, float]) -> tuple[dict[str, float], Run]:
    """What a video of Sports-1M costs by the model."""
    video = Run("Sports-1M", 1, assumed["width"] * assumed["height"] / 1e6, assumed["seconds"] * 30,
                assumed["mbit_s"] * assumed["seconds"] / 8, assumed["clips"], 0, 0, 0, 0)  # fmt: skip
    return predict(model, video), video


def plot(model: dict[str, np.ndarray], runs: Sequence[Run], out: Path) -> None:
    """How cost grows with videos, length, resolution and clips, beside the runs."""

    def seconds(frames: float, pixels: float, clips: float) -> tuple[float, float]:
        bitrate = np.median([run.megabytes / run.frames / run.megapixels for run in runs])
        video = Run("", 1, pixels, frames, bitrate * frames * pixels, clips, 0, 0, 0, 0)
        costs = predict(model, video)
        return costs["decode_s"], costs["network_s"]

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    panels = figure.subplots(2, 2)
    grids = {
        "videos (10 s of 640x360, 20 clips)": (
            np.array([1, 1e3, 1e6]), lambda n: [n * s for s in seconds(250, 0.2304, 20)],
        ),
        "length, s (640x360, 20 clips)": (
            np.linspace(1, 600, 60), lambda s: seconds(25 * s, 0.2304, min(20, 25 * s / 16)),
        ),
        "megapixels of a frame (10 s, 20 clips)": (np.linspace(0.05, 2.1, 40), lambda p: seconds(250, p, 20)),
        "clips (60 s of 640x360)": (np.arange(1, 41), lambda c: seconds(1500, 0.2304, c)),
    }  # fmt: skip
    for axes, (what, (values, cost)) in zip(panels.flat, grids.items(), strict=True):
        both = np.array([cost(value) for value in values])
        axes.plot(values, both[:, 0], color="#0072B2", label="decoding")
        axes.plot(values, both[:, 1], color="#D55E00", linestyle="--", label="network")
        axes.set_xlabel(what)
        axes.set_ylabel("seconds of a core")
        if values[-1] > 1e5:
            axes.set_xscale("log")
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
    panels.flat[0].legend()
    save_figure(figure, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where cost_model.md and cost_model.json go")
    parser.add_argument("--videos", type=Path, help="a folder of real videos")
    parser.add_argument("--plots", type=Path, help="folder for scale_costs.png and .svg")
    parser.add_argument("--model", default="p3d_resnet50")
    parser.add_argument("--cores", type=int, default=32, help="of each of the 100 nodes in the prediction")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = save_pretrained(create_model(args.model, num_classes=400).eval(), folder / "weights")
        fitted, checked = all_runs(args.videos, weights, folder)
    model = fit(fitted)
    rows = [
        [run.name, kind, f"{run.videos}", f"{run.decode_s:.3f}", f"{run.network_s:.3f}", f"{error(model, run)[0]:.3f}",
         f"{100 * error(model, run)[1]:+.0f} %"]
        for kind, runs in (("fitted", fitted), ("checked", checked)) for run in runs
    ]  # fmt: skip
    body = f"Network: {args.model}. Seconds of a core and MB, by video.\n\n"
    body += table(["run", "", "videos", "decoding, s", "network, s", "both, predicted, s", "error"], rows)
    body += "\nThe model: each cost is a sum of\n\n"
    slopes = [
        [cost, *[f"{slope:.3g} {unit}" for slope, unit in zip(model[cost], units, strict=True)]]
        for cost, (_, units) in TERMS.items()
    ]
    body += table(["cost", "", "", "", ""], [row + [""] * (5 - len(row)) for row in slopes])
    total_predicted = sum(error(model, run)[0] * run.videos for run in checked)
    total_measured = sum((run.decode_s + run.network_s) * run.videos for run in checked)
    body += f"\nAll checked runs together: {percent(abs(total_predicted / total_measured - 1))} off.\n"
    costs, video = sports(model, SPORTS)
    count = SPORTS["videos"]
    core_days = {cost: costs[cost] * count / 86_400 for cost in ("decode_s", "network_s")}
    days = sum(core_days.values()) / (100 * args.cores)
    flop = 16.9e9 if args.model == "p3d_resnet50" else 36.8e9
    body += (
        f"\nSports-1M, predicted: {count:,} videos of {SPORTS['seconds']:.0f} s, {SPORTS['width']}x{SPORTS['height']}, "
        f"{SPORTS['mbit_s']} Mbit/s (assumed), {SPORTS['clips']} clips: {costs['decode_s']:.2f} s of decoding and "
        f"{costs['network_s']:.2f} s of the network a video, {core_days['decode_s']:,.0f} and "
        f"{core_days['network_s']:,.0f} days of a core of this machine; on 100 nodes with {args.cores} such cores "
        f"{24 * days:.1f} hours. Read: {costs['read_mb'] * count / 1e6:,.1f} TB, written: "
        f"{costs['written_mb'] * count / 1e3:,.0f} GB.\n\n"
        "Sports-1M on 8 GPUs, predicted: decoding decides. With 16 such cores beside each GPU it takes "
        f"{24 * core_days['decode_s'] / 128:.1f} hours, as long as each GPU computes "
        f"{128 * SPORTS['clips'] / costs['decode_s'] / 8:.0f} clips/s or more, "
        f"{128 * SPORTS['clips'] / costs['decode_s'] / 8 * flop / 1e12:.1f} TFLOP/s. No GPU was measured; with other "
        "numbers of cores:\n\n"
    )
    body += table(
        ["cores, of this kind", "decoding, hours", "clips/s that each of 8 GPUs must compute"],
        [
            [
                f"{cores}",
                f"{24 * core_days['decode_s'] / cores:.1f}",
                f"{cores * SPORTS['clips'] / costs['decode_s'] / 8:.0f}",
            ]
            for cores in (64, 128, 256, 512)
        ],
    )
    results = {
        "fitted": [asdict(run) for run in fitted],
        "checked": [asdict(run) | {"error": error(model, run)[1]} for run in checked],
        "model": {cost: slopes.tolist() for cost, slopes in model.items()},
        "sports_1m": {"assumed": SPORTS, "a_video": costs, "frames": video.frames},
        "threads": torch.get_num_threads(),
    }
    write(args.out, "cost_model", "What a video costs", body, results, precision="the default precision")
    if args.plots is not None:
        plot(model, [*fitted, *checked], args.plots / "scale_costs")


if __name__ == "__main__":
    main()
