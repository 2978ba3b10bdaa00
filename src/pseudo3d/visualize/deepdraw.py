"""DeepDraw for video: a clip of noise that is changed until the network takes it for a class (paper figure 5).

Gradient ascent on the input, as the paper does with the DeepDraw toolbox: from white noise, in octaves of growing
pictures. The release says no settings; those here are ours, chosen for clips that a person can read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter
from torch import Tensor

from pseudo3d.errors import Pseudo3dError
from pseudo3d.visualize.frames import undo_preprocessing

if TYPE_CHECKING:
    from pseudo3d.models import VideoModel


@dataclass(frozen=True)
class Octave:
    """One part of the ascent, on pictures of one size.

    Args:
        iterations: steps of gradient ascent.
        scale: size of the pictures, as a share of what the network takes, at least 1: where they are larger, each step
            looks at another window of them.
        blur: standard deviation of the Gaussian that smooths the pictures after each step, in pixels, at the first
            and at the last step.
        step: mean change of a value in a step, in grey levels, at the first and at the last step.
    """

    iterations: int
    scale: float
    blur: tuple[float, float]
    step: tuple[float, float]

    def at(self, i: int) -> tuple[float, float]:
        """Blur and step of iteration ``i``, from 0; they go evenly from the first to the last one's.

        Example:
            >>> Octave(3, 1.0, (2.0, 1.0), (12.0, 6.0)).at(1)
            (1.5, 9.0)
        """
        along = i / max(1, self.iterations - 1)
        blur = self.blur[0] + along * (self.blur[1] - self.blur[0])
        return blur, self.step[0] + along * (self.step[1] - self.step[0])


OCTAVES = (
    Octave(100, 1.0, (2.0, 0.9), (12.0, 6.0)),
    Octave(60, 1.2, (0.9, 0.6), (8.0, 4.0)),
    Octave(60, 1.4, (0.7, 0.5), (6.0, 3.0)),
)
"""Coarse shapes first, then what they are made of."""


@dataclass(frozen=True)
class Step:
    """How far an ascent is.

    Args:
        done: steps.
        total: of all octaves.
        score: the class's score (before the softmax) at this step.
        probability: the class's.
    """

    done: int
    total: int
    score: float
    probability: float


def deepdraw(
    model: "VideoModel",
    target: int,
    *,
    octaves: Sequence[Octave] = OCTAVES,
    jitter: int = 8,
    time_blur: float = 0.5,
    noise: float = 20.0,
    seed: int = 0,
    on_step: Callable[[Step], None] | None = None,
) -> UInt8[np.ndarray, "T H W 3"]:
    """A clip that the network takes for a class.

    In each step the pictures are moved by a random offset, a window of the network's size is put through it, the
    gradient of the class's score, scaled to a mean size of one, is added, and the pictures are smoothed in space and
    in time and kept within black and white.

    Args:
        model: in evaluation mode; its preprocessing says the size and the number of frames.
        target: the class, from 0.
        octaves: the parts of the ascent.
        jitter: the largest offset, in pixels, along both axes.
        time_blur: standard deviation, in frames, of the smoothing over time after each step; 0 for none. More gives
            slower and smoother motion.
        noise: standard deviation of the white noise that it begins with, around the mean, in grey levels.
        seed: of noise, offsets and windows.
        on_step: told of each step (a progress bar).

    Returns:
        RGB, as large as the last octave. The mean is taken for each channel, also where the network has a volume.

    Raises:
        Pseudo3dError: no such class, an octave that cannot be, or scores that are not finite.

    Example:
        >>> import pseudo3d
        >>> model = pseudo3d.create_model("p3d_resnet14", num_classes=3).eval()
        >>> model.preprocessing = model.preprocessing.with_size(32)
        >>> deepdraw(model, 1, octaves=[Octave(2, 1.5, (1.0, 1.0), (4.0, 4.0))]).shape
        (16, 48, 48, 3)
    """
    _check(model, target, octaves)
    p = model.preprocessing
    rng = np.random.default_rng(seed)
    low, high, unit = _range(model)
    done, total = 0, sum(octave.iterations for octave in octaves)
    x = rng.standard_normal((len(p.mean), p.num_frames, *p.crop), np.float32) * (noise * unit)
    for octave in octaves:
        size = tuple(round(edge * octave.scale) for edge in p.crop)
        x = _resized(x, size)
        for i in range(octave.iterations):
            sigma, step = octave.at(i)
            offset = tuple(int(v) for v in rng.integers(-jitter, jitter, size=2, endpoint=True)) if jitter else (0, 0)
            corner = tuple(int(rng.integers(0, size[k] - p.crop[k], endpoint=True)) for k in range(2))
            x, score, probability = _moved_up(model, x, target, offset, corner, step * unit)
            x = gaussian_filter(x, (0, time_blur, sigma, sigma), mode="nearest").clip(low, high)
            done += 1
            if on_step is not None:
                on_step(Step(done, total, score, probability))
    return undo_preprocessing(torch.from_numpy(x)[None], p)[0]


def _check(model: "VideoModel", target: int, octaves: Sequence[Octave]) -> None:
    classes = model.architecture.num_classes
    if not 0 <= target < classes:
        raise Pseudo3dError(f"no class {target}; the network has {classes}, numbered from 0")
    for octave in octaves:
        if octave.iterations < 1 or octave.scale < 1 or min(*octave.blur, *octave.step) < 0:
            raise Pseudo3dError(
                f"an octave needs at least 1 iteration, a scale of at least 1, and no number below 0: {octave}"
            )
    if not octaves:
        raise Pseudo3dError("there must be at least one octave")


def _range(model: "VideoModel") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The network's input for black and for white, and how much one grey level is; (C, 1, 1, 1)."""
    p = model.preprocessing
    mean, std = (np.array(each, np.float32).reshape(-1, 1, 1, 1) for each in (p.mean, p.std))
    low, high = p.value_range
    return (low - mean) / std, (high - mean) / std, np.float32((high - low) / 255) / std


