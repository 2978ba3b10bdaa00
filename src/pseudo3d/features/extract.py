"""From a list of videos to a feature store."""

import contextlib
import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from pseudo3d import __version__
from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.errors import Pseudo3dError, VideoError, first_few
from pseudo3d.features.encoding import EncodedVideo, Encoder
from pseudo3d.features.interrupts import Interrupts
from pseudo3d.features.store import Failure, SourceFile, StoreWriter, VideoFeatures, read_info
from pseudo3d.files import sha256_of
from pseudo3d.video.clips import ClipStream

_log = logging.getLogger("pseudo3d")

# What says how features were computed rather than of what: a run that goes on does it the way the first one did.
HOW = ("engine", "device", "dtype", "batch_size", "threads", "ranges")


@dataclass(frozen=True)
class ExtractReport:
    """What an extraction did.

    Args:
        encoded: videos whose features were computed now.
        already_done: videos that were in the store before and have not changed since.
        failures: reason for each video without features, also of earlier runs.
        clips: of the videos that were encoded now, all together.
        damaged: videos encoded now that FFmpeg could not decode completely.
    """

    encoded: int
    already_done: int
    failures: dict[str, str]
    clips: int
    damaged: int


@dataclass(frozen=True)
class Progress:
    """One more video is done.

    Args:
        error: why it failed, or None.
        clips: that were computed for it; 0 when it failed.
    """

    error: str | None
    clips: int


@dataclass(frozen=True)
class Todo:
    """What a run has to do.

    Args:
        videos: to encode, in the order of the list.
        changed: those of them that the store has with other content.
        done: how many are in the store, unchanged.
        failed: how many failed before, have not changed since, and are not tried again.
    """

    videos: tuple[Sample, ...]
    changed: frozenset[str]
    done: int
    failed: int


def extract(
    encoder: Encoder,
    samples: SampleList,
    out: str | Path,
    *,
    layers: Sequence[str] = ("pool5",),
    per_clip: bool = False,
    retry_failed: bool = False,
    wait: bool = False,
    on_start: Callable[[Todo], None] | None = None,
    on_video: Callable[[Progress], None] | None = None,
) -> ExtractReport:
    """Encode every video into the store ``out``; the same call again goes on where an earlier one stopped.

    A video whose size or content has changed since is encoded again; one that failed is not, unless it has changed.

    Args:
        encoder: the network and how clips are taken. In a store that is there, its engine, device, precision, batch
            size and threads are what the store was made with wherever the encoder says "auto".
        samples: the videos, with labels, splits and groups where they are known.
        out: the store's folder, or a URL.
        layers: which activations, each averaged over the clips.
        per_clip: store those of every clip too.
        retry_failed: try videos again that failed before.
        wait: for another process that writes to this store, instead of saying so.
        on_start: told what there is to do.
        on_video: told of each video (a progress bar).

    Raises:
        Pseudo3dError: an unknown layer, or ``out`` holds other files or a store made in another way (other weights,
            another root, other labels), or another process writes to it.
        OSError: ``out`` cannot be written or the disk is full; what was written before stays whole.
        KeyboardInterrupt: SIGINT or SIGTERM; the batch in hand is finished and stored first.
    """
    before = read_info(out)
    expected = None if encoder.sampler == "sliding" else encoder.clips * len(samples)
    encoder.run_as({key: before[key] for key in HOW if key in before} if before else {}).load(expected)
    encoder.check_layers(layers)  # before a store is made that would carry a wrong name for ever
    encoder.calibrate([samples.root / sample.path for sample in samples.samples])
    info = {
        **encoder.describe(),
        "layers": list(layers),
        "per_clip": per_clip,
        "root": samples.root.as_posix(),
        "made_with": _made_with(encoder, before),
    }
    with Interrupts() as interrupts, StoreWriter(out, info, wait=wait) as writer:
        _check_described(writer, samples)
        todo = find_todo(writer.sources, writer.failed, samples, retry_failed=retry_failed)
        if on_start is not None:
            on_start(todo)
        run = _Run(encoder, samples, writer, todo, interrupts)
        for progress in run.encode(layers, per_clip):
            if on_video is not None:
                on_video(progress)
        # only those of this call: the store may know of videos that are not asked for now
        asked = {sample.path for sample in samples.samples}
        failures = {path: reason for path, reason in writer.failures.items() if path in asked}
    return ExtractReport(run.encoded, todo.done, failures, run.clips, run.damaged)


