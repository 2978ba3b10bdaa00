"""The bottlenecks of P3D ResNet, computed by 2-D convolutions on one channels-last layout.

Activations are held as (N*T, C, H, W) tensors in channels-last memory, which is the memory of (N, T, H, W, C):

    spatial  S  1x3x3   conv2d 3x3 on    (N*T, C, H, W)        a batch of frames
    temporal T  3x1x1   conv2d (3,1) on  (N, C, T, H*W)        the same memory, seen as a batch of clips
    1x1x1, pooling      on either

so that no 3-D convolution is needed and going from frames to clips and back copies nothing. Conv3d is slow on
processors and has had wrong bf16 results on GPUs.

Training keeps what the backward pass needs, and passes over memory cost as much as the arithmetic. So

- a frozen batch norm (paper 3.3: all but the first) is computed by the convolution before it (``conv_bn``),
- ReLUs and sums are written over the result of a convolution or batch norm, whose gradients do not need it,
- poolings keep one or two bytes for each result (``temporal_max_pool``, ``Stem``),
- and a stage can keep the inputs of its blocks only and compute the rest again in the backward pass (``Stage``).
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pseudo3d.choices import Style

BlockKind = Literal["2D", "A", "B", "C"]

EXPANSION = 4  # a bottleneck's output has four times its middle's channels


def clip_to_frames(clips: Float[Tensor, "N C T H W"]) -> Float[Tensor, "NT C H W"]:
    """Frames in channels-last memory; a free view when ``clips`` is already (N, T, H, W, C) in memory."""
    n, c, t, h, w = clips.shape
    return clips.permute(0, 2, 3, 4, 1).contiguous().view(n * t, h, w, c).permute(0, 3, 1, 2)


def frames_to_clip(frames: Float[Tensor, "NT C H W"], num_steps: int) -> Float[Tensor, "N C T H W"]:
    """The clips that the frames belong to, ``num_steps`` each; a free view."""
    return frames.unflatten(0, (-1, num_steps)).transpose(1, 2)


def temporal_view(frames: Num[Tensor, "NT C H W"], num_steps: int) -> Num[Tensor, "N C T HW"]:
    """Frames as (N, C, T, H*W), on which a (3, 1) convolution is temporal; free for channels-last frames."""
    nt, c, h, w = frames.shape
    return frames.permute(0, 2, 3, 1).reshape(nt // num_steps, num_steps, h * w, c).permute(0, 3, 1, 2)


def spatial_view(clips: Num[Tensor, "N C T HW"], height: int, width: int) -> Num[Tensor, "NT C H W"]:
    """The inverse of ``temporal_view``."""
    n, c, t, _ = clips.shape
    return clips.permute(0, 2, 3, 1).reshape(n * t, height, width, c).permute(0, 3, 1, 2)


class _LargerOfPairs(torch.autograd.Function):
    """The larger of rows 2i and 2i + 1; the first of equals takes the gradient, as in ``F.max_pool2d``.

    That one keeps its input and eight bytes for each result, ``torch.maximum`` its inputs (and divides ties).
    """

    @staticmethod
    def forward(ctx: Any, frames: Float[Tensor, "NT C H W"]) -> Float[Tensor, "half C H W"]:
        first, second = frames[::2], frames[1::2]
        ctx.save_for_backward(first >= second)
        return torch.maximum(first, second)

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "half C H W"]) -> Float[Tensor, "NT C H W"]:
        gradient = gradient.permute(0, 2, 3, 1)  # as it lies in memory, so that the result does too
        first = gradient * ctx.saved_tensors[0].permute(0, 2, 3, 1)
        return torch.stack([first, gradient - first], 1).flatten(0, 1).permute(0, 3, 1, 2)


def temporal_max_pool(frames: Float[Tensor, "NT C H W"]) -> Float[Tensor, "half C H W"]:
    """Max over pairs of neighbouring steps (kernel 2, stride 2). The number of steps must be even."""
    # Rows are ordered by clip, then step, and the step count is even: row pairs are pairs of steps of one clip.
    if torch.is_grad_enabled() and frames.requires_grad:
        return _LargerOfPairs.apply(frames)
    return torch.maximum(frames[::2], frames[1::2])


class _LargestOfWindows(torch.autograd.Function):
    """``F.max_pool3d`` over all steps and 3x3 pixels, stride 2, that keeps two bytes for each result.

    That one keeps eight and its input. (Planes of more than 2^14 pixels take four.)
    """

    @staticmethod
    def forward(
        ctx: Any, clips: Float[Tensor, "N C T H W"], padding: int, ceil_mode: bool
    ) -> Float[Tensor, "N C 1 h w"]:
        steps, height, width = clips.shape[2:]
        window = ([steps, 3, 3], [steps, 2, 2], [0, padding, padding], [1, 1, 1], ceil_mode)
        pooled, places = torch.ops.aten.max_pool3d_with_indices(clips, *window)
        ctx.save_for_backward(places.to(torch.int16 if steps * height * width <= 2**15 else torch.int32))
        ctx.shape, ctx.window = clips.shape, window
        return pooled

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "N C 1 h w"]) -> tuple[Float[Tensor, "N C T H W"], None, None]:
        # Only the shape and the layout of the input are asked for.
        like = torch.empty(ctx.shape, dtype=gradient.dtype, memory_format=torch.channels_last_3d)
        places = ctx.saved_tensors[0].long()
        return torch.ops.aten.max_pool3d_with_indices_backward(gradient, like, *ctx.window, places), None, None


def stem_max_pool(frames: Float[Tensor, "NT C H W"], style: Style, pool_time: bool) -> Float[Tensor, "rows C h w"]:
    """pool1: max over 3x3 windows with stride 2, and over pairs of steps with ``pool_time``."""
    padding, ceil_mode = (0, True) if style == "caffe" else (1, False)
    if frames.device.type == "cpu" and torch.is_grad_enabled() and frames.requires_grad:
        clips = frames_to_clip(frames, 2) if pool_time else frames.unsqueeze(2)
        return _LargestOfWindows.apply(clips, padding, ceil_mode).squeeze(2)
    # Max is associative: pairs of steps first, so that the spatial pooling has half as much to do. (A 3-D pooling on a
    # GPU adds its gradients up atomically, in any order.)
    x = temporal_max_pool(frames) if pool_time else frames
    return F.max_pool2d(x, 3, 2, padding, ceil_mode=ceil_mode)


def is_frozen(bn: nn.BatchNorm2d) -> bool:
    """Whether a batch norm is a constant: in evaluation mode, neither scale nor shift learned."""
    return not (bn.training or bn.weight.requires_grad or bn.bias.requires_grad)


def conv_bn(
    conv: nn.Module, bn: nn.Module, x: Float[Tensor, "N C H W"], share: float = 1.0
) -> Float[Tensor, "N D h w"]:
    """The product of ``share`` and bn(conv(x)); no gradient needs it, so that it may be written over.

    While gradients are recorded, a frozen batch norm is one convolution with the one before it: its scale multiplies
    the filters and so their gradients. Inference does that once (``inference.fold_batch_norms``).
    """
    if torch.is_grad_enabled() and isinstance(bn, nn.BatchNorm2d) and is_frozen(bn):
        assert isinstance(conv, nn.Conv2d)
        assert bn.running_mean is not None
        assert bn.running_var is not None
        scale = bn.weight * (bn.running_var + bn.eps).rsqrt()
        shift = bn.bias - bn.running_mean * scale
        if share != 1:
            scale, shift = scale * share, shift * share
        return F.conv2d(x, conv.weight * scale.view(-1, 1, 1, 1), shift, conv.stride, conv.padding)
    y = bn(conv(x))
    return y if share == 1 else y.mul_(share)


class Stem(nn.Module):
    """conv1, its batch norm, ReLU and the spatial part of pool1: 1x7x7 stride 2, then max 3x3 stride 2.

    Args:
        in_channels: 3 for RGB or BGR, 2 for flow.
        style: "caffe": pool1 without padding in ceil mode, its windows start at 0 (the release). "torchvision" and
            "port": padded by 1.
    """

    def __init__(self, in_channels: int, style: Style) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn_conv1 = nn.BatchNorm2d(64)
        self.style = style

    def forward(self, frames: Float[Tensor, "NT C H W"], pool_time: bool) -> Float[Tensor, "rows 64 h w"]:
        """(N*T, C, H, W) -> (N*T, 64, h, w), or half as many rows with ``pool_time``."""
        x = conv_bn(self.conv1, self.bn_conv1, frames)
        # ReLU keeps the order of numbers: it comes last, when an eighth of them is left.
        return F.relu(stem_max_pool(x, self.style, pool_time), inplace=True)


class Bottleneck(nn.Module):
    """A residual bottleneck: plain 2-D, or one of the three Pseudo-3D designs (paper section 3.2, figure 3).

    With a = ReLU(BN(1x1x1)), S = ReLU(BN(1x3x3)), T = BN(3x1x1) without a ReLU, and c = BN(1x1x1):

        2D:  c(S(a))
        A:   c(ReLU(T(S(a))))                       equation 3
        B:   c(ReLU(S(a) + T(a)))                   equation 4
        C:   c(ReLU(0.5 S(a) + 0.5 T(S(a))))        equation 5, with the coefficients of the release

    and the output is ReLU(shortcut + c). No convolution has a bias; paddings keep the size. The well-known PyTorch port
    (style "port") computes ReLU(T) in place of T and adds without the 0.5.

    Args:
        in_channels: channels of the input.
        mid_channels: channels of S and T; the output has ``EXPANSION`` times as many.
        kind: "2D", "A", "B" or "C".
        stride: spatial stride of the block.
        style: "caffe" and "port": the stride is on the first 1x1x1. "torchvision": on S, and in B on T too (stride
            1xsxs).
    """

    def __init__(
        self, in_channels: int, mid_channels: int, *, kind: BlockKind, stride: int = 1, style: Style = "caffe"
    ) -> None:
        super().__init__()
        out_channels = mid_channels * EXPANSION
        stride_a, stride_s = (1, stride) if style == "torchvision" else (stride, 1)
        self.kind = kind
        self.rectify_t = style == "port"
        self.share = 1.0 if style == "port" else 0.5  # of each branch in C
        self.conv_a = nn.Conv2d(in_channels, mid_channels, 1, stride=stride_a, bias=False)
        self.bn_a = nn.BatchNorm2d(mid_channels)
        self.conv_s = nn.Conv2d(mid_channels, mid_channels, 3, stride=stride_s, padding=1, bias=False)
        self.bn_s = nn.BatchNorm2d(mid_channels)
        if kind != "2D":
            self.conv_t = nn.Conv2d(mid_channels, mid_channels, (3, 1), padding=(1, 0), bias=False)
            self.bn_t = nn.BatchNorm2d(mid_channels)
            # In A and C, T sees what S has already strided.
            self.stride_t = stride_s if kind == "B" else 1
        self.conv_c = nn.Conv2d(mid_channels, out_channels, 1, bias=False)
        self.bn_c = nn.BatchNorm2d(out_channels)
        self.has_projection = stride != 1 or in_channels != out_channels
        if self.has_projection:
            self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.bn_shortcut = nn.BatchNorm2d(out_channels)

    def temporal(
        self,
        x: Float[Tensor, "NT C H W"],
        num_steps: int,
        *,
        add: Float[Tensor, "NT D h w"] | None = None,
        share: float = 1.0,
    ) -> Float[Tensor, "NT D h w"]:
        """ReLU(share T(x) + share add), where T strides by ``stride_t``, and in style "port" has a ReLU of its own."""
        if self.stride_t != 1:
            # a 1x1 spatial window with a stride is a choice of pixels
            x = x[:, :, :: self.stride_t, :: self.stride_t]
        height, width = x.shape[2:]
        # Everything is done in T's layout: writing over a view would copy in the backward pass.
        t = conv_bn(self.conv_t, self.bn_t, temporal_view(x, num_steps), share)
        if add is not None:
            other = temporal_view(add, num_steps)
            t = F.relu(t).add(other, alpha=share) if self.rectify_t else t.add_(other, alpha=share)
        return spatial_view(F.relu(t, inplace=True), height, width)

    def middle(self, a: Float[Tensor, "NT C H W"], num_steps: int) -> Float[Tensor, "NT C h w"]:
        """What stands between the two 1x1x1 convolutions, after its last ReLU."""
        s = F.relu(conv_bn(self.conv_s, self.bn_s, a), inplace=True)
        match self.kind:
            case "2D":
                return s
            case "A":
                return self.temporal(s, num_steps)
            case "B":
                return self.temporal(a, num_steps, add=s)
            case "C":
                return self.temporal(s, num_steps, add=s, share=self.share)

    def forward(self, x: Float[Tensor, "NT C H W"], num_steps: int) -> Float[Tensor, "NT D h w"]:
        """(N*T, C, H, W) -> (N*T, 4 mid_channels, H / stride, W / stride); ``num_steps`` is T."""
        a = F.relu(conv_bn(self.conv_a, self.bn_a, x), inplace=True)
        c = conv_bn(self.conv_c, self.bn_c, self.middle(a, num_steps))
        shortcut = conv_bn(self.conv_shortcut, self.bn_shortcut, x) if self.has_projection else x
        return F.relu(c.add_(shortcut), inplace=True)


def recomputed(block: nn.Module, x: Float[Tensor, "NT C H W"], num_steps: int) -> Float[Tensor, "NT D h w"]:
    """``block(x, num_steps)``, of which only ``x`` is kept: the backward pass computes the block again.

    A batch norm that learns has the same statistics the second time, and does not count them twice.
    """
    learning = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d) and m.training]

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), _buffers_kept(learning)

    if learning:
        return checkpoint(block, x, num_steps, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    return checkpoint(block, x, num_steps, use_reentrant=False, preserve_rng_state=False)  # torch.compile takes this


@contextmanager
def _buffers_kept(norms: Sequence[nn.BatchNorm2d]) -> Iterator[None]:
    """What batch norms do to their running statistics inside is forgotten."""
    buffers = [(bn, name, buffer) for bn in norms for name, buffer in bn.named_buffers(recurse=False)]
    for bn, name, buffer in buffers:
        setattr(bn, name, buffer.clone())
    try:
        yield
    finally:
        for bn, name, buffer in buffers:
            setattr(bn, name, buffer)


class Stage(nn.ModuleList):
    """Bottlenecks of one width, one after the other; the first one strides and projects.

    Args:
        in_channels: channels of the stage's input.
        mid_channels: middle channels of every block.
        kinds: the kind of each block, in order.
        stride: spatial stride of the first block.
        style: see ``Bottleneck``.
    """

    def __init__(
        self, in_channels: int, mid_channels: int, *, kinds: list[BlockKind], stride: int, style: Style
    ) -> None:
        first = Bottleneck(in_channels, mid_channels, kind=kinds[0], stride=stride, style=style)
        width = mid_channels * EXPANSION
        rest = [Bottleneck(width, mid_channels, kind=kind, style=style) for kind in kinds[1:]]
        super().__init__([first, *rest])

    def forward(
        self, x: Float[Tensor, "NT C H W"], num_steps: int, recompute: bool = False
    ) -> Float[Tensor, "NT D h w"]:
        """(N*T, C, H, W) -> (N*T, 4 mid_channels, H / stride, W / stride).

        Args:
            x: frames.
            num_steps: T.
            recompute: keep the blocks' inputs only for the backward pass (``recomputed``).
        """
        for block in self:
            x = recomputed(block, x, num_steps) if recompute else block(x, num_steps)
        return x


def initialise(model: nn.Module) -> None:
    """Random weights for training from scratch: He et al. (2015) for convolutions, a small Gaussian for the head."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
