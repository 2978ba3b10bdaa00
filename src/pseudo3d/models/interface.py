"""What every network shares at its ends: the checks of what it is asked, and the layers after res5."""

import contextlib
from collections.abc import Sequence

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
        raise Pseudo3dError(
            f"clips of shape {shape} ({clips.dtype}) do not fit: this network takes floating-point "
            f"(N, {in_channels}, T, H, W) with N at least 1, {multiple}, and H and W at least 32"
        )


def classify(
    x: Float[Tensor, "N C T H W"], dropout: nn.Module, fc: nn.Module, features: dict[str, Tensor], layers: Sequence[str]
) -> None:
    """Add those of pool5, logits and prob that ``layers`` asks for to ``features``, each (N, D); ``x`` is res5.

    They are float32 whatever the precision of the convolutions: these few numbers cost nothing, and in bfloat16
    probabilities would tie and not add up to 1.
    """
    kind = x.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else contextlib.nullcontext():
        pool5 = x.float().mean(dim=(2, 3, 4))
        if "pool5" in layers:
            features["pool5"] = pool5
        if "logits" in layers or "prob" in layers:
            logits = fc(dropout(pool5))
            if "logits" in layers:
                features["logits"] = logits
            if "prob" in layers:
                features["prob"] = logits.softmax(dim=1)
