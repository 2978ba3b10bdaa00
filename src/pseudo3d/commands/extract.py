"""``p3d extract``."""

import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from pseudo3d.data.annotations import SampleList
    from pseudo3d.features.encoding import Encoder
    from pseudo3d.features.sharding import Shard
    from pseudo3d.features.todo import Todo


def _frame_size(words: list[str]) -> int | tuple[int, int]:
    """A short edge, or height and width, out of what a person wrote.

    Example:
        >>> _frame_size(["160"]), _frame_size(["128,171"])
        (160, (128, 171))
    """
    numbers = words[0].split(",")
    if len(numbers) > 2 or not all(number.isdecimal() for number in numbers):
        raise ValueError(f"{words[0]} is neither a short edge nor height,width")
    edges = [int(number) for number in numbers]
    return edges[0] if len(edges) == 1 else (edges[0], edges[1])


FrameSize = Annotated[
    int | tuple[int, int],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PIXELS",
        instance_from_str=_frame_size,
        is_instance=lambda value: isinstance(value, int | tuple),
        str_from_instance=lambda value: [str(value) if isinstance(value, int) else f"{value[0]},{value[1]}"],
    ),
]


def run(args: Sequence[str]) -> int:
    """Parse and run."""
    from pseudo3d.cli import parse

    return parse(extract, "extract", args)


