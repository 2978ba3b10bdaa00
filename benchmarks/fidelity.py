r"""What each deviation from the authors' release costs, alone and together: features, predictions, accuracy.

    p3d demo --out runs/demo                                          # the first network and its videos, 6 minutes
    python examples/fight_surv_groups.py fight_surv > groups.txt      # the second one (docs/fight_surv.md)
    p3d train --data fight_surv --groups groups.txt --out runs/fight_surv \
        --model p3d_resnet14 --size 112 --augment.flip --epochs 25 --workers 1

    OMP_NUM_THREADS=1 python benchmarks/fidelity.py --out docs/results

``runs/`` is in no repository: it is made by these commands. Three networks are judged, in float32:

- demo: trained on the demo's moving digits; its held-out videos.
- fight_surv: trained on surveillance clips; the test videos of its split.
- random: P3D ResNet-152 with random filters, whose batch norms have the statistics of real clips, so that nothing
  explodes or vanishes; videos of fight_surv. It shows how an error passes through 50 blocks, and nothing about
  accuracy. It has learned nothing, so its numbers are not those of the released weights.

Each network computes what the release computes; then one thing is changed and the same videos run again. Where a public
option makes the change (``style``, ``Preprocessing``), it is used; the rest are attributes set on a copy. Each change
is checked to change the features, and the changes by hand are checked to add up to the styles they are parts of.
"""

import argparse
import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import between_videos, difference, percent, spread, table, write
from torch import nn

import pseudo3d
from pseudo3d.data.annotations import read_samples
from pseudo3d.evaluation.protocols import ClipScores
from pseudo3d.inference import ClipRunner, to_input
from pseudo3d.models.resnet import VideoResNet
from pseudo3d.preprocessing import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB, Preprocessing, imagenet_preprocessing
from pseudo3d.video.clips import LoadedClips, load_clips

RELEASE, PORT = "the release", "everything as the port does it"

HOW_TO_READ = """Cosine (mean and lowest) and relative L2 compare pool5 of a video, the average of its clips, with that
of the release. "Videos apart" is the relative L2 of two different videos under the deviation: small when they all look
the same. "Commonest class" is the share of videos that get the class that is given most often.

"""
NOT_MEASURED = """## Not in the tables

- Temporal blocks in res5, as the paper's text has them: it cannot be done with the same weights. Such a network has
  three more temporal convolutions and norms, for which the release has no numbers.
- The port's 5x5 average pooling: at 160x160 it is the global average. At smaller sizes the port fails, at larger ones
  it gives more rows than clips.
"""
Network = Callable[[VideoResNet], VideoResNet]


def as_style(style: str) -> Network:
    """The same numbers in a network of another style (a public option of ``create_model``)."""

    def build(model: VideoResNet) -> VideoResNet:
        other = pseudo3d.create_model(**{**asdict(model.architecture), "style": style}).eval()
        state = {key: value for key, value in model.state_dict().items() if key != "layout"}  # which names the style
        other.load_state_dict(state | {"layout": other.layout})
        other.preprocessing, other.class_names = model.preprocessing, model.class_names
        return other

    return build


def changed(*changes: Callable[[VideoResNet], None]) -> Network:
    """A copy with these changes made to it."""

    def build(model: VideoResNet) -> VideoResNet:
        model = copy.deepcopy(model)
        for change in changes:
            change(model)
        return model

    return build


def blocks(model: VideoResNet) -> Iterator[tuple[int, int, Any]]:
    """Stage, place in the stage, block."""
    for stage in (2, 3, 4, 5):
        for place, block in enumerate(getattr(model, f"res{stage}")):
            yield stage, place, block


def pad_pool1(model: VideoResNet) -> None:
    model.stem.style = "torchvision"


def rectify_t(model: VideoResNet) -> None:
    for _, _, block in blocks(model):
        block.rectify_t = True  # in A it changes nothing: T is followed by a ReLU anyway


def plain_sum_in_c(model: VideoResNet) -> None:
    for _, _, block in blocks(model):
        block.share = 1.0


def stride_on_3x3(model: VideoResNet) -> None:
    for stage, place, block in blocks(model):
        if stage > 2 and place == 0:
            block.conv_a.stride, block.conv_s.stride = (1, 1), (2, 2)
            block.stride_t = 2 if block.kind == "B" else 1


