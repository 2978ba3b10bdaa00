"""Network input back to pictures: what a network sees, as a person can look at it."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pseudo3d.errors import Pseudo3dError
from pseudo3d.inference.inputs import mean_of_windows
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.video.transforms import Window


def undo_preprocessing(
    inputs: Float[Tensor, "N C T H W"],
    preprocessing: Preprocessing,
    mean_volume: Float[Tensor, "C L H2 W2"] | None = None,
    windows: Sequence[Window] | None = None,
) -> UInt8[np.ndarray, "N T H W 3"]:
    """The frames that ``inference.to_input`` made network input of: deviation, mean, range and order undone.

    Args:
        inputs: as the network gets them, of any floating type and on any device.
        preprocessing: of the network, with one mean and deviation for each of the C channels.
        mean_volume: of the network, if it has one, as in ``to_input``.
        windows: where each clip was cut out; matters to a mean volume only.

    Returns:
        RGB, 0..255, rounded; what lies outside is clipped. Three channels give back their colours. Of any other
        number (two of optical flow), the first is shown in grey.

    Raises:
        Pseudo3dError: the preprocessing is of another number of channels.

    Example:
        >>> from pseudo3d.inference import to_input
        >>> red = torch.tensor([255, 0, 7], dtype=torch.uint8).expand(1, 1, 1, 1, 3)
        >>> undo_preprocessing(to_input(red, Preprocessing()), Preprocessing()).tolist()
        [[[[[255, 0, 7]]]]]
    """
    channels = inputs.shape[1]
    if len(preprocessing.mean) != channels:
        raise Pseudo3dError(
            f"the clips have {channels} channels, the preprocessing is of {len(preprocessing.mean)}; "
            "give that of the network that the clips are for"
        )
    x = inputs.detach().to("cpu", torch.float32).permute(0, 2, 3, 4, 1)
    mean = torch.tensor(preprocessing.mean)
    if mean_volume is not None:
        mean = mean_of_windows(mean_volume.to("cpu", torch.float32), preprocessing, windows)
    low, high = preprocessing.value_range
    x = (x * torch.tensor(preprocessing.std) + mean - low) * (255 / (high - low))
    grey_levels = x.round().clamp(0, 255).to(torch.uint8)
    if channels != 3:
        grey_levels = grey_levels[..., :1].expand(*grey_levels.shape[:-1], 3)
    elif preprocessing.channel_order == "BGR":
        grey_levels = grey_levels.flip(-1)
    return np.ascontiguousarray(grey_levels.numpy())