def extract(
    videos: tyro.conf.Positional[tuple[Path, ...]],
    /,
    *,
    weights: str,
    out: str,
    model: str = "auto",
    class_names: Path | None = None,
    layers: str = "pool5",
    per_clip: tyro.conf.FlagCreatePairsOff[bool] = False,
    clips: int = 20,
    sampler: Literal["uniform", "authors", "random", "sliding"] = "uniform",
    seed: int = 0,
    stride: int | None = None,
    resize: FrameSize | None = None,
    mirror: tyro.conf.FlagCreatePairsOff[bool] = False,
    groups: Path | None = None,
    format: Literal["parquet", "npy", "csv"] = "parquet",
    retry_failed: tyro.conf.FlagCreatePairsOff[bool] = False,
    prune: tyro.conf.FlagCreatePairsOff[bool] = False,
    shard: str | None = None,
    cluster: Literal["ray"] | None = None,
    wait: tyro.conf.FlagCreatePairsOff[bool] = False,
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto",
    engine: Literal["auto", "fused", "eager", "compile", "graph", "openvino"] = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    timeout: float = 60.0,
    memory: float = 2.0,
) -> int:
    """Write one representation of each video into a store: activations averaged over clips.

    The same command again goes on where it stopped, however it stopped; a video that has changed since is done again.
    Labels and splits are taken from folders (class/file or split/class/file), from a `path label` list (.txt) or from
    a CSV with a header. Ctrl-C finishes the batch in hand.

    Example: p3d extract my_videos/ --weights runs/first/checkpoints/best --out features

    Args:
        videos: files, a folder, or a list (.txt, .csv).
        weights: a pretrained folder, a weights file of any known kind, "imagenet", "hf:owner/name", or "random" (an
            untrained network: noise).
        out: the store: a folder, or a URL of any fsspec file system (s3://bucket/features).
        model: name of the network (see p3d models); auto is the one that the weights are of, a 2-D ResNet as P3D.
        class_names: file with one class name a line, for weights that do not carry them (.caffemodel).
        layers: activations to keep, e.g. pool5,prob,res5,res4. The C3D paper's representation is fc6.
        per_clip: keep those of every clip too, with its time.
        clips: clips of each video, spread evenly; not looked at with --sampler sliding.
        sampler: where clips start; random: anywhere (the paper's test on Sports-1M), the same in every run; sliding:
            every 8 frames, as many as the video has (the C3D paper's).
        seed: of --sampler random.
        stride: a clip every so many frames, and its features with its time: a timeline of each video. The same as
            --sampler sliding --per-clip with another stride than 8.
        resize: of the frames, before the network's window is cut out of their middle: the short edge in pixels, such
            as 160, or height,width, such as 128,171; else as the network has it.
        mirror: average each clip's features with those of its mirror image; the network works twice.
        groups: file of `path group` lines: what comes from one source.
        format: also write files into the store's folder: a .npy for each video, or one .csv.
        retry_failed: try again the videos that failed before.
        prune: remove videos from the store that are not on the disk any more.
        shard: i/n, such as 0/16: do this part of the videos, while other processes with the same command, on any
            machine, do the others, for example $SLURM_ARRAY_TASK_ID/16 or $RANK/$WORLD_SIZE.
        cluster: ray: on all machines of a Ray cluster, that of RAY_ADDRESS or the one that this machine belongs to.
        wait: for another process that writes to this store.
        dry_run: only say what would be done and how long it should take.
        device: auto, cpu, cuda, mps.
        dtype: precision; auto is bfloat16 where the hardware has it. float16 is for GPUs, int8 for processors.
        engine: how the network runs; auto is the one that is done first, the time to get ready included.
        batch_size: clips in a batch.
        workers: processes that decode; 0 to decode in this one, without limits.
        timeout: seconds without a sign of life after which a decoder is stopped and its video has failed.
        memory: limit for each decoder, GiB.
    """
    from pseudo3d.commands.encoders import started_encoder
    from pseudo3d.data.collect import collect_samples
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.video.sampling import SLIDING_STRIDE

    if format != "parquet" and "://" in out:
        raise Pseudo3dError(f"--format {format} writes files, and {out} is no folder of this machine; leave it out")
    part = None
    if shard is not None:
        from pseudo3d.features.sharding import parse_shard

        part = parse_shard(shard)
    if format != "parquet" and part is not None:
        raise Pseudo3dError(f"--format {format} writes all videos; use `p3d store export` when all shards are done")
    if cluster is not None and part is not None:
        raise Pseudo3dError("--cluster divides the videos itself; leave --shard out")
    if cluster is not None and dry_run:
        raise Pseudo3dError("--dry-run knows this machine only; leave --cluster out")
    if stride is not None and sampler in ("authors", "random"):
        raise Pseudo3dError(f"--stride takes a clip every so many frames, and --sampler {sampler} others; give one")
    if seed != 0 and sampler != "random":
        raise Pseudo3dError("--seed is of --sampler random: give both, or neither")
    samples = collect_samples(videos, groups=groups)
    if stride is not None:
        sampler, per_clip = "sliding", True
    with started_encoder(
        model=model, weights=weights, clips=clips, sampler=sampler, device=device,
        stride=SLIDING_STRIDE if stride is None else stride, seed=seed, resize=resize, mirror=mirror,
        dtype=dtype, engine=engine, batch_size=batch_size, class_names=class_names, workers=workers, timeout=timeout,
        memory=memory, early=cluster is None,
    ) as encoder:  # fmt: skip
        wanted = tuple(name.strip() for name in layers.split(",") if name.strip())
        job = Job(encoder, samples, out, wanted, per_clip, retry_failed, prune, part, cluster, wait)
        if dry_run:
            return job.say()
        code = job.run()
        if format != "parquet" and code != 130:
            job.export(format)
        return code


