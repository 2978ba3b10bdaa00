"""``p3d demo``: the main job from files to figures, on a small set that it writes itself."""

import contextlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

_MARK = "demo.json"  # tells a demo's own folder, which may be started over, from somebody's files

_INTRO = """\
{videos} videos of moving handwritten digits, 8 classes: which way a digit moves, turns or changes its size.
One frame shows where a digit is, never where it goes: no single frame gives the class away.
"""

_MEANING = """
Why: chance is {chance:.1%}. The frame network has the same depth and sees the same videos, but one frame at a time, and
averages what it thinks of 20 of them. The motion is not in any frame, so training has nothing to hold on to. P3D's
3x1x1 convolutions compare neighbouring frames from the first stage to the last, and the class is exactly there. That is
the paper's point (sections 1 and 3): temporal connections at every level, not only over finished frame features.
(An SVM may find a little more in the frames: the average over a video still tells whether the digit's place or its
size varied, though not in which direction.)
"""

_NO_MEANING = """
Chance is {chance:.1%}. With so few videos or epochs P3D has not learned the motions ({video_hit:.1%}), and these
numbers say nothing about the two networks; the demo as it stands, without options, trains long enough.
"""


@dataclass(frozen=True)
class DemoRow:
    """One network's results; shares are 0..1, times in seconds."""

    clip_hit: float
    video_hit: float
    svm_accuracy: float
    megabytes: float
    parameters: int
    clips_per_second: float
    train_seconds: float

    def to_json(self) -> dict[str, float]:
        """Under the names that every metrics file uses."""
        return {
            "clip hit@1": self.clip_hit,
            "video hit@1": self.video_hit,
            "linear SVM accuracy": self.svm_accuracy,
            "MB": self.megabytes,
            "parameters": self.parameters,
            "extraction clips/s": round(self.clips_per_second, 1),
            "training seconds": round(self.train_seconds, 1),
        }


def run(args: Sequence[str]) -> int:
    """Parse and run."""
    from pseudo3d.cli import parse

    return parse(demo, "demo", args)


