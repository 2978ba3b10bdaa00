"""Networks on a processor without a compiler: each convolution, its ReLU and the addition before it in one call.

oneDNN, which PyTorch computes its convolutions with, can add a tensor and rectify while it stores a result. PyTorch
offers that to its own compiler only, as ``torch.ops.mkldnn._convolution_pointwise``. Called directly, it leaves of a
P3D network nothing but convolutions and poolings, and there is nothing to wait for:

    A    c(ReLU(T(S(a))))                 T's ReLU is fused
    B    c(ReLU(S(a) + T(a)))             T's call adds S(a)
    C    c(ReLU(0.5 S(a) + 0.5 T(S(a)))   = 0.5 c'(ReLU(S(a) + T(S(a)))): the 0.5 moves through the ReLU into the next
                                          filters, where it is exact (a power of two)

What else makes it fast:

- The first stages run on ``PIECE`` clips at a time and the stem on ``STEM_FRAMES`` frames, so that what one layer
  writes the next one reads from the cache, and no buffer reaches the 32 MiB from which glibc maps memory anew for
  every call.
- After a ReLU no number is negative, and non-negative floats are in the order of their bits: max pooling compares
  bfloat16 as 16-bit integers, which processors have instructions for.
- conv1 takes channels as they come out of a video (RGB): its filters are reordered, not the pixels.
- conv_c's sum is written over the shortcut, and T's over S in block B: one pass over memory less.

Numbers that are not finite: infinity passes as it does in PyTorch, but NaN does not, as oneDNN's ReLU makes it 0.
Weights with NaN never get here (``weights`` refuses them); infinity minus infinity could.
"""

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num, UInt8
from torch import Tensor, nn

from pseudo3d.inference.inputs import scale_and_shift, scaled, to_input
from pseudo3d.models.blocks import Bottleneck, frames_to_clip, spatial_view, temporal_view
from pseudo3d.models.c3d import C3D, CLIP
from pseudo3d.models.interface import check_clips, check_clips_of_size, check_layers, classify
from pseudo3d.models.resnet import STEPS_PER_OUTPUT, VideoResNet

PIECE = 1  # clips that go through stem, res2 and res3 together
STEM_FRAMES = 4  # frames that go through conv1 and pool1 together
_EARLY, _LATE = ("res2", "res3"), ("res4", "res5")
_AS_INTEGERS = {torch.bfloat16: torch.int16}  # float32 gains nothing: its comparison is an instruction already


class FusedConv:
    """A convolution with a bias, prepared for one shape of input, fused with what follows.

    Args:
        conv: its filters and bias, already in the precision to compute in.
        scale: of the filters; the bias stays. What comes in has been divided by it.
    """

    def __init__(self, conv: nn.Conv2d | nn.Conv3d, scale: float = 1.0) -> None:
        assert conv.bias is not None
        self._filters = (conv.weight.detach() * scale).contiguous()
        self._bias = conv.bias.detach()
        self._stride, self._padding = list(conv.stride), [int(p) for p in conv.padding]
        self._dilation = list(conv.dilation)
        self._prepared: dict[tuple[int, ...], Tensor] = {}  # the best layout of filters depends on the input's shape

    def __call__(
        self, x: Tensor, *, relu: bool = True, add: Tensor | None = None, onto: Tensor | None = None
    ) -> Tensor:
        """conv(x), rectified if so wished; channels-last as ``x`` is.

        Args:
            x: activations.
            relu: whether to rectify, after an addition.
            add: what to add.
            onto: what to add, which nobody reads afterwards: the result takes its memory, which saves a pass over it.
        """
        shape = tuple(x.shape)
        if shape not in self._prepared:
            self._prepared[shape] = torch.ops.mkldnn._reorder_convolution_weight(
                self._filters, self._padding, self._stride, self._dilation, 1, list(shape)
            )
        filters, after = self._prepared[shape], "relu" if relu else "none"
        shared = (filters, self._bias, self._padding, self._stride, self._dilation, 1)
        if onto is not None:
            return torch.ops.mkldnn._convolution_pointwise_.binary(
                onto, x, *shared, "add", None, "relu" if relu else None, [], ""
            )
        if add is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *shared, after, [], "")
        return torch.ops.mkldnn._convolution_pointwise.binary(
            x, add, *shared, "add", None, "relu" if relu else None, [], ""
        )


