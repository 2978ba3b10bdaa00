"""How scalers differ on real frames, in grey levels and in what it does to features.

    pip install opencv-python-headless      # for OpenCV's rows; without it they say so
    OMP_NUM_THREADS=1 python benchmarks/resizing.py --data fight_surv --out docs/results

Every video is decoded once at its native size (``read_video``), and OpenCV and Pillow resize these frames. FFmpeg's
rows are what the product does: ``read_video(path, size=...)``, where scaling and the step from YUV to RGB are one; the
row "of RGB frames" gives FFmpeg the same RGB frames as the others, so that it shows how much of a difference comes from
the scaler alone. The reference is our default, FFmpeg's bilinear.

Frame sizes are those that at least ``--videos`` videos have, that many videos of each. Networks, in float32: those of
``--weights`` (by default the one of docs/fight_surv.md) and P3D ResNet-50 with random weights, whose batch norms have
the statistics of real clips. The latter has learned nothing: it says how differences pass through, not whether they
matter.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from fidelity import input_of, random_network
from report import between_videos, difference, percent, spread, table, write

import pseudo3d
from pseudo3d import read_video, sample_clips
from pseudo3d.data.annotations import read_samples
from pseudo3d.inference import ClipRunner
from pseudo3d.models.resnet import VideoResNet
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.video.decode import count_frames, probe
from pseudo3d.video.filters import INTERPOLATIONS, RgbConverter, resized
from pseudo3d.video.transforms import center_crop

OURS = "FFmpeg bilinear, our default"
RGB_FIRST = "FFmpeg bilinear, of RGB frames"
Resizer = Callable[[np.ndarray, tuple[int, int]], np.ndarray]  # one RGB frame, (height, width)


def ffmpeg_of_rgb(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return RgbConverter(size, "bilinear")(VideoFrame.from_ndarray(frame, format="rgb24")).copy()


def opencv_resizers() -> dict[str, Resizer | None]:
    """OpenCV's scalers, or None for each when it is not installed."""
    names = ("INTER_LINEAR", "INTER_AREA", "INTER_CUBIC")
    try:
        import cv2
    except ImportError:
        return {f"OpenCV {name}": None for name in names}

    def resizer(flag: int) -> Resizer:
        return lambda frame, size: cv2.resize(frame, size[::-1], interpolation=flag)

    return {f"OpenCV {name}": resizer(getattr(cv2, name)) for name in names}


def pillow_resizers() -> dict[str, Resizer | None]:
    """Pillow's scalers, which smooth before they leave pixels out; it comes with matplotlib."""
    from PIL import Image

    def resizer(flag: Image.Resampling) -> Resizer:
        return lambda frame, size: np.asarray(Image.fromarray(frame).resize(size[::-1], flag))

    return {f"Pillow {name}": resizer(Image.Resampling[name]) for name in ("BILINEAR", "BICUBIC")}


@dataclass(frozen=True, eq=False)
class Video:
    """The sampled frames of one video at native size, each once; ``clips`` are (clips, T) places among them."""

    path: Path
    indices: np.ndarray
    clips: np.ndarray
    frames: np.ndarray


def load(path: Path, clips: int) -> Video:
    """``clips`` uniform clips of 16 frames (fewer when the video is so short that they fall together)."""
    rows = np.unique(sample_clips(count_frames(path), clips), axis=0)
    indices, places = np.unique(rows, return_inverse=True)
    return Video(path, indices, places.reshape(rows.shape), read_video(path, indices=indices).frames)


def all_ways(video: Video, p: Preprocessing, others: dict[str, Resizer | None]) -> Iterator[tuple[str, np.ndarray]]:
    """The cropped clips (clips, T, h, w, 3) by every way of resizing that is there, our default first."""
    size = resized(video.frames.shape[1:3], p.resize)
    for interpolation in INTERPOLATIONS:
        name = OURS if interpolation == "bilinear" else f"FFmpeg {interpolation}"
        frames = read_video(video.path, indices=video.indices, size=p.resize, interpolation=interpolation).frames
        yield name, center_crop(frames[video.clips], p.crop)
    for name, resize in others.items():
        if resize is not None:
            frames = np.stack([resize(frame, size) for frame in video.frames])
            yield name, center_crop(frames[video.clips], p.crop)