@dataclass(frozen=True)
class Estimate:
    """How long an extraction should take.

    Args:
        clips: of one video, on average over the videos that were tried.
        decode_s: seconds to decode one video by one process.
        network_s: seconds of the network for the clips of one video.
        seconds: for all of them.
        tried: videos that were decoded to find out.
    """

    clips: float
    decode_s: float
    network_s: float
    seconds: float
    tried: int


def estimate(encoder: Encoder, paths: Sequence[Path], layers: Sequence[str], *, tries: int = 3) -> Estimate | None:
    """Decode a few of the videos and run the network on a batch, to say how long all of them should take.

    On a processor decoders and network share the cores: the sum of their work over the cores. Beside a GPU, the longer
    of the two.

    Returns:
        None when none of the tried videos can be decoded.
    """
    encoder.load()
    decoded, clips = [], []
    for i in sorted({round(step * (len(paths) - 1) / max(tries - 1, 1)) for step in range(tries)}) if paths else []:
        began = time.perf_counter()
        stream = ClipStream(paths[i], encoder.plan_)
        try:
            shapes = [frames.shape for _, frames in stream]
        except VideoError:
            continue
        decoded.append(time.perf_counter() - began)
        clips.append(len(shapes))
    if not decoded:
        return None
    runner = encoder.runner_
    batch = np.zeros((runner.batch_size, *shapes[0]), np.uint8)
    runner.compute(batch, layers)  # the first gets things ready
    began = time.perf_counter()
    runner.compute(batch, layers)
    network_s = (time.perf_counter() - began) / runner.batch_size * float(np.mean(clips))
    decode_s = float(np.mean(decoded))
    if runner.device.type == "cpu":
        each = network_s + decode_s / torch.get_num_threads()
    else:
        each = max(network_s, decode_s / max(1, encoder.decoders().workers))
    return Estimate(float(np.mean(clips)), decode_s, network_s, each * len(paths), len(decoded))