@runtime_checkable
class Conv(Protocol):
    """A convolution and what follows it; ``FusedConv`` in floats, ``inference.int8.Int8Conv`` in integers."""

    def __call__(
        self, x: Tensor, *, relu: bool = True, add: Tensor | None = None, onto: Tensor | None = None
    ) -> Tensor:
        """As ``FusedConv``; what is given as ``onto`` may be overwritten."""
        ...


def fused_parts(block: Bottleneck) -> dict[str, tuple[nn.Conv2d, float]]:
    """The convolutions of a block, in the order in which they run, with what multiplies their filters."""
    # C: ReLU(share (S + T)) = share ReLU(S + T), as share is positive
    names = ["a", "s", *(["t"] if block.kind != "2D" else []), "c", *(["shortcut"] if block.has_projection else [])]
    share = block.share if block.kind == "C" else 1.0
    return {name: (getattr(block, f"conv_{name}"), share if name == "c" else 1.0) for name in names}


class _FusedBottleneck:
    def __init__(self, block: Bottleneck, convs: Mapping[str, Conv]) -> None:
        self._kind, self._rectify_t = block.kind, block.rectify_t
        self._conv_a, self._conv_s, self._conv_c = convs["a"], convs["s"], convs["c"]
        if block.kind != "2D":
            self._conv_t, self._stride_t = convs["t"], block.stride_t
        self._shortcut = convs.get("shortcut")

    def _temporal(self, x: Tensor, steps: int, add: Tensor | None = None) -> Tensor:
        """ReLU(T(x) + add); in style "port" T has a ReLU of its own before the addition."""
        height, width = x.shape[2:]
        other = None if add is None else temporal_view(add, steps)
        if self._rectify_t and other is not None:
            t = _add_rectified(self._conv_t(temporal_view(x, steps)), other)
        elif add is x:
            t = self._conv_t(temporal_view(x, steps), add=other)
        else:
            t = self._conv_t(temporal_view(x, steps), onto=other)
        return spatial_view(t, height, width)

    def __call__(self, x: Tensor, steps: int) -> Tensor:
        a = self._conv_a(x)
        y = self._conv_s(a)
        if self._kind == "A":
            y = self._temporal(y, steps)
        elif self._kind == "B":
            y = self._temporal(a[:, :, :: self._stride_t, :: self._stride_t], steps, y)
        elif self._kind == "C":
            y = self._temporal(y, steps, y)
        # a block without a projection is never a stage's first: its input is what the block before it computed here
        return self._conv_c(y, onto=x if self._shortcut is None else self._shortcut(x, relu=False))


def _add_rectified(x: Tensor, other: Tensor) -> Tensor:
    """The sum, in place of x, both non-negative and so is the sum; 8-bit sums end at 255 (~x is 255 - x)."""
    return x.add_(torch.minimum(other, ~x) if x.dtype == torch.uint8 else other)


def pool_steps(x: Num[Tensor, "NT C H W"]) -> Num[Tensor, "half C H W"]:
    """The maximum of pairs of neighbouring steps of non-negative channels-last activations."""
    rows = _comparable(x.permute(0, 2, 3, 1))
    return torch.maximum(rows[::2], rows[1::2]).view(x.dtype).permute(0, 3, 1, 2)


def pool_pixels(x: Num[Tensor, "N C H W"], style: str) -> Num[Tensor, "N C h w"]:
    """pool1's maximum over 3x3 windows, stride 2, of non-negative channels-last activations.

    Args:
        x: float32, bfloat16 or uint8.
        style: "caffe": windows start at 0, the last may end outside; else padded by 1 (``models.blocks.Stem``).
    """
    rows = _max_of_three(_comparable(x.permute(0, 2, 3, 1)), 1, style)
    return _max_of_three(rows, 2, style).view(x.dtype).permute(0, 3, 1, 2)


def _comparable(x: Tensor) -> Tensor:
    return x.view(_AS_INTEGERS.get(x.dtype, x.dtype))


