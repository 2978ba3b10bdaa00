"""``p3d bench c3d-runtime``: from video files to features, as the C3D talk's runtime table counts it."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pseudo3d.commands.bench_results import DTypeName, EngineName, told

if TYPE_CHECKING:
    from pseudo3d.evaluation.results import Result
    from pseudo3d.evaluation.speed import Runtime
    from pseudo3d.features.encoding import Encoder

_UCF101_VIDEOS = 13_320  # v_ApplyEyeMakeup_g01_c01.avi and so on


def measure_c3d_runtime(
    paths: list[Path],
    *,
    model: str,
    weights: str,
    layer: str | None,
    stride: int,
    device: str,
    dtype: DTypeName,
    engine: EngineName,
    batch_size: int | None,
    workers: int | None,
    rounds: int,
    own: bool,
) -> "Result":
    """Decoding and network together and each alone, in turns.

    Args:
        paths: videos.
        model: as for ``Encoder``.
        weights: as for ``Encoder``.
        layer: None for fc6 where the network has one, else pool5.
        stride: frames from clip to clip.
        device: as for ``Encoder``.
        dtype: as for ``Encoder``.
        engine: as for ``Encoder``.
        batch_size: as for ``Encoder``.
        workers: as for ``Encoder``.
        rounds: measured passes over the videos.
        own: the videos are those of ``videos_to_measure``, not a user's.

    Raises:
        Pseudo3dError: options that cannot be used, or no usable video.
    """
    from pseudo3d.commands.encoders import started_encoder
    from pseudo3d.commands.output import progress_bar
    from pseudo3d.evaluation.speed import check_rounds, measure_runtime

    check_rounds(rounds, 0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* has random weights: what it says of a video is noise")
        with started_encoder(
            model=model, weights=weights, layer=layer or "pool5", sampler="sliding", stride=stride, device=device,
            dtype=dtype, engine=engine, batch_size=batch_size, workers=workers,
        ) as encoder, progress_bar() as bar:  # fmt: skip
            layer = layer or ("fc6" if "fc6" in encoder.network.layers else "pool5")
            task = bar.add_task("measuring", total=3 * rounds, note="")
            measured = measure_runtime(
                encoder, paths, layer=layer, rounds=rounds, on_job=lambda name: bar.update(task, advance=1, note=name)
            )
            is_ucf101 = all(path.name.startswith("v_") for path in paths)
            return _result(encoder, measured, layer, own=own, is_ucf101=is_ucf101)


@contextmanager
def videos_to_measure(data: Path | None, count: int | None, out: Path | None) -> Iterator[list[Path]]:
    """The videos to measure on; where none are given, some are written, and removed again unless there is an ``out``.

    Args:
        data: a user's folder or list of videos.
        count: take so many, spread evenly over the list; None for all.
        out: folder that keeps the videos that are written.

    Raises:
        Pseudo3dError: a count below 1, no video.
    """
    from pseudo3d.data.collect import collect_samples
    from pseudo3d.data.synthetic import write_moving_digits
    from pseudo3d.errors import Pseudo3dError

    if count is not None and count < 1:
        raise Pseudo3dError(f"--videos must be at least 1, got {count}")
    with tempfile.TemporaryDirectory() as temporary:
        if data is None:
            folder = Path(temporary) if out is None else out
            data = write_moving_digits(folder / "videos", train_per_class=1, test_per_class=1, num_frames=64, size=240)
        samples = collect_samples([data])
        paths = [samples.root / sample.path for sample in samples.samples]
        if not paths:
            raise Pseudo3dError(f"{data}: holds no videos")
        if count is not None and count < len(paths):
            paths = [paths[i * len(paths) // count] for i in range(count)]
        yield paths


def _result(encoder: "Encoder", measured: "Runtime", layer: str, *, own: bool, is_ucf101: bool) -> "Result":
    from pseudo3d.evaluation.published import published_rows
    from pseudo3d.evaluation.results import Measurement, Result
    from pseudo3d.evaluation.speed import hardware

    runner, decoders = encoder.runner_, encoder.decoders().workers
    c3d = published_rows("table_c3d_runtime")[-1].values
    printed, hours = c3d["FPS"].number, c3d["RT"].number
    fps = measured.whole.median
    measurements = [
        Measurement("speed, frames/s", fps),
        Measurement("x slower than C3D's printed FPS", printed / fps),
        Measurement("decoding alone, frames/s", measured.decoding.median),
        Measurement("network alone, frames/s", measured.network.median),
    ]
    if measured.videos == _UCF101_VIDEOS and is_ucf101:
        measurements.append(Measurement("runtime of UCF101, hours", measured.frames / fps / 3600))
    how, where = runner.describe(), hardware(runner.device)
    footnotes = [
        f"{measured.videos} videos of {measured.frames} frames, {measured.clips} clips of "
        f"{runner.preprocessing.num_frames} frames, one every {encoder.stride}, layer {layer}",
        f"on {where}: {how['engine']}, {how['dtype']}, batches of {how['batch_size']}, {decoders} decoder processes; "
        f"in frames/s: decoding and network side by side {measured.whole}; decoding alone {measured.decoding}; network "
        f"alone {measured.network}",
        f"x slower: C3D's printed {printed:g} frames/s over ours; at our rate the talk's "
        f"{hours * printed * 3600 / 1e6:.1f} million frames would take {hours * printed / fps:.1f} hours (worked out, "
        "not measured)",
    ]
    if own:
        footnotes.append(
            "videos of moving digits, 240x240, every frame a keyframe: others decode at other rates (see --data)"
        )
    if measured.failed:
        footnotes.append(f"videos that could not be used and are left out: {len(measured.failed)}")
    facts = {
        **encoder.describe(), "layer": layer, "stride": encoder.stride, "decoder processes": decoders,
        "hardware": where, "usage": "CPU" if runner.device.type == "cpu" else "GPU",
        "videos": measured.videos, "frames": measured.frames, "number of clips": measured.clips,
        "failed": list(measured.failed), "rounds": measured.whole.rounds, **told(),
    }  # fmt: skip
    name = runner.model.architecture.name
    return Result("bench-c3d-runtime", name, tuple(measurements), facts, tuple(footnotes))