class _Run:
    """The loop of one extraction, and what it counts."""

    def __init__(
        self, encoder: Encoder, samples: SampleList, writer: StoreWriter, todo: Todo, interrupts: Interrupts
    ) -> None:
        self._encoder, self._root, self._writer = encoder, samples.root, writer
        self._todo, self._interrupts = todo, interrupts
        self._read: dict[
            int, tuple[SourceFile, Future[str | None]]
        ] = {}  # of the videos in hand: as they were at first
        self.encoded = self.clips = self.damaged = 0

    def encode(self, layers: Sequence[str], per_clip: bool) -> Iterator[Progress]:
        """Every video of the list, stored one by one as they are done."""
        with ThreadPoolExecutor(1, "hash") as hashing:
            try:
                results = self._encoder.encode_unordered(
                    self._opened(hashing), layers=layers, per_clip=per_clip, uninterrupted=self._at_work
                )
                for index, result in results:
                    with self._interrupts.held():
                        progress = self._store(index, result)
                    yield progress
            finally:
                hashing.shutdown(cancel_futures=True)

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Around each clip: Ctrl-C waits, and rows do not wait for the next video, which may be hours long."""
        with self._interrupts.held():
            self._writer.flush_if_due()
            yield

    def _opened(self, hashing: ThreadPoolExecutor) -> Iterator[tuple[int, Path]]:
        for index, sample in enumerate(self._todo.videos):
            path = self._root / sample.path
            self._read[index] = (state_of(path), hashing.submit(_content_of, path))
            yield index, path

    def _store(self, index: int, result: EncodedVideo) -> Progress:
        sample = self._todo.videos[index]
        before, hashed = self._read.pop(index)
        source = before._replace(sha256=hashed.result())
        error = result.error
        if error is None and state_of(result.path) != before:
            error = f"{result.path}: changed while it was read; run the same command again when it is complete"
        if error is not None:
            self._writer.add_failure(sample.path, error, source)
            return Progress(error, 0)
        facts = result.facts
        assert facts is not None
        row = VideoFeatures(
            sample.path,
            result.layers,
            facts.starts,
            facts.num_frames,
            facts.fps,
            facts.undecodable_packets,
            sample.label,
            sample.split,
            sample.group,
            source=source,
            duration=facts.duration,
            times=facts.times,
            concealed_frames=facts.concealed_frames,
            seeks=facts.seeks,
            clips=result.clips or None,
        )
        self._writer.add(row, replace=sample.path in self._todo.changed)
        self.encoded += 1
        self.clips += len(facts.starts)
        self.damaged += row.damaged
        return Progress(None, len(facts.starts))


def find_todo(
    done: Mapping[str, SourceFile], failed: Mapping[str, Failure], samples: SampleList, *, retry_failed: bool = False
) -> Todo:
    """Which videos a store lacks, has with other content, or knows to have failed.

    Size and time of change tell; where only the time differs (a copy), the content does.

    Args:
        done: the files that the store's rows were made of.
        failed: the store's failures.
        samples: the videos that are wanted.
        retry_failed: try those again that failed.
    """
    videos, changed, unchanged, given_up = [], set(), 0, 0
    for sample in samples.samples:
        path = samples.root / sample.path
        if sample.path in done:
            if _same_file(path, done[sample.path]):
                unchanged += 1
                continue
            changed.add(sample.path)
        elif sample.path in failed and not retry_failed and _same_file(path, failed[sample.path].source):
            given_up += 1
            continue
        videos.append(sample)
    return Todo(tuple(videos), frozenset(changed), unchanged, given_up)


def state_of(path: Path) -> SourceFile:
    """Size and time of change of a file, empty when it is not there; its content is not read."""
    try:
        status = path.stat()
    except OSError:
        return SourceFile()
    return SourceFile(status.st_size, status.st_mtime_ns)


def _same_file(path: Path, known: SourceFile) -> bool:
    """Whether a file is what it was; one that is gone has not changed."""
    now = state_of(path)
    if now.size is None:
        return True
    if now.size != known.size:
        return False
    return now.modified == known.modified or (known.sha256 is not None and _content_of(path) == known.sha256)


def _content_of(path: Path) -> str | None:
    """The hash of a file's content; None for what cannot be read, which is said where it is decoded."""
    try:
        return sha256_of(path)
    except OSError:
        return None


def _made_with(encoder: Encoder, before: dict[str, Any] | None) -> dict[str, str]:
    """Versions, hardware and the reason for the engine, which a store records but does not insist on."""
    device, engine = encoder.runner_.device, encoder.runner_.engine
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    now = {"pseudo3d": __version__, "torch": torch.__version__, "av": av.__version__, "hardware": hardware}
    if before is None:
        return {**now, "why_this_engine": engine.reason}
    known: dict[str, str] = before["made_with"]
    other = [f"{name} {known.get(name)} then, {now[name]} now" for name in now if known.get(name) != now[name]]
    if other:
        _log.warning(
            "the store was made with other software (%s): features agree, but not to the bit", "; ".join(other)
        )
    return known


def _check_described(writer: StoreWriter, samples: SampleList) -> None:
    """Raise if a video in the store has another label, split or group now: its row would go on saying the old one."""
    changed = [
        sample.path
        for sample in samples.samples
        if writer.done.get(sample.path, ()) not in ((), (sample.label, sample.split, sample.group))
    ]
    if changed:
        raise Pseudo3dError(
            f"{writer.location}: {len(changed)} videos have another label, split or group than when they were "
            f"extracted ({first_few(changed)}); give a new folder for --out"
        )
