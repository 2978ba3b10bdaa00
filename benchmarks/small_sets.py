"""What the networks learn from small sets: 300 surveillance clips, and moving digits whose class is the motion.

    python benchmarks/small_sets.py --fight-surv FOLDER --runs RUNS --out docs/results

- networks: fight_surv, whole recordings on one side: P3D ResNet-50, ResNet-50 on frames and C3D from random weights.
- init: the two beginnings of P3D's temporal filters, on both sets. There are no ImageNet weights here: the 2-D weights
  are those of a frame network trained before on the same training videos.
- blocks: P3D-A, B, C and ABC on the moving digits, beside the frame network.

Every seed draws its own training, validation and test videos (the digits have a fixed test side). A run is a folder
in RUNS: one that has its result.json is not repeated, one that was stopped goes on from its last checkpoint.
"""

import argparse
import json
import runpy
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from report import percent, table, write

from pseudo3d import files
from pseudo3d.data.annotations import SampleList, assign_groups, read_samples
from pseudo3d.data.synthetic import write_moving_digits
from pseudo3d.inference import choose_device, choose_dtype
from pseudo3d.training.build import build_model
from pseudo3d.training.config import TrainConfig
from pseudo3d.training.loop import train
from pseudo3d.training.recipes import get_recipe
from pseudo3d.training.stopping import Interrupted

PARTS = ("networks", "init", "blocks")
GROUPS = Path(__file__).parents[1] / "examples" / "fight_surv_groups.py"
FRAMES = (128, 171)  # C3D's, for all three networks: the same frames and the same crops of 112x112
FIGHT, MOTIONS = "fight_surv", "motions"


@dataclass(frozen=True)
class Run:
    """One training: a row's name, the data, the seed's config; perhaps begun from another run's best weights."""

    part: str
    data: str
    name: str
    config: TrainConfig
    start: "Run | None" = None

    def folder(self, runs: Path) -> Path:
        """Where it is; runs that two parts share are in one place."""
        return runs / self.data / f"{self.name.replace(' ', '_').replace(',', '')}_seed{self.config.seed}"


@dataclass(frozen=True)
class Sizes:
    """How large everything is; ``--quick`` is for a look at whether it runs."""

    depth: int = 50  # of the networks on fight_surv
    size: int = 112
    resize: tuple[int, int] = FRAMES
    test_clips: int = 20
    val_clips: int = 4
    train_per_class: int = 100
    test_per_class: int = 20
    c3d: bool = True


QUICK = Sizes(14, 32, (36, 36), 1, 1, 4, 2, False)


def fight_runs(seed: int, epochs: int, s: Sizes) -> tuple[Run, list[Run], list[Run]]:
    """The frame network, all networks from random weights, and the two beginnings."""
    common = replace(
        get_recipe("scratch"), epochs=epochs, seed=seed, size=s.size, resize=s.resize, test_clips=s.test_clips,
        val_clips=s.val_clips,
    )  # fmt: skip
    common = replace(common, augment=replace(common.augment, flip=True))  # a mirrored fight is a fight
    frames = Run("networks", FIGHT, "frames", replace(common, model=f"resnet{s.depth}"))
    networks = [Run("networks", FIGHT, "P3D", replace(common, model=f"p3d_resnet{s.depth}")), frames]
    if s.c3d:
        # without batch norms a tenth of the learning rate
        slow = replace(common, model="c3d", size=None, resize=None, optim=replace(common.optim, lr=1e-4))
        networks.append(Run("networks", FIGHT, "C3D", slow))
    return frames, networks, beginnings(frames, lr=1e-4)


def motion_runs(seed: int, epochs: int | None, s: Sizes) -> tuple[Run, list[Run], list[Run]]:
    """The frame network, P3D with each choice of blocks, and the two beginnings."""
    common = replace(get_recipe("demo"), seed=seed, test_clips=s.test_clips)
    common = replace(common, epochs=common.epochs if epochs is None else epochs)
    frames = Run("blocks", MOTIONS, "frames", replace(common, model="resnet14"))
    blocks = [Run("blocks", MOTIONS, f"P3D-{b}", replace(common, blocks=b)) for b in ("A", "B", "C", "ABC")]
    return frames, [*blocks, frames], beginnings(frames, lr=1e-3)


def beginnings(frames: Run, *, lr: float) -> list[Run]:
    """P3D from the frame network's weights, its temporal filters begun in each way; batch norms frozen (paper 3.3)."""
    fine, base = get_recipe("finetune"), frames.config
    config = replace(
        base, recipe="finetune", model=f"p3d_{base.model}", freeze_bn=True, dropout=fine.dropout, head="new",
        optim=replace(fine.optim, lr=lr),
    )  # fmt: skip
    return [
        Run("init", frames.data, f"P3D, {kind}", replace(config, temporal_init=kind), start=frames)
        for kind in ("identity", "gaussian")
    ]


