"""How many random training clips a second come out of video files, beside the decoding that this cannot do without.

    OMP_NUM_THREADS=1 python benchmarks/loading.py --data ../shared/data/fight_surv --out docs/results

The clips are those of training: one of 16 frames of each video in every epoch, in random order, resized to 182x242. All
sides use the same index of the videos, which is made first.

    loader           ``make_loader`` and ``load``: decoding, crops, batches, the way to this process
    decoding only    ``read_frames`` in a bare loop: the limit. Each clip is decoded from the keyframe before it, and
                     its frames are turned into RGB of that size; nothing else happens
    whole videos     ``read_clips`` in a bare loop: all frames are decoded for each clip, as without an index

Rounds go over all sides; the table has medians over the rounds. Then one loader runs through many epochs, and the
memory of this process and its workers is looked at after each (proportional set size, on Linux).
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import mean, median
from typing import Any

import av
import numpy as np
from memory import pss_mib
from report import percent, spread, table, write

from pseudo3d.data.annotations import SampleList
from pseudo3d.data.augmentation import Augmentation
from pseudo3d.data.collect import collect_samples
from pseudo3d.data.dataset import TrainingClips, load, make_loader
from pseudo3d.data.sampler import StepSampler
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.video.decode import read_clips
from pseudo3d.video.index import IndexCache, read_frames
from pseudo3d.video.sampling import sample_clips_random

PREPROCESSING = Preprocessing(resize=(182, 242))  # the crop is 160x160
SEED = 0

_barrier: Barrier  # of the processes of ``in_processes``, in each of them

Reader = Callable[[Path, IndexCache, np.random.Generator], object]


def clip_only(path: Path, cache: IndexCache, rng: np.random.Generator) -> object:
    """One random clip, and no frame more than it takes."""
    index, p = cache.get(path), PREPROCESSING
    start = int(sample_clips_random(index.num_frames, 1, p.num_frames, rng)[0, 0])
    return read_frames(path, index, start, p.num_frames, size=p.resize, interpolation=p.interpolation)


def whole_video(path: Path, cache: IndexCache, rng: np.random.Generator) -> object:
    """One random clip out of all frames."""
    length = PREPROCESSING.num_frames
    return read_clips(
        path, lambda frames: sample_clips_random(frames, 1, length, rng), size=PREPROCESSING.resize, threads=1
    )


def bare(read: Reader, paths: list[Path], cache: IndexCache, seconds: float, seed: int) -> float:
    """Clips a second of a bare loop over the videos in random order."""
    rng = np.random.default_rng(seed)
    clips, began = 0, time.perf_counter()
    while True:
        for place in rng.permutation(len(paths)):
            read(paths[place], cache, rng)
            clips += 1
            taken = time.perf_counter() - began
            if taken >= seconds:
                return clips / taken


def in_processes(read: Reader, paths: list[Path], cache: IndexCache, seconds: float, workers: int) -> float:
    """The same in several processes at once, added up."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _remember, (context.Barrier(workers, timeout=600),)) as pool:
        rates = pool.starmap(_bare, [(read, paths, cache, seconds, seed) for seed in range(workers)], chunksize=1)
        return sum(rates)


