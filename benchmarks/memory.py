"""Memory of ``p3d extract``: proportional set size, summed over the process tree, while it runs (Linux).

The anonymous part of it is told apart: what is mapped from files counts for less while other processes map it too
(another Python with PyTorch, say), so that only the anonymous part can show growth.

    python benchmarks/memory.py --out docs/results

Three runs with P3D ResNet-50 and two decoders, everything else by default: one video of an hour in 1280x720 (20 clips),
the same hour as a timeline (``--stride``), and many short videos (one clip each, so that it ends). The videos are
written first: a minute of moving noise and gradients, H.264, repeated without encoding again; and a few short ones
under many names.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from report import table, write

from pseudo3d import create_model, save_pretrained


@dataclass
class Watched:
    """What a run used, sampled several times a second."""

    seconds: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)
    anonymous_mib: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    said: str = ""

    def peak(self) -> float:
        """The highest sum, MiB."""
        return max(self.mib)

    def during(self, begin: float, end: float) -> float:
        """The median of the anonymous part over a part of the run, given as shares of its length."""
        at = zip(self.seconds, self.anonymous_mib, strict=True)
        chosen = [m for s, m in at if begin <= s / self.wall_s <= end]
        return float(np.median(chosen))


def tree(root: int) -> list[int]:
    """A process and all below it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found = [root]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def pss_mib(root: int) -> tuple[float, float]:
    """Proportional set size of a process tree, and the anonymous part of it."""
    total = {"Pss:": 0, "Pss_Anon:": 0}
    for pid in tree(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for name, value in (line.split()[:2] for line in lines):
            if name in total:
                total[name] += int(value)
    return total["Pss:"] / 1024, total["Pss_Anon:"] / 1024


def watch(arguments: list[str]) -> Watched:
    """Run ``p3d extract`` and look at its memory."""
    watched, began = Watched(), time.monotonic()
    command = [sys.executable, "-m", "pseudo3d.cli", "extract", *arguments]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        while process.poll() is None:
            used, anonymous = pss_mib(process.pid)
            if used:
                watched.seconds.append(time.monotonic() - began)
                watched.mib.append(used)
                watched.anonymous_mib.append(anonymous)
            time.sleep(0.2)
        watched.wall_s = time.monotonic() - began
        said.seek(0)
        watched.said = said.read()
    if process.returncode != 0:
        raise SystemExit(f"p3d extract ended with {process.returncode}: {watched.said}")
    return watched


def write_hour(folder: Path, minutes: int) -> Path:
    """A video of that many minutes, 1280x720, 25 frames/s, H.264."""
    minute, listed, hour = folder / "minute.mp4", folder / "minutes.txt", folder / "hour" / "hour.mp4"
    source = "testsrc2=size=1280x720:rate=25:duration=60,noise=alls=20:allf=t"
    encode = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-g", "250", "-b:v", "2M"]
    run = ["ffmpeg", "-loglevel", "error", "-y"]
    subprocess.run([*run, "-f", "lavfi", "-i", source, *encode, minute], check=True)
    listed.write_text(f"file '{minute}'\n" * minutes)
    hour.parent.mkdir()
    subprocess.run([*run, "-f", "concat", "-safe", "0", "-i", listed, "-c", "copy", hour], check=True)
    return hour


def write_short(folder: Path, count: int) -> Path:
    """``count`` names of ten different videos of two seconds, 320x240."""
    place = folder / "short"
    place.mkdir()
    for number in range(min(10, count)):
        source = f"testsrc2=size=320x240:rate=25:duration=2,hue=h={36 * number}"
        command = ["ffmpeg", "-loglevel", "error", "-y", "-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p"]
        subprocess.run([*command, place / f"{number:05}.mp4"], check=True)
    for number in range(10, count):
        os.link(place / f"{number % 10:05}.mp4", place / f"{number:05}.mp4")
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where memory.md and memory.json go")
    parser.add_argument("--model", default="p3d_resnet50")
    parser.add_argument("--short", type=int, default=10_000, help="how many short videos")
    parser.add_argument("--minutes", type=int, default=60, help="of the long video")
    parser.add_argument("--stride", type=int, default=250, help="frames from clip to clip of the timeline")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = save_pretrained(create_model(args.model, num_classes=400).eval(), folder / "weights")
        common = ["--weights", str(weights), "--workers", "2"]
        hour, short = write_hour(folder, args.minutes), write_short(folder, args.short)
        runs = {
            f"{args.minutes} minutes of 1280x720, 20 clips": [str(hour), "--out", str(folder / "a")],
            f"the same, a clip every {args.stride} frames": [
                str(hour), "--out", str(folder / "b"), "--stride", str(args.stride),
            ],
            f"{args.short} videos of 2 s": [str(short), "--out", str(folder / "c"), "--clips", "1"],
        }  # fmt: skip
        watched = {what: watch([*arguments, *common]) for what, arguments in runs.items()}
    rows = [
        [
            what,
            f"{each.peak():.0f}",
            f"{each.during(0.2, 0.4):.0f}",
            f"{each.during(0.8, 1.0):.0f}",
            f"{each.wall_s:.0f}",
        ]
        for what, each in watched.items()
    ]
    columns = [f"{args.model}, two decoders", "peak, MiB", "anonymous: early, MiB", "late, MiB", "s"]
    body = table(columns, rows) + "\nEarly and late: the medians from 20 to 40 % and from 80 to 100 % of the run.\n"
    results = {
        what: {
            "peak_mib": each.peak(),
            "anonymous_mib": [each.during(i / 40, (i + 1) / 40) for i in range(40)],  # over the run
            "wall_s": each.wall_s,
            "said": each.said.splitlines()[-1],
        }
        for what, each in watched.items()
    }
    write(args.out, "memory", "Memory of an extraction", body, {"runs": results}, precision="the default precision")


if __name__ == "__main__":
    main()
