"""The bottlenecks of P3D ResNet, computed by 2-D convolutions on one channels-last layout.

Activations are held as (N*T, C, H, W) tensors in channels-last memory, which is the memory of (N, T, H, W, C):

    spatial  S  1x3x3   conv2d 3x3 on    (N*T, C, H, W)        a batch of frames
    temporal T  3x1x1   conv2d (3,1) on  (N, C, T, H*W)        the same memory, seen as a batch of clips
    1x1x1, pooling      on either

so that no 3-D convolution is needed and going from frames to clips and back copies nothing. Conv3d is slow on
processors and has had wrong bf16 results on GPUs.
"""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor, nn

BlockKind = Literal["2D", "A", "B", "C"]
Style = Literal["caffe", "torchvision", "port"]

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


def temporal_max_pool(frames: Float[Tensor, "NT C H W"]) -> Float[Tensor, "half C H W"]:
    """Max over pairs of neighbouring steps (kernel 2, stride 2). The number of steps must be even."""
    # Rows are ordered by clip, then step, and the step count is even: row pairs are pairs of steps of one clip.
    # (torch.maximum is a little faster forwards and several times slower backwards, where it divides ties.)
    height, width = frames.shape[2:]
    return spatial_view(F.max_pool2d(temporal_view(frames, 2), (2, 1)), height, width)


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
        x = F.relu(self.bn_conv1(self.conv1(frames)))
        if pool_time:
            # max is associative: pairs of steps first, so that the spatial pooling has half as much to do
            x = temporal_max_pool(x)
        if self.style == "caffe":
            return F.max_pool2d(x, 3, stride=2, ceil_mode=True)
        return F.max_pool2d(x, 3, stride=2, padding=1)


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

    def temporal(self, x: Float[Tensor, "NT C H W"], num_steps: int) -> Float[Tensor, "NT C h w"]:
        """T: the 3x1x1 convolution (spatial stride ``stride_t``), its batch norm, and in style "port" a ReLU."""
        if self.stride_t != 1:
            # a 1x1 spatial window with a stride is a choice of pixels
            x = x[:, :, :: self.stride_t, :: self.stride_t]
        height, width = x.shape[2:]
        t = spatial_view(self.bn_t(self.conv_t(temporal_view(x, num_steps))), height, width)
        return F.relu(t) if self.rectify_t else t

    def middle(self, a: Float[Tensor, "NT C H W"], num_steps: int) -> Float[Tensor, "NT C h w"]:
        """What stands between the two 1x1x1 convolutions, after its last ReLU."""
        s = F.relu(self.bn_s(self.conv_s(a)))
        match self.kind:
            case "2D":
                return s
            case "A":
                return F.relu(self.temporal(s, num_steps))
            case "B":
                return F.relu(s + self.temporal(a, num_steps))
            case "C":
                return F.relu(self.share * s + self.share * self.temporal(s, num_steps))

    def forward(self, x: Float[Tensor, "NT C H W"], num_steps: int) -> Float[Tensor, "NT D h w"]:
        """(N*T, C, H, W) -> (N*T, 4 mid_channels, H / stride, W / stride); ``num_steps`` is T."""
        a = F.relu(self.bn_a(self.conv_a(x)))
        c = self.bn_c(self.conv_c(self.middle(a, num_steps)))
        shortcut = self.bn_shortcut(self.conv_shortcut(x)) if self.has_projection else x
        return F.relu(c + shortcut)


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

    def forward(self, x: Float[Tensor, "NT C H W"], num_steps: int) -> Float[Tensor, "NT D h w"]:
        """(N*T, C, H, W) -> (N*T, 4 mid_channels, H / stride, W / stride); ``num_steps`` is T."""
        for block in self:
            x = block(x, num_steps)
        return x


def initialise(model: nn.Module) -> None:
    """Random weights for training from scratch: He et al. (2015) for convolutions, a small Gaussian for the head."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
