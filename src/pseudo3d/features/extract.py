"""From a list of videos to a feature store."""

import contextlib
import logging
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import torch

from pseudo3d import __version__
from pseudo3d.data.annotations import SampleList, label_text
from pseudo3d.errors import Pseudo3dError, VideoError, first_few
from pseudo3d.features.committed import json_types
from pseudo3d.features.digests import Digests
from pseudo3d.features.distributed import ClusterEncoder, Result, connected
from pseudo3d.features.encoding import Encoder
from pseudo3d.features.gathered import EncodedVideo
from pseudo3d.features.interrupts import Interrupts
from pseudo3d.features.sharding import Shard, agree
from pseudo3d.features.store import SourceFile, StoreWriter, VideoFeatures, read_info
from pseudo3d.features.todo import Known, Todo, changed_meanwhile, content_of, find_todo, state_of
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


def extract(
    encoder: Encoder,
    samples: SampleList,
    out: str | Path,
    *,
    layers: Sequence[str] = ("pool5",),
    per_clip: bool = False,
    retry_failed: bool = False,
    wait: bool = False,
    prune: bool = False,
    shard: Shard | None = None,
    cluster: Literal["ray"] | None = None,
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
        prune: remove the rows and failures of videos that are neither in the list nor on the disk any more.
        shard: do this part of the videos only; other processes do the others, at the same time if they like.
        cluster: "ray" for all machines of a Ray cluster; this process is the one that writes.
        on_start: told what there is to do.
        on_video: told of each video (a progress bar).

    Raises:
        Pseudo3dError: an unknown layer, or ``out`` holds other files or a store made in another way (other weights,
            another root, other labels), or another process writes to it.
        OSError: ``out`` cannot be written or the disk is full; what was written before stays whole.
        KeyboardInterrupt: SIGINT or SIGTERM; the batch in hand is finished and stored first.
    """
    if shard is not None and prune:
        raise Pseudo3dError("a shard leaves the store itself alone and cannot prune it; use --prune without --shard")
    with contextlib.ExitStack() as stack:
        if cluster is not None:
            stack.enter_context(connected())
        info = _make_ready(encoder, samples, layers, per_clip, read_info(out))
        if shard is not None:
            info = _make_ready(encoder, samples, layers, per_clip, agree(out, json_types(info)))
            samples = shard.part_of(samples)
        interrupts = stack.enter_context(Interrupts())
        writer = stack.enter_context(StoreWriter(out, info, wait=wait, shard=shard))
        known = Known(writer.sources, writer.failed, writer.done) if shard is None else Known.of_store(out)
        digests = Digests()
        todo = find_todo(known, samples, retry_failed=retry_failed, prune=prune, digests=digests)
        _check_described(writer.location, todo, shard)
        writer.describe(todo.redescribed)
        for video in todo.vanished:
            writer.remove(video)
        if on_start is not None:
            on_start(todo)
        run = _Run(encoder, samples, writer, todo, interrupts, digests)
        encode = run.here if cluster is None else run.on_cluster
        for progress in run.store(encode(layers, per_clip)):
            if on_video is not None:
                on_video(progress)
        # only those of this call: the store may know of videos that are not asked for now
        asked = {sample.path for sample in samples.samples}
        failed = {path: each.reason for path, each in known.failed.items()} | writer.failures
        failures = {path: reason for path, reason in failed.items() if path in asked and path not in writer.done}
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
        self,
        encoder: Encoder,
        samples: SampleList,
        writer: StoreWriter,
        todo: Todo,
        interrupts: Interrupts,
        digests: Digests,
    ) -> None:
        self._encoder, self._root, self._writer = encoder, samples.root, writer
        self._todo, self._interrupts, self._digests = todo, interrupts, digests
        self.encoded = self.clips = self.damaged = 0

    def store(self, results: Iterable[Result]) -> Iterator[Progress]:
        """Every video of the list, stored one by one as they are done."""
        for index, result, source in results:
            with self._interrupts.held():
                progress = self._store(index, result, source)
            yield progress

    def here(self, layers: Sequence[str], per_clip: bool) -> Iterator[Result]:
        """The videos, encoded on this machine and hashed while they are decoded."""
        read: dict[int, tuple[SourceFile, Future[str | None]]] = {}  # of the videos in hand: as they were at first

        def opened() -> Iterator[tuple[int, Path]]:
            for index, path in self._paths():
                read[index] = (state_of(path), hashing.submit(content_of, path, self._digests))
                yield index, path

        with ThreadPoolExecutor(1, "hash") as hashing:
            try:
                for index, result in self._encoder.encode_unordered(
                    opened(), layers=layers, per_clip=per_clip, uninterrupted=self._at_work
                ):
                    before, hashed = read.pop(index)
                    error = result.error or changed_meanwhile(result.path, before)
                    checked = result if error is None else EncodedVideo(result.path, error=error)
                    yield index, checked, before._replace(sha256=hashed.result())
            finally:
                hashing.shutdown(cancel_futures=True)

    def on_cluster(self, layers: Sequence[str], per_clip: bool) -> Iterator[Result]:
        """The videos, encoded by the machines of a Ray cluster."""

        def meanwhile() -> None:
            with self._interrupts.held():
                self._writer.flush_if_due()

        yield from ClusterEncoder(self._encoder, layers, per_clip).encode(list(self._paths()), meanwhile)

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Around each clip: Ctrl-C waits, and rows do not wait for the next video, which may be hours long."""
        with self._interrupts.held():
            self._writer.flush_if_due()
            yield

    def _paths(self) -> Iterator[tuple[int, Path]]:
        return ((index, self._root / sample.path) for index, sample in enumerate(self._todo.videos))

    def _store(self, index: int, result: EncodedVideo, source: SourceFile) -> Progress:
        sample = self._todo.videos[index]
        if result.error is not None:
            self._writer.add_failure(sample.path, result.error, source)
            return Progress(result.error, 0)
        facts = result.facts
        assert facts is not None
        row = VideoFeatures(
            sample.path,
            result.layers,
            facts.starts,
            facts.num_frames,
            facts.fps,
            facts.undecodable_packets,
            label_text(sample),
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


def _make_ready(
    encoder: Encoder, samples: SampleList, layers: Sequence[str], per_clip: bool, before: dict[str, Any] | None
) -> dict[str, Any]:
    """Load the network the way the store was made, if there is one; what is to be said of the store."""
    expected = None if encoder.sampler == "sliding" else encoder.clips * len(samples)
    encoder.run_as({key: before[key] for key in HOW if key in before} if before else {}).load(expected)
    encoder.check_layers(layers)  # before a store is made that would carry a wrong name for ever
    encoder.calibrate([samples.root / sample.path for sample in samples.samples])
    return {
        **encoder.describe(),
        "layers": list(layers),
        "per_clip": per_clip,
        "root": samples.root.as_posix(),
        "made_with": _made_with(encoder, before),
    }


def _check_described(location: str, todo: Todo, shard: Shard | None) -> None:
    """Raise for what a shard must not touch: the rows of the store itself."""
    if shard is not None and todo.redescribed:
        raise Pseudo3dError(
            f"{location}: {len(todo.redescribed)} videos have another label, split or group than in the store "
            f"({first_few(todo.redescribed)}); run the same command once without --shard, which changes their rows"
        )


def _made_with(encoder: Encoder, before: dict[str, Any] | None) -> dict[str, str]:
    """Versions, hardware, the reason for the engine, where the weights lay: recorded, but not insisted on."""
    device, engine = encoder.runner_.device, encoder.runner_.engine
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    now = {"pseudo3d": __version__, "torch": torch.__version__, "av": av.__version__, "hardware": hardware}
    if before is None:
        source = Path(encoder.weights)
        weights_from = str(source.absolute()) if source.exists() else str(encoder.weights)
        return {**now, "why_this_engine": engine.reason, "weights_from": weights_from}
    known: dict[str, str] = before["made_with"]
    other = [f"{name} {known.get(name)} then, {now[name]} now" for name in now if known.get(name) != now[name]]
    if other:
        _log.warning(
            "the store was made with other software (%s): features agree, but not to the bit", "; ".join(other)
        )
    return known
