"""Grad-CAM over time and space: which places and moments of a clip speak for a class (Selvaraju et al., ICCV 2017)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from pseudo3d.errors import Pseudo3dError
from pseudo3d.inference.inputs import to_input
from pseudo3d.visualize.cells import cell_centres

if TYPE_CHECKING:
    from pseudo3d.models import VideoModel

# The colours that maps are drawn in: dark to light, so that they read in grey too and by colour-blind people, and none
# of them grey as the frames beneath are.
COLOURS = "plasma"
_COVERED = 0.25  # from this share of the highest value on, a place is covered as much as the brightest one
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green, blue (ITU-R BT.601)


def grad_cam(
    model: "VideoModel", clips: Float[Tensor, "N C T H W"], targets: Int64[Tensor, "N"], *, layer: str = "res5"
) -> Float32[Tensor, "N T H W"]:
    """How much each place and moment of clips speaks for a class: ReLU(sum over k of a_k A_k), enlarged to the clips.

    A_k are the channels of ``layer``, a_k the mean over time and space of the gradient of the class's score (before the
    softmax) with respect to A_k. For P3D and C3D a map has as many steps as the layer (res4: 2 of a 16-frame clip,
    res5: 1); the frame network has one for each frame. A cell's value stands where the centre of what it sees lies
    (``cells.cell_centres``); between centres it is drawn out linearly, and beyond the outermost ones it stays.

    Args:
        model: in evaluation mode.
        clips: preprocessed, as the network takes them.
        targets: the class of each clip, from 0.
        layer: a layer with places: res2 to res5, or C3D's last convolution.

    Returns:
        Float32, at least 0, in units of the score; not scaled to 1: a clip that does not speak for its class is dark.

    Raises:
        Pseudo3dError: no such layer, or one without places.

    Example:
        >>> import pseudo3d
        >>> model = pseudo3d.create_model("p3d_resnet14", num_classes=3).eval()
        >>> grad_cam(model, torch.randn(2, 3, 16, 32, 32), torch.tensor([0, 2]), layer="res4").shape
        torch.Size([2, 16, 32, 32])
    """
    flat = ("pool5", "fc6", "fc7", "logits", "prob")
    if layer in flat:
        there = ", ".join(name for name in model.layers if name not in flat)
        raise Pseudo3dError(f"{layer} has no places to show; take one of {there}")
    with torch.enable_grad():
        # the gradient has to come from somewhere, and the weights may be frozen
        features = model.forward_features(clips.detach().requires_grad_(), (layer, "logits"))
        scores = features["logits"].gather(1, targets[:, None]).sum()
        (gradient,) = torch.autograd.grad(scores, features[layer])
    activations = features[layer].detach().float()
    weights = gradient.float().mean(dim=(2, 3, 4), keepdim=True)
    maps = (weights * activations).sum(dim=1, keepdim=True).relu()
    return _enlarged(maps[:, 0], clips.shape[2:], cell_centres(model, layer))


def _enlarged(
    maps: Float32[Tensor, "N t h w"], size: Sequence[int], centres: Sequence[tuple[float, float]]
) -> Float32[Tensor, "N T H W"]:
    """Maps drawn out to ``size``, linearly along each axis from first centre and step."""
    for axis, (length, (first, step)) in enumerate(zip(size, centres, strict=True), start=1):
        cells = maps.shape[axis]
        at = ((torch.arange(length, device=maps.device) - first) / step).clamp(0, cells - 1)
        shares = (1 - (at[:, None] - torch.arange(cells, device=maps.device)).abs()).clamp(min=0)
        maps = torch.tensordot(maps, shares, dims=([axis], [1])).movedim(-1, axis)
    return maps.contiguous()


def explain_frames(
    model: "VideoModel",
    frames: UInt8[np.ndarray, "T H W 3"],
    starts: Int64[np.ndarray, "clips length"],
    target: int,
    *,
    layer: str = "res5",
) -> Float32[np.ndarray, "T H W"]:
    """Grad-CAM of a whole video: the mean of the maps of all clips that a frame is in.

    Args:
        model: in evaluation mode.
        frames: RGB, resized and cropped as the network takes them.
        starts: frame numbers of the clips (``video.sampling``).
        target: the class, from 0.
        layer: as for ``grad_cam``.

    Returns:
        Float32, at least 0; frames that are in no clip are 0.
    """
    device = next(model.parameters()).device
    total = np.zeros(frames.shape[:3], np.float32)
    count = np.zeros(len(frames), np.int64)
    for numbers in starts:
        clip = torch.from_numpy(frames[numbers])[None].to(device)
        inputs = to_input(clip, model.preprocessing, model.mean_volume)
        found = grad_cam(model, inputs, torch.tensor([target], device=device), layer=layer)[0].cpu().numpy()
        np.add.at(total, numbers, found)  # a short video is looped: a frame may be in a clip twice
        np.add.at(count, numbers, 1)
    return total / np.maximum(count, 1)[:, None, None].astype(np.float32)


def mean_probabilities(
    model: "VideoModel", frames: UInt8[np.ndarray, "T H W 3"], starts: Int64[np.ndarray, "clips length"]
) -> Float32[np.ndarray, "classes"]:
    """What the network takes a video for: the mean of the class probabilities of its clips; as ``explain_frames``."""
    device = next(model.parameters()).device
    total = np.zeros(model.architecture.num_classes, np.float32)
    with torch.no_grad():
        for numbers in starts:
            inputs = to_input(
                torch.from_numpy(frames[numbers])[None].to(device), model.preprocessing, model.mean_volume
            )
            total += model.forward_features(inputs, ("prob",))["prob"][0].cpu().numpy()
    return total / len(starts)


def overlay(
    frames: UInt8[np.ndarray, "T H W 3"], maps: Float32[np.ndarray, "T H W"], *, strength: float = 0.6
) -> UInt8[np.ndarray, "T H W 3"]:
    """Grey frames with their maps in colours over them, on one scale: the highest value of the video is the lightest.

    A weak map is to be seen, too: places are covered the more the higher they are up to a quarter of the highest value,
    and from there on they differ in colour alone.

    Args:
        frames: RGB.
        maps: at least 0.
        strength: how much of a place's own grey is covered at most, 0..1.
    """
    import matplotlib as mpl

    colours = mpl.colormaps[COLOURS](np.arange(256), bytes=True)[:, :3].astype(np.float32)
    highest = float(maps.max())
    drawn = np.empty_like(frames)
    for frame, own, out in zip(frames, maps, drawn, strict=True):  # one at a time: a video is long, and floats are wide
        share = own[..., None] / highest if highest > 0 else own[..., None]
        cover = strength * np.minimum(1, share / _COVERED)
        grey = (frame @ _LUMA)[..., None]
        out[:] = (grey * (1 - cover) + colours[(255 * share[..., 0]).round().astype(np.uint8)] * cover).round()
    return drawn
