"""P3D ResNet (paper section 3.3) as the authors released it, and the frame baseline: the same network without time.

    clip 3 x 16 x 160 x 160
      conv1, pool1        64 x  8 x 40 x 40
      res2  blocks ABC.. 256 x  8 x 40 x 40   then max over pairs of steps
      res3  blocks ABC.. 512 x  4 x 20 x 20   then max over pairs of steps
      res4  blocks ABC..1024 x  2 x 10 x 10   then max over pairs of steps
      res5  plain 2-D   2048 x  1 x  5 x  5
      pool5             2048                  the representation
      fc, softmax       classes

The paper speaks of replacing every residual unit; the release leaves res5 two-dimensional, and only the release fits
the sizes of Table 1. The frame baseline (the paper's ResNet-50 and ResNet-152 rows) has plain 2-D blocks everywhere and
pools no time: it looks at each frame by itself and averages over them at the end.
"""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pseudo3d.choices import Style
from pseudo3d.models.blocks import (
    EXPANSION,
    BlockKind,
    Stage,
    Stem,
    clip_to_frames,
    frames_to_clip,
    initialise,
    temporal_max_pool,
)
from pseudo3d.models.interface import check_clips, check_layers, classify
from pseudo3d.preprocessing import Preprocessing

if TYPE_CHECKING:
    from pseudo3d.models import Architecture

STEPS_PER_OUTPUT = 16  # of P3D: four temporal poolings by 2


class VideoResNet(nn.Module):
    """Bottleneck ResNet over clips: class scores and representations.

    Args:
        depths: number of blocks in res2, res3, res4, res5: (3, 8, 36, 3) for 152 layers.
        num_classes: outputs of ``fc``.
        blocks: a string over A, B and C, cycled over res2 to res4 by one counter ("ABC" is the paper's P3D ResNet);
            None for the frame baseline.
        in_channels: 3, or 2 for flow.
        style: "caffe" is the authors' network, "torchvision" the one that torchvision's ResNet weights fit, "port" what
            the well-known PyTorch port computes (see ``Bottleneck`` and ``Stem``).
        dropout: rate before ``fc``; only in training.
        preprocessing: what the weights expect of their clips.

    Attributes:
        checkpoint_activations: in training, each bottleneck is computed again in the backward pass instead of kept:
            less memory, about a third more arithmetic, the same result.

    Example:
        >>> import torch, pseudo3d
        >>> model = pseudo3d.create_model("p3d_resnet14", num_classes=8).eval()
        >>> model(torch.zeros(2, 3, 16, 32, 32)).shape
        torch.Size([2, 8])
        >>> model.forward_features(torch.zeros(2, 3, 16, 32, 32), ("res4", "pool5"))["res4"].shape
        torch.Size([2, 1024, 2, 2, 2])
        >>> pseudo3d.create_model("resnet14", num_classes=8).eval()(torch.zeros(2, 3, 5, 64, 64)).shape
        torch.Size([2, 8])
    """

    layers = ("res2", "res3", "res4", "res5", "pool5", "logits", "prob")
    head_name = "fc"
    full_precision_parts = ("fc",)  # see ``interface.classify``
    mean_volume = None  # one mean for each channel is enough: ``preprocessing.mean``
    architecture: "Architecture"
    class_names: tuple[str, ...] | None = None
    checkpoint_activations: bool = False

    def __init__(
        self,
        depths: Sequence[int],
        num_classes: int,
        *,
        blocks: str | None,
        in_channels: int,
        style: Style,
        dropout: float,
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.has_time = blocks is not None
        # Weights of another style or block order have the same names and shapes: a state dict says what it is for.
        self.register_buffer("layout", torch.tensor(list(f"{style} {blocks or '2D'}".encode()), dtype=torch.uint8))
        self.stem = Stem(in_channels, style)
        kinds = cast("itertools.cycle[BlockKind]", itertools.cycle(blocks or ["2D"]))  # one counter for all stages
        stages, channels = [], 64
        for depth, mid_channels in zip(depths[:3], (64, 128, 256), strict=True):
            stride = 1 if mid_channels == 64 else 2
            stage_kinds = list(itertools.islice(kinds, depth))
            stages.append(Stage(channels, mid_channels, kinds=stage_kinds, stride=stride, style=style))
            channels = mid_channels * EXPANSION
        self.res2, self.res3, self.res4 = stages
        self.res5 = Stage(channels, 512, kinds=["2D"] * depths[3], stride=2, style=style)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(512 * EXPANSION, num_classes)
        initialise(self)

    def forward(self, clips: Tensor) -> Float[Tensor, "N classes"]:
        """Class scores before the softmax; the frame baseline's are averaged over the frames of each clip.

        Args:
            clips: (N, C, T, H, W), floating point, preprocessed, H and W at least 32. P3D takes T = 16k: res5 runs on
                the k remaining steps and pool5 averages over time and space. The frame baseline takes any T.

        Raises:
            Pseudo3dError: (a ValueError) another shape; the message says which shapes fit.
        """
        return self.forward_features(clips, ("logits",))["logits"]

    def forward_features(self, clips: Tensor, layers: Sequence[str] = ("pool5",)) -> dict[str, Float[Tensor, "N ..."]]:
        """The activations of the named layers, computed no deeper than they ask for.

        Args:
            clips: as for ``forward``.
            layers: out of res2, res3, res4, res5 (after the last ReLU of the stage and before the temporal pooling;
                (N, C, T, H, W)), pool5, logits, prob ((N, D); prob is the softmax of logits).

        Raises:
            Pseudo3dError: (a ValueError) an unknown layer, or clips of another shape.
        """
        check_layers(layers, self.layers)
        check_clips(clips, self.stem.conv1.in_channels, STEPS_PER_OUTPUT if self.has_time else 1)
        features: dict[str, Tensor] = {}
        steps = clips.shape[2] // 2 if self.has_time else clips.shape[2]
        recompute = self.checkpoint_activations and torch.is_grad_enabled()
        x = self.stem(clip_to_frames(clips), pool_time=self.has_time)
        for name in ("res2", "res3", "res4", "res5"):
            x = getattr(self, name)(x, steps, recompute)
            if name in layers:
                features[name] = frames_to_clip(x, steps)
                x = clip_to_frames(features[name])  # free; what is returned is what later layers, and gradients, see
            if len(features) == len(set(layers)):
                return features
            if self.has_time and name != "res5":
                x, steps = temporal_max_pool(x), steps // 2
        # fc is linear: the score of the mean frame is the mean of the frames' scores
        classify(frames_to_clip(x, steps), self.dropout, self.fc, features, layers)
        return features