def _remember(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _bare(read: Reader, paths: list[Path], cache: IndexCache, seconds: float, seed: int) -> float:
    """``bare``, begun when all processes are there and have the indices."""
    for path in paths:
        cache.get(path)
    _barrier.wait()
    return bare(read, paths, cache, seconds, seed)


def batches(dataset: TrainingClips, batch: int, workers: int, epochs: int) -> Generator[int, None, None]:
    """The sizes of the batches of that many epochs, as they come."""
    sampler = StepSampler(len(dataset), min(batch, len(dataset)), seed=SEED)
    sampler.stop = sampler.steps_per_epoch * epochs
    for each in load(make_loader(dataset, sampler, workers=workers)):
        yield len(each.frames)


def loader(dataset: TrainingClips, batch: int, seconds: float, workers: int) -> float:
    """Clips a second of the loader, the start of its workers and what they made meanwhile left out."""
    with closing(batches(dataset, batch, workers, epochs=1_000_000)) as sizes:
        for _ in range(1 + 2 * workers):
            next(sizes)
        clips, began = 0, time.perf_counter()
        for size in sizes:
            clips += size
            taken = time.perf_counter() - began
            if taken >= seconds:
                return clips / taken
    raise AssertionError("a million epochs are never over")


def memory(dataset: TrainingClips, batch: int, epochs: int, workers: int) -> list[float]:
    """MiB of this process and its workers after each epoch."""
    found = []
    clips = 0
    for size in batches(dataset, batch, workers, epochs):
        clips += size
        if clips == len(dataset):
            found.append(pss_mib(os.getpid())[0])
            clips = 0
    return found


def facts(paths: list[Path], cache: IndexCache) -> dict[str, float]:
    """How long the videos are, and how much of them a clip costs."""
    length = PREPROCESSING.num_frames
    decoded = []
    for path in paths:
        index = cache.get(path)
        starts = range(max(0, index.num_frames - length) + 1)
        decoded.append(mean(min(s + length, index.num_frames) - index.entry(s) for s in starts))
    return {
        "videos": len(paths),
        "frames a video": mean(cache.get(path).num_frames for path in paths),
        "frames decoded for a clip": mean(decoded),
        "videos with seeking": mean(bool(cache.get(path).entries.any()) for path in paths),
    }


def measure(samples: SampleList, cache: IndexCache, options: argparse.Namespace) -> dict[str, Any]:
    """Clips/s of every side, one number for each round, and the memory over epochs."""
    paths = [samples.root / sample.path for sample in samples.samples]
    dataset = TrainingClips(samples, PREPROCESSING, Augmentation(), seed=SEED, index=cache)
    workers, seconds = options.workers, options.seconds
    sides: dict[str, Callable[[], float]] = {
        "loader, in process": lambda: loader(dataset, options.batch, seconds, 0),
        "decoding only, in process": lambda: bare(clip_only, paths, cache, seconds, SEED),
        "whole videos, in process": lambda: bare(whole_video, paths, cache, seconds, SEED),
        "loader, workers": lambda: loader(dataset, options.batch, seconds, workers),
        "decoding only, workers": lambda: in_processes(clip_only, paths, cache, seconds, workers),
        "whole videos, workers": lambda: in_processes(whole_video, paths, cache, seconds, workers),
    }
    rates = defaultdict(list)
    for _ in range(options.rounds):
        for name, side in sides.items():
            rates[name].append(side())
    linux = Path("/proc/self/smaps_rollup").exists()
    used = memory(dataset, options.batch, options.epochs, workers) if linux else []
    return {"facts": facts(paths, cache), "clips/s": dict(rates), "MiB after each epoch": used}


def report(results: dict[str, Any], options: argparse.Namespace) -> str:
    """The body of the Markdown file."""
    found = results["facts"]
    body = (
        f"{found['videos']} videos of {found['frames a video']:.0f} frames on average, "
        f"{percent(found['videos with seeking'])} of them with a keyframe in the middle; a clip of 16 frames takes "
        f"{found['frames decoded for a clip']:.0f} decoded frames on average. The index of all took "
        f"{results['index, s']:.1f} s.\n\nClips/s, and the loader's share of decoding only:\n\n"
    )
    rows = []
    for where, what in (("in process", "in this process"), ("workers", f"workers: {options.workers}")):
        rate = {
            side: median(results["clips/s"][f"{side}, {where}"]) for side in ("loader", "decoding only", "whole videos")
        }
        share = rate["loader"] / rate["decoding only"]
        rows.append((what, *(f"{each:.1f}" for each in rate.values()), percent(share)))
    body += table(("", "loader", "decoding only", "whole videos", "loader / decoding only"), rows)
    used = results["MiB after each epoch"]
    if not used:
        return body + "\nMemory: not measured, this is no Linux.\n"
    shown = " ".join(f"{mib:.0f}" for mib in used)
    return body + (
        f"\n## Memory\n\nMiB of the process and its {options.workers} workers after each of {len(used)} epochs:\n\n"
        f"    {shown}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder per class, or a list, as for p3d train")
    parser.add_argument("--videos", type=int, default=100, help="so many of them, evenly spread over the list")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10, help="of each side in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20, help="over which memory is looked at")
    parser.add_argument("--out", type=Path, required=True, help="folder for loading.md and loading.json")
    options = parser.parse_args()
    samples = collect_samples([options.data])
    samples = replace(samples, samples=tuple(spread(samples.samples, options.videos)))
    with tempfile.TemporaryDirectory() as folder:
        cache, began = IndexCache(Path(folder)), time.perf_counter()
        bad = cache.build([samples.root / sample.path for sample in samples.samples])
        seconds = time.perf_counter() - began
        if bad:
            raise SystemExit("\n".join(bad.values()))
        results = {"index, s": seconds} | measure(samples, cache, options)
    write(options.out, "loading", "Loading clips to train on", report(results, options), results, pyav=av.__version__)


if __name__ == "__main__":
    main()
