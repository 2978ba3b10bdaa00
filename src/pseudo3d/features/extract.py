"""From a list of videos to a feature store."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pseudo3d.data.annotations import SampleList
from pseudo3d.errors import Pseudo3dError, first_few
from pseudo3d.features.encoder import VideoEncoder
from pseudo3d.features.store import StoreWriter, VideoFeatures
from pseudo3d.models.interface import check_layers


@dataclass(frozen=True)
class ExtractReport:
    """What an extraction did.

    Args:
        encoded: videos whose features were computed now.
        already_done: videos that were in the store before.
        failures: reason for each video without features.
        clips: of the videos that were encoded now, all together.
    """

    encoded: int
    already_done: int
    failures: dict[str, str]
    clips: int


def extract(
    encoder: VideoEncoder,
    samples: SampleList,
    out: str | Path,
    *,
    layers: Sequence[str] = ("pool5",),
    on_video: Callable[[str | None], None] | None = None,
) -> ExtractReport:
    """Encode every video into the store ``out``; the same call again goes on where an earlier one stopped.

    Args:
        encoder: the network and how clips are taken.
        samples: the videos, with labels, splits and groups where they are known.
        out: the store's folder.
        layers: which activations, each averaged over the clips.
        on_video: called for each video, also one done before, with its failure or None (a progress bar).

    Raises:
        Pseudo3dError: an unknown layer, or ``out`` holds other files or a store made in another way (other weights,
            another root, other labels).
        OSError: ``out`` cannot be written or the disk is full; what was written before stays whole.
    """
    check_layers(layers, encoder.network.layers)  # before a store is made that would carry a wrong name for ever
    by_path = {samples.root / sample.path: sample for sample in samples.samples}
    info = {**encoder.describe(), "layers": list(layers), "root": samples.root.as_posix()}
    encoded = clips = 0
    with StoreWriter(out, info) as writer:
        _check_described(writer, samples)
        todo = [path for path, sample in by_path.items() if sample.path not in writer.done]
        if on_video is not None:
            for _ in range(len(by_path) - len(todo)):
                on_video(None)
        for result in encoder.encode_many(todo, layers=layers):
            sample = by_path[result.path]
            if result.error is not None:
                writer.add_failure(sample.path, result.error)
            else:
                encoded += 1
                clips += len(result.starts)
                writer.add(
                    VideoFeatures(
                        sample.path,
                        result.layers,
                        result.starts,
                        result.num_frames,
                        result.fps,
                        result.undecodable_packets,
                        sample.label,
                        sample.split,
                        sample.group,
                    )
                )
            if on_video is not None:
                on_video(result.error)
        # only those of this call: the store may know of videos that are not asked for now
        asked = {sample.path for sample in samples.samples}
        failures = {path: reason for path, reason in writer.failures.items() if path in asked}
    return ExtractReport(encoded, len(by_path) - len(todo), failures, clips)


def _check_described(writer: StoreWriter, samples: SampleList) -> None:
    """Raise if a video in the store has another label, split or group now: its row would go on saying the old one."""
    changed = [
        sample.path
        for sample in samples.samples
        if writer.done.get(sample.path, ()) not in ((), (sample.label, sample.split, sample.group))
    ]
    if changed:
        raise Pseudo3dError(
            f"{writer.folder}: {len(changed)} videos have another label, split or group than when they were extracted "
            f"({first_few(changed)}); give a new folder for --out"
        )