def _max_of_three(values: Tensor, axis: int, style: str) -> Tensor:
    """Maxima of 2i, 2i + 1, 2i + 2 along ``axis``, or in the padded styles of 2i - 1, 2i, 2i + 1."""
    x = values.movedim(axis, 0)
    pairs = len(x) // 2
    out = torch.maximum(x[: 2 * pairs : 2], x[1::2])
    if style == "caffe":
        third, here = x[2::2], out[: (len(x) - 1) // 2]
    else:
        if len(x) % 2:
            out = torch.cat([out, x[-1:]])
        third, here = x[1:-1:2], out[1:]
    torch.maximum(here, third, out=here)
    return out.movedim(0, axis)


class FusedResNet:
    """A ``VideoResNet`` as a list of fused calls, for uint8 clips on a processor.

    Args:
        model: in evaluation mode, batch norms folded; convolutions in the precision to compute in.

    Example:
        >>> from pseudo3d import create_model
        >>> from pseudo3d.inference.folding import fold_batch_norms
        >>> network = FusedResNet(fold_batch_norms(create_model("resnet14", num_classes=3)))
        >>> with torch.inference_mode():
        ...     features = network(torch.zeros(2, 4, 32, 32, 3, dtype=torch.uint8), ("res2", "prob"))
        >>> {name: tuple(value.shape) for name, value in features.items()}
        {'res2': (2, 256, 4, 8, 8), 'prob': (2, 3)}
    """

    def __init__(self, model: VideoResNet) -> None:
        self._model = model
        self._style, self._has_time = model.stem.style, model.has_time
        self._dtype = model.stem.conv1.weight.dtype
        p = model.preprocessing
        conv1 = model.stem.conv1
        if p.channel_order == "BGR":  # the same sums with the filters' channels in the order of the pixels'
            p = replace(p, channel_order="RGB", mean=p.mean[::-1], std=p.std[::-1])
            conv1 = copy.deepcopy(conv1)
            conv1.weight = nn.Parameter(conv1.weight.detach().flip(1), requires_grad=False)
        self._preprocessing = p
        self._rows: dict[int, tuple[Tensor, Tensor]] = {}  # scale and shift of a row of pixels, by its width
        self._conv1 = self._prepare_conv1(conv1)
        self._stages = {
            stage: [
                _FusedBottleneck(block, self._prepare(f"{stage}.{i}", block))
                for i, block in enumerate(getattr(model, stage))
            ]
            for stage in _EARLY + _LATE
        }

    def _prepare_conv1(self, conv1: nn.Conv2d) -> Conv:
        return FusedConv(conv1)

    def _prepare(self, place: str, block: Bottleneck) -> Mapping[str, Conv]:
        """The convolutions of a block, made ready; ``place`` is its name in the network, such as "res3.0"."""
        return {name: FusedConv(conv, factor) for name, (conv, factor) in fused_parts(block).items()}

    def _floats(self, x: Tensor, stage: str) -> Float[Tensor, "NT C H W"]:
        """What ``stage`` has computed, as the numbers that it stands for."""
        return x

    def __call__(self, frames: UInt8[Tensor, "N T H W 3"], layers: Sequence[str]) -> dict[str, Float[Tensor, "N ..."]]:
        """As ``forward_features``, of uint8 RGB frames.

        Raises:
            Pseudo3dError: unknown layers, or clips of a shape that the network does not take.
        """
        check_layers(layers, self._model.layers)
        n, steps, height, width, channels = frames.shape
        clips = torch.empty(n, channels, steps, height, width, device="meta")
        check_clips(clips, 3, STEPS_PER_OUTPUT if self._has_time else 1)
        pieces = []
        for piece in frames.split(PIECE):
            found: dict[str, Tensor] = {}
            x = self._stem(piece.flatten(0, 1))
            found[""], left = self._run(x, steps // 2 if self._has_time else steps, _EARLY, layers, found)
            pieces.append(found)
        features = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
        x = features.pop("")
        if len(features) < len(set(layers)):
            x, left = self._run(x, left, _LATE, layers, features)
        if len(features) < len(set(layers)):
            classify(
                frames_to_clip(self._floats(x, "res5"), left), self._model.dropout, self._model.fc, features, layers
            )
        return features

    def _run(
        self, x: Tensor, steps: int, names: Sequence[str], layers: Sequence[str], features: dict[str, Tensor]
    ) -> tuple[Tensor, int]:
        """The stages ``names``, each with the temporal pooling after it; what ``layers`` names goes to ``features``."""
        for name in names:
            for block in self._stages[name]:
                x = block(x, steps)
            if name in layers:
                features[name] = frames_to_clip(self._floats(x, name), steps)
            if self._has_time and name != "res5":
                x, steps = pool_steps(x), steps // 2
        return x, steps

    def _stem(self, frames: UInt8[Tensor, "F H W 3"]) -> Num[Tensor, "rows C h w"]:
        """conv1, ReLU and pool1, a few frames at a time."""
        pooled = []
        for few in frames.split(STEM_FRAMES):
            x = self._conv1(self._stem_input(few))
            pooled.append(pool_pixels(pool_steps(x) if self._has_time else x, self._style))
        return torch.cat(pooled)

    def _stem_input(self, frames: UInt8[Tensor, "F H W 3"]) -> Num[Tensor, "F 3 h w"]:
        width = frames.shape[2]
        if width not in self._rows:
            self._rows[width] = scale_and_shift(width, self._preprocessing, frames.device)
        return scaled(frames, *self._rows[width]).to(self._dtype).permute(0, 3, 1, 2)


class FusedC3D:
    """``C3D`` as ``FusedResNet``: each convolution with its ReLU in one call, one clip after the other.

    Args:
        model: in evaluation mode; convolutions in the precision to compute in.
    """

    def __init__(self, model: C3D) -> None:
        self._model = model
        self._convs: list[tuple[FusedConv, tuple[int, int, int] | None]] = []
        for name, _, window in model.convolutions:
            conv = model.get_submodule(name)
            assert isinstance(conv, nn.Conv3d)
            self._convs.append((FusedConv(conv), window))
            self._dtype = conv.weight.dtype

    def __call__(self, frames: UInt8[Tensor, "N T H W 3"], layers: Sequence[str]) -> dict[str, Float[Tensor, "N ..."]]:
        """As ``forward_features``, of uint8 RGB frames.

        Raises:
            Pseudo3dError: unknown layers, or clips of a shape that the network does not take.
        """
        check_layers(layers, self._model.layers)
        n, steps, height, width, channels = frames.shape
        check_clips_of_size(torch.empty(n, channels, steps, height, width, device="meta"), 3, CLIP)
        inputs = to_input(frames, self._model.preprocessing, self._model.mean_volume)
        x = torch.cat([self._convolved(clip) for clip in inputs.to(self._dtype).split(1)])
        convolved = self._model.layers[0]
        features = {convolved: x}
        if set(layers) != {convolved}:
            self._model.classify(x, features, layers)
        return {name: value for name, value in features.items() if name in layers}

    def _convolved(self, x: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N C t h w"]:
        for conv, window in self._convs:
            x = conv(x)
            if window is not None:
                x = F.max_pool3d(x, window, window, ceil_mode=True)
        return x


@functools.cache
def convolutions_can_be_fused() -> bool:
    """Whether this PyTorch has oneDNN's fused convolutions, with the arguments that are used here.

    They are made for PyTorch's own compiler and are not promised to stay; one small convolution with an addition,
    compared with the plain one, tells.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    with torch.random.fork_rng(devices=[]), torch.inference_mode():  # whose chance is none of our business
        conv = nn.Conv2d(16, 16, 3, padding=1)
        x, other = (torch.randn(2, 16, 5, 5).contiguous(memory_format=torch.channels_last) for _ in range(2))
        try:
            fused = FusedConv(conv)(x, add=other)
            onto = FusedConv(conv)(x, onto=other.clone())
        except (AttributeError, RuntimeError, TypeError):  # no such operator, or with other arguments
            return False
        expected = torch.relu(conv(x) + other)
        return torch.allclose(fused, expected, atol=1e-5) and torch.allclose(onto, expected, atol=1e-5)