def plan(parts: Sequence[str], seeds: Sequence[int], epochs: int | None, s: Sizes) -> list[Run]:
    """All runs in an order in which each comes after the one that it begins from."""
    chosen: list[Run] = []
    for seed in seeds:
        frames, networks, init = fight_runs(seed, 10 if epochs is None else epochs, s)
        motion_frames, blocks, motion_init = motion_runs(seed, epochs, s)
        if "networks" in parts:
            chosen += networks
        if "blocks" in parts:
            chosen += blocks
        if "init" in parts:
            chosen += [frames, *init, motion_frames, *motion_init]
    return list(dict.fromkeys(chosen))


def fight_surv(folder: Path) -> SampleList:
    """The clips with the recording of each as its group."""
    example = runpy.run_path(str(GROUPS))
    groups = example["merge_sources"](example["read_sources"]((folder / "videos.txt").read_text(encoding="utf-8")))
    listed = read_samples(folder)
    return replace(listed, samples=tuple(assign_groups(listed.samples, groups)))


def seconds_a_clip(config: TrainConfig, classes: Sequence[str]) -> float:
    """Of training, decoding left out: one step of four clips, the second time."""
    model = build_model(replace(config, weights="random", freeze_bn=False), classes).train()
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    p = model.to(device).preprocessing
    clips = torch.randn(4, 3, p.num_frames, *p.crop, device=device)
    for _ in range(2):
        started = time.perf_counter()
        with torch.autocast(device.type, dtype, dtype != torch.float32):
            logits = model(clips)
        F.cross_entropy(logits.float(), torch.zeros(4, dtype=torch.long, device=device)).backward()
    return (time.perf_counter() - started) / 4


def estimate(todo: Sequence[Run], data: dict[str, SampleList]) -> None:
    """Say how long it will take, from a few steps with each network; a third of a step is a clip of validation."""
    speeds: dict[tuple[str, str], float] = {}
    total = 0.0
    for run in todo:
        c, samples = run.config, data[run.data]
        key = (run.data, f"{c.model} {c.blocks}")
        if key not in speeds:
            speeds[key] = seconds_a_clip(c, samples.class_names)
            print(f"{run.data}, {key[1]}: {speeds[key]:.3f} s a training clip", flush=True)
        test = c.test_fraction * len(samples)
        held, learned = c.val_fraction * (len(samples) - test), (1 - c.val_fraction) * (len(samples) - test)
        scored = held * c.val_clips * c.epochs + test * c.test_clips
        total += speeds[key] * (learned * c.epochs + scored / 3)
    print(f"{len(todo)} runs to do, about {total / 60:.0f} minutes on this machine, decoding not counted", flush=True)


def do(run: Run, samples: SampleList, runs: Path) -> dict[str, Any]:
    """The result of a run: as it was kept, else trained now (or trained on) and kept."""
    folder = run.folder(runs)
    config = run.config
    if run.start is not None:
        config = replace(config, weights=str(run.start.folder(runs) / "run" / "checkpoints" / "best"))
    asked = json.loads(config.to_json())
    kept = folder / "result.json"
    if kept.exists():
        result: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        if result["asked"] != asked:
            raise SystemExit(f"{folder} is of a run with other settings: give another --runs, or remove it")
        return result
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{run.data}: {run.name}, seed {config.seed} ...", flush=True)
    trained = train(samples, config, folder / "run", resume="auto", quiet=True)
    sides = read_samples(folder / "run" / "split.csv")
    counts = Counter(sample.label for sample in sides.split("train").samples)
    test = [sample.label for sample in sides.split("test").samples]
    result = {
        "seed": config.seed,
        "hits": trained.test,
        "majority": test.count(counts.most_common(1)[0][0]) / len(test),
        "videos": {name: len(sides.split(name)) for name in ("train", "val", "test")},
        "seconds": round(trained.seconds, 1),
        "asked": asked,
    }
    files.write_text(kept, json.dumps(result, indent=1) + "\n")
    print(f"  video hit@1 {percent(trained.test['video hit@1'])}, {trained.seconds:.0f} s", flush=True)
    return result


