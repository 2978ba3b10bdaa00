"""An extraction on a Ray cluster; the only file that imports Ray.

    paths --a few at a time--> decoders (tasks, a CPU each) --clips--> networks (a pool of actors) --> this process

Ray Data moves paths, clips and activations, holds the decoders back when the networks are slower, and does again what a
lost process or machine had in hand. Only this process writes to the store, each video when all of it has arrived; a
second copy of what was done twice is dropped. So each video is stored once. A clip's activations do not depend on where
it was computed (one shape of batch, one engine, one number of threads), so the store is that of a single machine.
"""

import contextlib
import logging
import os
import pickle
import socket
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from pseudo3d import __version__
from pseudo3d.errors import Pseudo3dError, printable
from pseudo3d.features.decoders import Decoders
from pseudo3d.features.decoding_tasks import KnownVideo, decode_paths
from pseudo3d.features.encoding import Encoder
from pseudo3d.features.gathered import EncodedVideo, Gathered, Layers
from pseudo3d.features.mirrored import MirroredRunner
from pseudo3d.features.rows import SourceFile
from pseudo3d.inference import ClipBatches, ClipRunner
from pseudo3d.models import VideoModel

if TYPE_CHECKING:
    import ray.data

PASSES = 3  # over videos that did not come back whole, which Ray's own retries leave to chance only
_BLOCK_BYTES = 32 << 20
_BATCHES = 8  # of the network, computed in one call of an actor
_DECODER_BYTES = 512 << 20  # what a machine must have free for each decoder; its limit is the encoder's
_PATHS = 16  # of one task at most: what a lost machine has to do again

