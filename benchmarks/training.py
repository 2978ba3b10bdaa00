r"""How fast networks train and how much memory that takes, each way in a process of its own, in turns.

    python benchmarks/training.py --out docs/results                    # a processor: about 25 minutes
    python benchmarks/training.py --device cuda --batch 32 --compile --checkpoint-activations --out docs/results
    python benchmarks/training.py --quick --out quick                    # a smoke test

A side is one way to train one network on random clips of its size, its batch norms frozen except the first (paper 3.3),
with SGD:

    ours       as ``p3d train`` does
    conv3d     the network as a plain module of Conv3d (``benchmarks/conv3d.py``), batch norms as modules of their own
    float32, bfloat16   bfloat16 by autocast; on a GPU float32 is float32, not TF32
    kept       on a processor: buffers stay with the process (``training.allocator``, which ``p3d train`` uses)
    compiled   by ``torch.compile`` (--compile)
    recomputed blocks are computed again in the backward pass instead of kept (--checkpoint-activations)

A step is what training does with a batch that is decoded: uint8 frames to input, forward, loss, backward, optimizer.
Rounds go over all sides; the tables have medians over the rounds. Memory is the most that was resident in the process
(libraries, weights and optimizer included), on a GPU the most that tensors took. Rates count three times the arithmetic
of the forward pass, as shares of the rate of the product of two matrices, measured between the sides.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

NETWORKS = ("p3d_resnet50", "p3d_resnet152")
BASELINE = "conv3d float32"
ON_PROCESSOR = ("ours bfloat16 kept", "ours bfloat16", "ours float32 kept", "ours float32", "conv3d bfloat16 kept",
                "conv3d bfloat16", "conv3d float32 kept", BASELINE)  # fmt: skip
QUICK = ("ours bfloat16 kept", BASELINE)
ON_GPU = ("ours bfloat16", "ours float32", "conv3d bfloat16", BASELINE)


def freeze(network: Any) -> None:
    """Training mode with every batch norm but the first as it is, whatever its dimensions."""
    from torch.nn.modules.batchnorm import _BatchNorm

    network.train()
    for bn in [module for module in network.modules() if isinstance(module, _BatchNorm)][1:]:
        bn.eval()
        bn.requires_grad_(False)


def make_step(side: str, folder: Path, batch: int, device: Any) -> Callable[[], float]:
    """One update of the weights on this side, and its loss."""
    import torch
    from conv3d import Conv3dResNet, random_frames

    import pseudo3d
    from pseudo3d.inference import to_input
    from pseudo3d.models.interface import filters_to_channels_last
    from pseudo3d.training.config import Optim
    from pseudo3d.training.optim import make_optimizer

    kind, dtype, *ways = side.split()
    model = pseudo3d.from_pretrained(folder)
    frames = random_frames(batch, model)
    targets = torch.randint(0, model.fc.out_features, (batch,), generator=torch.Generator().manual_seed(0)).to(device)
    network: Any = model
    if kind == "conv3d":
        network = Conv3dResNet(model).to(device)
        network.head_name = model.head_name
    else:
        filters_to_channels_last(model.to(device))
        model.checkpoint_activations = "recomputed" in ways
    freeze(network)
    # so slow that random weights on random clips stay finite
    optimizer = make_optimizer(network, Optim("sgd", lr=1e-8, weight_decay=5e-4))
    forward = torch.compile(network) if "compiled" in ways else network

    def step() -> float:
        there = frames.to(device)
        clips = network.of_frames(there) if kind == "conv3d" else to_input(there, model.preprocessing)
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            out = forward(clips)
        logits = out[1] if kind == "conv3d" else out
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def run_side(job: dict[str, Any]) -> dict[str, Any]:
    """Clips/s, peak memory in MB and the last loss of one side; what did not fit into a GPU is None."""
    import torch
    from inference_gpu import measured
    from inference_sides import peak_memory

    from pseudo3d.inference.devices import forbid_tf32
    from pseudo3d.training.allocator import keep_memory

    device = torch.device(job["device"])
    if "kept" in job["side"].split():
        keep_memory()
    forbid_tf32()
    try:
        step = make_step(job["side"], Path(job["folder"]), job["batch"], device)
        speed = job["batch"] / measured(step, device, job["seconds"])
    except torch.cuda.OutOfMemoryError:
        return {"clips/s": None, "peak MB": None, "loss": None}
    peak = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else peak_memory()
    return {"clips/s": speed, "peak MB": peak, "loss": step()}


def matmul_rates(job: dict[str, Any]) -> dict[str, float]:
    """GFLOP/s of the product of two matrices in the precisions of the sides."""
    import torch
    from inference_gpu import measured
    from inference_sides import matmul_rates as on_processor

    if job["device"] == "cpu":
        return on_processor(job["matmul"])
    torch.backends.cuda.matmul.fp32_precision = "ieee"  # type: ignore[attr-defined]
    device, rates = torch.device(job["device"]), {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(job["matmul"], job["matmul"], device=device).to(dtype) for _ in range(2))
        seconds = measured(lambda a=a, b=b: a @ b, device, job["seconds"])
        rates[str(dtype).removeprefix("torch.")] = 2 * job["matmul"] ** 3 / seconds / 1e9
    return rates


def in_new_process(job: dict[str, Any]) -> dict[str, Any]:
    """The answer of this program to one job, with nothing else in its memory."""
    command = [sys.executable, __file__, "--job", json.dumps(job)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def sides_of(options: argparse.Namespace) -> list[str]:
    on_gpu = options.device != "cpu"
    ours = ON_GPU[0] if on_gpu else ON_PROCESSOR[0]
    wished = {"compiled": options.compile, "recomputed": options.checkpoint_activations}
    more = [f"{ours} {way}" for way in wished if wished[way]]
    return [*more, *(QUICK if options.quick else ON_GPU if on_gpu else ON_PROCESSOR)]


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every side of every network, in turns: medians by network and side, and the matrices' rates."""
    from inference_cpu import gflop_of, write_network

    sides = sides_of(options)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: defaultdict(list) for name in options.networks}
    rates: dict[str, list[float]] = defaultdict(list)
    shared = {"device": options.device, "batch": options.batch, "seconds": options.seconds, "matmul": options.matmul}
    for name in options.networks:
        write_network(name, folder / name, options.size, convert=False)
    for turn in range(options.rounds):
        for name in options.networks:
            for side in sides:
                found[name][side].append(in_new_process(shared | {"side": side, "folder": str(folder / name)}))
                print(turn, name, side, found[name][side][-1], file=sys.stderr, flush=True)
            for dtype, rate in in_new_process(shared).items():
                rates[dtype].append(rate)
    return {
        "batch": options.batch,
        "networks": {name: {side: summarise(each) for side, each in of.items()} for name, of in found.items()},
        "matmul GFLOP/s": {dtype: statistics.median(each) for dtype, each in rates.items()},
        "GFLOP a clip, forward": {name: gflop_of(folder / name) for name in options.networks},
    }


