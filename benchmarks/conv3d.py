"""P3D ResNets as modules of plain 3-D convolutions, the way other projects write them: what ours is measured against.

Nothing here is folded, fused or laid out by hand, and clips are (N, C, T, H, W) in memory. The arithmetic is that of
``pseudo3d.models.resnet``, so that the same numbers give the same layers (``tests/test_benchmarks.py``).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pseudo3d.inference.inputs import to_input
from pseudo3d.models.blocks import Bottleneck
from pseudo3d.models.resnet import VideoResNet

STAGES = ("res2", "res3", "res4", "res5")


class Block(nn.Module):
    """A bottleneck of kind A, B, C or 2D, of the sizes and the style of ours."""

    def __init__(self, ours: Bottleneck) -> None:
        super().__init__()
        self.kind, self.share, self.rectify_t = ours.kind, ours.share, ours.rectify_t
        for part in ("a", "s", "t", "c", "shortcut"):
            if hasattr(ours, f"conv_{part}"):
                step = ours.stride_t if part == "t" else None
                self.add_module(f"conv_{part}", conv3d(getattr(ours, f"conv_{part}"), temporal=part == "t", step=step))
                self.add_module(f"bn_{part}", nn.BatchNorm3d(getattr(ours, f"bn_{part}").num_features))

    def temporal(self, x: Tensor) -> Tensor:
        """T: 3x1x1."""
        t = self.bn_t(self.conv_t(x))
        return F.relu(t) if self.rectify_t else t

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, D, T, h, w)."""
        a = F.relu(self.bn_a(self.conv_a(x)))
        y = F.relu(self.bn_s(self.conv_s(a)))
        if self.kind == "A":
            y = F.relu(self.temporal(y))
        elif self.kind == "B":
            y = F.relu(y + self.temporal(a))
        elif self.kind == "C":
            y = F.relu(self.share * y + self.share * self.temporal(y))
        shortcut = self.bn_shortcut(self.conv_shortcut(x)) if hasattr(self, "conv_shortcut") else x
        return F.relu(self.bn_c(self.conv_c(y)) + shortcut)


def conv3d(ours: nn.Conv2d, *, temporal: bool = False, step: int | None = None) -> nn.Conv3d:
    """The 3-D convolution, without a bias, that does what our 2-D one does on frames or, ``temporal``, on steps."""
    size, stride, padding = (tuple(int(n) for n in each) for each in (ours.kernel_size, ours.stride, ours.padding))
    channels = ours.in_channels, ours.out_channels
    if temporal:
        stride = (1, step or 1, step or 1)
        return nn.Conv3d(*channels, (size[0], 1, 1), stride=stride, padding=(padding[0], 0, 0), bias=False)
    return nn.Conv3d(*channels, (1, *size), stride=(1, *stride), padding=(0, *padding), bias=False)


class Conv3dResNet(nn.Module):
    """The network of ``ours``, numbers included, in evaluation mode.

    Args:
        ours: P3D or the frame baseline, any style and blocks; its batch norms not folded.
    """

    def __init__(self, ours: VideoResNet) -> None:
        super().__init__()
        self.style, self.has_time, self.preprocessing = ours.stem.style, ours.has_time, ours.preprocessing
        self.stem = nn.Module()
        self.stem.conv1, self.stem.bn_conv1 = conv3d(ours.stem.conv1), nn.BatchNorm3d(64)
        for name in STAGES:
            self.add_module(name, nn.ModuleList(Block(block) for block in getattr(ours, name)))
        self.fc = nn.Linear(ours.fc.in_features, ours.fc.out_features)
        self.load_state_dict(self.converted(ours.state_dict()))
        self.eval()

    def converted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Our state dict with filters of three dimensions; names are the same."""
        shapes = self.state_dict()
        return {name: value.reshape(shapes[name].shape) for name, value in state.items() if name in shapes}

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """pool5 and logits, (N, 2048) and (N, classes), of clips (N, C, T, H, W)."""
        features = self.forward_features(clips, ("pool5", "logits"))
        return features["pool5"], features["logits"]

    def forward_features(self, clips: Tensor, layers: Sequence[str] = ("pool5",)) -> dict[str, Tensor]:
        """As ours; every layer is computed."""
        out = {}
        steps = 2 if self.has_time else 1
        x = F.relu(self.stem.bn_conv1(self.stem.conv1(clips)))
        if self.style == "caffe":
            x = F.max_pool3d(x, (steps, 3, 3), (steps, 2, 2), ceil_mode=True)
        else:
            x = F.max_pool3d(x, (steps, 3, 3), (steps, 2, 2), padding=(0, 1, 1))
        for name in STAGES:
            for block in getattr(self, name):
                x = block(x)
            out[name] = x
            if self.has_time and name != "res5":
                x = F.max_pool3d(x, (2, 1, 1), (2, 1, 1))
        out["pool5"] = x.mean(dim=(2, 3, 4))
        out["logits"] = self.fc(out["pool5"])
        out["prob"] = out["logits"].softmax(dim=1)
        return {name: out[name] for name in layers}

    def of_frames(self, frames: Tensor) -> Tensor:
        """Clips as the networks of other projects take them, of uint8 (N, T, H, W, 3)."""
        return to_input(frames, self.preprocessing).contiguous()


def random_frames(clips: int, ours: VideoResNet, seed: int = 0) -> Tensor:
    """uint8 (clips, T, H, W, 3) of the network's size."""
    shape = (clips, ours.preprocessing.num_frames, *ours.preprocessing.crop, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