def demo(
    out: Path = Path("runs/demo"),
    train_per_class: int = 100,
    test_per_class: int = 20,
    epochs: int | None = None,
    clips: int = 20,
    seed: int = 0,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
) -> int:
    """Write real video files, train P3D and a frame network on them, extract, evaluate, compare.

    Example: p3d demo --out runs/demo

    Args:
        out: the run's folder; an earlier demo there is started over.
        train_per_class: training videos of each of the 8 classes.
        test_per_class: test videos of each class, of other digits.
        epochs: passes over the training videos; the recipe's unless given.
        clips: clips of each video when testing and extracting.
        seed: of everything random.
        device: auto, cpu, cuda, mps.
        dtype: precision; auto is bfloat16 where the hardware has it.
    """
    import torch

    from pseudo3d import files
    from pseudo3d.data.annotations import read_samples
    from pseudo3d.data.synthetic import write_moving_digits
    from pseudo3d.inference import bfloat16_is_native, choose_device
    from pseudo3d.training.recipes import get_recipe

    started = time.perf_counter()
    target = choose_device(device)
    _start_over(out)
    native = "native bfloat16" if bfloat16_is_native(target) else "no native bfloat16: this will take longer"
    print(f"device {target}, {torch.get_num_threads()} threads, {native}; writing videos into {out / 'videos'}")
    folder = write_moving_digits(
        out / "videos", train_per_class=train_per_class, test_per_class=test_per_class, seed=seed
    )
    samples = read_samples(folder)
    print(_INTRO.format(videos=len(samples)))
    config = replace(get_recipe("demo"), seed=seed, device=device, dtype=dtype, test_clips=clips)
    config = config if epochs is None else replace(config, epochs=epochs)
    rows: dict[str, DemoRow] = {}
    for name in ("p3d_resnet14", "resnet14"):
        rows[name] = _measure(replace(config, model=name), samples, out, clips)
    _draw(out, list(rows))
    seconds = time.perf_counter() - started
    _report(rows, samples.class_names, seconds)
    metrics: dict[str, Any] = {name: row.to_json() for name, row in rows.items()}
    metrics |= {"chance": 1 / len(samples.class_names), "seconds": round(seconds, 1), "videos": len(samples)}
    files.write_text(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    print(f"everything is in {out}: metrics.json, tsne.png, confusion_*.png, checkpoints, features")
    return 0


def _start_over(out: Path) -> None:
    """Make the folder ready: remove what an earlier demo left there, and never anything else."""
    from pseudo3d import files
    from pseudo3d.errors import Pseudo3dError

    if out.exists() and not out.is_dir():
        raise Pseudo3dError(f"{out}: is a file; give a folder for --out")
    if out.exists() and any(out.iterdir()) and not (out / _MARK).exists():
        raise Pseudo3dError(f"{out}: holds other files; give a new folder for --out")
    out.mkdir(parents=True, exist_ok=True)
    files.write_text(out / _MARK, '{"made by": "p3d demo"}\n')
    for earlier in ("p3d_resnet14", "resnet14", "features", "videos"):
        if (out / earlier).exists():
            shutil.rmtree(out / earlier)
    for picture in ("tsne", "confusion_p3d_resnet14", "confusion_resnet14"):
        for suffix in ("png", "svg"):
            (out / f"{picture}.{suffix}").unlink(missing_ok=True)
    (out / "metrics.json").unlink(missing_ok=True)


def _measure(config: Any, samples: Any, out: Path, clips: int) -> DemoRow:
    """Train one network, extract its features, judge them."""
    from pseudo3d.commands.output import progress_bar
    from pseudo3d.evaluation.svm import evaluate_features
    from pseudo3d.features.encoder import VideoEncoder
    from pseudo3d.features.extract import extract
    from pseudo3d.features.store import FeatureStore
    from pseudo3d.models.cost import model_cost
    from pseudo3d.training.loop import train
    from pseudo3d.visualize.plots import plot_confusion, save_figure

    name = config.model
    print(f"training {name} from scratch ({config.epochs} epochs) ...")
    trained = train(samples, config, out / name)
    store = out / "features" / name
    print(f"extracting {clips} clips of each video with {name} ...")
    encoder = VideoEncoder(
        weights=trained.checkpoint, clips=clips, device=config.device, dtype=config.dtype, batch_size=8
    ).load()
    started = time.perf_counter()
    with contextlib.closing(encoder), progress_bar() as bar:
        task = bar.add_task("extracting", total=len(samples), note="")
        extract(encoder, samples, store, on_video=lambda _error: bar.update(task, advance=1))
    seconds = time.perf_counter() - started
    features = FeatureStore(store)
    svm = evaluate_features(
        features.features(), features.labels, videos=features.videos, splits=features.splits, groups=features.groups
    )
    title = f"{name}, linear SVM: {svm.accuracy:.1%}"
    save_figure(plot_confusion(svm.confusion(), svm.class_names, title=title), out / f"confusion_{name}")
    cost = model_cost(name, num_classes=len(samples.class_names))
    return DemoRow(
        trained.test["clip hit@1"],
        trained.test["video hit@1"],
        svm.accuracy,
        cost.megabytes,
        cost.parameters,
        len(samples) * clips / seconds,
        trained.seconds,
    )


def _draw(out: Path, names: list[str]) -> None:
    """The test videos of both stores as maps side by side."""
    import numpy as np

    from pseudo3d.features.store import FeatureStore
    from pseudo3d.visualize.embedding import tsne
    from pseudo3d.visualize.plots import plot_embedding, save_figure

    stores = [FeatureStore(out / "features" / name) for name in names]
    test = np.flatnonzero([split == "test" for split in stores[0].splits])
    panels = [(store.name, tsne(store.features()[test])) for store in stores]
    save_figure(plot_embedding(panels, [stores[0].labels[i] for i in test]), out / "tsne")


def _report(rows: dict[str, DemoRow], class_names: Sequence[str], seconds: float) -> None:
    from pseudo3d.commands.output import print_table

    print()
    lines = [
        ("clip hit@1", *(f"{row.clip_hit:.1%}" for row in rows.values())),
        ("video hit@1", *(f"{row.video_hit:.1%}" for row in rows.values())),
        ("linear SVM on pool5", *(f"{row.svm_accuracy:.1%}" for row in rows.values())),
        ("size, MB (float32)", *(f"{row.megabytes:.1f}" for row in rows.values())),
        ("extraction, clips/s (decoding included)", *(f"{row.clips_per_second:.0f}" for row in rows.values())),
        ("training, s", *(f"{row.train_seconds:.0f}" for row in rows.values())),
    ]
    print_table(("on held-out videos", "P3D ResNet-14", "frames: ResNet-14"), lines)
    p3d, frames = rows.values()
    chance = 1 / len(class_names)
    learned = p3d.video_hit > 0.5 and p3d.video_hit > 2 * frames.video_hit
    print((_MEANING if learned else _NO_MEANING).format(chance=chance, video_hit=p3d.video_hit))
    print(f"the whole demo took {seconds:.0f} s")
