"""Decoding alone, beside the ``ffmpeg`` program doing the same; and what seeking saves in a long video.

    OMP_NUM_THREADS=1 python benchmarks/decoding.py --data ../shared/data --out docs/results

Both sides use one thread and turn every frame of the same files into RGB of the size that P3D takes, by the same scaler
with the same flags: ``ClipStream`` with clips of 16 frames end to end (the crop included), and the program with its
output written to the null device. Each file is read by both before the next one; rounds repeat the whole. The program's
start-up (``ffmpeg -version``) is measured in every round and subtracted; opening the file stays in on both sides.
Processor time is more steady than wall time where other work is running.
"""

import argparse
import os
import re
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import av
from report import spread, table, write

from pseudo3d.preprocessing import Preprocessing
from pseudo3d.video.clips import ClipPlan, ClipStream
from pseudo3d.video.decode import probe, read_clips
from pseudo3d.video.filters import resized
from pseudo3d.video.sampling import sample_clips

PREPROCESSING = Preprocessing()
EVERY_FRAME = ClipPlan(PREPROCESSING, sampler="sliding", stride=PREPROCESSING.num_frames)


@dataclass
class Seconds:
    """Wall and processor seconds of one side, one number for each round."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds, children included."""

    def used() -> float:
        usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    wall, processor = time.perf_counter(), used()
    work()
    return time.perf_counter() - wall, used() - processor


def program(*arguments: str | Path) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def ours(path: Path) -> int:
    stream = ClipStream(path, EVERY_FRAME)
    for _ in stream:
        pass
    return stream.facts.num_frames


def theirs(path: Path) -> None:
    info = probe(path)
    height, width = resized((info.height, info.width), PREPROCESSING.resize)
    flags = f"{PREPROCESSING.interpolation}+accurate_rnd+full_chroma_int"
    scale = f"scale={width}:{height}:flags={flags},format=rgb24"
    source = ("-threads", "1", "-filter_threads", "1", "-i", path, "-map", "0:V:0", "-fps_mode", "passthrough")
    program(*source, "-vf", scale, "-f", "rawvideo", "-y", os.devnull)


def compare(paths: list[Path], rounds: int) -> dict[str, Any]:
    """Both sides on all files, in every round; frames a second, and ours over theirs."""
    sides = {"ours": Seconds(), "ffmpeg": Seconds()}
    frames = sum(ours(path) for path in paths)  # the files are in the cache after this
    for _ in range(rounds):
        start = timed(lambda: program("-version"))
        sums = {name: [0.0, 0.0] for name in sides}
        for path in paths:
            for name, work in (("ours", ours), ("ffmpeg", theirs)):
                found = timed(lambda work=work, path=path: work(path))  # type: ignore[misc]
                for i in range(2):
                    sums[name][i] += found[i] - (start[i] if name == "ffmpeg" else 0)
        for name, side in sides.items():
            side.wall.append(sums[name][0])
            side.processor.append(sums[name][1])
    mine, other = sides["ours"], sides["ffmpeg"]
    return {
        "files": len(paths),
        "frames": frames,
        "frames/s": frames / median(mine.wall),
        "ffmpeg, frames/s": frames / median(other.wall),
        "wall": median(b / a for a, b in zip(mine.wall, other.wall, strict=True)),
        "processor": median(b / a for a, b in zip(mine.processor, other.processor, strict=True)),
        "seconds": {name: vars(side) for name, side in sides.items()},
    }


def seeking(path: Path, rounds: int) -> dict[str, Any]:
    """20 clips of a long video: with seeking, and all of it decoded."""
    stream = ClipStream(path, ClipPlan(PREPROCESSING))

    def sought() -> None:
        for _ in stream:
            pass

    def whole() -> None:
        read_clips(path, sample_clips, size=PREPROCESSING.resize, threads=1)

    pairs = [(timed(sought)[0], timed(whole)[0]) for _ in range(rounds)]
    return {
        "frames": stream.facts.num_frames,
        "seeks": stream.facts.seeks,
        "s": median(a for a, _ in pairs),
        "all decoded, s": median(b for _, b in pairs),
        "times faster": median(b / a for a, b in pairs),
        "seconds": pairs,
    }


def looped(path: Path, times: int, folder: Path) -> Path:
    """The same packets again and again."""
    out = folder / f"{times}x_{path.name}"
    program("-stream_loop", str(times - 1), "-i", path, "-map", "0:V:0", "-c", "copy", out)
    return out


def groups(data: Path, folder: Path) -> dict[str, list[Path]]:
    """What is measured: short files as they are, and long ones, in which opening the file counts for nothing."""
    surveillance = sorted((data / "fight_surv").glob("*/*.mp4"))
    written = folder / "written720.mp4"
    source = looped(data / "odd" / "nasa_13013.mp4", 3, folder)
    program("-i", source, "-vf", "scale=1280:720", "-c:v", "libx264", "-preset", "veryfast", "-crf", "23", written)
    return {
        "fight_surv, 30 of its videos": spread(surveillance, 30),
        "fight_surv, 5 of them, each 20 times on end": [looped(path, 20, folder) for path in spread(surveillance, 5)],
        "UCF101, 320x240 MPEG-4 in AVI, 10 times on end": [looped(p, 10, folder) for p in (data / "odd").glob("*.avi")],
        "1280x720 H.264, written by x264": [written],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds fight_surv/ and odd/")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True, help="folder for decoding.md and decoding.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = groups(options.data, folder)
        results: dict[str, Any] = {what: compare(paths, options.rounds) for what, paths in sets.items()}
        long = looped(sets["1280x720 H.264, written by x264"][0], 10, folder)
        found = seeking(long, max(3, options.rounds // 2))
    body = "Throughput of `ClipStream` over that of the program, above 1 when ours is faster.\n\n" + table(
        ("", "files", "frames", "ours, frames/s", "ffmpeg, frames/s", "ratio, wall", "ratio, processor"),
        [
            (
                what,
                str(row["files"]),
                str(row["frames"]),
                f"{row['frames/s']:.0f}",
                f"{row['ffmpeg, frames/s']:.0f}",
                f"{row['wall']:.2f}",
                f"{row['processor']:.2f}",
            )
            for what, row in results.items()
        ],
    )
    body += (
        f"\n## Seeking\n\n20 clips of 16 frames of a 1280x720 H.264 video of {found['frames']} frames: "
        f"{found['s']:.2f} s in {found['seeks']} runs, {found['all decoded, s']:.2f} s when all of it is decoded: "
        f"{found['times faster']:.1f} times faster.\n"
    )
    banner = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"ffmpeg version (\S+)", banner)
    versions = {"pyav": av.__version__, "ffmpeg": version[1] if version else "?"}
    write(options.out, "decoding", "Decoding beside ffmpeg", body, results | {"seeking": found}, **versions)


if __name__ == "__main__":
    main()
