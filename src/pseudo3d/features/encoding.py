"""Videos to activations: decoders, batches and the network, side by side. ``VideoEncoder`` without scikit-learn.

    paths -> DecoderPool: processes that decode -> clips of any video -> ClipBatches: network -> one result a video

Nothing here imports scikit-learn, which takes as long to import as PyTorch.
"""

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float32

from pseudo3d.errors import Pseudo3dError, VideoError
from pseudo3d.features.decoders import Decoders, default_workers
from pseudo3d.features.gathered import EncodedVideo, Gathered, Layers
from pseudo3d.features.mirrored import MirroredRunner
from pseudo3d.features.networks import DEFAULT_MODEL, ReadyNetwork, open_network
from pseudo3d.inference import ClipBatches, ClipRunner, DType, choose_device
from pseudo3d.models import VideoModel
from pseudo3d.models.interface import check_layers
from pseudo3d.video.clips import ClipPlan, ClipStream
from pseudo3d.video.pool import Decoded, DecoderPool, Event, Failed, NewClip
from pseudo3d.video.sampling import SLIDING_STRIDE

Encoding = TypeVar("Encoding", bound="Encoder")
_CALIBRATED_ON = 8  # videos


class Encoder:
    """Videos to representations: the average over a video's clips of a layer's activations (paper section 4).

    The network is loaded on first use, and the decoder processes start then; ``close`` (or the end of the program)
    ends them. All arguments are ``VideoEncoder``'s, which adds scikit-learn's methods.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        weights: str | Path,
        clips: int = 20,
        layer: str = "pool5",
        sampler: str = "uniform",
        stride: int = SLIDING_STRIDE,
        seed: int = 0,
        resize: int | tuple[int, int] | None = None,
        mirror: bool = False,
        device: str = "auto",
        dtype: DType = "auto",
        engine: str = "auto",
        batch_size: int | None = None,
        class_names: Sequence[str] | str | Path | None = None,
        workers: int | None = None,
        timeout: float = 60.0,
        memory: float = 2.0,
    ) -> None:
        self.model = model
        self.weights = weights
        self.clips = clips
        self.layer = layer
        self.sampler = sampler
        self.stride = stride
        self.seed = seed
        self.resize = resize
        self.mirror = mirror
        self.device = device
        self.dtype = dtype
        self.engine = engine
        self.batch_size = batch_size
        self.class_names = class_names
        self.workers = workers
        self.timeout = timeout
        self.memory = memory

    ready_: ReadyNetwork
    runner_: ClipRunner
    ranges_: dict[str, float] | None
    how_: dict[str, Any] = {}  # noqa: RUF012  # replaced, never changed
    made_of_: dict[str, Any] | None
    pool_: tuple[Decoders, DecoderPool] | None = None

    def load(self: Encoding, expected_clips: int | None = None) -> Encoding:
        """Load the network now, so that a mistake in the options shows before any video is read.

        Args:
            expected_clips: how many there will be, for the choice of the engine; None for very many.

        Raises:
            Pseudo3dError: weights or options that cannot be used.
        """
        if self.clips < 1:
            raise Pseudo3dError(f"clips must be at least 1, got {self.clips}")
        if self.stride < 1:
            raise Pseudo3dError(f"stride must be at least 1, got {self.stride}")
        opened_with = (self.model, self.weights, self.class_names)
        if getattr(self, "opened_with_", None) != opened_with:  # first use, or scikit-learn's set_params changed one
            self.ready_ = open_network(*opened_with)
            self.opened_with_, self.made_of_ = opened_with, None
        how: dict[str, Any] = {
            "device": self.device,
            "dtype": self.dtype,
            "engine": self.engine,
            "batch_size": self.batch_size,
        }
        how |= {key: value for key, value in self.how_.items() if how.get(key) in ("auto", None)}
        how["mirror"] = self.mirror
        if how["dtype"] != "int8":
            how.pop("ranges", None)
        if self.made_of_ != how:
            threads = how.get("threads")
            if threads is not None and threads != torch.get_num_threads():
                torch.set_num_threads(threads)
            choices = {key: value for key, value in how.items() if key not in ("threads", "ranges", "mirror")}
            self.ranges_ = how.get("ranges")
            runner_of = MirroredRunner if self.mirror else ClipRunner
            expected_clips = 2 * expected_clips if expected_clips and self.mirror else expected_clips
            self.runner_ = runner_of(self.ready_.network, expected_clips=expected_clips, ranges=self.ranges_, **choices)
            if self.engine == "auto" and "engine" in self.how_:
                self.runner_.engine = replace(self.runner_.engine, reason="as in the run before")
            self.made_of_ = how
        preprocessing = self.runner_.preprocessing
        if self.resize is not None:
            preprocessing = replace(preprocessing, resize=self.resize)
        self.plan_ = ClipPlan(preprocessing, self.clips, self.sampler, self.stride, self.seed)
        self.check_layers((self.layer,))
        return self

    def run_as(self: Encoding, how: dict[str, Any]) -> Encoding:
        """From now on run as an earlier run did, wherever the arguments leave the choice ("auto", None).

        Args:
            how: device, dtype, engine, batch_size, threads and ranges, of ``describe``; empty to choose anew.
        """
        self.how_ = dict(how)
        return self

    def calibrate(self, paths: Sequence[str | Path]) -> None:
        """For dtype "int8", once: measure the ranges of activations on a clip from the middle of some videos.

        Args:
            paths: of the videos; up to eight of them are read, evenly spread over the list.

        Raises:
            Pseudo3dError: none of those videos can be decoded.
        """
        if self.load().runner_.dtype != torch.int8 or self.ranges_ is not None:
            return
        last = len(paths) - 1
        places = sorted({round(step * last / (_CALIBRATED_ON - 1)) for step in range(_CALIBRATED_ON)}) if paths else []
        plan = replace(self.plan_, clips=3, sampler="uniform")
        clips: dict[int, np.ndarray] = {}
        with contextlib.closing(self._events(((i, Path(paths[i])) for i in places), plan)) as events:
            for event in events:
                if isinstance(event, NewClip) and event.number <= 1:
                    clips[event.key] = event.frames.copy()
        if not clips:
            raise Pseudo3dError(
                "int8 measures ranges of activations on some of the videos, and none of them can be decoded; "
                "use another --dtype, or repair the videos"
            )
        self.ranges_ = self.runner_.calibrate(np.stack([clips[index] for index in sorted(clips)]))

    def check_layers(self, layers: Sequence[str]) -> None:
        """Raise a Pseudo3dError for layers that the loaded network does not have."""
        check_layers(layers, self.ready_.network.layers)
        if not self.ready_.has_head and {"logits", "prob"} & set(layers):
            raise Pseudo3dError(f"{self.weights}: has no head, so it gives features but no classes")

    @property
    def network(self) -> VideoModel:
        """The network as it runs, batch norms folded."""
        return self.load().runner_.model

    def encode(self, path: str | Path) -> Float32[np.ndarray, "dim"]:
        """The representation of one video, float32 (2048,) for pool5 of P3D and of the frame baseline.

        Layers with a shape come flattened.

        Raises:
            VideoError: the file cannot be used as a video.
        """
        (result,) = self.encode_many([path])
        if result.error is not None:
            raise VideoError(result.error)
        return result.layers[self.layer].ravel()

    def encode_many(
        self, paths: Iterable[str | Path], *, layers: Sequence[str] | None = None, per_clip: bool = False
    ) -> Iterator[EncodedVideo]:
        """Results one by one in the order of ``paths``, failures among them.

        Several videos are decoded at a time and batches are filled across videos, so a result comes a few videos after
        its video was read.

        Args:
            paths: video files.
            layers: which activations; None for ``layer`` alone.
            per_clip: also give every clip's own.
        """
        finished: dict[int, EncodedVideo] = {}
        turn = 0
        for index, result in self.encode_unordered(enumerate(paths), layers=layers, per_clip=per_clip):
            finished[index] = result
            while turn in finished:
                yield finished.pop(turn)
                turn += 1

    def encode_unordered(
        self,
        paths: Iterable[tuple[int, str | Path]],
        *,
        layers: Sequence[str] | None = None,
        per_clip: bool = False,
        uninterrupted: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> Iterator[tuple[int, EncodedVideo]]:
        """As ``encode_many``, each result as soon as it is there, with the number that came with its path.

        Args:
            paths: numbers, each once, and video files.
            layers: as for ``encode_many``.
            per_clip: as for ``encode_many``.
            uninterrupted: entered while a batch is computed; Ctrl-C may wait for its end.
        """
        wanted = (self.layer,) if layers is None else tuple(layers)
        self.load()
        self.check_layers(wanted)
        if self.runner_.dtype == torch.int8 and self.ranges_ is None:
            paths = iter(paths)
            first = list(itertools.islice(paths, _CALIBRATED_ON))
            self.calibrate([path for _, path in first])
            paths = itertools.chain(first, paths)
        yield from encode_clips(
            self.runner_,
            wanted,
            paths,
            lambda videos: self._events(videos, self.plan_),
            keep=per_clip or self.sampler != "sliding",
            per_clip=per_clip,
            uninterrupted=uninterrupted,
        )

    def _events(self, videos: Iterator[tuple[int, Path]], plan: ClipPlan) -> Generator[Event[int], None, None]:
        """Decoded clips, from processes of their own, or with ``workers=0`` from this one."""
        if self.decoders().workers == 0:
            return decode_here(videos, plan)
        return self.pool().stream(videos, plan)

    def pool(self) -> DecoderPool:
        """The decoder processes, started on first use; they import what they need while this process goes on."""
        wanted = self.decoders()
        if self.pool_ is None or self.pool_[0] != wanted:
            self.close()
            self.pool_ = (wanted, wanted.start())
        return self.pool_[1]

    def adopt(self, decoders: Decoders, pool: DecoderPool) -> None:
        """Use processes that have been started already, if they are what ``decoders`` of this encoder asks for."""
        self.close()
        self.pool_ = (decoders, pool)

    def decoders(self) -> Decoders:
        """How many processes decode, and their limits."""
        if self.workers is not None:
            return Decoders(self.workers, self.timeout, self.memory)
        gpu = choose_device(self.device).type == "cuda"
        return Decoders(default_workers(gpu), self.timeout, self.memory)

    def close(self) -> None:
        """End the decoder processes; the next use starts new ones."""
        if self.pool_ is not None:
            self.pool_[1].close()
            self.pool_ = None

    def __getstate__(self) -> dict[str, Any]:
        """The arguments: processes do not travel, and a network is loaded again where it is used."""
        return {name: value for name, value in self.__dict__.items() if not name.endswith("_")}

    def describe(self) -> dict[str, Any]:
        """What decides the features, as JSON types: the network, its weights, its clips and how it runs."""
        self.load()
        return {
            "architecture": asdict(self.runner_.model.architecture),
            "weights": self.ready_.weights,
            "preprocessing": self.plan_.preprocessing.to_dict(),
            "class_names": list(self.ready_.network.class_names or []),
            "sampler": self.sampler,
            "clips": f"every {self.stride} frames" if self.sampler == "sliding" else self.clips,
            **({"seed": self.seed} if self.sampler == "random" else {}),
            **({"resize": self.resize} if self.resize is not None else {}),
            **self.runner_.describe(),
            **({"ranges": self.ranges_} if self.runner_.dtype == torch.int8 else {}),
        }


def encode_clips(
    runner: ClipRunner,
    layers: Sequence[str],
    paths: Iterable[tuple[int, str | Path]],
    decode: Callable[[Iterator[tuple[int, Path]]], Generator[Event[int], None, None]],
    *,
    keep: bool = True,
    per_clip: bool = False,
    uninterrupted: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Generator[tuple[int, EncodedVideo], None, None]:
    """Videos to activations, each as soon as it is done; batches are filled across videos.

    Args:
        runner: the network.
        layers: which activations.
        paths: numbers, each once, and video files.
        decode: gives the clips of such videos (``DecoderPool.stream``, ``decode_here``).
        keep: as for ``Gathered``.
        per_clip: also give every clip's own.
        uninterrupted: entered while a batch is computed.
    """
    batches: ClipBatches[tuple[int, int]] = ClipBatches(runner, layers)
    videos: dict[int, Gathered] = {}

    def opened() -> Iterator[tuple[int, Path]]:
        for index, path in paths:
            videos[index] = Gathered(Path(path), keep)
            yield index, Path(path)

    def take(computed: list[tuple[tuple[int, int], Layers]]) -> Iterator[tuple[int, EncodedVideo]]:
        for (index, reading), features in computed:
            if index in videos and videos[index].reading == reading:
                videos[index].add(features)
                yield from finished(index)

    def finished(index: int) -> Iterator[tuple[int, EncodedVideo]]:
        if videos[index].facts is not None and videos[index].waiting == 0:
            yield index, videos.pop(index).result(per_clip)

    with contextlib.closing(decode(opened())) as events:
        for event in events:
            match event:
                case NewClip(index, number, frames):
                    videos[index].begin_clip(number)
                    with uninterrupted():
                        computed = batches.add((index, videos[index].reading), frames)
                    yield from take(computed)
                case Decoded(index, facts):
                    videos[index].facts = facts
                    yield from finished(index)
                case Failed(index, reason):
                    yield index, EncodedVideo(videos.pop(index).path, error=reason)
    with uninterrupted():
        computed = batches.flush()
    yield from take(computed)
    assert not videos


def decode_here(
    videos: Iterable[tuple[int, Path]], plan: ClipPlan
) -> Generator[NewClip[int] | Decoded[int] | Failed[int], None, None]:
    """What ``DecoderPool.stream`` gives, decoded in this process: a file that crashes FFmpeg ends the program."""
    for index, path in videos:
        stream = ClipStream(path, plan)
        try:
            for number, frames in stream:
                yield NewClip(index, number, frames)
        except VideoError as error:
            yield Failed(index, str(error))
        else:
            yield Decoded(index, stream.facts)
