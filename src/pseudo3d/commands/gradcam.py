"""``p3d visualize gradcam``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

if TYPE_CHECKING:
    from pseudo3d.models import VideoModel

MOST_FRAMES = 3000
"""Of one video: all of them are held in memory."""


def run(args: Sequence[str]) -> int:
    """Parse and run."""
    from pseudo3d.cli import parse

    return parse(gradcam, "visualize gradcam", args)


def gradcam(
    videos: tyro.conf.Positional[tuple[str, ...]],
    /,
    *,
    weights: str,
    out: Path,
    target: str = "predicted",
    layer: str = "res5",
    stride: int = 8,
    model: str = "auto",
    class_names: Path | None = None,
    device: str = "auto",
) -> int:
    """Show which places and moments of videos speak for a class: Grad-CAM, as an overlay video.

    Writes NAME.mp4 (left what the network sees, right the map over it in grey) and NAME.png (eight moments with their
    times, the class, its probability and the scale) for each video. All of a video is on one scale.

    Example: p3d visualize gradcam new.mp4 --weights runs/first/checkpoints/best --out maps

    Args:
        videos: files.
        weights: a pretrained folder, a weights file of any known kind, or "hf:owner/name".
        out: folder of the results.
        target: the class, by name or number from 0; predicted is the likeliest one of each video.
        layer: res5 (one step a clip, 5x5 places of 160x160) or res4 (two steps, 10x10); conv5b of C3D.
        stride: a clip every so many frames; a frame's map is the mean over the clips that it is in.
        model: name of the network (see p3d models); auto is the one that the weights are of.
        class_names: file with one class name a line, for weights that do not carry them (.caffemodel).
        device: auto, cpu, cuda, mps.
    """
    from pseudo3d.commands.explained import class_number, open_to_explain
    from pseudo3d.commands.output import progress_bar, report_failures
    from pseudo3d.errors import Pseudo3dError, VideoError

    if not videos:
        raise Pseudo3dError("give at least one video; see p3d visualize gradcam --help")
    if stride < 1:
        raise Pseudo3dError(f"--stride must be at least 1, got {stride}")
    videos = tuple(dict.fromkeys(videos))
    stems = _stems(videos, out)
    network = open_to_explain(model, weights, class_names, device)
    if stride > network.preprocessing.num_frames > 1:
        raise Pseudo3dError(f"--stride {stride}: frames between clips of {network.preprocessing.num_frames} would have "
                            f"no map; take at most {network.preprocessing.num_frames}")  # fmt: skip
    if target != "predicted":
        class_number(network, target)  # a mistake is told before anything is written
    if layer == "res5" and "res5" not in network.layers:  # the last layer with places, whatever it is called
        layer = network.layers[0]
    failures = {}
    with progress_bar() as bar:
        task = bar.add_task("videos", total=len(videos), note="")
        for video, stem in zip(videos, stems, strict=True):
            try:
                print(_explain(network, video, stem, target, layer, stride))
            except VideoError as error:
                failures[video] = str(error)
            bar.advance(task)
    return report_failures(failures, len(videos) - len(failures))


def _stems(videos: Sequence[str], out: Path) -> list[Path]:
    """What the results of each video are called: its name; with a number where two are called the same.

    Raises:
        Pseudo3dError: a result would take the place of somebody's file.
    """
    from pseudo3d.commands.explained import check_not_taken, file_stems
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.video.segments import file_of, find_segment

    names = []
    for video in videos:
        file, segment = find_segment(video)
        names.append(file.stem if segment is None else f"{file.stem}_{segment[0]:g}-{segment[1]:g}")
    stems = [out / stem for stem in file_stems(names, first=1)]
    sources = {file_of(video).resolve() for video in videos}
    for stem in stems:
        written = stem.with_name(f"{stem.name}.mp4")
        if written.resolve() in sources:
            raise Pseudo3dError(f"--out {out}: {written} is one of the videos and would be overwritten; choose another")
    check_not_taken(out, [f"{stem.name}{suffix}" for stem in stems for suffix in (".mp4", ".png")])
    return stems


def _check_length(video: str) -> None:
    """Refuse a video that is too long before its frames fill the memory.

    Raises:
        VideoError: it is, or it cannot be used.
    """
    from pseudo3d.errors import VideoError
    from pseudo3d.video.decode import probe
    from pseudo3d.video.segments import find_segment

    path, segment = find_segment(video)
    info = probe(path)
    frames = info.num_packets
    if segment is not None and info.fps and info.duration:
        frames = min(frames, int((min(segment[1], info.duration) - segment[0]) * info.fps))
    if frames > MOST_FRAMES:
        raise VideoError(
            f"{video}: {frames} frames, and at most {MOST_FRAMES} are drawn; name a part: {path}#t=0,30 (seconds)"
        )


def _explain(network: "VideoModel", video: str, stem: Path, target: str, layer: str, stride: int) -> str:
    """Write the overlay of one video; the line that says what came of it."""
    import numpy as np

    from pseudo3d.commands.explained import class_number, class_title
    from pseudo3d.video.decode import read_video
    from pseudo3d.video.sampling import sample_clips_sliding
    from pseudo3d.video.transforms import center_crop
    from pseudo3d.visualize import animation
    from pseudo3d.visualize.gradcam import explain_frames, mean_probabilities, overlay
    from pseudo3d.visualize.gradcam_sheet import save_gradcam_sheet

    p = network.preprocessing
    _check_length(video)
    clip = read_video(video, size=p.resize, interpolation=p.interpolation)
    frames = np.stack([center_crop(frame, p.crop) for frame in clip.frames])
    starts = sample_clips_sliding(len(frames), p.num_frames, stride if p.num_frames > 1 else 1)
    prob = mean_probabilities(network, frames, starts)
    number = int(prob.argmax()) if target == "predicted" else class_number(network, target)
    maps = explain_frames(network, frames, starts, number, layer=layer)
    shown = np.concatenate([frames, overlay(frames, maps)], axis=2)
    seconds = float(clip.timestamps[-1] - clip.timestamps[0])
    fps = (len(frames) - 1) / seconds if len(frames) > 1 and seconds > 0 else 25.0
    movie = animation.save_mp4(shown, stem.with_name(f"{stem.name}.mp4"), fps=fps)
    moments = np.linspace(0, len(shown) - 1, min(8, len(shown))).round().astype(int).tolist()
    said = f"{class_title(network, number)}, probability {prob[number]:.1%}"
    save_gradcam_sheet(
        frames, maps, moments, clip.timestamps[moments], stem.with_name(f"{stem.name}.png"), title=said,
        note=f"Grad-CAM on {layer}: {Path(video).name}",
    )  # fmt: skip
    dark = "" if maps.max() > 0 else " (nothing speaks for it: the maps are 0 everywhere)"
    return f"{movie}: {said}{dark}"
