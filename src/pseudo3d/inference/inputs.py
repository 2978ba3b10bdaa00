"""Grey levels to network input; the only place where that happens, training included."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pseudo3d.errors import Pseudo3dError
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.video.transforms import Window, center_window


def check_takes_rgb(name: str, in_channels: int) -> None:
    """Raise for a network of other input channels than the three that videos have.

    Example:
        >>> check_takes_rgb("p3d_resnet50", 2)
        Traceback (most recent call last):
        pseudo3d.errors.Pseudo3dError: p3d_resnet50: this network takes 2 channels (optical flow, for example), videos
        give 3; use weights of an RGB network
    """
    if in_channels != 3:
        raise Pseudo3dError(
            f"{name}: this network takes {in_channels} channels (optical flow, for example), videos give 3; "
            "use weights of an RGB network"
        )


def to_input(
    frames: UInt8[Tensor, "N T H W 3"],
    preprocessing: Preprocessing,
    mean_volume: Float[Tensor, "3 T _H _W"] | None = None,
    windows: Sequence[Window] | None = None,
) -> Float[Tensor, "N 3 T H W"]:
    """Grey levels as the network expects them: channel order, range, mean, deviation.

    Args:
        frames: RGB, 0..255, cropped.
        preprocessing: of the network; its resizing and cropping have been done.
        mean_volume: of the network, if it has one: the mean of each place of the resized frames, instead of
            ``preprocessing.mean``. What is subtracted from a clip is the part where it was cut out, mirrored if it
            is, as in Caffe, which subtracts before both.
        windows: where each clip was cut out; None for the centre. It matters to a mean volume only.

    Returns:
        float32, a view of (N, T, H, W, 3) memory, which is the layout the networks compute in.

    Example:
        >>> red = torch.tensor([255, 0, 0], dtype=torch.uint8).expand(1, 1, 1, 1, 3)
        >>> to_input(red, Preprocessing()).flatten()  # blue, green, red
        tensor([-104., -117.,  132.])
    """
    mean = None if mean_volume is None else mean_of_windows(mean_volume, preprocessing, windows)
    return standardised(in_order(frames, preprocessing), preprocessing, mean).permute(0, 4, 1, 2, 3)


def in_order(frames: UInt8[Tensor, "*rest 3"], preprocessing: Preprocessing) -> UInt8[Tensor, "*rest 3"]:
    """RGB frames with their channels in the preprocessing's order."""
    if preprocessing.channel_order == "RGB":
        return frames
    return torch.stack(frames.unbind(-1)[::-1], dim=-1)  # several times faster than flip on so short an axis


def standardised(
    frames: UInt8[Tensor, "*rest W C"], preprocessing: Preprocessing, mean: Float[Tensor, "..."] | None = None
) -> Float[Tensor, "*rest W C"]:
    """Range, mean and deviation: low + x (high - low) / 255, minus the mean, over the deviation.

    Args:
        frames: grey levels whose channels are in the preprocessing's order already.
        preprocessing: of the network.
        mean: one for each place, (..., W, C), where there is more than the preprocessing's one for each channel.

    Returns:
        float32.
    """
    return scaled(frames, *scale_and_shift(frames.shape[-2], preprocessing, frames.device, mean))


def scale_and_shift(
    width: int, preprocessing: Preprocessing, device: torch.device, mean: Float[Tensor, "..."] | None = None
) -> tuple[Float[Tensor, "_WC"], Float[Tensor, "..."]]:
    """What ``standardised`` multiplies rows of ``width`` pixels by, and what it adds; for ``scaled``."""
    low, high = preprocessing.value_range
    std = torch.tensor(preprocessing.std, device=device)
    scale = ((high - low) / 255 / std).repeat(width)
    if mean is None:
        return scale, ((low - torch.tensor(preprocessing.mean, device=device)) / std).repeat(width)
    return scale, ((low - mean) / std).flatten(-2)


def scaled(
    frames: UInt8[Tensor, "*rest W C"], scale: Float[Tensor, "_WC"], shift: Float[Tensor, "..."]
) -> Float[Tensor, "*rest W C"]:
    """Float32 frames times ``scale`` plus ``shift``."""
    *rest, width, channels = frames.shape
    # As one multiplication and one addition, over whole rows of pixels: an axis of three numbers is no vector, and
    # to broadcast over it takes many times as long.
    x = frames.to(torch.float32).reshape(*rest, width * channels)
    return x.mul_(scale).add_(shift).view(*rest, width, channels)


def mean_of_windows(
    volume: Float[Tensor, "3 T H W"], preprocessing: Preprocessing, windows: Sequence[Window] | None
) -> Float[Tensor, "N T h w 3"]:
    """The parts of a mean volume that belong to clips cut out at ``windows``; one for all of them without."""
    size, (height, width) = tuple(volume.shape[2:]), preprocessing.crop
    if size != preprocessing.resize:
        raise Pseudo3dError(
            f"the mean volume is of frames of {size[0]}x{size[1]}, the preprocessing resizes to "
            f"{preprocessing.resize}; set it to {size}"
        )
    parts = []
    for top, left, flipped in windows or [center_window(size, preprocessing.crop)]:
        part = volume[:, :, top : top + height, left : left + width]
        parts.append(part.flip(-1) if flipped else part)
    return torch.stack(parts).permute(0, 2, 3, 4, 1)