Result = tuple[int, EncodedVideo, SourceFile]


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Be connected to the Ray cluster that ``RAY_ADDRESS`` names, or that this machine is a part of.

    Raises:
        Pseudo3dError: Ray is not installed, or there is no cluster to be reached.
    """
    try:
        import ray
    except ImportError:
        raise Pseudo3dError("--cluster ray needs Ray; pip install 'pseudo3d[ray]'") from None
    if ray.is_initialized():  # within a program that uses Ray
        yield
        return
    address = os.environ.get("RAY_ADDRESS") or "auto"
    # Ray's core would print that actors can be started anew only while this process lives: so does the whole run.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        _check_reachable(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        where = "on this machine" if address == "auto" else f"at {address}"
        raise Pseudo3dError(
            f"no Ray cluster can be reached {where} ({printable(str(error).partition(chr(10))[0])}); start one with "
            "`ray start --head`, or set RAY_ADDRESS"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise an OSError when nobody listens: Ray itself would go on asking for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10):
            pass


@dataclass(frozen=True)
class Placement:
    """How many networks there are, and what each takes.

    Args:
        actors: at most.
        cpus: of each.
        gpus: of each.
    """

    actors: int
    cpus: int
    gpus: int


def place(nodes: Sequence[dict[str, float]], device: str, threads: int) -> Placement:
    """How networks are laid over a cluster, so that every machine keeps a CPU for decoding.

    Args:
        nodes: the resources of each machine that is alive, as ``ray.nodes()`` tells them.
        device: "cuda": one a GPU; else on the CPUs.
        threads: that a network computes with.

    Raises:
        Pseudo3dError: there is no GPU, or fewer than two CPUs.

    Example:
        >>> place([{"CPU": 16.0}, {"CPU": 16.0}], "cpu", threads=16)
        Placement(actors=2, cpus=15, gpus=0)
        >>> place([{"CPU": 32.0, "GPU": 8.0}], "cuda", threads=16)
        Placement(actors=8, cpus=1, gpus=1)
    """
    cpus = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
    if sum(cpus) < 2:
        raise Pseudo3dError(f"the Ray cluster offers {sum(cpus)} CPUs; a network and a decoder need 2 at least")
    if device == "cuda":
        gpus = int(sum(node.get("GPU", 0) for node in nodes))
        if gpus < 1:
            raise Pseudo3dError("the Ray cluster offers no GPU, and the network is to run on cuda; use --device cpu")
        return Placement(gpus, 1, 1)
    each = max(1, min(threads, max(cpus) - 1))
    return Placement(max(1, sum(count // (each + 1) for count in cpus)), each, 0)


class NetworkActor:
    """A network on one of the machines: tables with clips in, tables with their activations out.

    Args:
        network: the model as it was loaded, or what Ray's store holds of it.
        how: of ``ClipRunner.describe``, with the ranges of int8.
        layers: which activations.
        version: of pseudo3d, where the command was given.

    Raises:
        Pseudo3dError: this machine has another version.
    """

    def __init__(self, network: VideoModel | Any, how: dict[str, Any], layers: Sequence[str], version: str) -> None:
        import ray

        if version != __version__:
            raise Pseudo3dError(f"one machine has pseudo3d {__version__}, the one with the command {version}")
        model = ray.get(network) if isinstance(network, ray.ObjectRef) else network
        choices = {key: value for key, value in how.items() if key not in ("threads", "mirror")}
        torch.set_num_threads(how["threads"])
        self._runner = (MirroredRunner if how.get("mirror") else ClipRunner)(model, **choices)
        self._layers = tuple(layers)

    def __call__(self, clips: pa.Table) -> pa.Table:
        """Rows of clips become rows of activations; what is known of a video passes through."""
        batches: ClipBatches[int] = ClipBatches(self._runner, self._layers)
        rows = clips.to_pylist()
        computed: dict[int, Layers] = {}
        for i, row in enumerate(rows):
            if row["frames"] is not None:
                clip = np.frombuffer(row["frames"], np.uint8).reshape(row["shape"])
                computed.update(_copied(batches.add(i, clip)))
        computed.update(_copied(batches.flush()))
        told = [pickle.dumps(computed[i]) if i in computed else None for i in range(len(rows))]
        table = clips.select(["video", "reading", "number", "known"])
        return table.append_column("features", pa.array(told, pa.large_binary()))


def _copied(computed: Iterable[tuple[int, Layers]]) -> dict[int, Layers]:
    return {key: {name: values.copy() for name, values in layers.items()} for key, layers in computed}


@dataclass
class _Arriving:
    """A video of which some clips have come."""

    clips: dict[tuple[int, int], Layers] = field(default_factory=dict)  # by reading and number
    known: KnownVideo | None = None

    def whole(self) -> bool:
        if self.known is None:
            return False
        facts = self.known.facts
        return facts is None or all((self.known.reading, row) in self.clips for row in facts.rows)

    def result(self, path: Path, keep: bool, per_clip: bool) -> EncodedVideo:
        assert self.known is not None
        if self.known.facts is None:
            return EncodedVideo(path, error=self.known.error)
        gathered = Gathered(path, keep)
        gathered.facts = self.known.facts
        for number in range(max(self.known.facts.rows) + 1):  # in the order in which one machine adds them up
            gathered.begin_clip(number)
            gathered.add(self.clips[self.known.reading, number])
        return gathered.result(per_clip)


class ClusterEncoder:
    """Does on a cluster what ``Encoder.encode_unordered`` does on one machine. Needs ``connected``.

    Args:
        encoder: loaded, and calibrated if it is to be; its network goes to the other machines, which need no weights.
        layers: which activations.
        per_clip: also give every clip's own.

    Raises:
        Pseudo3dError: the cluster is too small.
    """

    def __init__(self, encoder: Encoder, layers: Sequence[str], per_clip: bool) -> None:
        import ray

        self._encoder, self._layers, self._per_clip = encoder, tuple(layers), per_clip
        self._keep = per_clip or encoder.sampler != "sliding"
        self._how: dict[str, Any] = dict(encoder.runner_.describe())
        if encoder.ranges_ is not None and self._how["dtype"] == "int8":
            self._how["ranges"] = encoder.ranges_
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self.placement = place(nodes, self._how["device"], self._how["threads"])
        self._decoders = Decoders(1, encoder.timeout, encoder.memory)

    def encode(self, videos: Sequence[tuple[int, Path]], meanwhile: Callable[[], None]) -> Iterator[Result]:
        """Each video once, as soon as all of it is there.

        Args:
            videos: numbers, each once, and paths that every machine of the cluster can open.
            meanwhile: called whenever something has come, also in the middle of a long video.

        Raises:
            Pseudo3dError: the cluster failed in a way that doing a part again does not mend.
        """
        left = dict(videos)
        for _ in range(PASSES):
            if not left:
                return
            for video, result, source in self._once(left, meanwhile):
                del left[video]
                yield video, result, source
        if left:
            raise Pseudo3dError(f"the Ray cluster lost {len(left)} videos; run the same command again to do them")

    def _once(self, videos: dict[int, Path], meanwhile: Callable[[], None]) -> Generator[Result, None, None]:
        arriving: dict[int, _Arriving] = {}
        done: set[int] = set()
        for row in self._rows(videos):
            meanwhile()
            video = row["video"]
            if video in done:
                continue
            state = arriving.setdefault(video, _Arriving())
            if row["known"] is not None:
                state.known = pickle.loads(row["known"])
            else:
                state.clips[row["reading"], row["number"]] = pickle.loads(row["features"])
            if state.whole():
                assert state.known is not None
                done.add(video)
                del arriving[video]
                yield video, state.result(videos[video], self._keep, self._per_clip), state.known.source

    def _rows(self, videos: dict[int, Path]) -> Iterator[dict[str, Any]]:
        """What the actors give, row by row in no order."""
        from ray.exceptions import RayError

        try:
            tables: Iterable[pa.Table] = self.dataset(videos).iter_batches(batch_size=None, batch_format="pyarrow")
            for table in tables:
                yield from table.to_pylist()
        except RayError as error:
            raise Pseudo3dError(_in_one_line(error)) from error

    def dataset(self, videos: dict[int, Path]) -> "ray.data.Dataset":
        """The videos' activations as a Ray dataset, of which nothing is computed yet: a row a clip, and one a video."""
        import ray
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.target_max_block_size = _BLOCK_BYTES
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        cpus = int(ray.cluster_resources().get("CPU", 1))
        blocks = max(1, -(-len(videos) // _PATHS), min(len(videos), 2 * cpus))
        paths = [{"video": video, "path": os.fsencode(path)} for video, path in videos.items()]
        network = {
            "network": ray.put(self._encoder.ready_.network),
            "how": self._how,
            "layers": self._layers,
            "version": __version__,
        }
        return (
            ray.data.from_items(paths, override_num_blocks=blocks)
            .map_batches(
                decode_paths,  # type: ignore[arg-type]  # its other arguments come by fn_kwargs
                batch_size=None,
                batch_format="pyarrow",
                fn_kwargs={"plan": self._encoder.plan_, "decoders": self._decoders},
                num_cpus=1,
                memory=_DECODER_BYTES,  # other resources than the actors': Ray would make the two one otherwise
            )
            .map_batches(
                NetworkActor,
                batch_size=self._how["batch_size"] * _BATCHES,
                batch_format="pyarrow",
                fn_constructor_kwargs=network,
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=self.placement.actors),
                num_cpus=self.placement.cpus,
                num_gpus=self.placement.gpus,
            )
        )


def _in_one_line(error: BaseException) -> str:
    """What went wrong on a cluster, without the stacks of all machines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    missing = next((line for line in reversed(lines) if "No module named" in line), None)
    if missing is not None:
        return f"a machine of the Ray cluster lacks a package ({printable(missing)}); install pseudo3d on all of them"
    told = lines[-1] if lines else type(error).__name__
    return f"the Ray cluster failed ({printable(told)}); what is done is in the store, run the same command to go on"