def summarise(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians of one side over the rounds, its slowest and fastest one, and the highest peak of memory."""
    speeds = [each["clips/s"] for each in rounds]
    if None in speeds:
        return {"clips/s": None, "lowest": None, "highest": None, "peak MB": None, "loss": None}
    return {
        "clips/s": statistics.median(speeds), "lowest": min(speeds), "highest": max(speeds),
        "peak MB": max(each["peak MB"] for each in rounds), "loss": rounds[-1]["loss"],
    }  # fmt: skip


def speed_table(name: str, sides: dict[str, Any], rates: dict[str, float], gflop: float) -> str:
    """One row a side; ratios are to the plain formulation in float32 and in the side's own precision."""
    from report import table

    rows = []
    for side, each in sides.items():
        if each["clips/s"] is None:
            rows.append([side, "does not fit", *["-"] * 7])
            continue
        dtype = side.split()[1]
        share = each["clips/s"] * 3 * gflop / rates[dtype]
        others = [sides.get(f"conv3d {dtype} kept"), sides.get(f"conv3d {dtype}"), sides[BASELINE]]
        row = [side, f"{each['clips/s']:.2f}", f"{each['lowest']:.2f} to {each['highest']:.2f}"]
        row += [ratio(each, other, "clips/s") for other in reversed(others)]
        rows.append([*row, f"{share:.2f}", f"{each['peak MB']:.0f}", ratio(each, sides[BASELINE], "peak MB")])
    columns = ["side", "clips/s", "rounds", f"x {BASELINE}", "x conv3d of its precision", "x that, kept", "of matmul",
               "peak MB", f"of {BASELINE}'s"]  # fmt: skip
    broken = [side for side, each in sides.items() if each["loss"] is not None and not math.isfinite(each["loss"])]
    note = f"\nThe loss was not finite at the end: {', '.join(broken)}.\n" if broken else ""
    return f"## {name}: {3 * gflop:.1f} GFLOP a clip\n\n" + table(columns, rows) + note


def ratio(one: dict[str, Any], other: dict[str, Any] | None, what: str) -> str:
    return "-" if other is None or other[what] is None else f"{one[what] / other[what]:.2f}"


def report_body(results: dict[str, Any]) -> str:
    """All tables."""
    rates = results["matmul GFLOP/s"]
    head = (
        f"Batches of {results['batch']} clips. Product of matrices: float32 {rates['float32']:.0f} GFLOP/s, bfloat16 "
        f"{rates['bfloat16']:.0f}.\n"
    )
    gflop = results["GFLOP a clip, forward"]
    return "\n".join([head, *(speed_table(name, of, rates, gflop[name]) for name, of in results["networks"].items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), help="ResNets")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch", type=int, default=8, help="clips in a step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each side; three steps at least")
    parser.add_argument("--matmul", type=int, default=4096, help="rows of the matrices")
    parser.add_argument("--compile", action="store_true", help="ours by torch.compile, too")
    parser.add_argument("--checkpoint-activations", action="store_true", help="ours with blocks recomputed, too")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="folder for training.md and training.json")
    options = parser.parse_args()
    if options.job is not None:
        print(json.dumps(run_side(options.job) if "side" in options.job else matmul_rates(options.job)))
        return
    if options.out is None:
        parser.error("give a folder: --out docs/results")
    options.size = 32 if options.quick else None
    if options.quick:
        options.networks, options.rounds, options.seconds, options.matmul = ["p3d_resnet14"], 1, 0.0, 256
        options.batch = 2
    from report import write

    with tempfile.TemporaryDirectory() as temporary:
        results = measure(options, Path(temporary))
    body = report_body(results)
    facts = device_facts(options.device)
    write(options.out, "training", "Training steps", body, results, precision="precisions as named", **facts)


def device_facts(device: str) -> dict[str, str]:
    """What the report says beside the processor."""
    import torch

    return {"device": torch.cuda.get_device_name(device)} if device != "cpu" else {}


if __name__ == "__main__":
    main()
