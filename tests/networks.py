"""Small networks with random numbers and random clips for them, for tests of how networks run."""

from dataclasses import replace

import numpy as np
import torch
from reference import randomise
from tiny import slim_c3d

from pseudo3d import Preprocessing, create_model
from pseudo3d.preprocessing import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB

NAMES = ("p3d_resnet14", "resnet14")
CAFFE = Preprocessing()
IMAGENET = Preprocessing(
    mean=IMAGENET_MEAN_RGB, std=IMAGENET_STD_RGB, channel_order="RGB", value_range=(0.0, 1.0), crop=(32, 32)
)
CPU = torch.device("cpu")


def network(name="p3d_resnet14", size=32, preprocessing=None, **more):
    """A network in evaluation mode for clips of ``size``, a number or (height, width)."""
    if name == "c3d":
        return slim_c3d(7).eval()
    model = randomise(create_model(name, num_classes=7, **more)).eval()
    crop = (size, size) if isinstance(size, int) else size
    model.preprocessing = replace(preprocessing or model.preprocessing, crop=crop, resize=max(crop))
    return model


def random_clips(count, preprocessing, seed=0):
    """uint8 (count, T, H, W, 3)."""
    shape = (count, preprocessing.num_frames, *preprocessing.crop, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def inputs_of(frames, p):
    """Grey levels as a network takes them, (N, 3, T, H, W) float32, step by step in float64."""
    values = frames[..., {"RGB": [0, 1, 2], "BGR": [2, 1, 0]}[p.channel_order]].astype(np.float64)
    values = values / 255 * (p.value_range[1] - p.value_range[0]) + p.value_range[0]
    values = (values - np.array(p.mean)) / np.array(p.std)
    return torch.from_numpy(values.transpose(0, 4, 1, 2, 3).astype(np.float32))


def lowest_cosine(a, b):
    """Of corresponding rows."""
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (a, b))
    return ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min()
