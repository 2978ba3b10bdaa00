"""From a video file to the cropped clips that a network takes, as grey levels; no torch here."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8

from pseudo3d.errors import Pseudo3dError
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.video.decode import read_clips
from pseudo3d.video.packets import PathLike
from pseudo3d.video.sampling import SAMPLERS
from pseudo3d.video.transforms import center_crop


@dataclass(frozen=True, eq=False)
class LoadedClips:
    """The test clips of one video: resized, centre crop, RGB grey levels.

    Args:
        frames: (distinct, T, h, w, 3), every clip once: in a short video several samples fall on the same frames.
        rows: (clips,), where in ``frames`` each sampled clip is.
        starts: (clips,), the first frame of each sampled clip.
        num_frames: of the whole video.
        fps: average rate, or None when the file does not say.
        undecodable_packets: 0 for a sound file.
    """

    frames: UInt8[np.ndarray, "distinct T h w 3"]
    rows: Int64[np.ndarray, "clips"]
    starts: Int64[np.ndarray, "clips"]
    num_frames: int
    fps: float | None
    undecodable_packets: int


def get_sampler(name: str) -> Callable[[int, int, int], np.ndarray]:
    """The sampler of that name (``video.sampling.SAMPLERS``).

    Raises:
        Pseudo3dError: there is none; the message lists them.
    """
    if name not in SAMPLERS:
        raise Pseudo3dError(f"no sampler {name!r}; there are {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def load_clips(
    path: PathLike, preprocessing: Preprocessing, *, clips: int = 20, sampler: str = "uniform", threads: int = 1
) -> LoadedClips:
    """Sample, decode, resize and crop the clips of one video by the paper's test protocol (section 4).

    Args:
        path: the video file, decoded once for all its clips.
        preprocessing: of the network: frames in a clip, size, crop.
        clips: how many; 20 in the paper. "sliding" does not look at it: a clip every 8 frames, as many as that makes.
        sampler: "uniform", "authors" or "sliding". All clips of the video are in memory at once, which for "sliding"
            grows with the video: 75 kB a frame for C3D.
        threads: of the decoder, 0 for FFmpeg's choice. More than one pays off for large frames only.

    Raises:
        VideoError: the file cannot be used as a video.
        Pseudo3dError: an unknown sampler.
    """
    sample = get_sampler(sampler)
    video = read_clips(
        path,
        lambda num_frames: sample(num_frames, clips, preprocessing.num_frames),
        size=preprocessing.resize,
        interpolation=preprocessing.interpolation,
        threads=threads,
    )
    starts = video.indices[:, 0].copy()  # of clips of one length, so that they tell clips apart
    _, first, rows = np.unique(starts, return_index=True, return_inverse=True)
    frames = np.stack([center_crop(video.clips[i].frames, preprocessing.crop) for i in first])
    return LoadedClips(frames, rows, starts, video.num_frames, video.fps, video.undecodable_packets)