def restart_blocks(model: VideoResNet) -> None:
    for stage, place, block in blocks(model):
        block.kind = "ABC"[place % 3] if stage < 5 else "2D"


def batch_norms(model: VideoResNet) -> Iterator[nn.BatchNorm2d]:
    return (module for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def eps_1e_3(model: VideoResNet) -> None:
    for bn in batch_norms(model):
        bn.eps = 1e-3


def variance_as_inverse_std(model: VideoResNet) -> None:
    for bn in batch_norms(model):
        bn.running_var.pow_(-2).clamp_(max=1e30)  # 1 / std was read as v, so that the variance is v^-2


@dataclass(frozen=True)
class Deviation:
    """One row: what is different, in the network, in the preprocessing or in the order of a clip's frames."""

    name: str
    network: Network = copy.deepcopy
    preprocessing: Callable[[Preprocessing], Preprocessing] = lambda p: p
    order: Callable[[int], np.ndarray] = np.arange


def rgb_with_its_mean(p: Preprocessing) -> Preprocessing:
    return replace(p, channel_order="RGB", mean=p.mean[::-1])


def imagenet_on_bgr(p: Preprocessing) -> Preprocessing:
    return replace(p, mean=IMAGENET_MEAN_RGB[::-1], std=IMAGENET_STD_RGB[::-1], value_range=(0.0, 1.0))


def resized_to_256(p: Preprocessing) -> Preprocessing:
    """The port's 256 in place of 162; frames of another size grow in the same ratio."""
    edges = (p.resize,) if isinstance(p.resize, int) else p.resize
    larger = tuple(round(edge * 256 / 162) for edge in edges)
    return replace(p, resize=larger[0] if isinstance(p.resize, int) else larger)


def squeezed(p: Preprocessing) -> Preprocessing:
    return replace(p, resize=p.crop)


DEVIATIONS = (
    Deviation(RELEASE),
    Deviation("pool1 padded by 1", changed(pad_pool1)),
    Deviation("ReLU on T before the sum in B and C", changed(rectify_t)),
    Deviation("no 0.5 in C", changed(plain_sum_in_c)),
    Deviation("these three (style port)", as_style("port")),
    Deviation("stride on the 3x3, not the first 1x1", changed(stride_on_3x3)),
    Deviation("stride on the 3x3 and pool1 padded (style torchvision)", as_style("torchvision")),
    Deviation("blocks restarted at A in each stage", changed(restart_blocks)),
    Deviation("batch norm eps 1e-3, not 1e-5", changed(eps_1e_3)),
    Deviation("batch norm variance read as 1 / std", changed(variance_as_inverse_std)),
    Deviation("RGB, mean of each colour right", preprocessing=rgb_with_its_mean),
    Deviation("RGB, mean left in the order of BGR", preprocessing=lambda p: replace(p, channel_order="RGB")),
    Deviation("ImageNet's mean and deviation, BGR", preprocessing=imagenet_on_bgr),
    Deviation("ImageNet's mean and deviation, RGB", preprocessing=imagenet_preprocessing),
    Deviation("no mean subtracted", preprocessing=lambda p: replace(p, mean=(0.0,) * 3)),
    Deviation("frames of a clip in reverse", order=lambda n: np.arange(n)[::-1]),
    Deviation("frames of a clip scrambled", order=lambda n: np.random.default_rng(0).permutation(n)),
    Deviation("resized to 256, not 162", preprocessing=resized_to_256),
    Deviation("resized to the crop's size, no crop", preprocessing=squeezed),
    Deviation(PORT, as_style("port"), lambda p: imagenet_preprocessing(resized_to_256(p))),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A network and the videos to judge it on; ``labels`` are the videos' classes, None for a random network."""

    name: str
    model: VideoResNet
    videos: Sequence[Path]
    clips: int
    labels: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Outputs:
    """pool5 of each video (the mean of its clips'), and the probabilities of each clip."""

    pool5: np.ndarray
    prob: np.ndarray

    def video_class(self) -> np.ndarray:
        """The most likely class of each video, by the mean of its clips."""
        return self.prob.mean(axis=1).argmax(axis=1)


def run(case: Case, deviation: Deviation, loaded: Sequence[LoadedClips]) -> Outputs:
    """All videos of ``case`` through its network with this deviation."""
    model = deviation.network(case.model)
    model.preprocessing = deviation.preprocessing(case.model.preprocessing)
    runner = ClipRunner(model, device="cpu", dtype="float32", batch_size=8)
    order = deviation.order(model.preprocessing.num_frames)
    pool5, prob = [], []
    videos = ((video.rows, video.frames[:, order]) for video in loaded)
    for rows, features in runner.run(videos, ("pool5", "prob")):
        pool5.append(features["pool5"][rows].mean(axis=0))
        prob.append(features["prob"][rows])
    return Outputs(np.stack(pool5), np.stack(prob))


def measure(case: Case, deviations: Sequence[Deviation]) -> dict[str, Outputs]:
    """The outputs under every deviation; videos are decoded once for each way of resizing."""
    outputs: dict[str, Outputs] = {}
    key, loaded = None, []
    for deviation in deviations:
        preprocessing = deviation.preprocessing(case.model.preprocessing)
        if (preprocessing.resize, preprocessing.crop) != key:
            key = (preprocessing.resize, preprocessing.crop)
            loaded = [load_clips(path, preprocessing, clips=case.clips) for path in case.videos]
        outputs[deviation.name] = run(case, deviation, loaded)
        print(f"{case.name}: {deviation.name}", file=sys.stderr, flush=True)
    return outputs


def compare(case: Case, outputs: dict[str, Outputs]) -> list[dict[str, Any]]:
    """One row for each deviation.

    Raises:
        RuntimeError: a deviation does nothing to the features, so that it would be no measurement.
    """
    base = outputs[RELEASE]
    rows = []
    for name, output in outputs.items():
        row: dict[str, Any] = {"deviation": name, **difference(output.pool5, base.pool5)}
        if name != RELEASE and row["largest relative L2"] < 1e-5:
            raise RuntimeError(f"{case.name}: {name!r} changes nothing; it is not in this network")
        classes = output.video_class()
        row["top-1 changed"] = float((classes != base.video_class()).mean())
        row["commonest class"] = float(np.bincount(classes).max() / len(classes))
        row["videos apart"] = between_videos(output.pool5)["relative L2"]
        if case.labels is not None:
            truth = np.eye(output.prob.shape[2], dtype=bool)[case.labels]
            row |= ClipScores(output.prob, truth, np.arange(len(truth))).hits()
        rows.append(row)
    return rows


def check_parts_add_up(model: VideoResNet, clips: torch.Tensor) -> None:
    """The changes by hand, together, are the public styles: logits and pool5 of one batch agree."""
    parts = {"port": (pad_pool1, rectify_t, plain_sum_in_c), "torchvision": (pad_pool1, stride_on_3x3)}
    for style, changes in parts.items():
        with torch.inference_mode():
            ours = changed(*changes)(model).eval().forward_features(clips, ("pool5", "logits"))
            public = as_style(style)(model).forward_features(clips, ("pool5", "logits"))
        for layer, value in ours.items():
            if not torch.equal(value, public[layer]):
                raise RuntimeError(f"the parts of style {style} do not add up to it: {layer} differs")


def random_network(name: str, clips: torch.Tensor, seed: int = 0) -> VideoResNet:
    """Random filters; batch norms with random scale and shift and the statistics that ``clips`` have there.

    The last norm of a residual branch has a small scale, as in trained networks, so that 50 blocks in a row neither
    explode nor vanish. The head is centred on the mean of the clips: otherwise all videos would be of one class.
    """
    torch.manual_seed(seed)
    model = pseudo3d.create_model(name, num_classes=400, dropout=0.0)
    for key, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            low, high = (0.1, 0.3) if key.endswith("bn_c") else (0.6, 1.4)
            nn.init.uniform_(module.weight, low, high)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            module.momentum = None  # a plain average: after one batch, the batch's own statistics
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    with torch.no_grad():
        model.train()(clips)
        pool5 = model.eval().forward_features(clips, ("pool5",))["pool5"]
        nn.init.normal_(model.fc.weight, std=0.2)
        model.fc.bias.copy_(-model.fc(pool5).mean(dim=0) + model.fc.bias)
    return model


def input_of(videos: Sequence[Path], preprocessing: Preprocessing) -> torch.Tensor:
    """One clip of each video as a network takes them."""
    frames = np.concatenate([load_clips(path, preprocessing, clips=1).frames for path in videos])
    return to_input(torch.from_numpy(frames), preprocessing)


def trained_case(name: str, run: Path, data: Path, clips: int, limit: int | None) -> Case:
    """The best network of a training run and the test videos of ``data``."""
    model = pseudo3d.from_pretrained(run / "checkpoints" / "best")
    test = read_samples(data).split("test")
    if tuple(model.class_names or ()) != test.class_names or model.architecture.style != "caffe":
        raise SystemExit(f"{run} does not belong to {data}, or is not of style caffe: train it again")
    chosen = spread(test.samples, limit or len(test))
    labels = np.array([test.class_names.index(str(sample.label)) for sample in chosen])
    return Case(name, model, [test.root / sample.path for sample in chosen], clips, labels)


def random_case(data: Path, clips: int, videos: int) -> Case:
    """P3D ResNet-152 with random weights, on ``videos`` videos; 8 others give its batch norms their statistics."""
    samples = read_samples(data)
    chosen = spread(samples.samples, videos + 8)
    paths = [samples.root / sample.path for sample in chosen]
    aside = set(np.linspace(0, len(paths) - 1, 8).round().astype(int).tolist())
    preprocessing = pseudo3d.create_model("p3d_resnet14").preprocessing
    model = random_network("p3d_resnet152", input_of([paths[i] for i in sorted(aside)], preprocessing))
    return Case("random", model, [path for i, path in enumerate(paths) if i not in aside], clips)


def show(case: Case, rows: Sequence[dict[str, Any]], between: dict[str, float]) -> str:
    """The table of one network and the line that says how to read it."""
    hits = [key for key in ("clip hit@1", "video hit@1") if key in rows[0]]
    columns = [
        "deviation",
        "cosine",
        "lowest",
        "relative L2",
        "videos apart",
        "top-1 changed",
        "commonest class",
        *hits,
    ]
    cells = [
        [
            row["deviation"],
            f"{row['cosine']:.4f}",
            f"{row['lowest cosine']:.4f}",
            f"{row['relative L2']:.3g}",
            f"{row['videos apart']:.3g}",
            percent(row["top-1 changed"]),
            percent(row["commonest class"]),
            *(percent(row[key]) for key in hits),
        ]
        for row in rows
    ]
    p, classes = case.model.preprocessing, case.model.architecture.num_classes
    return (
        f"## {case.name}: {case.model.architecture.name}, {len(case.videos)} videos, {case.clips} clips each\n\n"
        f"Frames resized to {p.resize}, crop {p.crop}, {classes} classes. Two different videos have a cosine of "
        f"{between['cosine']:.4f} and are {between['relative L2']:.3g} apart (relative L2), on average.\n\n"
        f"{table(columns, cells)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"), help="folder of a finished p3d demo")
    parser.add_argument("--run", type=Path, default=Path("runs/fight_surv"), help="folder of a p3d train")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/fight_surv"), help="videos for `random`")
    parser.add_argument("--only", nargs="+", default=["demo", "fight_surv", "random"], help="which networks")
    parser.add_argument("--clips", type=int, nargs=3, default=[20, 20, 2], help="of each video, for each network")
    parser.add_argument("--random-videos", type=int, default=24, help="for `random`")
    parser.add_argument("--limit", type=int, help="test videos of each trained network; all unless given")
    parser.add_argument("--out", type=Path, required=True, help="folder for fidelity.md and fidelity.json")
    options = parser.parse_args()
    demo, run = options.demo / "p3d_resnet14", options.run
    for_demo, for_run, for_random = options.clips
    make = {
        "demo": lambda: trained_case("demo", demo, options.demo / "videos", for_demo, options.limit),
        "fight_surv": lambda: trained_case("fight_surv", run, run / "split.csv", for_run, options.limit),
        "random": lambda: random_case(options.data, for_random, options.random_videos),
    }
    body, results = "", {}
    for name in options.only:
        case = make[name]()
        check_parts_add_up(case.model, input_of(case.videos[:2], case.model.preprocessing))
        outputs = measure(case, DEVIATIONS)
        rows, between = compare(case, outputs), between_videos(outputs[RELEASE].pool5)
        body += show(case, rows, between) + "\n"
        results[name] = {"videos": len(case.videos), "clips": case.clips, "between videos": between, "rows": rows}
    write(options.out, "fidelity", "What deviations from the release cost", HOW_TO_READ + body + NOT_MEASURED, results)


if __name__ == "__main__":
    main()
