"""The frame baseline: a 2-D ResNet that looks at each frame by itself (the paper's ResNet-50 and ResNet-152 rows)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor, nn

from pseudo3d.models.blocks import EXPANSION, Stage, Stem, Style, clip_to_frames, frames_to_clip, initialise
from pseudo3d.models.interface import check_clips, check_layers, classify
from pseudo3d.preprocessing import Preprocessing

if TYPE_CHECKING:
    from pseudo3d.models import Architecture


class FrameResNet(nn.Module):
    """Bottleneck ResNet on the frames of a clip; pool5 and logits are averaged over the frames.

    Args:
        depths: number of blocks in res2, res3, res4, res5: (3, 4, 6, 3) for 50 layers.
        num_classes: outputs of ``fc``.
        in_channels: 3, or 2 for flow.
        style: "caffe" (He et al.'s release) or "torchvision" (see ``Bottleneck`` and ``Stem``).
        dropout: rate before ``fc``; only in training.
        preprocessing: what the weights expect of their frames.

    Example:
        >>> import torch, pseudo3d
        >>> model = pseudo3d.create_model("resnet14", num_classes=8).eval()
        >>> model(torch.zeros(2, 3, 5, 64, 64)).shape
        torch.Size([2, 8])
    """

    layers = ("res2", "res3", "res4", "res5", "pool5", "logits", "prob")
    architecture: "Architecture"
    class_names: tuple[str, ...] | None = None

    def __init__(
        self,
        depths: Sequence[int],
        num_classes: int,
        *,
        in_channels: int,
        style: Style,
        dropout: float,
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.stem = Stem(in_channels, style)
        stages, channels = [], 64
        for depth, mid_channels in zip(depths, (64, 128, 256, 512), strict=True):
            stride = 1 if mid_channels == 64 else 2
            stages.append(Stage(channels, mid_channels, kinds=["2D"] * depth, stride=stride, style=style))
            channels = mid_channels * EXPANSION
        self.res2, self.res3, self.res4, self.res5 = stages
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, clips: Tensor) -> Float[Tensor, "N classes"]:
        """Class scores before the softmax, averaged over the frames of each clip.

        Args:
            clips: (N, C, T, H, W), floating point, preprocessed, T >= 1, H and W at least 32.

        Raises:
            ValueError: another shape; the message says which shapes fit.
        """
        return self.forward_features(clips, ("logits",))["logits"]

    def forward_features(self, clips: Tensor, layers: Sequence[str] = ("pool5",)) -> dict[str, Float[Tensor, "N ..."]]:
        """The activations of the named layers, computed no deeper than they ask for.

        Args:
            clips: as for ``forward``.
            layers: out of res2, res3, res4, res5 (after the last ReLU of the stage; (N, C, T, H, W)), pool5, logits,
                prob ((N, D); prob is the softmax of the averaged logits).

        Raises:
            ValueError: an unknown layer, or clips of another shape.
        """
        check_layers(layers, self.layers)
        check_clips(clips, self.stem.conv1.in_channels, 1)
        features: dict[str, Tensor] = {}
        steps = clips.shape[2]
        x = self.stem(clip_to_frames(clips), pool_time=False)
        for name in ("res2", "res3", "res4", "res5"):
            x = getattr(self, name)(x, steps)
            if name in layers:
                features[name] = frames_to_clip(x, steps)
            if len(features) == len(set(layers)):
                return features
        # fc is linear: the score of the mean frame is the mean of the frames' scores
        classify(frames_to_clip(x, steps), self.dropout, self.fc, features, layers)
        return features
