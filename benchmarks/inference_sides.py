r"""One way to run one network, measured: what ``inference_cpu.py`` starts in a process of its own.

    python benchmarks/inference_sides.py \
        '{"side": "fused bfloat16", "folder": WEIGHTS, "started": 0, "seconds": 1, "stages": false}'

The answer is one line of JSON. "started" is when the process was started, as ``time.time()`` gives it.
"""

import json
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BATCHES = {
    "fused": (4, 8),
    "conv3d": (1, 2),
    "ov-conv3d": (2, 4),
    "openvino": (2, 4),
    "compile": (4,),
    "eager": (4,),
}


def layer_of(model: Any) -> str:
    return "fc6" if model.architecture.name == "c3d" else "pool5"


def measured(call: Callable[[], object], seconds: float) -> float:
    """Seconds of one call: the median of as many as fit into the time, three at least; one more goes before."""
    call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def make_side(side: str, folder: Path) -> Callable[[Any], Any]:
    """What computes a batch of frames, uint8 (N, T, H, W, 3), on this side; a new shape may take time at first."""
    import torch

    import pseudo3d
    from pseudo3d.inference import ClipRunner, to_input

    kind, dtype = side.split()
    model = pseudo3d.from_pretrained(folder)
    layer = layer_of(model)
    if kind == "conv3d":
        from conv3d import Conv3dResNet

        network = Conv3dResNet(model)

        def compute_plainly(frames: torch.Tensor) -> Any:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                return network.forward_features(network.of_frames(frames), (layer,))[layer]

        return compute_plainly
    if kind == "ov-conv3d":
        from pseudo3d.inference.openvino import load_openvino

        core = load_openvino().Core()
        hint = {"float32": "f32", "bfloat16": "bf16"}[dtype]
        compiled: dict[tuple[int, ...], Any] = {}

        def compute_by_openvino(frames: torch.Tensor) -> Any:
            clips = to_input(frames, model.preprocessing).contiguous().numpy()
            if clips.shape not in compiled:
                read = core.read_model(folder / "conv3d.xml")
                read.reshape(list(clips.shape))
                compiled[clips.shape] = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": hint})
            return compiled[clips.shape](clips)[0]

        return compute_by_openvino
    runners: dict[int, ClipRunner] = {}

    def compute_by_runner(frames: torch.Tensor) -> Any:
        if len(frames) not in runners:
            runner = ClipRunner(model, device="cpu", dtype=dtype, engine=kind, batch_size=len(frames))
            if dtype == "int8":
                runner.calibrate(frames.numpy())
            runners[len(frames)] = runner
        return runners[len(frames)].compute(frames.numpy(), (layer,))[layer]

    return compute_by_runner


def run_side(side: str, folder: Path, started: float, seconds: float, stages: bool) -> dict[str, Any]:
    """One side's numbers: seconds to the first result, clips/s by batch size, peak memory."""
    compute = make_side(side, folder)
    import torch

    import pseudo3d

    p = pseudo3d.from_pretrained(folder).preprocessing
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (8, p.num_frames, *p.crop, 3), dtype=torch.uint8, generator=generator)
    out: dict[str, Any] = {"clips/s": {}}
    kind = side.split()[0]
    compute(frames[: 4 if kind == "compile" else 1])  # compiled once: for the batch that it is measured with
    out["ready"] = time.time() - started
    for batch in BATCHES[kind]:
        out["clips/s"][str(batch)] = batch / measured(lambda batch=batch: compute(frames[:batch]), seconds)
    out["peak MB"] = peak_memory()
    if stages:
        out["stages"] = stage_times(folder, side.split()[1], frames[:4], seconds)
    return out


def peak_memory() -> float:
    """The most that was resident, in MB; on Linux of this program alone (``getrusage`` begins with its parent's)."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def stage_times(folder: Path, dtype: str, frames: Any, seconds: float) -> dict[str, float]:
    """Milliseconds a clip that each part of ``FusedResNet`` takes on one thread."""
    import torch

    torch.set_num_threads(1)

    import pseudo3d
    from pseudo3d.inference import fold_batch_norms
    from pseudo3d.inference.fused import FusedResNet

    model = fold_batch_norms(pseudo3d.from_pretrained(folder))
    for name, part in model.named_children():
        if name not in model.full_precision_parts:
            part.to(getattr(torch, dtype))
    spent: dict[str, float] = defaultdict(float)

    @contextmanager
    def clock(name: str) -> Any:
        began = time.perf_counter()
        yield
        spent[name] += time.perf_counter() - began

    class Timed(FusedResNet):
        def _stem(self, frames: Any) -> Any:
            with clock("stem"):
                return super()._stem(frames)

        def _run(self, x: Any, steps: int, names: Sequence[str], layers: Sequence[str], features: Any) -> Any:
            for name in names:
                with clock(name):
                    x, steps = super()._run(x, steps, (name,), layers, features)
            return x, steps

    network, calls = Timed(model), 0
    with torch.inference_mode():
        network(frames, ("prob",))
        spent.clear()
        while calls < 3 or spent["all"] < seconds:
            with clock("all"):
                network(frames, ("prob",))
            calls += 1
    parts = {name: spent[name] for name in ("stem", "res2", "res3", "res4", "res5")}
    parts["head and copies"] = spent["all"] - sum(parts.values())
    return {name: value / calls / len(frames) * 1e3 for name, value in parts.items()}


def matmul_rates(size: int) -> dict[str, float]:
    """GFLOP/s of the product of two square matrices: the best of five."""
    import torch

    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
        times = []
        for _ in range(5):
            began = time.perf_counter()
            torch.mm(a, b)
            times.append(time.perf_counter() - began)
        rates[str(dtype).removeprefix("torch.")] = 2 * size**3 / min(times) / 1e9
    return rates


def answer(job: dict[str, Any]) -> dict[str, Any]:
    if "matmul" in job:
        return matmul_rates(job["matmul"])
    return run_side(job["side"], Path(job["folder"]), job["started"], job["seconds"], job["stages"])


if __name__ == "__main__":
    print(json.dumps(answer(json.loads(sys.argv[1]))))
