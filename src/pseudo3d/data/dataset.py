"""Random training clips out of labelled videos."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from torch.utils.data import Dataset

from pseudo3d.data.annotations import SampleList
from pseudo3d.errors import VideoError
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.video.decode import read_clips
from pseudo3d.video.sampling import sample_clips_random
from pseudo3d.video.transforms import Window, center_window, cut_out, random_window


@dataclass(frozen=True)
class Augmentation:
    """How a training clip differs from a test clip; the same for every frame of a clip.

    Args:
        random_crop: a random window instead of the centre.
        flip: mirror half of the clips left to right. It changes the label of direction classes (left and right,
            rotations), so it is a choice for each data set.
    """

    random_crop: bool = True
    flip: bool = False


class TrainingClip(NamedTuple):
    """One clip to learn from.

    Args:
        frames: resized, cut out and perhaps mirrored, RGB.
        label: the index of its class.
        window: where it was cut out and whether it is mirrored, for networks with a mean volume.
    """

    frames: UInt8[np.ndarray, "T h w 3"]
    label: int
    window: Window


class TrainingClips(Dataset[TrainingClip | VideoError]):
    """One random clip of every video, another one in every epoch.

    What is drawn depends on the seed, the epoch and the video's place alone, never on the number of workers. A video
    that cannot be used is returned as its VideoError, since an exception of a worker process loses its one-line text.

    Args:
        samples: labelled videos.
        preprocessing: of the network.
        augmentation: how clips are varied.
        seed: of all draws.
    """

    def __init__(
        self, samples: SampleList, preprocessing: Preprocessing, augmentation: Augmentation, *, seed: int
    ) -> None:
        self.samples = samples
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.seed = seed
        self.labels = label_indices(samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> TrainingClip | VideoError:
        """The clip drawn for ``(epoch, i)`` (``EpochSampler`` makes these keys)."""
        epoch, i = key
        rng = np.random.default_rng((self.seed, 0, epoch, i))  # 0 and 1 keep clips and order apart
        start = rng.integers(2**62)  # one draw, whatever the number of frames turns out to be
        p, a = self.preprocessing, self.augmentation
        try:
            video = read_clips(
                self.samples.root / self.samples.samples[i].path,
                lambda num_frames: sample_clips_random(num_frames, 1, p.num_frames, np.random.default_rng(start)),
                size=p.resize,
                interpolation=p.interpolation,
                threads=1,
            )
        except VideoError as error:
            return error
        frames = video.clips[0].frames
        size = frames.shape[1:3]
        window = random_window(size, p.crop, rng) if a.random_crop else center_window(size, p.crop)
        window = window._replace(flipped=a.flip and bool(rng.random() < 0.5))
        return TrainingClip(np.ascontiguousarray(cut_out(frames, window, p.crop)), int(self.labels[i]), window)


class EpochSampler:
    """The order of one epoch: all (epoch, i) keys of ``TrainingClips``, shuffled by seed and epoch."""

    def __init__(self, length: int, seed: int) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, 1, self.epoch)).permutation(self.length)
        return iter([(self.epoch, int(i)) for i in order])


def label_indices(samples: SampleList) -> np.ndarray:
    """The class index of each sample, int64 (samples,).

    Raises:
        ValueError: a sample without a label.
    """
    index = {name: i for i, name in enumerate(samples.class_names)}
    missing = [sample.path for sample in samples.samples if sample.label not in index]
    if missing:
        raise ValueError(f"{missing[0]} has no label among {samples.class_names}")
    return np.array([index[str(sample.label)] for sample in samples.samples], np.int64)
