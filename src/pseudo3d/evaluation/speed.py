"""Speeds for tables: several jobs in turns, so that a busy moment of the machine does not fall on one of them alone."""

import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pseudo3d.errors import Pseudo3dError
from pseudo3d.features.encoding import Encoder, decode_here
from pseudo3d.inference import ClipRunner
from pseudo3d.video.clips import ClipFacts
from pseudo3d.video.pool import Decoded, Failed


@dataclass(frozen=True)
class Rate:
    """Items a second over the rounds.

    Args:
        median: of the rounds.
        lowest: of the rounds.
        highest: of the rounds.
        rounds: how many.
    """

    median: float
    lowest: float
    highest: float
    rounds: int

    def __str__(self) -> str:
        if self.rounds == 1:
            return f"{self.median:.1f} in one round"
        return f"median of {self.rounds} rounds, {self.lowest:.1f} to {self.highest:.1f}"


def check_rounds(rounds: int, seconds: float) -> None:
    """Raise a Pseudo3dError for fewer than one round, or a length of turns that is none.

    Example:
        >>> check_rounds(0, 2.0)
        Traceback (most recent call last):
        pseudo3d.errors.Pseudo3dError: rounds must be at least 1 and seconds not negative, got 0 and 2.0
    """
    if rounds < 1 or not 0 <= seconds < math.inf:
        raise Pseudo3dError(f"rounds must be at least 1 and seconds not negative, got {rounds} and {seconds}")


def measure_rates(
    jobs: Mapping[str, Callable[[], int]],
    *,
    rounds: int = 5,
    seconds: float = 2.0,
    on_job: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Rate]:
    """How many items a second each job does: in every round each job has its turn.

    Args:
        jobs: by name, what does some items and returns how many. Make it ready before: its first call counts.
        rounds: turns of each job.
        seconds: a turn repeats the job until so long has passed; once at least.
        on_job: called with the name after each turn (a progress bar).
        clock: seconds.

    Raises:
        Pseudo3dError: fewer than one round, or negative seconds.

    Example:
        >>> ticks = iter(range(100))
        >>> measure_rates({"a": lambda: 4, "b": lambda: 8}, rounds=2, seconds=0, clock=lambda: next(ticks))["b"].median
        8.0
    """
    check_rounds(rounds, seconds)
    speeds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            began, items = clock(), 0
            while True:
                items += job()
                passed = clock() - began
                if passed >= seconds and passed > 0:
                    break
            speeds[name].append(items / passed)
            if on_job is not None:
                on_job(name)
    return {name: Rate(statistics.median(all_), min(all_), max(all_), rounds) for name, all_ in speeds.items()}


def network_job(runner: ClipRunner, layer: str) -> Callable[[], int]:
    """One batch of random grey levels through a network, which has computed one already; gives the clips of a batch.

    Example:
        >>> from pseudo3d import create_model
        >>> model = create_model("resnet14")
        >>> model.preprocessing = model.preprocessing.with_size(32)
        >>> network_job(ClipRunner(model, device="cpu", batch_size=2), "prob")()
        2
    """
    shape = (runner.batch_size, runner.preprocessing.num_frames, *runner.preprocessing.crop, 3)
    batch = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def job() -> int:
        runner.compute(batch, (layer,))
        return runner.batch_size

    job()
    return job


@dataclass(frozen=True)
class Runtime:
    """What a network took for the features of some videos; rates are frames of the videos a second.

    Args:
        whole: from files to features, decoding and network side by side.
        decoding: the same clips decoded, resized and cropped, by the same processes, without the network.
        network: as many clips through the network, without decoding.
        videos: that went through.
        frames: of them.
        clips: of them.
        failed: "path: reason" of each video that did not.
    """

    whole: Rate
    decoding: Rate
    network: Rate
    videos: int
    frames: int
    clips: int
    failed: tuple[str, ...]


def measure_runtime(
    encoder: Encoder,
    videos: Sequence[Path],
    *,
    layer: str,
    rounds: int = 3,
    on_job: Callable[[str], None] | None = None,
) -> Runtime:
    """Features of all videos, their decoding alone and their network alone, in turns.

    Before, all videos are decoded once: to know their frames, and which of them cannot be used.

    Args:
        encoder: network, clips and decoders.
        videos: files.
        layer: the representation.
        rounds: measured passes.
        on_job: called with the name of each finished pass.

    Raises:
        Pseudo3dError: no video can be used.
    """
    encoder.load()
    encoder.check_layers((layer,))
    facts, failed = _decoded(encoder, videos)
    if not facts:
        raise Pseudo3dError(f"none of {len(videos)} videos can be used; the first: {failed[0]}")
    used = [videos[i] for i in sorted(facts)]
    frames = sum(each.num_frames for each in facts.values())
    clips = sum(len(each.starts) for each in facts.values())
    one_batch = network_job(encoder.runner_, layer)

    def both() -> int:
        results = encoder.encode_many(used, layers=(layer,))
        return sum(result.facts.num_frames for result in results if result.facts is not None)

    def decoding() -> int:
        return sum(each.num_frames for each in _decoded(encoder, used)[0].values())

    def network() -> int:
        for _ in range(math.ceil(clips / encoder.runner_.batch_size)):
            one_batch()
        return frames

    jobs = {"decoding and network": both, "decoding alone": decoding, "network alone": network}
    rates = measure_rates(jobs, rounds=rounds, seconds=0, on_job=on_job)
    whole, *alone = (rates[name] for name in jobs)
    return Runtime(whole, alone[0], alone[1], len(used), frames, clips, tuple(failed))


def _decoded(encoder: Encoder, videos: Sequence[Path]) -> tuple[dict[int, ClipFacts], list[str]]:
    """Decode the clips of the videos as the encoder does: facts by place in the list, and why some have none."""
    decode = encoder.pool().stream if encoder.decoders().workers else decode_here
    facts: dict[int, ClipFacts] = {}
    failed = []
    for event in decode(enumerate(videos), plan=encoder.plan_):
        match event:
            case Decoded(place, found):
                facts[place] = found
            case Failed(_, reason):
                failed.append(reason)
    return facts, failed


def hardware(device: torch.device) -> str:
    """What the numbers were measured on, in words.

    Example:
        >>> hardware(torch.device("cpu")).endswith("threads") or torch.get_num_threads() == 1
        True
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {threads} thread" + ("s" if threads > 1 else "")