def grey_levels(a: np.ndarray, b: np.ndarray) -> tuple[float, int]:
    """Mean and largest absolute difference."""
    gap = np.abs(a.astype(np.int16) - b)
    return float(gap.mean()), int(gap.max())


@dataclass(frozen=True, eq=False)
class Outputs:
    """What came out for one video and one way: grey levels against our default, and each network's output."""

    levels: tuple[float, int]
    pool5: dict[str, np.ndarray]
    top1: dict[str, int]


def measure(
    paths: Sequence[Path], networks: dict[str, VideoResNet], clips: int, others: dict[str, Resizer | None]
) -> dict[str, list[Outputs]]:
    """Every video in every way; grey levels at the size that the last of the networks takes."""
    runners = {
        name: ClipRunner(model, device="cpu", dtype="float32", batch_size=clips) for name, model in networks.items()
    }
    outputs: dict[str, list[Outputs]] = defaultdict(list)
    for path in paths:
        video = load(path, clips)
        pool5: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
        top1: dict[str, dict[str, int]] = defaultdict(dict)
        for network, runner in runners.items():
            levels, default = {}, None
            for way, frames in all_ways(video, runner.preprocessing, others):
                default = frames if default is None else default
                levels[way] = grey_levels(frames, default)
                features = runner(list(frames), ("pool5", "prob"))
                pool5[way][network] = features["pool5"].mean(axis=0)
                top1[way][network] = int(features["prob"].mean(axis=0).argmax())
        for way, gap in levels.items():
            outputs[way].append(Outputs(gap, pool5[way], top1[way]))
        print(path.name, file=sys.stderr, flush=True)
    return dict(outputs)


def summarise(outputs: Sequence[Outputs], default: Sequence[Outputs], network: str) -> dict[str, float]:
    """The features of one network over some videos, against our default's."""
    pair = (np.stack([each.pool5[network] for each in side]) for side in (outputs, default))
    moved = [a.top1[network] != b.top1[network] for a, b in zip(outputs, default, strict=True)]
    return {**difference(*pair), "top-1 changed": float(np.mean(moved)), "videos changed": int(sum(moved))}


def by_size(paths: Sequence[Path], count: int) -> dict[str, list[Path]]:
    """``count`` videos of each frame size that as many have; from the smallest size to the largest."""
    sizes: dict[tuple[int, int], list[Path]] = defaultdict(list)
    for path in paths:
        info = probe(path)
        sizes[info.width, info.height].append(path)
    enough = sorted((w * h, w, h) for (w, h), found in sizes.items() if len(found) >= count)
    return {f"{w}x{h}": spread(sizes[w, h], count) for _, w, h in enough}


def pixel_table(sizes: dict[str, list[Path]], outputs: dict[str, list[Outputs]], ways: Sequence[str]) -> str:
    """Mean and largest difference in grey levels, a column for each frame size."""
    rows = []
    for way in ways:
        if way == OURS:
            continue
        if way not in outputs:
            rows.append([way, *["not measured: OpenCV is not installed"] * len(sizes)])
            continue
        parts = np.split(np.array([each.levels for each in outputs[way]]), len(sizes))
        rows.append([way, *(f"{part[:, 0].mean():.2f} ({part[:, 1].max():.0f})" for part in parts)])
    return table(["mean (largest) difference", *sizes], rows)


