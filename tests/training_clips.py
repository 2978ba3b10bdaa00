"""What tests of training clips share: frames that can be read back, and samplers that know their steps."""

import numpy as np

from pseudo3d import Preprocessing
from pseudo3d.data.augmentation import Augmentation

NET = Preprocessing(num_frames=4, resize=(40, 56), crop=(24, 32))
ALL = Augmentation(flip=True)


def picture(i):
    """A frame without symmetry, in which every pixel's place can be read and which differs between frames."""
    rows, columns = np.mgrid[:40, :56]
    return np.stack([rows * 5, columns * 4, np.full_like(rows, 6 * i)], axis=2).astype(np.uint8)


def steps_of(sampler, start, stop):
    sampler.start, sampler.stop = start, stop
    return sampler
