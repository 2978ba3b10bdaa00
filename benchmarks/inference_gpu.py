"""How fast networks run on a GPU, how much memory they take, and where the time of the pipeline goes.

    python benchmarks/inference_gpu.py --videos ../shared/data/fight_surv --out docs/results

Batches of 1 to 256 clips of random grey levels through the engines eager, graph and compile in bfloat16 and float16,
beside the network as a plain module of Conv3d (``benchmarks/conv3d.py``) in float32 and under autocast. Frames start in
the processor's memory: copying them is part of every figure. Rates are shares of the rate of the product of two
bfloat16 matrices, measured here. The parts of the pipeline are measured one by one: decoding (one process), the copy of
a batch from pinned memory, the network on frames that are on the GPU already.

Without a GPU it says so and writes tables with "not measured". ``--device cpu`` runs the same code on the processor, to
see that it works.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conv3d import Conv3dResNet
from fidelity import random_network
from report import spread, table, write

import pseudo3d
from pseudo3d.data.collect import collect_samples
from pseudo3d.inference import ClipRunner
from pseudo3d.inference.engines import EagerEngine, engines_for
from pseudo3d.models.cost import model_cost
from pseudo3d.models.resnet import VideoResNet
from pseudo3d.video.clips import load_clips

Compute = Callable[[torch.Tensor], object]
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
ENGINES = ("eager", "graph", "compile")
PLAIN = "conv3d"


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Seconds of one call: the median of as many as fit into the time, three at least; two more go before."""
    times: list[float] = []
    while len(times) < 5 or sum(times[2:]) < seconds:
        synchronise(device)
        began = time.perf_counter()
        call()
        synchronise(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def matmul_rate(device: torch.device, size: int, seconds: float) -> float:
    """FLOP/s of the product of two bfloat16 matrices."""
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    return 2 * size**3 / measured(lambda: a @ b, device, seconds)


def plain(model: VideoResNet, device: torch.device, autocast: bool) -> Compute:
    network = Conv3dResNet(model).to(device)

    def compute(frames: torch.Tensor) -> object:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            return network.forward_features(network.of_frames(frames.to(device)), ("pool5",))["pool5"].float().cpu()

    return compute


def by_engine(model: VideoResNet, device: torch.device, engine: str, dtype: str, batch: int) -> Compute:
    runner = ClipRunner(model, device=str(device), dtype=dtype, engine=engine, batch_size=batch)
    return lambda frames: runner.compute(frames.numpy(), ("pool5",))


def ways(model: VideoResNet, device: torch.device) -> dict[str, Callable[[int], Compute]]:
    """What to measure: from a batch size to what computes such a batch."""
    hindrances = engines_for(model, device)
    dtypes = ("float32",) if device.type == "cpu" else ("bfloat16", "float16")
    found: dict[str, Callable[[int], Compute]] = {
        f"{engine} {dtype}": lambda batch, e=engine, d=dtype: by_engine(model, device, e, d, batch)
        for engine in ENGINES
        for dtype in dtypes
        if hindrances[engine] is None and (device.type != "cpu" or engine == "eager")
    }
    found[f"{PLAIN} float32"] = lambda batch: plain(model, device, autocast=False)
    found[f"{PLAIN} autocast"] = lambda batch: plain(model, device, autocast=True)
    return found


def speed(make: Callable[[int], Compute], frames: torch.Tensor, device: torch.device, seconds: float) -> dict[str, Any]:
    """Clips/s and MB of memory a clip for one batch, weights not counted; or that it did not fit."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        compute = make(len(frames))
        before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        clips = len(frames) / measured(lambda: compute(frames), device, seconds)
    except torch.cuda.OutOfMemoryError:
        return {"clips/s": None, "MB a clip": None}
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {"clips/s": clips, "MB a clip": None if peak is None else (peak - before) / len(frames) / 1e6}


def parts(
    model: VideoResNet, device: torch.device, frames: torch.Tensor, options: argparse.Namespace
) -> dict[str, Any]:
    """Milliseconds a clip of decoding, copying and computing, each by itself."""
    runner = ClipRunner(model, device=str(device), engine="eager", batch_size=len(frames))
    engine = EagerEngine(runner.model, device, runner.dtype)
    there, constants = frames.to(device), engine.constants(frames.shape[-2])
    held = frames.pin_memory() if device.type == "cuda" else frames
    with torch.inference_mode():
        copy = measured(lambda: held.to(device, copy=True), device, options.seconds)
        compute = measured(lambda: engine.compute(there, ("pool5",), *constants), device, options.seconds)
    decode = None
    if options.videos is not None:
        samples = collect_samples([options.videos])
        paths = spread([samples.root / sample.path for sample in samples.samples], 8)
        times = []
        for path in paths:
            began = time.perf_counter()
            load_clips(path, model.preprocessing, clips=options.clips)
            times.append((time.perf_counter() - began) / options.clips)
        decode = statistics.mean(times) * 1e3
    per_clip = 1e3 / len(frames)
    return {"decode": decode, "copy": copy * per_clip, "network": compute * per_clip}


def measure(name: str, device: torch.device, options: argparse.Namespace) -> dict[str, Any]:
    p = pseudo3d.create_model(name).preprocessing
    p = p if options.size is None else p.with_size(options.size)
    model = random_network(name, torch.randn(2, 3, p.num_frames, *p.crop) * 60)
    model.preprocessing = p
    shape = (max(options.batches), p.num_frames, *p.crop, 3)
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    found: dict[str, dict[str, Any]] = {}
    for way, make in ways(model, device).items():
        found[way] = {str(n): speed(make, frames[:n], device, options.seconds) for n in options.batches}
        print(name, way, found[way], file=sys.stderr, flush=True)
    size = min(32, max(options.batches))
    flops = model_cost(name).flops * (p.crop[0] * p.crop[1]) / (160 * 160)
    return {"ways": found, "parts": parts(model, device, frames[:size], options), "flops": flops}


def number(value: float | None, form: str = ".0f") -> str:
    return "not measured" if value is None else format(value, form)


def tables(networks: dict[str, dict[str, Any]], batches: list[int], rate: float | None) -> str:
    """Speed, share of the matrices' rate at the best batch, memory, parts of the pipeline."""
    text = f"Product of two bfloat16 matrices: {number(rate and rate / 1e12, '.1f')} TFLOP/s.\n"
    for name, each in networks.items():
        speeds, memory = [], []
        for way, by_batch in each["ways"].items():
            values = [by_batch[str(n)]["clips/s"] for n in batches]
            best = max((value for value in values if value is not None), default=None)
            share = None if best is None or rate is None else best * each["flops"] / rate
            speeds.append([way, *(number(value) for value in values), number(share, ".2f")])
            memory.append([way, *(number(by_batch[str(n)]["MB a clip"], ".1f") for n in batches)])
        columns = [f"batch {n}" for n in batches]
        text += f"\n## {name}: clips/s\n\n" + table(["", *columns, "of matmul"], speeds)
        text += f"\n## {name}: MB of GPU memory a clip\n\n" + table(["", *columns], memory)
        row = [name, *(number(value, ".3f") for value in each["parts"].values())]
        text += f"\n## {name}: ms a clip in each part\n\n" + table(["", *each["parts"]], [row])
    return text


def not_measured(networks: list[str], batches: list[int]) -> dict[str, dict[str, Any]]:
    nothing = {"clips/s": None, "MB a clip": None}
    names = [*(f"{engine} {dtype}" for engine in ENGINES for dtype in ("bfloat16", "float16")),
             f"{PLAIN} float32", f"{PLAIN} autocast"]  # fmt: skip
    return {
        name: {
            "ways": {way: {str(n): nothing for n in batches} for way in names},
            "parts": {"decode": None, "copy": None, "network": None},
            "flops": None,
        }
        for name in networks
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=["p3d_resnet50", "p3d_resnet152"], help="ResNets")
    parser.add_argument("--batches", nargs="*", type=int, default=list(BATCHES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    parser.add_argument("--matmul", type=int, default=8192, help="rows of the matrices")
    parser.add_argument("--size", type=int, help="of the crop; the network's own without")
    parser.add_argument("--videos", type=Path, help="folder of videos, for the time of decoding")
    parser.add_argument("--clips", type=int, default=20, help="of each video")
    parser.add_argument("--out", type=Path, required=True, help="folder for inference_gpu.md and inference_gpu.json")
    options = parser.parse_args()
    device, rate = torch.device(options.device), None
    facts = {}
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing is measured; --device cpu runs the same code on the processor", file=sys.stderr)
        networks = not_measured(options.networks, options.batches)
    else:
        rate = matmul_rate(device, options.matmul, options.seconds)
        networks = {name: measure(name, device, options) for name in options.networks}
        facts["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    body = tables(networks, options.batches, rate)
    results = {"matmul FLOP/s": rate, "networks": networks}
    write(options.out, "inference_gpu", "Networks on a GPU", body, results, precision="precisions as named", **facts)


if __name__ == "__main__":
    main()