def _resized(x: Float[np.ndarray, "C T H W"], size: tuple[int, ...]) -> Float[np.ndarray, "C T H2 W2"]:
    if x.shape[2:] == size:
        return x
    larger = F.interpolate(torch.from_numpy(x).transpose(0, 1), size=size, mode="bilinear", align_corners=False)
    return larger.transpose(0, 1).contiguous().numpy()


def _moved_up(
    model: "VideoModel",
    x: Float[np.ndarray, "C T H W"],
    target: int,
    offset: tuple[int, ...],
    corner: tuple[int, ...],
    amount: Float[np.ndarray, "C 1 1 1"],
) -> tuple[Float[np.ndarray, "C T H W"], float, float]:
    """A window of the pictures, moved by ``offset``, is changed by the gradient; with the score and the probability."""
    (top, left), (height, width) = corner, model.preprocessing.crop
    x = np.roll(x, offset, axis=(2, 3))
    window = x[:, :, top : top + height, left : left + width]
    score, probability, gradient = _gradient(model, window, target)
    window += gradient / max(float(np.abs(gradient).mean()), 1e-12) * amount  # a view: the pictures change
    return np.roll(x, (-offset[0], -offset[1]), axis=(2, 3)), score, probability


def _gradient(
    model: "VideoModel", window: Float[np.ndarray, "C T H W"], target: int
) -> tuple[float, float, Float[np.ndarray, "C T H W"]]:
    """The class's score and probability for a clip, and the direction in which the score grows."""
    device = next(model.parameters()).device
    clip = torch.from_numpy(np.ascontiguousarray(window))[None].to(device).requires_grad_()
    with torch.enable_grad():
        logits = model(clip)[0].float()
        (gradient,) = torch.autograd.grad(logits[target], clip)
    logits = logits.detach()
    score = float(logits[target])
    direction: Tensor = gradient[0].float().cpu()
    if not np.isfinite(score) or not torch.isfinite(direction).all():
        raise Pseudo3dError("the network's scores are not finite; its weights may be damaged (p3d weights verify)")
    return score, float(logits.softmax(dim=0)[target]), direction.numpy()
