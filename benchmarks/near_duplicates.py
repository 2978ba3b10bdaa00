"""How like its original a changed copy of a video is: where the default threshold of ``p3d duplicates`` comes from.

    python benchmarks/near_duplicates.py --data ../shared/data/fight_surv --groups groups.txt \
        --weights runs/fight_surv/checkpoints/best --work runs/near_duplicates --out docs/results

The network is the P3D ResNet-14 that docs/fidelity.md trains on these videos. Of every eighth video five copies are
written (H.264): a low bit rate, half the size, a twentieth cut off at each side, a tenth cut off at the start, and
mirrored. Originals and copies are put through the network (``p3d extract``), and each
copy is compared with its original. Beside that, all pairs of originals: those of one recording look alike and are no
copies (``--groups`` says which they are; docs/fight_surv.md makes the file).
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from PIL import Image
from report import table, write

from pseudo3d import FeatureStore, VideoEncoder, read_video
from pseudo3d.data.annotations import assign_groups, read_groups, read_samples
from pseudo3d.data.collect import collect_samples
from pseudo3d.features.extract import extract
from pseudo3d.video.decode import probe

THRESHOLDS = (0.95, 0.98, 0.99, 0.995, 0.999)
ORIGINALS = "originals"


def save(path: Path, frames: list[np.ndarray], fps: int, crf: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = (side - side % 2 for side in frames[0].shape[:2])
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = np.ascontiguousarray(frame[:height, :width])
            file.mux(stream.encode(VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())


def write_copies(path: Path, name: str, folder: Path) -> None:
    """The changed copies of a video, one in a folder for each kind of change."""
    frames, fps = read_video(path, threads=1).frames, round(probe(path).fps or 25)
    count, height, width, _ = frames.shape
    y, x = height // 20, width // 20
    half = [np.asarray(Image.fromarray(f).resize((width // 2, height // 2), Image.Resampling.BICUBIC)) for f in frames]
    copies = {
        "low bit rate (CRF 34)": (list(frames), 34),
        "half the size": (half, 20),
        "a twentieth off at each side": (list(frames[:, y : height - y, x : width - x]), 20),
        "a tenth off at the start": (list(frames[count // 10 :]), 20),
        "mirrored": (list(frames[:, :, ::-1]), 20),
    }
    for kind, (changed, crf) in copies.items():
        save(folder / kind / name, changed, fps, crf)


def prepare(data: Path, work: Path) -> None:
    """Originals and copies side by side, unless they are there already."""
    if (work / "videos").exists():
        return
    samples = read_samples(data)
    for i, sample in enumerate(samples.samples):
        target = work / "writing" / ORIGINALS / sample.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(samples.root / sample.path, target)
        if i % 8 == 0:
            write_copies(target, sample.path, work / "writing")
    (work / "writing").rename(work / "videos")


def compare(store: FeatureStore, group_of: dict[str, str | None]) -> tuple[list[list[str]], dict[str, Any]]:
    """A row for each kind of copy, and for pairs of originals of one and of different recordings."""
    features = store.features().astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    split = [video.split("/", 1) for video in store.videos]
    originals = {name: i for i, (kind, name) in enumerate(split) if kind == ORIGINALS}
    found = {
        f"a copy, {kind}": [features[i] @ features[originals[name]] for i, (of, name) in enumerate(split) if of == kind]
        for kind in dict.fromkeys(kind for kind, _ in split if kind != ORIGINALS)
    }
    names, rows = list(originals), features[list(originals.values())]
    i, j = np.triu_indices(len(names), 1)
    cosines = (rows @ rows.T)[i, j]
    same = np.array([group_of[names[a]] == group_of[names[b]] for a, b in zip(i, j, strict=True)])
    found |= {"two clips of one recording": cosines[same], "two of different recordings": cosines[~same]}
    lines, data = [], {}
    for name, values in found.items():
        reach = [int((np.asarray(values, np.float32) >= np.float32(t)).sum()) for t in THRESHOLDS]
        data[name] = {"pairs": len(values), "lowest": float(np.min(values)), "median": float(np.median(values))}
        data[name]["reach"] = dict(zip(map(str, THRESHOLDS), reach, strict=True))
        lines.append([name, f"{len(values)}", f"{np.min(values):.4f}", f"{np.median(values):.4f}", *map(str, reach)])
    return lines, data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of videos")
    parser.add_argument("--groups", type=Path, required=True, help="file of `path group` lines")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the copies and their features")
    parser.add_argument("--out", type=Path, required=True, help="folder for near_duplicates.md and .json")
    options = parser.parse_args()
    prepare(options.data, options.work)
    encoder = VideoEncoder(weights=options.weights)
    report = extract(encoder, collect_samples([options.work / "videos"]), options.work / "store")
    encoder.close()
    if report.failures:
        raise SystemExit(f"{len(report.failures)} videos failed: {next(iter(report.failures.values()))}")
    samples = assign_groups(read_samples(options.data).samples, read_groups(options.groups))
    store = FeatureStore(options.work / "store")
    lines, data = compare(store, {sample.path: sample.group for sample in samples})
    how = f"{store.info['architecture']['name']}, {store.info['clips']} clips a video, {store.info['dtype']}"
    body = f"Cosines of pool5 ({how}). The last columns: how many pairs reach a threshold.\n\n"
    body += table(["what is compared", "pairs", "lowest", "median", *map(str, THRESHOLDS)], lines)
    write(options.out, "near_duplicates", "Copies and their originals", body, data, precision=store.info["dtype"])


if __name__ == "__main__":
    main()