@dataclass(frozen=True)
class Job:
    """One extraction, as a person or a protocol asked for it; the arguments are those of ``extract``."""

    encoder: "Encoder"
    samples: "SampleList"
    out: str
    layers: tuple[str, ...]
    per_clip: bool
    retry_failed: bool = False
    prune: bool = False
    shard: "Shard | None" = None
    cluster: Literal["ray"] | None = None
    wait: bool = False

    def run(self) -> int:
        """Extract behind a progress bar, and say what came of it."""
        from pseudo3d.commands.output import report_failures
        from pseudo3d.commands.progress import ExtractionProgress, duration
        from pseudo3d.features.extract import Progress, extract
        from pseudo3d.features.todo import Todo

        started = time.perf_counter()
        with contextlib.ExitStack() as stack:
            bars: list[ExtractionProgress] = []

            def on_start(todo: Todo) -> None:
                self._say_how(todo)
                bars.append(stack.enter_context(ExtractionProgress(len(todo.videos))))

            def on_video(progress: Progress) -> None:
                bars[0].advance(progress.clips, progress.error is not None)

            try:
                report = extract(
                    self.encoder, self.samples, self.out, layers=self.layers, per_clip=self.per_clip,
                    retry_failed=self.retry_failed, prune=self.prune, shard=self.shard, cluster=self.cluster,
                    wait=self.wait, on_start=on_start, on_video=on_video,
                )  # fmt: skip
            except KeyboardInterrupt:
                done = f" after {bars[0].videos} of {bars[0].total} videos" if bars else ""
                print(f"p3d extract: stopped{done}; run the same command again to go on", file=sys.stderr)
                return 130
        seconds = time.perf_counter() - started
        before = f", {report.already_done} were there before" if report.already_done else ""
        print(f"{self.out}: {report.encoded} videos, {report.clips} clips in {duration(seconds)}{before}")
        if report.damaged:
            print(f"{report.damaged} of them are damaged in part (column `damaged`)")
        # a shard without a video that works is no reason to take the whole list for unusable
        return report_failures(report.failures, report.encoded + report.already_done + (self.shard is not None))

    def say(self) -> int:
        """What a run would do, and about how long it would take; nothing is written."""
        from pseudo3d.commands.progress import duration
        from pseudo3d.features.extract import estimate
        from pseudo3d.features.store import read_info
        from pseudo3d.features.todo import Known, find_todo

        known = Known({}, {}, {}) if read_info(self.out) is None else Known.of_store(self.out)
        samples = self.samples if self.shard is None else self.shard.part_of(self.samples)
        todo = find_todo(known, samples, retry_failed=self.retry_failed, prune=self.prune)
        self.encoder.load(self.encoder.clips * len(todo.videos)).check_layers(self.layers)
        self._say_how(todo)
        about = estimate(self.encoder, [self.samples.root / sample.path for sample in todo.videos], self.layers)
        if about is not None:
            print(
                f"{about.clips:.0f} clips a video: {about.decode_s:.2f} s of decoding, {about.network_s:.2f} s of the "
                f"network ({about.tried} tried); all of them in about {duration(about.seconds)}"
            )
        elif todo.videos:
            print("no estimate: the videos that were tried cannot be decoded")
        print(f"{self.out}: nothing was written (--dry-run)")
        return 0

    def export(self, format: Literal["npy", "csv"]) -> None:
        """Write the features into files, in the store's folder."""
        from pseudo3d.features.exports import export_store
        from pseudo3d.features.store import FeatureStore

        place = Path(self.out) / ("npy" if format == "npy" else "features.csv")
        count = export_store(FeatureStore(self.out), place, format, layers=self.layers, per_clip=self.per_clip)
        print(f"{place}: {count} {'files' if format == 'npy' else 'rows'}")

    def _say_how(self, todo: "Todo") -> None:
        """What is to be done and how the network runs, on the error stream."""
        runner, workers = self.encoder.runner_, self.encoder.decoders().workers
        how = runner.describe()
        counts = [f"{len(todo.videos)} videos to do"]
        counts += [f"{len(todo.changed)} of them changed since"] if todo.changed else []
        counts += [f"{todo.done} done before"] if todo.done else []
        counts += [f"{todo.failed} failed before (--retry-failed tries them again)"] if todo.failed else []
        counts += [f"{len(todo.redescribed)} with another label, split or group now"] if todo.redescribed else []
        counts += [f"{len(todo.vanished)} gone, to be removed from the store"] if todo.vanished else []
        print(f"p3d: {', '.join(counts)}", file=sys.stderr)
        print(
            f"p3d: {how['dtype']} on {how['device']}, batches of {how['batch_size']}, {workers} decoders; engine "
            f"{runner.engine.name}: {runner.engine.reason}",
            file=sys.stderr,
        )
