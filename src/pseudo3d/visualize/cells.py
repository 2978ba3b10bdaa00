"""Where in a clip the cells of a layer look: the centres of their receptive fields.

Along each axis, a convolution or pooling with a window of k, stride s and padding p moves the centre of the first cell
by (k - 1) / 2 - p of the steps that its input has, and makes steps s times as long. Paddings of most layers keep the
first centre; the pooling of the authors' networks is not padded, and moves it.
"""

from typing import TYPE_CHECKING

from torch import nn

from pseudo3d.errors import Pseudo3dError
from pseudo3d.models.c3d import C3D
from pseudo3d.models.resnet import VideoResNet

if TYPE_CHECKING:
    from pseudo3d.models import VideoModel

Axis = tuple[float, float]
Centres = tuple[Axis, Axis, Axis]
_START: Axis = (0.0, 1.0)


def cell_centres(model: "VideoModel", layer: str) -> Centres:
    """Of time, height and width: the centre of the first cell, and the step from one to the next, in frames or pixels.

    A cell may see more than the clip has: its centre is that of its whole receptive field, and where it is near the
    edge, a part of that is padding.

    Args:
        model: one of this project's networks.
        layer: one with places (res2 to res5, C3D's last convolution).

    Raises:
        Pseudo3dError: a network whose layers are not known.

    Example:
        >>> import pseudo3d
        >>> cell_centres(pseudo3d.create_model("p3d_resnet14", num_classes=2), "res4")
        ((3.5, 8.0), (2.0, 16.0), (2.0, 16.0))
    """
    if isinstance(model, VideoResNet):
        return _of_resnet(model, layer)
    if isinstance(model, C3D):
        return _of_c3d(model)
    raise Pseudo3dError(f"where the cells of {type(model).__name__} look is not known; use a network of p3d models")


def _through(axis: Axis, window: int, stride: int, padding: int) -> Axis:
    first, step = axis
    return first + ((window - 1) / 2 - padding) * step, step * stride


def _through_conv(axis: Axis, conv: nn.Module) -> Axis:
    """Along the last axis: filters are as high as wide."""
    assert isinstance(conv, nn.Conv2d)
    return _through(axis, conv.kernel_size[-1], conv.stride[-1], int(conv.padding[-1]))


def _of_resnet(model: VideoResNet, layer: str) -> Centres:
    place = _through(_through_conv(_START, model.stem.conv1), 3, 2, 0 if model.stem.style == "caffe" else 1)
    time = _through(_START, 2, 2, 0) if model.has_time else _START
    for name in ("res2", "res3", "res4", "res5"):
        if model.has_time and name != "res2":
            time = _through(time, 2, 2, 0)
        for block in getattr(model, name):
            place = _through_conv(_through_conv(place, block.conv_a), block.conv_s)
        if name == layer:
            break
    return time, place, place


def _of_c3d(model: C3D) -> Centres:
    axes = [_START, _START, _START]
    for name, _, window in model.convolutions:
        conv = getattr(model, name)
        axes = [_through(axes[i], conv.kernel_size[i], conv.stride[i], conv.padding[i]) for i in range(3)]
        if window is not None:
            axes = [_through(axes[i], window[i], window[i], 0) for i in range(3)]
    return axes[0], axes[1], axes[2]