def feature_table(
    name: str, sizes: dict[str, list[Path]], outputs: dict[str, list[Outputs]], ways: Sequence[str]
) -> tuple[str, dict[str, Any]]:
    """One network: over all videos, and the relative L2 for each frame size; also as data."""
    rows, data = [], {}
    for way in ways:
        if way == OURS:
            continue
        if way not in outputs:
            rows.append([way, "not measured: OpenCV is not installed", *["-"] * (3 + len(sizes))])
            continue
        every = summarise(outputs[way], outputs[OURS], name)
        count, each = len(outputs[way]) // len(sizes), {}
        for i, size in enumerate(sizes):
            part = slice(i * count, (i + 1) * count)
            each[size] = summarise(outputs[way][part], outputs[OURS][part], name)
        data[way] = {"all": every, "sizes": each}
        cells = [f"{every['cosine']:.4f}", f"{every['lowest cosine']:.4f}", f"{every['relative L2']:.3f}"]
        changed = f"{every['videos changed']} ({percent(every['top-1 changed'])})"
        rows.append([way, *cells, changed, *(f"{part['relative L2']:.3f}" for part in each.values())])
    columns = ["pool5 of videos", "cosine", "lowest", "relative L2", "top-1 changed", *(f"L2, {s}" for s in sizes)]
    between = between_videos(np.stack([each.pool5[name] for each in outputs[OURS]]))
    note = (
        f"Two different videos have a cosine of {between['cosine']:.4f} and are {between['relative L2']:.3g} apart "
        "(relative L2), on average.\n\n"
    )
    return note + table(columns, rows), {"between videos": between, "ways": data}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/fight_surv"), help="folder of videos")
    parser.add_argument("--weights", type=Path, nargs="*", default=[Path("runs/fight_surv/checkpoints/best")])
    parser.add_argument("--videos", type=int, default=11, help="of each frame size")
    parser.add_argument("--clips", type=int, default=2, help="of each video")
    parser.add_argument("--out", type=Path, required=True, help="folder for resizing.md and resizing.json")
    options = parser.parse_args()
    samples = read_samples(options.data)
    sizes = by_size([samples.root / sample.path for sample in samples.samples], options.videos)
    if not sizes:
        raise SystemExit(f"no frame size in {options.data} has {options.videos} videos; give fewer --videos")
    paths = [path for group in sizes.values() for path in group]
    networks = {str(weights): pseudo3d.from_pretrained(weights) for weights in options.weights}
    small = pseudo3d.create_model("p3d_resnet50").preprocessing
    left_out = [path for path in (samples.root / sample.path for sample in samples.samples) if path not in paths]
    random = "P3D ResNet-50, random weights"
    networks[random] = random_network("p3d_resnet50", input_of(spread(left_out or paths, 8), small))
    others = {RGB_FIRST: ffmpeg_of_rgb, **opencv_resizers(), **pillow_resizers()}
    outputs = measure(paths, networks, options.clips, others)
    ways = [OURS, *(f"FFmpeg {name}" for name in INTERPOLATIONS if name != "bilinear"), *others]
    p = networks[random].preprocessing
    body = (
        f"{len(paths)} videos, {options.videos} of each frame size, {options.clips} clips of 16 frames each.\n\n"
        f"## Grey levels\n\nAgainst {OURS}, of 0 to 255; short edge {p.resize}, centre crop {p.crop}.\n\n"
        + pixel_table(sizes, outputs, ways)
    )
    results: dict[str, Any] = {"videos": {size: [path.name for path in group] for size, group in sizes.items()}}
    results["grey levels"] = {way: [each.levels for each in found] for way, found in outputs.items()}
    for name, model in networks.items():
        text, results[name] = feature_table(name, sizes, outputs, ways)
        body += (
            f"\n## Features: {name}\n\nResized to {model.preprocessing.resize}, crop {model.preprocessing.crop}. {text}"
        )
    import av

    write(options.out, "resizing", "What the choice of a scaler does", body, results, pyav=av.__version__, **versions())


def versions() -> dict[str, str]:
    """Of the libraries whose scalers were measured."""
    import PIL

    try:
        import cv2
    except ImportError:
        return {"pillow": PIL.__version__}
    return {"pillow": PIL.__version__, "opencv": cv2.__version__}


if __name__ == "__main__":
    main()
