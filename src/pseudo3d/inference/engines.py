"""The ways to run a network, and which one is the best for a job.

    engine    where         what it is                                                      ready
    fused     CPU       convolutions with ReLU and addition in one oneDNN call        at once
    eager     anywhere  the network as PyTorch runs it                                at once
    compile   anywhere  torch.compile; on a processor with frozen weights, needs C++  in half a minute, once
    graph     CUDA      eager, recorded as a CUDA graph and replayed                  in a second
    openvino  CPU       OpenVINO (extra ``openvino``)                                 in two seconds

All take the same uint8 clips and give the same layers, up to rounding. ``choose_engine`` says which and why.
"""

import importlib.util
import math
import os
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pseudo3d.errors import Pseudo3dError
from pseudo3d.files import cache_folder
from pseudo3d.inference.folding import rows_one_by_one
from pseudo3d.inference.fused import FusedC3D, FusedResNet, convolutions_can_be_fused
from pseudo3d.inference.inputs import in_order, mean_of_windows, scale_and_shift, scaled
from pseudo3d.inference.int8 import Int8ResNet, int8_can_be_fused
from pseudo3d.models import VideoModel
from pseudo3d.models.c3d import C3D
from pseudo3d.models.resnet import VideoResNet

EngineName = Literal["auto", "fused", "eager", "compile", "graph", "openvino"]
Frames = UInt8[Tensor, "N T H W 3"]
Features = dict[str, Float[Tensor, "N ..."]]


@runtime_checkable
class Engine(Protocol):
    """Uint8 RGB clips, cropped, in the memory of the processor, to layers; called in inference mode."""

    def __call__(self, frames: Frames, layers: Sequence[str]) -> Features:
        """The layers' activations; where they lie is the engine's business."""
        ...


class EagerEngine:
    """The network as it is, on its device; a GPU gets grey levels, a quarter of the bytes, and standardises itself."""

    def __init__(self, model: VideoModel, device: torch.device, dtype: torch.dtype) -> None:
        self.model, self._device, self._dtype = model, device, dtype
        self._constants: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, frames: Frames, layers: Sequence[str]) -> Features:
        """The layers' activations, on the device."""
        constants = self.constants(frames.shape[-2])
        if self._device.type == "cuda":
            frames = frames.pin_memory()
        return self.compute(frames.to(self._device, non_blocking=True), layers, *constants)

    def compute(self, frames: Frames, layers: Sequence[str], scale: Tensor, shift: Tensor) -> Features:
        """As a call, of frames that are on the device; ``scale`` and ``shift`` are those of ``scaled``."""
        inputs = scaled(in_order(frames, self.model.preprocessing), scale, shift).permute(0, 4, 1, 2, 3)
        return self.model.forward_features(inputs.to(self._dtype), layers)

    def constants(self, width: int) -> tuple[Tensor, Tensor]:
        """Scale and shift for frames of that width, made once: they cannot be while a CUDA graph is recorded."""
        if width not in self._constants:
            p, volume = self.model.preprocessing, self.model.mean_volume
            with torch.inference_mode(False):  # a compiled program takes no tensors of it
                mean = None if volume is None else mean_of_windows(volume, p, None)
                self._constants[width] = scale_and_shift(width, p, self._device, mean)
        return self._constants[width]


class CompiledEngine(EagerEngine):
    """``torch.compile`` of the whole way from grey levels to layers, one program for each choice of layers.

    What the compiler makes is kept in the user's cache folder and found again by the next run.
    """

    def __init__(self, model: VideoModel, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(model, device, dtype)
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir

        # A folder of temporary files is what PyTorch takes by itself; it says so in the same variable as a user would.
        if os.environ.get("TORCHINDUCTOR_CACHE_DIR") in (None, default_cache_dir()):
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache_folder() / "inductor")
        options: dict[str, Any] = {"freezing": True} if device.type == "cpu" else {"triton.cudagraphs": True}
        self._compiled = torch.compile(super().compute, options=options, dynamic=False)

    def compute(self, frames: Frames, layers: Sequence[str], scale: Tensor, shift: Tensor) -> Features:
        """As a call, of frames that are on the device."""
        with torch.inference_mode(False), torch.no_grad():  # freezing does not know inference mode
            features = self._compiled(frames.clone() if frames.is_inference() else frames, tuple(layers), scale, shift)
        # a recorded program writes its results to the same memory again
        return {name: value.clone() for name, value in features.items()} if self._device.type == "cuda" else features


