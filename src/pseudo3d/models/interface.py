"""What networks share: the checks of what they are asked, the memory of their filters, and the layers after res5."""

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pseudo3d.errors import Pseudo3dError


def check_layers(layers: Sequence[str], available: tuple[str, ...]) -> None:
    """Raise a Pseudo3dError (a ValueError) that names each layer of ``layers`` the network does not have.

    Example:
        >>> check_layers(["pool6"], ("res5", "pool5"))
        Traceback (most recent call last):
        pseudo3d.errors.Pseudo3dError: no layer 'pool6'; this network has res5, pool5
    """
    if isinstance(layers, str):
        raise Pseudo3dError(f"layers must be a sequence of names, got the string {layers!r}; write ({layers!r},)")
    if not layers:
        raise Pseudo3dError(f"layers is empty; ask for at least one of {', '.join(available)}")
    for layer in layers:
        if layer not in available:
            raise Pseudo3dError(f"no layer {layer!r}; this network has {', '.join(available)}")


def check_clips(clips: Tensor, in_channels: int, steps: int) -> None:
    """Raise a Pseudo3dError (a ValueError) that names the shape unless ``clips`` is a batch that the network takes.

    Args:
        clips: what the network got.
        in_channels: channels that it takes.
        steps: T must be a positive multiple of it.
    """
    shape = tuple(clips.shape)
    fits = (
        clips.ndim == 5
        and shape[0] > 0
        and shape[1] == in_channels
        and shape[2] > 0
        and shape[2] % steps == 0
        and min(shape[3:]) >= 32
    )
    if not fits or not clips.is_floating_point():
        multiple = "T at least 1" if steps == 1 else f"T a multiple of {steps}"
        raise _misfit(clips, f"(N, {in_channels}, T, H, W) with N at least 1, {multiple}, and H and W at least 32")


def check_clips_of_size(clips: Tensor, in_channels: int, size: tuple[int, int, int]) -> None:
    """As ``check_clips`` for a network that takes clips of one size (T, H, W) only.

    Example:
        >>> check_clips_of_size(torch.zeros(1, 3, 16, 160, 160), 3, (16, 112, 112))
        Traceback (most recent call last):
        pseudo3d.errors.Pseudo3dError: clips of shape (1, 3, 16, 160, 160) (torch.float32) do not fit: this network
        takes floating-point (N, 3, 16, 112, 112) with N at least 1
    """
    expected = (in_channels, *size)
    if clips.ndim != 5 or len(clips) == 0 or tuple(clips.shape[1:]) != expected or not clips.is_floating_point():
        raise _misfit(clips, f"(N, {', '.join(map(str, expected))}) with N at least 1")


def _misfit(clips: Tensor, taken: str) -> Pseudo3dError:
    return Pseudo3dError(
        f"clips of shape {tuple(clips.shape)} ({clips.dtype}) do not fit: this network takes floating-point {taken}"
    )


def filters_to_channels_last(model: nn.Module) -> None:
    """Lay the filters of every 2-D and 3-D convolution out in memory as the activations are (in place).

    ``Module.to(memory_format=...)`` does it for filters of one rank only and raises for the other.
    """
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in model.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])


def full_precision(device: torch.device) -> AbstractContextManager:
    """Within it, autocast leaves operations on ``device`` in float32."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


def classify(
    x: Float[Tensor, "N C T H W"], dropout: nn.Module, fc: nn.Module, features: dict[str, Tensor], layers: Sequence[str]
) -> None:
    """Add those of pool5, logits and prob that ``layers`` asks for to ``features``, each (N, D); ``x`` is res5.

    They are float32 whatever the precision of the convolutions: these few numbers cost nothing, and in bfloat16
    probabilities would tie and not add up to 1.
    """
    with full_precision(x.device):
        pool5 = x.float().mean(dim=(2, 3, 4))
        if "pool5" in layers:
            features["pool5"] = pool5
        if "logits" in layers or "prob" in layers:
            logits = fc(dropout(pool5))
            if "logits" in layers:
                features["logits"] = logits
            if "prob" in layers:
                features["prob"] = logits.softmax(dim=1)