def differences(run: Run) -> dict[str, Any]:
    """What of the config is not the recipe's, and where the weights come from."""
    recipe = asdict(get_recipe(run.config.recipe))
    changed = {name: value for name, value in asdict(run.config).items() if value != recipe[name] and name != "seed"}
    start = {} if run.start is None else {"weights": f"{run.start.config.model}, the frame network of the same seed"}
    return {"recipe": run.config.recipe} | changed | start


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation, of shares 0..1."""
    deviation = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{deviation} %"


def rows(runs: Sequence[Run], results: dict[Run, dict[str, Any]]) -> str:
    """A table with a line for each name, its seeds taken together, and one for the baseline."""
    body, majority = [], []
    for name in dict.fromkeys(run.name for run in runs):
        same = [run for run in runs if run.name == name]
        found = [results[run] for run in same]
        hits = [spread([result["hits"][hit] for result in found]) for hit in ("clip hit@1", "video hit@1")]
        each = ", ".join(f"{100 * result['hits']['video hit@1']:.1f}" for result in found)
        model = same[0].config.model or ""
        body.append([f"{name} ({model})", *hits, each, str(same[0].config.epochs)])
        majority = [result["majority"] for result in found]
    body.append(["the most frequent training class", "", spread(majority), "", ""])
    return table(["network", "clip hit@1", "video hit@1", "by seed", "epochs"], body)


def sides_line(results: Sequence[dict[str, Any]]) -> str:
    """How many videos there were, and how much one of them counts."""
    sides = {result["seed"]: result["videos"] for result in results}
    told = [f"{v['train']} to train, {v['val']} to validate, {v['test']} to test" for v in sides.values()]
    counts = "; ".join(told) if len(set(told)) > 1 else f"{told[0]} each"
    smallest = min(v["test"] for v in sides.values())
    error = 50 / smallest**0.5
    return (
        f"Videos by seed: {counts}. One test video of {smallest} is {100 / smallest:.1f} points, the standard error "
        f"of a share near one half {error:.1f} points; more where clips of one recording stand or fall together, and "
        "little less for a mean over seeds whose test videos overlap. Smaller differences say nothing.\n"
    )


def report(chosen: Sequence[Run], results: dict[Run, dict[str, Any]], parts: Sequence[str]) -> str:
    """The Markdown body."""
    titles: dict[str, tuple[str, Callable[[Run], bool]]] = {
        "networks": (
            f"{FIGHT}, from random weights, by recording",
            lambda run: run.data == FIGHT and run.start is None,
        ),
        "init": ("Temporal filters begun as identity and as small Gaussians", lambda run: run.start is not None),
        "blocks": (
            "Moving digits: the order in time decides",
            lambda run: run.data == MOTIONS and run.start is None,
        ),
    }
    text = ""
    for part in (part for part in PARTS if part in parts):
        title, belongs = titles[part]
        text += f"## {title}\n\n"
        if part == "init":
            text += (
                "The 2-D weights are those of a frame network trained on the same training videos from random weights, "
                "not ImageNet's. Batch norms are frozen but the first (paper 3.3).\n\n"
            )
        for data in (FIGHT, MOTIONS):
            runs = [run for run in chosen if belongs(run) and run.data == data]
            if runs:
                found = {run: results[run] for run in runs}
                heading = f"On {data}:\n\n" if part == "init" else ""
                text += f"{heading}{rows(runs, found)}\n{sides_line(list(found.values()))}\n"
    return text + "± is the standard deviation over seeds. Few videos, few epochs: this compares, it is no record.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--fight-surv", type=Path, required=True, help="the folder with videos.txt, fight/ and noFight/"
    )
    parser.add_argument("--runs", type=Path, required=True, help="where the runs are kept, to go on after a stop")
    parser.add_argument("--out", type=Path, required=True, help="where small_sets.md and small_sets.json go")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="of every run; left out, 10 on fight_surv and the demo's on digits")
    parser.add_argument("--quick", action="store_true", help="tiny networks on few digits, to see that it runs")
    args = parser.parse_args()
    args.runs = args.runs.resolve()  # the same runs, whatever they are called now
    sizes = QUICK if args.quick else Sizes()
    chosen = plan(args.only, args.seeds, args.epochs, sizes)
    digits = write_moving_digits(
        args.runs / "digits", train_per_class=sizes.train_per_class, test_per_class=sizes.test_per_class
    )
    data = {FIGHT: fight_surv(args.fight_surv), MOTIONS: read_samples(digits)}
    estimate([run for run in chosen if not (run.folder(args.runs) / "result.json").exists()], data)
    try:
        results = {run: do(run, data[run.data], args.runs) for run in chosen}
    except Interrupted as stop:
        raise SystemExit(f"{stop.text}\nthe same command goes on from there") from stop
    listed = [
        {"set": run.data, "name": run.name, "config": differences(run)}
        | {key: value for key, value in results[run].items() if key != "asked"}
        for run in chosen
    ]
    precision = str(choose_dtype("auto", choose_device("auto"))).removeprefix("torch.")
    write(
        args.out,
        "small_sets",
        "What the networks learn from small sets",
        report(chosen, results, args.only),
        {"runs": listed},
        precision=precision,
    )


if __name__ == "__main__":
    main()