class GraphEngine(EagerEngine):
    """One CUDA graph for each choice of layers and shape of clips: the GPU does not wait for Python between kernels."""

    def __init__(self, model: VideoModel, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(model, device, dtype)
        self._recorded: dict[tuple, tuple[torch.cuda.CUDAGraph, Tensor, Features]] = {}

    def compute(self, frames: Frames, layers: Sequence[str], scale: Tensor, shift: Tensor) -> Features:
        """As a call, of frames that are on the device."""
        key = (tuple(layers), tuple(frames.shape))
        if key not in self._recorded:
            self._recorded[key] = self._record(frames, tuple(layers), scale, shift)
        graph, static, features = self._recorded[key]
        static.copy_(frames, non_blocking=True)
        graph.replay()
        return {name: value.clone() for name, value in features.items()}

    def _record(
        self, frames: Frames, layers: tuple[str, ...], scale: Tensor, shift: Tensor
    ) -> tuple[torch.cuda.CUDAGraph, Tensor, Features]:
        static = frames.clone()
        aside = torch.cuda.Stream(self._device)
        aside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(aside):  # cuDNN chooses its algorithms here, which cannot be recorded
            for _ in range(3):
                super().compute(static, layers, scale, shift)
        torch.cuda.current_stream(self._device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            features = super().compute(static, layers, scale, shift)
        return graph, static, features


class FusedEngine:
    """``FusedResNet`` or ``FusedC3D``, or with ranges of activations ``Int8ResNet``, on groups of clips side by side.

    Each group has threads of its own, one if there are as many clips as threads. Threads that share one convolution
    wait for each other after every one of them, and the slowest sets the pace, the more so with other work beside
    them. Every group is of one size, the last filled up, so that a clip's bits do not depend on which one it is in.
    """

    def __init__(self, model: VideoModel, ranges: Mapping[str, float] | None = None) -> None:
        self._network: FusedResNet | FusedC3D
        if isinstance(model, C3D):
            self._network = FusedC3D(model)
        else:
            self._network = FusedResNet(model) if ranges is None else Int8ResNet(model, ranges)
        self._pools: dict[tuple[int, int], ThreadPoolExecutor] = {}

    def __call__(self, frames: Frames, layers: Sequence[str]) -> Features:
        """The layers' activations."""
        threads = torch.get_num_threads()
        size = math.ceil(len(frames) / min(threads, len(frames)))
        groups = list(frames.split(size))
        if len(groups) == 1:
            return self._compute(frames, layers)
        missing = size - len(groups[-1])
        groups[-1] = torch.cat([groups[-1], frames[:missing]])
        key = (len(groups), threads // len(groups))
        if key not in self._pools:
            self._pools[key] = _threads(*key)
        parts = list(self._pools[key].map(lambda group: self._compute(group, layers), groups))
        return {name: torch.cat([part[name] for part in parts])[: len(frames)] for name in layers}

    def _compute(self, frames: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        with torch.inference_mode():  # which belongs to a thread
            return self._network(frames, layers)


def _threads(count: int, inner: int) -> ThreadPoolExecutor:
    """Threads that compute on ``inner`` threads each; those of the caller and of threads to come stay as many."""
    total, ready = torch.get_num_threads(), threading.Barrier(count + 1)

    def prepare() -> None:
        torch.get_num_threads()  # or its first computation would set the number that new threads begin with
        torch.set_num_threads(inner)  # and this is from now on that number too
        ready.wait()

    pool = ThreadPoolExecutor(count, "pseudo3d-network", initializer=prepare)
    for _ in range(count):
        pool.submit(int)  # starts a thread: none is idle before all are ready
    ready.wait()
    torch.set_num_threads(total)
    return pool


@dataclass(frozen=True)
class Choice:
    """An engine and the reason for it, in words for a log and a store."""

    name: str
    reason: str


@dataclass(frozen=True)
class _Cost:
    """What is known of an engine on a kind of device: seconds until it is ready, and its speed (eager is 1)."""

    ready_s: float
    speed: float


# They decide between engines and need not be exact; seconds count from when eager is ready. fused against compile is
# that of P3D ResNet-50 in docs/results/inference_cpu.md; eager is not in it (1.6 is an estimate), and "graph" and
# "compile" on CUDA are not measured: they are preferred for what their kind saves.
_CPU_COSTS = {"fused": _Cost(0.0, 1.6), "eager": _Cost(0.0, 1.0), "compile": _Cost(25.0, 1.2)}
_CUDA_COSTS = {"graph": _Cost(1.0, 1.2), "eager": _Cost(0.0, 1.0)}
_EAGER_CLIPS_PER_S = {"cpu": 8.0, "cuda": 500.0}


def engines_for(model: VideoModel, device: torch.device) -> dict[str, str | None]:
    """Every engine, with the reason why it cannot be used here, or None.

    Example:
        >>> from pseudo3d import create_model
        >>> engines_for(create_model("resnet14"), torch.device("cpu"))["graph"]
        'records CUDA graphs, the device is cpu'
    """
    on_cpu = device.type == "cpu"
    fused = None
    if not on_cpu:
        fused = f"is made of oneDNN's calls for processors, the device is {device.type}"
    elif not convolutions_can_be_fused():
        fused = "needs oneDNN convolutions with fused additions, which this PyTorch lacks"
    return {
        "fused": fused,
        "eager": None,
        "compile": None if device.type != "cpu" else _no_cpp_compiler(),
        "graph": None if device.type == "cuda" else f"records CUDA graphs, the device is {device.type}",
        "openvino": _no_openvino(device),
    }


def choose_engine(name: str, model: VideoModel, device: torch.device, clips: int | None = None) -> Choice:
    """The engine that ``name`` stands for.

    Args:
        name: an engine, or "auto" for the one that is done first, the time until it is ready included.
        model: the network.
        device: where it runs.
        clips: how many there are to compute, if that is known; None for very many.

    Raises:
        Pseudo3dError: an unknown engine, or one that cannot run here; the message says why.

    Example:
        >>> from pseudo3d import create_model
        >>> choose_engine("eager", create_model("resnet14"), torch.device("cpu")).reason
        'asked for'
    """
    hindrances = engines_for(model, device)
    if name != "auto":
        if name not in hindrances:
            raise Pseudo3dError(f"no engine {name!r}; use auto, {', '.join(hindrances)}")
        if hindrances[name] is not None:
            raise Pseudo3dError(f"the engine {name} cannot be used: it {hindrances[name]}; use --engine auto")
        return Choice(name, "asked for")
    if device.type not in _EAGER_CLIPS_PER_S:
        return Choice("eager", f"the only one for {device.type}")
    costs = _CPU_COSTS if device.type == "cpu" else _CUDA_COSTS
    usable = {engine: cost for engine, cost in costs.items() if hindrances[engine] is None}
    seconds = (1_000_000 if clips is None else clips) / _EAGER_CLIPS_PER_S[device.type]
    best = min(usable, key=lambda engine: usable[engine].ready_s + seconds / usable[engine].speed)
    count = "many clips" if clips is None else f"{clips} clips"
    return Choice(best, f"the fastest of {', '.join(usable)} for {count}, getting ready included")


def choose_int8_engine(name: str, model: VideoModel, device: torch.device) -> Choice:
    """The engine for 8-bit integers, of which there is one.

    Raises:
        Pseudo3dError: another engine was asked for, or it cannot run here; the message says why.
    """
    if name not in ("auto", "fused"):
        raise Pseudo3dError(f"int8 is computed by the engine fused only, got {name!r}; use --engine auto")
    hindrance = engines_for(model, device)["fused"]
    if hindrance is None and not isinstance(model, VideoResNet):
        hindrance = "computes only P3D and frame ResNets in 8-bit integers"
    if hindrance is not None:
        raise Pseudo3dError(f"int8 cannot be used: the engine fused {hindrance}; use --dtype auto")
    if not int8_can_be_fused():
        raise Pseudo3dError(
            "int8 cannot be used: this PyTorch has no oneDNN convolutions of 8-bit integers; use --dtype auto"
        )
    return Choice("fused", "the one that computes in int8")


def make_engine(
    choice: Choice,
    model: VideoModel,
    device: torch.device,
    dtype: torch.dtype,
    ranges: Mapping[str, float] | None = None,
) -> Engine:
    """The engine, around a folded network that is on its device and in its precision; int8 needs ``ranges``.

    On a processor the network's fully connected layers are changed in place (``rows_one_by_one``).
    """
    if device.type == "cpu":
        rows_one_by_one(model)
        keep_freed_memory()
    match choice.name:
        case "fused":
            return FusedEngine(model, ranges)
        case "compile":
            return CompiledEngine(model, device, dtype)
        case "graph":
            return GraphEngine(model, device, dtype)
        case "openvino":
            from pseudo3d.inference.openvino import OpenVinoEngine

            return OpenVinoEngine(model, dtype)
    return EagerEngine(model, device, dtype)


def keep_freed_memory() -> None:
    """Let glibc reuse large buffers instead of mapping each of them anew, page by page.

    glibc maps blocks above a threshold for every allocation and gives free memory above twice that back at once; the
    threshold is the largest mapped block that was ever freed, at most 32 MiB. To free one block of that size, never
    touched, is therefore all that it takes; other allocators do not care. Without it, a batch of 4 clips paid 5,000 to
    17,000 page faults in bfloat16 and 25,000 to 37,000 in float32; with it, none.
    """
    torch.empty(2**25 - 2**14, dtype=torch.uint8)


def _no_cpp_compiler() -> str | None:
    """What is missing for ``torch.compile``, which looks for one compiler only: CXX, or the system's usual one."""
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX", usual)
    return None if shutil.which(compiler) else f"needs a C++ compiler, and there is no {compiler} (set CXX to one)"


def _no_openvino(device: torch.device) -> str | None:
    if device.type != "cpu":
        return f"runs on processors here, the device is {device.type}"
    if importlib.util.find_spec("openvino") is None:
        return "is not installed (pip install 'pseudo3d[openvino]')"
    return None
