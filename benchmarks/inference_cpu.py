"""How fast networks run on this processor, each way in a process of its own, in turns.

    pip install 'pseudo3d[openvino]'
    python benchmarks/inference_cpu.py --videos ../shared/data/fight_surv --out docs/results     # about 12 minutes
    python benchmarks/inference_cpu.py --quick --out quick                                        # a smoke test

A side is one way to run one network:

    fused, compile, openvino, eager   the engines of ``pseudo3d.inference.engines``, by ``ClipRunner``
    conv3d                            the network as a plain module of Conv3d (``benchmarks/conv3d.py``), eager;
                                      bfloat16 by autocast
    ov-conv3d                         that module converted by OpenVINO once, its file read by OpenVINO

Every side is started as a user would, with this Python and nothing set, loads the weights from a folder and computes
the representation (pool5, of C3D fc6) of random grey levels. Rounds go over all sides; the tables have medians over the
rounds. Of the batch sizes that a side tries, the best one counts. Between the sides of a round the same matrices are
multiplied, and rates are shares of that. "Ready" is the time from the start of the process to the first result, of one
clip; of the compiled engine with an empty cache and with the one that the first round left.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESNETS = ("fused float32", "fused bfloat16", "fused int8", "openvino bfloat16")
PLAIN = ("conv3d float32", "conv3d bfloat16", "ov-conv3d float32", "ov-conv3d bfloat16")
SIDES = {
    "p3d_resnet50": (*RESNETS, "eager float32", "eager bfloat16", "compile float32", "compile bfloat16", *PLAIN),
    "p3d_resnet152": (*RESNETS, *PLAIN),
    "resnet50": ("fused float32", "fused bfloat16", "conv3d float32"),
    "c3d": ("fused float32", "fused bfloat16", "eager float32", "openvino bfloat16"),
}
QUICK = {"p3d_resnet14": ("fused bfloat16", "conv3d float32")}
BASELINE = "conv3d float32"  # C3D has no other plain form than its own: "eager float32"


def in_new_process(job: dict[str, Any], cache: Path) -> dict[str, Any]:
    """The answer of ``python inference_sides.py JOB``, in the environment of this process."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("inference_sides.py")),
        json.dumps(job | {"started": time.time()}),
    ]
    environment = os.environ | {"PSEUDO3D_CACHE": str(cache)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def write_network(name: str, folder: Path, size: int | None, convert: bool) -> float:
    """A network with random numbers, as a folder of weights; the seconds that OpenVINO took to convert it."""
    import torch
    from conv3d import Conv3dResNet
    from fidelity import random_network

    import pseudo3d

    if name == "c3d":
        model = pseudo3d.create_model(name, num_classes=400)
    else:
        p = pseudo3d.create_model(name).preprocessing
        steps, crop = max(16, p.num_frames), (size, size) if size else p.crop
        model = random_network(name, torch.randn(2, 3, steps, *crop) * 60)
        model.preprocessing = p if size is None else p.with_size(size)
    pseudo3d.save_pretrained(model, folder)
    if not convert:
        return 0.0
    from pseudo3d.inference.openvino import load_openvino

    openvino = load_openvino()
    began = time.perf_counter()
    p = model.preprocessing
    with torch.no_grad():
        converted = openvino.convert_model(Conv3dResNet(model), example_input=torch.zeros(1, 3, p.num_frames, *p.crop))
    openvino.save_model(converted, folder / "conv3d.xml", compress_to_fp16=False)
    return time.perf_counter() - began


def summarise(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians of one side over the rounds; of the batch sizes the best."""
    speeds = {batch: statistics.median(each["clips/s"][batch] for each in rounds) for batch in rounds[0]["clips/s"]}
    best = max(speeds, key=lambda batch: speeds[batch])
    every = [each["clips/s"][best] for each in rounds]
    out = {
        "clips/s": speeds[best], "lowest": min(every), "highest": max(every), "batch": int(best), "by batch": speeds,
        "ready first": rounds[0]["ready"], "ready": statistics.median(each["ready"] for each in rounds[1:] or rounds),
        "peak MB": max(each["peak MB"] for each in rounds),
    }  # fmt: skip
    if "stages" in rounds[0]:
        names = rounds[0]["stages"]
        out["stages"] = {name: statistics.median(each["stages"][name] for each in rounds) for name in names}
    return out


def speed_table(name: str, sides: dict[str, Any], rates: dict[str, float], gflop: float) -> str:
    from report import table

    plain = BASELINE if BASELINE in sides else "eager float32"
    rows = []
    for side, each in sides.items():
        dtype = side.split()[1]
        rate = each["clips/s"] * gflop / rates["float32" if dtype == "float32" else "bfloat16"]
        others = (plain, f"ov-conv3d {'float32' if dtype == 'float32' else 'bfloat16'}")
        ratios = [each["clips/s"] / sides[other]["clips/s"] if other in sides else None for other in others]
        rows.append([
            side, f"{each['clips/s']:.1f}", f"{each['lowest']:.1f} to {each['highest']:.1f}", str(each["batch"]),
            *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios), f"{rate:.2f}",
            f"{each['ready first']:.1f}, {each['ready']:.1f}", f"{each['peak MB']:.0f}",
        ])  # fmt: skip
    columns = ["side", "clips/s", "rounds", "batch", f"x {plain}", "x ov-conv3d", "of matmul", "ready, s", "peak MB"]
    return f"## {name}: {gflop:.1f} GFLOP a clip\n\n" + table(columns, rows)


def stage_table(sides: dict[str, Any]) -> str:
    from report import table

    timed = {side: each["stages"] for side, each in sides.items() if "stages" in each}
    if not timed:
        return ""
    rows = [
        [side, *(f"{ms:.2f} ({ms / sum(each.values()):.0%})" for ms in each.values())] for side, each in timed.items()
    ]
    return "\nMilliseconds a clip in each part of ``FusedResNet``, on one thread, 4 clips in one call:\n\n" + table(
        ["", *next(iter(timed.values()))], rows
    )


def accuracy(videos: Path, networks: dict[str, Path]) -> dict[str, dict[str, dict[str, float]]]:
    """pool5 of real clips in bfloat16 and int8 beside float32; int8 is calibrated on clips of other videos."""
    import numpy as np
    from report import difference, spread

    import pseudo3d
    from pseudo3d.data.collect import collect_samples
    from pseudo3d.inference import ClipRunner
    from pseudo3d.models.resnet import VideoResNet
    from pseudo3d.video.clips import load_clips

    samples = collect_samples([videos])
    chosen = spread([samples.root / sample.path for sample in samples.samples], 24)
    out: dict[str, dict[str, dict[str, float]]] = {}
    for name, folder in networks.items():
        model = pseudo3d.from_pretrained(folder)
        if not isinstance(model, VideoResNet):
            continue
        clips = [load_clips(path, model.preprocessing, clips=1).frames[0] for path in chosen]
        found = {}
        for dtype in ("float32", "bfloat16", "int8"):
            runner = ClipRunner(model, device="cpu", dtype=dtype, engine="fused", batch_size=4)
            if dtype == "int8":
                runner.calibrate(np.stack(clips[::3]))
            judged = [clip for i, clip in enumerate(clips) if i % 3]
            found[dtype] = np.concatenate([runner(judged[i : i + 4], ("pool5",))["pool5"] for i in range(0, 16, 4)])
        out[name] = {dtype: difference(found[dtype], found["float32"]) for dtype in ("bfloat16", "int8")}
    return out


def accuracy_table(found: dict[str, dict[str, dict[str, float]]] | None) -> str:
    from report import table

    heading = "\n## bfloat16 and int8 beside float32, pool5 of real clips\n\n"
    if found is None:
        return heading + "not measured: no --videos\n"
    rows = [
        [f"{name}, {dtype}", f"{each['cosine']:.5f}", f"{each['lowest cosine']:.5f}", f"{each['relative L2']:.4f}"]
        for name, dtypes in found.items()
        for dtype, each in dtypes.items()
    ]
    note = "Random filters, batch norms with the statistics of noise: this is rounding, not accuracy.\n\n"
    return heading + note + table(["16 clips", "cosine", "lowest", "relative L2"], rows)


def processor_facts() -> dict[str, bool]:
    import torch

    return {
        "AVX-512": torch.cpu._is_avx512_supported(),
        "AVX-512 BF16": torch.cpu._is_avx512_bf16_supported(),
        "AVX-512 VNNI": torch.cpu._is_vnni_supported(),
        "AMX": torch.cpu._is_amx_tile_supported(),
    }


def report_body(results: dict[str, Any]) -> str:
    """All tables."""
    rates = results["matmul GFLOP/s"]
    facts = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in results["processor"].items())
    parts = [
        f"Processor: {facts}. Product of matrices: float32 {rates['float32']:.0f} GFLOP/s, bfloat16 "
        f"{rates['bfloat16']:.0f}. Conversion by OpenVINO, done once and in no column: "
        + (", ".join(f"{name} {s:.0f} s" for name, s in results["OpenVINO conversion, s"].items() if s) or "none")
        + ".\n"
    ]
    for name, sides in results["networks"].items():
        parts.append(speed_table(name, sides, rates, results["GFLOP a clip"][name]) + stage_table(sides))
    return "\n".join(parts) + accuracy_table(results["accuracy"])


def measure(options: argparse.Namespace, sides: dict[str, Sequence[str]], folder: Path) -> dict[str, Any]:
    """Every side of every network, in turns: medians by network and side, the matrices' rates, conversion seconds."""
    conversion = {
        name: write_network(name, folder / name, options.size, any(side.startswith("ov-") for side in sides[name]))
        for name in sides
    }
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: defaultdict(list) for name in sides}
    rates: dict[str, list[float]] = defaultdict(list)
    for turn in range(options.rounds):
        for name, chosen in sides.items():
            for side in chosen:
                stages = name != "c3d" and side in ("fused float32", "fused bfloat16")
                job = {"side": side, "folder": str(folder / name), "seconds": options.seconds, "stages": stages}
                found[name][side].append(in_new_process(job, folder / "cache"))
                print(turn, name, side, found[name][side][-1], file=sys.stderr, flush=True)
            for dtype, rate in in_new_process({"matmul": options.matmul}, folder / "cache").items():
                rates[dtype].append(rate)
    return {
        "networks": {name: {side: summarise(each) for side, each in of.items()} for name, of in found.items()},
        "matmul GFLOP/s": {dtype: statistics.median(each) for dtype, each in rates.items()},
        "OpenVINO conversion, s": conversion,
    }


def gflop_of(folder: Path) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    import pseudo3d

    model = pseudo3d.from_pretrained(folder).to("meta")
    p = model.preprocessing
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, p.num_frames, *p.crop, device="meta"))
    return counter.get_total_flops() / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", choices=SIDES, default=list(SIDES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each batch size of each side")
    parser.add_argument("--matmul", type=int, default=4096, help="rows of the matrices")
    parser.add_argument(
        "--videos", type=Path, help="folder of videos, for the cosine of bfloat16 and int8 on real clips"
    )
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--out", type=Path, required=True, help="folder for inference_cpu.md and inference_cpu.json")
    options = parser.parse_args()
    options.size = 32 if options.quick else None
    sides: dict[str, Sequence[str]] = {name: SIDES[name] for name in options.networks}
    if options.quick:
        sides, options.rounds, options.seconds, options.matmul = QUICK, 1, 0.01, 256
    from report import write

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        results = measure(options, sides, folder)
        results["GFLOP a clip"] = {name: gflop_of(folder / name) for name in sides}
        judged = {name: folder / name for name in sides}
        results["accuracy"] = accuracy(options.videos, judged) if options.videos else None
        results["processor"] = processor_facts()
    body = report_body(results)
    write(options.out, "inference_cpu", "Networks on a processor", body, results, precision="precisions as named")


if __name__ == "__main__":
    main()
